package backendtest

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// timer drives a clock of the backend and the reference side by side.
type timer[T backend.Float] struct {
	s       *suite[T]
	clk     backend.Clock
	ref     *refClock
	y, k    backend.Vec[T] // 1×lanes×1
	hy, hk  []T
	reports []backend.Lane
}

// timer starts a clock with one span, or one a lane.
func (s *suite[T]) timer(lanes int, spans ...backend.Span) *timer[T] {
	s.Helper()
	t := &timer[T]{
		s: s, clk: s.newClock(lanes), ref: &refClock{lanes: make([]refLane, lanes), single: isSingle[T]()},
		y: s.newVec(1, lanes, 1), k: s.newVec(1, lanes, 1), hy: make([]T, lanes), hk: make([]T, lanes),
		reports: make([]backend.Lane, lanes),
	}
	t.start(spans...)
	return t
}

func (t *timer[T]) start(spans ...backend.Span) {
	t.s.Start(t.clk, spans...)
	t.ref.start(spans...)
}

// setRatio gives each running lane an error ratio: 0 to 1e30, NaN or +Inf.
func (t *timer[T]) setRatio(ratio func(lane int) float64) {
	for i := range t.ref.lanes {
		l := &t.ref.lanes[i]
		r := ratio(i)
		t.hy[i] = 1
		tol := l.tolerance(ratioTol)
		if math.IsInf(r, 1) { // over a tolerance of 0, if that of the lane is relative
			t.hy[i], r = 0, 1
			if tol.Abs > 0 {
				r = 1e6 // large is all that it can be, and not near 1
			}
		}
		scale := tol.Abs + tol.Rel*float64(t.hy[i])
		t.hk[i] = T(r * (tol.Abs + tol.Rel) / math.Abs(l.step.h))
		if l.status == backend.StatusRunning {
			l.ratio = math.Abs(l.step.h * float64(t.hk[i]) / scale)
		}
	}
	t.s.Upload(t.y, t.hy)
	t.s.Upload(t.k, t.hk)
	part := backend.Part[T]{Y0: t.y, Y1: t.y, K: []backend.Vec[T]{t.k}}
	t.s.ErrorRatio(t.clk, ratioTol, []float64{1}, nil, []backend.Part[T]{part})
}

// ratioTol is the tolerance by which setRatio makes error ratios.
var ratioTol = backend.Tolerance{Rel: 1}

func (t *timer[T]) advance(ctl backend.Control) {
	t.s.Advance(t.clk, ctl)
	t.ref.advance(ctl)
}

// attempt makes one attempt in every running lane.
func (t *timer[T]) attempt(ctl backend.Control, ratio func(lane int) float64) {
	t.setRatio(ratio)
	t.advance(ctl)
}

// lanes reads what the lanes did.
func (t *timer[T]) lanes() []backend.Lane {
	t.s.Helper()
	t.s.noError("Lanes", t.s.Lanes(t.clk, t.reports))
	return t.reports
}

// verify compares Lanes and Poll with the reference. verb is what came before.
func (t *timer[T]) verify(verb string) {
	t.s.Helper()
	p, err := t.s.Poll(t.clk)
	t.s.noError("Poll", err)
	want := t.ref.progress()
	if want.Running == 0 && t.ref.own() {
		want.T = p.T // which of the ends it is is not said
	}
	if p.Running != want.Running || p.Failed != want.Failed || p.Accepted != want.Accepted || p.Rejected != want.Rejected ||
		p.Attempts != want.Attempts || math.Abs(p.T-want.T) > t.slack() {
		t.s.Errorf("%s: Poll says %+v, want %+v", verb, p, want)
	}
	for i, got := range t.lanes() {
		w := t.ref.lanes[i].report()
		if got.Status != w.Status || got.Accepted != w.Accepted || got.Rejected != w.Rejected || got.Evaluations != w.Evaluations ||
			math.Abs(got.T-w.T) > t.slack() || !t.sameSize(got.H, w.H) || !closeTo(got.Next, w.Next, rel) ||
			!t.sameSize(got.SmallestH, w.SmallestH) || !t.sameSize(got.LastH, w.LastH) {
			got.Row, got.Col, got.Ratio = 0, 0, 0
			t.s.fatalf("%s: Lanes: lane %d of %d is\n%+v, want\n%+v", verb, i, len(t.reports), got, w)
		}
	}
}

// slack is how far times may differ that are sums of many steps.
func (t *timer[T]) slack() float64 {
	return 1e-10 * t.latest()
}

// latest is the largest time in the spans, without its sign.
func (t *timer[T]) latest() (latest float64) {
	for i := range t.ref.lanes {
		l := &t.ref.lanes[i]
		latest = max(latest, math.Abs(l.span.T0), math.Abs(l.last()))
	}
	return latest
}

// rel is how far sizes may differ: a hundred steps of a few roundings and powers each.
const rel = 1e-10

// sameSize compares sizes of steps, which are rounded as t is.
func (t *timer[T]) sameSize(got, want float64) bool {
	ulp := 0x1p-52 * t.latest()
	return math.Abs(got-want) <= 2*ulp || closeTo(got, want, rel)
}

// each is the same ratio for every lane.
func each(r float64) func(int) float64 { return func(int) float64 { return r } }

// stock is the control that cases start from: F = 0.9/√e.
var stock = backend.Control{
	Order: 2, Beta: [3]float64{0.5, 0, 0}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 5, Handover: backend.HandLast,
}

// kinds is how many states of a lane scene makes.
const kinds = 5

// scene makes a clock with lanes in different states: lane i is of kind (i+first)
// modulo kinds,
//
//	0 done by the step just accepted, on stop 0, with an output inside it
//	1 running, accepted with an output inside
//	2 running, accepted without an output
//	3 ended an attempt ago
//	4 running, rejected
//
// of which only kind 2 has a stale first stage, and took its step with a fresh one.
func (s *suite[T]) scene(lanes, first int) *timer[T] {
	s.Helper()
	t := s.timer(lanes, backend.Span{T0: 0.25, H0: 1, Saves: []float64{1.9, 2}, Stops: []float64{4}})
	ctl := stock
	ctl.MinStep = 0.5
	for _, ratio := range [2][kinds]float64{
		{0.04, 0.9, 2, math.NaN(), 0.9},
		{0.5, 0.5, 0.3, 0, 2},
	} {
		t.attempt(ctl, func(lane int) float64 { return ratio[(lane+first)%kinds] })
		ctl.Handover = backend.HandSaving
	}
	t.verify("scene")
	return t
}

// fresh makes a clock of which all lanes are about to make their first step.
func (s *suite[T]) fresh(lanes int) *timer[T] {
	s.Helper()
	return s.timer(lanes, backend.Span{T0: 0.3, H0: 0.7, Stops: []float64{9}})
}

// clocks calls do with clocks for that many rows: one lane and one a row, fresh, and
// in every state, with every selection of rows.
func (s *suite[T]) clocks(rows int, thorough bool, do func(t *timer[T], sel backend.Rows)) {
	s.Helper()
	do(s.fresh(1), backend.Running)
	if rows > 1 {
		do(s.fresh(rows), backend.Running)
	}
	if !thorough {
		return
	}
	scenes := []*timer[T]{s.scene(rows, 0)}
	for kind := range kinds {
		scenes = append(scenes, s.scene(1, kind))
	}
	for _, t := range scenes {
		for sel := backend.Running; sel <= backend.Fresh; sel++ {
			do(t, sel)
		}
	}
}

// at is the instant c of rows.
func (t *timer[T]) at(c float64, rows backend.Rows) backend.At {
	return backend.At{Clock: t.clk, C: c, Rows: rows}
}

// instant is the time of a row.
func (t *timer[T]) instant(row int, at backend.At) float64 {
	return t.ref.laneOf(row).stepOf(at.Rows).instant(at.C)
}

// size is the step size of a row.
func (t *timer[T]) size(row int, at backend.At) float64 {
	return t.ref.laneOf(row).stepOf(at.Rows).h
}

// timeField is f(t, z) = t of dimension 1.
func (s *suite[T]) timeField() backend.Field[T] {
	s.Helper()
	return s.bind(&mlp.Model[T]{
		Spec:  mlp.Spec{Widths: []int{1, 1}, Activations: []mlp.Activation{mlp.Identity}, Time: mlp.TimeInput},
		Theta: []T{0, 1, 0},
	})
}

// place is the index in a table of the first element of entry j of a row, a block or,
// where every lane has a span of its own, a row; ok is false beyond the table.
func (t *timer[T]) place(table *operand[T], row, j int) (at int, ok bool) {
	block := j
	if t.ref.own() {
		block, row = 0, j
	}
	return (block*table.rows + row) * table.cols, block < table.blocks && row < table.rows
}

// rows is how many rows the states have to which a table belongs.
func (t *timer[T]) rows(table *operand[T]) int {
	if t.ref.own() {
		return len(t.ref.lanes)
	}
	return table.rows
}

// outputs calls do for every row and every output in the step it just took: its time,
// and where in the table it is.
func (t *timer[T]) outputs(table *operand[T], do func(row int, l *refLane, time float64, at int)) {
	for row := range t.rows(table) {
		l := t.ref.laneOf(row)
		for _, j := range l.outputs {
			entry := j
			if t.ref.own() {
				entry += l.span.Row
			}
			if at, ok := t.place(table, row, entry); ok {
				do(row, l, l.span.Saves[j], at)
			}
		}
	}
}

// stops calls do for every row whose step just ended on a stop that the table has an
// entry for.
func (t *timer[T]) stops(table *operand[T], do func(row, at int)) {
	for row := range t.rows(table) {
		if block := t.ref.laneOf(row).block; block >= 0 {
			if at, ok := t.place(table, row, block); ok {
				do(row, at)
			}
		}
	}
}

// nums is what an operand holds, as a reference for what does not change.
func (o *operand[T]) nums() []num {
	x := make([]num, len(o.host))
	for i, v := range o.host {
		x[i] = exact(v)
	}
	return x
}
