package adjoint

import (
	"context"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// SolveOnDevice is [solver.Device.Solve], and keeps what OnDevice needs. The states
// are valid until the next solve of a. Call it from within [solver.Solver.OnDevice].
func (a *Adjoint[T]) SolveOnDevice(ctx context.Context, d *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	return a.reverse.solveOnDevice(ctx, d, z0, ts)
}

// OnDevice computes dL/dθ of the last SolveOnDevice for states and cotangents that are
// on the solver's device: both are n×B×D, one block for each of ts, which ascends or
// descends. jumps lists, ascending, the times whose cotangents count, by index; the
// first time, index 0, has no influence on dL/dθ and is not among them. The gradient,
// 1×1×P, is valid until the next one. Nothing is checked for being finite, and the
// error wraps solver.ErrIncomplete if a sample did not reach ts[0]. Call it from within
// [solver.Solver.OnDevice].
func (a *Adjoint[T]) OnDevice(ctx context.Context, d *solver.Device[T], ts []float64, jumps []int, states, dLdz backend.Vec[T]) (backend.Vec[T], error) {
	if len(jumps) == 0 || jumps[0] < 1 || jumps[len(jumps)-1] >= len(ts) {
		panic("adjoint: OnDevice needs the index of a time after the first")
	}
	return a.reverse.thetaOnDevice(ctx, d, ts, jumps, states, dLdz)
}

// solveOnDevice keeps the steps of a solve whose states stay on the device.
func (r *recording[T]) solveOnDevice(ctx context.Context, d *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	_, batch, _ := z0.Shape()
	if len(ts) < 2 || batch == 0 {
		panic("adjoint: SolveOnDevice needs a sample, t0 and at least one output time")
	}
	err := r.prepare(d.Shape(batch, ts), func(keep step.Keep, with func(*step.Config[T])) (*step.Loop[T], error) {
		return d.NewLoop(batch, ts, keep, with)
	})
	if err != nil {
		return nil, err
	}
	d.Backend.Copy(r.loop.Y.Of[0], z0)
	if err := r.run(ctx, []backend.Span{d.Settings().Span(ts)}); err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	return r.loop.Table, d.Complete(r.loop)
}

func (d *discrete[T]) solveOnDevice(ctx context.Context, dev *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	table, err := d.rec.solveOnDevice(ctx, dev, z0, ts)
	return table, d.short(dev, err)
}

func (d *discrete[T]) thetaOnDevice(ctx context.Context, dev *solver.Device[T], ts []float64, jumps []int, states, dLdz backend.Vec[T]) (theta backend.Vec[T], err error) {
	defer func() { err = d.short(dev, err) }()
	m, err := d.memory(dev)
	if err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	m.cotangentsAt(jumps, dLdz)
	if err := d.reverse(ctx, nil, nil, nil); err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	return m.theta, nil
}

func (c *continuous[T]) solveOnDevice(ctx context.Context, d *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	if c.record != nil {
		return c.record.solveOnDevice(ctx, d, z0, ts)
	}
	return d.Solve(ctx, z0, ts)
}

func (c *continuous[T]) thetaOnDevice(ctx context.Context, d *solver.Device[T], ts []float64, jumps []int, states, dLdz backend.Vec[T]) (backend.Vec[T], error) {
	r := route{times: ts, at: append([]int{0}, jumps...)}
	slices.Reverse(r.at)
	p := &plan{lanes: []route{r}, rows: len(r.at)}
	dev := d.Backend
	_, batch, _ := states.Shape()
	mem, err := c.memory(d, memoryShape{batch: batch, jumps: p.rows})
	if err != nil {
		return nil, fmt.Errorf("adjoint: a batch of %d with %d cotangents in time: %w", batch, len(jumps), err)
	}
	for j, i := range r.at {
		dev.Copy(mem.jump.Block(j), dLdz.Block(i))
		if mem.saved != nil {
			dev.Copy(mem.saved.Block(j), states.Block(i))
		}
	}
	dev.Copy(mem.a(), mem.jump.Block(0))
	if mem.saved != nil {
		dev.Copy(mem.loop.Y.Of[0], mem.saved.Block(0))
	}
	if mem.theta != nil {
		dev.Zero(mem.theta)
	}
	q, err := mem.loop.Run(ctx, c.spans(p, nil)...)
	if err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	if q.Running > 0 || q.Failed > 0 {
		return nil, fmt.Errorf("adjoint: reverse solve: %w: %d failed and %d still under way", solver.ErrIncomplete, q.Failed, q.Running)
	}
	return mem.theta, nil
}
