package solver_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// FuzzSolveEach tries samples, legal and not, beside others that are: what is refused is
// not legal, and the others are as they are alone.
func FuzzSolveEach(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint64(1), 0.0, 1.0, 2.0, 1e-6, 1e-8, 0.0, 0.0, 1.5, 1.0)
	f.Add(uint8(9), uint8(3), uint64(2), 5.0, 4.0, -3.0, 0.0, 0.0, 0.0, 0.5, 4.5, 2.0)
	f.Add(uint8(3), uint8(5), uint64(3), 0.0, 1.0, 1.0, 1e-3, 1e-3, 1e-9, 0.0, 0.0, -1.0)
	f.Add(uint8(2), uint8(2), uint64(4), 1e300, 1.1e300, 1.2e300, 1e-9, 0.0, 1e280, 0.0, 1.15e300, 1e30)
	f.Add(uint8(1), uint8(1), uint64(5), 0.0, 5e-324, 1e-323, 1e-6, 1e-6, 0.0, 5e-324, 5e-324, 1.0)
	f.Add(uint8(0), uint8(7), uint64(6), -1e308, 0.0, 1e308, 1e-6, 1e-6, 0.0, 0.0, 0.0, 0.0)
	f.Add(uint8(4), uint8(0), uint64(7), math.NaN(), math.Inf(1), 3.0, -1.0, math.NaN(), math.Inf(-1), -1.0, math.NaN(), 2e3)
	f.Fuzz(func(t *testing.T, method, bits uint8, seed uint64, t0, t1, t2, rtol, atol, first, maxStep, brk, z float64) {
		set := perSample(anySettings(solver.Method(int(method) % len(solver.Methods()))))
		set.MaxAttempts, set.Dense = 150, bits&1 == 1
		x := solver.Sample{RTol: rtol, ATol: atol, FirstStep: first, MaxStep: maxStep, Breakpoints: []float64{brk}}
		switch bits >> 2 & 3 {
		case 0:
			x.Times = []float64{t0, t1, t2}
		case 1:
			x.Times = []float64{t0, t1}
		case 2:
			x.Times = []float64{t0}
		case 3:
			x.Breakpoints = nil
			x.Times = []float64{t0, t0 + t1, t0 + 2*t1, t0 + 2*t1 + t2, t2}
		}
		if bits>>1&1 == 1 {
			fuzzEach[float32](t, set, x, seed, float32(z))
		} else {
			fuzzEach(t, set, x, seed, z)
		}
	})
}

// legal is what the documentation of Sample says.
func legal(x *solver.Sample, set *solver.Settings) bool {
	finite := func(v float64) bool { return v-v == 0 }
	n := len(x.Times)
	if n == 0 || !finite(x.Times[n-1]-x.Times[0]) || slices.ContainsFunc(x.Times, func(t float64) bool { return !finite(t) }) ||
		slices.ContainsFunc(x.Breakpoints, func(t float64) bool { return !finite(t) }) {
		return false
	}
	for i := 1; i < n; i++ {
		if n > 2 && (x.Times[i] == x.Times[i-1] || (x.Times[i] < x.Times[i-1]) != (x.Times[1] < x.Times[0])) {
			return false
		}
	}
	for _, v := range []float64{x.RTol, x.ATol, x.FirstStep, x.MaxStep} {
		if !(v >= 0) || !finite(v) {
			return false
		}
	}
	return (x.RTol == 0) == (x.ATol == 0) && (x.MaxStep == 0 || x.MaxStep >= set.Step)
}

func fuzzEach[T backend.Float](t *testing.T, set solver.Settings, x solver.Sample, seed uint64, z T) {
	dev := cpu.New[T]()
	defer dev.Close()
	jump := 0.5
	if len(x.Breakpoints) > 0 && x.Breakpoints[0] == x.Breakpoints[0] {
		jump = x.Breakpoints[0]
	}
	// Smooth, jumping with the time, and blowing up, by sample.
	sys := custom(1, func(at float64, z, _, dz []T) {
		switch {
		case z[0] > 1e3:
			dz[0] = z[0] * z[0]
		case at > jump:
			dz[0] = -z[0]
		default:
			dz[0] = z[0] + T(math.Sin(at))
		}
	})
	s, err := solver.New(dev, sys, set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rng := rand.New(rand.NewPCG(seed, 1))
	good := func() solver.Sample {
		a, d := rng.NormFloat64(), math.Copysign(1, rng.Float64()-0.5)
		g := solver.Sample{Times: []float64{a}}
		for range rng.IntN(5) {
			a += d * rng.ExpFloat64()
			g.Times = append(g.Times, a)
		}
		if rng.IntN(2) == 0 {
			g.RTol, g.ATol = 1e-4, 1e-5
		}
		return g
	}
	list := []solver.Sample{good(), x, good()}
	z0 := []T{T(rng.Float64()), z, 1e4}
	sol, err := s.SolveEach(background, z0, list)
	finiteZ := z-z == 0
	var failed *solver.Error
	if sol == nil {
		if err == nil || errors.As(err, &failed) || !strings.HasPrefix(err.Error(), "solver: ") || legal(&x, &set) && finiteZ {
			t.Errorf("no solution of %+v, error %v", x, err)
		}
		if finiteZ && !strings.HasPrefix(err.Error(), "solver: sample 1: ") {
			t.Errorf("the error does not name the sample: %v", err)
		}
		return
	}
	if !legal(&x, &set) || !finiteZ {
		t.Fatalf("%+v from %g was accepted", x, z)
	}
	checkSolution(t, sol, err)
	for _, b := range []int{0, 2} {
		one, _ := s.SolveEach(background, z0[b:b+1], list[b:b+1])
		if got, want := part(sol, b), part(one, 0); !got.equal(want) {
			t.Errorf("sample %d is %+v, alone %+v", b, got, want)
		}
	}
}

// checkSolution fails unless a solution is consistent in itself, and with its error.
func checkSolution[T backend.Float](t *testing.T, sol *solver.Solution[T], err error) {
	t.Helper()
	var failed *solver.Error
	if err != nil && !errors.As(err, &failed) {
		t.Fatalf("a solution with another error than *Error: %v", err)
	}
	unfinished := 0
	for b, status := range sol.Status {
		ts, st := sol.SampleTimes(b), sol.Stats[b]
		t0, end := ts[0], ts[len(ts)-1]
		if math.Abs(st.T-t0) > math.Abs(end-t0) || (st.T-t0)*(end-t0) < 0 || st.T != st.T {
			t.Errorf("sample %d got to %g on its way from %g to %g", b, st.T, t0, end)
		}
		switch status {
		case solver.Done:
			if st.T != end {
				t.Errorf("sample %d is done at %g, not %g", b, st.T, end)
			}
		case solver.Stopped:
			if n := len(sol.Events[b]); n == 0 || sol.Events[b][n-1].T != st.T {
				t.Errorf("sample %d was stopped at %g by %+v", b, st.T, sol.Events[b])
			}
		case solver.TooManyAttempts, solver.StepTooSmall, solver.NotFinite, solver.TooManyEvents:
			unfinished++
		default:
			t.Errorf("sample %d has status %v", b, status)
		}
		if st.Accepted < 0 || st.Rejected < 0 || st.Evaluations < st.Accepted {
			t.Errorf("sample %d: %+v", b, st)
		}
		for i, at := range ts {
			v := float64(sol.Sample(i, b)[0])
			if math.IsInf(v, 0) || math.IsNaN(v) && sol.Reached(i, b) && (status == solver.Done || status == solver.Stopped) || !math.IsNaN(v) && !sol.Reached(i, b) {
				t.Errorf("sample %d, %v, got to %g and is %v at %g", b, status, st.T, v, at)
			}
		}
	}
	if (unfinished > 0) != (err != nil) || failed != nil && len(failed.Failures) != unfinished {
		t.Errorf("%d samples are not done, error %v", unfinished, err)
	}
}

// FuzzEvents tries events of all kinds on a ball and an oscillator: it ends, what
// happened is in order and within the span, and other samples do not notice.
func FuzzEvents(f *testing.F) {
	f.Add(uint8(0), uint16(0), 0.0, 10.0, 0.0, 0.0, 0.8, 3.0, 8.0, 1.0, uint8(0))
	f.Add(uint8(1), uint16(0x15), 0.0, 100.0, 90.0, 0.0, 0.5, 4.0, 8.0, 0.5, uint8(3))
	f.Add(uint8(2), uint16(0x3a), 3.0, -3.0, 1e-3, 0.25, 0.0, 1.0, -1.0, 0.3, uint8(1))
	f.Add(uint8(5), uint16(0x7f), 1e6, 1e6+1, 0.5, 0.0, -1.0, 0.0, 1.0, 0.01, uint8(0))
	f.Add(uint8(3), uint16(0x1c3), 0.0, 1e-300, 0.0, 1.0, 2.0, 1.0, 1.0, 1e-301, uint8(9))
	f.Add(uint8(0), uint16(0x2a5), -1.0, 1.0, 0.0, 0.0, math.NaN(), 1.0, 1.0, 0.0, uint8(7))
	f.Fuzz(func(t *testing.T, method uint8, bits uint16, t0, t1, first, level, restitution, z, v, period float64, most uint8) {
		set := perSample(anySettings(solver.Method(int(method) % len(solver.Methods()))))
		set.MaxAttempts, set.Dense, set.FirstStep = 400, true, math.Abs(first)
		if bits>>9&1 == 1 {
			set.Step = 0.1
		}
		if bits&1 == 1 {
			fuzzEvents[float32](t, set, bits, t0, t1, level, restitution, period, float32(z), float32(v), int(most))
		} else {
			fuzzEvents(t, set, bits, t0, t1, level, restitution, period, z, v, int(most))
		}
	})
}

func fuzzEvents[T backend.Float](t *testing.T, set solver.Settings, bits uint16, t0, t1, level, restitution, period float64, z, v T, most int) {
	flag := func(i int) bool { return bits>>i&1 == 1 }
	sys := custom(2, func(_ float64, z, _, dz []T) {
		dz[0], dz[1] = z[1], -8
		if flag(1) {
			dz[1] = -z[0]
		}
	})
	wall := solver.Event[T]{Name: "wall", Direction: solver.Direction(bits >> 2 & 3), Max: most,
		G: func(_ float64, z, _ []T) float64 { return float64(z[0]) - level }}
	if flag(4) {
		wall.Reset = func(_ float64, z, _, out []T) { out[1] = T(-restitution) * z[1] }
	}
	tick := solver.Event[T]{Name: "tick", Terminal: flag(5), G: func(at float64, _, _ []T) float64 { return math.Sin(at / period) }}
	if flag(6) && !flag(5) {
		tick.Reset = func(at float64, z, _, out []T) { out[0] = z[0] + T(level) }
	}
	odd := solver.Event[T]{Name: "odd", Terminal: flag(7), G: func(_ float64, z, _ []T) float64 {
		switch x := float64(z[0] - z[1]); {
		case flag(8) && x > level+10:
			return math.NaN()
		case x > level+5:
			return math.Inf(1)
		case x > level+4:
			return 0
		default:
			return x * math.Abs(x)
		}
	}}
	dev := cpu.New[T]()
	defer dev.Close()
	events := []solver.Event[T]{wall, tick, odd}
	s, err := solver.New(dev, sys, set, events...)
	if err != nil {
		if wall.Direction <= solver.Falling && set.FirstStep-set.FirstStep == 0 {
			t.Error(err)
		}
		return
	}
	defer s.Close()
	z0 := []T{z, v, 0.5, 0.25, 1, -1}
	list := []solver.Sample{{Times: []float64{-1, 2, 4}}, {Times: []float64{t0, t1}}, {Times: []float64{1, 0, -2}}}
	if third := t0 + (t1-t0)/3; third != t0 && third != t1 && third-third == 0 {
		list[1].Times = []float64{t0, third, t1}
	}
	z0[0], z0[1], z0[2], z0[3] = z0[2], z0[3], z0[0], z0[1]
	sol, err := s.SolveEach(background, z0, list)
	if sol == nil {
		if legal(&list[1], &set) && z-z == 0 && v-v == 0 {
			t.Errorf("no solution: %v", err)
		}
		return
	}
	checkSolution(t, sol, err)
	for b, found := range sol.Events {
		checkOccurrences(t, sol, b, found, events)
		one, _ := s.SolveEach(background, z0[2*b:2*b+2], list[b:b+1])
		if got, want := part(sol, b), part(one, 0); !got.equal(want) || !sameEvents(found, one.Events[0]) {
			t.Errorf("sample %d is %+v, alone %+v", b, got, want)
		}
	}
	var failed *solver.Error
	if errors.As(err, &failed) {
		for _, fail := range failed.Failures {
			counts := make([]int, len(events))
			for _, o := range sol.Events[fail.Sample] {
				counts[o.Event]++
			}
			if fail.Status == solver.TooManyEvents && (!strings.Contains(fail.Event, "happened more than") || !slices.Contains(counts, most) && most > 0) {
				t.Errorf("%+v after %v events", fail, counts)
			}
			if fail.Event != "" && fail.Status != solver.TooManyEvents && fail.Status != solver.NotFinite {
				t.Errorf("%+v", fail)
			}
		}
	}
}

// checkOccurrences fails unless events are in order, within the span that was solved, and
// as the solution is there.
func checkOccurrences[T backend.Float](t *testing.T, sol *solver.Solution[T], b int, found []solver.Occurrence[T], events []solver.Event[T]) {
	t.Helper()
	ts, counts := sol.SampleTimes(b), make([]int, len(events))
	t0 := ts[0]
	last, cut := t0, true
	for i, o := range found {
		e := &events[o.Event]
		counts[o.Event]++
		passed, limit := math.Abs(o.T-t0), math.Abs(sol.Stats[b].T-t0)
		if passed > limit || passed < math.Abs(last-t0) || cut && o.T == last || (o.T-t0)*(ts[len(ts)-1]-t0) < 0 {
			t.Errorf("sample %d, event %d at %.17g after %.17g, from %g and got to %.17g", b, i, o.T, last, t0, sol.Stats[b].T)
		}
		last, cut = o.T, o.Cut
		if o.Cut != (e.Terminal || e.Reset != nil) || e.Max > 0 && counts[o.Event] > e.Max ||
			e.Terminal && (i != len(found)-1 || sol.Status[b] != solver.Stopped) || !o.Cut && !same(o.Before, o.After) {
			t.Errorf("sample %d, event %d: %+v, status %v", b, i, o, sol.Status[b])
		}
		if !(o.X >= 0 && o.X <= 1) || len(o.Before) != sol.Dim || len(o.After) != sol.Dim {
			t.Errorf("sample %d, event %d: %+v", b, i, o)
		}
		if g := e.G(o.T, o.Before, e.Theta); g != g {
			t.Errorf("sample %d, event %d: g is NaN at %+v", b, i, o)
		}
	}
}
