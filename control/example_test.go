package control_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// tank is a level z that drains with rate θ and is filled with u(t).
func tank[T field.Number](_ T, z, u, theta, dz []T) { dz[0] = u[0] - theta[0]*z[0] }

// Two tanks that are filled by valves of their own, and how much their levels at the
// end depend on the openings: the gradient with respect to the knots' values.
func ExampleNew() {
	valves, err := control.NewSignal(control.Constant, 1,
		control.Series[float64]{Times: []float64{0, 1, 2, 3}, Values: []float64{1, 0, 2, 0}},
		control.Series[float64]{Times: []float64{0, 1.5, 3}, Values: []float64{0, 3, 0}})
	if err != nil {
		panic(err)
	}
	f := control.NewFunc(1, 1, []float64{0.5}, tank[float64], tank[field.Dual])
	sys, err := control.New(f, valves, control.Settings{Learn: true})
	if err != nil {
		panic(err)
	}
	dev := cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New(dev, sys, solver.Settings{Breakpoints: valves.Breakpoints()})
	if err != nil {
		panic(err)
	}
	defer s.Close()

	ctx := context.Background()
	sol, err := s.Solve(ctx, []float64{0, 0}, []float64{0, 1, 2, 3})
	if err != nil {
		panic(err)
	}
	for b := range sol.Batch {
		fmt.Printf("tank %d:", b)
		for i := range sol.Times {
			fmt.Printf(" %.4f", sol.Sample(i, b)[0])
		}
		fmt.Println()
	}
	dLdz := make([]float64, len(sol.Y))
	dLdz[len(dLdz)-2], dLdz[len(dLdz)-1] = 1, 1 // L = sum of the levels at t = 3
	g, err := adjoint.Gradients(ctx, s, sol, dLdz)
	if err != nil {
		panic(err)
	}
	rate, openings := sys.Split(g.Theta)
	fmt.Printf("dL/dθ = %.4f\n", rate)
	for b := range sol.Batch {
		fmt.Printf("dL/du of valve %d: %.4f\n", b, valves.SampleValues(openings, b))
	}
	// Output:
	// tank 0: 0.0000 0.7869 0.4773 1.8634
	// tank 1: 0.0000 0.0000 1.3272 3.1658
	// dL/dθ = [-3.5137]
	// dL/du of valve 0: [0.2895 0.4773 0.7869 0.0000]
	// dL/du of valve 1: [0.4985 1.0553 0.0000]
}

// A neural controlled differential equation: the path that drives it is data, with
// time as a channel of its own.
func ExampleCDE() {
	data := control.Series[float32]{Times: []float64{0, 0.4, 1, 1.3, 2}}
	for i, t := range data.Times {
		data.Values = append(data.Values, float32(t), []float32{0, 0.8, 0.3, -0.5, 0.1}[i])
	}
	x, err := control.NewSignal(control.Hermite, 2, data)
	if err != nil {
		panic(err)
	}
	model, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 3, 16, 3*2), mlp.Init{}, 1) // F: D → D·C
	if err != nil {
		panic(err)
	}
	sys, err := control.New(model, x, control.Settings{Form: control.CDE})
	if err != nil {
		panic(err)
	}
	dev := cpu.New[float32]()
	defer dev.Close()
	s, err := solver.New(dev, sys, solver.Settings{RTol: 1e-6, ATol: 1e-8})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float32{1, 0, 0}, []float64{0, 1, 2})
	if err != nil {
		panic(err)
	}
	fmt.Printf("z(1) = %.3f, z(2) = %.3f\n", sol.State(1), sol.State(2))

	_, err = s.Solve(context.Background(), []float32{1, 0, 0}, []float64{0, 3})
	fmt.Println("beyond the last knot:", errors.Is(err, control.ErrOutside))
	// Output:
	// z(1) = [0.813 -0.045 0.394], z(2) = [0.639 0.209 0.590]
	// beyond the last knot: true
}

// A signal between its knots.
func ExampleSignal_At() {
	for kind := control.Constant; kind <= control.NaturalCubic; kind++ {
		s, err := control.NewSignal(kind, 1, control.Series[float64]{Times: []float64{0, 1, 2, 4}, Values: []float64{0, 1, 0, 2}})
		if err != nil {
			panic(err)
		}
		u, du := make([]float64, 1), make([]float64, 1)
		fmt.Printf("%-14v", kind)
		for _, t := range []float64{0.5, 1.5, 3} {
			if err := s.At(0, t, u, du, nil); err != nil {
				panic(err)
			}
			fmt.Printf("  u(%.1f) = %6.3f, u' = %6.3f", t, u[0], du[0])
		}
		fmt.Println()
	}
	// Output:
	// constant        u(0.5) =  0.000, u' =  0.000  u(1.5) =  1.000, u' =  0.000  u(3.0) =  0.000, u' =  0.000
	// linear          u(0.5) =  0.500, u' =  1.000  u(1.5) =  0.500, u' = -1.000  u(3.0) =  1.000, u' =  1.000
	// hermite         u(0.5) =  0.500, u' =  1.000  u(1.5) =  0.750, u' = -1.500  u(3.0) =  0.500, u' =  1.500
	// natural cubic   u(0.5) =  0.728, u' =  1.152  u(1.5) =  0.565, u' = -1.261  u(3.0) =  0.348, u' =  1.217
}

// A function that reads its signal, with its derivatives: the signal is the third argument.
func ExampleNewFunc() {
	f := control.NewFunc(1, 1, []float64{0.5}, tank[float64], tank[field.Dual])
	x, theta := []float64{4, 3}, f.Params() // x = [z, u]
	dz, ax, atheta := make([]float64, 1), make([]float64, 2), make([]float64, 1)
	f.Eval(0, x, theta, dz)
	f.VJP(0, x, theta, []float64{1}, ax, atheta)
	fmt.Println("f =", dz, " ∂f/∂[z, u] =", ax, " ∂f/∂θ =", atheta)
	// Output:
	// f = [1]  ∂f/∂[z, u] = [-0.5 1]  ∂f/∂θ = [-4]
}
