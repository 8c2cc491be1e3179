package adjoint_test

import (
	"context"
	"fmt"

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
