package solver_test

import (
	"errors"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// stepSizes records |h| of each accepted step of one sample, by the progress.
func stepSizes(t *testing.T, p *problems.Problem, set solver.Settings) (sizes []float64, sol *solver.Solution[float64], err error) {
	t.Helper()
	last, accepted := p.T0, int64(0)
	set.Progress = func(pr backend.Progress) {
		if pr.Accepted > accepted {
			sizes, last = append(sizes, math.Abs(pr.T-last)), pr.T
		}
		accepted = pr.Accepted
	}
	sol, err = open(t, problems.System[float64](p), set).Solve(background, p.Z0, []float64{p.T0, p.T1})
	return sizes, sol, err
}

func TestFirstStep(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, h := range []float64{1e-3, 1e-6} {
		sizes, _, err := stepSizes(t, p, solver.Settings{FirstStep: h})
		if err != nil || math.Abs(sizes[0]-h) > 1e-15 {
			t.Errorf("FirstStep %g: %v, the first step is %g", h, err, sizes[0])
		}
	}
	// Much too long: rejected, not taken.
	sizes, sol, err := stepSizes(t, p, solver.Settings{FirstStep: 5})
	if err != nil || sizes[0] > 1 || sol.Stats[0].Rejected == 0 {
		t.Errorf("FirstStep 5: %v, %+v, the first step is %g", err, sol.Stats[0], sizes[0])
	}
	// Hairer's choice costs two evaluations, one of which serves the step.
	a, b := solve[float64](t, p, solver.Settings{MaxStep: 1e-3}, 0, 0.01), solve[float64](t, p, solver.Settings{MaxStep: 1e-3, FirstStep: 1e-3}, 0, 0.01)
	if a.Evaluations() != b.Evaluations()+1 {
		t.Errorf("%d evaluations with the choice of the first step, %d without", a.Evaluations(), b.Evaluations())
	}
}

func TestMaxStep(t *testing.T) {
	p := problems.Get("A1") // whose steps would grow without end
	sizes, sol, err := stepSizes(t, p, solver.Settings{MaxStep: 0.375})
	if err != nil {
		t.Fatal(err)
	}
	longest := 0.0
	for _, h := range sizes {
		longest = max(longest, h)
	}
	if !(longest > 0.37 && longest <= 0.375*(1+1e-8)) || sol.Stats[0].Accepted < 53 {
		t.Errorf("the longest step is %.10g, %d were accepted", longest, sol.Stats[0].Accepted)
	}
}

func TestMaxFactorAndMinFactor(t *testing.T) {
	p := problems.Get("A1")
	sizes, _, err := stepSizes(t, p, solver.Settings{FirstStep: 1e-4, MaxFactor: 1.5})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(sizes)-1; i++ { // the last one may be stretched by 1%
		if r := sizes[i] / sizes[i-1]; r > 1.5*(1+1e-9) {
			t.Errorf("step %d is %g times the one before", i, r)
		}
	}
	if r := sizes[1] / sizes[0]; math.Abs(r-1.5) > 1e-9 {
		t.Errorf("the tiny first step grew by %g, want 1.5", r)
	}
	// Far too long: the second attempt is MinFactor of it.
	_, sol, err := stepSizes(t, problems.LotkaVolterra(), solver.Settings{FirstStep: 8, MinFactor: 0.25, MaxAttempts: 2})
	var failed *solver.Error
	if !errors.As(err, &failed) || sol.Stats[0].Rejected != 2 || failed.Failures[0].H != 2 {
		t.Errorf("%v, %+v", err, sol.Stats[0])
	}
}

func TestSafety(t *testing.T) {
	p := problems.LotkaVolterra()
	bold, boldCost := endError(t, p, solver.Settings{Safety: 0.95})
	shy, shyCost := endError(t, p, solver.Settings{Safety: 0.5})
	if !(shy < bold && shyCost > boldCost) {
		t.Errorf("error %.1g at safety 0.5 for %d evaluations, %.1g at 0.95 for %d", shy, shyCost, bold, boldCost)
	}
}

// TestMinStep: a jump of f that is no breakpoint demands steps below MinStep.
func TestMinStep(t *testing.T) {
	jump := func(at float64, _, _, dz []float64) {
		dz[0] = 1
		if at > 0.123 {
			dz[0] = -1
		}
	}
	z0, ts := []float64{0}, []float64{0, 0.1, 1}
	set := solver.Settings{RTol: 1e-8, ATol: 1e-8, MinStep: 1e-4}
	sol, err := open(t, custom(1, jump), set).Solve(background, z0, ts)
	if !errors.Is(err, solver.StepTooSmall) {
		t.Fatal(err)
	}
	wantText(t, err, "sample 0 at t = 0.12", "the error of component 0 is ", "times the tolerance even at the smallest step", "Settings.Breakpoints")
	if sol.Status[0] != solver.StepTooSmall || math.Abs(sol.Stats[0].T-0.123) > 1e-3 || math.Abs(sol.Y[1]-0.1) > 1e-15 || !math.IsNaN(sol.Y[2]) {
		t.Errorf("%v, %+v, outputs %v", sol.Status, sol.Stats, sol.Y)
	}
	set.MinStep = 0
	if _, err := open(t, custom(1, jump), set).Solve(background, z0, ts); err != nil {
		t.Errorf("with the default MinStep: %v", err)
	}
	set.MinStep, set.Breakpoints = 1e-4, []float64{0.123}
	if _, err := open(t, custom(1, jump), set).Solve(background, z0, ts); err != nil {
		t.Errorf("with a breakpoint: %v", err)
	}
	// A first step below MinStep is no reason to stop.
	set.FirstStep = 1e-9
	if sol, err := open(t, custom(1, jump), set).Solve(background, z0, ts); err != nil || sol.Stats[0].Accepted > 20 {
		t.Errorf("with a short first step: %v, %+v", err, sol.Stats[0])
	}
}

func TestMaxAttempts(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, m := range solver.Methods() {
		set := anySettings(m)
		need := solve[float64](t, p, set, 0, 1).Stats[0]
		set.MaxAttempts = int(need.Accepted + need.Rejected)
		if got := solve[float64](t, p, set, 0, 1).Stats[0]; got != need {
			t.Errorf("%s with just enough attempts: %+v, want %+v", m, got, need)
		}
		set.MaxAttempts--
		sol, err := open(t, problems.System[float64](p), set).Solve(background, p.Z0, []float64{0, 1})
		if !errors.Is(err, solver.TooManyAttempts) || sol.Stats[0].Accepted+sol.Stats[0].Rejected != int64(set.MaxAttempts) {
			t.Errorf("%s with one too few: %v, %+v", m, err, sol.Stats[0])
		}
		if !m.Adaptive() {
			wantText(t, err, "used up", "a larger Step")
		}
	}
}

// TestStats_CountEvaluations compares with what f itself counts.
func TestStats_CountEvaluations(t *testing.T) {
	for _, m := range solver.Methods() {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			for _, dense := range []bool{false, true} {
				count := map[float64]int64{} // by the sample's second component, a constant
				sys := custom(2, func(at float64, z, _, dz []float64) {
					count[z[1]]++
					dz[0], dz[1] = z[0]*math.Cos(z[1]*at), 0
				})
				set := anySettings(m)
				set.Stepping, set.Dense, set.Breakpoints = stepping, dense, []float64{0.7}
				calls := int64(0)
				set.Progress = func(backend.Progress) { calls++ }
				sol, err := open(t, sys, set).Solve(background, []float64{1, 1, 1, 2, 1, 3}, grid(0, 2, 5))
				if err != nil {
					t.Fatal(err)
				}
				attempts := int64(0)
				for b, st := range sol.Stats {
					if st.Evaluations != count[float64(b+1)] {
						t.Errorf("%s, %s, sample %d: %d evaluations counted, f saw %d", m, stepping, b, st.Evaluations, count[float64(b+1)])
					}
					attempts = max(attempts, st.Accepted+st.Rejected)
					if st.T != 2 || !(st.SmallestH > 0 && st.SmallestH <= math.Abs(st.LastH)+2) || st.LastH <= 0 {
						t.Errorf("%s: %+v", m, st)
					}
				}
				if calls != attempts {
					t.Errorf("%s, %s: Progress was called %d times in %d attempts", m, stepping, calls, attempts)
				}
				stages := int64(m.Tableau().Stages())
				if st := sol.Stats[0]; !dense && m.Tableau().FSAL && st.Evaluations > 2+(stages-1)*(st.Accepted+st.Rejected)+1 {
					t.Errorf("%s: %+v is more than FSAL needs", m, st)
				}
			}
		}
	}
}

// TestFixedStep takes steps of one size, and a shorter one to the end.
func TestFixedStep(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, m := range solver.Methods() {
		for _, c := range []struct {
			step  float64
			steps int64
		}{{0.1, 10}, {0.3, 4}, {1, 1}, {5, 1}, {1. / 7, 7}, {1. / 1024, 1024}} {
			sol := solve[float64](t, p, solver.Settings{Method: m, Step: c.step}, 0, 1)
			if st := sol.Stats[0]; st.Accepted != c.steps || st.Rejected != 0 || st.T != 1 {
				t.Errorf("%s with step %g: %+v, want %d steps", m, c.step, st, c.steps)
			}
		}
	}
	// Ten thousand steps of a size that is no binary fraction do not drift.
	sol := solve[float64](t, problems.Linear(), solver.Settings{Method: solver.RK4, Step: 9.2 / 10_000}, 0.3, 9.5)
	if st := sol.Stats[0]; st.Accepted != 10_000 || distance(sol.Final(), problems.Linear().End) > 1e-12 {
		t.Errorf("%d steps, off by %.1g", st.Accepted, distance(sol.Final(), problems.Linear().End))
	}
}
