package latent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// ELBO is the train.Objective of a latent ODE: the mean over series of
//
//	-Σ_i log N(x_i; g(z(t_i)), s²) + w·KL(q(z0 | x) ‖ N(0, I)),   z0 = μ + σ⊙ε
//
// in nats, the sum over the values that are there: with w = 1, minus the evidence lower
// bound (Kingma & Welling 2014, arXiv 1312.6114, eq. 10) with one draw of ε ~ N(0, I) for a
// series. ε follows from θ and the series, so that the loss is a function of θ and the
// batch.
//
// It sets the model's parameters, which keeps those of the last evaluation: after a fit,
// call SetParams with the ones to go on with. Several may share a model.
type ELBO[T backend.Float] struct {
	m    *Model[T]
	data []Series[T]

	order   []int // of the data, the batch's series by falling length
	batch   []*Series[T]
	samples []solver.Sample
	first   []int   // output of a sample that belongs to its first observation
	eps, z0 []T     // [B, L]
	rows    []int32 // of the solution: those of the observations
	values  []T     // at these, [len(rows), D]
	dout    []T
	dLdz    []T
}

var _ train.Objective[float64] = (*ELBO[float64])(nil)

// NewELBO prepares the fit of m to series, which are not copied.
func NewELBO[T backend.Float](m *Model[T], data []Series[T]) (*ELBO[T], error) {
	if err := m.check(data); err != nil {
		return nil, err
	}
	return &ELBO[T]{m: m, data: data}, nil
}

// NumParams is the number of all parameters of the model.
func (o *ELBO[T]) NumParams() int { return o.m.NumParams() }

// NumSamples is N, the number of series.
func (o *ELBO[T]) NumSamples() int { return len(o.data) }

// Loss is the mean over the series listed.
func (o *ELBO[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	return o.eval(ctx, theta, batch, nil)
}

// Gradient is Loss with its derivative.
func (o *ELBO[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	clear(grad)
	return o.eval(ctx, theta, batch, grad)
}

// eval returns the loss and adds its derivative to grad, unless it is nil.
func (o *ELBO[T]) eval(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	m := o.m
	if err := m.SetParams(theta); err != nil {
		return 0, err
	}
	o.gather(batch)
	code := m.enc.forward(m.theta, o.batch, m.set.Start)
	kl := o.draw(code, theta)
	if learn.FirstNonFinite(o.z0) >= 0 {
		return math.NaN(), nil
	}
	solve := m.s.SolveEach
	if grad != nil {
		solve = m.adj.SolveEach
	}
	sol, err := solve(ctx, o.z0, o.samples)
	if err != nil {
		return 0, o.locate(err)
	}
	misfit := o.decode(sol, grad)
	loss := (misfit + m.set.KL*kl) / float64(len(batch))
	if grad == nil || math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, nil
	}
	back, err := m.adj.Gradients(ctx, sol, o.dLdz)
	if err != nil {
		return 0, o.locate(err)
	}
	copy(grad[len(m.theta):], back.Theta)
	o.undraw(code, back.Z0)
	m.enc.backward(m.theta, code, grad)
	return loss, nil
}

// gather lists the batch's series, longest first, with their solves.
func (o *ELBO[T]) gather(batch []int) {
	all := make([]*Series[T], len(batch))
	for row, i := range batch {
		all[row] = &o.data[i]
	}
	o.order, o.batch, o.samples, o.first = o.order[:0], o.batch[:0], o.samples[:0], o.first[:0]
	for _, row := range longest(all) {
		s, first := o.m.sample(all[row].Times)
		o.order, o.batch = append(o.order, batch[row]), append(o.batch, all[row])
		o.samples, o.first = append(o.samples, s), append(o.first, first)
	}
}

// draw sets z0 to a draw of q for what the encoder says, and returns the sum of the
// divergences, ½Σ(μ² + σ² - 1 - ln σ²) each.
func (o *ELBO[T]) draw(code, theta []T) (kl float64) {
	n, l := len(o.batch), o.m.dim
	o.eps, o.z0 = grown(o.eps, n*l), grown(o.z0, n*l)
	noise := uint64(0)
	if !o.m.set.FixedNoise {
		noise = learn.Hash(theta)
	}
	for b, i := range o.order {
		r := rand.New(rand.NewPCG(noise, uint64(i)))
		for j := range l {
			mean, logvar := float64(code[j*n+b]), float64(code[(l+j)*n+b])
			eps := r.NormFloat64()
			o.eps[b*l+j], o.z0[b*l+j] = T(eps), T(mean+math.Exp(logvar/2)*eps)
			kl += (mean*mean + math.Expm1(logvar) - logvar) / 2
		}
	}
	return kl
}

// undraw replaces what the encoder said by the loss's derivative with respect to it, given
// dL/dz0, [B, L].
func (o *ELBO[T]) undraw(code, dz0 []T) {
	n, l := len(o.batch), o.m.dim
	weight := o.m.set.KL / float64(n)
	for b := range n {
		for j := range l {
			mean, logvar := &code[j*n+b], &code[(l+j)*n+b]
			d, eps, v := float64(dz0[b*l+j]), float64(o.eps[b*l+j]), float64(*logvar)
			*mean = T(d + weight*float64(*mean))
			*logvar = T((d*math.Exp(v/2)*eps + weight*math.Expm1(v)) / 2)
		}
	}
}

// decode is the sum of -log N over all values that are there. Unless grad is nil it adds
// the decoder's part of the loss's derivative to it, and sets dLdz.
func (o *ELBO[T]) decode(sol *solver.Solution[T], grad []T) (sum float64) {
	m := o.m
	o.rows, o.values = o.rows[:0], o.values[:0]
	for b, s := range o.batch {
		for k := range s.Times {
			o.rows = append(o.rows, int32(sol.Row(o.first[b]+k, b)))
		}
		o.values = append(o.values, s.Values...)
	}
	if grad != nil {
		o.dLdz = grown(o.dLdz, len(sol.Y))
		clear(o.dLdz)
	}
	theta := m.decoderParams(m.theta)
	constant := math.Log(m.set.Noise) + math.Log(2*math.Pi)/2
	m.dec.each(theta, sol.Y, o.rows, func(lo, n int, out []T) {
		o.dout = grown(o.dout, m.values*n)
		for i := range n {
			for j, x := range o.values[(lo+i)*m.values : (lo+i+1)*m.values] {
				at := j*n + i
				o.dout[at] = 0
				if x == x {
					e := (float64(out[at]) - float64(x)) / m.set.Noise
					sum += e*e/2 + constant
					o.dout[at] = T(e / m.set.Noise / float64(len(o.batch)))
				}
			}
		}
		if grad != nil {
			m.dec.backward(theta, o.dLdz, o.rows[lo:lo+n], o.dout, m.decoderParams(grad))
		}
	})
	return sum
}

// locate tells which series a sample of the solve is.
func (o *ELBO[T]) locate(err error) error {
	if failed := (*solver.Error)(nil); errors.As(err, &failed) {
		row := failed.Failures[0].Sample
		return fmt.Errorf("latent: series %d, which is sample %d of this solve: %w", o.order[row], row, err)
	}
	return fmt.Errorf("latent: %w", err)
}
