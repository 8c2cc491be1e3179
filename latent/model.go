package latent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Series is observations of D values at n times.
type Series[T backend.Float] struct {
	Times  []float64 // [n], strictly increasing, from Settings.Start on
	Values []T       // row-major [n, D]; NaN where there is none
}

// Settings says what a Model is. Its zero value is the default, but for Noise.
type Settings struct {
	// Hidden is the number of units of the encoder's GRU; 0 means 25. Seed draws its
	// initial parameters.
	Hidden int
	Seed   uint64
	// Start is t0, the time of z0.
	Start float64
	// Noise is s, the standard deviation of an observation, in its unit; above 0.
	Noise float64
	// KL is the weight of the divergence in the loss of an [ELBO]; 0 means 1 (others are
	// the β of Higgins et al. 2017, beta-VAE).
	KL float64
	// FixedNoise gives a series the same ε whatever θ is. By default every θ comes with
	// noise of its own, so that training averages over it.
	FixedNoise bool

	Solver  solver.Settings  // Stepping is always PerSample
	Adjoint adjoint.Settings // NoTimes is always set
}

// Model is a latent ODE on a device. Its parameters are those of the encoder, of the
// decoder and of f, one after another. Its methods may be called from one goroutine at a
// time.
type Model[T backend.Float] struct {
	set     Settings
	s       *solver.Solver[T]
	adj     *adjoint.Adjoint[T]
	enc     encoder[T]
	dec     decoder[T]
	dim     int // of z, L
	values  int // of an observation, D
	theta   []T // of encoder and decoder
	samples []solver.Sample
}

// New makes the latent ODE of f, with a state of L components, on dev. The decoder has L
// inputs and D outputs and sees no time. The parameters of both are copied. The caller
// closes the model, then dev.
func New[T backend.Float](dev backend.Backend[T], f backend.System[T], decoder *mlp.Model[T], set Settings) (*Model[T], error) {
	if decoder == nil {
		return nil, errors.New("latent: New needs a decoder, and got nil; mlp.New makes one")
	}
	if err := decoder.Validate(); err != nil {
		return nil, fmt.Errorf("latent: the decoder: %w", err)
	}
	if decoder.Spec.Time != mlp.TimeNone || decoder.Spec.Input != mlp.InputIdentity {
		return nil, errors.New("latent: the decoder has to be a function of z alone: its Spec with TimeNone and InputIdentity")
	}
	if !(set.Noise > 0) || math.IsInf(set.Noise, 0) {
		return nil, fmt.Errorf("latent: Settings.Noise is %g; give the standard deviation of an observation, above 0", set.Noise)
	}
	if !(set.KL >= 0) || math.IsInf(set.KL, 0) || math.IsNaN(set.Start) || math.IsInf(set.Start, 0) || set.Hidden < 0 {
		return nil, fmt.Errorf("latent: Settings have KL %g, Start %g and Hidden %d; give finite numbers, KL and Hidden not negative", set.KL, set.Start, set.Hidden)
	}
	if set.Hidden == 0 {
		set.Hidden = 25
	}
	if set.KL == 0 {
		set.KL = 1
	}
	set.Solver.Stepping = solver.PerSample
	set.Adjoint.NoTimes = true
	s, err := solver.New(dev, f, set.Solver)
	if err != nil {
		return nil, fmt.Errorf("latent: %w", err)
	}
	if s.Dim() != decoder.Dim() {
		return nil, errors.Join(fmt.Errorf("latent: the decoder has %d inputs, and f %d components; they must be equal", decoder.Dim(), s.Dim()), s.Close())
	}
	adj, err := adjoint.New(s, set.Adjoint)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("latent: %w", err), s.Close())
	}
	m := &Model[T]{set: set, s: s, adj: adj, dim: s.Dim(), values: decoder.OutDim()}
	m.enc = newEncoder[T](m.values, set.Hidden, 2*m.dim)
	m.dec = newDecoder[T](decoder.Spec)
	m.theta = append(m.enc.draw(set.Seed), decoder.Theta...)
	return m, nil
}

// Close frees what the model holds on the device.
func (m *Model[T]) Close() error { return errors.Join(m.adj.Close(), m.s.Close()) }

// Dim is the number of components of z, L.
func (m *Model[T]) Dim() int { return m.dim }

// Values is the number of values of an observation, D.
func (m *Model[T]) Values() int { return m.values }

// NumParams is the number of all parameters.
func (m *Model[T]) NumParams() int { return len(m.theta) + m.s.NumParams() }

// Params copies all parameters.
func (m *Model[T]) Params() ([]T, error) {
	theta, err := m.s.Params()
	return append(slices.Clone(m.theta), theta...), err
}

// SetParams replaces all parameters, which are copied.
func (m *Model[T]) SetParams(theta []T) error {
	if len(theta) != m.NumParams() {
		return fmt.Errorf("latent: SetParams got %d parameters, but the model has %d", len(theta), m.NumParams())
	}
	n := copy(m.theta, theta)
	return m.s.SetParams(theta[n:])
}

// Encode is q(z0 | x) of series: μ and ln σ², both row-major [N, L].
func (m *Model[T]) Encode(data []Series[T]) (mean, logvar []T, err error) {
	if err := m.check(data); err != nil {
		return nil, nil, err
	}
	batch := make([]*Series[T], len(data))
	for i := range data {
		batch[i] = &data[i]
	}
	order := longest(batch)
	sorted := make([]*Series[T], len(data))
	for row, i := range order {
		sorted[row] = batch[i]
	}
	out := m.enc.forward(m.theta, sorted, m.set.Start)
	n, l := len(data), m.dim
	mean, logvar = make([]T, n*l), make([]T, n*l)
	for row, i := range order {
		for j := range l {
			mean[i*l+j], logvar[i*l+j] = out[j*n+row], out[(l+j)*n+row]
		}
	}
	return mean, logvar, nil
}

// Decode solves from N initial states z0, row-major [N, L], and returns the expected
// observations at times, which are strictly increasing or decreasing away from
// Settings.Start: [N, len(times), D].
func (m *Model[T]) Decode(ctx context.Context, z0 []T, times []float64) ([]T, error) {
	if len(z0) == 0 || len(z0)%m.dim != 0 || len(times) == 0 {
		return nil, fmt.Errorf("latent: Decode of %d numbers at %d times; give states as [N, %d] and at least one time", len(z0), len(times), m.dim)
	}
	sample, first := m.sample(times)
	m.samples = m.samples[:0]
	for range len(z0) / m.dim {
		m.samples = append(m.samples, sample)
	}
	sol, err := m.s.SolveEach(ctx, z0, m.samples)
	if err != nil {
		return nil, fmt.Errorf("latent: %w", err)
	}
	var rows []int32
	for b := range sol.Batch {
		for i := range times {
			rows = append(rows, int32(sol.Row(first+i, b)))
		}
	}
	x := make([]T, len(rows)*m.values)
	m.dec.each(m.decoderParams(m.theta), sol.Y, rows, func(lo, n int, out []T) {
		for i := range n {
			for j := range m.values {
				x[(lo+i)*m.values+j] = out[j*n+i]
			}
		}
	})
	return x, nil
}

// decoderParams are the decoder's of all parameters, or of their gradient.
func (m *Model[T]) decoderParams(theta []T) []T { return theta[m.enc.params():len(m.theta)] }

// sample is a solve from Start with outputs at times, the first of which is its output
// number first.
func (m *Model[T]) sample(times []float64) (s solver.Sample, first int) {
	if times[0] == m.set.Start {
		return solver.Sample{Times: times}, 0
	}
	return solver.Sample{Times: append([]float64{m.set.Start}, times...)}, 1
}

// check returns what is wrong with series, if anything.
func (m *Model[T]) check(data []Series[T]) error {
	if len(data) == 0 {
		return errors.New("latent: there are no series; give at least one")
	}
	for i, s := range data {
		if len(s.Times) == 0 || len(s.Values) != len(s.Times)*m.values {
			return fmt.Errorf("latent: series %d has %d times and %d values; give at least one time, and values as [%d, %d]", i, len(s.Times), len(s.Values), len(s.Times), m.values)
		}
		last := math.Inf(-1)
		for k, t := range s.Times {
			if !(t > last) || t < m.set.Start || math.IsInf(t, 0) {
				return fmt.Errorf("latent: series %d: time %d is %g; times have to be finite, increase strictly, and begin at Settings.Start, %g, or later", i, k, t, m.set.Start)
			}
			last = t
		}
		seen := false
		for k, v := range s.Values {
			if math.IsInf(float64(v), 0) {
				return fmt.Errorf("latent: series %d: value %d of time %d is %g; write NaN where there is none", i, k%m.values, k/m.values, float64(v))
			}
			seen = seen || v == v
		}
		if !seen {
			return fmt.Errorf("latent: series %d: all values are missing; leave it out", i)
		}
	}
	return nil
}

// longest is the order of series by falling length.
func longest[T backend.Float](batch []*Series[T]) []int {
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(batch[b].Times) - len(batch[a].Times) })
	return order
}
