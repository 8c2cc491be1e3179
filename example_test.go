package neuralode_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func Example() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1) // f
	check(err)
	s, err := solver.New(dev, model, solver.Settings{}) // of dz/dt = f(z; θ)
	check(err)
	seen := train.Data[float64]{
		Times: []float64{0, 1, 2, 3}, Z0: []float64{1, 0},
		Targets: []float64{1, 0, 0.5403, 0.8415, -0.4161, 0.9093, -0.9900, 0.1411},
	}
	fit, err := train.NewTrajectories(s, seen, train.TrajectorySettings{})
	check(err)
	res, err := train.LBFGS(ctx, fit, model.Params(), train.LBFGSSettings[float64]{})
	check(err)
	check(s.SetParams(res.Best))
	sol, err := s.Solve(ctx, []float64{1, 0}, []float64{0, 1.5, 3})
	check(err)
	fmt.Printf("z(1.5) = %.2f, z(3) = %.2f\n", sol.State(1), sol.State(2))
	// Output:
	// z(1.5) = [0.07 1.00], z(3) = [-0.99 0.14]
}
