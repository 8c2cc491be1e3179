//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var (
	_ backend.Reverser[float32] = (*Backend[float32])(nil)
	_ backend.Reverser[float64] = (*Backend[float64])(nil)
	_ backend.Cutter[float32]   = (*Backend[float32])(nil)
)

// Reset empties the tape.
func (b *Backend[T]) Reset(tp backend.Tape[T]) {
	if !b.live() {
		return
	}
	t := b.tape(tp)
	b.hosted(func(int) { t.bound, t.first, t.window.count = 0, nil, 0 })
	b.d.Memset(t.longest, 0, 4)
	b.d.Memset(t.view.counts, 0, 8*int64(t.lanes))
}

// Reserve changes the memory of an empty tape.
func (b *Backend[T]) Reserve(tp backend.Tape[T], steps int) error {
	if !b.live() {
		return b.takeErr()
	}
	t := b.tape(tp)
	if t.bound > 0 || steps < 0 {
		panic("gpu: Reserve of a tape that is not empty, or for less than no steps")
	}
	t.freeChunks()
	b.pool.moved(t.mem)      // recorded calls know how chunks are divided
	const largest = 64 << 20 // bytes of a chunk
	t.divide(min(int64(max(steps, 1)), max(largest/max(t.step(), 1), 1)))
	if err := t.grow(steps); err != nil {
		t.freeChunks()
		return err
	}
	return b.takeErr()
}

// rewindArgs is RewindArgs in kernels/tape.cu.
type rewindArgs struct {
	clk         clockView
	tape        tapeView
	skip        driver.Ptr
	attempts, _ int32
}

// Rewind goes behind the last of so many attempts.
func (b *Backend[T]) Rewind(clk backend.Clock, tp backend.Tape[T], attempts int64, skip []bool) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	if c.lanes != t.lanes || skip != nil && len(skip) != c.lanes {
		panic("gpu: Rewind with another number of lanes")
	}
	words, size, ok := b.flags(skip)
	if !ok {
		return
	}
	defer b.release(words, size)
	a := rewindArgs{clk: c.view, tape: t.view, skip: words, attempts: int32(attempts)}
	launch(b, "tape", "tape_rewind", ceilDiv(int64(c.lanes), blockSize), 0, &a)
}

// flags are the lanes of skip on the device, null for nil, in memory to release.
func (b *Backend[T]) flags(skip []bool) (p driver.Ptr, size int64, ok bool) {
	if skip == nil {
		return 0, 0, true
	}
	words := make([]int32, len(skip))
	for i, out := range skip {
		if out {
			words[i] = 1
		}
	}
	size = 4 * int64(len(words))
	if p, ok = b.room(size); ok {
		b.d.CopyHD(p, unsafe.Pointer(&words[0]), size)
	}
	return p, size, ok
}

// Back goes back by one attempt.
func (b *Backend[T]) Back(clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T]) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	if len(keep) != int(t.view.keep) || c.lanes != t.lanes {
		panic("gpu: a tape of another shape")
	}
	launch(b, "tape", "tape_back", ceilDiv(int64(c.lanes), blockSize), 0, &tallyArgs{c.view, t.view})
	t.move(c, names{"tape_restore", "tape_restore_1"}, keep)
}

// SaveVJP is the vector-Jacobian product of Save.
func (b *Backend[T]) SaveVJP(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(dense) > len(k) || len(dense) > maxStages {
		panic("gpu: more interpolation weights than stages")
	}
	b.save("rk_save_vjp", true, clk, dense, y0, y1, k, cotangents)
}

// interpolateArgs is InterpolateArgs in kernels/tape.cu.
type interpolateArgs struct {
	clk                     clockView
	tape                    tapeView
	x                       flat
	dst                     driver.Ptr
	c                       float64
	rows, stages, powers, _ int32
	dense                   [maxTerms]float64
}

// Interpolate sets dst to the solution on the tape at an instant.
func (b *Backend[T]) Interpolate(dst backend.Vec[T], at backend.At, tp backend.Tape[T], dense [][]float64) {
	if !b.live() {
		return
	}
	c, t, out := b.clock(at.Clock), b.tape(tp), b.vec(dst)
	if out.blocks != 1 || out.rows != t.rows || out.cols != t.cols || c.lanes != t.lanes || len(dense)+2 > int(t.view.keep) {
		panic("gpu: a tape of another shape")
	}
	a := interpolateArgs{clk: c.view, tape: t.view, dst: out.ptr, c: at.C, rows: selection(at.Rows), stages: int32(len(dense))}
	for _, p := range dense {
		a.powers = max(a.powers, int32(len(p)))
	}
	if int(a.powers)*len(dense) > maxTerms {
		b.fail(fmt.Errorf("gpu: an interpolant of %d stages and degree %d: %w: at most %d weights fit; use the CPU backend",
			len(dense), a.powers, backend.ErrUnsupported, maxTerms))
		return
	}
	for j, p := range dense {
		copy(a.dense[j*int(a.powers):], p)
	}
	a.x, _ = flatten(c, out, out.ptr)
	launch(b, "tape", "tape_interpolate", ceilDiv(a.x.total, blockSize), 0, &a)
}

// laneBytes is the size of the arrays of a clock.
func (c *clock[T]) laneBytes() int64 {
	return int64(c.view.stride) * (8*numReals + 8*numWides + 4*numWords)
}

// CopyClock sets the lanes of dst to those of src.
func (b *Backend[T]) CopyClock(dst, src backend.Clock) {
	if !b.live() {
		return
	}
	d, s := b.clock(dst), b.clock(src)
	if d.lanes != s.lanes {
		panic("gpu: CopyClock of another number of lanes")
	}
	b.d.CopyDD(d.view.reals, s.view.reals, d.laneBytes())
}

// ClockSize is the number of bytes of a clock's lanes.
func (b *Backend[T]) ClockSize(clk backend.Clock) int { return int(b.clock(clk).laneBytes()) }

// ReadClock waits, and copies the lanes of a clock.
func (b *Backend[T]) ReadClock(dst []byte, clk backend.Clock) error {
	if !b.live() {
		return b.takeErr()
	}
	c := b.clock(clk)
	if int64(len(dst)) != c.laneBytes() {
		panic("gpu: ReadClock to a slice of another length")
	}
	return b.d.CopyDH(unsafe.Pointer(&dst[0]), c.view.reals, c.laneBytes())
}

// WriteClock sets the lanes of a clock.
func (b *Backend[T]) WriteClock(clk backend.Clock, src []byte) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	if int64(len(src)) != c.laneBytes() {
		panic("gpu: WriteClock from a slice of another length")
	}
	b.d.CopyHD(c.view.reals, unsafe.Pointer(&src[0]), c.laneBytes())
}

// cutArgs is CutArgs in kernels/clock.cu.
type cutArgs struct {
	clk           clockView
	times, status driver.Ptr
}

// Cut ends the accepted steps of lanes early.
func (b *Backend[T]) Cut(clk backend.Clock, times []float64, status []backend.Status) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	if len(times) != c.lanes || len(status) != c.lanes {
		panic("gpu: Cut needs one time and one status a lane")
	}
	words := make([]int32, len(status))
	for i, s := range status {
		words[i] = int32(s)
	}
	n := int64(c.lanes)
	p, ok := b.room(12 * n)
	if !ok {
		return
	}
	defer b.release(p, 12*n)
	a := cutArgs{clk: c.view, times: p, status: p + driver.Ptr(8*n)}
	b.d.CopyHD(a.times, unsafe.Pointer(&times[0]), 8*n)
	b.d.CopyHD(a.status, unsafe.Pointer(&words[0]), 4*n)
	perLane(c, "clock_cut", &a)
}
