// Command spiral learns dy/dt = Aᵀy³ from pieces of one solution: examples/ode_demo.py of
// torchdiffeq, with its problem, data, network, batches, loss, optimiser and tolerances.
package main

import (
	"context"
	"flag"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"

	"gonum.org/v1/plot/plotter"
)

const (
	size      = 1000 // points of the spiral, over 25 units of time
	length    = 10   // points of a piece: batch_time
	batch     = 20   // pieces of an update
	testEvery = 20   // updates between tests: test_freq
)

func main() {
	seed := flag.Uint64("seed", 1, "chooses the initial weights and the order of the pieces")
	example.Main("spiral", func(ctx context.Context, e *example.Env) error { return run(ctx, e, *seed) })
}

// cubic is dy/dt = Aᵀy³ with A = [-0.1 2; -2 -0.1].
func cubic[T field.Number](_ T, y, _, dy []T) {
	a, b := y[0]*y[0]*y[0], y[1]*y[1]*y[1]
	dy[0] = -0.1*a - 2*b
	dy[1] = 2*a - 0.1*b
}

// spiral is the solution to learn: from (2, 0), [size, 2].
func spiral(ctx context.Context, dev *cpu.Backend[float32], set solver.Settings) (times []float64, y []float32, err error) {
	for i := range size {
		times = append(times, 25*float64(i)/(size-1))
	}
	s, err := solver.New(dev, field.New(2, nil, cubic[float32], cubic[field.Dual]), set)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	sol, err := s.Solve(ctx, []float32{2, 0}, times)
	if err != nil {
		return nil, nil, err
	}
	return times, sol.Y, nil
}

func run(ctx context.Context, e *example.Env, seed uint64) error {
	dev := cpu.New[float32]()
	defer dev.Close()
	// torchdiffeq's defaults. In float32 a relative tolerance of 1e-7 is below what
	// rounding allows; ATol and the errors' RMS norm let it pass here as there.
	set := solver.Settings{Method: solver.Dopri5, RTol: 1e-7, ATol: 1e-9}
	times, y, err := spiral(ctx, dev, set)
	if err != nil {
		return err
	}

	network := mlp.Dense(mlp.Tanh, 2, 50, 2)
	network.Input = mlp.InputCube
	model, err := mlp.New[float32](network, mlp.Init{Weight: mlp.Normal, StdDev: 0.1, Bias: mlp.BiasZero}, seed)
	if err != nil {
		return err
	}
	s, err := solver.New(dev, model, set)
	if err != nil {
		return err
	}
	defer s.Close()

	// A piece starts at any point that has enough behind it. f is autonomous, so that all
	// pieces may count their time from 0.
	pieces := size - length
	data := train.Data[float32]{Times: times[:length], Z0: y[:2*pieces]}
	for i := range length {
		data.Targets = append(data.Targets, y[2*i:2*(i+pieces)]...)
	}
	mae := train.TrajectorySettings{Loss: train.Loss{Kind: train.MAE}}
	fit, err := train.NewTrajectories(s, data, mae)
	if err != nil {
		return err
	}
	defer fit.Close()
	// The test is the whole spiral from its beginning.
	whole, err := train.NewTrajectories(s, train.Data[float32]{Times: times, Z0: y[:2], Targets: y}, mae)
	if err != nil {
		return err
	}
	defer whole.Close()

	var updates, losses []float64 // of the tests
	test := func(r train.Report[float32]) error {
		if r.Step%testEvery != 0 {
			return nil
		}
		loss, err := whole.Loss(ctx, r.Theta, []int{0})
		updates, losses = append(updates, float64(r.Step)), append(losses, loss)
		return err
	}
	res, err := train.Fit(ctx, fit, model.Params(), train.Settings[float32]{
		Optimizer: train.Optimizer{Kind: train.RMSprop, LR: 1e-3},
		BatchSize: batch, Steps: example.Pick(e, 300, 2000), Seed: seed,
		OnStep: test, Progress: e.Bar, Title: "spiral",
	})
	if err != nil {
		return err
	}
	e.Printf("%d parameters, %d updates of %d pieces of %d points\n", len(res.Theta), res.Steps, batch, length)
	// With a learning rate that stays the same the test's error jumps from test to test.
	e.Found("first_test_mae", losses[0])
	e.Found("last_test_mae", losses[len(losses)-1])
	e.Found("lowest_test_mae", slices.Min(losses))
	e.Found("median_of_last_ten", median(losses[max(0, len(losses)-10):]))

	model.SetParams(res.Theta)
	if err := s.SetParams(res.Theta); err != nil {
		return err
	}
	sol, err := s.Solve(ctx, y[:2], times)
	if err != nil {
		return err
	}
	return draw(e.File("spiral.png"), y, sol.Y, model, updates, losses)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// draw writes the phase portrait with the learned field, and the course of the tests.
func draw(path string, y, learned []float32, model *mlp.Model[float32], updates, losses []float64) error {
	phase := picture.Panel("Phase portrait and learned field", "y₁", "y₂")
	phase.X.Min, phase.X.Max, phase.Y.Min, phase.Y.Max = -2.2, 2.2, -2.2, 2.9
	phase.Add(picture.Flow{Columns: 12, Rows: 12, Reach: 0.05, F: func(z, dz []float64) {
		out := make([]float32, 2)
		model.Eval(0, []float32{float32(z[0]), float32(z[1])}, out)
		dz[0], dz[1] = float64(out[0]), float64(out[1])
	}})
	truth := picture.Line(picture.Stroke(picture.Black, 1.8, false), picture.Orbit(y, 2, 0, 1))
	fitted := picture.Line(picture.Stroke(picture.Red, 1.5, true), picture.Orbit(learned, 2, 0, 1))
	phase.Add(truth, fitted)
	phase.Legend.Add("truth", truth)
	phase.Legend.Add("learned", fitted)

	course := picture.Panel("Whole spiral, from its beginning", "updates", "mean absolute error")
	course.Y.Tick.Marker = picture.Log10(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
	logs := make(plotter.XYs, len(losses))
	for i := range losses {
		logs[i] = plotter.XY{X: updates[i], Y: math.Log10(losses[i])}
	}
	course.Add(picture.Line(picture.Stroke(picture.Blue, 1.5, false), logs))
	return picture.Save(path, picture.Layout{}, phase, course)
}
