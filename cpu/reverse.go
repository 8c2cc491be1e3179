package cpu

import (
	"math"
	"sort"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

var (
	_ backend.Reverser[float32] = (*Backend[float32])(nil)
	_ backend.Reverser[float64] = (*Backend[float64])(nil)
	_ backend.Cutter[float32]   = (*Backend[float32])(nil)
)

// SaveVJP is the vector-Jacobian product of Save.
func (b *Backend[T]) SaveVJP(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(dense) > len(k) || len(dense) > maxStages {
		panic("cpu: more interpolation weights than stages")
	}
	c := b.clock(clk)
	table, s0, s1 := b.vec(cotangents), b.out(y0), b.out(y1)
	sameShape(s0, s1)
	c.checkTable(table, s0)
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.accepted {
			continue
		}
		lo, hi := c.rangeOf(s0, i)
		clear(s0.d[lo:hi])
		for st := range dense {
			stage := b.out(k[st])
			sameShape(s0, stage)
			clear(stage.d[lo:hi])
		}
		for j := l.saveFrom; j < l.save; j++ {
			C := c.outputCells(table, i, j)
			if C == nil {
				break
			}
			x, end := l.place(c.span(i).Saves[j])
			if end {
				addTo(s1.d[lo:hi], 1, C)
				continue
			}
			addTo(s0.d[lo:hi], 1, C)
			for st, poly := range dense {
				if w := horner(poly, x); w != 0 {
					b.blas.addScaled(T(l.hTook*w), C, b.vec(k[st]).d[lo:hi])
				}
			}
		}
	}
}

// CopyClock sets the lanes of dst to those of src.
func (b *Backend[T]) CopyClock(dst, src backend.Clock) {
	if !b.live() {
		return
	}
	d, s := b.clock(dst), b.clock(src)
	if len(d.lanes) != len(s.lanes) {
		panic("cpu: CopyClock of another number of lanes")
	}
	copy(d.lanes, s.lanes)
}

// Interpolate sets dst to the solution on the tape at an instant.
func (b *Backend[T]) Interpolate(dst backend.Vec[T], at backend.At, tp backend.Tape[T], dense [][]float64) {
	if !b.live() {
		return
	}
	c, t, out := b.clock(at.Clock), b.tape(tp), b.out(dst)
	if lo, hi := c.rangeOf(out, 0); out.blocks != 1 || hi-lo != t.size || len(t.lanes) != len(c.lanes) || len(dense)+2 > t.keep {
		panic("cpu: a tape of another shape")
	}
	for i := range c.lanes {
		l, tl := &c.lanes[i], &t.lanes[i]
		if !l.selected(at.Rows) || len(tl.steps) == 0 {
			continue
		}
		lo, hi := c.rangeOf(out, i)
		D, now := out.d[lo:hi], l.instant(at.Rows, at.C)
		sign := math.Copysign(1, tl.steps[0].hTook)
		// The first step that ends at or after now.
		n := sort.Search(len(tl.steps)-1, func(n int) bool { return sign*(tl.steps[n].end-now) >= 0 })
		st := &tl.steps[n]
		kept := func(m int) []T {
			from := (n*t.keep + m) * t.size
			return tl.d[from : from+t.size]
		}
		x := (now - st.taken) / st.hTook
		if now == st.end || x >= 1 {
			copy(D, kept(1))
			continue
		}
		copy(D, kept(0))
		for j, poly := range dense {
			if w := horner(poly, max(x, 0)); w != 0 {
				b.blas.addScaled(T(st.hTook*w), kept(2+j), D)
			}
		}
	}
}

// bytesOf is the memory of the lanes, which have no pointers.
func (c *clock[T]) bytesOf() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c.lanes))), len(c.lanes)*int(sizeOf[lane]()))
}

// ClockSize is the number of bytes of a clock's lanes.
func (b *Backend[T]) ClockSize(clk backend.Clock) int { return len(b.clock(clk).bytesOf()) }

// ReadClock copies the lanes of a clock.
func (b *Backend[T]) ReadClock(dst []byte, clk backend.Clock) error {
	if err := b.takeErr(); err != nil {
		return err
	}
	if len(dst) != b.ClockSize(clk) {
		panic("cpu: ReadClock to a slice of another length")
	}
	copy(dst, b.clock(clk).bytesOf())
	return nil
}

// WriteClock sets the lanes of a clock.
func (b *Backend[T]) WriteClock(clk backend.Clock, src []byte) {
	if !b.live() {
		return
	}
	if len(src) != b.ClockSize(clk) {
		panic("cpu: WriteClock from a slice of another length")
	}
	copy(b.clock(clk).bytesOf(), src)
}
