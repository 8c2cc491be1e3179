package cpu

import (
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

var (
	_ backend.Reverser[float32] = (*Backend[float32])(nil)
	_ backend.Reverser[float64] = (*Backend[float64])(nil)
	_ backend.Cutter[float32]   = (*Backend[float32])(nil)
)

// CopyClock sets the lanes of dst to those of src.
func (b *Backend[T]) CopyClock(dst, src backend.Clock) {
	if !b.live() {
		return
	}
	b.unrecorded("CopyClock")
	d, s := b.clock(dst), b.clock(src)
	if len(d.lanes) != len(s.lanes) {
		panic("cpu: CopyClock of another number of lanes")
	}
	copy(d.lanes, s.lanes)
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
	b.unrecorded("WriteClock")
	if len(src) != b.ClockSize(clk) {
		panic("cpu: WriteClock from a slice of another length")
	}
	copy(b.clock(clk).bytesOf(), src)
}
