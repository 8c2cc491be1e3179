//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// swing is a damped pendulum with a force.
func swing[T backend.Float](t testing.TB) backend.System[T] {
	return system(t, []string{"c", "w"}, []T{0.3, 2}, "z1", "-c*z1 - sin(z0) + cos(w*t)")
}

// lorenz has ρ in the state.
func lorenz[T backend.Float](t testing.TB) backend.System[T] {
	return system[T](t, nil, nil, "10*(z1-z0)", "z0*(z3-z2) - z1", "z0*z1 - 8/3*z2", "0")
}

// rhos is a batch of starts of lorenz, ρ from 0 to 21.
func rhos[T backend.Float](batch int) (z0 []T) {
	for b := range batch {
		z0 = append(z0, 1, 0, 0, T(21*float64(b)/float64(max(batch-1, 1))))
	}
	return z0
}

// ensembleCase is a solve to be made in one launch.
type ensembleCase[T backend.Float] struct {
	sys     backend.System[T]
	set     solver.Settings
	z0      []T
	times   []float64
	samples []solver.Sample
}

func (c ensembleCase[T]) solve(t testing.TB, dev backend.Backend[T], fusion solver.Fusion) (*solver.Solution[T], error) {
	t.Helper()
	return c.solveWith(context.Background(), t, dev, fusion)
}

func (c ensembleCase[T]) solveWith(ctx context.Context, t testing.TB, dev backend.Backend[T], fusion solver.Fusion) (*solver.Solution[T], error) {
	t.Helper()
	bind(t, dev, c.sys)
	c.set.Stepping, c.set.Fusion = solver.PerSample, fusion
	s, err := solver.New(dev, c.sys, c.set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c.samples != nil {
		return s.SolveEach(ctx, c.z0, c.samples)
	}
	return s.Solve(ctx, c.z0, c.times)
}

// check compares a solve in one launch with the CPU's, as checkFused does.
func (c ensembleCase[T]) check(t *testing.T, dev *gpu.Backend[T], name string) {
	t.Helper()
	host := cpu.New[T]()
	defer host.Close()
	got, err := c.solve(t, dev, solver.FuseAlways)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	want, err := c.solve(t, host, solver.FuseAuto)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Fused || want.Fused {
		t.Errorf("%s: fused %v on the device, %v on the CPU", name, got.Fused, want.Fused)
	}
	double := unsafe.Sizeof(c.z0[0]) == 8
	limit := 2e-5
	if double {
		limit = 1e-10
	}
	for i, w := range want.Y {
		if d := math.Abs(float64(got.Y[i] - w)); !(d <= limit*(1+math.Abs(float64(w)))) {
			t.Errorf("%s: element %d is %v, want %v", name, i, got.Y[i], w)
			return
		}
	}
	for b, w := range want.Stats {
		g := got.Stats[b]
		if double && (g.Evaluations != w.Evaluations || g.Accepted != w.Accepted || g.Rejected != w.Rejected) || g.T != w.T {
			t.Errorf("%s: sample %d: %+v, want %+v", name, b, g, w)
		}
	}
}

// A solve of compiled equations in one launch is the CPU's, with every method that has an
// error estimate and with two that have none: the others differ by their numbers alone,
// which TestFused_AsTheCPU checks, and a method takes a second to compile.
func TestEnsemble_AsTheCPU(t *testing.T) {
	dev := open[float64](t)
	c := ensembleCase[float64]{sys: swing[float64](t)}
	for b := range 37 {
		c.z0 = append(c.z0, 0.1*float64(b), 1-0.05*float64(b))
	}
	for _, method := range solver.Methods() {
		c := c
		c.set.Method = method
		if !method.Adaptive() {
			if method != solver.Euler && method != solver.RK4 {
				continue
			}
			c.set.Step = 0.11
		}
		c.times = []float64{0, 0.1, 0.15, 0.7, 1}
		c.check(t, dev, method.String())
		c.set.Breakpoints, c.set.MaxStep = []float64{0.33, 0.5}, 0.3
		c.times = []float64{1, 0.9, 0.3, -0.1}
		c.check(t, dev, method.String()+", back")
	}
	c.set, c.times = solver.Settings{Dense: true, MaxStep: 3, MaxAttempts: 40}, nil
	c.samples = ownSamples(37, 0.1)
	c.check(t, dev, "each its own times")
}

// A state that is not in registers, and one that FuseAuto leaves alone.
func TestEnsemble_Large(t *testing.T) {
	dev := open[float64](t)
	chain := func(n int) (c ensembleCase[float64]) {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("z%d - 2*z%d + c*sin(t)*z%d", (i+1)%n, i, (i+n-1)%n))
		}
		c.sys = system(t, []string{"c"}, []float64{1.5}, list...)
		for i := range 3 * n {
			c.z0 = append(c.z0, math.Cos(float64(i)))
		}
		c.times = []float64{0, 0.3, 1}
		return c
	}
	chain(20).check(t, dev, "20 components")
	c := chain(20)
	c.set.Step, c.set.Stepping = 0.2, solver.PerSample
	c.walk(t, dev, "20 components", adjoint.States, 1e-12)
	sol, err := chain(60).solve(t, dev, solver.FuseAuto)
	if err != nil || sol.Fused {
		t.Errorf("60 components: fused %v, %v", sol.Fused, err)
	}
}

// A sample has the same bits alone, in company and on a rerun, and one that is not finite
// disturbs no other; a solve is one launch and one wait, and two for what is read back.
func TestEnsemble_SamplesAreAlone(t *testing.T) {
	dev := open[float32](t)
	c := ensembleCase[float32]{sys: lorenz[float32](t), z0: rhos[float32](100), times: []float64{0, 0.4, 1}}
	c.set.RTol, c.set.ATol = 1e-6, 1e-6
	c.check(t, dev, "lorenz")
	want, err := c.solve(t, dev, solver.FuseAuto)
	if err != nil || !want.Fused {
		t.Fatalf("fused %v: %v", want.Fused, err)
	}
	before := dev.Counts()
	again, err := c.solve(t, dev, solver.FuseAlways)
	if err != nil || !slices.Equal(again.Y, want.Y) {
		t.Errorf("a rerun differs: %v", err)
	}
	after := dev.Counts()
	if launches, waits := after.Launches-before.Launches, after.Waits-before.Waits; launches != 1 || waits != 3 {
		t.Errorf("%d launches and %d waits", launches, waits)
	}
	const bad = 42
	broken := c
	broken.z0 = slices.Clone(c.z0)
	broken.z0[4*bad] = 3e38
	got, err := broken.solve(t, dev, solver.FuseAlways)
	if !errors.Is(err, solver.NotFinite) || got == nil {
		t.Fatalf("error %v", err)
	}
	for b := range 100 {
		for i := range c.times {
			if b != bad && (got.Status[b] != solver.Done || !slices.Equal(got.Sample(i, b), want.Sample(i, b))) {
				t.Fatalf("sample %d: %v, %v, want %v", b, got.Status[b], got.Sample(i, b), want.Sample(i, b))
			}
		}
	}
	if got.Status[bad] != solver.NotFinite {
		t.Errorf("a sample that is NaN: %v", got.Status[bad])
	}
	for _, b := range []int{0, 33, 99} {
		one := c
		one.z0 = c.z0[4*b : 4*b+4]
		alone, err := one.solve(t, dev, solver.FuseAlways)
		if err != nil || !slices.Equal(alone.Sample(2, 0), want.Sample(2, b)) {
			t.Errorf("sample %d alone: %v, want %v: %v", b, alone.Sample(2, 0), want.Sample(2, b), err)
		}
	}
}

// A solve that can be cancelled goes on where a launch has stopped, with the same result,
// and ends soon after its context.
func TestEnsemble_Resumes(t *testing.T) {
	dev := open[float64](t)
	c := ensembleCase[float64]{sys: swing[float64](t), z0: []float64{1, 0, 0, 1}, times: []float64{0, 0.5, 1}}
	c.set.Method, c.set.Step = solver.RK4, 1./9000
	want, err := c.solve(t, dev, solver.FuseAlways)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := dev.Counts().Launches
	got, err := c.solveWith(ctx, t, dev, solver.FuseAlways)
	if err != nil || !slices.Equal(got.Y, want.Y) || !slices.Equal(got.Stats, want.Stats) {
		t.Errorf("%v, want %v: %v", got.Y, want.Y, err)
	}
	if n := dev.Counts().Launches - before; n != 2 {
		t.Errorf("%d launches", n)
	}

	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	c.set.Step, c.set.MaxAttempts = 1e-9, math.MaxInt32
	got, err = c.solveWith(ctx, t, dev, solver.FuseAlways)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a solve without end: %v", err)
	}
	if got != nil && got.Status[0] == solver.Done {
		t.Errorf("a solve without end: %v", got.Status)
	}
}

// gradient is dL/dz0 and dL/dθ for cotangents of every output; backwards is the number of
// launches that it takes.
func (c ensembleCase[T]) gradient(t *testing.T, dev backend.Backend[T], store adjoint.Store) (g *adjoint.Gradient[T], backwards int64) {
	t.Helper()
	bind(t, dev, c.sys)
	s, err := solver.New(dev, c.sys, c.set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Discrete, NoTimes: true, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var sol *solver.Solution[T]
	if c.samples != nil {
		sol, err = a.SolveEach(context.Background(), c.z0, c.samples)
	} else {
		sol, err = a.Solve(context.Background(), c.z0, c.times)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := counted(dev)
	if g, err = a.Gradients(context.Background(), sol, convert[T](sines(len(sol.Y)))); err != nil {
		t.Fatal(err)
	}
	return g, counted(dev) - before
}

// walk compares a gradient with the CPU's or, where steps are chosen, which magnifies
// rounding, with the same steps gone back one by one.
func (c ensembleCase[T]) walk(t *testing.T, dev *gpu.Backend[T], name string, store adjoint.Store, tol float64) {
	t.Helper()
	host := cpu.New[T]()
	defer host.Close()
	var other backend.Backend[T] = host
	if c.set.Step == 0 {
		other = stepwise[T]{dev, dev}
	}
	got, launches := c.gradient(t, dev, store)
	want, _ := c.gradient(t, other, store)
	near(t, name+": dL/dz0", got.Z0, want.Z0, tol)
	near(t, name+": dL/dθ", got.Theta, want.Theta, tol)
	for b, st := range want.Stats {
		if got.Stats[b].Evaluations != st.Evaluations {
			t.Errorf("%s: sample %d: %d evaluations, want %d", name, b, got.Stats[b].Evaluations, st.Evaluations)
			break
		}
	}
	if launches != 2 {
		t.Errorf("%s: %d launches for a gradient", name, launches)
	}
	again, _ := c.gradient(t, dev, store)
	if !slices.Equal(again.Z0, got.Z0) || !slices.Equal(again.Theta, got.Theta) {
		t.Errorf("%s: a rerun differs", name)
	}
}

// The gradient over the tape of a solve in one launch is the CPU's, and two launches.
func TestEnsemble_Gradients(t *testing.T) {
	dev := open[float64](t)
	c := ensembleCase[float64]{sys: swing[float64](t), z0: convert[float64](sines(2 * 70))}
	for _, x := range []struct {
		method solver.Method
		store  adjoint.Store
	}{{solver.Tsit5, adjoint.States}, {solver.Vern7, adjoint.Stages}, {solver.RK4, adjoint.States}, {solver.Euler, adjoint.Stages}} {
		c.set, c.times = solver.Settings{Method: x.method, Step: 0.2, Stepping: solver.PerSample}, []float64{0, 0.3, 0.35, 1}
		name := x.method.String()
		c.walk(t, dev, name, x.store, 1e-12)
		c.set.Stepping = solver.Joint
		c.walk(t, dev, name+", joint", x.store, 1e-12)
		if x.method == solver.Tsit5 {
			c.set, c.times = solver.Settings{Method: x.method, RTol: 1e-4, ATol: 1e-5, Stepping: solver.PerSample}, []float64{1, 0.8, -0.2}
			c.walk(t, dev, name+", adaptive", x.store, 1e-12)
		}
	}
	c.set = solver.Settings{RTol: 1e-4, ATol: 1e-5, Stepping: solver.PerSample}
	for b := range 70 {
		end := 0.1 + math.Abs(math.Sin(float64(3*b)))
		times := []float64{0, end / 2, end}
		if b%7 == 3 { // nowhere
			times = []float64{1, 1}
		}
		c.samples = append(c.samples, solver.Sample{Times: times})
	}
	c.walk(t, dev, "each its own times", adjoint.States, 1e-12)
}

// Steps that fill the tape are followed by another launch.
func TestEnsemble_TapeGrows(t *testing.T) {
	dev := open[float64](t)
	c := ensembleCase[float64]{sys: swing[float64](t), z0: convert[float64](sines(2 * 250)), times: []float64{0, 1}}
	c.set = solver.Settings{Method: solver.RK4, Step: 1. / 300, Stepping: solver.PerSample}
	c.walk(t, dev, "300 steps", adjoint.Stages, 1e-11)
}

// Every call of the driver that a solve makes may fail.
func TestEnsemble_Faults(t *testing.T) {
	dev := open[float32](t)
	c := ensembleCase[float32]{sys: lorenz[float32](t), z0: rhos[float32](3), times: []float64{0, 0.4, 1}}
	bind(t, backend.Backend[float32](dev), c.sys)
	sweep(t, dev, slices.Equal[[]float32], func() (y []float32, err error) {
		s, err := solver.New(dev, c.sys, solver.Settings{Stepping: solver.PerSample, Fusion: solver.FuseAlways})
		if err != nil {
			return nil, err
		}
		defer s.Close()
		sol, err := s.Solve(context.Background(), c.z0, c.times)
		if err != nil {
			return nil, err
		}
		return sol.Y, nil
	})
}
