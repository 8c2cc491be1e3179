package train

import (
	"fmt"
	"math"
)

// ScheduleKind is the course of the learning rate's factor after the warm-up, with
// s the number of updates made since then, n the Period and γ the Gamma.
type ScheduleKind uint8

const (
	Constant    ScheduleKind = iota // 1
	StepDecay                       // γ^⌊s/n⌋
	Exponential                     // γ^(s/n)
	// Cosine falls from 1 to Min in n updates and stays there:
	// Min + ½(1-Min)(1+cos(π s/n)) (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5,
	// without restarts).
	Cosine
)

var scheduleNames = []string{"constant", "step", "exponential", "cosine"}

func (k ScheduleKind) String() string { return enumString("ScheduleKind", scheduleNames, k) }

// Schedule is the factor of the learning rate over the updates: a linear warm-up,
// then a course. Its zero value is the constant 1.
type Schedule struct {
	Kind ScheduleKind
	// Warmup is the number of updates in which the factor rises to 1: the first has
	// 1/Warmup, the last of them 1.
	Warmup int
	// Period is n, in updates. 0 means the rest of the run for Exponential and
	// Cosine; StepDecay needs one.
	Period int
	Gamma  float64 // γ; 0 means 0.1
	Min    float64 // the least factor of Cosine
}

const defaultGamma = 0.1

// Validate returns what is wrong with s, if anything.
func (s Schedule) Validate() error {
	if int(s.Kind) >= len(scheduleNames) {
		return fmt.Errorf("train: Schedule.Kind is %d; use Constant, StepDecay, Exponential or Cosine", s.Kind)
	}
	if s.Warmup < 0 || s.Period < 0 {
		return fmt.Errorf("train: Schedule.Warmup is %d and Period %d updates; neither can be negative", s.Warmup, s.Period)
	}
	if !(s.Gamma >= 0) || math.IsInf(s.Gamma, 0) {
		return fmt.Errorf("train: Schedule.Gamma is %g; give a positive number, or 0 for 0.1", s.Gamma)
	}
	if !(s.Min >= 0 && s.Min <= 1) {
		return fmt.Errorf("train: Schedule.Min is %g; give a fraction of the learning rate, from 0 to 1", s.Min)
	}
	if s.Kind == StepDecay && s.Period == 0 {
		return fmt.Errorf("train: Schedule.Period is 0; say after how many updates StepDecay multiplies by Gamma")
	}
	if used := s.Kind == StepDecay || s.Kind == Exponential; s.Gamma != 0 && !used {
		return fmt.Errorf("train: Schedule.Gamma is %g, but %v does not use it: StepDecay and Exponential do", s.Gamma, s.Kind)
	}
	if s.Min != 0 && s.Kind != Cosine {
		return fmt.Errorf("train: Schedule.Min is %g, but %v does not use it: Cosine does", s.Min, s.Kind)
	}
	if s.Period != 0 && s.Kind == Constant {
		return fmt.Errorf("train: Schedule.Period is %d, but a constant schedule has none", s.Period)
	}
	return nil
}

// WithDefaults returns s with its defaults filled in, for a run of that many updates.
func (s Schedule) WithDefaults(updates int) Schedule {
	if s.Gamma == 0 && (s.Kind == StepDecay || s.Kind == Exponential) {
		s.Gamma = defaultGamma
	}
	if s.Period == 0 && (s.Kind == Exponential || s.Kind == Cosine) {
		s.Period = max(updates-s.Warmup, 1)
	}
	return s
}

// Factor is the factor, dimensionless, of the learning rate for the update after
// `step` updates. It depends on nothing else. A Period of 0 must have been filled in
// by [Schedule.WithDefaults].
func (s Schedule) Factor(step int) float64 {
	if step < s.Warmup {
		return float64(step+1) / float64(s.Warmup)
	}
	if s.Kind == Constant {
		return 1
	}
	if s.Period <= 0 {
		panic("train: Factor of a schedule without a period")
	}
	if s.Gamma == 0 {
		s.Gamma = defaultGamma
	}
	n := step - s.Warmup
	switch s.Kind {
	case StepDecay:
		return math.Pow(s.Gamma, float64(n/s.Period))
	case Exponential:
		return math.Pow(s.Gamma, float64(n)/float64(s.Period))
	case Cosine:
		x := min(float64(n)/float64(s.Period), 1)
		return s.Min + (1-s.Min)*(1+math.Cos(math.Pi*x))/2
	}
	panic("train: Factor of an unknown schedule")
}
