package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// solveCases run a whole solve: what one verb leaves the next one finds.
func solveCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"solve/exact solution", solveExact[T]},
		{"solve/alone and in a batch", solveAlone[T]},
		{"solve/alone and in a batch, own spans", solveOwnSpans[T]},
		{"solve/one lane, the same twice", solveTwice[T]},
		{"solve/recorded", solveRecorded[T]},
	}
}

// solution is what a solve leaves, all of it.
type solution[T backend.Float] struct {
	end, table, stops []T
	lanes             []backend.Lane
	tape              [][]T
}

// solve integrates a batch by the embedded pair of Heun and Euler, with outputs, a
// stop at which a table is loaded, and a tape; with a recorder the attempts after the
// first are a recording's, and there is no tape. load is what the table holds, blocks
// of it or, where every lane has a span of its own, rows.
func (s *suite[T]) solve(f backend.Field[T], lanes int, z0 []T, tol backend.Tolerance, load []T, rec backend.Recorder, spans ...backend.Span) solution[T] {
	s.Helper()
	d := f.Dim()
	rows := len(z0) / d
	y, trial := s.input("y", 1, rows, d, z0), s.operand("trial", 1, rows, d)
	_, v := s.stages(2, 1, rows, d)
	saves, entries, propose := 0, 0, false
	for i := range spans {
		saves += len(spans[i].Saves)
		entries += len(spans[i].Stops)
		propose = propose || spans[i].H0 == 0
	}
	newTable := func(entries int) backend.Vec[T] {
		if len(spans) > 1 {
			return s.newVec(1, entries, d)
		}
		return s.newVec(entries, rows, d)
	}
	table, stops := newTable(saves), newTable(entries)
	loads := newTable(len(load) / (len(z0) / len(spans)))
	s.Upload(loads, load)
	clk, tape := s.newClock(lanes), s.newTape(lanes, rows, d, 1)
	at := func(c float64, r backend.Rows) backend.At { return backend.At{Clock: clk, C: c, Rows: r} }
	ctl := backend.Control{
		Order: 2, Beta: [3]float64{0.425, -0.1, 0}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 10, MaxAttempts: 1000,
	}
	hermite := [][]float64{{1, -0.5}, {0, 0.5}} // the quadratic with y0, f0 and y1
	s.Start(clk, spans...)
	if propose {
		f.Eval(v[0], at(0, backend.Stale), y.v)
		s.ProposeStep(clk, y.v, v[0], nil, 2, tol)
		s.Combine(trial.v, y.v, at(1, backend.Running), []float64{1}, v)
		f.Eval(v[1], at(1, backend.Running), trial.v)
		s.ProposeStep(clk, y.v, v[0], v[1], 2, tol)
	}
	attempt := func() {
		f.Eval(v[0], at(0, backend.Stale), y.v)
		s.Combine(trial.v, y.v, at(1, backend.Running), []float64{1}, v)
		f.Eval(v[1], at(1, backend.Running), trial.v)
		s.Combine(trial.v, y.v, at(1, backend.Running), []float64{0.5, 0.5}, v)
		s.ErrorRatio(clk, tol, []float64{-0.5, 0.5}, nil, []backend.Part[T]{{Y0: y.v, Y1: trial.v, K: v}})
		s.Advance(clk, ctl)
		s.Save(clk, hermite, y.v, trial.v, v, table)
		s.Push(clk, tape, []backend.Vec[T]{trial.v})
		s.Commit(clk, backend.Accepted, []backend.Move[T]{{Dst: y.v, Src: trial.v}})
		s.AtStop(clk, backend.Store, y.v, stops)
		s.AtStop(clk, backend.Load, y.v, loads)
	}
	next := attempt
	for n := 0; ; n++ {
		next()
		if n == 0 && rec != nil {
			recording, err := rec.Record(attempt)
			s.noError("Record", err)
			defer recording.Close()
			next = func() {
				if !recording.Replay(3) { // some of them after all lanes have ended
					s.fatalf("Replay: false, though nothing was released")
				}
			}
		}
		p, err := s.Poll(clk)
		s.noError("Poll", err)
		if p.Running == 0 {
			break
		}
		if n == 2000 {
			s.fatalf("solve: lanes still run after %d attempts: %+v", n, p)
		}
	}
	sol := solution[T]{end: y.read("solve"), table: s.download(table), stops: s.download(stops), lanes: make([]backend.Lane, lanes)}
	s.noError("Lanes", s.Lanes(clk, sol.lanes))
	for l := range lanes {
		for i := range tape.Len(l) {
			step := make([]T, len(z0)/lanes)
			if _, _, err := s.ReadTape(tape, l, i, step); err != nil {
				s.fatalf("ReadTape: %v", err)
			}
			sol.tape = append(sol.tape, step)
		}
	}
	return sol
}

// solveExact integrates dz/dt = t - z, whose solution is t - 1 + (z0 - t0 + 1)·e^(t0-t).
func solveExact[T backend.Float](s *suite[T]) {
	f := s.bind(&mlp.Model[T]{
		Spec:  mlp.Spec{Widths: []int{1, 1}, Activations: []mlp.Activation{mlp.Identity}, Time: mlp.TimeInput},
		Theta: []T{-1, 1, 0},
	})
	z0 := []T{1, -0.5, 2}
	span := backend.Span{Saves: []float64{0.3, 0.7, 1.1, 1.5}, Stops: []float64{1.5}}
	for _, lanes := range []int{1, len(z0)} {
		sol := s.solve(f, lanes, z0, backend.Tolerance{Abs: 1e-3}, make([]T, len(z0)), nil, span)
		for i, got := range sol.table {
			t, z := span.Saves[i/len(z0)], float64(z0[i%len(z0)])
			// The error per step is at most 1e-3, and some ten steps are needed.
			if want := t - 1 + (z+1)*math.Exp(-t); math.Abs(float64(got)-want) > 1e-2 {
				s.Errorf("solve: z(%g) from %g is %g, want %g", t, z, got, want)
			}
		}
		for i, l := range sol.lanes {
			if l.Status != backend.Done || l.T != 1.5 || l.Evaluations != 2+2*l.Accepted+l.Rejected-1 {
				s.Errorf("solve: lane %d: %+v", i, l)
			}
		}
		for i, got := range sol.end {
			if got != 0 {
				s.Errorf("solve: element %d is %g after 0 was loaded at the last stop", i, got)
			}
		}
	}
}

func (s *suite[T]) solveProblem() (f backend.Field[T], z0, load []T, span backend.Span, tol backend.Tolerance) {
	spec := mlp.Dense(mlp.Tanh, 3, 8, 3)
	spec.Time = mlp.TimeInput
	// MaxStep makes for some steps between the stops.
	span = backend.Span{
		T0: 1, Saves: []float64{0.9, 0.2, -1}, Stops: []float64{0.5, -1}, Blocks: []int{0, 1}, Breaks: []float64{0.5}, MaxStep: 0.25,
	}
	const rows = 5
	return s.bind(s.model(spec)), s.random(rows * 3), s.random(rows * 3), span, backend.Tolerance{Rel: 1e-2, Abs: 1e-3}
}

func solveAlone[T backend.Float](s *suite[T]) {
	f, z0, load, span, tol := s.solveProblem()
	z0[4] = T(math.NaN()) // row 1 fails, and no other row knows
	rows := len(z0) / 3
	together := s.solve(f, rows, z0, tol, load, nil, span)
	steps := 0
	for r := range rows {
		part := func(x []T) (p []T) { // row r of every block
			for b := range len(x) / len(z0) {
				p = append(p, x[b*len(z0)+r*3:b*len(z0)+(r+1)*3]...)
			}
			return p
		}
		alone := s.solve(f, 1, part(z0), tol, part(load), nil, span)
		why := fmt.Sprintf("in the batch (row %d)", r)
		s.equalBits("solve: end", alone.end, part(together.end), why)
		if r != 1 { // what a failed solve does not reach is not defined
			s.equalBits("solve: outputs", alone.table, part(together.table), why)
			s.equalBits("solve: stops", alone.stops, part(together.stops), why)
		}
		got, want := alone.lanes[0], together.lanes[r]
		if want.Row != r {
			s.Errorf("Lanes: the worst row of lane %d is %d", r, want.Row)
		}
		want.Row = 0
		if !sameLane(got, want) {
			s.Errorf("solve: lane\n%+v alone, and\n%+v %s", got, want, why)
		}
		wantStatus := backend.Done
		if r == 1 {
			wantStatus = backend.NotFinite
		}
		if got.Status != wantStatus {
			s.Errorf("solve: row %d is %v, want %v", r, got.Status, wantStatus)
		}
		for i, step := range alone.tape {
			s.equalBits(fmt.Sprintf("ReadTape: step %d", i), step, together.tape[steps+i], why)
		}
		steps += len(alone.tape)
	}
	if steps != len(together.tape) {
		s.Errorf("Push: %d steps in a batch, %d one by one", len(together.tape), steps)
	}
}

// ownSpans are spans that differ in all that a span has; no two have outputs or stops
// in the same rows of a table.
func ownSpans() []backend.Span {
	return []backend.Span{
		{T0: 1, Saves: []float64{0.9, 0.2, -1}, Stops: []float64{0.5, -1}, Blocks: []int{0, 6}, Breaks: []float64{0.5}, MaxStep: 0.25, Row: 4},
		{T0: -2, Saves: []float64{0, 1}, Stops: []float64{1}, Blocks: []int{1}, H0: 0.125, Row: 7},
		{T0: 3, Stops: []float64{3}, H0: 1, Blocks: []int{2}},
		{T0: 0, Saves: []float64{1e-3, 0.5, 1, 1.5}, Stops: []float64{1, 1.5}, Blocks: []int{-1, 3}, Tol: backend.Tolerance{Rel: 1e-5, Abs: 1e-6}},
		{T0: 100, Stops: []float64{101, 101.5, 102}, Blocks: []int{4, 5, -1}, Tol: backend.Tolerance{Abs: 0.1}},
	}
}

// solveOwnSpans compares lanes with spans of their own with clocks of one lane.
func solveOwnSpans[T backend.Float](s *suite[T]) {
	f, _, _, _, tol := s.solveProblem()
	spans, d := ownSpans(), f.Dim()
	z0, load := s.random(len(spans)*d), s.random(7*d)
	together := s.solve(f, len(spans), z0, tol, load, nil, spans...)
	steps := 0
	for l, span := range spans {
		part := func(x []T, row int) []T { return x[row*d : (row+1)*d] }
		var mine []T // what is loaded at the stops
		first := span.Row
		blocks := span.Blocks
		span.Blocks, span.Row = nil, 0
		for j, b := range blocks {
			block := j
			if b < 0 {
				b, block = 0, -1
			}
			mine = append(mine, part(load, b)...)
			span.Blocks = append(span.Blocks, block)
		}
		alone := s.solve(f, 1, part(z0, l), tol, mine, nil, span)
		why := fmt.Sprintf("in the batch (row %d)", l)
		s.equalBits("solve: end", alone.end, part(together.end, l), why)
		s.equalBits("solve: outputs", alone.table, together.table[first*d:(first+len(span.Saves))*d], why)
		for j, b := range blocks {
			if b >= 0 {
				s.equalBits("solve: stops", part(alone.stops, j), part(together.stops, b), why)
			}
		}
		got, want := alone.lanes[0], together.lanes[l]
		if span.H0 != 0 && want.Status == backend.Done && want.Accepted > 0 {
			want.Evaluations -= 2 // of the others' first step
		}
		if want.Accepted > 0 && want.Row != l {
			s.Errorf("Lanes: the worst row of lane %d is %d", l, want.Row)
		}
		want.Row = 0
		if got != want || got.Status != backend.Done {
			s.Errorf("solve: lane\n%+v alone, and\n%+v %s", got, want, why)
		}
		for i, step := range alone.tape {
			s.equalBits(fmt.Sprintf("ReadTape: step %d", i), step, together.tape[steps+i], why)
		}
		steps += len(alone.tape)
	}
	if steps != len(together.tape) {
		s.Errorf("Push: %d steps in a batch, %d one by one", len(together.tape), steps)
	}
}

func solveTwice[T backend.Float](s *suite[T]) {
	f, z0, load, span, tol := s.solveProblem()
	first := s.solve(f, 1, z0, tol, load, nil, span)
	s.sameSolution(s.solve(f, 1, z0, tol, load, nil, span), first, "the first time")
}

// solveRecorded replays attempts, if the backend can record them.
func solveRecorded[T backend.Float](s *suite[T]) {
	rec, ok := s.Backend.(backend.Recorder)
	if !ok {
		return
	}
	f, z0, load, span, tol := s.solveProblem()
	for _, lanes := range []int{1, len(z0) / f.Dim()} {
		plain := s.solve(f, lanes, z0, tol, load, nil, span)
		s.sameSolution(s.solve(f, lanes, z0, tol, load, rec, span), plain, "without a recording")
	}
	spans := ownSpans()
	own := z0[:len(spans)*f.Dim()]
	plain := s.solve(f, len(spans), own, tol, load, nil, spans...)
	s.sameSolution(s.solve(f, len(spans), own, tol, load, rec, spans...), plain, "without a recording")
}

func (s *suite[T]) sameSolution(got, want solution[T], why string) {
	s.Helper()
	s.equalBits("solve: end", got.end, want.end, why)
	s.equalBits("solve: outputs", got.table, want.table, why)
	s.equalBits("solve: stops", got.stops, want.stops, why)
	for i := range want.lanes {
		if got.lanes[i] != want.lanes[i] {
			s.Errorf("solve: lane %d is\n%+v, and\n%+v %s", i, got.lanes[i], want.lanes[i], why)
		}
	}
}
