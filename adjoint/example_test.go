package adjoint_test

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func decay[T field.Number](_ T, z, theta, dz []T) { dz[0] = -theta[0] * z[0] }

// The gradient of L = z(1) where z' = -θz, which is known: z(1) = z0·e^-θ.
func ExampleGradients() {
	ctx := context.Background()
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(1, []float64{2}, decay[float64], decay[field.Dual]), solver.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	sol, err := s.Solve(ctx, []float64{1}, []float64{0, 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := adjoint.Gradients(ctx, s, sol, []float64{0, 1}) // ∂L/∂z(0), ∂L/∂z(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("dL/dz0 = %.4f, dL/dθ = %.4f, dL/dt = %.4f\n", g.Z0[0], g.Theta[0], g.Times)
	// Output:
	// dL/dz0 = 0.1353, dL/dθ = -0.1353, dL/dt = [0.2707 -0.2707]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A solve and its gradient, without solving twice: z' = -θz in two samples, L = Σ z(1)².
func ExampleAdjoint_Solve() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(1, []float64{2}, decay[float64], decay[field.Dual]), solver.Settings{})
	check(err)
	defer s.Close()
	z0, ts := []float64{1, 3}, []float64{0, 1}
	dLdz := make([]float64, 4)

	adj, err := adjoint.New(s, adjoint.Settings{})
	check(err)
	defer adj.Close()
	sol, err := adj.Solve(ctx, z0, ts) // as s.Solve, and keeps what the gradient needs
	check(err)
	for b, z := range sol.Final() {
		dLdz[2+b] = 2 * z // ∂L/∂z of L = Σ z(1)², laid out as sol.Y
	}
	g, err := adj.Gradients(ctx, sol, dLdz) // g.Z0, g.Theta, g.Times
	check(err)
	fmt.Printf("dL/dz0 = %.4f, dL/dθ = %.4f\n", g.Z0, g.Theta)
	// Output:
	// dL/dz0 = [0.0366 0.1099], dL/dθ = [-0.3663]
}

// A descent step on a Neural ODE: an Adjoint keeps its memory from one gradient to
// the next.
func ExampleAdjoint_Gradients() {
	ctx := context.Background()
	dev := solver.Auto[float64]()
	defer dev.Close()
	model, _ := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	s, err := solver.New(dev, model, solver.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()

	target := []float64{0, 1}
	var first, last float64
	for i := range 50 {
		sol, err := s.Solve(ctx, []float64{1, 0}, []float64{0, 1})
		if err != nil {
			fmt.Println(err)
			return
		}
		// L = ½·‖z(1) - target‖²
		dLdz, loss := make([]float64, len(sol.Y)), 0.0
		for j, z := range sol.Final() {
			dLdz[2+j] = z - target[j]
			loss += dLdz[2+j] * dLdz[2+j] / 2
		}
		g, err := a.Gradients(ctx, sol, dLdz)
		if err != nil {
			fmt.Println(err)
			return
		}
		for j, d := range g.Theta {
			model.Theta[j] -= 0.1 * d
		}
		if err := s.SetParams(model.Theta); err != nil {
			fmt.Println(err)
			return
		}
		if i == 0 {
			first = loss
		}
		last = loss
	}
	fmt.Printf("the loss fell by a factor above 100: %v\n", last < first/100)
	// Output:
	// the loss fell by a factor above 100: true
}

// A gradient beside finite differences of the loss and a second method.
func ExampleCheck() {
	dev := solver.Auto[float64]()
	defer dev.Close()
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	check(err)
	s, err := solver.New(dev, model, solver.Settings{RTol: 1e-9, ATol: 1e-9})
	check(err)
	defer s.Close()
	report, err := adjoint.Check(context.Background(), s, adjoint.Settings{}, []float64{1, 0, 0, 2}, []float64{0, 1}, adjoint.CheckSettings[float64]{
		Loss: func(y, dLdy []float64) (loss float64) { // ½·Σ z², over all samples and times
			for i, z := range y {
				loss += z * z / 2
				dLdy[i] = z
			}
			return loss
		},
		Directions: 2,
	})
	check(err) // says what does not agree
	for _, d := range report.Directions {
		fmt.Printf("along a direction of %-2s the error is below 1e-6: %v\n", d.Of, d.Error < 1e-6)
	}
	fmt.Printf("%v and %v differ by less than 1e-6: %v\n", report.Method, report.Second, report.Difference.Theta < 1e-6)
	// Output:
	// along a direction of z0 the error is below 1e-6: true
	// along a direction of θ  the error is below 1e-6: true
	// along a direction of z0 the error is below 1e-6: true
	// along a direction of θ  the error is below 1e-6: true
	// discrete and continuous differ by less than 1e-6: true
}

// The second derivative of L = ½·z(1)² with respect to the rate of z' = -θz, by one
// product: z(1) = e^-θ, so that d²L/dθ² = 2·e^-2θ.
func ExampleHessianVector() {
	dev := solver.Auto[float64]()
	defer dev.Close()
	f := &field.Custom[float64]{
		N: 1, Theta: []float64{0.5},
		F: func(_ float64, z, theta, dz []float64) { dz[0] = -theta[0] * z[0] },
		BackF: func(_ float64, z, theta, a, az, atheta []float64) float64 {
			az[0] = -theta[0] * a[0]
			if atheta != nil {
				atheta[0] -= z[0] * a[0]
			}
			return 0
		},
		ForwardF: func(_ float64, z, theta, v, w, jv []float64) { jv[0] = -theta[0]*v[0] - z[0]*w[0] },
		SecondF: func(_ float64, z, theta, a, v, b, w, bz, btheta []float64) {
			bz[0] = -theta[0]*b[0] - w[0]*a[0]
			if btheta != nil {
				btheta[0] -= z[0]*b[0] + v[0]*a[0]
			}
		},
	}
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-10, ATol: 1e-10})
	check(err)
	defer s.Close()
	h, err := adjoint.HessianVector(context.Background(), s, []float64{1}, []float64{0, 1}, adjoint.Tangent[float64]{Theta: []float64{1}},
		func(y, dy, dLdy, d2Ldy []float64) { // y = [z(0), z(1)]
			dLdy[1], d2Ldy[1] = y[1], dy[1]
		})
	check(err)
	fmt.Printf("dL/dθ = %.6f, d²L/dθ² = %.6f, exactly %.6f\n", h.GradTheta[0], h.Theta[0], 2*math.Exp(-1))
	// Output:
	// dL/dθ = -0.367879, d²L/dθ² = 0.735759, exactly 0.735759
}

// How the time at which a ball reaches the ground depends on the altitude and the speed
// that it has at first: t* = (v + √(v² + 2gh))/g.
func ExampleAdjoint_GradientsEvents() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	ground := solver.NewEvent(nil, altitude[float64], altitude[field.Dual], nil, nil)
	ground.Direction, ground.Terminal = solver.Falling, true
	s, err := solver.New(dev, field.New(2, []float64{8}, falling[float64], falling[field.Dual]), solver.Settings{Stepping: solver.PerSample}, ground)
	check(err)
	defer s.Close()
	adj, err := adjoint.New(s, adjoint.Settings{})
	check(err)
	defer adj.Close()
	sol, err := adj.Solve(ctx, []float64{3, 4}, []float64{0, 5})
	check(err)
	g, err := adj.GradientsEvents(ctx, sol, make([]float64, len(sol.Y)), [][]adjoint.EventCotangent[float64]{{{T: 1}}})
	check(err)
	fmt.Printf("t* = %.4f, ∂t*/∂h = %.4f, ∂t*/∂v = %.4f, ∂t*/∂g = %.4f\n", sol.Events[0][0].T, g.Z0[0], g.Z0[1], g.Theta[0])
	// Output:
	// t* = 1.5000, ∂t*/∂h = 0.1250, ∂t*/∂v = 0.1875, ∂t*/∂g = -0.1406
}

// falling is altitude and speed of a ball under the acceleration θ.
func falling[T field.Number](_ T, z, theta, dz []T) { dz[0], dz[1] = z[1], -theta[0] }

func altitude[T field.Number](_ T, z, _ []T) T { return z[0] }
