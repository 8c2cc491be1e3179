// Package stepsize has the formulas by which an adaptive solve chooses its step sizes,
// each with its derivatives: those that [backend.Control], [backend.Backend.ErrorRatio]
// and [backend.Backend.ProposeStep] state for a device. Where a limit acts, what it
// limits has no influence and its derivative is 0.
package stepsize

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Size is a proposed step size |h|, with its derivatives by what it is made of.
type Size struct {
	Want float64
	// After an attempt: by its |h|, its error ratio, those of the two accepted steps
	// before, the latest first, and the size that was wanted before it.
	ByH, ByRatio float64
	ByHistory    [2]float64
	ByWant       float64
	// Of a first step: by the norms of y0, f0 and f1-f0, the size of the trial step, and
	// the length of the span.
	ByD0, ByD1, ByD2, ByTrial, ByLength float64
}

// Accepted is the proposal after an accepted step of size h > 0 that ends at t, with
// error ratio r. history are the ratios of the accepted steps before; rejected says that
// the attempt before was. want is the size before the step was cut, if it was.
func Accepted(c *backend.Control, t, h, r float64, history [2]float64, rejected bool, want float64, cut bool) Size {
	factor, free, elementary := c.MaxFactor, false, math.Inf(1)
	if r > 0 {
		f := c.Safety * math.Pow(r, -c.Beta[0]) * math.Pow(history[0], -c.Beta[1]) * math.Pow(history[1], -c.Beta[2])
		factor = max(c.MinFactor, min(c.MaxFactor, f))
		free = factor == f
		elementary = c.Safety * math.Pow(r, -1/c.Order)
	}
	if rejected && factor > 1 {
		factor, free = 1, false
	}
	s := Size{Want: h * factor, ByH: factor}
	if free {
		s.ByRatio = -c.Beta[0] * s.Want / r
		for i := range history {
			s.ByHistory[i] = -c.Beta[i+1] * s.Want / history[i]
		}
	}
	if bold := min(h*elementary, want); cut && bold > s.Want {
		if bold == want {
			s = Size{Want: want, ByWant: 1}
		} else {
			s = Size{Want: bold, ByH: elementary, ByRatio: -bold / (c.Order * r)}
		}
	}
	if least := Smallest(c, t); s.Want < least {
		return Size{Want: least}
	}
	return s
}

// Remembered is what an accepted step with error ratio r leaves in the history, and its
// derivative by r.
func Remembered(r float64) (ratio, slope float64) {
	const least = 1e-4
	if r > least {
		return r, 1
	}
	return least, 0
}

// Rejected is the proposal after a rejected attempt of size h > 0 with error ratio r.
func Rejected(c *backend.Control, h, r float64) Size {
	s := Size{Want: h * c.MinFactor, ByH: c.MinFactor}
	if f := c.Safety * math.Pow(r, -1/c.Order); f > c.MinFactor { // false for NaN
		s.Want, s.ByH = h*f, f
		s.ByRatio = -s.Want / (c.Order * r)
	}
	return s
}

// Smallest is the size below which a rejected step at t is not tried again.
func Smallest(c *backend.Control, t float64) float64 {
	if c.MinStep > 0 {
		return c.MinStep
	}
	t = math.Abs(t)
	return 16 * (math.Nextafter(t, math.Inf(1)) - t)
}

// Trial is the size of the step that the first one is tried by, from the norms d0 of y0
// and d1 of f0 and the length of the span: Hairer, Nørsett & Wanner, Solving ODEs I,
// II.4, p. 169, (a-b).
func Trial(d0, d1, length float64) Size {
	s := Size{Want: 1e-6}
	if !(d0 < 1e-5 || d1 < 1e-5) {
		s.Want = 0.01 * (d0 / d1)
		s.ByD0, s.ByD1 = 0.01/d1, -s.Want/d1
	}
	return within(s, length)
}

// First is the size of the first step, (d-f) there: d2 is the norm of f1-f0, not over
// h0, and h0 > 0 the size of the trial step.
func First(d1, d2, h0, length float64, order int) Size {
	var s Size
	if m := max(d1, d2/h0); m <= 1e-15 {
		s.Want = 1e-6
		if h := h0 * 1e-3; h > s.Want {
			s.Want, s.ByTrial = h, 1e-3
		}
	} else {
		p := 1 / float64(order+1)
		s.Want = math.Pow(0.01/m, p)
		if slope := -p * s.Want / m; m == d1 {
			s.ByD1 = slope
		} else {
			s.ByD2, s.ByTrial = slope/h0, -slope*m/h0
		}
	}
	if h := 100 * h0; h < s.Want {
		s = Size{Want: h, ByTrial: 100}
	}
	return within(s, length)
}

// within limits a first step to the span.
func within(s Size, length float64) Size {
	switch {
	case !(s.Want > 0) || math.IsInf(s.Want, 0):
		return Size{Want: 1e-6 * length, ByLength: 1e-6}
	case s.Want > length:
		return Size{Want: length, ByLength: 1}
	}
	return s
}

// A step that would leave less than a hundredth of itself before a stop is stretched to
// it; one whose size was given only by what rounding explains.
const (
	StretchAdaptive = 1.01
	StretchFixed    = 1 + 1e-8
)

// Step is a step to attempt.
type Step struct {
	H       float64 // with its sign
	Want    float64 // |h| before it was cut to end on the stop
	Landing bool    // it ends on the stop
	Held    bool    // Want is MaxStep
}

// Aim is the step of size want from t, or what is left to stop; maxStep is 0 for no
// limit.
func Aim(t, want, stop, maxStep, stretch float64) Step {
	s := Step{Want: want}
	left := stop - t
	if maxStep > 0 {
		if want > maxStep {
			s.Want, s.Held = maxStep, true
		}
		stretch = min(stretch, maxStep*StretchFixed/s.Want)
	}
	if s.Landing = s.Want*stretch >= math.Abs(left); s.Landing {
		s.H = left
	} else { // what t moves by, so that the state belongs to the time to the last bit
		s.H = math.Copysign(t+math.Copysign(s.Want, left)-t, left)
	}
	return s
}

// VJP returns, for cotangents of H and of Want, those of what Aim was given.
func (s *Step) VJP(h, aimed float64) (t, want, stop float64) {
	want = aimed
	if s.Landing {
		t, stop = -h, h
	} else {
		want += math.Copysign(h, h*s.H)
	}
	if s.Held {
		want = 0
	}
	return t, want, stop
}
