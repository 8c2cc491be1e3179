package backendtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// sequenceCases run random sequences of error ratio and Advance through the backend
// and the reference, and compare all that a clock decides: lanes, progress, which rows
// each selection has, their instants and sizes, outputs, stops and tapes.
func sequenceCases[T backend.Float]() (all []testCase[T]) {
	for i := range 12 {
		all = append(all, testCase[T]{fmt.Sprintf("Advance/random sequence %d", i), sequence[T]})
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

func sequence[T backend.Float](s *suite[T]) {
	lanes := []int{1, 2, 5}[s.rng.IntN(3)]
	tm := s.timer(lanes, s.randomSpan())
	ctl := s.randomControl()
	const tableBlocks = 4
	zero, one := s.input("zero", 1, lanes, 1, make([]T, lanes)), s.input("one", 1, lanes, 1, fill[T](lanes, 1))
	table := s.operand("table", len(tm.ref.span.Saves), lanes, 1)
	stops := s.operand("stops", tableBlocks, lanes, 1)
	tape := s.newTape(lanes, lanes, 1, 1)
	f := s.timeField()
	pushed := make([][]refStep, lanes)
	look(s, tm, f, zero, one)
	for attempt := range 15 {
		verb := fmt.Sprintf("Advance: attempt %d over %+v with %+v", attempt, tm.ref.span, ctl)
		tm.attempt(ctl, func(int) float64 { return s.randomRatio(ctl.Fixed) })
		tm.verify(verb)
		look(s, tm, f, zero, one)

		// f = 1 makes the interpolant t - t0 of the step.
		s.Save(tm.clk, [][]float64{{1}}, zero.v, one.v, []backend.Vec[T]{one.v}, table.v)
		was := append([]T(nil), table.host...)
		table.expect(verb+", then Save", allRows, func(i int) num {
			l, j := &tm.ref.lanes[i%lanes], i/lanes
			switch t := tm.ref.span.Saves[j]; {
			case !slices.Contains(l.outputs, j):
				return exact(was[i])
			case t == l.t:
				return exact(1.)
			default:
				return num{t - l.took.t, 4*s.u*math.Abs(t-l.took.t) + tm.slack()}
			}
		})
		s.AtStop(tm.clk, backend.Store, one.v, stops.v)
		was = append(was[:0], stops.host...)
		stops.expect(verb+", then AtStop", allRows, func(i int) num {
			if tm.ref.lanes[i%lanes].block == i/lanes {
				return exact(1.)
			}
			return exact(was[i])
		})
		s.Push(tm.clk, tape, []backend.Vec[T]{one.v})
		for i := range pushed {
			if l := &tm.ref.lanes[i]; l.accepted {
				pushed[i] = append(pushed[i], l.took)
			}
		}
	}
	tm.verify("Advance")
	for i, steps := range pushed {
		if tape.Len(i) != len(steps) {
			s.fatalf("Tape.Len(%d) is %d, want %d", i, tape.Len(i), len(steps))
		}
		for j, st := range steps {
			t, h, err := s.ReadTape(tape, i, j, make([]T, 1))
			s.noError("ReadTape", err)
			if math.Abs(t-st.t) > tm.slack() || !closeTo(h, st.h, 1e-10) {
				s.Errorf("ReadTape: lane %d, step %d is t = %g, h = %g, want %g, %g", i, j, t, h, st.t, st.h)
			}
		}
	}
}

// look checks every selection of rows: which they are, when and how far they step.
func look[T backend.Float](s *suite[T], tm *timer[T], f backend.Field[T], zero, one *operand[T]) {
	s.Helper()
	for rows := backend.Running; rows <= backend.Saving; rows++ {
		at, written := tm.at(float64(s.rng.IntN(3))/2, rows), tm.ref.selected(rows)
		verb := fmt.Sprintf("Rows %d over %+v", rows, tm.ref.span)
		out := s.output("dst", 1, zero.rows, 1, written)
		f.Eval(out.v, at, zero.v)
		tm.ref.evaluated(rows)
		out.expect("Eval at "+verb, written, func(r int) num {
			t := s.round(tm.instant(r, at))
			return num{t.v, t.e + tm.slack()}
		})
		out.blank(written)
		s.Combine(out.v, zero.v, at, []float64{1}, []backend.Vec[T]{one.v})
		out.expect("Combine at "+verb, written, func(r int) num {
			h := s.round(tm.size(r, at))
			return num{h.v, h.e + 1e-10*math.Abs(h.v)}
		})
	}
}

// solveCases run a whole solve: what one verb leaves the next one finds.
func solveCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"solve/exact solution", solveExact[T]},
		{"solve/alone and in a batch", solveAlone[T]},
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
// first are a recording's, and there is no tape.
func (s *suite[T]) solve(f backend.Field[T], lanes int, z0 []T, span backend.Span, tol backend.Tolerance, load []T, rec backend.Recorder) solution[T] {
	s.Helper()
	d := f.Dim()
	rows := len(z0) / d
	y, trial := s.input("y", 1, rows, d, z0), s.operand("trial", 1, rows, d)
	_, v := s.stages(2, 1, rows, d)
	table := s.newVec(len(span.Saves), rows, d)
	stops, loads := s.newVec(len(span.Stops), rows, d), s.newVec(1, rows, d)
	s.Upload(loads, load)
	clk, tape := s.newClock(lanes), s.newTape(lanes, rows, d, 1)
	at := func(c float64, r backend.Rows) backend.At { return backend.At{Clock: clk, C: c, Rows: r} }
	ctl := backend.Control{
		Order: 2, Beta: [3]float64{0.425, -0.1, 0}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 10, MaxAttempts: 1000,
	}
	hermite := [][]float64{{1, -0.5}, {0, 0.5}} // the quadratic with y0, f0 and y1
	s.Start(clk, span)
	f.Eval(v[0], at(0, backend.Stale), y.v)
	s.ProposeStep(clk, y.v, v[0], nil, 2, tol)
	s.Combine(trial.v, y.v, at(1, backend.Running), []float64{1}, v)
	f.Eval(v[1], at(1, backend.Running), trial.v)
	s.ProposeStep(clk, y.v, v[0], v[1], 2, tol)
	attempt := func() {
		f.Eval(v[0], at(0, backend.Stale), y.v)
		s.Combine(trial.v, y.v, at(1, backend.Running), []float64{1}, v)
		f.Eval(v[1], at(1, backend.Running), trial.v)
		s.Combine(trial.v, y.v, at(1, backend.Running), []float64{0.5, 0.5}, v)
		s.ErrorRatio(clk, tol, []float64{-0.5, 0.5}, nil, []backend.Part[T]{{Y0: y.v, Y1: trial.v, K: v}})
		s.Advance(clk, ctl)
		s.Save(clk, hermite, y.v, trial.v, v, table)
		if rec == nil {
			s.Push(clk, tape, []backend.Vec[T]{trial.v})
		}
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
				if !recording.Replay() {
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
		sol := s.solve(f, lanes, z0, span, backend.Tolerance{Abs: 1e-3}, make([]T, len(z0)), nil)
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
	together := s.solve(f, rows, z0, span, tol, load, nil)
	steps := 0
	for r := range rows {
		part := func(x []T) (p []T) { // row r of every block
			for b := range len(x) / len(z0) {
				p = append(p, x[b*len(z0)+r*3:b*len(z0)+(r+1)*3]...)
			}
			return p
		}
		alone := s.solve(f, 1, part(z0), span, tol, part(load), nil)
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
		if math.IsNaN(got.Ratio) && math.IsNaN(want.Ratio) {
			got.Ratio, want.Ratio = 0, 0
		}
		if got != want {
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

func solveTwice[T backend.Float](s *suite[T]) {
	f, z0, load, span, tol := s.solveProblem()
	first := s.solve(f, 1, z0, span, tol, load, nil)
	s.sameSolution(s.solve(f, 1, z0, span, tol, load, nil), first, "the first time")
}

// solveRecorded replays attempts, if the backend can record them.
func solveRecorded[T backend.Float](s *suite[T]) {
	rec, ok := s.Backend.(backend.Recorder)
	if !ok {
		return
	}
	f, z0, load, span, tol := s.solveProblem()
	for _, lanes := range []int{1, len(z0) / f.Dim()} {
		plain := s.solve(f, lanes, z0, span, tol, load, nil)
		s.sameSolution(s.solve(f, lanes, z0, span, tol, load, rec), plain, "without a recording")
	}
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
