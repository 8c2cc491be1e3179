//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// fusedCase is a solve to be made in one launch.
type fusedCase struct {
	spec    mlp.Spec
	set     solver.Settings
	batch   int
	times   []float64
	samples []solver.Sample
}

// solveFused solves a case on dev, in one launch or as fusion says.
func solveFused[T backend.Float](t testing.TB, dev backend.Backend[T], c fusedCase, fusion solver.Fusion, z0 []T) (*solver.Solution[T], error) {
	t.Helper()
	m, err := mlp.New[T](c.spec, mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	c.set.Stepping, c.set.Fusion = solver.PerSample, fusion
	s, err := solver.New(dev, m, c.set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c.samples != nil {
		return s.SolveEach(context.Background(), z0, c.samples)
	}
	return s.Solve(context.Background(), z0, c.times)
}

// states are normal numbers.
func states[T backend.Float](c fusedCase) []T {
	r := rand.New(rand.NewPCG(5, 7))
	z0 := make([]T, c.batch*c.spec.Widths[0])
	for i := range z0 {
		z0[i] = T(r.NormFloat64())
	}
	return z0
}

// checkFused compares a solve in one launch with the CPU's. The solutions may differ by
// what rounding does to step sizes: a part of the tolerance, and a rounding error.
func checkFused[T backend.Float](t *testing.T, dev *gpu.Backend[T], host *cpu.Backend[T], name string, c fusedCase) {
	t.Helper()
	z0 := states[T](c)
	got, err := solveFused(t, dev, c, solver.FuseAlways, z0)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	want, err := solveFused(t, host, c, solver.FuseAuto, z0)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Fused || want.Fused {
		t.Errorf("%s: fused %v on the device, %v on the CPU", name, got.Fused, want.Fused)
	}
	limit := 1e-10
	if unsafe.Sizeof(z0[0]) == 4 {
		limit = 2e-5
	}
	for i := range want.Y {
		if d := math.Abs(float64(got.Y[i] - want.Y[i])); !(d <= limit*(1+math.Abs(float64(want.Y[i])))) {
			t.Errorf("%s: element %d is %v, want %v", name, i, got.Y[i], want.Y[i])
			return
		}
	}
	for b := range want.Stats {
		g, w := got.Stats[b], want.Stats[b]
		if unsafe.Sizeof(z0[0]) == 8 && (g.Evaluations != w.Evaluations || g.Accepted != w.Accepted || g.Rejected != w.Rejected) || g.T != w.T {
			t.Errorf("%s: sample %d: %+v, want %+v", name, b, g, w)
		}
	}
}

// ownSamples have spans of their own, each longer by `more` than the one before, some of
// them backwards, with breakpoints or tolerances, and one of no length.
func ownSamples(n int, more float64) (all []solver.Sample) {
	for b := range n {
		s := solver.Sample{Times: []float64{float64(b) / 50, 1, 1.5 + more*float64(b)}}
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
		all = append(all, s)
	}
	return all
}

func testFused[T backend.Float](t *testing.T) {
	dev, host := open[T](t), cpu.New[T]()
	defer host.Close()
	times := []float64{0, 0.1, 0.15, 0.7, 1}
	single := unsafe.Sizeof(T(0)) == 4
	for i, method := range solver.Methods() {
		if single && i%4 != 0 { // the formulas are those of float64
			continue
		}
		c := fusedCase{spec: mlp.Dense(mlp.Tanh, 3, 9, 3), batch: 37, times: times}
		c.spec.Time = mlp.TimeInput
		c.set.Method = method
		if !method.Tableau().Adaptive() {
			c.set.Step = 0.11
		}
		checkFused(t, dev, host, method.String(), c)
		c.set.Step, c.set.Breakpoints = 0.09, []float64{0.33, 0.5}
		c.times = []float64{1, 0.9, 0.3, -0.1}
		checkFused(t, dev, host, method.String()+" back with fixed steps", c)
	}
	for act := mlp.Identity; act <= mlp.Sin; act++ {
		c := fusedCase{spec: mlp.Dense(act, 2, 5, 2), batch: 5, times: times}
		c.spec.Input = mlp.InputCube
		c.set.MaxStep = 0.2
		c.times = []float64{0.5, 0.2, 0}
		checkFused(t, dev, host, act.String(), c)
	}
	for _, widths := range [][]int{{1, 1}, {5, 17, 31, 5}, {33, 128, 33}, {128, 128, 128}} {
		c := fusedCase{spec: mlp.Dense(mlp.SiLU, widths...), batch: 34, times: []float64{0, 0.3}}
		checkFused(t, dev, host, fmt.Sprint(widths), c)
	}
	c := fusedCase{spec: mlp.Dense(mlp.Softplus, 2, 6, 2), batch: 40}
	c.set.Dense = true
	c.samples = ownSamples(c.batch, 1)
	c.set.MaxStep = 3
	checkFused(t, dev, host, "each its own times", c)
}

func TestFused_AsTheCPU(t *testing.T) {
	t.Run("float64", testFused[float64])
	t.Run("float32", testFused[float32])
}

// A sample has the same bits alone, in company and on a rerun, and one that is not finite
// disturbs no other.
func TestFused_SamplesAreAlone(t *testing.T) {
	dev := open[float32](t)
	c := fusedCase{spec: mlp.Dense(mlp.SiLU, 2, 8, 2), batch: 1000, times: []float64{0, 0.4, 1}}
	c.set.RTol, c.set.ATol = 1e-3, 1e-4
	z0 := states[float32](c)
	want, err := solveFused(t, dev, c, solver.FuseAlways, z0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := solveFused(t, dev, c, solver.FuseAlways, z0)
	if err != nil || !slices.Equal(again.Y, want.Y) {
		t.Errorf("a rerun differs: %v", err)
	}
	const bad = 421
	broken := slices.Clone(z0)
	broken[2*bad], broken[2*bad+1] = 3e38, -3e38 // layers overflow
	got, err := solveFused(t, dev, c, solver.FuseAlways, broken)
	if !errors.Is(err, solver.NotFinite) || got == nil {
		t.Fatalf("error %v", err)
	}
	for b := range c.batch {
		for i := range c.times {
			if b != bad && (got.Status[b] != solver.Done || !slices.Equal(got.Sample(i, b), want.Sample(i, b))) {
				t.Fatalf("sample %d: %v, %v, want %v", b, got.Status[b], got.Sample(i, b), want.Sample(i, b))
			}
		}
	}
	for _, b := range []int{0, 33, 999} {
		c.batch = 1
		alone, err := solveFused(t, dev, c, solver.FuseAlways, z0[2*b:2*b+2])
		if err != nil || !slices.Equal(alone.Sample(2, 0), want.Sample(2, b)) {
			t.Errorf("sample %d alone: %v, want %v: %v", b, alone.Sample(2, 0), want.Sample(2, b), err)
		}
	}
}

// watched is a device that keeps what makes its solves at once.
type watched struct {
	*gpu.Backend[float32]
	last backend.Fused[float32]
}

func (w *watched) Fuse(p backend.Fusible[float32]) (backend.Fused[float32], error) {
	f, err := w.Backend.Fuse(p)
	w.last = f
	return f, err
}

// No sample waits for a slower one: of samples that need up to twenty times as many steps
// as others, the device evaluates little more than the sum of what they need.
func TestFused_Work(t *testing.T) {
	dev := &watched{Backend: open[float32](t)}
	dev.Pretend(1)
	c := fusedCase{spec: mlp.Dense(mlp.Tanh, 2, 4, 2), batch: 2000}
	c.set.Method, c.set.Step = solver.Bosh3, 0.1
	for b := range c.batch {
		c.samples = append(c.samples, solver.Sample{Times: []float64{0, 0.2 + 4*math.Pow(math.Sin(float64(b)), 4)}})
	}
	sol, err := solveFused[float32](t, dev, c, solver.FuseAlways, states[float32](c))
	if err != nil {
		t.Fatal(err)
	}
	var needed, most int64
	for _, s := range sol.Stats {
		needed += s.Evaluations
		most = max(most, s.Evaluations)
	}
	ratio := float64(gpu.Places(dev.last)) / float64(needed)
	t.Logf("%.3f times the evaluations that samples need; waiting for the slowest would be %.1f times", ratio, float64(most)*float64(c.batch)/float64(needed))
	if ratio < 1 || ratio > 1.15 {
		t.Errorf("%.3f times the evaluations that samples need", ratio)
	}
}

// A solve is one launch and one wait, and then two for what is read back, however many
// steps it takes.
func TestFused_Launches(t *testing.T) {
	dev := open[float32](t)
	for _, step := range []float64{0.1, 0.005} {
		c := fusedCase{spec: mlp.Dense(mlp.Tanh, 2, 8, 2), batch: 70, times: []float64{0, 0.4, 1}}
		c.set.Step = step
		before := dev.Counts()
		if _, err := solveFused(t, dev, c, solver.FuseAlways, states[float32](c)); err != nil {
			t.Fatal(err)
		}
		after := dev.Counts()
		if launches, waits := after.Launches-before.Launches, after.Waits-before.Waits; launches != 1 || waits != 3 {
			t.Errorf("steps of %g: %d launches and %d waits", step, launches, waits)
		}
	}
}
