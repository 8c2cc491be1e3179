package solver_test

import (
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// jumpy is z' = z before t = 1, -2z between 1 and 1.75, and 1 from there on.
func jumpy[T field.Number](t T, z, _, dz []T) {
	switch at := field.Value(t); {
	case at < 1:
		dz[0] = z[0]
	case at < 1.75:
		dz[0] = -2 * z[0]
	default:
		dz[0] = 1
	}
}

// jumpyAt is its solution with z(0) = 1.
func jumpyAt(t float64) float64 {
	switch {
	case t < 1:
		return math.Exp(t)
	case t < 1.75:
		return math.Exp(1 - 2*(t-1))
	}
	return math.Exp(-0.5) + t - 1.75
}

var jumps = []float64{1.75, 1, -3, 99} // in any order, some outside of the span

func testBreakpoints[T backend.Float](t *testing.T, m solver.Method, ends [2]float64) {
	set := solver.Settings{Method: m, RTol: 1e-5, ATol: 1e-5, Breakpoints: jumps}
	if !m.Adaptive() {
		set.Step = 1. / 512
	}
	sys := field.New(1, nil, jumpy[T], jumpy[field.Dual])
	s := open(t, sys, set)
	sol, err := s.Solve(background, []T{T(jumpyAt(ends[0]))}, []float64{ends[0], ends[1]})
	if err != nil {
		t.Fatal(err)
	}
	limit := 1e-3
	if m == solver.Euler || m == solver.Fehlberg12 {
		limit = 2e-2
	}
	if d := math.Abs(float64(sol.Final()[0]) - jumpyAt(ends[1])); !(d < limit) {
		t.Errorf("%s from %g to %g: z is %g, off by %.1g", m, ends[0], ends[1], sol.Final()[0], d)
	}
}

func TestBreakpoints_RestoreTheAccuracy(t *testing.T) {
	for _, m := range solver.Methods() {
		for _, ends := range [][2]float64{{0, 2.5}, {2.5, 0}, {1, 1.75}, {1.75, 1}, {0.5, 1}, {1.75, 2}} {
			testBreakpoints[float64](t, m, ends)
			testBreakpoints[float32](t, m, ends)
		}
	}
}

// TestBreakpoints_SaveWork: between its jumps f is smooth, and high-order steps are
// long there; without breakpoints they have to search for the jumps.
func TestBreakpoints_SaveWork(t *testing.T) {
	sys := field.New(1, nil, jumpy[float64], jumpy[field.Dual])
	for _, m := range []solver.Method{solver.Tsit5, solver.Dopri5, solver.Dopri8, solver.Vern7} {
		var with, without *solver.Solution[float64]
		for _, set := range []solver.Settings{{Breakpoints: jumps}, {}} {
			set.Method, set.RTol, set.ATol = m, 1e-9, 1e-9
			sol, err := open(t, sys, set).Solve(background, []float64{1}, []float64{0, 2.5})
			if err != nil {
				t.Fatal(err)
			}
			if without = sol; set.Breakpoints != nil {
				with = sol
			}
		}
		off := math.Abs(with.Final()[0] - jumpyAt(2.5))
		if !(off < 1e-8) || with.Stats[0].Rejected > 2 || with.Evaluations() > without.Evaluations()*2/3 {
			t.Errorf("%s: off by %.1g, %+v with breakpoints, %+v without", m, off, with.Stats[0], without.Stats[0])
		}
	}
}

// TestBreakpoints_NoEvaluationAcross watches the times at which f is evaluated.
func TestBreakpoints_NoEvaluationAcross(t *testing.T) {
	breaks := []float64{0, 0.5, 1.25, 2}
	for _, m := range solver.Methods() {
		for _, dense := range []bool{false, true} {
			for _, sign := range []float64{1, -1} {
				piece := 0 // that between breaks[piece] and breaks[piece+1]
				sys := custom(1, func(at float64, z, _, dz []float64) {
					at *= sign
					for piece+2 < len(breaks) && at > breaks[piece+1] {
						piece++
					}
					if !(at > breaks[piece] && at < breaks[piece+1]) {
						t.Errorf("%s, direction %g: f evaluated at %.17g while between %g and %g", m, sign, at, breaks[piece], breaks[piece+1])
					}
					dz[0] = math.Sin(10*at) * z[0]
				})
				set := anySettings(m)
				set.Dense = dense
				for _, b := range breaks {
					set.Breakpoints = append(set.Breakpoints, sign*b)
				}
				sol, err := open(t, sys, set).Solve(background, []float64{1}, grid(0, sign*2, 11))
				if err != nil {
					t.Fatal(err)
				}
				if piece != len(breaks)-2 || sol.Stats[0].T != sign*2 {
					t.Errorf("%s: ended in piece %d at %g", m, piece, sol.Stats[0].T)
				}
			}
		}
	}
}

// TestBreakpoints_DoNotShortenTheStepsAfter: a step cut to end on one says little
// of the size that the solution allows.
func TestBreakpoints_DoNotShortenTheStepsAfter(t *testing.T) {
	sys := custom(1, func(at float64, _, _, dz []float64) { dz[0] = math.Cos(at) })
	for _, m := range adaptive() {
		var attempts []int64
		for _, breaks := range [][]float64{nil, grid(0, 20, 6)[1:6]} {
			set := solver.Settings{Method: m, RTol: 1e-5, ATol: 1e-5, Breakpoints: breaks}
			sol, err := open(t, sys, set).Solve(background, []float64{0}, []float64{0, 20})
			if err != nil {
				t.Fatal(err)
			}
			attempts = append(attempts, sol.Stats[0].Accepted+sol.Stats[0].Rejected)
		}
		// One short step to each break, and a little for the phase.
		if attempts[1] > attempts[0]+10 {
			t.Errorf("%s: %d attempts without breakpoints, %d with 5", m, attempts[0], attempts[1])
		}
	}
}
