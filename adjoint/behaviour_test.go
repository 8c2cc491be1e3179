package adjoint_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// wants fails unless err says all of want.
func wants(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestGradients_BadInput(t *testing.T) {
	if _, err := adjoint.New[float64](nil, adjoint.Settings{}); true {
		wants(t, err, "adjoint: New needs a solver", "solver.New")
	}
	p := problems.LotkaVolterra()
	s := newSolver(t, problems.System[float64](p), solver.Settings{})
	other := newSolver(t, problems.System[float64](p), solver.Settings{Stepping: solver.PerSample})
	_, err := adjoint.New(other, adjoint.Settings{Method: adjoint.Continuous, FullNorm: true})
	wants(t, err, "FullNorm", "Joint")
	_, err = adjoint.New(s, adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{RTol: -1}})
	wants(t, err, "Settings.Solver", "RTol is -1")

	for _, bad := range []adjoint.Settings{
		{Solver: &solver.Settings{}}, {FullNorm: true}, {Method: 9}, {Store: 9}, {Budget: -1},
		{Method: adjoint.Continuous, Budget: 1}, {Method: adjoint.Interpolating, Store: adjoint.States},
		{Method: adjoint.Interpolating, FullNorm: true},
		{Method: adjoint.Interpolating, Solver: &solver.Settings{Stepping: solver.PerSample}},
	} {
		if _, err := adjoint.New(s, bad); err == nil || !strings.HasPrefix(err.Error(), "adjoint: Settings") {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	sol := solve(t, s, []float64{1, 1, 2, 1}, []float64{0, 1, 2})
	good := make([]float64, len(sol.Y))
	good[len(good)-1] = 1

	_, err = a.Gradients(ctx, nil, good)
	wants(t, err, "needs a solution")
	_, err = a.Gradients(nil, sol, good) //lint:ignore SA1012 that is what is tested
	wants(t, err, "nil context", "context.Background()")
	_, err = a.Gradients(ctx, sol, good[:5])
	wants(t, err, "dLdz has 5 elements and the solution 12", "Solution.Y")
	bad := append([]float64{}, good...)
	bad[7] = math.NaN()
	_, err = a.Gradients(ctx, sol, bad)
	wants(t, err, "time 1", "sample 1", "component 1", "NaN", "check the loss")

	foreign := solve(t, other, []float64{1, 1, 2, 1}, []float64{0, 1, 2})
	if _, err = a.Gradients(ctx, foreign, good); err == nil {
		t.Error("the solution of another solver was taken")
	}
	if err := s.SetParams([]float64{1, 1, 3, 1}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Gradients(ctx, sol, good)
	wants(t, err, "parameters it has now", "Solve again")

	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error("second Close:", err)
	}
	s.Close()
	_, err = a.Gradients(ctx, sol, good)
	if !errors.Is(err, backend.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A batch that stepped jointly and failed has no gradient, nor has one of which no
// sample arrived.
func TestGradients_UnfinishedSolution(t *testing.T) {
	blowUp := field.New(1, nil, square[float64], square[field.Dual])
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		s := newSolver(t, blowUp, solver.Settings{Stepping: stepping})
		sol, err := s.Solve(ctx, []float64{1, 2}, []float64{0, 2}) // z = 1/(1/z0 - t)
		if err == nil {
			t.Fatal("z' = z² from 1 reached t = 2")
		}
		_, err = adjoint.Gradients(ctx, s, sol, []float64{0, 0, 1, 1})
		wants(t, err, "ended early", "solve again")
	}
}

func square[T field.Number](_ T, z, _, dz []T) { dz[0] = z[0] * z[0] }

// z' = -50·z forgets its start: backwards it grows by e^50, and any error with it.
// The drift says so, and a reset at more outputs mends it.
func TestDrift_ShowsAFailedReverseSolve(t *testing.T) {
	decay := field.New(1, []float64{-50}, linear1[float64], linear1[field.Dual])
	s := newSolver(t, decay, solver.Settings{RTol: 1e-6, ATol: 1e-9, MaxAttempts: 1e6})
	sol := solve(t, s, []float64{1}, []float64{0, 1})
	g, err := continuous(s, sol, []float64{0, 1})
	if err == nil && g.Drift.Ratio < 1e6 {
		t.Errorf("z(0) = 1 from z(1) = e^-50 without a drift: %v", g.Drift)
	}
	ts := make([]float64, 101)
	for i := range ts {
		ts[i] = float64(i) / 100
	}
	sol = solve(t, s, []float64{1}, ts)
	a := make([]float64, len(ts))
	for i := range a {
		a[i] = 1
	}
	g, err = continuous(s, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	if g.Drift.Ratio > 100 {
		t.Errorf("with 100 resets: %v", g.Drift)
	}
	want := 0.0
	for _, t := range ts {
		want += math.Exp(-50 * t)
	}
	closeTo(t, "dL/dz0", g.Z0, []float64{want}, 1e-4) // a hundred steps of 1e-6
	if s := g.Drift.String(); !strings.Contains(s, "tolerances") || !strings.Contains(s, "t = ") {
		t.Errorf("drift reads %q", s)
	}
}

func continuous(s *solver.Solver[float64], sol *solver.Solution[float64], dLdz []float64) (*adjoint.Gradient[float64], error) {
	a, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Continuous})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.Gradients(ctx, sol, dLdz)
}

func linear1[T field.Number](_ T, z, th, dz []T) { dz[0] = th[0] * z[0] }

func TestGradients_Cancelled(t *testing.T) {
	p := problems.LotkaVolterra()
	s := newSolver(t, problems.System[float64](p), solver.Settings{RTol: 1e-9, ATol: 1e-9})
	sol := solve(t, s, p.Z0, []float64{0, 10})
	c, cancel := context.WithCancel(ctx)
	steps := 0
	a, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{RTol: 1e-9, ATol: 1e-9, Progress: func(backend.Progress) {
		if steps++; steps == 5 {
			cancel()
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Gradients(c, sol, []float64{0, 0, 1, 1})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, solver.Cancelled) {
		t.Fatalf("got %v", err)
	}
	if steps != 5 {
		t.Errorf("%d steps after a cancel at 5", steps)
	}
	if g == nil || !(g.Stats[0].T < 10 && g.Stats[0].T > 0) {
		t.Errorf("what was computed is not returned: %+v", g)
	}
}

// No cotangent but at t0, a span of length zero, a field without parameters.
func TestGradients_Degenerate(t *testing.T) {
	p := problems.LotkaVolterra()
	s := newSolver(t, problems.System[float64](p), solver.Settings{})
	g := gradients(t, s, adjoint.Settings{}, solve(t, s, p.Z0, []float64{0, 1, 2}), []float64{3, 4, 0, 0, 0, 0})
	closeTo(t, "dL/dz0", g.Z0, []float64{3, 4}, 0)
	closeTo(t, "dL/dθ", g.Theta, make([]float64, 4), 0)
	closeTo(t, "dL/dt", g.Times, make([]float64, 3), 0)

	// f(1, 1) = (0.5, -2), so moving the second time alone changes L by g·f.
	g = gradients(t, s, adjoint.Settings{}, solve(t, s, p.Z0, []float64{5, 5}), []float64{1, 0, 2, 3})
	closeTo(t, "dL/dz0", g.Z0, []float64{3, 3}, 0)
	closeTo(t, "dL/dt", g.Times, []float64{5, -5}, 1e-15)

	g = gradients(t, s, adjoint.Settings{NoTimes: true}, solve(t, s, p.Z0, []float64{0, 1}), []float64{0, 0, 1, 1})
	if g.Times != nil {
		t.Errorf("NoTimes: Times = %v", g.Times)
	}

	free := newSolver(t, field.New(1, nil, square[float64], square[field.Dual]), solver.Settings{RTol: 1e-10, ATol: 1e-10})
	g = gradients(t, free, adjoint.Settings{}, solve(t, free, []float64{0.5}, []float64{0, 1}), []float64{0, 1})
	closeTo(t, "dz(1)/dz0", g.Z0, []float64{4}, 1e-8) // z = 1/(1/z0 - t), (z/z0)²
	if len(g.Theta) != 0 {
		t.Errorf("dL/dθ of no parameters is %v", g.Theta)
	}
}

// f jumps at t = 1: with the breakpoint the gradient keeps its accuracy, and no
// evaluation mixes both sides.
func TestGradients_Breakpoints(t *testing.T) {
	f := &field.Custom[float64]{
		N: 1, Theta: []float64{-1, 2},
		F: func(t float64, z, th, dz []float64) { dz[0] = th[side(t)] * z[0] },
		BackF: func(t float64, z, th, a, az, ath []float64) float64 {
			az[0] = th[side(t)] * a[0]
			if ath != nil {
				ath[side(t)] += a[0] * z[0]
			}
			return 0
		},
	}
	s := newSolver(t, f, solver.Settings{RTol: 1e-10, ATol: 1e-10, Breakpoints: []float64{1}})
	sol := solve(t, s, []float64{0.5}, []float64{0, 1.5})
	g := gradients(t, s, adjoint.Settings{}, sol, []float64{0, 1})
	z1 := 0.5 * math.Exp(-1+2*0.5)
	closeTo(t, "z", sol.Final(), []float64{z1}, 1e-9)
	closeTo(t, "dL/dz0", g.Z0, []float64{z1 / 0.5}, 1e-9)
	closeTo(t, "dL/dθ", g.Theta, []float64{z1, z1 * 0.5}, 1e-9)
	closeTo(t, "dL/dt", g.Times, []float64{z1, 2 * z1}, 1e-9)
}

func side(t float64) int {
	if t < 1 {
		return 0
	}
	return 1
}

// Known physics plus an MLP: both parts' parameters get their gradient.
func TestGradients_Sum(t *testing.T) {
	physics := field.New(2, []float64{1.5, 3}, func(_ float64, z, th, dz []float64) {
		dz[0], dz[1] = th[0]*z[0], -th[1]*z[1]
	}, func(_ field.Dual, z, th, dz []field.Dual) {
		dz[0], dz[1] = th[0]*z[0], -th[1]*z[1]
	})
	net, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := field.Plus(backend.System[float64](physics), net)
	if err != nil {
		t.Fatal(err)
	}
	s := newSolver(t, sum, solver.Settings{RTol: 1e-11, ATol: 1e-11})
	theta := sum.Params()
	ts, z0 := []float64{0, 1}, []float64{1, 0.5}
	g := gradients(t, s, adjoint.Settings{}, solve(t, s, z0, ts), []float64{0, 0, 1, 1})
	want := make([]float64, len(theta))
	for i := range theta {
		const h = 1e-5
		value := func(x float64) float64 {
			th := append([]float64{}, theta...)
			th[i] = x
			if err := s.SetParams(th); err != nil {
				t.Fatal(err)
			}
			y := solve(t, s, z0, ts).Final()
			return y[0] + y[1]
		}
		want[i] = (value(theta[i]+h) - value(theta[i]-h)) / (2 * h)
	}
	closeTo(t, "dL/dθ", g.Theta, want, 1e-6)
}

// A field without a VJP says what to do about it.
func TestGradients_NoVJP(t *testing.T) {
	s := newSolver(t, &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }}, solver.Settings{})
	sol := solve(t, s, []float64{1}, []float64{0, 1})
	_, err := adjoint.Gradients(ctx, s, sol, []float64{0, 1})
	if !errors.Is(err, backend.ErrUnsupported) {
		t.Fatalf("got %v", err)
	}
	wants(t, err, "no VJP", "field.New")
	if _, err := s.Solve(ctx, []float64{1}, []float64{0, 1}); err != nil {
		t.Errorf("the solver is of no use afterwards: %v", err)
	}
}

// steps returns a function that computes a gradient over n steps, and the memory it
// holds on the device.
func steps(t testing.TB, stepping solver.Stepping, n int) (run func(), held func() int64) {
	dev := cpu.New[float64]()
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, solver.Settings{Step: 1 / float64(n), Stepping: stepping, MaxAttempts: 1e7})
	if err != nil {
		t.Fatal(err)
	}
	sol, err := s.Solve(ctx, []float64{1, 0, 0, 1, 1, 1}, []float64{0, 0.5, 1})
	if err != nil {
		t.Fatal(err)
	}
	a, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Continuous})
	if err != nil {
		t.Fatal(err)
	}
	c := make([]float64, len(sol.Y))
	for i := range c {
		c[i] = 1
	}
	return func() {
		g, err := a.Gradients(ctx, sol, c)
		if err != nil {
			t.Fatal(err)
		}
		if g.Stats[0].Accepted < int64(n) {
			t.Fatalf("%d steps, want %d", g.Stats[0].Accepted, n)
		}
	}, dev.MemoryUsed
}

// Memory does not grow with the number of steps, neither on the device nor by
// garbage of a step.
func TestGradients_ConstantMemory(t *testing.T) {
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		few, heldFew := steps(t, stepping, 10)
		many, heldMany := steps(t, stepping, 1000)
		few()
		many()
		if a, b := heldFew(), heldMany(); a != b {
			t.Errorf("%v: %d bytes after 10 steps, %d after 1000", stepping, a, b)
		}
		if a, b := testing.AllocsPerRun(5, few), testing.AllocsPerRun(5, many); a != b {
			t.Errorf("%v: %g allocations for 10 steps, %g for 1000", stepping, a, b)
		}
	}
}

// An Adjoint closes what it opened.
func TestAdjoint_ReturnsMemory(t *testing.T) {
	dev := cpu.New[float64]()
	p := problems.LotkaVolterra()
	s, err := solver.New(dev, problems.System[float64](p), solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	sol := solve(t, s, p.Z0, []float64{0, 1, 2})
	before := dev.MemoryUsed()
	for _, full := range []bool{false, true} {
		gradients(t, s, adjoint.Settings{Method: adjoint.Continuous, FullNorm: full}, sol, []float64{0, 0, 1, 1, 1, 1})
	}
	if after := dev.MemoryUsed(); after != before {
		t.Errorf("%d bytes held before, %d after", before, after)
	}
}

func BenchmarkGradients_Memory(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("tsit5/f64/B=3/D=2/W=16/steps=%d", n), func(b *testing.B) {
			run, held := steps(b, solver.Joint, n)
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(held()), "device-bytes")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/step")
		})
	}
}
