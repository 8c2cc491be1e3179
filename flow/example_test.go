package flow_test

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/flow"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// The density of points with mean 3 and standard deviation 0.5, by maximum likelihood.
func Example() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]float64, 500)
	for i := range data {
		data[i] = 3 + 0.5*r.NormFloat64()
	}
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1) // linear: p is normal
	check(err)
	f, err := flow.New(dev, model, flow.Settings{})
	check(err)
	defer f.Close()
	res, err := train.LBFGS(ctx, flow.NewLikelihood(f, data), model.Params(), train.LBFGSSettings[float64]{})
	check(err)
	check(f.SetParams(res.Best))
	logp, err := f.LogDensity(ctx, []float64{3, 4}) // -0.23 and -2.23 by the density of the data
	check(err)
	fmt.Printf("log p(3) = %.1f, log p(4) = %.1f\n", logp[0], logp[1])
	// Output: log p(3) = -0.2, log p(4) = -2.3
}

// Points of a flow's density: of an untrained flow with f = 0 they are standard normal.
func ExampleFlow_Sample() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 8, 2), mlp.Init{ZeroLast: true}, 1)
	check(err)
	f, err := flow.New(dev, model, flow.Settings{})
	check(err)
	defer f.Close()
	x, err := f.Sample(ctx, 1000, 1)
	check(err)
	var squares float64
	for _, v := range x {
		squares += v * v
	}
	fmt.Printf("%d points, the mean of their squares is %.1f\n", len(x)/2, squares/float64(len(x)))
	logp, err := f.LogDensity(ctx, []float64{0, 0})
	check(err)
	fmt.Printf("log p(0) = %.4f\n", logp[0]) // -log 2π
	// Output:
	// 1000 points, the mean of their squares is 1.0
	// log p(0) = -1.8379
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
