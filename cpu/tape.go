package cpu

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// tape keeps accepted steps in host memory.
type tape[T backend.Float] struct {
	owner *Backend[T]
	keep  int
	size  int // elements of one vector in one lane
	lanes []tapeLane[T]
	bytes atomic.Int64
	cols  int
}

type tapeLane[T backend.Float] struct {
	steps []taped
	d     []T // what was kept of each
	left  int // steps that Back has not reached
	// attempt is the one that Back has gone back to.
	attempt int64
}

// taped is a step on the tape.
type taped struct {
	took
	attempt int64 // that accepted it, counted from 1
}

func (l *tapeLane[T]) bytes() int64 {
	return int64(cap(l.steps))*sizeOf[taped]() + int64(cap(l.d))*sizeOf[T]()
}

func (t *tape[T]) Len(lane int) int { return len(t.lanes[lane].steps) }

func (t *tape[T]) Close() {
	if !t.owner.closed {
		t.owner.bytes.Add(-t.bytes.Load())
	}
	t.lanes = nil
	t.bytes.Store(0)
}

// NewTape makes an empty tape.
func (b *Backend[T]) NewTape(lanes, rows, cols, keep int) (backend.Tape[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if lanes != 1 && lanes != rows || lanes < 1 || rows < 0 || cols < 0 || keep < 0 {
		panic("cpu: a tape needs one lane or as many as rows")
	}
	t := &tape[T]{owner: b, keep: keep, size: rows / lanes * cols, cols: cols, lanes: make([]tapeLane[T], lanes)}
	t.grow(int64(lanes) * sizeOf[tapeLane[T]]())
	return t, nil
}

func (b *Backend[T]) tape(tp backend.Tape[T]) *tape[T] {
	t, ok := tp.(*tape[T])
	if !ok || t.owner != b {
		panic("cpu: tape of another backend")
	}
	b.uses(t)
	return t
}

func (t *tape[T]) released() bool { return t.lanes == nil }

// check panics unless keep are vectors that t keeps of the lanes of c.
func (t *tape[T]) check(c *clock[T], keep []backend.Vec[T]) {
	if len(keep) != t.keep || len(c.lanes) != len(t.lanes) {
		panic("cpu: a tape of another shape")
	}
	for _, v := range keep {
		x := t.owner.vec(v)
		if lo, hi := c.rangeOf(x, 0); x.blocks != 1 || hi-lo != t.size {
			panic("cpu: a tape of another shape")
		}
	}
}

// grow counts memory.
func (t *tape[T]) grow(bytes int64) {
	t.bytes.Add(bytes)
	t.owner.bytes.Add(bytes)
}

// kept are rows lo to hi of vector m of step n of a lane.
func (t *tape[T]) kept(lane, n, m, lo, hi int) []T {
	at := (n*t.keep + m) * t.size
	if len(t.lanes) > 1 { // the lane's one row
		lo, hi = 0, 1
	}
	return t.lanes[lane].d[at+lo*t.cols : at+hi*t.cols]
}

// Push appends the accepted steps to the tape.
func (b *Backend[T]) Push(clk backend.Clock, tp backend.Tape[T], keeps []backend.Vec[T]) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.push)
	o.taping.set(b, clk, tp, keeps, false)
	b.do(o)
}

// taping is what Push and Back work on.
type taping[T backend.Float] struct {
	on[T]
	tape *tape[T]
	keep []*vec[T]
}

func (o *taping[T]) set(b *Backend[T], clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T], write bool) {
	c := b.clock(clk)
	o.tape, o.keep = b.tape(tp), o.keep[:0]
	o.tape.check(c, keep)
	o.on = on[T]{clk: c, rows: -1}
	if !c.single() {
		o.rows = len(c.lanes)
	}
	for _, v := range keep {
		x := b.vec(v)
		if write {
			x.mem.version++
		}
		o.keep, o.rows = append(o.keep, x), x.rows
		o.work += x.cols
	}
}

// push is the op of Push.
type push[T backend.Float] struct{ taping[T] }

func (o *push[T]) before(lo, hi int) {
	t := o.tape
	for i := lo; i < hi; i++ {
		l, tl := &o.clk.lanes[i], &t.lanes[i]
		if !l.accepted {
			continue
		}
		before := tl.bytes()
		tl.steps = append(tl.steps, taped{took: l.took, attempt: l.nAccepted + l.nRejected})
		n := len(tl.d)
		tl.d = slices.Grow(tl.d, t.keep*t.size)[:n+t.keep*t.size]
		if grown := tl.bytes() - before; grown != 0 {
			t.grow(grown)
		}
	}
}

func (o *push[T]) unit(_ *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		if !o.clk.lanes[i].accepted {
			continue
		}
		for m, x := range o.keep {
			copy(o.tape.kept(i, len(o.tape.lanes[i].steps)-1, m, lo, hi), x.part(0, lo, hi))
		}
	}
}

// ReadTape copies step i of a lane.
func (b *Backend[T]) ReadTape(tp backend.Tape[T], lane, i int, dst []T) (t, h float64, err error) {
	if err := b.takeErr(); err != nil {
		return 0, 0, err
	}
	x := b.tape(tp)
	tl, n := &x.lanes[lane], x.keep*x.size
	if i < 0 || i >= len(tl.steps) {
		panic("cpu: ReadTape of a step that is not on the tape")
	}
	if len(dst) != n {
		panic("cpu: ReadTape to a slice of another length")
	}
	copy(dst, tl.d[i*n:(i+1)*n])
	return tl.steps[i].taken, tl.steps[i].hTook, nil
}

// Reset empties the tape.
func (b *Backend[T]) Reset(tp backend.Tape[T]) {
	if !b.live() {
		return
	}
	b.unrecorded("Reset")
	t := b.tape(tp)
	for i := range t.lanes {
		l := &t.lanes[i]
		l.steps, l.d, l.left = l.steps[:0], l.d[:0], 0
	}
}

// Reserve changes the memory of an empty tape.
func (b *Backend[T]) Reserve(tp backend.Tape[T], steps int) error {
	if !b.live() {
		return b.takeErr()
	}
	b.unrecorded("Reserve")
	if steps < 0 {
		panic("cpu: Reserve of a negative number of steps")
	}
	t := b.tape(tp)
	for i := range t.lanes {
		l := &t.lanes[i]
		if len(l.steps) > 0 {
			panic("cpu: Reserve of a tape that is not empty")
		}
		before := l.bytes()
		taken, ok := allocate[taped](steps)
		d, fits := allocate[T](steps, t.keep, t.size)
		if !ok || !fits {
			return fmt.Errorf("cpu: a tape of %d steps: %w: keep fewer", steps, backend.ErrOutOfMemory)
		}
		l.steps, l.d = taken[:0], d[:0]
		t.grow(l.bytes() - before)
	}
	return nil
}

// Rewind goes behind the last of so many attempts.
func (b *Backend[T]) Rewind(clk backend.Clock, tp backend.Tape[T], attempts int64, skip []bool) {
	if !b.live() {
		return
	}
	b.unrecorded("Rewind")
	c, t := b.clock(clk), b.tape(tp)
	if len(c.lanes) != len(t.lanes) || skip != nil && len(skip) != len(c.lanes) {
		panic("cpu: Rewind with another number of lanes")
	}
	for i := range c.lanes {
		l, tl := &c.lanes[i], &t.lanes[i]
		l.nothing()
		tl.left, tl.attempt = 0, attempts+1
		if skip == nil || !skip[i] {
			tl.left = len(tl.steps)
		}
		for tl.left > 0 && tl.steps[tl.left-1].attempt > attempts {
			tl.left--
		}
	}
}

// Back goes back by one attempt.
func (b *Backend[T]) Back(clk backend.Clock, tp backend.Tape[T], keeps []backend.Vec[T]) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.back)
	o.taping.set(b, clk, tp, keeps, true)
	b.do(o)
}

// back is the op of Back.
type back[T backend.Float] struct{ taping[T] }

func (o *back[T]) before(lo, hi int) {
	for i := lo; i < hi; i++ {
		l, tl := &o.clk.lanes[i], &o.tape.lanes[i]
		tl.attempt--
		n := tl.left - 1
		l.accepted = n >= 0 && tl.steps[n].attempt == tl.attempt
		if !l.accepted {
			l.nothing()
			continue
		}
		tl.left--
		l.took = tl.steps[n].took
	}
}

func (o *back[T]) unit(_ *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		if !o.clk.lanes[i].accepted {
			continue
		}
		for m, x := range o.keep {
			copy(x.part(0, lo, hi), o.tape.kept(i, o.tape.lanes[i].left, m, lo, hi))
		}
	}
}

func (o *back[T]) alive(lo, hi int) bool {
	for i := lo; i < hi; i++ {
		if o.tape.lanes[i].left > 0 {
			return true
		}
	}
	return false
}
