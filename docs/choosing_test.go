package docs_test

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func lotkaVolterra[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

// predators are prey and predators over 20 units of time, some three cycles.
func predators() (f *field.Generic[float64], z0, ts []float64) {
	return field.New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual]), []float64{1, 1}, []float64{0, 20}
}

// The error at the end, by solving again.
func Example_error() {
	ctx, dev := context.Background(), cpu.New[float64]()
	defer dev.Close()
	f, z0, ts := predators()

	final := func(rtol, atol float64) []float64 {
		s, err := solver.New(dev, f, solver.Settings{RTol: rtol, ATol: atol})
		check(err)
		defer s.Close()
		sol, err := s.Solve(ctx, z0, ts)
		check(err)
		return sol.Final()
	}
	z, fine := final(1e-6, 1e-8), final(1e-8, 1e-10)
	fmt.Printf("z(20) = %.4f, errors %.0e and %.0e\n", z, math.Abs(z[0]-fine[0]), math.Abs(z[1]-fine[1]))
	// Output:
	// z(20) = [1.0577 0.8287], errors 5e-06 and 8e-06
}

// What outputs cost: evaluations of f with two outputs and with a thousand.
func Example_outputs() {
	ctx, dev := context.Background(), cpu.New[float64]()
	defer dev.Close()
	f, z0, _ := predators()
	many := make([]float64, 1001)
	for i := range many {
		many[i] = 20 * float64(i) / 1000
	}
	for _, m := range []solver.Method{solver.Tsit5, solver.Vern7, solver.Dopri8} {
		s, err := solver.New(dev, f, solver.Settings{Method: m, RTol: 1e-9, ATol: 1e-9})
		check(err)
		few, err := s.Solve(ctx, z0, []float64{0, 20})
		check(err)
		all, err := s.Solve(ctx, z0, many)
		check(err)
		fmt.Printf("%-6v  %d  %d\n", m, few.Evaluations(), all.Evaluations())
		check(s.Close())
	}
	// Output:
	// tsit5   3980  3980
	// vern7   2536  3731
	// dopri8  2278  2774
}

// Gradients by two methods, and what the forward solve's steps take of memory.
func Example_gradients() {
	ctx, dev := context.Background(), cpu.New[float64]()
	defer dev.Close()
	f, z0, ts := predators()
	s, err := solver.New(dev, f, solver.Settings{})
	check(err)
	defer s.Close()

	for _, set := range []adjoint.Settings{
		{},                      // Discrete
		{Store: adjoint.States}, // stages are evaluated again
		{Budget: 4 << 10},       // bytes; steps are made again
		{Method: adjoint.Continuous},
	} {
		adj, err := adjoint.New(s, set)
		check(err)
		sol, err := adj.Solve(ctx, z0, ts)
		check(err)
		g, err := adj.Gradients(ctx, sol, []float64{0, 0, 1, 1}) // of z₀(20) + z₁(20)
		check(err)
		fmt.Printf("dL/dz0 = %.4f, %4d evaluations backwards, %5d bytes\n", g.Z0, g.Stats[0].Evaluations, g.Memory)
		check(adj.Close())
	}
	// Output:
	// dL/dz0 = [-1.6589 0.0350], 1147 evaluations backwards, 51880 bytes
	// dL/dz0 = [-1.6589 0.0350], 2484 evaluations backwards, 28712 bytes
	// dL/dz0 = [-1.6589 0.0350], 4320 evaluations backwards,  3904 bytes
	// dL/dz0 = [-1.6590 0.0350], 1598 evaluations backwards,     0 bytes
}

// Certainty about a gradient.
func Example_check() {
	ctx, dev := context.Background(), cpu.New[float64]()
	defer dev.Close()
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	check(err)
	s, err := solver.New(dev, model, solver.Settings{RTol: 1e-9, ATol: 1e-9})
	check(err)
	defer s.Close()

	report, err := adjoint.Check(ctx, s, adjoint.Settings{}, []float64{1, 0}, []float64{0, 1, 2}, adjoint.CheckSettings[float64]{})
	check(err) // it does not agree
	fmt.Println(report.OK, report.Method, report.Second)
	// Output:
	// true discrete continuous
}
