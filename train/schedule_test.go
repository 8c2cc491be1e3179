package train

import (
	"math"
	"testing"
)

func TestSchedule_MatchesPyTorch(t *testing.T) {
	for _, c := range readTorch(t).Schedules {
		s := Schedule{Kind: kind[ScheduleKind](t, scheduleNames, c.Kind), Period: c.Period, Warmup: c.Warmup, Gamma: c.Gamma, Min: c.Min}
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		for i, want := range c.Factors {
			// PyTorch multiplies its way from step to step, a rounding or two each.
			if got := s.Factor(i); !near(got, want, 1e-14, 1e-15) {
				t.Errorf("%+v: step %d: %v, want %v", s, i, got, want)
			}
		}
	}
}

func TestSchedule_HandValues(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		step int
		want float64
	}{
		{Schedule{}, 12345, 1},
		{Schedule{Warmup: 4}, 0, 0.25},
		{Schedule{Warmup: 4}, 3, 1},
		{Schedule{Warmup: 4}, 4, 1},
		{Schedule{Kind: Cosine, Period: 10, Min: 0.2}, 0, 1},
		{Schedule{Kind: Cosine, Period: 10, Min: 0.2}, 5, 0.6},
		{Schedule{Kind: Cosine, Period: 10, Min: 0.2}, 10, 0.2},
		{Schedule{Kind: Cosine, Period: 10, Min: 0.2}, 1000, 0.2}, // stays there
		{Schedule{Kind: Exponential, Period: 100, Gamma: 0.01}, 50, 0.1},
		{Schedule{Kind: StepDecay, Period: 10}, 20, 0.01}, // the default γ
		{Schedule{Kind: StepDecay, Period: 5, Gamma: 0.5, Warmup: 2}, 6, 1},
		{Schedule{Kind: StepDecay, Period: 5, Gamma: 0.5, Warmup: 2}, 7, 0.5},
		{Schedule{Kind: StepDecay, Period: 5, Gamma: 0.5, Warmup: 2}, 17, 0.125},
	} {
		if got := c.s.Factor(c.step); !near(got, c.want, 1e-15, 0) {
			t.Errorf("%+v: step %d: %v, want %v", c.s, c.step, got, c.want)
		}
	}
	s := Schedule{Kind: Cosine, Warmup: 20}.WithDefaults(120)
	if s.Period != 100 || s.Factor(119) > 0.001 || s.Factor(20) != 1 {
		t.Errorf("%+v", s)
	}
	if s := (Schedule{Kind: Exponential, Warmup: 50}).WithDefaults(20); s.Period != 1 || s.Gamma != 0.1 {
		t.Errorf("%+v", s)
	}
}

func TestSchedule_Validate(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		want string
	}{
		{Schedule{Kind: 9}, "Schedule.Kind is 9; use Constant"},
		{Schedule{Warmup: -1}, "neither can be negative"},
		{Schedule{Kind: Cosine, Period: -2}, "neither can be negative"},
		{Schedule{Kind: StepDecay, Period: 1, Gamma: -0.5}, "Schedule.Gamma is -0.5"},
		{Schedule{Kind: StepDecay, Period: 1, Gamma: math.NaN()}, "Schedule.Gamma is NaN"},
		{Schedule{Kind: StepDecay}, "after how many updates StepDecay"},
		{Schedule{Kind: Cosine, Min: 2}, "Schedule.Min is 2; give a fraction"},
		{Schedule{Kind: Cosine, Gamma: 0.1}, "Gamma is 0.1, but cosine does not use it"},
		{Schedule{Min: 0.1}, "Min is 0.1, but constant does not use it"},
		{Schedule{Period: 3}, "a constant schedule has none"},
	} {
		wantError(t, c.s.Validate(), "train: ", c.want)
	}
	defer func() {
		if r := recover(); r != "train: Factor of a schedule without a period" {
			t.Errorf("recovered %v", r)
		}
	}()
	Schedule{Kind: Cosine}.Factor(0)
}
