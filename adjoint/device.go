package adjoint

import (
	"context"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// OnDevice computes dL/dθ for states and cotangents that are on the solver's device:
// both are n×B×D, one block for each of ts, which ascends or descends. jumps lists,
// ascending, the times whose cotangents count, by index; the first time, index 0, has
// no influence on dL/dθ and is not among them. The gradient, 1×1×P, is valid until the
// next one. Nothing is checked for being finite, and the error wraps
// solver.ErrIncomplete if a sample did not reach ts[0]. Call it from within
// [solver.Solver.OnDevice].
func (a *Adjoint[T]) OnDevice(ctx context.Context, d *solver.Device[T], ts []float64, jumps []int, states, dLdz backend.Vec[T]) (backend.Vec[T], error) {
	if len(jumps) == 0 || jumps[0] < 1 || jumps[len(jumps)-1] >= len(ts) {
		panic("adjoint: OnDevice needs the index of a time after the first")
	}
	at := append([]int{0}, jumps...)
	slices.Reverse(at)
	dev := d.Backend
	_, batch, _ := states.Shape()
	mem, err := a.memory(dev, d.Field, batch, len(at))
	if err != nil {
		return nil, fmt.Errorf("adjoint: a batch of %d with %d cotangents in time: %w", batch, len(jumps), err)
	}
	for j, i := range at {
		dev.Copy(mem.saved.Block(j), states.Block(i))
		dev.Copy(mem.jump.Block(j), dLdz.Block(i))
	}
	mem.rewind(dev)
	p, err := mem.loop.Run(ctx, a.span(ts, at))
	if err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	if p.Running > 0 || p.Failed > 0 {
		return nil, fmt.Errorf("adjoint: reverse solve: %w: %d failed and %d still under way", solver.ErrIncomplete, p.Failed, p.Running)
	}
	return mem.theta, nil
}
