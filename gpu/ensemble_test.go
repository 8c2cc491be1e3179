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

// A solve of compiled equations in one launch is the CPU's, with every method.
func TestEnsemble_AsTheCPU(t *testing.T) {
	dev := open[float64](t)
	c := ensembleCase[float64]{sys: swing[float64](t)}
	for b := range 37 {
		c.z0 = append(c.z0, 0.1*float64(b), 1-0.05*float64(b))
	}
	for _, method := range solver.Methods() {
		c := c
		c.set.Method = method
		if !method.Tableau().Adaptive() {
			c.set.Step = 0.11
		}
		c.times = []float64{0, 0.1, 0.15, 0.7, 1}
		c.check(t, dev, method.String())
		c.set.Breakpoints, c.set.MaxStep = []float64{0.33, 0.5}, 0.3
		c.times = []float64{1, 0.9, 0.3, -0.1}
		c.check(t, dev, method.String()+", back")
	}
	c.set.Method, c.set.Step, c.times = solver.Bosh3, 0.09, []float64{1, 0.9, 0.3, -0.1}
	c.check(t, dev, "fixed steps")

	c.set, c.times = solver.Settings{Dense: true, MaxStep: 3, MaxAttempts: 40}, nil
	for b := range 37 {
		s := solver.Sample{Times: []float64{float64(b) / 50, 1, 1.5 + 0.1*float64(b)}}
		if b%3 == 0 {
			slices.Reverse(s.Times)
			s.Breakpoints = []float64{0.9}
		}
		if b%4 == 0 {
			s.RTol, s.ATol = 1e-4, 1e-5
		}
		if b == 7 {
			s.Times = s.Times[:1]
		}
		c.samples = append(c.samples, s)
	}
	c.check(t, dev, "each its own times")
}

// A state that is not in registers, and one that FuseAuto leaves alone.
func TestEnsemble_Large(t *testing.T) {
	dev := open[float64](t)
	chain := func(n int) (c ensembleCase[float64]) {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("z%d - 2*z%d + sin(t)*z%d", (i+1)%n, i, (i+n-1)%n))
		}
		c.sys = system[float64](t, nil, nil, list...)
		for i := range 3 * n {
			c.z0 = append(c.z0, math.Cos(float64(i)))
		}
		c.times = []float64{0, 0.3, 1}
		return c
	}
	chain(20).check(t, dev, "20 components")
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

// The gradient over the tape of a solve in one launch, which takes launches while the
// tape grows, is the CPU's.
func TestEnsemble_TapeGrows(t *testing.T) {
	dev, host := open[float64](t), cpu.New[float64]()
	defer host.Close()
	set := solver.Settings{Method: solver.RK4, Step: 1. / 300, Stepping: solver.PerSample}
	z0, cot := make([]float64, 2*250), make([]float64, 2*2*250)
	for i := range cot {
		z0[i%len(z0)], cot[i] = math.Sin(float64(i)), math.Cos(float64(i))
	}
	grad := func(dev backend.Backend[float64]) *adjoint.Gradient[float64] {
		sys := swing[float64](t)
		bind(t, dev, sys)
		s, err := solver.New(dev, sys, set)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Discrete})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		sol, err := a.Solve(context.Background(), z0, []float64{0, 1})
		if err != nil {
			t.Fatal(err)
		}
		if sol.Fused != (dev != backend.Backend[float64](host)) {
			t.Errorf("fused %v on %s", sol.Fused, sol.Backend)
		}
		g, err := a.Gradients(context.Background(), sol, cot)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	got, want := grad(dev), grad(host)
	near(t, "∂L/∂z0", got.Z0, want.Z0, 1e-11)
	near(t, "∂L/∂θ", got.Theta, want.Theta, 1e-11)
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
