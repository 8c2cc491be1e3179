package flow

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// Likelihood is the train.Objective of maximum likelihood: the mean over samples x of
//
//	-log p(x; θ) + λ_K·∫‖f‖² dt + λ_J·∫‖∂f/∂z‖² dt
//
// in nats, with the weights λ of [Settings] (RNODE's loss divides all of it by D:
// Finlay et al. 2020, eq. 10). Under Hutchinson's estimate it is a function of θ and
// the batch all the same: the noise follows from these.
//
// It sets the flow's parameters, which keeps those of the last evaluation: after a fit,
// call SetParams with the ones to go on with. Several may share a flow.
type Likelihood[T backend.Float] struct {
	m    *Flow[T]
	x    []T // [N, D]
	rows []T
	ids  []int
	dLdz []T
}

var _ train.Objective[float64] = (*Likelihood[float64])(nil)

// NewLikelihood prepares the fit of m to samples x, row-major [N, D], which is not
// copied. It panics unless m's Dim divides the length.
func NewLikelihood[T backend.Float](m *Flow[T], x []T) *Likelihood[T] {
	if len(x) == 0 || len(x)%m.dim != 0 {
		panic(fmt.Sprintf("flow: NewLikelihood with %d numbers for points of dimension %d", len(x), m.dim))
	}
	return &Likelihood[T]{m: m, x: x}
}

// NumParams is the length of θ.
func (l *Likelihood[T]) NumParams() int { return l.m.NumParams() }

// NumSamples is N.
func (l *Likelihood[T]) NumSamples() int { return len(l.x) / l.m.dim }

// Loss is the mean over the samples listed.
func (l *Likelihood[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	sol, err := l.solve(ctx, theta, batch, l.m.full.Solve)
	if err != nil {
		return 0, err
	}
	return l.loss(sol.Final(), nil), nil
}

// Gradient is Loss with its derivative.
func (l *Likelihood[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	sol, err := l.solve(ctx, theta, batch, l.m.adj.Solve)
	if err != nil {
		return 0, err
	}
	if cap(l.dLdz) < len(sol.Y) {
		l.dLdz = make([]T, len(sol.Y))
	}
	l.dLdz = l.dLdz[:len(sol.Y)]
	clear(l.dLdz)
	end := sol.Final()
	loss := l.loss(end, l.dLdz[len(sol.Y)-len(end):])
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, nil
	}
	g, err := l.m.adj.Gradients(ctx, sol, l.dLdz)
	if err != nil {
		return 0, fmt.Errorf("flow: %w", err)
	}
	copy(grad, g.Theta)
	return loss, nil
}

// loss is the mean over states at T, [B, cols]. It sets grad, if not nil, to the
// derivative.
func (l *Likelihood[T]) loss(end, grad []T) float64 {
	set, d, cols := &l.m.set, l.m.dim, l.m.cols
	weights := []float64{-1} // of ℓ, and of those that are there of K and J
	for _, w := range []float64{set.Kinetic, set.Jacobian} {
		if w > 0 {
			weights = append(weights, w)
		}
	}
	n, sum := len(end)/cols, 0.0
	for b := range n {
		row := end[b*cols : (b+1)*cols]
		sum -= logNormal(row[:d])
		for i, w := range weights {
			sum += w * float64(row[d+i])
		}
		if grad == nil {
			continue
		}
		g := grad[b*cols : (b+1)*cols]
		for i, v := range row[:d] {
			g[i] = v / T(n)
		}
		for i, w := range weights {
			g[d+i] = T(w / float64(n))
		}
	}
	return sum / float64(n)
}

func (l *Likelihood[T]) solve(ctx context.Context, theta []T, batch []int, by func(context.Context, []T, []float64) (*solver.Solution[T], error)) (*solver.Solution[T], error) {
	m := l.m
	l.rows, l.ids = l.rows[:0], l.ids[:0]
	noise := l.noise(theta)
	for _, b := range batch {
		l.rows = append(l.rows, l.x[b*m.dim:(b+1)*m.dim]...)
		l.ids = append(l.ids, int(noise)+b)
	}
	if err := m.check(l.rows); err != nil {
		return nil, err
	}
	if err := m.SetParams(theta); err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	if err := m.full.SetSamples(l.ids); err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	sol, err := by(ctx, m.start(l.rows), []float64{0, m.set.Time})
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	return sol, nil
}

// noise is where the samples' noise begins: it differs from update to update, and an
// evaluation repeats to the bit.
func (l *Likelihood[T]) noise(theta []T) uint64 {
	if l.m.set.FixedNoise || l.m.set.Trace == field.ExactTrace {
		return 0
	}
	return learn.Hash(theta)
}
