package train

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Data is N samples of a trajectory of D components, observed at n times. Nothing
// of it is copied; it must not change while it is in use.
type Data[T backend.Float] struct {
	Times []float64 // [n], strictly monotone; the solution starts at the first
	Z0    []T       // [N, D], the states at the first time
	// Targets are compared with the solution at all of Times, the first included,
	// row-major [n, N, D]: MSE, MAE and Huber. Give missing values the weight 0, or
	// set Weights to [Observed](Targets).
	Targets []T
	// Labels are classes, row-major [n, N], negative where there is none:
	// CrossEntropy, which takes the D components of a state for logits.
	Labels []int32
	// Weights, as in [Target], has the shape of Targets or Labels; nil means all 1.
	Weights []T
}

// Observed returns weights that leave out the values that are NaN: 0 for them, 1 for
// the others.
func Observed[T backend.Float](values []T) []T {
	w := make([]T, len(values))
	for i, v := range values {
		if v == v {
			w[i] = 1
		}
	}
	return w
}

// TrajectorySettings says how trajectories become a loss and its gradient. Its zero
// value is the default.
type TrajectorySettings struct {
	Loss    Loss
	Adjoint adjoint.Settings // NoTimes is always set
	// LearnZ0 makes the initial states parameters too: they follow those of the
	// right-hand side, row-major [N, D], and Data.Z0 is where they start.
	LearnZ0 bool
}

// Trajectories is the [Objective] that fits the solutions of dz/dt = f(z, t; θ) to
// data, by the adjoint method. Its parameters are θ and, if they are learned, the
// initial states. A mini-batch is a subset of the samples: what they weigh in a mean
// depends on the targets that the batch has.
//
// It sets the parameters of its solver, which keeps those of the last evaluation:
// after a fit, call SetParams with the ones to go on with.
type Trajectories[T backend.Float] struct {
	fitted[T]
	data Data[T]
	// origin are the samples' numbers where they are taken out of others, else nil
	origin []int
	n      int   // samples
	rows   []int // the numbers of those of the batch under way
}

// NewTrajectories prepares the fit of s's right-hand side to data. The caller closes
// it before s.
func NewTrajectories[T backend.Float](s *solver.Solver[T], data Data[T], set TrajectorySettings) (*Trajectories[T], error) {
	if s == nil {
		return nil, errors.New("train: NewTrajectories needs a solver, and got nil; solver.New makes one")
	}
	t := &Trajectories[T]{fitted: newFitted(s, set, "trajectory of sample"), data: data}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, t.open()
}

// check validates the data and counts the samples.
func (t *Trajectories[T]) check() error {
	d := &t.data
	if len(d.Times) == 0 {
		return errors.New("train: Data.Times is empty; give the time of Z0 and those of the targets")
	}
	t.n = len(d.Z0) / t.dim
	if t.n == 0 || len(d.Z0) != t.n*t.dim {
		return fmt.Errorf("train: Data.Z0 has %d elements, not a positive multiple of the dimension %d; lay it out as [N, %d]", len(d.Z0), t.dim, t.dim)
	}
	if i := learn.FirstNonFinite(d.Z0); i >= 0 {
		return fmt.Errorf("train: Data.Z0 of sample %d, component %d, is %g; give finite numbers", i/t.dim, i%t.dim, float64(d.Z0[i]))
	}
	n, shape := len(d.Times)*t.n, fmt.Sprintf("[%d, %d]", len(d.Times), t.n)
	got, what := len(d.Labels), "Labels"
	if t.set.Loss.Kind != CrossEntropy {
		n, shape = n*t.dim, fmt.Sprintf("[%d, %d, %d]", len(d.Times), t.n, t.dim)
		got, what = len(d.Targets), "Targets"
	}
	if got != n {
		return fmt.Errorf("train: Data.%s has %d elements, want %d: lay it out as %s, the first time included", what, got, n, shape)
	}
	y := Target[T]{Values: d.Targets, Labels: d.Labels, Weights: d.Weights}
	if _, err := checkTarget(t.set.Loss, len(d.Times)*t.n*t.dim, y); err != nil {
		return fmt.Errorf("%w (elements are laid out as %s)", err, shape)
	}
	k := n / len(d.Times) / t.n
	seen := make([]bool, t.n)
	for i := range n {
		seen[i/k%t.n] = seen[i/k%t.n] || y.weight(i) != 0
	}
	if b := slices.Index(seen, false); b >= 0 {
		return fmt.Errorf("train: all targets of sample %d have weight 0 or no label; leave the sample out", b)
	}
	return nil
}

// Subset is the objective of the samples listed, with the same solver and settings.
// The caller closes it too.
func (t *Trajectories[T]) Subset(samples []int) (*Trajectories[T], error) {
	for _, b := range samples {
		if b < 0 || b >= t.n {
			return nil, fmt.Errorf("train: Subset has sample %d, but there are %d, counted from 0", b, t.n)
		}
	}
	d := t.data
	d.Z0 = gather(nil, d.Z0, 1, t.n, samples)
	d.Targets = gather(nil, d.Targets, len(d.Times), t.n, samples)
	d.Labels = gather(nil, d.Labels, len(d.Times), t.n, samples)
	d.Weights = gather(nil, d.Weights, len(d.Times), t.n, samples)
	sub, err := NewTrajectories(t.s, d, t.set)
	if err != nil {
		return nil, err
	}
	sub.origin = t.origins(nil, samples)
	return sub, nil
}

// origins appends the numbers of the samples listed to dst.
func (t *Trajectories[T]) origins(dst, list []int) []int {
	for _, b := range list {
		if t.origin != nil {
			b = t.origin[b]
		}
		dst = append(dst, b)
	}
	return dst
}

// gather appends to dst the rows of the samples listed, out of src, [n, samples, k],
// and so gives [n, len(list), k]. A nil src stays nil.
func gather[E any](dst, src []E, n, samples int, list []int) []E {
	if src == nil {
		return nil
	}
	k := len(src) / (n * samples)
	for i := range n {
		for _, b := range list {
			at := (i*samples + b) * k
			dst = append(dst, src[at:at+k]...)
		}
	}
	return dst
}

// NumParams is the number of parameters, P or P + N·D.
func (t *Trajectories[T]) NumParams() int {
	if t.set.LearnZ0 {
		return t.p + len(t.data.Z0)
	}
	return t.p
}

// NumSamples is N.
func (t *Trajectories[T]) NumSamples() int { return t.n }

// Params returns where to start from: the solver's parameters and, if they are
// learned, the initial states.
func (t *Trajectories[T]) Params() ([]T, error) {
	theta, err := t.s.Params()
	if t.set.LearnZ0 {
		theta = append(theta, t.data.Z0...)
	}
	return theta, err
}

// Evaluations is the number of evaluations of f and of its products in all calls so far.
// Updates that [Fit] makes on a device are not counted.
func (t *Trajectories[T]) Evaluations() int64 { return t.eval }

// Close frees what the objective holds on the device. The solver stays open.
func (t *Trajectories[T]) Close() error { return t.adj.Close() }

// Loss solves the batch and compares it with its targets. If samples fail the error
// wraps the *[solver.Error].
func (t *Trajectories[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	sol, err := t.solve(ctx, theta, batch, t.s.Solve)
	if err != nil {
		return 0, err
	}
	return EvalLoss(t.set.Loss, sol.Y, t.target, nil)
}

// Gradient is Loss with its derivative.
func (t *Trajectories[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	sol, err := t.solve(ctx, theta, batch, t.adj.Solve)
	if err != nil {
		return 0, err
	}
	return t.gradient(ctx, sol, batch, grad)
}

// solve solves the batch, by the solver or by the adjoint, which keeps what it needs.
func (t *Trajectories[T]) solve(ctx context.Context, theta []T, batch []int, by func(context.Context, []T, []float64) (*solver.Solution[T], error)) (*solver.Solution[T], error) {
	if len(theta) != t.NumParams() || len(batch) == 0 {
		return nil, fmt.Errorf("train: Trajectories got %d parameters and %d samples, want %d and at least 1", len(theta), len(batch), t.NumParams())
	}
	z0 := t.data.Z0
	if t.set.LearnZ0 {
		z0 = theta[t.p:]
	}
	n := len(t.data.Times)
	t.z0 = gather(t.z0[:0], z0, 1, t.n, batch)
	t.target.Values = gather(t.target.Values[:0], t.data.Targets, n, t.n, batch)
	t.target.Labels = gather(t.target.Labels[:0], t.data.Labels, n, t.n, batch)
	t.target.Weights = gather(t.target.Weights[:0], t.data.Weights, n, t.n, batch)
	if err := t.s.SetParams(theta[:t.p]); err != nil {
		return nil, err
	}
	t.rows = t.origins(t.rows[:0], batch)
	if err := t.s.SetSamples(t.rows); err != nil {
		return nil, err
	}
	sol, err := by(ctx, t.z0, t.data.Times)
	return t.solved(sol, err, batch)
}
