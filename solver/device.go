package solver

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Device is a solver's backend, with its right-hand side and memory, for work whose
// data stays there.
type Device[T backend.Float] struct {
	Backend backend.Backend[T]
	Field   backend.Field[T]
	s       *Solver[T]
}

// ErrIncomplete says that samples did not reach the end of a solve on the device.
// Solve tells which, and why.
var ErrIncomplete = errors.New("solver: samples ended early")

// OnDevice calls do with the solver's device, while no other method of the solver
// runs. Calls of do that enqueue report their failures in a later one that waits.
func (s *Solver[T]) OnDevice(do func(d *Device[T]) error) error {
	return s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], _ *Version) error {
		return do(&Device[T]{Backend: dev, Field: f, s: s})
	})
}

// ParamsChanged says that θ was written to, in Field.Params: solutions computed before
// are no longer those of this solver.
func (d *Device[T]) ParamsChanged() { d.s.version = new(Version) }

// Solve is [Solver.Solve] for states that stay on the device: from z0, 1×B×D, at
// ts[0] to the last of ts. It returns the states at ts[1:], n×B×D, valid until the
// next solve. Neither z0 nor the states are read back, so that states that are not
// finite are the caller's to find; the error wraps [ErrIncomplete] if a sample failed.
func (d *Device[T]) Solve(ctx context.Context, z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	s := d.s
	_, batch, _ := z0.Shape()
	if len(ts) < 2 || batch == 0 {
		return nil, errors.New("solver: a solve on the device needs a sample, t0 and at least one output time")
	}
	loop, err := s.loopFor(shape{batch: batch, saves: len(ts) - 1})
	if err != nil {
		return nil, err
	}
	d.Backend.Copy(loop.Y.Vec, z0)
	p, err := loop.Run(ctx, s.set.Span(ts))
	if err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	if p.Running > 0 || p.Failed > 0 {
		return nil, fmt.Errorf("%w: %d failed and %d still under way", ErrIncomplete, p.Failed, p.Running)
	}
	return loop.Table, nil
}
