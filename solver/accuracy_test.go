package solver_test

import (
	"errors"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
	"gonum.org/v1/gonum/stat"
)

// endError is the largest error of a component of z(t1) and the evaluations that
// it took.
func endError(t testing.TB, p *problems.Problem, set solver.Settings) (float64, int64) {
	t.Helper()
	sol := solve[float64](t, p, set, p.T0, p.T1)
	return distance(sol.Final(), p.End), sol.Evaluations()
}

// TestErrors_FallWithTolerance asks for a factor of 3 a decade on average, of the
// largest error at eight times.
func TestErrors_FallWithTolerance(t *testing.T) {
	for _, p := range problems.NonStiff() {
		ts := grid(p.T0, p.T1, 8)
		ref := reference(t, p, ts...)
		for _, m := range adaptive() {
			first, last := 3, 9
			if m.Tableau().Order < 3 {
				last = 6
			}
			if m == solver.Fehlberg12 {
				// Its first-order solution is nearly the midpoint rule's, so that the
				// estimate is far below the error unless steps are short.
				first, last = 5, 8
			}
			var x, y []float64
			for e := first; e <= last; e++ {
				tol := math.Pow10(-e)
				err := distance(solve[float64](t, p, solver.Settings{Method: m, RTol: tol, ATol: tol}, ts...).Y, ref)
				x, y = append(x, float64(e)), append(y, -math.Log10(err))
			}
			if _, slope := stat.LinearRegression(x, y, nil, false); !(slope > math.Log10(3)) {
				t.Errorf("%s on %s: digits of the error %.1f at tolerances 1e-%d..1e-%d, %.2f a decade, want more than %.2f",
					m, p.Name, y, first, last, slope, math.Log10(3))
			}
		}
	}
}

// TestDopri5_CostsNoMoreThanTorchdiffeq reads, off our work-precision curve around
// each of its tolerances, what an error no larger than torchdiffeq's costs.
func TestDopri5_CostsNoMoreThanTorchdiffeq(t *testing.T) {
	sum := 0.0
	for _, ref := range problems.Torchdiffeq() {
		p := problems.Get(ref.Problem)
		least := int64(math.MaxInt64)
		for i := -32; i <= 32; i++ {
			tol := ref.Tol * math.Pow(10, float64(i)/32)
			s := open(t, problems.System[float64](p), solver.Settings{Method: solver.Dopri5, RTol: tol, ATol: tol})
			sol, err := s.Solve(background, p.Z0, []float64{p.T0, p.T1})
			// At loose tolerances an orbit may well crash: that is no small error.
			if err == nil && distance(sol.Final(), p.End) <= ref.Error {
				least = min(least, sol.Evaluations())
			}
		}
		ratio := float64(least) / float64(ref.Evaluations)
		sum += math.Log(ratio)
		if !(ratio <= 1.05) {
			t.Errorf("%s: an error of %.0e costs %d evaluations, torchdiffeq %d", p.Name, ref.Error, least, ref.Evaluations)
		}
	}
	if mean := math.Exp(sum / float64(len(problems.Torchdiffeq()))); !(mean < 0.95) {
		t.Errorf("on average we need %.2f times as many evaluations; the controller is better than that", mean)
	}
}

func TestControllers_AllWork(t *testing.T) {
	for _, m := range adaptive() {
		for _, c := range []solver.Controller{solver.I, solver.PI, solver.PID} {
			for _, name := range []string{"A3", "lotka_volterra", "E2"} {
				err, evals := endError(t, problems.Get(name), solver.Settings{Method: m, Controller: c, RTol: 1e-5, ATol: 1e-5})
				_, pi := endError(t, problems.Get(name), solver.Settings{Method: m, RTol: 1e-5, ATol: 1e-5})
				// fehlberg12's error is some 500 times what it estimates.
				if limit := 1e-2 * float64(1+9*b2i(m == solver.Fehlberg12)); !(err < limit) || float64(evals) > 1.6*float64(pi) {
					t.Errorf("%s, %s on %s: error %.1g, %d evaluations; PI needs %d", m, c, name, err, evals, pi)
				}
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestFloat32_MatchesFloat64 compares equal steps, which differ by rounding alone,
// and solves that choose their steps, which differ by the tolerance too.
func TestFloat32_MatchesFloat64(t *testing.T) {
	compare := func(p *problems.Problem, m solver.Method, set solver.Settings, limit float64) {
		set.Method = m
		want, got := solve[float64](t, p, set, p.T0, p.T1).Final(), solve[float32](t, p, set, p.T0, p.T1).Final()
		scale := 1.0
		for _, v := range want {
			scale = max(scale, math.Abs(v))
		}
		if d := distance(got, want); !(d <= limit*scale) {
			t.Errorf("%s on %s: float32 differs by %.1g from float64, of %.2g", m, p.Name, d, scale)
		}
	}
	for _, m := range solver.Methods() {
		for _, p := range problems.NonStiff() {
			limit := 1e-4
			if p.Name[0] == 'D' {
				limit = 1e-2 // three revolutions multiply an error of z0 by 10 to 1000
			}
			if m.Tableau().Order == 1 && (p.Name[0] == 'D' || p.Name == "cubic_spiral") {
				continue // unstable at such steps
			}
			compare(p, m, solver.Settings{Step: (p.T1 - p.T0) / 1024}, limit)
		}
		if m.Adaptive() && m.Tableau().Order > 2 {
			for _, name := range []string{"A3", "B5", "lotka_volterra", "E1", "C3"} {
				compare(problems.Get(name), m, solver.Settings{RTol: 1e-6, ATol: 1e-6}, 1e-4)
			}
		}
	}
}

func TestForwardThenBack_Returns(t *testing.T) {
	for _, m := range adaptive() {
		for _, name := range []string{"lotka_volterra", "linear", "E2", "B5", "A3", "riccati"} {
			p := problems.Get(name)
			tol := 1e-10
			if m.Tableau().Order < 3 {
				tol = 1e-6
			}
			mid := p.T0 + (p.T1-p.T0)/4
			there := solve[float64](t, p, solver.Settings{Method: m, RTol: tol, ATol: tol}, p.T0, mid)
			back := *p
			back.Z0, back.T0 = there.Final(), mid
			again := solve[float64](t, &back, solver.Settings{Method: m, RTol: tol, ATol: tol}, mid, p.T0)
			limit := 1e3 * tol
			if m == solver.Fehlberg12 {
				limit *= 500
			}
			if d := distance(again.Final(), p.Z0); !(d < limit) || d == 0 {
				t.Errorf("%s on %s: forward and back is off by %.1g at tolerance %.0g", m, name, d, tol)
			}
		}
	}
}

// TestBackwards_MirrorsForwards: y' = f(t, y) from 0 to -1 is y' = -f(-t, y) from 0
// to 1, step for step and bit for bit.
func TestBackwards_MirrorsForwards(t *testing.T) {
	f := func(t float64, z, _, dz []float64) { dz[0] = math.Cos(3*t) - t*z[0]; dz[1] = z[0] * z[1] }
	mirrored := func(t float64, z, _, dz []float64) {
		f(-t, z, nil, dz)
		dz[0], dz[1] = -dz[0], -dz[1]
	}
	ts := []float64{0, 0.3, 0.7, 1}
	for _, m := range solver.Methods() {
		for _, breaks := range [][]float64{nil, {0.5}} {
			set := solver.Settings{Method: m, RTol: 1e-6, ATol: 1e-7, Breakpoints: breaks}
			if !m.Adaptive() {
				set.Step = 0.0625
			}
			forwards, err := open(t, custom(2, mirrored), set).Solve(background, []float64{1, 2}, ts)
			if err != nil {
				t.Fatal(err)
			}
			for i := range set.Breakpoints {
				set.Breakpoints = []float64{-set.Breakpoints[i]}
			}
			backwards, err := open(t, custom(2, f), set).Solve(background, []float64{1, 2}, []float64{0, -0.3, -0.7, -1})
			if err != nil {
				t.Fatal(err)
			}
			if !same(forwards.Y, backwards.Y) {
				t.Errorf("%s: %v backwards, %v forwards", m, backwards.Y, forwards.Y)
			}
			a, b := forwards.Stats[0], backwards.Stats[0]
			b.T, b.LastH = -b.T, -b.LastH
			if a != b {
				t.Errorf("%s: %+v backwards, %+v forwards", m, b, a)
			}
		}
	}
}

// TestStiff_EndsWithAHint: an explicit method takes ever so many steps.
func TestStiff_EndsWithAHint(t *testing.T) {
	for _, p := range problems.All() {
		if !p.Stiff {
			continue
		}
		s := open(t, problems.System[float64](p), solver.Settings{MaxAttempts: 300})
		sol, err := s.Solve(background, p.Z0, []float64{p.T0, p.T1})
		if !errors.Is(err, solver.TooManyAttempts) {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		wantText(t, err, "sample 0 at t = ", "used up 300 attempted steps", "the problem is stiff", "Settings.MaxAttempts")
		st := sol.Stats[0]
		if got := st.Accepted + st.Rejected; got != 300 || !(st.T > p.T0 && st.T < p.T1) || sol.Status[0] != solver.TooManyAttempts {
			t.Errorf("%s: %d attempts, t = %g, %v", p.Name, got, st.T, sol.Status[0])
		}
		if !math.IsNaN(sol.Final()[0]) {
			t.Errorf("%s: the end was not reached but is %v", p.Name, sol.Final())
		}
	}
}
