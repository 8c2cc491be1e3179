package adjoint

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// DeviceStep is a solve, its loss and its gradient dL/dθ on a device, with what a
// training step enqueues around them. All of its operands stay where they are from one
// step to the next.
type DeviceStep[T backend.Float] struct {
	// Times are t0 and the output times, and Jumps those of them whose cotangents may not
	// be zero, as of [Adjoint.OnDevice].
	Times []float64
	Jumps []int
	// States and DLdz are n×B×D, one block for each of Times. Before sets block 0 of
	// States, the solve the others, and Loss sets DLdz.
	States, DLdz backend.Vec[T]
	// Before, Loss and After enqueue, the same calls in every step. The loss has to count
	// for nothing unless all lanes of solve, nil if that is known, are done; theta is
	// dL/dθ, 1×1×P.
	Before func()
	Loss   func(solve backend.Clock)
	After  func(theta backend.Vec[T])
}

// StepOnDevice makes such a step. Where a device records, the first step with s runs verb
// by verb and those after it are replayed: as one recording where the device solves and
// goes back at once, and with fixed steps, unless there are many; else as one for what
// comes before the solve, one for every attempted step, one for the loss, one for every
// step back and one for what follows. In one recording a sample that did not reach the
// last of Times is no error, and only the loss tells: there may have been no room on the
// tape for all steps, which there is in a first step with another DeviceStep.
// The error wraps solver.ErrIncomplete if a sample did not reach the last of Times, and
// After was not called then. Call it from within [solver.Solver.OnDevice].
func (a *Adjoint[T]) StepOnDevice(ctx context.Context, d *solver.Device[T], s *DeviceStep[T]) error {
	return a.reverse.deviceStep(ctx, d, s)
}

// plainStep makes a step of a method verb by verb.
func plainStep[T backend.Float](ctx context.Context, r reverser[T], d *solver.Device[T], s *DeviceStep[T]) error {
	s.Before()
	table, err := r.solveOnDevice(ctx, d, s.States.Block(0), s.Times)
	if err != nil {
		return err
	}
	s.outputs(d.Backend, table)
	s.Loss(nil)
	theta, err := r.thetaOnDevice(ctx, d, s.Times, s.Jumps, s.States, s.DLdz)
	if err != nil {
		return err
	}
	s.After(theta)
	return nil
}

// outputs copies what a solve gave to States.
func (s *DeviceStep[T]) outputs(dev backend.Backend[T], table backend.Vec[T]) {
	for i := range len(s.Times) - 1 {
		dev.Copy(s.States.Block(i+1), table.Block(i))
	}
}

func (c *continuous[T]) deviceStep(ctx context.Context, d *solver.Device[T], s *DeviceStep[T]) error {
	return plainStep[T](ctx, c, d, s)
}

func (r *reversible[T]) deviceStep(ctx context.Context, d *solver.Device[T], s *DeviceStep[T]) error {
	return plainStep[T](ctx, r, d, s)
}

func (x *stepSizes[T]) deviceStep(ctx context.Context, d *solver.Device[T], s *DeviceStep[T]) error {
	return plainStep[T](ctx, x, d, s)
}

// replay is a step of a discrete gradient that ran once and is recorded.
type replay[T backend.Float] struct {
	s        *DeviceStep[T] // nil: none
	dev      *solver.Device[T]
	loop     *step.Loop[T]
	back     *reversal[T]
	recorder backend.Recorder
	attempts int  // of the last solve, and of every one with fixed steps
	fused    bool // the device solves at once
	walked   bool // the device goes back at once, which it does if it solves so

	whole, before, loss, after step.Recorded
	// What they record, made once: all, start, derive and finish, with ctx.
	ctx                                                  context.Context
	enqueueAll, enqueueBefore, enqueueLoss, enqueueAfter func()
	spans                                                []backend.Span
}

// begin prepares for steps like the one that has just run.
func (p *replay[T]) begin() {
	p.enqueueAll, p.enqueueBefore, p.enqueueLoss, p.enqueueAfter = p.all, p.start, p.derive, p.finish
	p.spans = []backend.Span{p.dev.Settings().Span(p.s.Times)}
}

func (p *replay[T]) close() {
	for _, r := range []*step.Recorded{&p.whole, &p.before, &p.loss, &p.after} {
		r.Close()
	}
	*p = replay[T]{}
}

func (d *discrete[T]) deviceStep(ctx context.Context, dev *solver.Device[T], s *DeviceStep[T]) (err error) {
	p := &d.replay
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.s == s && p.loop == d.rec.loop && p.back == d.mem && !d.rec.lost {
		d.rec.sol = nil
		if err := p.run(ctx); err != nil {
			d.rec.lost = true
			return d.short(dev, fmt.Errorf("adjoint: %w", err))
		}
		return nil
	}
	p.close()
	if err := plainStep[T](ctx, d, dev, s); err != nil {
		return err
	}
	fused, walked := d.rec.loop.Fused(), d.mem.walked
	if r, ok := dev.Backend.(backend.Recorder); ok && d.rec.limit == nil && (walked || !fused) {
		*p = replay[T]{
			s: s, dev: dev, loop: d.rec.loop, back: d.mem, recorder: r, attempts: d.rec.loop.Attempts,
			fused: fused, walked: walked,
		}
		p.begin()
	}
	return nil
}

// run makes the step once more.
func (p *replay[T]) run(ctx context.Context) error {
	const most = 64 // attempts in one recording, which takes memory for each
	fixed := p.loop.Control.Fixed
	if err := context.Cause(ctx); err != nil {
		return err
	}
	p.ctx = ctx
	if p.fused {
		p.whole.Run(p.recorder, 1, p.enqueueAll)
		return nil
	}
	if fixed && p.attempts <= most && p.whole.Replay(p.recorder, 1, p.enqueueAll) {
		return nil
	}
	p.before.Run(p.recorder, 1, p.enqueueBefore)
	p.loop.Replayed(p.attempts)
	if fixed {
		if err := p.loop.Repeat(ctx, p.attempts); err != nil {
			return err
		}
	} else {
		if _, err := p.loop.Continue(ctx, math.MaxInt); err != nil {
			return err
		}
		if err := p.dev.Complete(p.loop); err != nil {
			return err
		}
		p.attempts = p.loop.Attempts
	}
	p.loss.Run(p.recorder, 1, p.enqueueLoss)
	if p.walked {
		return nil
	}
	p.rewind()
	if err := p.back.recorded.Chunks(ctx, p.recorder, p.attempts, p.back.sequence); err != nil {
		return err
	}
	p.after.Run(p.recorder, 1, p.enqueueAfter)
	return nil
}

// all enqueues a step that is made at once, or with fixed steps.
func (p *replay[T]) all() {
	p.start()
	if !p.fused {
		for range p.attempts {
			p.loop.Attempt()
		}
	}
	p.derive()
	if p.walked {
		return
	}
	p.rewind()
	for range p.attempts {
		p.back.stepBack()
	}
	p.finish()
}

// start begins the solve, and where it is made at once ends it.
func (p *replay[T]) start() {
	p.s.Before()
	p.dev.Backend.Copy(p.loop.Y.Of[0], p.s.States.Block(0))
	if p.fused {
		p.loop.Enqueue(p.spans)
		return
	}
	_ = p.loop.Start(p.ctx, p.spans...) // which does not fail: there is a tape
}

// derive is what follows the solve, up to the steps back or the end.
func (p *replay[T]) derive() {
	p.s.outputs(p.dev.Backend, p.loop.Table)
	p.s.Loss(p.loop.Clock)
	p.back.cotangentsAt(p.s.Jumps, p.s.DLdz)
	if p.walked {
		p.back.fused(true, nil) // as the first time
		p.finish()
		return
	}
	p.back.start()
}

func (p *replay[T]) rewind() {
	p.back.dev.Rewind(p.loop.Clock, p.loop.Tape, int64(p.attempts), nil)
}

func (p *replay[T]) finish() { p.s.After(p.back.theta) }
