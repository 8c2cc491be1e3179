package train_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// line is the fit of y = a·x + b, θ = (a, b), as an Objective of one's own.
type line struct{ x, y []float64 }

func (l line) NumParams() int  { return 2 }
func (l line) NumSamples() int { return len(l.x) }

func (l line) Loss(ctx context.Context, theta []float64, batch []int) (float64, error) {
	return l.Gradient(ctx, theta, batch, make([]float64, 2))
}

func (l line) Gradient(_ context.Context, theta []float64, batch []int, grad []float64) (float64, error) {
	pred, y, slope := make([]float64, len(batch)), make([]float64, len(batch)), make([]float64, len(batch))
	for k, i := range batch {
		pred[k], y[k] = theta[0]*l.x[i]+theta[1], l.y[i]
	}
	loss, err := train.EvalLoss(train.Loss{Kind: train.MSE}, pred, train.Target[float64]{Values: y}, slope)
	grad[0], grad[1] = 0, 0
	for k, i := range batch {
		grad[0] += slope[k] * l.x[i]
		grad[1] += slope[k]
	}
	return loss, err
}

// A line through four points, in mini-batches of two.
func ExampleFit() {
	data := line{x: []float64{0, 1, 2, 3}, y: []float64{1, 3, 5, 7}}
	res, err := train.Fit(context.Background(), data, []float64{0, 0}, train.Settings[float64]{
		Optimizer: train.Optimizer{Kind: train.Adam, LR: 0.1},
		Schedule:  train.Schedule{Kind: train.Cosine},
		BatchSize: 2,
		Epochs:    400,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("y = %.3f x + %.3f after %d updates\n", res.Best[0], res.Best[1], res.Steps)
	// Output: y = 2.000 x + 1.000 after 800 updates
}

// Progress goes to a terminal as a bar, and elsewhere as lines.
func ExampleFit_progress() {
	data := line{x: []float64{0, 1, 2, 3}, y: []float64{1, 3, 5, 7}}
	_, err := train.Fit(context.Background(), data, []float64{0, 0}, train.Settings[float64]{
		Optimizer: train.Optimizer{Kind: train.SGD, LR: 0.1},
		Epochs:    3,
		Progress:  os.Stdout,
		Title:     "line",
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// line: epoch 1/3  loss 21  lr 0.1  gradient 18.8
	// line: epoch 2/3  loss 0.535  lr 0.1  gradient 3
	// line: epoch 3/3  loss 0.01435  lr 0.1  gradient 0.479
}

// L-BFGS on the same points.
func ExampleLBFGS() {
	data := line{x: []float64{0, 1, 2, 3}, y: []float64{1, 3, 5, 7}}
	res, err := train.LBFGS(context.Background(), data, []float64{0, 0}, train.LBFGSSettings[float64]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("y = %.3f x + %.3f, %v\n", res.Theta[0], res.Theta[1], res.Stop)
	// Output: y = 2.000 x + 1.000, converged
}

func decay[T field.Number](_ T, z, theta, dz []T) { dz[0] = -theta[0] * z[0] }

// The rate of an exponential decay from two trajectories, one of them with a
// measurement missing.
func ExampleNewTrajectories() {
	ctx := context.Background()
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(1, []float64{1}, decay[float64], decay[field.Dual]), solver.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	nan := math.NaN()
	data := train.Data[float64]{
		Times: []float64{0, 1, 2},
		Z0:    []float64{1, 4},
		Targets: []float64{ // [time, sample, component]
			1, 4,
			0.1353, nan,
			0.0183, 0.0733,
		},
	}
	data.Weights = train.Observed(data.Targets)
	obj, err := train.NewTrajectories(s, data, train.TrajectorySettings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer obj.Close()
	theta, err := obj.Params()
	if err != nil {
		fmt.Println(err)
		return
	}
	res, err := train.Fit(ctx, obj, theta, train.Settings[float64]{
		Optimizer: train.Optimizer{LR: 0.05},
		Epochs:    300,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("from %.3f to %.3f\n", theta[0], res.Best[0])
	// Output: from 1.000 to 2.000
}

// Values that are missing get the weight 0.
func ExampleEvalLoss() {
	pred, grad := []float64{1, 2, 3}, make([]float64, 3)
	y := train.Target[float64]{Values: []float64{0, math.NaN(), 5}}
	y.Weights = train.Observed(y.Values)
	loss, err := train.EvalLoss(train.Loss{Kind: train.Huber, Delta: 1}, pred, y, grad)
	fmt.Println(loss, grad, err)
	y.Weights = nil
	_, err = train.EvalLoss(train.Loss{}, pred, y, nil)
	fmt.Println(err)
	// Output:
	// 1 [0.5 0 -0.5] <nil>
	// train: target 1 is NaN; give it weight 0 if it is missing
}

func ExampleSchedule_Factor() {
	s := train.Schedule{Kind: train.Cosine, Warmup: 4, Period: 8, Min: 0.1}
	for step := 0; step <= 14; step += 2 {
		fmt.Printf("%.3f ", s.Factor(step))
	}
	fmt.Println()
	// Output: 0.250 0.750 1.000 0.868 0.550 0.232 0.100 0.100
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A training loop of one's own: the gradient of (θ₀-3)² + (θ₁+1)², and what Fit does with
// one. NewOptimizerState has what Adam remembers.
func ExampleUpdate() {
	theta, grad := []float64{0, 0}, make([]float64, 2)
	adam := train.Optimizer{Kind: train.Adam, LR: 0.1}
	schedule := train.Schedule{Kind: train.Cosine}.WithDefaults(200)
	state := train.NewOptimizerState[float64](adam, len(theta))
	for step := range 200 {
		grad[0], grad[1] = 2*(theta[0]-3), 2*(theta[1]+1)
		train.ClipNorm(grad, 1)
		train.Update(adam, schedule.Factor(step), theta, grad, state)
	}
	fmt.Printf("%.3f after %d updates\n", theta, state.Step)
	// Output:
	// [3.000 -1.000] after 200 updates
}

// A quarter of twelve samples is held out.
func ExampleSplit() {
	training, validation := train.Split(12, 0.25, 1)
	fmt.Println(len(training), validation)
	// Output:
	// 9 [5 6 8]
}

// Two series with times of their own; a value of the second is missing.
func ExampleNewRagged() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(1, []float64{1}, decay[float64], decay[field.Dual]), solver.Settings{Stepping: solver.PerSample})
	check(err)
	defer s.Close()
	obj, err := train.NewRagged(s, []train.Series[float64]{
		{Times: []float64{0, 0.5, 1}, Z0: []float64{1}, Values: []float64{1, 0.3679, 0.1353}},
		{Times: []float64{2, 2.2, 2.4, 3}, Z0: []float64{4}, Values: []float64{4, 2.6813, math.NaN(), 0.5413}},
	}, train.TrajectorySettings{})
	check(err)
	defer obj.Close()
	theta, err := obj.Params()
	check(err)
	res, err := train.LBFGS(ctx, obj, theta, train.LBFGSSettings[float64]{})
	check(err)
	fmt.Printf("the rate is %.3f\n", res.Best[0])
	// Output:
	// the rate is 2.000
}

// A run that ends, and one that goes on from its checkpoint.
func ExampleFit_checkpoint() {
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)
	data := line{x: []float64{0, 1, 2, 3}, y: []float64{1, 3, 5, 7}}
	set := train.Settings[float64]{
		Optimizer:  train.Optimizer{LR: 0.1},
		Checkpoint: filepath.Join(dir, "run.safetensors"),
	}
	for _, set.Epochs = range []int{100, 400} {
		res, err := train.Fit(context.Background(), data, []float64{0, 0}, set)
		check(err)
		fmt.Printf("from update %d to %d\n", res.Resumed, res.Steps)
	}
	// Output:
	// from update 0 to 100
	// from update 100 to 400
}
