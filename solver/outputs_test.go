package solver_test

import (
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// anySettings sets what a method needs to solve the problems of these tests.
func anySettings(m solver.Method) solver.Settings {
	set := solver.Settings{Method: m, RTol: 1e-5, ATol: 1e-6}
	if !m.Adaptive() {
		set.Step = 0.02
	}
	return set
}

func TestOutputs_DoNotChangeTheSteps(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, m := range solver.Methods() {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			for _, dense := range []bool{false, true} {
				set := anySettings(m)
				set.Stepping, set.Dense = stepping, dense
				s := open(t, problems.System[float64](p), set)
				z0 := []float64{1, 1, 0.5, 2, 3, 0.1}
				few, err := s.Solve(background, z0, grid(0, 4, 1))
				if err != nil {
					t.Fatal(err)
				}
				many, err := s.Solve(background, z0, grid(0, 4, 199))
				if err != nil {
					t.Fatal(err)
				}
				if !same(few.Final(), many.Final()) {
					t.Errorf("%s, %s: with more outputs the end is %v, not %v", m, stepping, many.Final(), few.Final())
				}
				for b := range few.Stats {
					x, y := few.Stats[b], many.Stats[b]
					x.Evaluations, y.Evaluations = 0, 0 // interpolants have stages of their own
					if x != y {
						t.Errorf("%s, %s, sample %d: %+v with few outputs, %+v with many", m, stepping, b, x, y)
					}
				}
			}
		}
	}
}

func TestDense_DoesNotChangeTheSolution(t *testing.T) {
	p := problems.ForcedLotkaVolterra()
	ts := grid(0, 5, 37)
	for _, m := range solver.Methods() {
		set := anySettings(m)
		plain := solve[float64](t, p, set, ts...)
		set.Dense = true
		dense := solve[float64](t, p, set, ts...)
		if !same(plain.Y, dense.Y) {
			t.Errorf("%s: Dense changes the outputs", m)
		}
		for i, ti := range ts {
			z, err := dense.At(ti)
			if err != nil {
				t.Fatal(err)
			}
			// At sums in another order than an output does: rounding, of Vern7's large
			// interpolation weights too.
			if d := distance(z, dense.State(i)); d > 1e-12 {
				t.Errorf("%s: At(%g) is %v, but the output there is %v", m, ti, z, dense.State(i))
			}
		}
	}
}

func TestAt(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, ends := range [][2]float64{{0, 5}, {5, 0}} {
		first, last := ends[0], ends[1]
		set := solver.Settings{RTol: 1e-8, ATol: 1e-9, Dense: true, Stepping: solver.PerSample}
		sol, err := open(t, problems.System[float64](p), set).Solve(background, []float64{1, 1, 2, 0.5}, []float64{first, last})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range grid(first, last, 23) {
			z, err := sol.At(at)
			if err != nil {
				t.Fatal(err)
			}
			for b, z0 := range [][]float64{{1, 1}, {2, 0.5}} {
				q := *p
				q.Z0 = z0
				if want := z0; at != first {
					want = reference(t, &q, first, at)[2:]
					if d := distance(z[2*b:2*b+2], want); d > 1e-6 {
						t.Errorf("At(%g) of sample %d from %g is off by %.1g", at, b, first, d)
					}
				} else if !same(z[2*b:2*b+2], want) {
					t.Errorf("At(t0) is %v, want %v", z, want)
				}
			}
		}
		if z, err := sol.At(last); err != nil || !same(z, sol.Final()) {
			t.Errorf("At the end: %v, %v, want %v", z, err, sol.Final())
		}
		for _, at := range []float64{-0.001, 5.001, math.Nextafter(5, 6), math.NaN(), math.Inf(1)} {
			if z, err := sol.At(at); z != nil {
				t.Errorf("At(%g) outside the span returned %v", at, z)
			} else {
				wantText(t, err, "outside the span", "not extrapolated")
			}
		}
	}
	sol := solve[float64](t, p, solver.Settings{}, 0, 1)
	_, err := sol.At(0.5)
	wantText(t, err, "set Settings.Dense")
}

// TestAt_OfAFailedSample has the others, and says so.
func TestAt_OfAFailedSample(t *testing.T) {
	// z' = z², z(t) = 1/(1/z0 - t): sample 1 has a pole at t = 1, sample 0 none.
	square := custom(1, func(_ float64, z, _, dz []float64) { dz[0] = z[0] * z[0] })
	s := open(t, square, solver.Settings{Dense: true, Stepping: solver.PerSample})
	sol, err := s.Solve(background, []float64{0.1, 1}, []float64{0, 2})
	if sol == nil || err == nil {
		t.Fatalf("got %v, %v", sol, err)
	}
	z, err := sol.At(0.9)
	if err != nil || distance(z, []float64{1 / 9.1, 10}) > 1e-3 {
		t.Errorf("before the pole: %v, %v", z, err)
	}
	z, err = sol.At(1.5)
	wantText(t, err, "At(1.5)", "sample 1 only got to t = ", "step size too small")
	if len(z) != 2 || math.Abs(z[0]-1/8.5) > 1e-5 || !math.IsNaN(z[1]) {
		t.Errorf("beyond the pole of sample 1: %v", z)
	}
}

func TestZeroLengthSpan(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, ts := range [][]float64{{3}, {3, 3}} {
		for _, m := range solver.Methods() {
			set := anySettings(m)
			set.Dense = true
			set.Breakpoints = []float64{3}
			sol := solve[float64](t, p, set, ts...)
			for i := range ts {
				if !same(sol.State(i), p.Z0) {
					t.Errorf("%s at %v: state %d is %v", m, ts, i, sol.State(i))
				}
			}
			if sol.Status[0] != solver.Done || sol.Evaluations() != 0 || sol.Stats[0].T != 3 {
				t.Errorf("%s at %v: %v, %+v", m, ts, sol.Status, sol.Stats)
			}
			if z, err := sol.At(3); err != nil || !same(z, p.Z0) {
				t.Errorf("%s: At(t0) = %v, %v", m, z, err)
			}
		}
	}
}

func TestSolution_Accessors(t *testing.T) {
	p := problems.LotkaVolterra()
	z0 := []float64{1, 1, 2, 0.5}
	s := open(t, problems.System[float64](p), solver.Settings{Method: solver.Dopri5})
	sol, err := s.Solve(background, z0, []float64{0, 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if sol.Backend != "cpu" || sol.Method != "dopri5" || sol.Batch != 2 || sol.Dim != 2 || len(sol.Y) != 12 {
		t.Errorf("%q %q B=%d D=%d, %d values", sol.Backend, sol.Method, sol.Batch, sol.Dim, len(sol.Y))
	}
	if !same(sol.State(0), z0) || !same(sol.Sample(2, 1), sol.Final()[2:]) || !same(sol.Sample(1, 0), sol.Y[4:6]) {
		t.Error("State, Sample and Final do not agree")
	}
	z0[0] = 7
	if sol.Y[0] != 1 {
		t.Error("the solution shares memory with z0")
	}
	mine := solver.Dopri5.Tableau().Clone()
	mine.Name = "mine"
	if sol := solve[float64](t, p, solver.Settings{Tableau: mine}, 0, 1); sol.Method != "mine" {
		t.Errorf("the method of a tableau named mine is %q", sol.Method)
	}
}
