package solver

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
)

// Sample says how one sample of [Solver.SolveEach] is solved. What is zero is as the
// solver's Settings say.
type Sample struct {
	// Times are the sample's output times, t0 first, strictly increasing or strictly
	// decreasing; one time, or the same time twice, is a span of length zero.
	Times []float64
	// RTol and ATol are its tolerances: both, or neither.
	RTol, ATol float64
	// FirstStep and MaxStep are in units of time. Fixed steps have the size that
	// Settings.Step says.
	FirstStep, MaxStep float64
	// Breakpoints are its own, beside those of Settings.
	Breakpoints []float64
}

func (s Sample) clone() Sample {
	s.Times, s.Breakpoints = slices.Clone(s.Times), slices.Clone(s.Breakpoints)
	return s
}

func cloneSamples(samples []Sample) []Sample {
	own := make([]Sample, len(samples))
	for b := range samples {
		own[b] = samples[b].clone()
	}
	return own
}

// grid is what a batch is solved over: the same times for all, or samples that have
// their own.
type grid struct {
	batch   int
	times   []float64
	samples []Sample
}

// empty reports whether there is nothing to integrate.
func (g *grid) empty() bool {
	if g.samples == nil {
		return length(g.times) == 0
	}
	return !slices.ContainsFunc(g.samples, func(s Sample) bool { return length(s.Times) > 0 })
}

func (g *grid) shape(keep step.Keep) shape {
	want := shape{batch: g.batch, saves: len(g.times) - 1, keep: keep}
	if g.samples != nil {
		want.saves, want.ragged = 0, true
		for _, s := range g.samples {
			want.saves += saved(s.Times)
		}
	}
	return want
}

// saved is the number of output times after the first, none in a span of length zero.
func saved(ts []float64) int {
	if length(ts) == 0 {
		return 0
	}
	return len(ts) - 1
}

// spans translates g for a backend.
func (g *grid) spans(set *Settings) []backend.Span {
	if g.samples == nil {
		return []backend.Span{set.Span(g.times)}
	}
	spans := make([]backend.Span, len(g.samples))
	row := 0
	for b, s := range g.samples {
		own := *set
		if len(s.Breakpoints) > 0 {
			own.Breakpoints = slices.Concat(set.Breakpoints, s.Breakpoints)
		}
		if s.FirstStep > 0 {
			own.FirstStep = s.FirstStep
		}
		if s.MaxStep > 0 {
			own.MaxStep = s.MaxStep
		}
		spans[b] = own.Span(s.Times)
		spans[b].Tol = backend.Tolerance{Rel: s.RTol, Abs: s.ATol}
		spans[b].Row = row
		row += len(spans[b].Saves)
	}
	return spans
}

// Span translates output times, the first of them t0, and the breakpoints between
// them for a backend.
func (s *Settings) Span(ts []float64) backend.Span {
	t0, t1 := ts[0], ts[len(ts)-1]
	sp := s.Between(t0, t1)
	if t0 == t1 {
		sp.Stops = []float64{t1}
		return sp
	}
	sp.Saves = ts[1:]
	sp.Stops = append(sp.Breaks[:len(sp.Breaks):len(sp.Breaks)], t1)
	slices.Sort(sp.Stops)
	sp.Stops = slices.Compact(sp.Stops)
	if t1 < t0 {
		slices.Reverse(sp.Stops)
	}
	if sp.Stops[0] == t0 && len(sp.Stops) > 1 {
		sp.Stops = sp.Stops[1:]
	}
	return sp
}

// Between is a span from t0 to t1 with what the settings say of it, steps and
// breakpoints; it has no stops and no saves yet.
func (s *Settings) Between(t0, t1 float64) backend.Span {
	sp := backend.Span{T0: t0, H0: s.FirstStep, MaxStep: s.MaxStep}
	if s.Step > 0 {
		sp.H0 = s.Step
	}
	for _, t := range s.Breakpoints {
		if t >= min(t0, t1) && t <= max(t0, t1) {
			sp.Breaks = append(sp.Breaks, t)
		}
	}
	return sp
}

func length(ts []float64) float64 { return math.Abs(ts[len(ts)-1] - ts[0]) }

// checkInput validates a call's arguments and returns the batch's size.
func checkInput[T backend.Float](dim int, z0 []T, ts []float64) (batch int, err error) {
	if len(z0) == 0 {
		return 0, errors.New("solver: the batch is empty; give at least one initial state")
	}
	if len(z0)%dim != 0 {
		return 0, fmt.Errorf("solver: z0 has %d elements, not a multiple of the dimension %d; lay the batch out as [B, %d]", len(z0), dim, dim)
	}
	if err := checkTimes("ts", ts); err != nil {
		return 0, fmt.Errorf("solver: %w", err)
	}
	return len(z0) / dim, checkFinite("z0", z0, dim)
}

// checkTimes validates output times, which are called name.
func checkTimes(name string, ts []float64) error {
	if len(ts) == 0 {
		return errors.New("no times; give t0 and at least one output time")
	}
	for i, t := range ts {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return fmt.Errorf("%s[%d] is %g; give finite times", name, i, t)
		}
	}
	if math.IsInf(length(ts), 0) {
		return fmt.Errorf("the span from %g to %g is longer than a float64 can say; rescale the time", ts[0], ts[len(ts)-1])
	}
	if len(ts) > 2 || len(ts) == 2 && ts[0] != ts[1] {
		for i := 1; i < len(ts); i++ {
			if ts[i] == ts[i-1] || (ts[i] > ts[i-1]) != (ts[1] > ts[0]) {
				return fmt.Errorf("%s is not monotone at index %d: %g after %g; sort the times and remove doubles (decreasing times integrate backwards)",
					name, i, ts[i], ts[i-1])
			}
		}
	}
	return nil
}

// checkFinite names the first element that is not finite.
func checkFinite[T backend.Float](what string, x []T, dim int) error {
	for i, v := range x {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			if dim > 0 {
				return fmt.Errorf("solver: %s of sample %d, component %d, is %g; give finite numbers", what, i/dim, i%dim, f)
			}
			return fmt.Errorf("solver: %s %d is %g; give finite numbers", what, i, f)
		}
	}
	return nil
}

// checkSamples validates the arguments of SolveEach.
func (s *Solver[T]) checkSamples(z0 []T, samples []Sample) error {
	if s.set.Stepping != PerSample {
		return errors.New("solver: SolveEach needs samples that step alone; set Settings.Stepping to PerSample")
	}
	if len(samples) == 0 || len(z0) != len(samples)*s.dim {
		return fmt.Errorf("solver: z0 has %d elements and samples %d entries; give at least one sample, and z0 as [%d, %d]", len(z0), len(samples), len(samples), s.dim)
	}
	for b := range samples {
		if err := samples[b].check(&s.set); err != nil {
			return fmt.Errorf("solver: sample %d: %w", b, err)
		}
	}
	return checkFinite("z0", z0, s.dim)
}

// check validates a sample beside the settings of its solver.
func (s *Sample) check(set *Settings) error {
	if err := checkTimes("Times", s.Times); err != nil {
		return err
	}
	for _, v := range []struct {
		name  string
		value float64
	}{{"RTol", s.RTol}, {"ATol", s.ATol}, {"FirstStep", s.FirstStep}, {"MaxStep", s.MaxStep}} {
		if !(v.value >= 0) || math.IsInf(v.value, 0) {
			return fmt.Errorf("%s is %g; give a finite number that is not negative, or 0 for that of Settings", v.name, v.value)
		}
	}
	if (s.RTol == 0) != (s.ATol == 0) {
		return fmt.Errorf("RTol is %g and ATol %g; give both, or neither for those of Settings", s.RTol, s.ATol)
	}
	if s.MaxStep > 0 && (s.MaxStep < set.MinStep || s.MaxStep < set.Step) {
		return fmt.Errorf("MaxStep is %g, below Settings.MinStep, %g, or Step, %g; make it longer", s.MaxStep, set.MinStep, set.Step)
	}
	for i, t := range s.Breakpoints {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return fmt.Errorf("%s[%d] is %g; give finite times", "Breakpoints", i, t)
		}
	}
	return nil
}
