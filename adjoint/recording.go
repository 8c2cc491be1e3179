package adjoint

import (
	"context"
	"errors"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// recording is a forward solve whose steps are kept on a tape.
type recording[T backend.Float] struct {
	keep  step.Keep
	limit *checkpoints[T] // of what is kept, nil for none
	// with changes what the loop is made of, begin where it starts, and drive runs it in
	// limit's place; all may be nil.
	with  func(*step.Config[T])
	begin func(l *step.Loop[T], spans []backend.Span)
	drive func(ctx context.Context, l *step.Loop[T], spans []backend.Span) error

	loop  *step.Loop[T]
	shape any                 // what loop was made for
	sol   *solver.Solution[T] // whose steps these are, nil if none or on the device
	bytes int64               // kept of steps
	lost  bool                // a device failed: what the memory holds is not known
}

func (r *recording[T]) free() {
	if r.loop != nil {
		r.limit.free(r.loop.Backend)
		r.loop.Free()
	}
	r.loop, r.sol, r.bytes, r.lost = nil, nil, 0, false
}

// prepare makes a loop for p.
func (r *recording[T]) prepare(shape any, make func(step.Keep, func(*step.Config[T])) (*step.Loop[T], error)) (err error) {
	r.sol = nil
	if r.loop != nil && r.shape == shape && !r.lost {
		return nil
	}
	r.free()
	if r.loop, err = make(r.keep, r.with); err == nil {
		r.shape = shape
	}
	return err
}

// run integrates over spans.
func (r *recording[T]) run(ctx context.Context, spans []backend.Span) error {
	if r.begin != nil {
		r.begin(r.loop, spans)
	}
	before := r.loop.Backend.MemoryUsed()
	drive := r.limit.run
	if r.drive != nil {
		drive = r.drive
	}
	err := drive(ctx, r.loop, spans)
	r.bytes += r.loop.Backend.MemoryUsed() - before
	r.lost = r.lost || err != nil
	return err
}

func (r *recording[T]) solve(ctx context.Context, p *solver.Problem[T]) (*solver.Solution[T], error) {
	if p.Empty() {
		r.sol = nil
		sol, err := p.Run(ctx, nil, nil)
		r.sol = sol
		return sol, err
	}
	if err := r.prepare(p.Shape(), p.NewLoop); err != nil {
		return nil, err
	}
	sol, err := p.Run(ctx, r.loop, func(spans []backend.Span) error { return r.run(ctx, spans) })
	r.sol = sol
	return sol, err
}

// have makes sure that the steps are those of sol.
func (r *recording[T]) have(ctx context.Context, d *solver.Device[T], sol *solver.Solution[T]) error {
	if r.sol == sol && !r.lost {
		return nil
	}
	z0 := make([]T, 0, sol.Batch*sol.Dim)
	for b := range sol.Batch {
		z0 = append(z0, sol.Sample(0, b)...)
	}
	p, err := d.Problem(z0, sol.Times, sol.Samples)
	if err != nil {
		return err
	}
	again, err := r.solve(ctx, p)
	if again == nil || err != nil && !isFailure(err) {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !slices.Equal(again.Status, sol.Status) || !slices.EqualFunc(again.Y, sol.Y, func(x, y T) bool { return x == y || x != x && y != y }) {
		return errOther
	}
	r.sol = sol
	return nil
}

var errOther = errors.New("the solution cannot be computed again: f is not the same function of its arguments any more, or Solution was changed")

// interpolate sets z to the solution at an instant.
func (r *recording[T]) interpolate(z backend.Vec[T], at backend.At) {
	r.loop.Backend.(backend.Reverser[T]).Interpolate(z, at, r.loop.Tape, r.loop.Tableau.Dense.P)
}
