package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Series is a trajectory of D components, observed at times of its own.
type Series[T backend.Float] struct {
	Times  []float64 // [n], strictly monotone; the solution starts at the first
	Z0     []T       // [D], the state at the first time
	Values []T       // [n, D], compared with the solution; NaN where there is none
}

// Ragged is the [Objective] of series with unequal times, as [Trajectories] is of those
// that share theirs. Its parameters are θ and, if they are learned, the initial states.
// A mini-batch is a subset of the series; a mean is over all values that its series have.
type Ragged[T backend.Float] struct {
	fitted[T]
	data    []Series[T]
	samples []solver.Sample // of the batch under way
}

// NewRagged prepares the fit of s's right-hand side to series; nothing of them is copied.
// The solver steps [solver.PerSample], and the loss is MSE, MAE or Huber. The caller
// closes it before s.
func NewRagged[T backend.Float](s *solver.Solver[T], data []Series[T], set TrajectorySettings) (*Ragged[T], error) {
	switch {
	case s == nil:
		return nil, errors.New("train: NewRagged needs a solver, and got nil; solver.New makes one")
	case s.Settings().Stepping != solver.PerSample:
		return nil, errors.New("train: NewRagged needs a solver with Stepping: solver.PerSample, since every series has times of its own")
	case len(data) == 0:
		return nil, errors.New("train: NewRagged got no series; give at least one")
	case set.Loss.Kind == CrossEntropy:
		return nil, errors.New("train: NewRagged compares values; use MSE, MAE or Huber")
	}
	if err := set.Loss.Validate(); err != nil {
		return nil, err
	}
	r := &Ragged[T]{fitted: newFitted(s, set, "series"), data: data}
	for i := range data {
		if err := r.check(&data[i]); err != nil {
			return nil, fmt.Errorf("train: series %d: %w", i, err)
		}
	}
	return r, r.open()
}

func (r *Ragged[T]) check(s *Series[T]) error {
	switch n := len(s.Times); {
	case n == 0:
		return errors.New("its Times are empty; give the time of Z0 and those of the values")
	case len(s.Z0) != r.dim:
		return fmt.Errorf("its Z0 has %d components, want %d", len(s.Z0), r.dim)
	case learn.FirstNonFinite(s.Z0) >= 0:
		i := learn.FirstNonFinite(s.Z0)
		return fmt.Errorf("its Z0[%d] is %g; give finite numbers", i, float64(s.Z0[i]))
	case len(s.Values) != n*r.dim:
		return fmt.Errorf("its Values have %d elements, want %d: lay it out as [%d, %d]", len(s.Values), n*r.dim, n, r.dim)
	}
	seen := false
	for i, v := range s.Values {
		if math.IsInf(float64(v), 0) {
			return fmt.Errorf("its Values[%d, %d] is %g; write NaN where there is none", i/r.dim, i%r.dim, float64(v))
		}
		seen = seen || v == v
	}
	if !seen {
		return errors.New("all Values are missing; leave the series out")
	}
	return nil
}

// NumParams is the number of parameters, P or P + N·D.
func (r *Ragged[T]) NumParams() int {
	if r.set.LearnZ0 {
		return r.p + len(r.data)*r.dim
	}
	return r.p
}

// NumSamples is N, the number of series.
func (r *Ragged[T]) NumSamples() int { return len(r.data) }

// Params returns where to start from: the solver's parameters and, if they are
// learned, the initial states.
func (r *Ragged[T]) Params() ([]T, error) {
	theta, err := r.s.Params()
	if r.set.LearnZ0 {
		for i := range r.data {
			theta = append(theta, r.data[i].Z0...)
		}
	}
	return theta, err
}

// Evaluations is the number of evaluations of f and of its products in all calls so far.
func (r *Ragged[T]) Evaluations() int64 { return r.eval }

// Close frees what the objective holds on the device. The solver stays open.
func (r *Ragged[T]) Close() error { return r.adj.Close() }

// Identity describes the right-hand side, the data and the settings, for checkpoints.
func (r *Ragged[T]) Identity() (map[string]string, error) {
	var parts []any
	for i := range r.data {
		parts = append(parts, r.data[i].Times, r.data[i].Z0, r.data[i].Values)
	}
	return identify(r.s, r.adj, r.set, r.data[0].Times[0], checksumOf(parts...))
}

// Loss solves the batch and compares it with its values. If samples fail the error wraps
// the *[solver.Error].
func (r *Ragged[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	sol, err := r.solve(ctx, theta, batch, r.s.SolveEach)
	if err != nil {
		return 0, err
	}
	return EvalLoss(r.set.Loss, sol.Y, r.target, nil)
}

// Gradient is Loss with its derivative.
func (r *Ragged[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	sol, err := r.solve(ctx, theta, batch, r.adj.SolveEach)
	if err != nil {
		return 0, err
	}
	return r.gradient(ctx, sol, batch, grad)
}

// solve solves the batch, by the solver or by the adjoint, which keeps what it needs.
func (r *Ragged[T]) solve(ctx context.Context, theta []T, batch []int, by func(context.Context, []T, []solver.Sample) (*solver.Solution[T], error)) (*solver.Solution[T], error) {
	if len(theta) != r.NumParams() || len(batch) == 0 {
		return nil, fmt.Errorf("train: Ragged got %d parameters and %d series, want %d and at least 1", len(theta), len(batch), r.NumParams())
	}
	r.z0, r.samples, r.target.Values = r.z0[:0], r.samples[:0], r.target.Values[:0]
	for _, b := range batch {
		s := &r.data[b]
		z0 := s.Z0
		if r.set.LearnZ0 {
			z0 = theta[r.p+b*r.dim:][:r.dim]
		}
		r.z0 = append(r.z0, z0...)
		r.samples = append(r.samples, solver.Sample{Times: s.Times})
		r.target.Values = append(r.target.Values, s.Values...)
	}
	r.target.Weights = Observed(r.target.Values)
	if err := r.s.SetParams(theta[:r.p]); err != nil {
		return nil, err
	}
	if err := r.s.SetSamples(batch); err != nil {
		return nil, err
	}
	sol, err := by(ctx, r.z0, r.samples)
	return r.solved(sol, err, batch)
}
