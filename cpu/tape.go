package cpu

import (
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
}

type tapeLane[T backend.Float] struct {
	t, h []float64
	d    []T
}

func (l *tapeLane[T]) bytes() int64 {
	return int64(cap(l.t)+cap(l.h))*sizeOf[float64]() + int64(cap(l.d))*sizeOf[T]()
}

func (t *tape[T]) Len(lane int) int { return len(t.lanes[lane].t) }

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

// Push appends the accepted steps to the tape.
func (b *Backend[T]) Push(clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T]) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	if len(keep) != t.keep || len(c.lanes) != len(t.lanes) {
		panic("cpu: Push of another shape than the tape's")
	}
	for _, v := range keep {
		x := b.vec(v)
		if lo, hi := c.rangeOf(x, 0); x.blocks != 1 || hi-lo != t.size {
			panic("cpu: Push of another shape than the tape's")
		}
	}
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.accepted {
			continue
		}
		tl := &t.lanes[i]
		before := tl.bytes()
		tl.t, tl.h = append(tl.t, l.taken), append(tl.h, l.hTook)
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
	if i < 0 || i >= len(tl.t) {
		panic("cpu: ReadTape of a step that is not on the tape")
	}
	if len(dst) != n {
		panic("cpu: ReadTape to a slice of another length")
	}
	copy(dst, tl.d[i*n:(i+1)*n])
	return tl.t[i], tl.h[i], nil
}
