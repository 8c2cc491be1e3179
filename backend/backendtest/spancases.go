package backendtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// spanCases have a span for every lane; random sequences and solves have such cases
// of their own.
func spanCases[T backend.Float]() []testCase[T] {
	all := []testCase[T]{
		{"Start/a span for each lane", startOwn[T]},
		{"Start/one span and a span for each in turn", startInTurn[T]},
		{"Start/keeps its own copy of each span", startCopiesEach[T]},
		{"Start/one lane has no rows of its own", startOneLane[T]},
		{"ErrorRatio/tolerance of the span", errorSpanTol[T]},
		{"ProposeStep/tolerance of the span", proposeSpanTol[T]},
		{"ProposeStep/lanes with a first step", proposeOwn[T]},
	}
	for _, sh := range shapes {
		if sh[0] > 1 {
			all = append(all, testCase[T]{fmt.Sprintf("Save/own spans/%dx%d", sh[0], sh[1]), func(s *suite[T]) { saveOwn(s, sh[0], sh[1]) }})
		}
	}
	for _, op := range []backend.StopOp{backend.Store, backend.Add, backend.Load} {
		all = append(all, testCase[T]{fmt.Sprintf("AtStop/own spans/%d", op), func(s *suite[T]) { atStopOwn(s, op) }})
	}
	return all
}

// startOwn reads what Start makes of spans, and what one attempt does, worked out by
// hand.
func startOwn[T backend.Float](s *suite[T]) {
	lanes := []struct {
		span        backend.Span
		h, tAfter   float64 // after an attempt whose error is 0.81 of the tolerance
		statusAfter backend.Status
	}{
		{backend.Span{H0: 1, Stops: []float64{9}}, 1, 1, backend.StatusRunning},
		{backend.Span{T0: 5, H0: 1, Stops: []float64{-9}}, -1, 4, backend.StatusRunning},
		{backend.Span{T0: 3, H0: 1, Stops: []float64{3}}, 0, 3, backend.Done},
		{backend.Span{T0: 2, H0: -0.5, Stops: []float64{9}}, 0.5, 2.5, backend.StatusRunning},
		{backend.Span{T0: -1, H0: 1, MaxStep: 0.25, Stops: []float64{4}}, 0.25, -0.75, backend.StatusRunning},
		{backend.Span{T0: 7, H0: 1, Stops: []float64{7.5}}, 0.5, 7.5, backend.Done},
		{backend.Span{T0: 7, H0: 1, Stops: []float64{6.75, 1}}, -0.25, 6.75, backend.StatusRunning},
		{backend.Span{T0: 100, Stops: []float64{0}}, 0, 100, backend.StatusRunning},
	}
	var spans []backend.Span
	for _, l := range lanes {
		spans = append(spans, l.span)
	}
	tm := s.timer(len(lanes), spans...)
	p, err := s.Poll(tm.clk)
	s.noError("Poll", err)
	if p.Running != len(lanes)-1 || p.Failed != 0 || p.T != 100 {
		s.Errorf("Poll: %+v after Start, want %d running, the last at 100, where 100 are left", p, len(lanes)-1)
	}
	for i, got := range tm.lanes() {
		l := &lanes[i]
		if want := l.span.T0; got.T != want || got.H != l.h || got.Accepted != 0 || got.Rejected != 0 || got.Evaluations != 0 {
			s.Errorf("Start: lane %d of %d is %+v, want t = %g, h = %g", i, len(lanes), got, want, l.h)
		}
	}
	tm.verify("Start")
	// The last lane has no step, and so no error that can be 0.81.
	s.Upload(tm.y, fill[T](len(lanes), 1))
	k := fill[T](len(lanes), 0)
	for i := range lanes {
		if h := lanes[i].h; h != 0 {
			k[i] = T(0.81 / math.Abs(h))
		}
	}
	s.Upload(tm.k, k)
	s.ErrorRatio(tm.clk, ratioTol, []float64{1}, nil, []backend.Part[T]{{Y0: tm.y, Y1: tm.y, K: []backend.Vec[T]{tm.k}}})
	s.Advance(tm.clk, stock)
	for i, got := range tm.lanes()[:len(lanes)-1] {
		if l := &lanes[i]; got.T != l.tAfter || got.Status != l.statusAfter {
			s.Errorf("Advance: lane %d of %d is %v at t = %g, want %v at %g", i, len(lanes), got.Status, got.T, l.statusAfter, l.tAfter)
		}
	}
}

// startInTurn starts a clock with spans of other kinds and lengths again and again.
func startInTurn[T backend.Float](s *suite[T]) {
	const lanes = 3
	one := backend.Span{T0: 1, H0: 1, Saves: []float64{1.5, 2}, Stops: []float64{2, 4}, Breaks: []float64{2}}
	two := backend.Span{T0: 4, H0: 1, Saves: []float64{2.5}, Stops: []float64{3, 2, 1, -1}, Blocks: []int{3, 2, -1, 0}, MaxStep: 1}
	clk := s.newClock(lanes)
	for _, spans := range [][]backend.Span{
		{one}, s.randomSpans(lanes), {two}, {one}, {two, one, two}, {one, two, one}, s.randomSpans(lanes), {one}, {two, two, one},
	} {
		c := s.course(lanes, spans...) // for its tables
		c.clk = clk
		c.start(spans...)
		c.verify("Start, again")
		c.look("Start, again", backend.Running)
		for range 4 {
			c.attempt(stock, each(0.81))
			c.verify("Advance, after Start again")
			c.look("Advance, after Start again", backend.Running)
		}
	}
}

func startCopiesEach[T backend.Float](s *suite[T]) {
	make := func() (spans []backend.Span) {
		for i := range 3 {
			spans = append(spans, backend.Span{
				H0: 1, Saves: []float64{0.5}, Stops: []float64{1, 2}, Blocks: []int{1, 0}, Breaks: []float64{1},
				Tol: backend.Tolerance{Rel: 1 + float64(i)}, Row: 2 - i,
			})
		}
		return spans
	}
	spans := make()
	c := s.course(3, spans...)
	c.ref.start(make()...) // the reference shares the slices
	for i := range spans {
		sp := &spans[i]
		sp.Saves[0], sp.Stops[0], sp.Stops[1], sp.Blocks[0], sp.Breaks[0] = 9, 9, 9, 9, 9
		*sp = backend.Span{Stops: []float64{99}, Row: 99}
	}
	for range 3 {
		c.attempt(stock, each(1))
		c.verify("Advance, after the Spans changed")
		c.look("Advance, after the Spans changed", backend.Running)
	}
}

// startOneLane: a clock of one lane has tables of blocks, whatever Row is.
func startOneLane[T backend.Float](s *suite[T]) {
	c := s.course(1, backend.Span{H0: 1, Saves: []float64{0.5, 1, 1.5}, Stops: []float64{1, 2}, Row: 2})
	for range 2 {
		c.attempt(stock, each(0.81))
		c.look("one lane with a Row", backend.Running)
	}
}

// tolSpans are spans with a tolerance of their own, and without.
func tolSpans(lanes int) (spans []backend.Span) {
	tols := []backend.Tolerance{{}, {Abs: 0.01}, {Rel: 2}, {Abs: 1, Rel: 0.1}, {Abs: 1e-6, Rel: 1e-6}}
	for i := range lanes {
		spans = append(spans, backend.Span{T0: float64(i), Stops: []float64{20}, Tol: tols[i%len(tols)]})
	}
	return spans
}

func errorSpanTol[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	p := s.part(4, 2, rows, cols)
	spans := tolSpans(rows)
	for i := range spans {
		spans[i].H0 = 0.5
	}
	for _, e2 := range [][]float64{nil, errorE2} {
		checkError(s, s.timer(rows, spans...), errorTol, errorE, e2, p)
		checkError(s, s.timer(rows, spans[3]), errorTol, errorE, e2, p)
		checkError(s, s.timer(1, spans[3]), errorTol, errorE, e2, p)
	}
}

func proposeSpanTol[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	y0, f0, f1 := s.operand("y0", 2, rows, cols), s.operand("f0", 2, rows, cols), s.operand("f1", 2, rows, cols)
	spans := tolSpans(rows)
	checkPropose(s, "tolerances of spans", s.timer(rows, spans...), errorTol, y0, f0, f1)
	checkPropose(s, "the span's tolerance", s.timer(rows, spans[3]), errorTol, y0, f0, f1)
	checkPropose(s, "the span's tolerance", s.timer(1, spans[3]), errorTol, y0, f0, f1)
}

// proposeOwn has lanes with and without H0, of which some are done.
func proposeOwn[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	y0, f0, f1 := s.operand("y0", 1, rows, cols), s.operand("f0", 1, rows, cols), s.operand("f1", 1, rows, cols)
	tm := s.timer(rows, []backend.Span{
		{H0: 0.25, Stops: []float64{9}},
		{T0: 1, Stops: []float64{9}},
		{T0: 9, Stops: []float64{-9}},
		{T0: 9, H0: 0.25, Stops: []float64{-9}},
		{T0: 5, Stops: []float64{5}},
		{T0: 5, Stops: []float64{5 + 1e-9}},
		{T0: 5, MaxStep: 1e-5, Stops: []float64{4}},
	}...)
	checkPropose(s, "own spans", tm, errorTol, y0, f0, f1)
	// The first stage of lanes with H0 is as stale as it was.
	written := func(row int) bool { return row == 0 || row == 3 }
	for row := range rows {
		if got := tm.ref.lanes[row].selects(backend.Stale); got != written(row) {
			s.fatalf("the reference is wrong")
		}
	}
	f := s.timeField()
	out := s.output("dz", 1, rows, 1, written)
	at := tm.at(0, backend.Stale)
	f.Eval(out.v, at, tm.y)
	out.expect("Eval at Stale after ProposeStep", written, func(row int) num { return s.round(tm.instant(row, at)) })

	// With one span for all, H0 does not keep ProposeStep from choosing.
	checkPropose(s, "one span with H0", s.timer(rows, backend.Span{H0: 0.25, Stops: []float64{9}}), errorTol, y0, f0, f1)
	checkPropose(s, "one lane with H0", s.timer(1, backend.Span{H0: 0.25, Stops: []float64{9}}), errorTol, y0, f0, f1)
}

// raggedSpans are spans of both directions with 0 to 3 outputs, whose rows of a table
// are in another order than the lanes and leave rows out; rows is what they need.
func (s *suite[T]) raggedSpans(lanes int) (spans []backend.Span, rows int) {
	spans = make([]backend.Span, lanes)
	rows = 1
	for _, i := range s.rng.Perm(lanes) {
		sign := float64(1 - i%2*2)
		t0 := float64(i % 5)
		sp := backend.Span{T0: t0, H0: 1, Row: rows, Stops: []float64{t0 + sign, t0 + 2*sign}}
		// Two inside the first step, one at its end, one inside the second.
		for _, x := range []float64{0.25, 0.875, 1, 1.5}[i%4:] {
			sp.Saves = append(sp.Saves, t0+sign*x)
		}
		if i%6 == 5 {
			sp = backend.Span{T0: t0, Stops: []float64{t0}, Row: rows}
		}
		spans[i] = sp
		rows += len(sp.Saves) + i%3/2
	}
	return spans, rows
}

func saveOwn[T backend.Float](s *suite[T], rows, cols int) {
	y0, y1 := s.operand("y0", 1, rows, cols), s.operand("y1", 1, rows, cols)
	k, v := s.stages(4, 1, rows, cols)
	k[2].set(fill[T](rows*cols, math.NaN())) // weights 0: not read
	spans, need := s.raggedSpans(rows)
	for _, tableRows := range []int{need + 1, need / 2, 0} {
		tm := s.timer(rows, spans...)
		for range 3 {
			tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.9, 2}[lane%3] })
			checkSave(s, tm, y0, y1, k, v, s.operand("table", 1, tableRows, cols))
		}
	}
}

// atStopOwn drives lanes over stops of their own. Blocks are rows of the table as they
// are, whatever Row is.
func atStopOwn[T backend.Float](s *suite[T], op backend.StopOp) {
	const lanes, cols, tableRows = 5, 3, 7
	y, table := s.operand("y", 1, lanes, cols), s.operand("table", 1, tableRows, cols)
	spans := []backend.Span{
		{T0: 9, H0: 1, Stops: []float64{8, 7.5, 6}, Blocks: []int{6, -1, 0}, Row: 1},
		{T0: 0, H0: 1, Stops: []float64{1, 2, 9}, Blocks: []int{1, 2, 7}},
		{T0: 3, Stops: []float64{3}, Blocks: []int{3}},
		{T0: -1, H0: 1, Stops: []float64{0, 1}, Blocks: []int{7, 4}, Row: 2},
		{T0: -1, H0: 1, Stops: []float64{-2, -4, -5}, Blocks: []int{5, 3, 3}, Row: 3},
	}
	shared := slices.Clone(spans)
	for i := range shared {
		shared[i].Blocks = nil // every stop j its row j, for all lanes
	}
	all := [][]backend.Span{spans}
	if op != backend.Store { // of which only one can be last
		all = append(all, shared)
	}
	for _, spans := range all {
		tm := s.timer(lanes, spans...)
		for range 6 {
			tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.3, 0.01}[lane] })
			verb := fmt.Sprintf("AtStop %d, own spans", op)
			for range 2 { // it acts on the stop until the next Advance
				wantY, wantTable := y.nums(), table.nums()
				tm.stops(table, func(row, at int) {
					for c := range cols {
						entry, state := exact(table.host[at+c]), exact(y.host[row*cols+c])
						switch op {
						case backend.Store:
							wantTable[at+c] = state
						case backend.Add:
							wantY[row*cols+c] = s.add(state, entry)
						case backend.Load:
							wantY[row*cols+c] = entry
						}
					}
					if op != backend.Store {
						tm.ref.lanes[row].moved()
					}
				})
				s.AtStop(tm.clk, op, y.v, table.v)
				y.expect(verb, allRows, func(i int) num { return wantY[i] })
				table.expect(verb, allRows, func(i int) num { return wantTable[i] })
			}
			written := tm.ref.selected(backend.Stale)
			out := s.output("dst", 1, lanes, cols, written)
			s.Combine(out.v, y.v, tm.at(0, backend.Stale), nil, nil)
			out.expect("Combine at Stale after "+verb, written, func(i int) num { return exact(y.host[i]) })
			tm.verify(verb)
		}
	}
}
