//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// walk is a solve whose steps are gone back over.
type walk struct {
	spec    mlp.Spec
	set     solver.Settings
	how     adjoint.Settings
	rows    int
	ts      []float64
	samples []solver.Sample // in place of ts
	fails   bool            // some of them
	apart   bool            // too large to go back at once
}

// net is a network with time as an input.
func net(act mlp.Activation, widths ...int) mlp.Spec {
	spec := mlp.Dense(act, widths...)
	spec.Time = mlp.TimeEveryLayer
	return spec
}

// gradient is dL/dz0 and dL/dθ for cotangents of every output.
func (w *walk) gradient(t *testing.T, dev backend.Backend[float64]) *adjoint.Gradient[float64] {
	return walkOn[float64](t, dev, w)
}

func walkOn[T backend.Float](t *testing.T, dev backend.Backend[T], w *walk) *adjoint.Gradient[T] {
	t.Helper()
	ctx := context.Background()
	m, err := mlp.New[T](w.spec, mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, w.set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	how := w.how
	how.NoTimes = true
	a, err := adjoint.New(s, how)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	z0 := convert[T](sines(w.rows * m.Dim()))
	var sol *solver.Solution[T]
	if w.samples != nil {
		sol, err = a.SolveEach(ctx, z0, w.samples)
	} else {
		sol, err = a.Solve(ctx, z0, w.ts)
	}
	var failure *solver.Error
	if err != nil && !(w.fails && errors.As(err, &failure)) || w.fails && err == nil {
		t.Fatal(err)
	}
	before := counted(dev)
	g, err := a.Gradients(ctx, sol, convert[T](sines(len(sol.Y))))
	if err != nil {
		t.Fatal(err)
	}
	if n := counted(dev) - before; n != 0 && n != 2 != w.apart {
		t.Errorf("%d launches for a gradient", n)
	}
	return g
}

// counted is the number of launches of a device.
func counted[T backend.Float](dev backend.Backend[T]) int64 {
	if d, ok := dev.(*gpu.Backend[T]); ok {
		return d.Counts().Launches
	}
	return 0
}

// stepwise is a device that goes back step by step.
type stepwise[T backend.Float] struct {
	backend.Reverser[T]
	fuser backend.Fuser[T]
}

func (s stepwise[T]) Fuse(p backend.Fusible[T]) (backend.Fused[T], error) { return s.fuser.Fuse(p) }

// walks compares with the CPU, or where steps are chosen, which magnifies rounding, with
// the same steps gone back one by one. A gradient is two launches.
func walks[T backend.Float](t *testing.T, dev *gpu.Backend[T], tol float64, w *walk) {
	t.Helper()
	host := cpu.New[T]()
	defer host.Close()
	var other backend.Backend[T] = host
	if w.set.Step == 0 {
		other = stepwise[T]{dev, dev}
	}
	got, want := walkOn(t, dev, w), walkOn(t, other, w)
	near(t, "dL/dz0", got.Z0, want.Z0, tol)
	near(t, "dL/dθ", got.Theta, want.Theta, tol)
	for b, st := range want.Stats {
		if tol < 1e-10 && got.Stats[b].Evaluations != st.Evaluations {
			t.Errorf("sample %d: %d evaluations, step by step %d", b, got.Stats[b].Evaluations, st.Evaluations)
			break
		}
	}
	again := walkOn(t, dev, w)
	if !slices.Equal(again.Z0, got.Z0) || !slices.Equal(again.Theta, got.Theta) {
		t.Error("a rerun differs")
	}
}

var outputs = []float64{0, 0.3, 0.35, 1, 1.5}

func TestFusedAdjoint_Methods(t *testing.T) {
	double, single := open[float64](t), open[float32](t)
	for i, m := range solver.Methods() {
		t.Run(m.String(), func(t *testing.T) {
			w := &walk{spec: net(mlp.Tanh, 2, 9, 2), rows: 5, ts: outputs}
			w.set = solver.Settings{Method: m, RTol: 1e-3, ATol: 1e-4, Stepping: solver.Stepping(i % 2)}
			if !m.Adaptive() {
				w.set.Step = 0.25
			}
			walks(t, double, 1e-12, w)
			w.set.Step = 0.2
			w.how.Store = adjoint.States
			w.set.Stepping = solver.Joint + solver.PerSample - w.set.Stepping
			walks(t, double, 1e-12, w)
			walks(t, single, 1e-5, w)
		})
	}
}

func TestFusedAdjoint_Nets(t *testing.T) {
	double, single := open[float64](t), open[float32](t)
	try := func(spec mlp.Spec, rows int, store adjoint.Store, apart ...bool) {
		t.Run(fmt.Sprint(spec), func(t *testing.T) {
			w := &walk{spec: spec, rows: rows, ts: []float64{1, 0.8, 0.1}, how: adjoint.Settings{Store: store}}
			w.set = solver.Settings{RTol: 1e-3, ATol: 1e-4, Stepping: solver.PerSample}
			w.apart = len(apart) > 0
			walks(t, double, 1e-12, w)
			w.set.Step = 0.2
			walks(t, double, 1e-12, w)
			w.apart = false
			walks(t, single, 1e-5, w)
		})
	}
	for act := mlp.Identity; act <= mlp.Sin; act++ {
		try(net(act, 3, 10, 5, 3), 4, adjoint.States)
	}
	cube := mlp.Dense(mlp.Tanh, 2, 50, 2)
	cube.Input = mlp.InputCube
	try(cube, 4, adjoint.States)
	try(cube, 4, adjoint.Stages)
	try(net(mlp.Tanh, 1, 1), 1, adjoint.States)
	try(net(mlp.Softplus, 33, 64, 7, 33), 35, adjoint.States)        // more than a tile
	try(net(mlp.Tanh, 17, 128, 128, 17), 3, adjoint.States, true)    // weights do not stay
	try(mlp.Dense(mlp.Tanh, 128, 128, 128), 2, adjoint.States, true) // nor do states
}

// A block has more rows than places, of different numbers of steps, spans and outputs:
// those that are done make room for others.
func TestFusedAdjoint_Queue(t *testing.T) {
	double, single := open[float64](t), open[float32](t)
	double.Pretend(1)
	single.Pretend(1)
	w := &walk{spec: net(mlp.Tanh, 2, 5, 2), rows: 70, how: adjoint.Settings{Store: adjoint.States}}
	w.set = solver.Settings{Method: solver.HeunEuler21, RTol: 1e-2, ATol: 1e-3, Stepping: solver.PerSample}
	w.samples = make([]solver.Sample, w.rows)
	for b := range w.samples {
		length := 0.1 + 2*math.Abs(math.Sin(float64(3*b)))
		ts := []float64{0.5}
		for i := range 1 + b%4 {
			ts = append(ts, 0.5+length*float64(i+1)/float64(1+b%4))
		}
		if b%5 == 2 { // backwards
			for i := range ts {
				ts[i] = -ts[i]
			}
		}
		if b%7 == 3 { // nowhere
			ts = []float64{1, 1}
		}
		w.samples[b] = solver.Sample{Times: ts}
		if b%3 == 0 {
			w.samples[b].MaxStep, w.samples[b].RTol, w.samples[b].ATol = 0.2, 1e-3, 1e-3
		}
	}
	walks(t, double, 1e-12, w)
	w.set.Step = 0.25
	for b := range w.samples {
		w.samples[b].MaxStep, w.samples[b].RTol, w.samples[b].ATol = 0, 0, 0
	}
	walks(t, single, 1e-5, w)
	w.samples, w.ts = nil, outputs
	w.set = solver.Settings{RTol: 1e-3, ATol: 1e-4}
	walks(t, double, 1e-12, w)
}

// Samples that fail are left out: the others' dL/dz0 keeps its bits.
func TestFusedAdjoint_Masked(t *testing.T) {
	dev := open[float64](t)
	w := &walk{spec: net(mlp.Tanh, 2, 9, 2), rows: 6}
	w.set = solver.Settings{Stepping: solver.PerSample, MaxAttempts: 30, RTol: 1e-5}
	w.samples = make([]solver.Sample, w.rows)
	for b := range w.samples {
		w.samples[b].Times = []float64{0, 0.5, 1}
	}
	good := w.gradient(t, dev)
	w.samples[2].Times, w.samples[2].MaxStep, w.fails = []float64{0, 0.5, 9}, 0.1, true
	walks(t, dev, 1e-12, w)
	got := w.gradient(t, dev)
	for b := range w.rows {
		if want := good.Z0[2*b : 2*b+2]; b != 2 && !slices.Equal(got.Z0[2*b:2*b+2], want) {
			t.Errorf("sample %d: %v beside a failure, %v without", b, got.Z0[2*b:2*b+2], want)
		}
	}
	if !got.Masked[2] || got.Z0[4] != 0 || got.Z0[5] != 0 {
		t.Errorf("the failure: masked %v, %v", got.Masked[2], got.Z0[4:6])
	}
}
