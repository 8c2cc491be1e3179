package backendtest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// reserveCases are those of a [backend.Reverser] about memory and about copies of
// clocks.
func reserveCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"Reset/empties", resetEmpties[T]},
		{"Reserve/what it needs", reserveNeeds[T]},
		{"Reserve/then Push", reservePush[T]},
		{"Reserve/too large", reserveTooLarge[T]},
		{"CopyClock/goes on bit for bit", copyClockContinues[T]},
		{"CopyClock/keeps its own spans", copyClockSpans[T]},
		{"CopyClock/what was accepted", copyClockAccepted[T]},
	}
}

// polled waits for what was enqueued and returns the length of a tape.
func (j *journey[T]) polled(lane int) int {
	j.s.Helper()
	_, err := j.s.Poll(j.clk)
	j.s.noError("Poll", err)
	return j.tape.Len(lane)
}

func resetEmpties[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 3} {
		j := s.journey(lanes, backend.Span{H0: 1, Stops: []float64{1000}})
		j.ctl = stock
		fill := func() {
			for range 20 {
				j.attempt(each(0.81), true)
			}
		}
		j.rev.Reset(j.tape) // of one that is empty
		fill()
		if n := j.polled(lanes - 1); n != 20 {
			s.fatalf("Tape.Len is %d, want 20", n)
		}
		// A backend may keep what reading takes.
		kept := j.past[len(j.past)-1].kept[0]
		_, _, err := s.ReadTape(j.tape, lanes-1, 19, make([]T, len(j.keep)*len(kept)/lanes))
		s.noError("ReadTape", err)
		used := s.MemoryUsed()
		for range 3 {
			j.rev.Reset(j.tape)
			if n := j.polled(lanes - 1); n != 0 {
				s.Errorf("Reset: Tape.Len is %d after it", n)
			}
			if now := s.MemoryUsed(); now != used {
				s.Errorf("MemoryUsed: %d bytes before Reset, %d after it", used, now)
			}
			fill()
			if n := j.polled(lanes - 1); n != 20 {
				s.fatalf("Tape.Len is %d after Reset and 20 steps", n)
			}
			if now := s.MemoryUsed(); now != used {
				s.Errorf("MemoryUsed: %d bytes before Reset, %d after it and as many steps as before", used, now)
			}
			last := &j.past[len(j.past)-1]
			step := make([]T, len(j.keep)*len(last.kept[0])/lanes)
			t, h, err := s.ReadTape(j.tape, lanes-1, 19, step)
			s.noError("ReadTape", err)
			if took := last.took[lanes-1].took; math.Abs(t-took.t) > j.slack() || !closeTo(h, took.h, rel) {
				s.Errorf("ReadTape after Reset: t = %g, h = %g, want %g, %g", t, h, took.t, took.h)
			}
			n := len(step) / 2
			for i, kept := range last.kept {
				s.equalBits("ReadTape after Reset", step[i*n:(i+1)*n], kept[(lanes-1)*n:lanes*n], "was pushed")
			}
		}
	}
}

// reserveNeeds checks that memory follows the number of steps, up and down.
func reserveNeeds[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	var x T
	const rows, cols, keep, many = 5, 20, 3, 1000
	for _, lanes := range []int{1, rows} {
		tape := s.newTape(lanes, rows, cols, keep)
		reserve := func(steps int) int64 {
			s.Helper()
			before := s.MemoryUsed()
			s.noError("Reserve", rev.Reserve(tape, steps))
			return s.MemoryUsed() - before
		}
		reserve(0)
		data := int64(many * rows * cols * keep * int(unsafe.Sizeof(x)))
		if grown := reserve(many); grown < data {
			s.Errorf("Reserve: %d bytes for %d steps of %d lanes, which hold %d", grown, many, lanes, data)
		}
		if grown := reserve(many); grown != 0 {
			s.Errorf("Reserve: %d bytes more for as many steps", grown)
		}
		shrunk := reserve(1)
		if shrunk > -data/2 {
			s.Errorf("Reserve: %d bytes for 1 step after %d, %d of which are data", shrunk, many, data)
		}
		if grown := reserve(many); grown != -shrunk {
			s.Errorf("Reserve: %d bytes for %d steps, where %d were given back", grown, many, -shrunk)
		}
	}
}

// reservePush checks that steps within the reserve take no memory, those beyond it
// do, and that it must be empty.
func reservePush[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 3} {
		j := s.journey(lanes, backend.Span{H0: 1, Saves: []float64{1.5, 7.25, 39.3}, Stops: []float64{60, 1000}})
		j.ctl = stock
		const steps = 37
		for range 2 {
			s.noError("Reserve", j.rev.Reserve(j.tape, steps))
			used := s.MemoryUsed()
			for range steps {
				j.attempt(each(0.81), true)
			}
			if n := j.polled(lanes - 1); n != steps {
				s.fatalf("Tape.Len is %d, want %d", n, steps)
			}
			if now := s.MemoryUsed(); now != used {
				s.Errorf("MemoryUsed: %d bytes after Reserve, %d after that many steps", used, now)
			}
			s.panics("Reserve of a tape that is not empty", func() { _ = j.rev.Reserve(j.tape, 1) })
			j.aside(func() { j.back(len(j.past), len(j.past)-steps-1, nil) })
			j.rev.Reset(j.tape)
			for i := range j.past {
				j.past[i].pushed = false
			}
			if n := j.polled(0); n != 0 {
				s.fatalf("Tape.Len is %d after Reset", n)
			}
		}
		s.noError("Reserve", j.rev.Reserve(j.tape, 1))
		for range 5 {
			j.attempt(each(0.81), true)
		}
		j.back(len(j.past), len(j.past)-6, nil)
	}
}

func reserveTooLarge[T backend.Float](s *suite[T]) {
	s.reverser()
	j := s.journey(2, backend.Span{H0: 1, Stops: []float64{9}})
	j.ctl = stock
	for _, tape := range []backend.Tape[T]{j.tape, s.newTape(2, 2, 3, 0)} {
		if err := j.rev.Reserve(tape, math.MaxInt/2); !errors.Is(err, backend.ErrOutOfMemory) {
			s.Errorf("Reserve of %d steps: %v, want ErrOutOfMemory", math.MaxInt/2, err)
		}
	}
	j.attempt(each(0.5), true) // still usable
	j.back(1, 0, nil)
}

// sameLane compares to the last bit, but that NaN is NaN.
func sameLane(a, b backend.Lane) bool {
	if math.IsNaN(a.Ratio) && math.IsNaN(b.Ratio) {
		a.Ratio, b.Ratio = 0, 0
	}
	return a == b
}

// sameLanes checks that two clocks report the same to the last bit.
func sameLanes[T backend.Float](s *suite[T], verb string, a, b backend.Clock) {
	s.Helper()
	x, y := make([]backend.Lane, a.Lanes()), make([]backend.Lane, b.Lanes())
	s.noError("Lanes", s.Lanes(a, x))
	s.noError("Lanes", s.Lanes(b, y))
	for i := range x {
		if !sameLane(x[i], y[i]) {
			s.Errorf("%s: lane %d is\n%+v, want\n%+v", verb, i, x[i], y[i])
		}
	}
}

// copyClockContinues copies a clock on its way, to one that was never started and to
// one that was, and goes on with all.
func copyClockContinues[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	for _, own := range []bool{false, true} {
		for _, lanes := range []int{1, 2, 7} {
			spans := []backend.Span{s.randomSpan()}
			if own {
				spans = s.randomSpans(lanes)
			}
			c := s.course(lanes, spans...)
			for range 4 {
				c.random()
			}
			store, twin := s.newClock(lanes), s.timer(lanes, spans...)
			rev.CopyClock(store, c.clk)
			rev.CopyClock(twin.clk, c.clk)
			sameLanes(s, "CopyClock to a clock that was never started", store, c.clk)
			sameLanes(s, "CopyClock to a clock that was started", twin.clk, c.clk)
			then := slices.Clone(c.ref.lanes)

			// What the clock went on to, the twin and the clock set back must too.
			var after []backend.Clock
			var ratios [][]float64
			replay := func(t *timer[T], verb string) {
				for n := range after {
					t.attempt(c.ctl, func(lane int) float64 { return ratios[n][lane] })
					t.verify(verb)
					sameLanes(s, fmt.Sprintf("%s: attempt %d", verb, n), t.clk, after[n])
				}
			}
			for range 5 {
				r := make([]float64, lanes)
				for i := range r {
					r[i] = s.randomRatio(c.ctl.Fixed)
				}
				ratios = append(ratios, r)
				c.attempt(c.ctl, func(lane int) float64 { return r[lane] })
				shot := s.newClock(lanes)
				rev.CopyClock(shot, c.clk)
				after = append(after, shot)
			}
			copy(twin.ref.lanes, then)
			for i := range then {
				twin.ref.lanes[i].acceptedSizes = slices.Clone(then[i].acceptedSizes)
				twin.ref.lanes[i].past = slices.Clone(then[i].past)
			}
			replay(twin, "a copy goes on")
			for range 2 {
				rev.CopyClock(c.clk, store)
				for i := range then {
					l := &c.ref.lanes[i]
					*l = then[i]
					l.acceptedSizes, l.past = slices.Clone(l.acceptedSizes), slices.Clone(l.past)
				}
				c.verify("CopyClock")
				replay(c.timer, "a clock set back goes on")
			}
			rev.CopyClock(c.clk, c.clk)
			c.verify("CopyClock of a clock to itself")
		}
	}
}

// copyClockSpans: the lanes are copied, the spans stay.
func copyClockSpans[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	src := s.timer(2, backend.Span{H0: 1, Stops: []float64{100}})
	dst := s.timer(2, backend.Span{H0: 9, MaxStep: 1.25, Stops: []float64{100}})
	src.attempt(stock, each(0.25)) // on with 1.8
	rev.CopyClock(dst.clk, src.clk)
	src.start(backend.Span{H0: 3, Stops: []float64{-1}})
	for i := range dst.ref.lanes {
		l := &dst.ref.lanes[i]
		span := l.span
		*l = refLane{span: span, t: 1, step: refStep{t: 1, h: 1.8, lo: math.Inf(-1), hi: math.Inf(1)}, size: 1.8,
			past: []float64{0.25}, numAccepted: 1, acceptedSizes: []float64{1}}
	}
	if l := dst.lanes()[0]; l.T != 1 || !closeTo(l.H, 1.8, 16*s.u) || l.Accepted != 1 {
		s.fatalf("CopyClock: %+v, want t = 1, h = 1.8", l)
	}
	dst.attempt(stock, each(0.81))
	if l := dst.lanes()[1]; !closeTo(l.T, 2.8, 16*s.u) || l.H != 1.25 {
		s.Errorf("CopyClock: t = %g, h = %g after a step of 1.8, want 2.8 and MaxStep 1.25", l.T, l.H)
	}
}

// copyClockAccepted: selections of the last attempt come along.
func copyClockAccepted[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	for _, lanes := range []int{1, 5} {
		spans := []backend.Span{s.randomSpan()}
		if lanes > 1 {
			spans = s.randomSpans(lanes)
		}
		c := s.course(lanes, spans...)
		store := s.newClock(lanes)
		for range 6 {
			c.random()
			rev.CopyClock(store, c.clk)
			took := slices.Clone(c.ref.lanes)
			c.start(spans...)
			rev.CopyClock(c.clk, store)
			copy(c.ref.lanes, took)
			c.look("CopyClock", backend.Running)
			c.verify("CopyClock")
		}
	}
}
