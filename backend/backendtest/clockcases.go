package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// outcome is what one attempt with an error ratio leads to.
type outcome struct {
	ratio      float64
	t, h, next float64
	status     backend.Status
}

// controlCase is a sequence of attempts of one lane, worked out by hand.
type controlCase struct {
	name   string
	span   backend.Span
	adjust func(c *backend.Control)
	h0     float64 // of the first attempt
	steps  []outcome
}

// ulp1 is the unit in the last place of times from 1 to 2.
const ulp1 = 0x1p-52

func controlTable() []controlCase {
	const running, done, tooMany, tooSmall, notFinite = backend.StatusRunning, backend.Done,
		backend.TooManyAttempts, backend.StepTooSmall, backend.NotFinite
	nan, inf := math.NaN(), math.Inf(1)
	far := backend.Span{H0: 1, Stops: []float64{1000}}
	until := func(stops ...float64) backend.Span { return backend.Span{H0: 1, Stops: stops} }
	return []controlCase{
		{"accept", far, nil, 1, []outcome{
			{0.25, 1, 1.8, 1.8, running},
			{0.81, 2.8, 1.8, 1.8, running},
			{0.0625, 4.6, 6.48, 6.48, running},
		}},
		{"accept 1", far, nil, 1, []outcome{{1, 1, 0.9, 0.9, running}}},
		{"MaxFactor", far, nil, 1, []outcome{{1e-6, 1, 5, 5, running}, {0, 6, 25, 25, running}}},
		{"MinFactor", far, func(c *backend.Control) { c.Beta = [3]float64{0, -0.5, 0} }, 1, []outcome{
			{0.0025, 1, 0.9, 0.9, running},
			{0.5, 1.9, 0.18, 0.18, running},
		}},
		{"memory of one step", far, func(c *backend.Control) { c.Beta = [3]float64{0.5, -0.5, 0} }, 1, []outcome{
			{0.25, 1, 1.8, 1.8, running},
			{0.0625, 2.8, 3.24, 3.24, running},
			{0.81, 6.04, 0.81, 0.81, running},
		}},
		{"memory of two steps", far, func(c *backend.Control) { c.Beta, c.MinFactor = [3]float64{0, 0, -0.5}, 0.01 }, 1, []outcome{
			{0.01, 1, 0.9, 0.9, running},
			{0.25, 1.9, 0.81, 0.81, running},
			{0.25, 2.71, 0.0729, 0.0729, running},
		}},
		{"memory has a floor", far, func(c *backend.Control) { c.Beta, c.MinFactor = [3]float64{0, -0.5, 0}, 0.001 }, 1, []outcome{
			{1e-8, 1, 0.9, 0.9, running},
			{0.5, 1.9, 0.0081, 0.0081, running},
		}},
		{"reject", far, nil, 1, []outcome{
			{4, 0, 0.45, 0.45, running},
			{1e6, 0, 0.09, 0.09, running},
			{1e-4, 0.09, 0.09, 0.09, running},
			{0.25, 0.18, 0.162, 0.162, running},
		}},
		{"rejected errors are not remembered", far, func(c *backend.Control) { c.Beta = [3]float64{0, -0.5, 0} }, 1, []outcome{
			{4, 0, 0.45, 0.45, running},
			{0.25, 0.45, 0.405, 0.405, running},
			{0.5, 0.855, 0.18225, 0.18225, running},
		}},
		{"rejection has its own exponent", far, func(c *backend.Control) { c.Order, c.Beta[0] = 3, 0.1 }, 1, []outcome{
			{8, 0, 0.45, 0.45, running},
		}},
		{"NaN is rejected", far, nil, 1, []outcome{
			{nan, 0, 0.2, 0.2, running},
			{nan, 0, 0.04, 0.04, running},
			{0.25, 0.04, 0.04, 0.04, running},
		}},
		{"NotFinite", far, func(c *backend.Control) { c.MinStep = 0.1 }, 1, []outcome{
			{nan, 0, 0.2, 0.2, running},
			{nan, 0, 0.2, 0.04, notFinite},
		}},
		{"StepTooSmall", far, func(c *backend.Control) { c.MinStep = 0.1 }, 1, []outcome{
			{1e6, 0, 0.2, 0.2, running},
			{1e6, 0, 0.2, 0.04, tooSmall},
		}},
		{"infinite error", far, func(c *backend.Control) { c.MinStep = 0.1 }, 1, []outcome{
			{inf, 0, 0.2, 0.2, running},
			{inf, 0, 0.2, 0.04, tooSmall},
		}},
		{"MinStep of 16 units in the last place", backend.Span{T0: 1, H0: 0x1p-46, Stops: []float64{2}}, nil, 0x1p-46, []outcome{
			{1e6, 1, 0x1p-46, 0.2 * 0x1p-46, tooSmall}, // 16 units are 3.6e-15
		}},
		{"MinStep just above 16 units", backend.Span{T0: 1, H0: 0x1p-45, Stops: []float64{2}}, nil, 0x1p-45, []outcome{
			{1e6, 1, 0x1.ap-48, 0.2 * 0x1p-45, running}, // h in whole units of t
		}},
		{"MinStep after an accepted step", far, func(c *backend.Control) { c.Beta, c.MinStep = [3]float64{0, -0.5, 0}, 0.5 }, 1, []outcome{
			{0.0025, 1, 0.9, 0.9, running},
			{0.5, 1.9, 0.5, 0.5, running}, // not 0.18
		}},
		{"size as t takes it", backend.Span{T0: 1, H0: 80.4 * ulp1, Stops: []float64{2}}, nil, 80 * ulp1, []outcome{
			{0.25, 1 + 80*ulp1, 144 * ulp1, 144 * ulp1, running},
		}},
		{"fixed, what rounding took", backend.Span{T0: 1, H0: 10.4 * ulp1, Stops: []float64{2}}, func(c *backend.Control) { c.Fixed = true }, 10 * ulp1, []outcome{
			{0, 1 + 10*ulp1, 11 * ulp1, 10.8 * ulp1, running},
			{0, 1 + 21*ulp1, 10 * ulp1, 10.2 * ulp1, running},
		}},
		{"MaxAttempts", far, func(c *backend.Control) { c.MaxAttempts = 3 }, 1, []outcome{
			{0.25, 1, 1.8, 1.8, running},
			{4, 1, 0.81, 0.81, running},
			{0.81, 1.81, 0.81, 0.81, tooMany},
		}},
		{"MaxAttempts after a rejection", far, func(c *backend.Control) { c.MaxAttempts = 1 }, 1, []outcome{
			{4, 0, 1, 0.45, tooMany},
		}},
		{"arrival at MaxAttempts", until(1), func(c *backend.Control) { c.MaxAttempts = 1 }, 1, []outcome{
			{0.25, 1, 1, 1.8, done},
		}},
		{"stretch to a stop", until(2.815, 1000), nil, 1, []outcome{
			{0.25, 1, 1.815, 1.8, running},
			{0.25, 2.815, 3.267, 3.267, running},
		}},
		{"no stretch beyond 1%", until(2.83), nil, 1, []outcome{{0.25, 1, 1.8, 1.8, running}}},
		{"H0 is not stretched", until(1.005), nil, 1, []outcome{
			{0.25, 1, 0.005, 1.8, running},
			{0.25, 1.005, 0.005, 0.009, done},
		}},
		{"cut step, the size before it is kept", until(1.2, 1000), nil, 1, []outcome{
			{0.09, 1, 0.2, 3, running}, // cut to land on 1.2
			{1e-8, 1.2, 3, 3, running},
		}},
		{"cut step without error", until(1.2, 1000), nil, 1, []outcome{
			{0.09, 1, 0.2, 3, running},
			{0, 1.2, 3, 3, running},
		}},
		{"cut step that allows more", until(2, 1000), nil, 1, []outcome{
			{0.09, 1, 1, 3, running},
			{1e-8, 2, 5, 5, running},
		}},
		{"cut step that speaks against it", until(1.2, 1000), nil, 1, []outcome{
			{0.09, 1, 0.2, 3, running},
			{0.25, 1.2, 0.36, 0.36, running},
		}},
		{"cut step, F above E", until(1.2, 1000), func(c *backend.Control) { c.Beta[0] = 1 }, 1, []outcome{
			{0.3, 1, 0.2, 3, running},
			{0.25, 1.2, 0.72, 0.72, running},
		}},
		{"cut step is not remembered", until(1.2, 1000), func(c *backend.Control) { c.Beta = [3]float64{0.5, -0.5, 0} }, 1, []outcome{
			{0.09, 1, 0.2, 3, running},
			{1e-8, 1.2, 3, 3, running},
			{0.81, 4.2, 0.9, 0.9, running}, // 0.09^0.5·3
		}},
		{"cut step rejected", until(1.2, 1000), nil, 1, []outcome{
			{0.09, 1, 0.2, 3, running},
			{4, 1, 0.09, 0.09, running},
		}},
		{"MaxStep", backend.Span{H0: 2, MaxStep: 1.5, Stops: []float64{1000}}, nil, 1.5, []outcome{
			{0, 1.5, 1.5, 1.5, running},
		}},
		{"no stretch beyond MaxStep", backend.Span{H0: 1, MaxStep: 1, Stops: []float64{2.005}}, nil, 1, []outcome{
			{0, 1, 1, 1, running},
			{0, 2, 0.005, 1, running},
		}},
		{"rounding at MaxStep", backend.Span{H0: 1, MaxStep: 1, Stops: []float64{2 + 5e-9}}, nil, 1, []outcome{
			{0, 1, 1 + 5e-9, 1, running},
			{0, 2 + 5e-9, 1 + 5e-9, 5 * (1 + 5e-9), done},
		}},
		{"fixed", backend.Span{H0: 0.375, Stops: []float64{1}}, func(c *backend.Control) { c.Fixed = true }, 0.375, []outcome{
			{0, 0.375, 0.375, 0.375, running},
			{7, 0.75, 0.25, 0.375, running},
			{0, 1, 0.25, 0.375, done},
		}},
		{"fixed, a stop on the way", backend.Span{H0: -1, Stops: []float64{1.5, 4}}, func(c *backend.Control) { c.Fixed = true }, 1, []outcome{
			{0, 1, 0.5, 1, running},
			{0, 1.5, 1, 1, running},
			{0, 2.5, 1, 1, running},
		}},
		{"fixed, not finite", far, func(c *backend.Control) { c.Fixed = true }, 1, []outcome{
			{0, 1, 1, 1, running},
			{nan, 1, 1, 1, notFinite},
		}},
		{"fixed, infinite error", far, func(c *backend.Control) { c.Fixed = true }, 1, []outcome{
			{inf, 1, 1, 1, running},
		}},
		{"fixed, no stretch", until(1.005), func(c *backend.Control) { c.Fixed = true }, 1, []outcome{
			{0, 1, 0.005, 1, running},
		}},
		{"backwards", backend.Span{T0: 5, H0: 1, Stops: []float64{1, -20}}, nil, -1, []outcome{
			{0.25, 4, -1.8, 1.8, running},
			{4, 4, -0.81, 0.81, running},
			{0.25, 3.19, -0.81, 0.81, running},
			{0, 2.38, -1.38, 4.05, running},
			{0, 1, -6.9, 6.9, running},
		}},
		{"length 0", backend.Span{T0: 3, H0: 1, Stops: []float64{3}}, nil, 0, []outcome{
			{0, 3, 0, 0, done},
		}},
	}
}

func clockCases[T backend.Float]() (all []testCase[T]) {
	for _, c := range controlTable() {
		all = append(all, testCase[T]{"Advance/" + c.name, func(s *suite[T]) { runControl(s, c) }})
	}
	return append(all,
		testCase[T]{"Advance/fixed steps arrive", fixedArrives[T]},
		testCase[T]{"Advance/without a stop beyond it", landsExactly[T]},
		testCase[T]{"Start/again", startAgain[T]},
		testCase[T]{"Start/keeps its own copy", startCopies[T]},
		testCase[T]{"Poll/lanes in every state", pollStates[T]},
	)
}

func runControl[T backend.Float](s *suite[T], c controlCase) {
	ctl := stock
	if c.adjust != nil {
		c.adjust(&ctl)
	}
	tm := s.timer(1, c.span)
	if l := tm.lanes()[0]; l.Status == backend.StatusRunning && !closeTo(l.H, c.h0, 1e-15) {
		s.Errorf("Start: h is %.17g, want %.17g", l.H, c.h0)
	}
	tm.verify("Start")
	// The ratios, and what follows from them, are as exact as T is.
	rel := 16*s.u + 1e-12
	for i, want := range c.steps {
		tm.attempt(ctl, each(want.ratio))
		l := tm.lanes()[0]
		if l.Status != want.status || !closeTo(l.T, want.t, rel) || !closeTo(l.Next, want.next, rel) ||
			want.h != 0 && !closeTo(l.H, want.h, 100*rel) { // what is left to a stop cancels
			s.fatalf("Advance: attempt %d with error ratio %g: %v at t = %.10g, h = %.10g, next %.10g; want %v at %.10g, %.10g, %.10g",
				i, want.ratio, l.Status, l.T, l.H, l.Next, want.status, want.t, want.h, want.next)
		}
		tm.verify(fmt.Sprintf("Advance: attempt %d", i))
	}
}

// fixedArrives counts steps where n·h and the span differ by rounding.
func fixedArrives[T backend.Float](s *suite[T]) {
	ctl := stock
	ctl.Fixed = true
	for _, c := range []struct {
		t0, t1 float64
		n      int
	}{{0, 1, 10}, {1, 0, 10}, {0.1, 0.8, 7}, {-3, 4, 49}, {1e6, 1e6 + 1, 10}} {
		tm := s.timer(1, backend.Span{T0: c.t0, H0: (c.t1 - c.t0) / float64(c.n), Stops: []float64{c.t1}})
		for range c.n {
			tm.attempt(ctl, each(0))
		}
		if l := tm.lanes()[0]; l.Status != backend.Done || l.T != c.t1 {
			s.Errorf("Advance: %d fixed steps from %g to %g end %v at t = %.17g", c.n, c.t0, c.t1, l.Status, l.T)
		}
	}
}

// landsExactly checks that a stop is hit to the last bit, though t+h is not it.
func landsExactly[T backend.Float](s *suite[T]) {
	t0, stop := s.inexactLanding(1)
	tm := s.timer(1, backend.Span{T0: t0, H0: 2, Stops: []float64{stop, 100}})
	tm.attempt(stock, each(0.5))
	if got := tm.lanes()[0].T; got != stop {
		s.Errorf("Advance: t is %.17g after a step that lands on the stop %.17g", got, stop)
	}
	tm.verify("Advance")
}

// inexactLanding finds t0 < stop with t0 + (stop-t0) on the given side of stop. stop
// lies halfway between two numbers of type float32, and is rounded away from that side.
func (s *suite[T]) inexactLanding(side float64) (t0, stop float64) {
	for {
		lower := float32(s.rng.Float64())
		stop = (float64(lower) + float64(math.Nextafter32(lower, 2))) / 2
		t0 = -s.rng.Float64()
		if side*(t0+(stop-t0)-stop) > 0 && side*(float64(float32(stop))-stop) < 0 {
			return t0, stop
		}
	}
}

func startAgain[T backend.Float](s *suite[T]) {
	tm := s.scene(kinds, 0)
	f := s.timeField()
	out := s.output("dz", 1, kinds, 1, allRows)
	f.Eval(out.v, tm.at(0, backend.Accepted), tm.y)
	tm.start(backend.Span{T0: 7, H0: 0.5, Stops: []float64{6, 5}})
	tm.verify("Start, after a solve")
	for i := range tm.ref.lanes {
		if tm.ref.lanes[i].selects(backend.Accepted) {
			s.fatalf("the reference is wrong")
		}
	}
	written := tm.ref.selected(backend.Accepted)
	out.set(s.random(kinds))
	f.Eval(out.v, tm.at(0, backend.Accepted), tm.y)
	out.expect("Start, then Eval at Accepted", written, nil)
	tm.verify("Start, then Eval at Accepted")
}

func startCopies[T backend.Float](s *suite[T]) {
	span := backend.Span{H0: 1, Saves: []float64{0.5}, Stops: []float64{1, 2}, Blocks: []int{1, 0}, Breaks: []float64{1}}
	tm := s.timer(1, span)
	// The reference shares the slices: give it copies before they change.
	tm.ref.start(backend.Span{H0: 1, Saves: []float64{0.5}, Stops: []float64{1, 2}, Blocks: []int{1, 0}, Breaks: []float64{1}})
	span.Saves[0], span.Stops[0], span.Stops[1], span.Blocks[0], span.Breaks[0] = 9, 9, 9, 9, 9
	for range 2 {
		tm.attempt(stock, each(1))
		tm.verify("Advance, after the Span's slices changed")
	}
	tm.attempt(stock, each(1))
	tm.verify("Advance, after the Span's slices changed")
}

func pollStates[T backend.Float](s *suite[T]) {
	for _, lanes := range []int{1, 3, kinds, 67} {
		tm := s.scene(lanes, 0)
		p, err := s.Poll(tm.clk)
		s.noError("Poll", err)
		var running, failed int
		behind := 4.0
		for i, l := range tm.lanes() {
			switch i % kinds {
			case 0:
				if l.Status != backend.Done || l.T != 4 {
					s.Errorf("Lanes: lane %d is %v at %g, want done at 4", i, l.Status, l.T)
				}
			case 3:
				failed++
				if l.Status != backend.NotFinite || l.T != 0.25 || l.Evaluations != 0 {
					s.Errorf("Lanes: lane %d is %v at %g, want not finite at 0.25", i, l.Status, l.T)
				}
			default:
				running++
				behind = min(behind, l.T)
			}
		}
		if p.Running != running || p.Failed != failed || p.T != behind {
			s.Errorf("Poll: %+v, want %d running, %d failed, the last at %g", p, running, failed, behind)
		}
	}
}
