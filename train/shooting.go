package train

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// ShootingSettings says how series become a loss of segments. Its zero value is the
// default.
type ShootingSettings struct {
	Loss    Loss             // of the observations
	Adjoint adjoint.Settings // NoTimes is always set
	// Length is the number of steps from one observation to the next that a segment has;
	// 0 means 5.
	Length int
	// Continuity is ρ, dimensionless, not negative; 0 means 1. Raise it from fit to fit
	// for a solution without gaps, or go on with a Ragged.
	Continuity float64
}

// Shooting is the [Objective] of multiple shooting (Bock 1981, Numerical treatment of
// inverse problems in chemical reaction kinetics; as a penalty, Turan & Jäschke 2021,
// arXiv 2109.06786): series are cut into short segments that are solved each from an
// initial state of its own, which is learned too, and the gaps between the end of a segment
// and the beginning of the next are penalised,
//
//	L = loss of the observations + ρ·mean of (z(end of segment s) - z0 of segment s+1)²
//
// over all components of all gaps. Over long or chaotic series one solve from the
// beginning has a loss full of local minima; short segments follow the data from the start.
//
// Its parameters are θ and the initial states of all segments, series after series. A
// mini-batch is a subset of the series.
type Shooting[T backend.Float] struct {
	fitted[T]
	rho      float64
	segments []segment[T]
	first    []int // segment of each series, and one more
	states   []T   // where the initial states start
	samples  []solver.Sample
	rows     []int // segments of the batch under way
}

// segment is some of a series' observations. Where another follows, its last time is that
// one's first, and the values there count in that one.
type segment[T backend.Float] struct {
	times  []float64
	values []T
	next   bool
}

// NewShooting prepares the fit of s's right-hand side to series; nothing of them is copied.
// The segments' initial states start at the observations, at Z0 for the first, and at the
// value before where one is missing. The solver steps [solver.PerSample], and the loss is
// MSE, MAE or Huber. The caller closes it before s.
func NewShooting[T backend.Float](s *solver.Solver[T], data []Series[T], set ShootingSettings) (*Shooting[T], error) {
	if set.Length < 0 || !(set.Continuity >= 0) || math.IsInf(set.Continuity, 0) {
		return nil, fmt.Errorf("train: ShootingSettings have Length %d and Continuity %g; give finite numbers that are not negative", set.Length, set.Continuity)
	}
	if set.Length == 0 {
		set.Length = 5
	}
	if set.Continuity == 0 {
		set.Continuity = 1
	}
	// NewRagged checks solver, series and loss.
	r, err := NewRagged(s, data, TrajectorySettings{Loss: set.Loss, Adjoint: set.Adjoint})
	if err != nil {
		return nil, err
	}
	o := &Shooting[T]{fitted: r.fitted, rho: set.Continuity}
	o.what = "segment"
	for i := range data {
		o.cut(&data[i], set.Length)
	}
	o.first = append(o.first, len(o.segments))
	return o, nil
}

// cut appends the segments of a series.
func (o *Shooting[T]) cut(s *Series[T], length int) {
	o.first = append(o.first, len(o.segments))
	state := slices.Clone(s.Z0)
	for from := 0; ; from += length {
		to := min(from+length, len(s.Times)-1)
		g := segment[T]{times: s.Times[from : to+1], next: to < len(s.Times)-1}
		g.values = s.Values[from*o.dim : (to+1)*o.dim]
		if from > 0 {
			for i, v := range g.values[:o.dim] {
				if v == v {
					state[i] = v
				}
			}
		}
		o.segments, o.states = append(o.segments, g), append(o.states, state...)
		if !g.next {
			return
		}
	}
}

// NumParams is P + D times the number of segments.
func (o *Shooting[T]) NumParams() int { return o.p + len(o.states) }

// NumSamples is N, the number of series.
func (o *Shooting[T]) NumSamples() int { return len(o.first) - 1 }

// Params returns where to start from: the solver's parameters and the initial states.
func (o *Shooting[T]) Params() ([]T, error) {
	theta, err := o.s.Params()
	return append(theta, o.states...), err
}

// States are the initial states of a series' segments in theta, row-major [segments, D]:
// a view, the first row of which is where the series begins.
func (o *Shooting[T]) States(theta []T, series int) []T {
	return theta[o.p+o.first[series]*o.dim : o.p+o.first[series+1]*o.dim]
}

// Evaluations is the number of evaluations of f and of its products in all calls so far.
func (o *Shooting[T]) Evaluations() int64 { return o.eval }

// Close frees what the objective holds on the device. The solver stays open.
func (o *Shooting[T]) Close() error { return o.adj.Close() }

// Loss solves the batch's segments and compares them with their values and each other. If
// segments fail the error wraps the *[solver.Error].
func (o *Shooting[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	sol, err := o.solve(ctx, theta, batch, o.s.SolveEach)
	if err != nil {
		return 0, err
	}
	loss, err := EvalLoss(o.set.Loss, sol.Y, o.target, nil)
	return loss + o.gaps(sol, theta, nil, nil), err
}

// Gradient is Loss with its derivative.
func (o *Shooting[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	sol, err := o.solve(ctx, theta, batch, o.adj.SolveEach)
	if err != nil {
		return 0, err
	}
	if cap(o.dLdz) < len(sol.Y) {
		o.dLdz = make([]T, len(sol.Y))
	}
	dLdz := o.dLdz[:len(sol.Y)]
	loss, err := EvalLoss(o.set.Loss, sol.Y, o.target, dLdz)
	if err != nil {
		return 0, err
	}
	clear(grad)
	if loss += o.gaps(sol, theta, dLdz, grad); !finite(loss) {
		return loss, nil
	}
	g, err := o.adj.Gradients(ctx, sol, dLdz)
	if err != nil {
		return loss, o.locate(err, o.rows)
	}
	for _, s := range g.Stats {
		o.eval += s.Evaluations
	}
	copy(grad, g.Theta)
	for row, k := range o.rows {
		for i, v := range g.Z0[row*o.dim : (row+1)*o.dim] {
			grad[o.p+k*o.dim+i] += v
		}
	}
	return loss, nil
}

// gaps is the penalty of the batch's gaps. Unless grad is nil it adds its derivative to
// dLdz, and that with respect to the next segments' states to grad.
func (o *Shooting[T]) gaps(sol *solver.Solution[T], theta, dLdz, grad []T) float64 {
	sum, n := 0.0, 0
	each := func(do func(end, state int)) {
		for row, k := range o.rows {
			if g := &o.segments[k]; g.next {
				end := sol.Row(len(g.times)-1, row) * o.dim
				for i := range o.dim {
					do(end+i, o.p+(k+1)*o.dim+i)
				}
			}
		}
	}
	each(func(end, state int) {
		e := float64(sol.Y[end]) - float64(theta[state])
		sum, n = sum+e*e, n+1
	})
	if n == 0 {
		return 0
	}
	scale := o.rho / float64(n)
	if grad != nil {
		each(func(end, state int) {
			d := T(2 * scale * (float64(sol.Y[end]) - float64(theta[state])))
			dLdz[end] += d
			grad[state] -= d
		})
	}
	return scale * sum
}

// solve solves the batch's segments, by the solver or by the adjoint.
func (o *Shooting[T]) solve(ctx context.Context, theta []T, batch []int, by func(context.Context, []T, []solver.Sample) (*solver.Solution[T], error)) (*solver.Solution[T], error) {
	if len(theta) != o.NumParams() || len(batch) == 0 {
		return nil, fmt.Errorf("train: Shooting got %d parameters and %d series, want %d and at least 1", len(theta), len(batch), o.NumParams())
	}
	if i := learn.FirstNonFinite(theta); i >= 0 {
		return nil, fmt.Errorf("train: Shooting: parameter %d is %g", i, float64(theta[i]))
	}
	o.z0, o.samples, o.rows, o.target = o.z0[:0], o.samples[:0], o.rows[:0], Target[T]{Values: o.target.Values[:0]}
	var of []int // series of each row
	for _, b := range batch {
		for k := o.first[b]; k < o.first[b+1]; k++ {
			g := &o.segments[k]
			o.rows, of = append(o.rows, k), append(of, b)
			o.z0 = append(o.z0, theta[o.p+k*o.dim:][:o.dim]...)
			o.samples = append(o.samples, solver.Sample{Times: g.times})
			o.target.Values = append(o.target.Values, g.values...)
			if g.next {
				end := o.target.Values[len(o.target.Values)-o.dim:]
				for i := range end {
					end[i] = T(math.NaN())
				}
			}
		}
	}
	o.target.Weights = Observed(o.target.Values)
	if err := o.s.SetParams(theta[:o.p]); err != nil {
		return nil, err
	}
	if err := o.s.SetSamples(of); err != nil {
		return nil, err
	}
	sol, err := by(ctx, o.z0, o.samples)
	return o.solved(sol, err, o.rows)
}
