package step

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// VecSize is about the number of bytes that a Vec takes on a device.
func VecSize[T backend.Float](blocks, rows, cols int) int64 {
	var x T
	const granule = 256
	return (int64(blocks)*int64(rows)*int64(cols)*int64(unsafe.Sizeof(x)) + granule - 1) &^ (granule - 1)
}

// ClockSize is about the number of bytes that a clock takes on a device.
func ClockSize(lanes int) int64 { return 256 * int64(max(lanes, 32)) }

// Size is about the number of bytes that [New] and [Loop.Start] allocate on a device,
// without those of steps.
func Size[T backend.Float](c Config[T]) int64 {
	m := &meter[T]{}
	c.Backend, c.Fusion = m, backend.FuseNever
	New(c) // does not fail
	if c.Ragged {
		m.bytes += 160*int64(c.Lanes) + 8*int64(c.Saves) // spans
	}
	return m.bytes
}

// meter allocates nothing, and counts.
type meter[T backend.Float] struct {
	backend.Backend[T] // nil: New calls nothing else
	bytes              int64
}

func (m *meter[T]) NewVec(blocks, rows, cols int) (backend.Vec[T], error) {
	m.bytes += VecSize[T](blocks, rows, cols)
	return measured[T]{blocks, rows, cols}, nil
}

func (m *meter[T]) NewClock(lanes int) (backend.Clock, error) {
	m.bytes += ClockSize(lanes)
	return nil, nil
}

type measured[T backend.Float] struct{ blocks, rows, cols int }

func (v measured[T]) Shape() (blocks, rows, cols int) { return v.blocks, v.rows, v.cols }
func (v measured[T]) Block(int) backend.Vec[T]        { return measured[T]{1, v.rows, v.cols} }

// TooLarge adds to a failure of memory how many samples of a batch would have fit: all
// of them need so many bytes, and `fixed` more for any number. What dev holds stays.
func TooLarge[T backend.Float](err error, dev backend.Backend[T], batch int, bytes, fixed int64) error {
	var m *backend.MemoryError
	if errors.As(err, &m) {
		if n := m.Fits(batch, bytes, dev.MemoryUsed()+fixed); n > 0 {
			return fmt.Errorf("%w; a batch of %d would fit", err, n)
		}
	}
	return err
}
