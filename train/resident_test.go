package train

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// onHost is a device that makes no training steps.
type onHost[T backend.Float] struct {
	backend.Reverser[T]
	cut backend.Cutter[T]
}

func (o onHost[T]) Cut(clk backend.Clock, times []float64, status []backend.Status) {
	o.cut.Cut(clk, times, status)
}

func hostOnly[T backend.Float]() backend.Backend[T] {
	dev := cpu.New[T]()
	return onHost[T]{dev, dev}
}

// tallied is a device that counts those it makes.
type tallied[T backend.Float] struct {
	*cpu.Backend[T]
	updates int
}

type talliedLearner[T backend.Float] struct {
	backend.Learner[T]
	of *tallied[T]
}

func (c *tallied[T]) NewLearner() (backend.Learner[T], error) {
	l, err := c.Backend.NewLearner()
	return &talliedLearner[T]{l, c}, err
}

func (l *talliedLearner[T]) Outcome() (backend.Outcome, error) {
	l.of.updates++
	return l.Learner.Outcome()
}

// noisySpirals are noisy, with missing values, none at all at the third time.
func noisySpirals[T backend.Float](loss LossKind, n int) Data[T] {
	r := rand.New(rand.NewPCG(5, 6))
	d := Data[T]{Times: []float64{0, 0.3, 0.5, 0.9}}
	for range n {
		d.Z0 = append(d.Z0, T(r.NormFloat64()), T(r.NormFloat64()))
	}
	for i, t := range d.Times {
		for b := range n {
			if loss == CrossEntropy {
				d.Labels = append(d.Labels, int32((b+i)%3-1))
				continue
			}
			c, s := math.Cos(2*t), math.Sin(2*t)
			x, y := float64(d.Z0[2*b]), float64(d.Z0[2*b+1])
			for _, v := range []float64{c*x - s*y, s*x + c*y} {
				if v += 0.1 * r.NormFloat64(); i > 0 && r.IntN(4) == 0 || i == 2 {
					v = math.NaN()
				}
				d.Targets = append(d.Targets, T(v))
			}
		}
	}
	if d.Targets != nil {
		d.Weights = Observed(d.Targets)
	}
	return d
}

// A run that stays on the device has the bits of one on the host, for every loss,
// optimiser, stepping and gradient, with batches of different sizes.
func TestFit_OnTheDeviceIsBitEqual(t *testing.T) {
	t.Run("float32", onTheDevice[float32])
	t.Run("float64", onTheDevice[float64])
}

func onTheDevice[T backend.Float](t *testing.T) {
	const n = 70 // more than a unit of rows
	adaptive := solver.Settings{Method: solver.Bosh3, RTol: 1e-3, ATol: 1e-4}
	perSample := adaptive
	perSample.Stepping = solver.PerSample
	perSample.FirstStep = 0.1
	for name, c := range map[string]struct {
		loss   Loss
		solve  solver.Settings
		method adjoint.Settings
		set    Settings[T]
	}{
		"Adam, jointly":     {solve: adaptive, set: Settings[T]{Schedule: Schedule{Kind: Cosine}}},
		"AdamW, per sample": {loss: Loss{Kind: MAE}, solve: perSample, set: Settings[T]{BatchSize: 32, ClipNorm: 0.1, Optimizer: Optimizer{Kind: AdamW}}},
		"RMSprop, fixed": {
			loss: Loss{Kind: Huber, Delta: 0.3, Reduction: Sum}, solve: solver.Settings{Method: solver.RK4, Step: 0.1},
			set: Settings[T]{BatchSize: 32, Optimizer: Optimizer{Kind: RMSprop, Centered: true, Momentum: 0.5}},
		},
		"SGD, labels": {
			loss: Loss{Kind: CrossEntropy}, solve: adaptive, method: adjoint.Settings{Store: adjoint.States},
			set: Settings[T]{BatchSize: 69, ClipNorm: 3, Optimizer: Optimizer{Kind: SGD, Momentum: 0.5, LR: 0.1}},
		},
		"continuous": {solve: adaptive, method: adjoint.Settings{Method: adjoint.Continuous}},
		"budget":     {solve: adaptive, method: adjoint.Settings{Budget: 1 << 16}},
		"reversible": {solve: solver.Settings{Method: solver.RK4, Step: 0.1}, method: adjoint.Settings{Method: adjoint.Reversible}},
	} {
		c.set.Steps = 7
		count := &tallied[T]{Backend: cpu.New[T]()}
		var got [2]*Result[T]
		for i, dev := range []backend.Backend[T]{count, hostOnly[T]()} {
			m, err := mlp.New[T](mlp.Dense(mlp.Tanh, 2, 7, 2), mlp.Init{}, 9)
			if err != nil {
				t.Fatal(err)
			}
			s, err := solver.New(dev, m, c.solve)
			if err != nil {
				t.Fatal(err)
			}
			obj, err := NewTrajectories(s, noisySpirals[T](c.loss.Kind, n), TrajectorySettings{Loss: c.loss, Adjoint: c.method})
			if err != nil {
				t.Fatal(err)
			}
			if got[i], err = Fit(t.Context(), obj, m.Theta, c.set); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			obj.Close()
			s.Close()
		}
		if count.updates != c.set.Steps {
			t.Errorf("%s: %d updates of %d stayed on the device", name, count.updates, c.set.Steps)
		}
		same := func(x, y Record) bool { return x.Loss == y.Loss && x.GradNorm == y.GradNorm && x.LR == y.LR }
		x, y := got[0], got[1]
		if !slices.Equal(x.Theta, y.Theta) || !slices.Equal(x.Best, y.Best) || x.BestLoss != y.BestLoss || !slices.EqualFunc(x.History, y.History, same) {
			t.Errorf("%s: %v\n%v\non the host %v\n%v", name, x.History, x.Theta, y.History, y.Theta)
		}
	}
}

// Signals go with their samples into mini-batches, and a solver with events makes its
// updates on the host.
func TestFit_OnTheDeviceWithSignalsAndEvents(t *testing.T) {
	const n = 5
	var series []control.Series[float64]
	d := Data[float64]{Times: []float64{1, 2}, Z0: make([]float64, n), Targets: make([]float64, 2*n)}
	for b := range n {
		series = append(series, control.Series[float64]{Times: []float64{1, 2}, Values: []float64{float64(b), float64(2 * b)}})
	}
	signal, err := control.NewSignal(control.Linear, 1, series...)
	if err != nil {
		t.Fatal(err)
	}
	for _, events := range [][]solver.Event[float64]{nil, {{Name: "none", G: func(_ float64, z, _ []float64) float64 { return z[0] + 100 }}}} {
		count := &tallied[float64]{Backend: cpu.New[float64]()}
		var got [2]*Result[float64]
		for i, dev := range []backend.Backend[float64]{count, hostOnly[float64]()} {
			f, err := control.New[float64](control.NewFunc(1, 1, []float64{-0.5}, forced[float64], forced[field.Dual]), signal, control.Settings{})
			if err != nil {
				t.Fatal(err)
			}
			s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample}, events...)
			if err != nil {
				t.Fatal(err)
			}
			obj := newTrajectories(t, s, d, TrajectorySettings{})
			if got[i], err = Fit(t.Context(), obj, []float64{-0.5}, Settings[float64]{Steps: 6, BatchSize: 2}); err != nil {
				t.Fatal(err)
			}
		}
		if want := 6 - 6*len(events); count.updates != want {
			t.Errorf("%d updates stayed on the device, want %d", count.updates, want)
		}
		if !slices.Equal(got[0].Theta, got[1].Theta) {
			t.Errorf("%v, on the host %v", got[0].Theta, got[1].Theta)
		}
	}
}

// A training step allocates nothing, on the host's own device, once the first two have.
func TestFit_OnTheDeviceDoesNotAllocate(t *testing.T) {
	const n = 400
	for name, set := range map[string]solver.Settings{
		"chosen jointly": {Method: solver.Tsit5, RTol: 1e-3, ATol: 1e-4},
		"chosen alone":   {Method: solver.Bosh3, RTol: 1e-3, ATol: 1e-4, Stepping: solver.PerSample},
		"fixed":          {Method: solver.RK4, Step: 0.1},
	} {
		m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 60, 2), mlp.Init{}, 9)
		if err != nil {
			t.Fatal(err)
		}
		dev := cpu.New[float32]()
		dev.SetThreads(2)
		s, err := solver.New(dev, m, set)
		if err != nil {
			t.Fatal(err)
		}
		obj := newTrajectories(t, s, noisySpirals[float32](MSE, n), TrajectorySettings{})
		f, err := newFit(obj, m.Theta, Settings[float32]{
			Steps: 1000, BatchSize: n / 2, ClipNorm: 1,
			Optimizer: Optimizer{LR: 1e-9}, // a tape grows where a solve needs more steps than those before
		})
		if err != nil {
			t.Fatal(err)
		}
		f.history = make([]Record, 0, 1000)
		step := func() {
			if err := f.advance(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			step()
		}
		a := testing.AllocsPerRun(10, step)
		for try := 1; a != 0 && try < 5; try++ { // a worker may get its first unit late
			a = testing.AllocsPerRun(10, step)
		}
		if a != 0 {
			t.Errorf("%s: %v allocations in an update", name, a)
		}
		f.close()
	}
}
