//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func open[T backend.Float](t testing.TB) *gpu.Backend[T] {
	t.Helper()
	b, err := gpu.Open[T](gpu.Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// result is a solution and its gradient.
type result[T backend.Float] struct {
	y, z0, theta []T
	times        []T
	forward      []solver.Stats
}

// run solves a small Neural ODE on dev and computes the gradient of a fixed loss.
func run[T backend.Float](t testing.TB, dev backend.Backend[T], set solver.Settings) result[T] {
	t.Helper()
	return runNet(t, dev, set, 2, 9, 2)
}

// runNet is run of a network of the given widths, from 2 to 2.
func runNet[T backend.Float](t testing.TB, dev backend.Backend[T], set solver.Settings, widths ...int) result[T] {
	t.Helper()
	ctx := context.Background()
	spec := mlp.Dense(mlp.Tanh, widths...)
	spec.Time = mlp.TimeInput
	m, err := mlp.New[T](spec, mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 2))
	z0 := make([]T, 5*2)
	for i := range z0 {
		z0[i] = T(r.NormFloat64())
	}
	sol, err := s.Solve(ctx, z0, []float64{0, 0.3, 1, 1.5})
	if err != nil {
		t.Fatal(err)
	}
	cot := make([]T, len(sol.Y))
	for i := range cot {
		cot[i] = T(math.Sin(float64(i)))
	}
	g, err := adjoint.Gradients(ctx, s, sol, cot)
	if err != nil {
		t.Fatal(err)
	}
	return result[T]{y: sol.Y, z0: g.Z0, theta: g.Theta, times: convert[T](g.Times), forward: sol.Stats}
}

func convert[T backend.Float](x []float64) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// near fails unless got is within tol of want, relative to the largest of want.
func near[T backend.Float](t *testing.T, what string, got, want []T, tol float64) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tol*largest) {
			t.Errorf("%s[%d] = %.9g, want %.9g, off by %.2g of the largest", what, i, got[i], w, d/largest)
			return
		}
	}
}

// Solutions and gradients equal the CPU's within rounding, for every method. In
// float64 the steps are the same: the error that chooses them is far above rounding.
func TestSolve_MatchesCPU(t *testing.T) {
	for _, m := range solver.Methods() {
		set := solver.Settings{Method: m, RTol: 1e-3, ATol: 1e-4}
		if !m.Adaptive() {
			set.Step = 0.25
		}
		t.Run(m.String(), func(t *testing.T) { matches[float64](t, set, 1e-12) })
	}
}

// The same where every sample steps alone, and in float32. There the error of a step
// of high order is rounding, and the size of the next is too: the solutions agree, the
// steps need not.
func TestSolve_MatchesCPUPerSample(t *testing.T) {
	for _, m := range []solver.Method{solver.Bosh3, solver.Dopri8} {
		set := solver.Settings{Method: m, Stepping: solver.PerSample, RTol: 1e-3, ATol: 1e-4}
		t.Run(m.String()+"/f64", func(t *testing.T) { matches[float64](t, set, 1e-12) })
		t.Run(m.String()+"/f32", func(t *testing.T) { matches[float32](t, set, 2e-5) })
		set.Stepping = solver.Joint
		t.Run(m.String()+"/f32/joint", func(t *testing.T) { matches[float32](t, set, 2e-5) })
	}
}

func matches[T backend.Float](t *testing.T, set solver.Settings, tol float64) {
	dev := open[T](t)
	host := cpu.New[T]()
	defer host.Close()
	want, got := run(t, host, set), run(t, dev, set)
	near(t, "z", got.y, want.y, tol)
	near(t, "dL/dz0", got.z0, want.z0, tol)
	near(t, "dL/dθ", got.theta, want.theta, tol)
	near(t, "dL/dt", got.times, want.times, tol)
	var single T
	for b := range want.forward {
		if unsafe.Sizeof(single) == 8 && (got.forward[b].Accepted != want.forward[b].Accepted || got.forward[b].Evaluations != want.forward[b].Evaluations) {
			t.Errorf("sample %d: %+v, on the CPU %+v", b, got.forward[b], want.forward[b])
		}
	}
	if n := dev.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes are in use after everything was closed", n)
	}
}

func TestSolve_Reruns(t *testing.T) {
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{Stepping: stepping, RTol: 1e-3, ATol: 1e-4}
		dev := open[float32](t)
		one, two := run(t, dev, set), run(t, dev, set)
		if !slices.Equal(one.y, two.y) || !slices.Equal(one.z0, two.z0) || !slices.Equal(one.theta, two.theta) {
			t.Errorf("%v: a rerun differs", stepping)
		}
	}
}
