package solver

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("solver: %w: make a new Solver", backend.ErrClosed)
	}
	return do(&s.device)
}

// ParamsChanged says that θ was written to, in Field.Params: solutions computed before
// are no longer those of this solver.
func (d *Device[T]) ParamsChanged() { d.s.version = nil }

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
	loop, err := s.loopFor(shape{batch: batch, saves: len(ts) - 1, keep: step.KeepNothing})
	if err != nil {
		return nil, err
	}
	d.Backend.Copy(loop.Y.Vec, z0)
	if _, err := loop.Run(ctx, s.set.Span(ts)); err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	return loop.Table, d.Complete(loop)
}

// Complete returns an error that wraps [ErrIncomplete] unless all samples have reached
// the end of the loop's solve.
func (d *Device[T]) Complete(loop *step.Loop[T]) error {
	if len(d.s.events) > 0 {
		return fmt.Errorf("%w or were reset: a solve on the device tells of no events; use Solve", ErrIncomplete)
	}
	p := loop.Last
	if p.Running > 0 || p.Failed > 0 {
		return fmt.Errorf("%w: %d failed and %d still under way", ErrIncomplete, p.Failed, p.Running)
	}
	return nil
}

// Problem is a solve whose loop the caller drives, as package adjoint does.
type Problem[T backend.Float] struct {
	d  *Device[T]
	g  grid
	z0 []T
}

// Problem validates a solve: of the batch z0 at ts or, with samples not nil, each over
// its own times.
func (d *Device[T]) Problem(z0 []T, ts []float64, samples []Sample) (*Problem[T], error) {
	s := d.s
	if samples != nil {
		g := grid{samples: cloneSamples(samples), batch: len(samples)}
		return &Problem[T]{d, g, z0}, s.checkSamples(z0, samples)
	}
	g := grid{times: ts}
	var err error
	g.batch, err = checkInput(s.dim, z0, ts)
	return &Problem[T]{d, g, z0}, err
}

// Solve is [Solver.Solve].
func (p *Problem[T]) Solve(ctx context.Context) (*Solution[T], error) {
	return p.d.solve(ctx, p.z0, p.g)
}

// Empty reports whether there is nothing to integrate: it needs no loop.
func (p *Problem[T]) Empty() bool { return p.g.empty() }

// Shape tells loops apart: one fits every problem of its shape.
func (p *Problem[T]) Shape() any { return p.g.shape(step.KeepNothing) }

// NewLoop allocates a loop that keeps what keep says. with, if not nil, changes what it
// is made of; z is the first block of its state. The caller frees it.
func (p *Problem[T]) NewLoop(keep step.Keep, with func(*step.Config[T])) (*step.Loop[T], error) {
	return p.d.s.newLoop(p.g.shape(keep), with)
}

// Fetch copies outputs after the first from a loop's table to dst, laid out as sol.Y.
func (d *Device[T]) Fetch(sol *Solution[T], dst []T, table backend.Vec[T]) error {
	if sol.Samples == nil {
		return d.Backend.Download(dst[sol.Batch*sol.Dim:], table)
	}
	blocks, rows, cols := table.Shape()
	all := make([]T, blocks*rows*cols)
	if err := d.Backend.Download(all, table); err != nil {
		return err
	}
	for b, x := range sol.Samples {
		n := saved(x.Times) * sol.Dim
		if n > 0 {
			copy(dst[(sol.first[b]+1)*sol.Dim:], all[:n])
		}
		all = all[n:]
	}
	return nil
}

// Spans are what the loop is started with.
func (p *Problem[T]) Spans() []backend.Span { return p.g.spans(&p.d.s.set) }

// Run solves with loop, nil if the problem is empty, which drive runs. The error is
// as that of [Solver.Solve].
func (p *Problem[T]) Run(ctx context.Context, loop *step.Loop[T], drive func(spans []backend.Span) error) (*Solution[T], error) {
	return p.d.run(ctx, loop, p.z0, p.g, drive)
}

// Shape is [Problem.Shape] of a batch on the device, solved at ts.
func (d *Device[T]) Shape(batch int, ts []float64) any {
	return shape{batch: batch, saves: len(ts) - 1, keep: step.KeepNothing}
}

// NewLoop allocates a loop for solves of a batch on the device, with the outputs of
// ts after the first.
func (d *Device[T]) NewLoop(batch int, ts []float64, keep step.Keep, with func(*step.Config[T])) (*step.Loop[T], error) {
	return d.s.newLoop(shape{batch: batch, saves: len(ts) - 1, keep: keep}, with)
}

// Version is that of the solver's parameters now; see [Solution.Version].
func (d *Device[T]) Version() *Version {
	if d.s.version == nil {
		d.s.version = new(Version)
	}
	return d.s.version
}

// Settings are the solver's.
func (d *Device[T]) Settings() *Settings { return &d.s.set }

// SetSamples says that row r of the next solves is sample samples[r] to a right-hand
// side that tells samples apart, as one that reads a signal for each does (package
// control); nil, the beginning, that it is sample r. Solutions computed before are no
// longer those of this solver.
func (s *Solver[T]) SetSamples(samples []int) error {
	return s.Exclusive(func(_ backend.Backend[T], f backend.Field[T], _ *Version) error {
		if k, ok := f.(backend.Sampler); ok {
			k.SetSamples(samples)
			s.version = nil
		}
		return nil
	})
}

// EventsOf are the events that the solver looks for, not to be changed.
func EventsOf[T backend.Float](d *Device[T]) []Event[T] { return d.s.events }
