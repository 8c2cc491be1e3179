package adjoint

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// repetition is a step.Hook around the one that finds events. Where attempts of a solve are
// made again it puts the events in place that were found the first time. A sample that
// one of them made fail goes on: it has no part in what the attempts are made again for.
type repetition[T backend.Float] struct {
	inner  step.Hook[T]
	events []solver.Event[T]
	found  [][]solver.Occurrence[T] // nil for the first time
	cuts   map[int][]place          // that end a step, by attempt

	times  []float64
	status []backend.Status
	state  []T
}

// of says that attempts of the solve of sol follow, until the next Begin.
func (r *repetition[T]) of(sol *solver.Solution[T]) {
	if r == nil {
		return
	}
	r.found, r.cuts = sol.Events, map[int][]place{}
	for b, found := range sol.Events {
		for i, o := range found {
			if o.Cut {
				r.cuts[o.Attempt] = append(r.cuts[o.Attempt], place{b, i})
			}
		}
	}
	r.times, r.status = make([]float64, sol.Batch), make([]backend.Status, sol.Batch)
	r.state = make([]T, sol.Batch*sol.Dim)
}

// Inner is the hook that finds the events.
func (r *repetition[T]) Inner() step.Hook[T] { return r.inner }

func (r *repetition[T]) Begin(l *step.Loop[T]) error {
	r.found = nil
	return r.inner.Begin(l)
}

// Decided ends the steps that events have ended.
func (r *repetition[T]) Decided(l *step.Loop[T]) error {
	if r.found == nil {
		return r.inner.Decided(l)
	}
	places := r.cuts[l.Attempts+1]
	if places == nil {
		return nil
	}
	for b := range r.times {
		r.times[b] = math.NaN()
	}
	for _, p := range places {
		o := &r.found[p.sample][p.index]
		r.times[p.sample], r.status[p.sample] = o.T, backend.StatusRunning
		if r.events[o.Event].Terminal {
			r.status[p.sample] = backend.Stopped
		}
	}
	l.Backend.(backend.Cutter[T]).Cut(l.Clock, r.times, r.status)
	return nil
}

// Moved puts the states behind the events in place.
func (r *repetition[T]) Moved(l *step.Loop[T]) error {
	if r.found == nil {
		return r.inner.Moved(l)
	}
	places := r.cuts[l.Attempts+1]
	if places == nil {
		return nil
	}
	if err := l.Backend.Download(r.state, l.Y.Of[0]); err != nil {
		return err
	}
	for _, p := range places {
		copy(r.state[p.sample*l.Cols:], r.found[p.sample][p.index].After)
	}
	l.Backend.Upload(l.Y.Of[0], r.state)
	return nil
}
