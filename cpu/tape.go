package cpu

import (
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// tape keeps accepted steps in host memory.
type tape[T backend.Float] struct {
	owner *Backend[T]
	keep  int
	size  int // elements of one vector in one lane
	lanes []tapeLane[T]
	bytes int64
	// attempt is the one that Back has gone back to.
	attempt int64
}

type tapeLane[T backend.Float] struct {
	steps []taped
	d     []T // what was kept of each
	left  int // steps that Back has not reached
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
		t.owner.bytes -= t.bytes
	}
	t.lanes, t.bytes = nil, 0
}

// NewTape makes an empty tape.
func (b *Backend[T]) NewTape(lanes, rows, cols, keep int) (backend.Tape[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if lanes != 1 && lanes != rows || lanes < 1 || rows < 0 || cols < 0 || keep < 0 {
		panic("cpu: a tape needs one lane or as many as rows")
	}
	t := &tape[T]{owner: b, keep: keep, size: rows / lanes * cols, lanes: make([]tapeLane[T], lanes)}
	t.bytes = int64(lanes) * sizeOf[tapeLane[T]]()
	b.bytes += t.bytes
	return t, nil
}

func (b *Backend[T]) tape(tp backend.Tape[T]) *tape[T] {
	t, ok := tp.(*tape[T])
	if !ok || t.owner != b {
		panic("cpu: tape of another backend")
	}
	return t
}

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

// Push appends the accepted steps to the tape.
func (b *Backend[T]) Push(clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T]) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	t.check(c, keep)
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.accepted {
			continue
		}
		tl := &t.lanes[i]
		before := tl.bytes()
		tl.steps = append(tl.steps, taped{took: l.took, attempt: l.nAccepted + l.nRejected})
		tl.d = slices.Grow(tl.d, t.keep*t.size)
		for _, v := range keep {
			x := b.vec(v)
			lo, hi := c.rangeOf(x, i)
			tl.d = append(tl.d, x.d[lo:hi]...)
		}
		grown := tl.bytes() - before
		b.bytes += grown
		t.bytes += grown
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
		b.bytes += l.bytes() - before
		t.bytes += l.bytes() - before
	}
	return nil
}

// Rewind goes behind the last of so many attempts.
func (b *Backend[T]) Rewind(clk backend.Clock, tp backend.Tape[T], attempts int64, skip []bool) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	if len(c.lanes) != len(t.lanes) || skip != nil && len(skip) != len(c.lanes) {
		panic("cpu: Rewind with another number of lanes")
	}
	t.attempt = attempts + 1
	for i := range c.lanes {
		l, tl := &c.lanes[i], &t.lanes[i]
		l.nothing()
		tl.left = 0
		if skip == nil || !skip[i] {
			tl.left = len(tl.steps)
		}
		for tl.left > 0 && tl.steps[tl.left-1].attempt > attempts {
			tl.left--
		}
	}
}

// Back goes back by one attempt.
func (b *Backend[T]) Back(clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T]) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	t.check(c, keep)
	t.attempt--
	for i := range c.lanes {
		l, tl := &c.lanes[i], &t.lanes[i]
		n := tl.left - 1
		l.accepted = n >= 0 && tl.steps[n].attempt == t.attempt
		if !l.accepted {
			l.nothing()
			continue
		}
		tl.left--
		l.took = tl.steps[n].took
		for m, v := range keep {
			x := b.out(v)
			lo, hi := c.rangeOf(x, i)
			from := (n*t.keep + m) * t.size
			copy(x.d[lo:hi], tl.d[from:from+t.size])
		}
	}
}
