package step

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Fused reports whether the last solve was made at once.
func (l *Loop[T]) Fused() bool { return l.atOnce }

// fuse prepares solves at once, where the device can make them.
func (l *Loop[T]) fuse() (err error) {
	if l.Fusion == backend.FuseNever {
		return nil
	}
	if l.fused, err = l.tryFuse(); err != nil && l.Fusion == backend.FuseAuto && errors.Is(err, backend.ErrUnsupported) {
		return nil
	}
	return err
}

func (l *Loop[T]) tryFuse() (backend.Fused[T], error) {
	unfused := func(why string) error {
		return fmt.Errorf("a solve in one launch: %w: %s", backend.ErrUnsupported, why)
	}
	dev, ok := l.Backend.(backend.Fuser[T])
	f, forward := l.System.(Forward[T])
	switch {
	case !ok:
		return nil, unfused("the backend makes every step by itself; use the GPU backend, or FuseAuto")
	case !forward || l.Scheme != nil || len(l.ErrorParts) > 0:
		return nil, unfused("only a plain forward solve is made at once; use FuseAuto")
	case l.Hook != nil || l.Poll != nil:
		return nil, unfused("events and reports of progress need the host at every step; use FuseAuto")
	case l.Blocks != 1 || l.Lanes != l.Rows:
		return nil, unfused("samples that share a step size meet at every step; use PerSample stepping, or FuseAuto")
	}
	tab, extra := l.Tableau, len(l.K)-l.stages
	return dev.Fuse(backend.Fusible[T]{
		Clock: l.Clock, Field: f.Field,
		Formula: backend.Formula{
			Order: tab.Order, B: tab.B, E: tab.E, E2: tab.E2, Dense: l.dense, FSAL: tab.FSAL,
			A: slices.Concat(tab.A, tab.Dense.ExtraA[:extra]), C: slices.Concat(tab.C, tab.Dense.ExtraC[:extra]),
		},
		Tol: l.Tol, Control: l.Control,
		Y: l.Y.Vec, Trial: l.Trial.Vec, K: l.k, Table: l.Table, Keep: l.keep,
		Extra: l.extraRows, Fusion: l.Fusion,
	})
}

// Enqueue enqueues a solve at once, after one that Run made, with the same spans. It does
// not wait, and can be recorded; see [backend.Fused].
func (l *Loop[T]) Enqueue(spans []backend.Span) {
	_ = l.begin(spans) // which does not fail: there is a tape
	l.fused.Enqueue(l.Tape, spans...)
}

// runFused is Run at once.
func (l *Loop[T]) runFused(ctx context.Context, spans []backend.Span) (backend.Progress, error) {
	if err := l.begin(spans); err != nil {
		return backend.Progress{}, err
	}
	l.atOnce = true
	p, err := l.fused.Solve(ctx, l.Tape, spans...)
	l.Attempts, l.Last, l.replayed = int(p.Attempts), p, 0
	return p, err
}
