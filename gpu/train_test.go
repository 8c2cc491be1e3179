//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// samples is the number of trajectories of a fit.
const samples = 12

// fitData is noise around spirals, with every fourth value missing and none at all at
// the third time.
func fitData[T backend.Float](loss train.LossKind) train.Data[T] {
	r := rand.New(rand.NewPCG(5, 6))
	d := train.Data[T]{Times: []float64{0, 0.3, 0.5, 0.9}}
	for range samples {
		d.Z0 = append(d.Z0, T(r.NormFloat64()), T(r.NormFloat64()))
	}
	for i, t := range d.Times {
		for b := range samples {
			if loss == train.CrossEntropy {
				d.Labels = append(d.Labels, int32((b+i)%3-1))
				continue
			}
			c, s := math.Cos(2*t), math.Sin(2*t)
			x, y := float64(d.Z0[2*b]), float64(d.Z0[2*b+1])
			for _, v := range []float64{c*x - s*y, s*x + c*y} {
				v += 0.1 * r.NormFloat64()
				if i > 0 && r.IntN(4) == 0 || i == 2 {
					v = math.NaN()
				}
				d.Targets = append(d.Targets, T(v))
			}
		}
	}
	if d.Targets != nil {
		d.Weights = train.Observed(d.Targets)
	}
	return d
}

// newFit makes an objective on dev, and where to start.
func newFit[T backend.Float](t testing.TB, dev backend.Backend[T], loss train.Loss, step solver.Stepping) (*train.Trajectories[T], []T) {
	t.Helper()
	return newFitBy(t, dev, loss, solver.Settings{Method: solver.Bosh3, RTol: 1e-3, ATol: 1e-4, Stepping: step, MaxAttempts: 100})
}

func newFitBy[T backend.Float](t testing.TB, dev backend.Backend[T], loss train.Loss, set solver.Settings) (*train.Trajectories[T], []T) {
	t.Helper()
	m, err := mlp.New[T](mlp.Dense(mlp.Tanh, 2, 7, 2), mlp.Init{}, 9)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, set)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := train.NewTrajectories(s, fitData[T](loss.Kind), train.TrajectorySettings{Loss: loss})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		obj.Close()
		s.Close()
	})
	return obj, m.Theta
}

func fit[T backend.Float](t testing.TB, obj *train.Trajectories[T], theta []T, set train.Settings[T]) *train.Result[T] {
	t.Helper()
	r, err := train.Fit(context.Background(), obj, theta, set)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A fit on the device is the CPU's to rounding, for every loss and optimiser, with
// batches of different sizes; a second one has the same bits.
func TestFit_MatchesCPU(t *testing.T) {
	dev, host := open[float64](t), cpu.New[float64]()
	defer host.Close()
	for i, loss := range []train.Loss{{}, {Kind: train.MAE}, {Kind: train.Huber, Delta: 0.3, Reduction: train.Sum}, {Kind: train.CrossEntropy}} {
		set := train.Settings[float64]{
			Optimizer: []train.Optimizer{{}, {Kind: train.AdamW}, {Kind: train.RMSprop, Centered: true}, {Kind: train.SGD, Momentum: 0.5, LR: 0.1}}[i],
			Steps:     7, BatchSize: []int{0, 5, 0, 5}[i], ClipNorm: float64(i), Schedule: train.Schedule{Kind: train.Cosine},
		}
		got := make([]*train.Result[float64], 2)
		for k := range got {
			obj, theta := newFit(t, dev, loss, solver.Stepping(i%2))
			got[k] = fit(t, obj, theta, set)
		}
		obj, theta := newFit(t, host, loss, solver.Stepping(i%2))
		want := fit(t, obj, theta, set)
		// Seven updates grow the rounding of the first some hundred times.
		near(t, "θ", got[0].Theta, want.Theta, 1e-9)
		near(t, "best θ", got[0].Best, want.Best, 1e-9)
		near(t, "best loss", []float64{got[0].BestLoss}, []float64{want.BestLoss}, 1e-9)
		if !slices.Equal(got[0].Theta, got[1].Theta) || !slices.Equal(got[0].Best, got[1].Best) || got[0].BestLoss != got[1].BestLoss {
			t.Errorf("%v: two runs differ", loss.Kind)
		}
		if got[0].BestStep != want.BestStep || got[0].Steps != want.Steps || len(got[0].History) != len(want.History) {
			t.Errorf("%v: %+v, on the CPU %+v", loss.Kind, got[0], want)
		}
	}
}

// A run that went through a checkpoint ends with the bits of one that did not.
func TestFit_ResumeIsBitEqual(t *testing.T) {
	dev := open[float32](t)
	obj, theta := newFit(t, dev, train.Loss{}, solver.Joint)
	set := train.Settings[float32]{Steps: 9, BatchSize: 5}
	want := fit(t, obj, theta, set)
	set.Checkpoint = filepath.Join(t.TempDir(), "run.safetensors")
	set.Steps = 4
	fit(t, obj, theta, set)
	set.Steps = 9
	got := fit(t, obj, theta, set)
	if got.Resumed != 4 || !slices.Equal(got.Theta, want.Theta) || !slices.Equal(got.Best, want.Best) || got.BestLoss != want.BestLoss {
		t.Errorf("resumed after %d updates: %v, in one go %v", got.Resumed, got.Theta, want.Theta)
	}
}

// An update moves nothing but the numbers of its samples to the device, and nothing
// but a few words back: the parameters stay, however many there are.
func TestFit_MovesOnlyScalars(t *testing.T) {
	dev := open[float32](t)
	obj, theta := newFit(t, dev, train.Loss{}, solver.Joint)
	moved := func(steps int) gpu.Counts {
		before := dev.Counts()
		fit(t, obj, theta, train.Settings[float32]{Steps: steps})
		after := dev.Counts()
		return gpu.Counts{ToHost: after.ToHost - before.ToHost, ToDevice: after.ToDevice - before.ToDevice, Waits: after.Waits - before.Waits}
	}
	moved(2)
	few, many := moved(20), moved(60)
	host, device, waits := (many.ToHost-few.ToHost)/40, (many.ToDevice-few.ToDevice)/40, (many.Waits-few.Waits)/40
	t.Logf("an update moves %d bytes to the host and %d to the device, and waits %d times", host, device, waits)
	// Status words, of polls and of the outcome, are not counted, or are at most these;
	// to the device go the samples' numbers and two spans.
	if host > 20*48+56 {
		t.Errorf("%d bytes to the host", host)
	}
	if limit := int64(4*samples + 2*(72+64)); device > limit {
		t.Errorf("%d bytes to the device, want at most %d", device, limit)
	}
}

// unrecorded is a device that records nothing.
type unrecorded[T backend.Float] struct {
	backend.Reverser[T]
	backend.Trainer[T]
	dev *gpu.Backend[T]
}

func (u unrecorded[T]) Fuse(p backend.Fusible[T]) (backend.Fused[T], error) { return u.dev.Fuse(p) }
func (u unrecorded[T]) WalkBack(w *backend.Walk[T]) bool                    { return u.dev.WalkBack(w) }

// An update that is replayed has the bits of one that is not, whatever differs from one
// to the next: the learning rate, the batch, the times at which it has targets.
func TestFit_ReplaysAreBitEqual(t *testing.T) {
	for name, set := range map[string]solver.Settings{
		"one recording":  {Method: solver.Euler, Step: 0.1},
		"many, fixed":    {Method: solver.Euler, Step: 0.9 / 70, Stepping: solver.PerSample, Fusion: solver.FuseNever},
		"chosen jointly": {Method: solver.Bosh3, RTol: 1e-3, ATol: 1e-4},
		"chosen alone":   {Method: solver.Tsit5, RTol: 1e-3, ATol: 1e-4, Stepping: solver.PerSample, FirstStep: 0.1},
		"short tape":     {Method: solver.HeunEuler21, RTol: 1e-3, ATol: 1e-4, Stepping: solver.PerSample},
	} {
		dev := open[float32](t)
		plain := unrecorded[float32]{dev, dev, dev}
		lr := 0.
		if name == "short tape" { // f becomes faster, so that solves need more steps than those before
			dev.ShortTape()
			lr = 0.5
		}
		how := train.Settings[float32]{
			Steps: 6, BatchSize: 4, ClipNorm: 0.1, Schedule: train.Schedule{Kind: train.Cosine}, Optimizer: train.Optimizer{Kind: train.AdamW, LR: lr},
		}
		obj, theta := newFitBy(t, backend.Backend[float32](dev), train.Loss{}, set)
		before := dev.Counts().Graphs
		got := fit(t, obj, theta, how)
		if dev.Counts().Graphs == before {
			t.Errorf("%s: nothing was replayed", name)
		}
		obj, theta = newFitBy[float32](t, plain, train.Loss{}, set)
		before = dev.Counts().Graphs
		want := fit(t, obj, theta, how)
		if dev.Counts().Graphs != before {
			t.Errorf("%s: something was recorded", name)
		}
		same := func(x, y train.Record) bool { return x.Loss == y.Loss && x.GradNorm == y.GradNorm && x.LR == y.LR }
		if !slices.Equal(got.Theta, want.Theta) || !slices.Equal(got.Best, want.Best) || !slices.EqualFunc(got.History, want.History, same) {
			t.Errorf("%s: θ is %v, without recordings %v", name, got.Theta, want.Theta)
		}
	}
}

// An update with few fixed steps, or with samples that step alone, is one replay and one
// wait. Others take two replays beside one for every attempt and, where the host does not
// know the number of attempts, two launches for every poll. The batch has no influence.
func TestFit_Launches(t *testing.T) {
	dev := open[float32](t)
	perUpdate := func(set solver.Settings, batch int) gpu.Counts {
		obj, theta := newFitBy(t, backend.Backend[float32](dev), train.Loss{}, set)
		count := func(steps int) gpu.Counts {
			before := dev.Counts()
			fit(t, obj, theta, train.Settings[float32]{Steps: steps, BatchSize: batch})
			after := dev.Counts()
			return gpu.Counts{
				Launches: after.Launches - after.Recorded - before.Launches + before.Recorded,
				Graphs:   after.Graphs - before.Graphs, Waits: after.Waits - before.Waits,
			}
		}
		count(2)                        // what is allocated once
		few, many := count(2), count(4) // of an epoch of 6, or 2 and 4 epochs
		return gpu.Counts{Launches: (many.Launches - few.Launches) / 2, Graphs: (many.Graphs - few.Graphs) / 2, Waits: (many.Waits - few.Waits) / 2}
	}
	for _, batch := range []int{2, samples} {
		got := perUpdate(solver.Settings{Method: solver.Euler, Step: 0.1}, batch)
		if want := (gpu.Counts{Graphs: 1, Waits: 1}); got != want {
			t.Errorf("batch of %d, 9 steps: %+v, want %+v", batch, got, want)
		}
		for _, set := range []solver.Settings{
			{RTol: 1e-3, ATol: 1e-4, Stepping: solver.PerSample}, {Method: solver.Euler, Step: 0.9 / 70, Stepping: solver.PerSample},
		} {
			got = perUpdate(set, batch)
			if want := (gpu.Counts{Graphs: 1, Waits: 1}); got != want {
				t.Errorf("batch of %d, samples alone: %+v, want %+v", batch, got, want)
			}
		}
		const steps = 70
		got = perUpdate(solver.Settings{Method: solver.Euler, Step: 0.9 / steps}, batch)
		if want := (gpu.Counts{Graphs: 2 + steps, Waits: 1}); got != want {
			t.Errorf("batch of %d, %d steps: %+v, want %+v", batch, steps, got, want)
		}
		// One poll, after as many attempts as the update before took, or two.
		got = perUpdate(solver.Settings{Method: solver.Bosh3, RTol: 1e-2, ATol: 1e-2, FirstStep: 0.15}, batch)
		t.Logf("batch of %d, chosen steps: %+v", batch, got)
		if polls := got.Waits - 1; polls < 1 || polls > 2 || got.Launches != 2*polls || got.Graphs > 2+9 {
			t.Errorf("batch of %d, chosen steps: %+v", batch, got)
		}
	}
}

// What goes wrong is said as on the host, and the last good parameters are kept.
func TestFit_NonFinite(t *testing.T) {
	for _, c := range []struct {
		what string
		set  train.Settings[float64]
	}{
		{"update", train.Settings[float64]{Steps: 5, Optimizer: train.Optimizer{Kind: train.SGD, LR: 1e308}, Schedule: train.Schedule{Kind: train.Constant}}},
		{"solve", train.Settings[float64]{Steps: 5, Optimizer: train.Optimizer{Kind: train.SGD, LR: 1e30}}},
	} {
		var errs [2]error
		var results [2]*train.Result[float64]
		dev, host := open[float64](t), cpu.New[float64]()
		for i, b := range []backend.Backend[float64]{dev, host} {
			obj, theta := newFit(t, b, train.Loss{Reduction: train.Sum}, solver.Joint)
			results[i], errs[i] = train.Fit(context.Background(), obj, theta, c.set)
		}
		if errs[0] == nil || errs[1] == nil {
			t.Fatalf("%s: errors %v and %v", c.what, errs[0], errs[1])
		}
		var got, want *train.NonFiniteError
		if errors.As(errs[1], &want) && (!errors.As(errs[0], &got) || got.What != want.What || got.Step != want.Step || got.Param != want.Param) {
			t.Errorf("%s: %v, on the CPU %v", c.what, errs[0], errs[1])
		}
		near(t, "last good θ", results[0].Theta, results[1].Theta, 1e-9)
		host.Close()
	}
}

// Fail every call of the driver that a training step makes, in turn: the error names
// it, or the result is that of a run without the failure, by the host where the device
// had no room.
func TestFaults_InATrainingStep(t *testing.T) {
	dev := open[float64](t)
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 2, 1), mlp.Init{}, 9)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, solver.Settings{Method: solver.Euler, Step: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := train.Data[float64]{Times: []float64{0, 1}, Z0: []float64{1, 2, 3}, Targets: []float64{1, 2, 3, 0, 1, 2}}
	obj, err := train.NewTrajectories(s, data, train.TrajectorySettings{})
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()
	near := func(got, want []float64) bool { // the host rounds otherwise than the device
		return slices.EqualFunc(got, want, func(x, y float64) bool { return math.Abs(x-y) < 1e-13 })
	}
	sweep(t, dev, near, func() ([]float64, error) {
		r, err := train.Fit(context.Background(), obj, m.Theta, train.Settings[float64]{Steps: 2}) // the second is recorded
		if err != nil {
			return nil, err
		}
		return r.Theta, nil
	})
}
