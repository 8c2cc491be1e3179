package backendtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// sequenceCases run random sequences of error ratio and Advance through the backend
// and the reference, and compare all that a clock decides: lanes, progress, which rows
// each selection has, their instants and sizes, outputs, stops and tapes.
func sequenceCases[T backend.Float]() (all []testCase[T]) {
	for i := range 12 {
		all = append(all,
			testCase[T]{fmt.Sprintf("Advance/random sequence %d", i), func(s *suite[T]) {
				sequence(s.course([]int{1, 2, 5}[s.rng.IntN(3)], s.randomSpan()))
			}},
			testCase[T]{fmt.Sprintf("Advance/random sequence %d, own spans", i), func(s *suite[T]) {
				lanes := []int{2, 3, 7}[s.rng.IntN(3)]
				sequence(s.course(lanes, s.randomSpans(lanes)...))
			}})
	}
	return all
}

// randomSpan draws a span with what a span can have.
func (s *suite[T]) randomSpan() backend.Span {
	r := s.rng
	span := backend.Span{T0: r.NormFloat64(), H0: math.Exp(r.NormFloat64() - 2)}
	sign := float64(1 - 2*r.IntN(2))
	times := func(n int, from float64) (ts []float64) {
		for range n {
			ts = append(ts, from+sign*(0.01+3*r.Float64()))
		}
		slices.Sort(ts)
		if sign < 0 {
			slices.Reverse(ts)
		}
		return ts
	}
	span.Stops = times(1+r.IntN(4), span.T0)
	for _, t := range times(r.IntN(6), span.T0) {
		if sign*(span.Stops[len(span.Stops)-1]-t) > 0 {
			span.Saves = append(span.Saves, t)
		}
	}
	span.Saves = append(span.Saves, span.Stops[len(span.Stops)-1])
	for _, t := range append([]float64{span.T0}, span.Stops...) {
		if r.IntN(3) == 0 {
			span.Breaks = append(span.Breaks, t)
		}
	}
	if r.IntN(2) == 0 {
		for range span.Stops {
			span.Blocks = append(span.Blocks, r.IntN(6)-1)
		}
	}
	if r.IntN(3) == 0 {
		span.MaxStep = 0.1 + r.Float64()
	}
	return span
}

// randomControl draws a controller.
func (s *suite[T]) randomControl() backend.Control {
	r := s.rng
	k := float64(2 + r.IntN(5))
	betas := [][3]float64{{1, 0, 0}, {0.85, -0.2, 0}, {0.49, -0.34, 0.10}}
	c := backend.Control{
		Fixed: r.IntN(4) == 0, Order: k, Beta: betas[r.IntN(3)], Safety: 0.7 + 0.25*r.Float64(),
		MinFactor: 0.1 + 0.2*r.Float64(), MaxFactor: 2 + 8*r.Float64(),
		Handover: backend.Handover(r.IntN(3)),
	}
	for i := range c.Beta {
		c.Beta[i] /= k
	}
	if r.IntN(3) == 0 {
		c.MinStep = 1e-3
	}
	if r.IntN(4) == 0 {
		c.MaxAttempts = int64(3 + r.IntN(10))
	}
	return c
}

func (s *suite[T]) randomRatio(fixed bool) float64 {
	switch p := s.rng.IntN(20); {
	case p == 0:
		return math.NaN()
	case p == 1:
		return math.Inf(1)
	case p == 2:
		return 0
	case p < 5 && !fixed:
		return math.Exp(5 * s.rng.Float64()) // above 1
	}
	return math.Exp(-10 * s.rng.Float64())
}

// randomSpans draws a span for each lane, some of length 0.
func (s *suite[T]) randomSpans(lanes int) []backend.Span {
	spans := make([]backend.Span, lanes)
	row := s.rng.IntN(2)
	for _, i := range s.rng.Perm(lanes) {
		spans[i] = s.randomSpan()
		if s.rng.IntN(6) == 0 {
			t := s.rng.NormFloat64()
			spans[i] = backend.Span{T0: t, H0: 1, Stops: []float64{t}, Breaks: []float64{t}}
		}
		switch s.rng.IntN(3) {
		case 0:
			spans[i].Tol = backend.Tolerance{Abs: math.Exp(s.rng.NormFloat64())}
		case 1:
			spans[i].Tol = backend.Tolerance{Abs: s.rng.Float64(), Rel: 1 + s.rng.Float64()}
		}
		spans[i].Row = row
		row += len(spans[i].Saves) + s.rng.IntN(2)
	}
	return spans
}

// course is a clock on its way, with what shows what it is at.
type course[T backend.Float] struct {
	*timer[T]
	f            backend.Field[T] // f = t
	ctl          backend.Control
	zero, one    *operand[T]
	table, stops *operand[T]
}

func (s *suite[T]) course(lanes int, spans ...backend.Span) *course[T] {
	s.Helper()
	c := &course[T]{
		timer: s.timer(lanes, spans...), f: s.timeField(), ctl: s.randomControl(),
		zero: s.input("zero", 1, lanes, 1, make([]T, lanes)), one: s.input("one", 1, lanes, 1, fill[T](lanes, 1)),
	}
	if c.ref.own() {
		rows := 0
		for i := range spans {
			rows = max(rows, spans[i].Row+len(spans[i].Saves))
		}
		c.table, c.stops = s.operand("table", 1, rows+1, 1), s.operand("stops", 1, 4, 1)
	} else {
		c.table, c.stops = s.operand("table", len(spans[0].Saves), lanes, 1), s.operand("stops", 4, lanes, 1)
	}
	return c
}

// random makes an attempt of random outcome.
func (c *course[T]) random() {
	c.attempt(c.ctl, func(int) float64 { return c.s.randomRatio(c.ctl.Fixed) })
}

// look checks every selection from first on, which they are, when and how far they
// step, and the outputs and stops of the steps accepted. verb is what came before.
func (c *course[T]) look(verb string, first backend.Rows) {
	s := c.s
	s.Helper()
	for rows := first; rows <= backend.Fresh; rows++ {
		at, written := c.at(float64(s.rng.IntN(3))/2, rows), c.ref.selected(rows)
		out := s.output("dst", 1, c.zero.rows, 1, written)
		c.f.Eval(out.v, at, c.zero.v)
		c.ref.evaluated(rows)
		out.expect(fmt.Sprintf("%s, then Eval at Rows %d", verb, rows), written, func(r int) num {
			t := s.round(c.instant(r, at))
			return num{t.v, t.e + c.slack()}
		})
		out.blank(written)
		s.Combine(out.v, c.zero.v, at, []float64{1}, []backend.Vec[T]{c.one.v})
		out.expect(fmt.Sprintf("%s, then Combine at Rows %d", verb, rows), written, func(r int) num {
			h := s.round(c.size(r, at))
			return num{h.v, h.e + 1e-10*math.Abs(h.v)}
		})
	}

	// f = 1 makes the interpolant t - t0 of the step.
	want := c.table.nums()
	c.outputs(c.table, func(_ int, l *refLane, t float64, at int) {
		want[at] = num{t - l.took.t, 4*s.u*math.Abs(t-l.took.t) + c.slack()}
		if t == l.end {
			want[at] = exact(1.)
		}
	})
	s.Save(c.clk, [][]float64{{1}}, c.zero.v, c.one.v, []backend.Vec[T]{c.one.v}, c.table.v)
	c.table.expect(verb+", then Save", allRows, func(i int) num { return want[i] })
	c.table.set(s.random(len(c.table.host)))

	want = c.stops.nums()
	c.timer.stops(c.stops, func(_, at int) { want[at] = exact(1.) })
	s.AtStop(c.clk, backend.Store, c.one.v, c.stops.v)
	c.stops.expect(verb+", then AtStop", allRows, func(i int) num { return want[i] })
	c.stops.set(s.random(len(c.stops.host)))
}

func sequence[T backend.Float](c *course[T]) {
	s, lanes := c.s, len(c.ref.lanes)
	tape := s.newTape(lanes, lanes, 1, 1)
	pushed := make([][]refStep, lanes)
	c.verify(fmt.Sprintf("Start with %+v", c.ref.spans))
	c.look("Start", backend.Running)
	for attempt := range 15 {
		verb := fmt.Sprintf("Advance: attempt %d over %+v with %+v", attempt, c.ref.spans, c.ctl)
		c.random()
		c.verify(verb)
		c.look(verb, backend.Running)
		s.Push(c.clk, tape, []backend.Vec[T]{c.one.v})
		for i := range pushed {
			if l := &c.ref.lanes[i]; l.accepted {
				pushed[i] = append(pushed[i], l.took)
			}
		}
	}
	c.verify("Advance")
	for i, steps := range pushed {
		if tape.Len(i) != len(steps) {
			s.fatalf("Tape.Len(%d) is %d, want %d", i, tape.Len(i), len(steps))
		}
		for j, st := range steps {
			t, h, err := s.ReadTape(tape, i, j, make([]T, 1))
			s.noError("ReadTape", err)
			if math.Abs(t-st.t) > c.slack() || !closeTo(h, st.h, 1e-10) {
				s.Errorf("ReadTape: lane %d, step %d is t = %g, h = %g, want %g, %g", i, j, t, h, st.t, st.h)
			}
		}
	}
}
