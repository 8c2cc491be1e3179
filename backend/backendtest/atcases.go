package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func atCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"At/breaks", atBreaks[T]},
		{"At/breaks that float32 rounds", atRoundedBreaks[T]},
		{"At/the end of a step that lands", atStopLimit[T]},
		{"Rows/handover", handover[T]},
		{"Rows/Fresh", freshness[T]},
		{"Rows/lanes in every state", rowStates[T]},
	}
}

// atBreaks checks to the last bit when f is evaluated around its jumps.
func atBreaks[T backend.Float](s *suite[T]) {
	f := s.timeField()
	out := s.output("dz", 1, 1, 1, allRows)
	ctl := stock
	for _, sign := range []float64{1, -1} {
		tm := s.timer(1, backend.Span{
			T0: 0, H0: 1, Stops: []float64{sign, 2 * sign, 4 * sign}, Breaks: []float64{4 * sign, sign, 0},
		})
		beyond := func(t float64) float64 { return tm.ref.beyond(t, sign*math.Inf(1)) }
		before := func(t float64) float64 { return tm.ref.beyond(t, -sign*math.Inf(1)) }
		look := func(when string, rows backend.Rows, c, want float64) {
			at := tm.at(c, rows)
			f.Eval(out.v, at, tm.y)
			tm.ref.evaluated(rows)
			if got := float64(out.read("Eval")[0]); got != want {
				s.Errorf("Eval: %s, direction %g: c = %g is t = %.17g, want %.17g", when, sign, c, got, want)
			}
		}
		look("beginning on a break", backend.Stale, 0, beyond(0))
		look("ending on a break", backend.Running, 1, before(sign))
		look("between breaks", backend.Running, 0.5, 0.5*sign)
		tm.attempt(ctl, each(0.81)) // on with h = 1
		look("accepted between breaks", backend.Accepted, 0, beyond(0))
		look("accepted between breaks", backend.Accepted, 1, before(sign))
		look("next from a break", backend.Stale, 0, beyond(sign)) // stale though the last stage was handed on
		look("to a stop that is none", backend.Running, 1, 2*sign)
		tm.attempt(ctl, each(4)) // rejected
		look("again from a break", backend.Running, 0, beyond(sign))
		tm.attempt(ctl, each(0.01))
		look("between", backend.Running, 0, float64(T(tm.lanes()[0].T)))
		tm.verify("Eval")
	}
}

// atRoundedBreaks has breaks between two numbers of type float32, which rounding moves
// to the wrong side or leaves.
func atRoundedBreaks[T backend.Float](s *suite[T]) {
	f := s.timeField()
	out := s.output("dz", 1, 1, 1, allRows)
	for _, fraction := range []float64{0.25, 0.75} {
		for _, sign := range []float64{1, -1} {
			stop := sign * (1 + fraction*0x1p-23)
			tm := s.timer(1, backend.Span{H0: 2, Stops: []float64{stop, 3 * sign}, Breaks: []float64{stop}})
			look := func(when string, rows backend.Rows, c, dir float64) {
				f.Eval(out.v, tm.at(c, rows), tm.y)
				if got := float64(out.read("Eval")[0]); !(dir*sign*(got-stop) > 0) || math.Abs(got-stop) > 0x1p-23 {
					s.Errorf("Eval: %s the break at %.17g, t is %.17g", when, stop, got)
				}
			}
			look("ending on", backend.Running, 1, -1)
			tm.attempt(stock, each(0.5))
			look("beginning on", backend.Running, 0, 1)
			look("having ended on", backend.Accepted, 1, -1)
		}
	}
}

// atStopLimit checks that a step that lands ends on the stop to the last bit, or just
// short of it where f jumps there, on whichever side of it t+h is.
func atStopLimit[T backend.Float](s *suite[T]) {
	f := s.timeField()
	out := s.output("dz", 1, 1, 1, allRows)
	for _, side := range []float64{1, -1} {
		t0, stop := s.inexactLanding(side)
		for _, sign := range []float64{1, -1} {
			for _, breaks := range [][]float64{nil, {sign * stop}} {
				tm := s.timer(1, backend.Span{T0: sign * t0, H0: 2, Stops: []float64{sign * stop, 5 * sign}, Breaks: breaks})
				want := T(sign * stop)
				if breaks != nil {
					want = T(tm.ref.beyond(sign*stop, -sign*math.Inf(1)))
				}
				look := func(when string, rows backend.Rows) {
					f.Eval(out.v, tm.at(1, rows), tm.y)
					if got := out.read("Eval")[0]; got != want {
						s.Errorf("Eval: %s a step from %.17g to %.17g with breaks %g, t is %.17g, want %.17g",
							when, sign*t0, sign*stop, breaks, got, want)
					}
				}
				look("at the end of", backend.Running)
				tm.attempt(stock, each(0.5))
				look("at the end of, accepted,", backend.Accepted)
				// A step that lands nowhere ends where t will be.
				want = T(tm.lanes()[0].T + tm.lanes()[0].H)
				look("at the end of the one after", backend.Running)
			}
		}
	}
}

// handover checks which first stages are stale after an attempt, as counted
// evaluations tell.
func handover[T backend.Float](s *suite[T]) {
	f := s.timeField()
	stale := func(tm *timer[T], out *operand[T]) bool {
		before := tm.lanes()[0].Evaluations
		f.Eval(out.v, tm.at(0, backend.Stale), tm.y)
		return tm.lanes()[0].Evaluations > before
	}
	out := s.output("dz", 1, 1, 1, allRows)
	for _, c := range []struct {
		name          string
		hand          backend.Handover
		plain, saving bool
	}{
		{"HandNothing", backend.HandNothing, true, true},
		{"HandLast", backend.HandLast, false, false},
		{"HandSaving", backend.HandSaving, true, false},
	} {
		check := func(when string, got, want bool) {
			if got != want {
				s.Errorf("Advance: %s: first stage stale %s: %v, want %v", c.name, when, got, want)
			}
		}
		ctl := stock
		ctl.Handover = c.hand
		tm := s.timer(1, backend.Span{H0: 1, Saves: []float64{1.5}, Stops: []float64{2, 3, 9}, Breaks: []float64{3}})
		check("at the start", stale(tm, out), true)
		tm.attempt(ctl, each(4))
		check("after a rejection", stale(tm, out), false)
		tm.start(tm.ref.spans...)
		tm.attempt(ctl, each(0.81))
		check("after a step without an output", stale(tm, out), c.plain)
		tm.attempt(ctl, each(0.81))
		check("after a step with an output inside", stale(tm, out), c.saving)
		tm.attempt(ctl, each(0.81))
		check("on a break", stale(tm, out), true)
		// An output at the very end of a step is not inside it.
		tm.start(backend.Span{H0: 1, Saves: []float64{1}, Stops: []float64{1, 9}})
		tm.attempt(ctl, each(0.81))
		check("after a step with an output at its end", stale(tm, out), c.plain)
	}
}

// freshness checks which accepted steps have a first stage of their own, worked out by
// hand, in one lane and in the middle one of three.
func freshness[T backend.Float](s *suite[T]) {
	const (
		accept = iota
		reject
		propose
		store
		add
		load
	)
	f := s.timeField()
	plain := backend.Span{H0: 1, Saves: []float64{1.5}, Stops: []float64{1, 2, 9}}
	broken := plain
	broken.Breaks = []float64{0, 2}
	none := plain
	none.Blocks = []int{5, -1, 0}
	for _, c := range []struct {
		name  string
		hand  backend.Handover
		span  backend.Span
		do    []int
		fresh string // after each accept and reject
	}{
		{"HandLast", backend.HandLast, plain, []int{accept, accept, accept}, "x--"},
		{"HandSaving", backend.HandSaving, plain, []int{accept, accept, accept}, "xx-"},
		{"HandNothing", backend.HandNothing, plain, []int{accept, accept, accept}, "xxx"},
		{"rejected at first", backend.HandLast, plain, []int{reject, reject, accept, accept}, "--x-"},
		{"rejected later", backend.HandLast, plain, []int{accept, reject, accept}, "x--"},
		{"rejected after HandNothing", backend.HandNothing, plain, []int{accept, reject, accept}, "x-x"},
		{"first step proposed", backend.HandLast, plain, []int{propose, accept, accept}, "x-"},
		{"breaks at T0 and 2", backend.HandLast, broken, []int{accept, accept, accept, accept}, "x-x-"},
		{"rejected behind a break", backend.HandLast, broken, []int{accept, accept, reject, accept, accept}, "x--x-"},
		{"Store", backend.HandLast, plain, []int{accept, store, accept}, "x-"},
		{"Add", backend.HandLast, plain, []int{accept, add, accept, accept}, "xx-"},
		{"Load", backend.HandLast, plain, []int{accept, load, accept, accept}, "xx-"},
		{"Load, then rejected", backend.HandLast, plain, []int{accept, load, reject, accept, accept}, "x-x-"},
		{"Load away from stops", backend.HandLast, plain, []int{accept, accept, accept, load, accept}, "x---"},
		{"Load without a block", backend.HandLast, none, []int{accept, load, accept, load, accept}, "x--"},
	} {
		for _, lanes := range []int{1, 3} {
			ctl := stock
			ctl.Handover = c.hand
			tm := s.timer(lanes, c.span)
			y, table := s.operand("y", 1, lanes, 1), s.operand("table", 3, lanes, 1)
			n, mine := 0, lanes/2
			for i, do := range c.do {
				switch do {
				case propose:
					s.ProposeStep(tm.clk, y.v, y.v, nil, 1, errorTol)
					for l := range tm.ref.lanes {
						tm.ref.propose(&tm.ref.lanes[l], 0.01) // as y is f0
					}
				case store, add, load:
					s.AtStop(tm.clk, []backend.StopOp{backend.Store, backend.Add, backend.Load}[do-store], y.v, table.v)
				default:
					tm.attempt(ctl, func(lane int) float64 { // the others reject everything
						if lane == mine && do == accept {
							return 0.81
						}
						return 2
					})
					before := tm.lanes()[mine].Evaluations
					out := s.output("dz", 1, lanes, 1, func(row int) bool { return row == mine && c.fresh[n] == 'x' })
					f.Eval(out.v, tm.at(0, backend.Fresh), y.v)
					got := tm.lanes()[mine].Evaluations > before
					if got != (c.fresh[n] == 'x') {
						s.Errorf("Rows Fresh: %s, %d lanes: after %v it selects the lane: %v", c.name, lanes, c.do[:i+1], got)
					}
					for r, v := range out.read("Eval at Fresh") {
						if r != mine && !sameBits(v, out.host[r]) {
							s.Errorf("Rows Fresh: %s: row %d is written, whose step was rejected", c.name, r)
						}
					}
					n++
				}
			}
		}
	}
}

// rowStates checks which lanes each selection has, in every state.
func rowStates[T backend.Float](s *suite[T]) {
	f := s.timeField()
	want := map[backend.Rows]string{ // by kind of lane
		backend.Running:  "-xx-x",
		backend.Stale:    "--x--",
		backend.Accepted: "xxx--",
		backend.Saving:   "xx---",
		backend.Fresh:    "--x--",
	}
	for rows, pattern := range want {
		const lanes = 2*kinds + 1
		tm := s.scene(lanes, 0)
		written := func(row int) bool { return pattern[row%kinds] == 'x' }
		out := s.output("dz", 1, lanes, 1, written)
		at := tm.at(0.5, rows)
		f.Eval(out.v, at, tm.y)
		out.expect(fmt.Sprintf("Eval at Rows %d", rows), written, func(row int) num {
			return s.round(tm.instant(row, at))
		})
	}
}
