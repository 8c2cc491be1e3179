package adjoint_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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

// differences are central differences of value with respect to every step-th of x.
func differences(x []float64, h float64, value func() float64) (diff []float64) {
	for i := range x {
		was := x[i]
		x[i] = was + h
		up := value()
		x[i] = was - h
		down := value()
		x[i] = was
		diff = append(diff, (up-down)/(2*h))
	}
	return diff
}

// The gradient of the computed solution, however wrong that is: steps far too long,
// outputs between them and at their ends, every method, both directions of time. The
// steps do not depend on what is varied, so the differences are those of the same
// discrete solve, good to about 1e-9 at a step of 1e-5.
func TestDiscrete_MatchesFiniteDifferenceOfTheComputedSolution(t *testing.T) {
	for _, method := range solver.Methods() {
		for _, ts := range [][]float64{{0.2, 1.2}, {0.2, 0.5, 0.6, 0.95, 1.2}, {1.2, 0.7, 0.3, 0.2}} {
			for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
				m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity)
				r := rand.New(rand.NewPCG(5, uint64(len(ts))))
				z0, w := noise(r, 2*3, 0.7), noise(r, len(ts)*2*3, 1)
				s := newSolver(t, m, solver.Settings{Method: method, Step: 0.25, Stepping: stepping, Breakpoints: []float64{0.85}})
				sol := solve(t, s, z0, ts)
				_, a := loss(w, sol.Y)
				g := gradients(t, s, adjoint.Settings{Method: adjoint.Discrete}, sol, a)
				value := func() float64 {
					if err := s.SetParams(m.Theta); err != nil {
						t.Fatal(err)
					}
					l, _ := loss(w, solve(t, s, z0, ts).Y)
					return l
				}
				name := fmt.Sprintf("%v, %v, %d times", method, stepping, len(ts))
				closeTo(t, name+" dL/dz0", g.Z0, differences(z0, 1e-5, value), 1e-7)
				closeTo(t, name+" dL/dθ", g.Theta[:30], differences(m.Theta[:30], 1e-5, value), 1e-7)
			}
		}
	}
}

// Whatever is kept of the steps, and whatever was kept between them, the gradient is
// the same to the last bit, and the memory within its budget.
func TestDiscrete_ModesAgreeToTheBit(t *testing.T) {
	for _, method := range []solver.Method{solver.Tsit5, solver.Dopri8, solver.Vern7, solver.Bosh3, solver.HeunEuler21} {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			m := model(t, mlp.Softplus, mlp.TimeInput, mlp.InputCube)
			r := rand.New(rand.NewPCG(8, 8))
			z0 := noise(r, 5*3, 0.7)
			ts := []float64{0.3, 0.30001, 1.7, 2, 3}
			set := solver.Settings{Method: method, RTol: 1e-7, ATol: 1e-9, Stepping: stepping, Breakpoints: []float64{0.9}}
			if method == solver.HeunEuler21 {
				set.RTol, set.ATol = 1e-4, 1e-6
			}
			s := newSolver(t, m, set)
			sol := solve(t, s, z0, ts)
			_, a := loss(noise(r, len(sol.Y), 1), sol.Y)
			want := gradients(t, s, adjoint.Settings{}, sol, a)
			compare := func(what string, g *adjoint.Gradient[float64]) {
				t.Helper()
				if !slices.Equal(g.Z0, want.Z0) || !slices.Equal(g.Theta, want.Theta) || !slices.Equal(g.Times, want.Times) {
					t.Errorf("%v, %v, %s: the gradient is another one", method, stepping, what)
				}
			}
			compare("again", gradients(t, s, adjoint.Settings{}, sol, a))
			states := gradients(t, s, adjoint.Settings{Store: adjoint.States}, sol, a)
			compare("states", states)
			if states.Memory >= want.Memory {
				t.Errorf("%d bytes of states, %d with the stages", states.Memory, want.Memory)
			}
			for _, part := range []float64{2, 1, 0.7, 0.3, 0.1, 0.05} {
				budget := int64(part * float64(states.Memory))
				rev, err := adjoint.New(s, adjoint.Settings{Budget: budget})
				if err != nil {
					t.Fatal(err)
				}
				g, err := rev.Gradients(ctx, sol, a)
				if err != nil {
					if need := smallest(t, err); need <= budget {
						t.Errorf("a budget of %d is refused, and %d is said to be enough", budget, need)
					}
					rev.Close()
					continue
				}
				what := fmt.Sprintf("budget %d of %d", budget, states.Memory)
				compare(what, g)
				if g.Memory > budget || g.Memory <= 0 {
					t.Errorf("%s: %d bytes", what, g.Memory)
				}
				if g, err = rev.Gradients(ctx, sol, a); err != nil {
					t.Fatal(err)
				}
				compare(what+" again", g)
				rev.Close()
			}
		}
	}
}

// smallest reads the budget that an error asks for.
func smallest(t *testing.T, err error) (n int64) {
	t.Helper()
	wants(t, err, "Settings.Budget", "give at least that")
	text := err.Error()
	text = text[strings.LastIndex(text, "takes ")+len("takes "):]
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		t.Fatalf("%q names no number: %v", text, err)
	}
	return n
}

// The smallest budget that an error names is enough, and one byte less is not; a
// thousand steps with so few checkpoints are made again and again, and right.
func TestDiscrete_SmallestBudget(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeNone, mlp.InputIdentity)
	s := newSolver(t, m, solver.Settings{Step: 1e-3})
	z0 := []float64{0.3, 0.2, -0.1}
	sol := solve(t, s, z0, []float64{0, 1})
	a := []float64{0, 0, 0, 1, 2, 3}
	want := gradients(t, s, adjoint.Settings{}, sol, a)
	at := func(budget int64) (*adjoint.Gradient[float64], error) {
		rev, err := adjoint.New(s, adjoint.Settings{Budget: budget})
		if err != nil {
			t.Fatal(err)
		}
		defer rev.Close()
		return rev.Gradients(ctx, sol, a)
	}
	_, err := at(1)
	need := smallest(t, err)
	if _, err := at(need - 1); err == nil {
		t.Errorf("%d bytes are enough, and %d are asked for", need-1, need)
	}
	var evaluations []int64
	for _, budget := range []int64{need, 4 * need, 20 * need} {
		g, err := at(budget)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(g.Theta, want.Theta) || !slices.Equal(g.Z0, want.Z0) || g.Memory > budget {
			t.Errorf("budget %d: %d bytes, or another gradient", budget, g.Memory)
		}
		evaluations = append(evaluations, g.Stats[0].Evaluations)
	}
	rev, err := adjoint.New(s, adjoint.Settings{Budget: need, HostBudget: 20 * need})
	if err != nil {
		t.Fatal(err)
	}
	defer rev.Close()
	g, err := rev.Gradients(ctx, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.Theta, want.Theta) || g.Memory > need || g.HostMemory > 20*need || g.HostMemory == 0 || g.Stats[0].Evaluations > evaluations[0]/20 {
		t.Errorf("with host memory: %d and %d bytes, %d evaluations", g.Memory, g.HostMemory, g.Stats[0].Evaluations)
	}
	t.Logf("evaluations with %d bytes, 4 and 20 times as many: %d", need, evaluations)
}

// The number of evaluations behind the forward solve hardly depends on the number of
// output times: an interpolant's cotangents join those of the stages.
func TestDiscrete_EvaluationsAcrossOutputs(t *testing.T) {
	p := problems.CubicSpiral()
	for _, method := range []solver.Method{solver.Tsit5, solver.Dopri5, solver.Bosh3} {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			s := newSolver(t, problems.System[float64](p), solver.Settings{Method: method, Stepping: stepping, RTol: 1e-6, ATol: 1e-8})
			evaluations := func(n int) int64 {
				ts := make([]float64, n)
				for i := range ts {
					ts[i] = 25 * float64(i) / float64(n-1)
				}
				sol := solve(t, s, p.Z0, ts)
				return gradients(t, s, adjoint.Settings{NoTimes: true}, sol, slices.Repeat([]float64{1}, len(sol.Y))).Stats[0].Evaluations
			}
			if few, many := evaluations(2), evaluations(200); many > few+1 {
				t.Errorf("%v: %d evaluations with 2 outputs, %d with 200", method, few, many)
			}
		}
	}
}

// Samples of a batch do not know of each other: z0's gradient is the same to the bit
// in any company, with times of their own as with common ones, and θ's is the sum.
func TestDiscrete_Batch(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity)
	s := newSolver(t, m, solver.Settings{Stepping: solver.PerSample})
	r := rand.New(rand.NewPCG(4, 4))
	const batch = 6
	z0 := noise(r, batch*3, 1)
	samples := make([]solver.Sample, batch)
	for b := range samples {
		ts := []float64{0.1 * float64(b)}
		for len(ts) < b+2 {
			ts = append(ts, ts[len(ts)-1]+0.1+r.Float64())
		}
		if b%2 == 1 {
			for i := range ts {
				ts[i] = -ts[i]
			}
		}
		samples[b] = solver.Sample{Times: ts}
	}
	samples[2] = solver.Sample{Times: []float64{1, 1}}
	samples[3].RTol, samples[3].ATol = 1e-3, 1e-5
	samples[4].FirstStep, samples[4].MaxStep, samples[4].Breakpoints = 0.01, 0.1, []float64{0.7, 1}
	rev, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer rev.Close()
	sol, err := rev.SolveEach(ctx, z0, samples)
	if err != nil {
		t.Fatal(err)
	}
	w := noise(r, len(sol.Y), 1)
	_, a := loss(w, sol.Y)
	g, err := rev.Gradients(ctx, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	again, err := rev.Gradients(ctx, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.Theta, again.Theta) {
		t.Error("dL/dθ is another one when computed again")
	}
	theta := make([]float64, len(g.Theta))
	for b := range batch {
		one, err := s.SolveEach(ctx, z0[b*3:b*3+3], samples[b:b+1])
		if err != nil {
			t.Fatal(err)
		}
		from, to := sol.Row(0, b), sol.Row(0, b)+len(samples[b].Times)
		if !slices.Equal(one.Y, sol.Y[from*3:to*3]) {
			t.Errorf("sample %d alone has another solution", b)
		}
		h := gradients(t, s, adjoint.Settings{}, one, a[from*3:to*3])
		if !slices.Equal(h.Z0, g.Z0[b*3:b*3+3]) {
			t.Errorf("sample %d alone has another dL/dz0", b)
		}
		closeTo(t, "dL/dt", g.Times[from:to], h.Times, 0)
		for i, v := range h.Theta {
			theta[i] += v
		}
		// The same by the other methods, to the tolerances.
		for _, method := range []adjoint.Method{adjoint.Continuous, adjoint.Interpolating} {
			c := gradients(t, s, adjoint.Settings{Method: method}, one, a[from*3:to*3])
			closeTo(t, method.String(), c.Z0, h.Z0, 1e-2)
		}
	}
	closeTo(t, "dL/dθ", g.Theta, theta, 1e-14)
	for _, method := range []adjoint.Method{adjoint.Continuous, adjoint.Interpolating} {
		c := gradients(t, s, adjoint.Settings{Method: method}, sol, a)
		closeTo(t, method.String()+" dL/dθ", c.Theta, g.Theta, 1e-3)
		closeTo(t, method.String()+" dL/dz0", c.Z0, g.Z0, 1e-3)
		closeTo(t, method.String()+" dL/dt", c.Times, g.Times, 1e-3)
	}
}

// One sample that fails, in each of the ways there are, leaves the others' gradients
// as they were without it, by every method, and is flagged.
func TestGradients_MaskFailures(t *testing.T) {
	f := field.New(1, []float64{1}, explode[float64], explode[field.Dual])
	bad := map[string]float64{"blows up": 2, "NaN": -1, "attempts": 100}
	for name, z := range bad {
		for _, method := range []adjoint.Method{adjoint.Discrete, adjoint.Continuous, adjoint.Interpolating} {
			set := solver.Settings{Stepping: solver.PerSample, MaxAttempts: 200}
			s := newSolver(t, f, set)
			sol, err := s.Solve(ctx, []float64{0.5, z, 0.7}, []float64{0, 0.2, 1})
			if err == nil {
				t.Fatalf("%s: the solve succeeds", name)
			}
			a := []float64{1, 1, 1, math.NaN(), math.NaN(), 1, 1, math.Inf(1), 2}
			a[3], a[5] = 1, 1
			g := gradients(t, s, adjoint.Settings{Method: method}, sol, a)
			if !slices.Equal(g.Masked, []bool{false, true, false}) {
				t.Errorf("%s, %v: masked %v", name, method, g.Masked)
			}
			good := solve(t, s, []float64{0.5, 0.7}, []float64{0, 0.2, 1})
			want := gradients(t, s, adjoint.Settings{Method: method}, good, []float64{1, 1, 1, 1, 1, 2})
			if !slices.Equal(g.Z0, []float64{want.Z0[0], 0, want.Z0[1]}) || !slices.Equal(g.Theta, want.Theta) {
				t.Errorf("%s, %v: %v, %v beside a failure, %v, %v without it", name, method, g.Z0, g.Theta, want.Z0, want.Theta)
			}
			closeTo(t, "dL/dt", g.Times, want.Times, 1e-14)
		}
	}
}

// explode blows up from above 1, is not defined below 0, and from 100 on oscillates
// too fast to follow.
func explode[T field.Number](t T, z, th, dz []T) {
	switch v := field.Value(z[0]); {
	case v > 50:
		dz[0] = th[0] * field.Sin(1e6*t)
	case v < 0:
		dz[0] = field.Sqrt(z[0])
	default:
		dz[0] = th[0] * z[0] * z[0]
	}
}

// An Adjoint's own Solve gives what the solver's gives, and its gradient needs no
// second solve; another solution in between is found out.
func TestAdjoint_Solve(t *testing.T) {
	calls := 0
	f := &field.Custom[float64]{
		N: 1, Theta: []float64{-1},
		F: func(_ float64, z, th, dz []float64) { calls++; dz[0] = th[0] * z[0] },
		BackF: func(_ float64, z, th, a, az, ath []float64) float64 {
			az[0] = th[0] * a[0]
			if ath != nil {
				ath[0] += a[0] * z[0]
			}
			return 0
		},
	}
	s := newSolver(t, f, solver.Settings{})
	rev, err := adjoint.New(s, adjoint.Settings{NoTimes: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rev.Close()
	ts := []float64{0, 1}
	sol, err := rev.Solve(ctx, []float64{1}, ts)
	if err != nil {
		t.Fatal(err)
	}
	if other := solve(t, s, []float64{1}, ts); !slices.Equal(other.Y, sol.Y) {
		t.Error("Adjoint.Solve computes something else than Solver.Solve")
	}
	calls = 0
	first, err := rev.Gradients(ctx, sol, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if calls != 0 {
		t.Errorf("%d more evaluations of f for the gradient of a recorded solve", calls)
	}
	if _, err := rev.Solve(ctx, []float64{5}, ts); err != nil {
		t.Fatal(err)
	}
	second, err := rev.Gradients(ctx, sol, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first.Theta, second.Theta) || calls == 0 {
		t.Error("the steps of another solve were reversed")
	}
	sol.Y[1] = 7
	rev.Solve(ctx, []float64{5}, ts)
	_, err = rev.Gradients(ctx, sol, []float64{0, 1})
	wants(t, err, "cannot be computed again")

	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := rev.Solve(c, []float64{1}, ts); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled solve: %v", err)
	}
	if _, err := rev.Gradients(c, solve(t, s, []float64{1}, ts), []float64{0, 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled gradient: %v", err)
	}
}

// All memory comes back, after budgets too.
func TestDiscrete_ReturnsMemory(t *testing.T) {
	dev := cpu.New[float32]()
	p := problems.LotkaVolterra()
	s, err := solver.New(dev, problems.System[float32](p), solver.Settings{Stepping: solver.PerSample})
	if err != nil {
		t.Fatal(err)
	}
	before := dev.MemoryUsed()
	for _, set := range []adjoint.Settings{{}, {Store: adjoint.States}, {Budget: 3000}, {Method: adjoint.Interpolating}} {
		rev, err := adjoint.New(s, set)
		if err != nil {
			t.Fatal(err)
		}
		for batch := 1; batch < 3; batch++ {
			z := slices.Repeat([]float32{1, 1}, batch)
			sol, err := rev.Solve(ctx, z, []float64{0, 1, 5})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rev.Gradients(ctx, sol, slices.Repeat([]float32{1}, len(sol.Y))); err != nil {
				t.Fatal(err)
			}
		}
		if err := rev.Close(); err != nil {
			t.Fatal(err)
		}
		if after := dev.MemoryUsed(); after != before {
			t.Errorf("%+v: %d bytes held before, %d after", set, before, after)
		}
	}
}

// bare is a backend without optional capabilities.
type bare struct{ backend.Backend[float64] }

func TestAdjoint_WithoutReverser(t *testing.T) {
	dev := bare{cpu.New[float64]()}
	s, err := solver.New[float64](dev, problems.System[float64](problems.LotkaVolterra()), solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	rev, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if rev.Method() != adjoint.Continuous {
		t.Errorf("Auto is %v where steps cannot be reversed", rev.Method())
	}
	_, err = adjoint.New(s, adjoint.Settings{Method: adjoint.Discrete})
	if !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	wants(t, err, "use Continuous")
}
