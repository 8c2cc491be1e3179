package adjoint

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// timesSize is about the number of bytes that timeGradients takes for n outputs of a
// batch, or of all its samples where each has its own.
func timesSize[T backend.Float](batch, dim, n int, own bool) int64 {
	if own {
		return step.VecSize[T](1, 2*batch+n, dim) + step.ClockSize(batch)
	}
	return step.VecSize[T](n+2, batch, dim) + step.ClockSize(1)
}

// short adds to a failure of memory the budget that would fit, and frees what d holds:
// steps may have what the loop and the way back leave. It returns other errors as they
// are.
func (d *discrete[T]) short(dev *solver.Device[T], err error) error {
	var m *backend.MemoryError
	loop, limit := d.rec.loop, d.rec.limit
	if loop == nil || !errors.As(err, &m) {
		return err // a loop that could not be made says itself what would fit
	}
	need := step.Size(loop.Config) + reversalSize(dev, loop) + timesSize[T](loop.Rows, loop.Cols, loop.Saves, loop.Ragged)
	theta := step.VecSize[T](1, 1, dev.Field.NumParams())
	// A checkpoint, with two states, and a tape of one step.
	least := 3*step.VecSize[T](loop.Blocks, loop.Rows, loop.Cols) + 2*step.ClockSize(loop.Lanes)
	d.free(dev.Backend)
	used := dev.Backend.MemoryUsed()
	room := m.Free + m.InUse - used
	budget := room - room/8 - need // an eighth for scratch memory, which is not counted here
	if limit != nil && budget >= limit.budget {
		budget = limit.budget - m.Wanted
	}
	switch n := m.Fits(loop.Rows, need+2*least-theta, used+theta); {
	case budget >= least:
		return fmt.Errorf("%w; set Settings.Budget to %d bytes", err, budget)
	case n > 0:
		return fmt.Errorf("%w; a batch of %d would fit, with a Settings.Budget if it makes many steps", err, n)
	}
	return err
}
