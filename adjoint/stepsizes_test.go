package adjoint_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// program is an adaptive solve as a function of all that it is given.
type program struct {
	s     *solver.Solver[float64]
	z0    []float64
	theta []float64
	ts    []float64
	w     []float64 // of the loss
	trail []int64   // accepted and rejected steps after every attempt of the last run
}

func newProgram(t *testing.T, sys backend.System[float64], set solver.Settings, z0, ts []float64) *program {
	p := &program{z0: slices.Clone(z0), theta: slices.Clone(sys.Params()), ts: slices.Clone(ts)}
	set.Progress = func(q backend.Progress) { p.trail = append(p.trail, q.Accepted, q.Rejected) }
	p.s = newSolver(t, sys, set)
	p.w = noise(rand.New(rand.NewPCG(3, uint64(len(ts)))), len(ts)*len(z0), 1)
	return p
}

func (p *program) solve(t *testing.T) *solver.Solution[float64] {
	t.Helper()
	p.trail = nil
	if err := p.s.SetParams(p.theta); err != nil {
		t.Fatal(err)
	}
	return solve(t, p.s, p.z0, p.ts)
}

// value is the loss, NaN if not the same attempts are accepted as in the run that left
// this trail.
func (p *program) value(t *testing.T, trail []int64) float64 {
	l, _ := loss(p.w, p.solve(t).Y)
	if !slices.Equal(trail, p.trail) {
		return math.NaN()
	}
	return l
}

// derivative is that of value with respect to *x, by central differences of falling
// sizes, each extrapolated from two, and how far it is from the next best.
func derivative(x *float64, value func() float64) (best, spread float64) {
	was := *x
	along := func(h float64) float64 {
		*x = was + h
		up := value()
		*x = was - h
		down := value()
		*x = was
		return (up - down) / (2 * h)
	}
	spread, last := math.Inf(1), math.NaN()
	for h := 1e-4; h > 2e-8; h /= 4 {
		d := (4*along(h/2) - along(h)) / 3
		if e := math.Abs(d - last); e < spread {
			best, spread = d, e
		}
		last = d
	}
	return best, spread
}

func vanDerPol() backend.System[float64] {
	return field.New(2, []float64{2}, vanDerPolOf[float64], vanDerPolOf[field.Dual])
}

func vanDerPolOf[T field.Number](_ T, z, th, dz []T) {
	dz[0] = z[1]
	dz[1] = th[0]*(1-z[0]*z[0])*z[1] - z[0]
}

// check compares a gradient with differences of the program: g to 1e-6 of its largest
// component, which the differences are good to, and of off, without StepSizes, it says how
// far it is.
func (p *program) check(t *testing.T, name string, g, off *adjoint.Gradient[float64]) (missed float64) {
	t.Helper()
	p.solve(t)
	trail := p.trail
	for _, c := range []struct {
		of          string
		x, got, off []float64
		step        int
	}{
		{"dL/dz0", p.z0, g.Z0, off.Z0, 1},
		{"dL/dθ", p.theta, g.Theta, off.Theta, 1 + len(p.theta)/8},
		{"dL/dt", p.ts, g.Times, off.Times, 1},
	} {
		var want, got []float64
		var spread, largest, wrong float64
		for i := 0; i < len(c.x); i += c.step {
			d, e := derivative(&c.x[i], func() float64 { return p.value(t, trail) })
			want, got, spread = append(want, d), append(got, c.got[i]), max(spread, e)
			largest, wrong = max(largest, math.Abs(d)), max(wrong, math.Abs(c.off[i]-d))
		}
		if !(spread <= 1e-6*largest) {
			t.Errorf("%s %s: the differences are good to %.1g alone: choose another point", name, c.of, spread/largest)
		}
		closeTo(t, name+" "+c.of, got, want, 1e-6)
		if c.of != "dL/dt" {
			missed = max(missed, wrong/largest)
		}
	}
	return missed
}

// run solves and computes both gradients.
func (p *program) run(t *testing.T) (sol *solver.Solution[float64], g, off *adjoint.Gradient[float64]) {
	t.Helper()
	sol = p.solve(t)
	_, a := loss(p.w, sol.Y)
	return sol, gradients(t, p.s, adjoint.Settings{StepSizes: true}, sol, a), gradients(t, p.s, adjoint.Settings{}, sol, a)
}

func smallNet(t *testing.T) *mlp.Model[float64] {
	t.Helper()
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 5)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Theta {
		m.Theta[i] *= 3 // so that steps are rejected
	}
	return m
}

// The gradient of the whole adaptive solve, at loose tolerances, by every method with an
// error estimate and every controller, the first step chosen or given: what differences
// see, which the gradient at fixed step sizes is far from.
func TestStepSizes_MatchFiniteDifferenceOfTheAdaptiveSolve(t *testing.T) {
	m := smallNet(t)
	for _, c := range []struct {
		name   string
		sys    backend.System[float64]
		z0, ts []float64
	}{
		{"Van der Pol", vanDerPol(), []float64{2, 0.3}, []float64{0, 1.3, 3}},
		{"Lotka-Volterra", problems.System[float64](problems.LotkaVolterra()), []float64{1, 1}, []float64{0, 1.3, 3}},
		{"forced", problems.System[float64](problems.ForcedLotkaVolterra()), []float64{1, 1}, []float64{0.2, 1.3, 3}},
		{"backwards", problems.System[float64](problems.ForcedLotkaVolterra()), []float64{1, 1}, []float64{3, 2.2, 1.3, 0.6}},
		{"2-16-2", m, []float64{1, 0.5, -2, 1, 0.2, 3}, []float64{0, 0.7, 2}},
	} {
		var rejected int64
		var missed []float64
		for i, method := range []solver.Method{solver.Tsit5, solver.Dopri5, solver.Dopri8, solver.Bosh3, solver.Vern7, solver.HeunEuler21, solver.Fehlberg12} {
			for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
				set := solver.Settings{Method: method, RTol: 3e-3, ATol: 1e-3, Stepping: stepping, Controller: []solver.Controller{solver.PI, solver.I, solver.PID}[i%3]}
				if stepping == solver.PerSample {
					set.RTol, set.ATol, set.FirstStep = 1e-2, 1e-2, 0.4
				}
				if method == solver.Fehlberg12 { // whose estimate overlooks a blow-up at looser ones
					set.RTol, set.ATol = 1e-3, 1e-3
				}
				ts := slices.Clone(c.ts)
				if method == solver.Vern7 || method == solver.Dopri8 {
					// What rounding does grows with every step, and most with theirs, which
					// are long: over a shorter span the differences are good enough.
					ts[len(ts)-1] = (ts[len(ts)-2] + ts[len(ts)-1]) / 2
				}
				p := newProgram(t, c.sys, set, c.z0, ts)
				sol, g, off := p.run(t)
				name := fmt.Sprintf("%s, %v, %v", c.name, method, stepping)
				missed = append(missed, p.check(t, name, g, off))
				for b := range sol.Batch {
					rejected += sol.Stats[b].Rejected
				}
			}
		}
		slices.Sort(missed)
		t.Logf("%s: %d rejected; without StepSizes off by %.1g, median of %.1g", c.name, rejected, missed[0], missed[len(missed)/2])
		if rejected == 0 || missed[len(missed)/2] < 1e-3 {
			t.Errorf("%s: %d steps are rejected, and step sizes matter by %.1g: nothing is tested", c.name, rejected, missed)
		}
	}
}

// What else decides about steps: breakpoints with an output on one of them, the longest
// step, limits of the factor, the last step cut short, an output just where a step ends,
// a spell in which f is not a number, a trial step that has to be cut, and many outputs.
func TestStepSizes_Limits(t *testing.T) {
	forced := problems.System[float64](problems.ForcedLotkaVolterra())
	root := field.New(1, []float64{1.3}, rootOf[float64], rootOf[field.Dual])
	for _, c := range []struct {
		name   string
		sys    backend.System[float64]
		set    solver.Settings
		z0, ts []float64
	}{
		{"breakpoints", forced, solver.Settings{Breakpoints: []float64{0.55, 1, 1.7}}, []float64{1, 1}, []float64{0, 0.4, 1, 1.2, 3}},
		{"longest step", forced, solver.Settings{MaxStep: 0.25}, []float64{1, 1}, []float64{0, 0.25, 1.9}},
		{"longest first step", forced, solver.Settings{MaxStep: 1e-3}, []float64{1, 1}, []float64{0, 0.01, 0.0335}},
		{"factors", vanDerPol(), solver.Settings{MinFactor: 0.7, MaxFactor: 1.2, FirstStep: 0.6}, []float64{2, 0.3}, []float64{0, 1.1, 3}},
		{"smallest step", vanDerPol(), solver.Settings{MinStep: 0.13, MaxFactor: 20}, []float64{2, 0.3}, []float64{0, 1.1, 3}},
		{"end of the first step", forced, solver.Settings{FirstStep: 0.1}, []float64{1, 1}, []float64{0, 0.1, 1.3}},
		{"one short step", forced, solver.Settings{}, []float64{1, 1}, []float64{0.2, 0.20003}},
		{"steps to a near stop", forced, solver.Settings{Breakpoints: []float64{0.203}}, []float64{1, 1}, []float64{0.2, 1.5}},
		{"a jump", field.New(1, []float64{1.3}, jumpOf[float64], jumpOf[field.Dual]), solver.Settings{Breakpoints: []float64{0.55}}, []float64{1}, []float64{0, 0.3, 2}},
		{"a trial step over the whole span", field.New(1, []float64{1.3}, rampOf[float64], rampOf[field.Dual]), solver.Settings{}, []float64{1}, []float64{0, 0.7, 2}},
		{"not a number", root, solver.Settings{FirstStep: 3}, []float64{1}, []float64{0, 0.3, 2}},
		{"many outputs", forced, solver.Settings{}, []float64{1, 1}, []float64{0, 0.1, 0.2, 0.3, 0.5, 0.55, 0.8, 1, 1.1, 1.4, 1.7, 2}},
	} {
		for _, method := range []solver.Method{solver.Tsit5, solver.Dopri8} {
			set := c.set
			set.Method, set.RTol, set.ATol = method, 3e-3, 1e-3
			p := newProgram(t, c.sys, set, c.z0, c.ts)
			sol, g, off := p.run(t)
			p.check(t, fmt.Sprintf("%s, %v", c.name, method), g, off)
			if c.name == "not a number" && sol.Stats[0].Rejected == 0 {
				t.Errorf("%s: nothing is rejected", c.name)
			}
		}
	}
}

// rootOf falls towards 0, and long steps go beyond, where there is no root.
func rootOf[T field.Number](t T, z, th, dz []T) {
	dz[0] = -th[0] * z[0] * field.Sqrt(z[0]+0.05) * (1 + t)
}

// rampOf hardly moves at first.
func rampOf[T field.Number](t T, z, th, dz []T) {
	dz[0] = th[0] * z[0] * (1e-3 + t*t)
}

// jumpOf jumps at 0.55.
func jumpOf[T field.Number](t T, z, th, dz []T) {
	if dz[0] = -th[0] * z[0]; field.Value(t) >= 0.55 {
		dz[0] = th[0] * field.Cos(3*z[0]*t)
	}
}

// A first step from 0, where without an ATol to speak of nothing has a scale: it is a part
// of the span, and so are those that grow from it as fast as they may.
func TestStepSizes_FirstStepByTheSpan(t *testing.T) {
	sys := field.New(1, []float64{1.3}, jumpOf[float64], jumpOf[field.Dual])
	p := newProgram(t, sys, solver.Settings{RTol: 3e-3, ATol: 1e-200}, []float64{0}, []float64{0.6, 0.8, 2})
	_, g, _ := p.run(t)
	p.solve(t)
	trail := p.trail
	var want []float64
	for i := range p.ts {
		d, _ := derivative(&p.ts[i], func() float64 { return p.value(t, trail) })
		want = append(want, d)
	}
	closeTo(t, "dL/dt", g.Times, want, 1e-6)
}

// An output that happens to be where a step ends. To both sides of it the solution is
// another polynomial, with the same slope: the differences are good to 1e-5.
func TestStepSizes_OutputAtTheEndOfAStep(t *testing.T) {
	sys := problems.System[float64](problems.ForcedLotkaVolterra())
	for _, method := range []solver.Method{solver.Tsit5, solver.Bosh3, solver.Vern7} {
		var ends []float64
		set := solver.Settings{Method: method, RTol: 3e-3, ATol: 1e-3}
		set.Progress = func(q backend.Progress) { ends = append(ends, q.T) }
		solve(t, newSolver(t, sys, set), []float64{1, 1}, []float64{0, 1.5})
		p := newProgram(t, sys, set, []float64{1, 1}, []float64{0, ends[len(ends)/2], 1.5})
		clear(p.w[4:]) // of the output after it
		_, g, _ := p.run(t)
		p.solve(t)
		trail := p.trail
		for _, c := range []struct {
			of     string
			x, got []float64
		}{{"dL/dz0", p.z0, g.Z0}, {"dL/dθ", p.theta, g.Theta}, {"dL/dt", p.ts[:2], g.Times[:2]}} {
			var want []float64
			for i := range c.x {
				d, _ := derivative(&c.x[i], func() float64 { return p.value(t, trail) })
				want = append(want, d)
			}
			closeTo(t, fmt.Sprintf("%v %s", method, c.of), c.got, want, 1e-5)
		}
	}
}

// Samples with times, directions, tolerances and steps of their own, one of which fails:
// each as alone, to the last bit, and as differences see it.
func TestStepSizes_Each(t *testing.T) {
	sys := problems.System[float64](problems.ForcedLotkaVolterra())
	s := newSolver(t, sys, solver.Settings{Stepping: solver.PerSample, RTol: 3e-3, ATol: 1e-3, MaxAttempts: 60})
	z0 := []float64{1, 1, 0.7, 1.3, 1, 1, 2, 0.5, 1, 0.3, 1.5, 1.5}
	samples := []solver.Sample{
		{Times: []float64{0, 0.7, 2}},
		{Times: []float64{1, 0.4, 0.1}, RTol: 1e-2, ATol: 1e-2, FirstStep: 0.4},
		{Times: []float64{1, 1}},
		{Times: []float64{0.3, 2.5}, MaxStep: 0.3, Breakpoints: []float64{1.1, 2}},
		{Times: []float64{0, 50}}, // more attempts than it may make
		{Times: []float64{0.5}},
	}
	sol, err := s.SolveEach(ctx, z0, samples)
	if err == nil || sol.Status[4] != solver.TooManyAttempts {
		t.Fatalf("sample 4 has %v", sol.Status[4])
	}
	w := noise(rand.New(rand.NewPCG(1, 9)), len(sol.Y), 1)
	_, a := loss(w, sol.Y)
	at := sol.Row(1, 4) * 2
	a[at], a[at+1] = 1, 1
	on := adjoint.Settings{StepSizes: true}
	g := gradients(t, s, on, sol, a)
	if again := gradients(t, s, on, sol, a); !slices.Equal(again.Theta, g.Theta) || !slices.Equal(again.Z0, g.Z0) || !slices.Equal(again.Times, g.Times) {
		t.Error("the gradient is another one when computed again")
	}
	theta := make([]float64, len(g.Theta))
	for b := range samples {
		from, to := sol.Row(0, b), sol.Row(0, b)+len(samples[b].Times)
		if b == 4 {
			if !g.Masked[b] || g.Z0[2*b] != 0 || g.Times[from] != 0 {
				t.Errorf("the sample that failed has a gradient: %v", g.Z0)
			}
			continue
		}
		one, err := s.SolveEach(ctx, z0[2*b:2*b+2], samples[b:b+1])
		if err != nil {
			t.Fatal(err)
		}
		h := gradients(t, s, on, one, a[2*from:2*to])
		if !slices.Equal(h.Z0, g.Z0[2*b:2*b+2]) || !slices.Equal(h.Times, g.Times[from:to]) {
			t.Errorf("sample %d alone has another gradient", b)
		}
		for i, v := range h.Theta {
			theta[i] += v
		}
		for i := range 2 {
			d, e := derivative(&z0[2*b+i], func() float64 {
				varied, err := s.SolveEach(ctx, z0[2*b:2*b+2], samples[b:b+1])
				if err != nil {
					t.Fatal(err)
				}
				if st := varied.Stats[0]; st.Accepted != one.Stats[0].Accepted || st.Rejected != one.Stats[0].Rejected {
					return math.NaN()
				}
				l, _ := loss(w[2*from:2*to], varied.Y)
				return l
			})
			if math.Abs(d-h.Z0[i]) > 1e-6*max(math.Abs(d), 1) {
				t.Errorf("sample %d: dL/dz0[%d] = %.9g, and differences are %.9g ± %.1g", b, i, h.Z0[i], d, e)
			}
		}
	}
	closeTo(t, "dL/dθ", g.Theta, theta, 1e-13)
}

// float32 to its rounding, 6e-8, which as many as a thousand operations add up to 1e-5 and
// steps that react to it amplify.
func TestStepSizes_Float32(t *testing.T) {
	m := smallNet(t)
	z0, ts := []float64{1, 0.5, -2, 1, 0.2, 3}, []float64{0, 0.7, 2}
	w := noise(rand.New(rand.NewPCG(1, 2)), len(ts)*len(z0), 1)
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{Method: solver.Bosh3, RTol: 3e-3, ATol: 1e-3, Stepping: stepping}
		s64, s32 := newSolver(t, m, set), newSolver(t, mlp.Convert[float32](m), set)
		sol64, sol32 := solve(t, s64, z0, ts), solve(t, s32, problems.Convert[float32](z0), ts)
		_, a64 := loss(w, sol64.Y)
		_, a32 := loss(w, sol32.Y)
		on := adjoint.Settings{StepSizes: true}
		g64, g32 := gradients(t, s64, on, sol64, a64), gradients(t, s32, on, sol32, a32)
		closeTo(t, "dL/dz0", g32.Z0, g64.Z0, 1e-4)
		closeTo(t, "dL/dθ", g32.Theta, g64.Theta, 1e-4)
		closeTo(t, "dL/dt", g32.Times, g64.Times, 1e-4)
		if off := gradients(t, s64, adjoint.Settings{}, sol64, a64); math.Abs(off.Z0[0]-g64.Z0[0]) < 1e-3*math.Abs(g64.Z0[0]) {
			t.Error("step sizes do not matter here")
		}
	}
}

// Fixed steps have nothing to differentiate, and tight tolerances nearly nothing.
func TestStepSizes_Vanish(t *testing.T) {
	sys := problems.System[float64](problems.LotkaVolterra())
	z0, ts := []float64{1, 1}, []float64{0, 1.3, 3}
	fixed := newProgram(t, sys, solver.Settings{Step: 0.2}, z0, ts)
	_, g, off := fixed.run(t)
	if !slices.Equal(g.Z0, off.Z0) || !slices.Equal(g.Theta, off.Theta) || !slices.Equal(g.Times, off.Times) {
		t.Error("fixed steps have another gradient with StepSizes")
	}
	tight := newProgram(t, sys, solver.Settings{Method: solver.Dopri8, RTol: 1e-13, ATol: 1e-14}, z0, ts)
	_, g, off = tight.run(t)
	closeTo(t, "dL/dz0", g.Z0, off.Z0, 1e-9)
	closeTo(t, "dL/dθ", g.Theta, off.Theta, 1e-9)
	closeTo(t, "dL/dt", g.Times, off.Times, 1e-9)
}

// An Adjoint's own Solve is the solver's, its gradient that of another's solution, and
// all memory comes back.
func TestStepSizes_Solve(t *testing.T) {
	dev := cpu.New[float64]()
	s, err := solver.New(dev, vanDerPol(), solver.Settings{Method: solver.Vern7, RTol: 1e-3, ATol: 1e-3, Stepping: solver.PerSample})
	if err != nil {
		t.Fatal(err)
	}
	z0, ts := []float64{2, 0.3, 1, -1}, []float64{0, 1.3, 1.4, 3}
	before := dev.MemoryUsed()
	rev, err := adjoint.New(s, adjoint.Settings{StepSizes: true})
	if err != nil {
		t.Fatal(err)
	}
	own, err := rev.Solve(ctx, z0, ts)
	if err != nil {
		t.Fatal(err)
	}
	a := slices.Repeat([]float64{1}, len(own.Y))
	first, err := rev.Gradients(ctx, own, a)
	if err != nil {
		t.Fatal(err)
	}
	var steps int64
	for _, st := range own.Stats {
		steps += st.Accepted + st.Rejected
	}
	// y1 and ten stages of every attempt at least.
	if first.HostMemory < steps*11*2*8 || first.Stats[0].Evaluations < 10*own.Stats[0].Accepted {
		t.Errorf("%d bytes and %d evaluations for %d attempts", first.HostMemory, first.Stats[0].Evaluations, steps)
	}
	if err := rev.Close(); err != nil {
		t.Fatal(err)
	}
	if after := dev.MemoryUsed(); after != before {
		t.Errorf("%d bytes held before, %d after", before, after)
	}
	other := solve(t, s, z0, ts)
	if !slices.Equal(other.Y, own.Y) {
		t.Error("Adjoint.Solve computes something else than Solver.Solve")
	}
	second := gradients(t, s, adjoint.Settings{StepSizes: true}, other, a)
	if !slices.Equal(first.Z0, second.Z0) || !slices.Equal(first.Theta, second.Theta) || !slices.Equal(first.Times, second.Times) {
		t.Error("the gradient of the solver's own solution is another one")
	}
	same, err := adjoint.Gradients(ctx, s, solve(t, s, z0, []float64{1, 1}), a[:8])
	if err != nil {
		t.Fatal(err)
	}
	still := gradients(t, s, adjoint.Settings{StepSizes: true}, solve(t, s, z0, []float64{1, 1}), a[:8])
	if !slices.Equal(same.Z0, still.Z0) || !slices.Equal(same.Times, still.Times) {
		t.Errorf("a span of length zero has the gradient %v, %v, want %v, %v", still.Z0, still.Times, same.Z0, same.Times)
	}
}

// The gradient for states on the device is that for states on the host, and is not that
// without step sizes.
func TestStepSizes_OnDevice(t *testing.T) {
	s := newSolver(t, vanDerPol(), solver.Settings{RTol: 3e-3, ATol: 1e-3})
	z0, ts := []float64{2, 0.3, 1, -1}, []float64{0, 1.3, 1.4, 3}
	rev, err := adjoint.New(s, adjoint.Settings{StepSizes: true, NoTimes: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rev.Close()
	sol, err := rev.Solve(ctx, z0, ts)
	if err != nil {
		t.Fatal(err)
	}
	a := slices.Repeat([]float64{1}, len(sol.Y))
	clear(a[8:12]) // the loss does not look at the third time
	want, err := rev.Gradients(ctx, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	if want.Times != nil {
		t.Error("dL/dt was not asked for")
	}
	got := make([]float64, 1)
	err = s.OnDevice(func(d *solver.Device[float64]) error {
		z, err := d.Backend.NewVec(1, 2, 2)
		if err != nil {
			return err
		}
		defer d.Backend.Free(z)
		dLdz, err := d.Backend.NewVec(4, 2, 2)
		if err != nil {
			return err
		}
		defer d.Backend.Free(dLdz)
		d.Backend.Upload(z, z0)
		d.Backend.Upload(dLdz, a)
		states, err := rev.SolveOnDevice(ctx, d, z, ts)
		if err != nil {
			return err
		}
		theta, err := rev.OnDevice(ctx, d, ts, []int{1, 3}, states, dLdz)
		if err != nil {
			return err
		}
		return d.Backend.Download(got, theta)
	})
	if err != nil {
		t.Fatal(err)
	}
	off := gradients(t, s, adjoint.Settings{}, sol, a)
	if !slices.Equal(got, want.Theta) || math.Abs(off.Theta[0]-got[0]) < 1e-3*math.Abs(got[0]) {
		t.Errorf("dL/dθ is %v on the device, %v on the host and %v without step sizes", got, want.Theta, off.Theta)
	}
}

// A context that ends leaves no half gradient, and the next one is whole.
func TestStepSizes_Cancelled(t *testing.T) {
	s := newSolver(t, vanDerPol(), solver.Settings{RTol: 3e-3, ATol: 1e-3})
	rev, err := adjoint.New(s, adjoint.Settings{StepSizes: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rev.Close()
	z0, ts, a := []float64{2, 0.3}, []float64{0, 3}, []float64{0, 0, 1, 1}
	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := rev.Solve(c, z0, ts); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled solve: %v", err)
	}
	sol, err := rev.Solve(ctx, z0, ts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rev.Gradients(c, sol, a); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled gradient: %v", err)
	}
	g, err := rev.Gradients(ctx, sol, a)
	if err != nil {
		t.Fatal(err)
	}
	if want := gradients(t, s, adjoint.Settings{StepSizes: true}, sol, a); !slices.Equal(g.Z0, want.Z0) || !slices.Equal(g.Theta, want.Theta) {
		t.Errorf("after a cancelled gradient it is %v, want %v", g.Z0, want.Z0)
	}
}

func TestStepSizes_Refuses(t *testing.T) {
	sys := vanDerPol()
	s := newSolver(t, sys, solver.Settings{})
	for _, c := range []struct {
		set  adjoint.Settings
		want string
	}{
		{adjoint.Settings{Method: adjoint.Continuous, StepSizes: true}, "about Discrete; leave it out"},
		{adjoint.Settings{Method: adjoint.Reversible, StepSizes: true}, "about Discrete; leave it out"},
		{adjoint.Settings{Budget: 1 << 20, StepSizes: true}, "leave Store, Budget and HostBudget out"},
		{adjoint.Settings{Store: adjoint.States, StepSizes: true}, "leave Store, Budget and HostBudget out"},
	} {
		_, err := adjoint.New(s, c.set)
		wants(t, err, c.want)
	}
	event := solver.NewEvent[float64](nil, crossing[float64], crossing[field.Dual], nil, nil)
	_, err := adjoint.New(newSolver(t, sys, solver.Settings{Stepping: solver.PerSample}, event), adjoint.Settings{StepSizes: true})
	wants(t, err, "looks for events", "leave StepSizes out")
}

func crossing[T field.Number](_ T, z, _ []T) T { return z[0] }
