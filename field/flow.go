package field

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Trace says which vectors ε a [Flow] computes tr(∂f/∂z) = E[εᵀ(∂f/∂z)ε] with.
type Trace uint8

const (
	// ExactTrace takes the D unit vectors: the sum is the trace.
	ExactTrace Trace = iota
	// Rademacher takes one vector of ±1, each with probability 1/2 (Hutchinson 1990, A
	// stochastic estimator of the trace of the influence matrix).
	Rademacher
	// Gaussian takes one vector of standard normal components.
	Gaussian
)

var traceNames = [...]string{"exact", "rademacher", "gaussian"}

func (t Trace) String() string {
	if int(t) < len(traceNames) {
		return traceNames[t]
	}
	return fmt.Sprintf("Trace(%d)", uint8(t))
}

// FlowSettings says what a [Flow] integrates beside the state.
type FlowSettings struct {
	Trace Trace
	// Kinetic and Jacobian append the integrals that RNODE regularises by (Finlay et al.
	// 2020, How to train your neural ODE, arXiv 2002.02798, eq. 8 and 9).
	Kinetic, Jacobian bool
	// Seed selects the noise of Rademacher and Gaussian.
	Seed uint64
}

// Flow is a right-hand side f with what the density of its flow takes. Its state is
// [z, ℓ], or with Kinetic and Jacobian [z, ℓ, K, J] or one of the latter:
//
//	dz/dt = f(t, z; θ)
//	dℓ/dt = tr(∂f/∂z)       so that log p(z(t)) + ℓ(t) is constant
//	dK/dt = ‖f‖²
//	dJ/dt = ‖∂f/∂z‖²        Frobenius
//
// (Chen et al. 2018, arXiv 1806.07366, eq. 8; Grathwohl et al. 2019, FFJORD, arXiv
// 1810.01367, eq. 4). With noise ε of the sample, which is the same at all times, the
// trace is εᵀ(∂f/∂z)ε and the Frobenius norm ‖εᵀ∂f/∂z‖², both right in the mean over ε;
// row r of a batch has the noise of sample r, or of the one that a backend.Sampler says.
//
// θ is f's. The CPU backend runs it; f needs vector-Jacobian products there, and second
// derivatives ([SecondOrderer]) for gradients: an *mlp.Model has both.
type Flow[T backend.Float] struct {
	inner backend.System[T]
	set   FlowSettings
}

// NewFlow makes the Flow of inner.
func NewFlow[T backend.Float](inner backend.System[T], set FlowSettings) (*Flow[T], error) {
	if inner == nil {
		return nil, errors.New("field: NewFlow needs a right-hand side, and got nil")
	}
	if int(set.Trace) >= len(traceNames) {
		return nil, fmt.Errorf("field: FlowSettings.Trace is %d; use ExactTrace, Rademacher or Gaussian", set.Trace)
	}
	return &Flow[T]{inner: inner, set: set}, nil
}

// Inner is the right-hand side that NewFlow was given, Settings its settings.
func (f *Flow[T]) Inner() backend.System[T] { return f.inner }

// Settings are those that NewFlow was given.
func (f *Flow[T]) Settings() FlowSettings { return f.set }

// Dim is the number of components of the state, from D+1 to D+3.
func (f *Flow[T]) Dim() int {
	n := f.inner.Dim() + 1
	for _, on := range []bool{f.set.Kinetic, f.set.Jacobian} {
		if on {
			n++
		}
	}
	return n
}

// NumParams is that of f.
func (f *Flow[T]) NumParams() int { return f.inner.NumParams() }

// Params are those of f.
func (f *Flow[T]) Params() []T { return f.inner.Params() }

// SetParams copies theta, of length NumParams, into f.
func (f *Flow[T]) SetParams(theta []T) {
	if len(theta) != f.NumParams() {
		panic("field: SetParams with the wrong number of parameters")
	}
	if s, ok := f.inner.(interface{ SetParams(theta []T) }); ok {
		s.SetParams(theta)
		return
	}
	copy(f.inner.Params(), theta)
}

// Probes is the number of vectors ε: D or 1.
func (f *Flow[T]) Probes() int {
	if f.set.Trace == ExactTrace {
		return f.inner.Dim()
	}
	return 1
}

// Probe sets eps, of length D, to vector k of a sample.
func (f *Flow[T]) Probe(k, sample int, eps []T) {
	// A counter through a mixing function is a generator without a state: SplitMix64
	// (Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators).
	at := mix(f.set.Seed) + mix(uint64(sample)+golden)
	switch f.set.Trace {
	case ExactTrace:
		clear(eps)
		eps[k] = 1
	case Rademacher:
		var word uint64
		for i := range eps {
			if i%64 == 0 {
				at += golden
				word = mix(at)
			}
			eps[i] = 1 - 2*T(word&1)
			word >>= 1
		}
	case Gaussian:
		for i := 0; i < len(eps); i += 2 { // Box and Muller 1958
			at += golden
			u := float64(mix(at)>>11+1) / (1 << 53) // in (0, 1]
			at += golden
			sin, cos := math.Sincos(2 * math.Pi * float64(mix(at)>>11) / (1 << 53))
			r := math.Sqrt(-2 * math.Log(u))
			eps[i] = T(r * cos)
			if i+1 < len(eps) {
				eps[i+1] = T(r * sin)
			}
		}
	}
}

const golden = 0x9e3779b97f4a7c15 // 2⁶⁴ over the golden ratio

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
