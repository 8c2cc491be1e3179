package docs_test

import (
	"context"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func Example_solveAndGradient() {
	ctx := context.Background()
	dev := solver.Auto[float64]()
	defer dev.Close()

	f := field.New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual])
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-8, ATol: 1e-8})
	check(err)
	sol, err := s.Solve(ctx, []float64{1, 1}, []float64{0, 5, 10})
	check(err)
	dLdz := make([]float64, len(sol.Y)) // [times, batch, components]
	dLdz[4], dLdz[5] = 1, 1
	g, err := adjoint.Gradients(ctx, s, sol, dLdz)
	check(err)
	fmt.Printf("%.4f %.4f %.4f\n", sol.Final(), g.Z0, g.Theta)
	// Output:
	// [1.0263 0.9097] [-0.7780 0.4003] [-4.0962 -0.5094 -1.1458 -1.8043]
}

func Example_training() {
	ctx := context.Background()
	dev := solver.Auto[float32]()
	defer dev.Close()
	t := []float64{0, 1, 2, 3}
	y := []float32{1, 0, 0.5403, 0.8415, -0.4161, 0.9093, -0.99, 0.1411}

	net, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	check(err)
	s, err := solver.New(dev, net, solver.Settings{})
	check(err)
	fit, err := train.NewTrajectories(s, train.Data[float32]{Times: t, Z0: y[:2], Targets: y}, train.TrajectorySettings{})
	check(err)
	res, err := train.Fit(ctx, fit, net.Params(), train.Settings[float32]{
		Optimizer: train.Optimizer{Kind: train.Adam, LR: 0.02}, Epochs: 500,
	})
	check(err)
	fmt.Println(res.BestLoss < 1e-4)
	// Output:
	// true
}

// What torchdiffeq's odeint does by default.
func Example_torchdiffeq() {
	set := solver.Settings{Method: solver.Dopri5, Controller: solver.I, RTol: 1e-7, ATol: 1e-9}
	full, _, err := solver.Resolve[float64](set)
	check(err)
	fmt.Println(full.Method, full.Controller, full.Safety, full.MinFactor, full.MaxFactor)
	// Output:
	// dopri5 I 0.9 0.2 10
}

// A neural controlled differential equation along a path of three channels.
func Example_cde() {
	dev := solver.Auto[float64]()
	defer dev.Close()
	times, values := []float64{0, 1, 2}, []float64{0, 0, 0, 1, 0.5, -1, 2, 0, 1}

	x, err := control.NewSignal(control.Hermite, 3, control.Series[float64]{Times: times, Values: values})
	check(err)
	net, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 4, 16, 4*3), mlp.Init{}, 1) // z ↦ a matrix 4×3
	check(err)
	f, err := control.New(net, x, control.Settings{Form: control.CDE})
	check(err)
	s, err := solver.New(dev, f, solver.Settings{})
	check(err)
	sol, err := s.Solve(context.Background(), make([]float64, 4), []float64{0, 2})
	check(err)
	fmt.Println(len(sol.Final()))
	// Output:
	// 4
}
