//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// spiral is a small Neural ODE.
func spiral(t testing.TB, dev backend.Backend[float64], set solver.Settings, events ...solver.Event[float64]) *solver.Solver[float64] {
	t.Helper()
	spec := mlp.Dense(mlp.Softplus, 2, 9, 2)
	spec.Time = mlp.TimeInput
	m, err := mlp.New[float64](spec, mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, set, events...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var spiralStates = []float64{1, 0, 0.3, -0.2, -1, 0.5, 0.1, 0.1}

func sines(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = math.Sin(float64(i))
	}
	return x
}

// The gradient on the device is one, to the last bit, whatever is kept of the steps, and
// the CPU's to rounding; so are those of the other methods. On a budget dL/dθ is summed in
// another order.
func TestAdjoint_MethodsAndModes(t *testing.T) {
	ctx := context.Background()
	ts := []float64{0, 0.3, 1, 1.5}
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{Stepping: stepping, RTol: 1e-4, ATol: 1e-5}
		dev, host := open[float64](t), cpu.New[float64]()
		gradient := func(b backend.Backend[float64], how adjoint.Settings) *adjoint.Gradient[float64] {
			s := spiral(t, b, set)
			a, err := adjoint.New(s, how)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			sol, err := a.Solve(ctx, spiralStates, ts)
			if err != nil {
				t.Fatal(err)
			}
			g, err := a.Gradients(ctx, sol, sines(len(sol.Y)))
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		var first *adjoint.Gradient[float64]
		for _, how := range []adjoint.Settings{
			{Method: adjoint.Discrete}, {Method: adjoint.Discrete, Store: adjoint.States},
			{Method: adjoint.Discrete, Budget: 32 << 10}, {Method: adjoint.Discrete, Budget: 12 << 10, HostBudget: 12 << 10},
			{Method: adjoint.Continuous}, {Method: adjoint.Interpolating},
		} {
			got, want := gradient(dev, how), gradient(host, how)
			near(t, "dL/dz0", got.Z0, want.Z0, 1e-12)
			near(t, "dL/dθ", got.Theta, want.Theta, 1e-12)
			if how.Method != adjoint.Discrete {
				continue
			}
			if first == nil {
				first = got
			} else if !slices.Equal(first.Z0, got.Z0) || how.Budget == 0 && !slices.Equal(first.Theta, got.Theta) {
				t.Errorf("%v, %+v: another gradient", stepping, how)
			}
			if how.Budget > 0 && (got.Memory > how.Budget || got.HostMemory > how.HostBudget) {
				t.Errorf("%+v: %d and %d bytes", how, got.Memory, got.HostMemory)
			}
		}
		// Steps that react to rounding amplify it.
		on := adjoint.Settings{StepSizes: true}
		got, want := gradient(dev, on), gradient(host, on)
		near(t, "dL/dz0 with step sizes", got.Z0, want.Z0, 1e-9)
		near(t, "dL/dθ with step sizes", got.Theta, want.Theta, 1e-9)
		near(t, "dL/dt with step sizes", got.Times, want.Times, 1e-9)
		if n := dev.MemoryUsed(); n > 1<<20 {
			t.Errorf("%d bytes are left in use", n)
		}
	}
}

// Gradients of replayed steps, forwards and back, have the bits of those launched one by
// one, also where a gradient reuses the recordings of the one before.
func TestAdjoint_ReplaysAreBitEqual(t *testing.T) {
	ctx := context.Background()
	dev := open[float64](t)
	gradients := func(b backend.Backend[float64], set solver.Settings, how adjoint.Settings) (all []float64, replays int64) {
		s := spiral(t, b, set)
		a, err := adjoint.New(s, how)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for range 2 {
			before := dev.Counts().Graphs
			sol, err := a.Solve(ctx, spiralStates, []float64{0, 0.3, 1, 1.5})
			if err != nil {
				t.Fatal(err)
			}
			g, err := a.Gradients(ctx, sol, sines(len(sol.Y)))
			if err != nil {
				t.Fatal(err)
			}
			replays = dev.Counts().Graphs - before
			all = append(append(append(all, sol.Y...), g.Z0...), g.Theta...)
		}
		return all, replays
	}
	jointly := solver.Settings{RTol: 1e-4, ATol: 1e-5, Fusion: solver.FuseNever}
	alone, fixed := jointly, solver.Settings{Method: solver.RK4, Step: 0.1, Fusion: solver.FuseNever}
	alone.Stepping = solver.PerSample
	for _, c := range []struct {
		set solver.Settings
		how adjoint.Settings
	}{
		{jointly, adjoint.Settings{}}, {jointly, adjoint.Settings{Store: adjoint.States}}, {jointly, adjoint.Settings{Budget: 32 << 10}},
		{jointly, adjoint.Settings{Method: adjoint.Continuous}}, {jointly, adjoint.Settings{Method: adjoint.Interpolating}},
		{jointly, adjoint.Settings{Method: adjoint.Reversible}}, {fixed, adjoint.Settings{Method: adjoint.Reversible}},
		{alone, adjoint.Settings{}}, {fixed, adjoint.Settings{}},
	} {
		got, replays := gradients(dev, c.set, c.how)
		want, none := gradients(unrecorded[float64]{dev, dev, dev}, c.set, c.how)
		if !slices.Equal(got, want) {
			t.Errorf("%+v: other bits", c)
		}
		if replays == 0 || none != 0 {
			t.Errorf("%+v: %d replays, and %d without a recorder", c, replays, none)
		}
	}
}

// Samples with times and tolerances of their own, and events with resets, give the
// CPU's solutions, events and gradients.
func TestAdjoint_OwnTimesAndEvents(t *testing.T) {
	ctx := context.Background()
	samples := []solver.Sample{
		{Times: []float64{0, 0.2, 2}}, {Times: []float64{1, -0.5}, RTol: 1e-6, ATol: 1e-7},
		{Times: []float64{3, 3}}, {Times: []float64{0, 1, 1.1, 1.2, 2.5}, FirstStep: 0.1, MaxStep: 0.3, Breakpoints: []float64{0.7}},
	}
	wall := solver.NewEvent([]float64{0.35}, sum[float64], sum[complex128], halve[float64], halve[complex128])
	noted := solver.NewEvent(nil, first[float64], first[complex128], nil, nil)
	type result struct {
		sol *solver.Solution[float64]
		g   *adjoint.Gradient[float64]
	}
	run := func(b backend.Backend[float64], how adjoint.Settings) result {
		s := spiral(t, b, solver.Settings{Stepping: solver.PerSample, RTol: 1e-5, ATol: 1e-6}, wall, noted)
		a, err := adjoint.New(s, how)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		sol, err := a.SolveEach(ctx, spiralStates, samples)
		if err != nil {
			t.Fatal(err)
		}
		g, err := a.Gradients(ctx, sol, sines(len(sol.Y)))
		if err != nil {
			t.Fatal(err)
		}
		return result{sol, g}
	}
	got, want := run(open[float64](t), adjoint.Settings{}), run(cpu.New[float64](), adjoint.Settings{})
	small := run(open[float64](t), adjoint.Settings{Budget: 12 << 10})
	if !slices.Equal(small.g.Z0, got.g.Z0) || !slices.Equal(small.g.Theta, got.g.Theta) || !slices.Equal(small.g.Events[0], got.g.Events[0]) || small.g.Stats[0].Evaluations <= got.g.Stats[0].Evaluations {
		t.Error("on a budget there is another gradient, or nothing is made again")
	}
	near(t, "z", got.sol.Y, want.sol.Y, 1e-12)
	near(t, "dL/dz0", got.g.Z0, want.g.Z0, 1e-11)
	near(t, "dL/dθ", got.g.Theta, want.g.Theta, 1e-11)
	near(t, "dL/dt", got.g.Times, want.g.Times, 1e-11)
	near(t, "dL/d(wall)", got.g.Events[0], want.g.Events[0], 1e-11)
	count := 0
	for b, found := range want.sol.Events {
		if len(got.sol.Events[b]) != len(found) {
			t.Fatalf("sample %d: %d events, on the CPU %d", b, len(got.sol.Events[b]), len(found))
		}
		for i, o := range found {
			count++
			if p := got.sol.Events[b][i]; p.Event != o.Event || math.Abs(p.T-o.T) > 1e-11 {
				t.Errorf("sample %d: event %d at %g, on the CPU %d at %g", b, p.Event, p.T, o.Event, o.T)
			}
		}
	}
	if count == 0 {
		t.Error("nothing happened")
	}
}

type number interface{ float64 | complex128 }

func sum[T number](_ T, z, th []T) T     { return z[0] + z[1] - th[0] }
func first[T number](_ T, z, _ []T) T    { return z[0] }
func halve[T number](_ T, z, _, out []T) { out[0], out[1] = z[0]/2, z[1]/4 }
