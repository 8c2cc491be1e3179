package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// cutCases are those of a [backend.Cutter].
func cutCases[T backend.Float]() (all []testCase[T]) {
	for i := range 8 {
		all = append(all,
			testCase[T]{fmt.Sprintf("Cut/random sequence %d", i), func(s *suite[T]) {
				cutSequence(s, []int{1, 2, 5}[s.rng.IntN(3)], s.randomSpan())
			}},
			testCase[T]{fmt.Sprintf("Cut/random sequence %d, own spans", i), func(s *suite[T]) {
				lanes := []int{2, 3, 7}[s.rng.IntN(3)]
				cutSequence(s, lanes, s.randomSpans(lanes)...)
			}},
			testCase[T]{fmt.Sprintf("Cut/then back over random sequence %d", i), func(s *suite[T]) {
				s.cutter()
				j := s.journey(3, s.randomSpan())
				j.cut = true
				reverseAll(j)
			}})
	}
	return append(all, testCase[T]{"Cut/worked out by hand", cutByHand[T]})
}

// cut ends the step that the lane has just taken at t, which is its end if atEnd.
func (c *refClock) cut(l *refLane, t float64, atEnd bool, status backend.Status, fixed bool) {
	l.moved()
	if !atEnd {
		if l.took.lands {
			l.stopsBehind--
		}
		l.t, l.end, l.block, l.inside = t, t, -1, false
		l.lastJumped = l.jumps(t)
		l.savesBehind -= len(l.outputs)
		l.outputs = nil
		for l.savesBehind < len(l.span.Saves) {
			x := l.span.Saves[l.savesBehind]
			if l.took.backward && x < t || !l.took.backward && x > t {
				break
			}
			l.outputs = append(l.outputs, l.savesBehind)
			l.inside = l.inside || x != t
			l.savesBehind++
		}
		if l.status == backend.Done {
			l.status = backend.StatusRunning
		}
	}
	switch {
	case status != backend.StatusRunning:
		l.status = status
	case l.status == backend.StatusRunning:
		stretch := 1.01
		if fixed {
			stretch = 1 + 1e-8
		}
		c.aim(l, l.size, stretch)
	}
}

// cutSome cuts about half of the steps just taken: somewhere, on an output, or at the
// end; some of the lanes end with it.
func (c *course[T]) cutSome() {
	s, n := c.s, len(c.ref.lanes)
	s.Helper()
	times, status := make([]float64, n), make([]backend.Status, n)
	for i, lane := range c.lanes() {
		l := &c.ref.lanes[i]
		times[i] = math.NaN()
		if s.rng.IntN(2) == 0 {
			continue
		}
		status[i] = []backend.Status{backend.StatusRunning, backend.StatusRunning, backend.StatusRunning, backend.Stopped, backend.NotFinite}[s.rng.IntN(5)]
		atEnd := s.rng.IntN(4) == 0
		switch {
		case !l.accepted:
			times[i] = l.t // has no effect
			continue
		case atEnd:
			times[i] = lane.T // of the device, whose rounding it shares
		case l.inside && s.rng.IntN(2) == 0:
			times[i] = l.span.Saves[l.outputs[0]]
		default:
			times[i] = l.took.t + (0.05+0.9*s.rng.Float64())*l.took.h
		}
		c.ref.cut(l, times[i], atEnd, status[i], c.ctl.Fixed)
	}
	s.cutter().Cut(c.clk, times, status)
	for i := range times { // they were read
		times[i], status[i] = 0, backend.Cancelled
	}
}

func cutSequence[T backend.Float](s *suite[T], lanes int, spans ...backend.Span) {
	s.cutter()
	c := s.course(lanes, spans...)
	for attempt := range 15 {
		c.random()
		c.cutSome()
		verb := fmt.Sprintf("Cut: attempt %d over %+v with %+v", attempt, c.ref.spans, c.ctl)
		c.verify(verb)
		c.look(verb, backend.Running)
	}
}

// cutByHand cuts one step that ends on a stop.
func cutByHand[T backend.Float](s *suite[T]) {
	cut := s.cutter()
	tm := s.timer(1, backend.Span{H0: 1, Saves: []float64{0.25, 0.5, 0.75, 2}, Stops: []float64{1, 2}})
	y0, y1, k := s.input("y0", 1, 1, 1, []T{0}), s.input("y1", 1, 1, 1, []T{7}), s.input("k", 1, 1, 1, []T{1})
	table, stops := s.operand("table", 4, 1, 1), s.operand("stops", 2, 1, 1)
	// save checks what the step just taken writes: f = 1 makes the interpolant x·h, and
	// what a step ends with is 7.
	save := func(verb string, at map[int]float64, stop int) {
		s.Helper()
		want, reached := table.nums(), stops.nums()
		for i, v := range at {
			want[i] = exact(v)
		}
		s.Save(tm.clk, [][]float64{{1}}, y0.v, y1.v, []backend.Vec[T]{k.v}, table.v)
		table.expect(verb+", then Save", allRows, func(i int) num { return want[i] })
		if stop >= 0 {
			reached[stop] = exact(7.)
		}
		s.AtStop(tm.clk, backend.Store, y1.v, stops.v)
		stops.expect(verb+", then AtStop", allRows, func(i int) num { return reached[i] })
		table.set(s.random(len(table.host)))
		stops.set(s.random(len(stops.host)))
	}
	is := func(verb string, want backend.Lane) {
		s.Helper()
		got := tm.lanes()[0]
		if got.Status != want.Status || got.T != want.T || got.H != want.H || got.LastH != want.LastH || got.Accepted != want.Accepted {
			s.Errorf("%s: the lane is %+v, want %+v", verb, got, want)
		}
	}
	// An error of 0.81 keeps the size: 0.9/√0.81 = 1.
	tm.attempt(stock, each(0.81))
	cut.Cut(tm.clk, []float64{0.5}, []backend.Status{backend.StatusRunning})
	is("Cut at 0.5", backend.Lane{T: 0.5, H: 0.5, LastH: 1, Accepted: 1})
	save("Cut at 0.5", map[int]float64{0: 0.25, 1: 7}, -1)
	tm.ref.cut(&tm.ref.lanes[0], 0.5, false, backend.StatusRunning, false)
	tm.attempt(stock, each(0))
	is("the attempt after it", backend.Lane{T: 1, H: 1, LastH: 0.5, Accepted: 2})
	save("the attempt after it", map[int]float64{2: 0.25}, 0)
	tm.attempt(stock, each(0))
	is("the last attempt", backend.Lane{Status: backend.Done, T: 2, H: 1, LastH: 1, Accepted: 3})
	cut.Cut(tm.clk, []float64{1.75}, []backend.Status{backend.Stopped})
	is("Cut at 1.75", backend.Lane{Status: backend.Stopped, T: 1.75, H: 1, LastH: 1, Accepted: 3})
	save("Cut at 1.75", nil, -1)
	if p, err := s.Poll(tm.clk); err != nil || p.Running != 0 || p.Failed != 0 {
		s.Errorf("Cut at 1.75: Poll says %+v, %v of a lane that was stopped", p, err)
	}
	tm.s.Advance(tm.clk, stock)
	is("Advance after that", backend.Lane{Status: backend.Stopped, T: 1.75, H: 1, LastH: 1, Accepted: 3})
}

// misuseCutter is misuseShapes and misuseForeign for Cut.
func misuseCutter[T backend.Float](s *suite[T]) {
	cut := s.cutter()
	clk := s.fresh(2).clk
	s.panics("Cut with one time for 2 lanes", func() { cut.Cut(clk, make([]float64, 1), make([]backend.Status, 2)) })
	s.panics("Cut with one status for 2 lanes", func() { cut.Cut(clk, make([]float64, 2), make([]backend.Status, 1)) })
	s.panics("Cut of another backend's clock", func() {
		other := s.open()
		defer other.Close()
		foreign, err := other.NewClock(1)
		s.noError("NewClock", err)
		defer foreign.Close()
		cut.Cut(foreign, make([]float64, 1), make([]backend.Status, 1))
	})
}
