package backendtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// reverseCases are those of Rewind and Back of a [backend.Reverser].
func reverseCases[T backend.Float]() (all []testCase[T]) {
	for i := range 8 {
		all = append(all,
			testCase[T]{fmt.Sprintf("Back/random sequence %d", i), func(s *suite[T]) {
				s.reverser()
				reverseAll(s.journey([]int{1, 2, 5}[s.rng.IntN(3)], s.randomSpan()))
			}},
			testCase[T]{fmt.Sprintf("Back/random sequence %d, own spans", i), func(s *suite[T]) {
				s.reverser()
				lanes := []int{2, 3, 7}[s.rng.IntN(3)]
				reverseAll(s.journey(lanes, s.randomSpans(lanes)...))
			}})
	}
	return append(all,
		testCase[T]{"Back/worked out by hand", backByHand[T]},
		testCase[T]{"Back/the instants of a step to the last bit", backInstants[T]},
		testCase[T]{"Back/a tape that keeps nothing", backKeepsNothing[T]},
		testCase[T]{"Back/attempts that were not pushed", backGaps[T]},
		testCase[T]{"Rewind/from any attempt", rewindFrom[T]},
		testCase[T]{"Rewind/lanes left out", rewindSkip[T]},
		testCase[T]{"Rewind/one segment after the other", rewindSegments[T]},
		testCase[T]{"Rewind/several tapes", rewindTapes[T]},
	)
}

// journey is a course whose attempts are recorded, by the reference too.
type journey[T backend.Float] struct {
	*course[T]
	rev        backend.Reverser[T]
	rows, cols int
	tape       backend.Tape[T]
	past       []moment[T]
	keep       []backend.Vec[T] // what Push is given and Back sets
	kept       [2]*operand[T]
	cut        bool // some steps
}

// moment is what one attempt left.
type moment[T backend.Float] struct {
	took []refTook // by lane
	kept [2][]T
	// pushed: the attempt is on the tape.
	pushed bool
}

func (s *suite[T]) journey(lanes int, spans ...backend.Span) *journey[T] {
	s.Helper()
	j := &journey[T]{course: s.course(lanes, spans...), rev: s.reverser(), rows: lanes, cols: 3}
	if lanes == 1 {
		j.rows = 4
	}
	for i := range j.kept {
		j.kept[i] = s.operand(fmt.Sprintf("keep[%d]", i), 1, j.rows, j.cols)
		j.keep = append(j.keep, j.kept[i].v)
	}
	j.tape = j.newTape()
	return j
}

func (j *journey[T]) newTape() backend.Tape[T] {
	return j.s.newTape(len(j.ref.lanes), j.rows, j.cols, len(j.keep))
}

// attempt makes an attempt and notes it, on the tape if push.
func (j *journey[T]) attempt(ratio func(lane int) float64, push bool) {
	j.course.attempt(j.ctl, ratio)
	if j.cut {
		j.cutSome()
	}
	m := moment[T]{pushed: push}
	for i := range j.ref.lanes {
		m.took = append(m.took, j.ref.lanes[i].refTook)
	}
	for i, o := range j.kept {
		o.set(j.s.random(len(o.host)))
		m.kept[i] = o.host
	}
	if push {
		j.rev.Push(j.clk, j.tape, j.keep)
	}
	j.past = append(j.past, m)
}

func (j *journey[T]) random(attempts int) {
	for range attempts {
		j.attempt(func(int) float64 { return j.s.randomRatio(j.ctl.Fixed) }, true)
	}
}

// be makes the reference what it was after an attempt, counted from 1, in the lanes
// that were not skipped; there was none before the first.
func (j *journey[T]) be(attempt int, skip []bool) *moment[T] {
	m := &moment[T]{}
	if attempt >= 1 && attempt <= len(j.past) {
		m = &j.past[attempt-1]
	}
	for i := range j.ref.lanes {
		j.ref.lanes[i].refTook = nothing
		if m.pushed && (skip == nil || !skip[i]) {
			j.ref.lanes[i].refTook = m.took[i]
		}
	}
	return m
}

// back rewinds to behind attempt number last and goes back over it and those before it
// down to first, and checks all that the clock shows at each.
func (j *journey[T]) back(last, first int, skip []bool) {
	s := j.s
	s.Helper()
	before := slices.Clone(j.lanes())
	progress, err := s.Poll(j.clk)
	s.noError("Poll", err)
	same := func(verb string) {
		s.Helper()
		for i, l := range j.lanes() {
			if !sameLane(l, before[i]) {
				s.Errorf("%s: Lanes says\n%+v of lane %d, and\n%+v before it", verb, l, i, before[i])
			}
		}
		p, err := s.Poll(j.clk)
		s.noError("Poll", err)
		if p != progress {
			s.Errorf("%s: Poll says %+v, and %+v before it", verb, p, progress)
		}
	}
	given := slices.Clone(skip)
	j.rev.Rewind(j.clk, j.tape, int64(last), given)
	for i := range given {
		given[i] = !given[i] // it was read
	}
	same("Rewind")
	j.be(0, nil)
	j.look(fmt.Sprintf("Rewind to behind attempt %d", last), backend.Accepted)
	for attempt := last; attempt >= first; attempt-- {
		verb := fmt.Sprintf("Back to attempt %d of %d, skip %v, over %+v", attempt, len(j.past), skip, j.ref.spans)
		m := j.be(attempt, skip)
		written := j.ref.selected(backend.Accepted)
		for _, o := range j.kept {
			o.set(s.random(len(o.host)))
			o.blank(written)
		}
		before = slices.Clone(j.lanes())
		j.rev.Back(j.clk, j.tape, j.keep)
		same(verb)
		for i, o := range j.kept {
			o.expect(verb, written, func(e int) num { return exact(m.kept[i][e]) })
		}
		j.look(verb, backend.Accepted)
		j.lookVJP(verb)
	}
	j.verify("Back")
}

// lookVJP checks SaveVJP with the interpolant t - t0, as look does with Save.
func (c *course[T]) lookVJP(verb string) {
	s := c.s
	s.Helper()
	lanes := len(c.ref.lanes)
	written := c.ref.selected(backend.Accepted)
	y0, k, y1 := s.output("y0", 1, lanes, 1, written), s.output("k", 1, lanes, 1, written), s.operand("y1", 1, lanes, 1)
	want0, wantK, want1 := make([]num, lanes), make([]num, lanes), y1.nums()
	c.outputs(c.table, func(row int, l *refLane, t float64, at int) {
		a := c.table.host[at]
		if t == l.end {
			want1[row] = s.add(want1[row], exact(a))
			return
		}
		want0[row] = s.add(want0[row], exact(a))
		x := num{t - l.took.t, 4*s.u*math.Abs(t-l.took.t) + c.slack()}
		wantK[row] = s.add(wantK[row], s.mul(x, exact(a)))
	})
	s.reverser().SaveVJP(c.clk, [][]float64{{1}}, c.table.v, y0.v, y1.v, []backend.Vec[T]{k.v})
	y0.expect(verb+", then SaveVJP", written, func(i int) num { return want0[i] })
	k.expect(verb+", then SaveVJP", written, func(i int) num { return wantK[i] })
	y1.expect(verb+", then SaveVJP", written, func(i int) num { return want1[i] })
	c.table.unchanged(verb + ", then SaveVJP")
}

// aside does something with the clock and sets it back, for attempts to come.
func (j *journey[T]) aside(do func()) {
	j.s.Helper()
	store := j.s.newClock(len(j.ref.lanes))
	j.rev.CopyClock(store, j.clk)
	now := slices.Clone(j.ref.lanes)
	do()
	j.rev.CopyClock(j.clk, store)
	copy(j.ref.lanes, now)
}

// reverseAll goes there and back, twice.
func reverseAll[T backend.Float](j *journey[T]) {
	j.random(12)
	for range 2 {
		j.back(len(j.past), 0, nil)
	}
}

// backByHand: which lanes a short solve selects on the way back, as a person counts.
func backByHand[T backend.Float](s *suite[T]) {
	j := s.journey(3, backend.Span{H0: 1, Saves: []float64{0.5, 2}, Stops: []float64{1, 2}})
	j.ctl = stock
	ratios := [][3]float64{{0.81, 2, 2}, {0.81, 0.1, 0.1}, {0, 2, 0.1}}
	for _, r := range ratios {
		j.attempt(func(lane int) float64 { return r[lane] }, true)
	}
	// Lane 0 arrives with its second attempt. Lanes 1 and 2 reject the first, and
	// their second step, of size 0.636, has the output at 0.5 inside.
	want := map[backend.Rows][]string{
		backend.Accepted: {"x--", "xxx", "--x"},
		backend.Saving:   {"x--", "-xx", "---"},
		backend.Fresh:    {"x--", "-xx", "---"},
	}
	zero := s.input("zero", 1, 3, 1, make([]T, 3))
	for range 2 {
		j.rev.Rewind(j.clk, j.tape, 3, nil)
		for attempt := 3; attempt >= 1; attempt-- {
			j.rev.Back(j.clk, j.tape, j.keep)
			for rows, pattern := range want {
				written := func(row int) bool { return pattern[attempt-1][row] == 'x' }
				out := s.output("dst", 1, 3, 1, written)
				s.Combine(out.v, zero.v, j.at(0, rows), nil, nil)
				out.expect(fmt.Sprintf("Back to attempt %d, then Combine at Rows %d", attempt, rows), written, func(int) num { return exact(0.) })
			}
		}
	}
}

// backInstants compares when f is evaluated in steps at breaks and stops, as they are
// taken, after CopyClock and after Back.
func backInstants[T backend.Float](s *suite[T]) {
	s.reverser()
	f := s.timeField()
	t0, stop := s.inexactLanding(-1)
	for _, sign := range []float64{1, -1} {
		times := func(ts ...float64) []float64 {
			for i := range ts {
				ts[i] *= sign
			}
			return ts
		}
		j := s.journey(2, backend.Span{T0: sign * t0, H0: 2, Stops: times(stop, 2, 3, 9), Breaks: times(3, t0, 2)})
		j.ctl = stock
		dz := s.newVec(1, 2, 1)
		instants := func(rows backend.Rows) (all [][]T) {
			for _, c := range []float64{0, 0.3, 1} {
				s.Zero(dz)
				f.Eval(dz, j.at(c, rows), j.y)
				j.ref.evaluated(rows)
				all = append(all, s.download(dz))
			}
			return all
		}
		same := func(verb string, got, want [][]T) {
			for i := range want {
				s.equalBits(verb, got[i], want[i], "when the step was taken")
			}
		}
		twin := s.timer(2, j.ref.spans...)
		var took [][][]T
		for n := range 6 {
			running := instants(backend.Running)
			j.rev.CopyClock(twin.clk, j.clk)
			j.clk, twin.clk = twin.clk, j.clk
			same("Eval after CopyClock", instants(backend.Running), running)
			j.attempt(func(lane int) float64 { return []float64{0.81, 2}[(lane+n)%2] }, true)
			took = append(took, instants(backend.Accepted))
			j.rev.CopyClock(twin.clk, j.clk)
			j.clk, twin.clk = twin.clk, j.clk
			same("Eval after CopyClock", instants(backend.Accepted), took[n])
		}
		j.verify("CopyClock to and fro")
		j.rev.Rewind(j.clk, j.tape, 6, nil)
		for n := 5; n >= 0; n-- {
			j.rev.Back(j.clk, j.tape, j.keep)
			same("Eval after Back", instants(backend.Accepted), took[n])
		}
	}
}

func backKeepsNothing[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	c := s.course(2, backend.Span{H0: 1, Saves: []float64{0.5}, Stops: []float64{9}})
	tape := s.newTape(2, 2, 3, 0)
	c.attempt(stock, func(lane int) float64 { return []float64{0.81, 2}[lane] })
	took := []refTook{c.ref.lanes[0].refTook, c.ref.lanes[1].refTook}
	rev.Push(c.clk, tape, nil)
	c.attempt(stock, each(0.5))
	rev.Rewind(c.clk, tape, 1, nil)
	rev.Back(c.clk, tape, nil)
	for i := range took {
		c.ref.lanes[i].refTook = took[i]
	}
	c.look("Back of a tape that keeps nothing", backend.Accepted)
}

// backGaps pushes every other attempt.
func backGaps[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 4} {
		j := s.journey(lanes, backend.Span{H0: 0.5, Saves: []float64{1, 2, 3}, Stops: []float64{20}})
		j.ctl = stock
		for n := range 10 {
			j.attempt(func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+n)%5] }, n%2 == 0)
		}
		j.back(10, 0, nil)
	}
}

// rewindFrom begins at other attempts than the last, and where none was.
func rewindFrom[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 4} {
		j := s.journey(lanes, s.randomSpan())
		j.random(9)
		for _, last := range []int{9, 4, 11, 1, 0, 7} {
			j.back(last, max(last-3, 0), nil)
		}
	}
}

func rewindSkip[T backend.Float](s *suite[T]) {
	s.reverser()
	j := s.journey(4, backend.Span{H0: 0.5, Saves: []float64{1, 2, 3}, Stops: []float64{2, 20}})
	j.ctl = stock
	for n := range 8 {
		j.attempt(func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+n)%5] }, true)
	}
	for _, skip := range [][]bool{{false, true, false, true}, nil, {true, true, true, true}, {false, false, false, false}, {true, false, false, false}} {
		j.back(8, 0, skip)
	}
	one := s.journey(1, backend.Span{H0: 1, Stops: []float64{9}})
	one.ctl = stock
	one.attempt(each(0.5), true)
	one.back(1, 0, []bool{true})
	one.back(1, 0, []bool{false})
}

// rewindSegments has one tape, reset between segments of a solve: what was on it
// before is not gone back to.
func rewindSegments[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 5} {
		j := s.journey(lanes, backend.Span{H0: 0.5, Saves: []float64{0.75, 1, 2, 3, 6}, Stops: []float64{2, 20}, Breaks: []float64{2}})
		j.ctl = stock
		for segment := range 4 {
			j.rev.Reset(j.tape)
			for i := range j.past {
				j.past[i].pushed = false
			}
			for n := range 3 {
				j.attempt(func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+n+segment)%5] }, true)
			}
			if segment == 1 {
				continue // on without going back
			}
			j.aside(func() { j.back(3*segment+3, max(3*segment-1, 0), nil) })
		}
	}
}

// rewindTapes has a tape for each segment.
func rewindTapes[T backend.Float](s *suite[T]) {
	s.reverser()
	for _, lanes := range []int{1, 5} {
		j := s.journey(lanes, backend.Span{H0: 0.5, Saves: []float64{0.75, 1, 2, 3, 6}, Stops: []float64{2, 20}})
		j.ctl = stock
		var tapes []backend.Tape[T]
		for n := range 9 {
			if n%3 == 0 {
				j.tape = j.newTape()
				tapes = append(tapes, j.tape)
			}
			j.attempt(func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+n)%5] }, true)
		}
		for _, segment := range []int{2, 1, 0, 2} {
			j.tape = tapes[segment]
			for i := range j.past {
				j.past[i].pushed = i/3 == segment
			}
			j.back(3*segment+3, max(3*segment, 0), nil)
		}
	}
}
