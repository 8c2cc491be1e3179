package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// fitted is what [Trajectories] and [Ragged] share: the fit of a solver's right-hand side,
// from a batch's solution to its loss and gradient.
type fitted[T backend.Float] struct {
	s    *solver.Solver[T]
	adj  *adjoint.Adjoint[T]
	set  TrajectorySettings
	what string // a sample is called, in errors
	dim  int
	p    int // parameters of the right-hand side
	eval int64

	z0, dLdz []T // of the batch under way, and so is target
	target   Target[T]
}

func newFitted[T backend.Float](s *solver.Solver[T], set TrajectorySettings, what string) fitted[T] {
	return fitted[T]{s: s, set: set, what: what, dim: s.Dim(), p: s.NumParams()}
}

// open makes the adjoint, once the data are known to be good.
func (f *fitted[T]) open() (err error) {
	set := f.set.Adjoint
	set.NoTimes = true
	f.adj, err = adjoint.New(f.s, set)
	return err
}

// solved takes what the solver answered for a batch.
func (f *fitted[T]) solved(sol *solver.Solution[T], err error, batch []int) (*solver.Solution[T], error) {
	if err != nil {
		return nil, f.locate(err, batch)
	}
	f.eval += sol.Evaluations()
	return sol, nil
}

// gradient returns the loss of a batch's solution and sets grad to its derivative.
func (f *fitted[T]) gradient(ctx context.Context, sol *solver.Solution[T], batch []int, grad []T) (float64, error) {
	if cap(f.dLdz) < len(sol.Y) {
		f.dLdz = make([]T, len(sol.Y))
	}
	dLdz := f.dLdz[:len(sol.Y)]
	loss, err := EvalLoss(f.set.Loss, sol.Y, f.target, dLdz)
	if err != nil || !finite(loss) {
		return loss, err
	}
	g, err := f.adj.Gradients(ctx, sol, dLdz)
	if err != nil {
		return loss, f.locate(err, batch)
	}
	for _, s := range g.Stats {
		f.eval += s.Evaluations
	}
	copy(grad, g.Theta)
	if f.set.LearnZ0 {
		z := grad[f.p:]
		clear(z)
		for row, b := range batch {
			copy(z[b*f.dim:(b+1)*f.dim], g.Z0[row*f.dim:])
		}
	}
	return loss, nil
}

// locate tells which sample of the data a row of the batch is.
func (f *fitted[T]) locate(err error, batch []int) error {
	if failed := (*solver.Error)(nil); errors.As(err, &failed) {
		row := failed.Failures[0].Sample
		return fmt.Errorf("%s %d, which is sample %d of this solve: %w", f.what, batch[row], row, err)
	}
	return err
}
