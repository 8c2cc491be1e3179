package field

import (
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Func is a right-hand side of one sample. Its methods may be called from several
// goroutines at once and must not keep or change the slices they are given, but
// for the outputs.
type Func[T backend.Float] interface {
	backend.System[T]
	// Eval sets dz = f(t, z; θ); z and dz have length D, theta has length P.
	Eval(t float64, z, theta, dz []T)
}

// VJPer is a Func with vector-Jacobian products, which reverse-mode gradients need.
type VJPer[T backend.Float] interface {
	Func[T]
	// VJP computes, for a cotangent a of length D,
	//
	//	az      = aᵀ∂f/∂z    length D, overwritten
	//	atheta += aᵀ∂f/∂θ    length P, accumulated; nil is skipped
	//	at      = aᵀ∂f/∂t
	VJP(t float64, z, theta, a, az, atheta []T) (at float64)
}

// JVPer is a Func with Jacobian-vector products, which forward-mode gradients need.
type JVPer[T backend.Float] interface {
	Func[T]
	// JVP sets jv = (∂f/∂z)v + (∂f/∂θ)w for tangents v of z, length D, and w of θ,
	// length P.
	JVP(t float64, z, theta, v, w, jv []T)
}

// Custom is a right-hand side made of Go functions. Only F is needed; gradients
// by the adjoint need BackF, forward sensitivities need ForwardF, Hessian-vector
// products all of them. What they compute is what [Func], [VJPer], [JVPer] and
// [SecondOrderer] say.
type Custom[T backend.Float] struct {
	N        int // D, components of the state
	Theta    []T // θ, may be empty
	F        func(t float64, z, theta, dz []T)
	BackF    func(t float64, z, theta, a, az, atheta []T) (at float64)
	ForwardF func(t float64, z, theta, v, w, jv []T)
	SecondF  func(t float64, z, theta, a, v, b, w, bz, btheta []T)
	CUDA     Source // what a CUDA device computes in the place of F, BackF and ForwardF; without Eval, f runs on the CPU
}

var (
	_ VJPer[float32] = (*Custom[float32])(nil)
	_ JVPer[float64] = (*Custom[float64])(nil)

	_ Sourcer[float64] = (*Custom[float64])(nil)
)

// Dim is N.
func (c *Custom[T]) Dim() int { return c.N }

// NumParams is the length of Theta, P.
func (c *Custom[T]) NumParams() int { return len(c.Theta) }

// Params returns Theta itself, not a copy.
func (c *Custom[T]) Params() []T { return c.Theta }

// Validate returns what is wrong with c, if anything.
func (c *Custom[T]) Validate() error {
	if c.N < 1 {
		return fmt.Errorf("field: Custom.N is %d; a state has at least one component", c.N)
	}
	if c.F == nil {
		return errors.New("field: Custom.F is nil; set it to the function that computes f(t, z; θ)")
	}
	return nil
}

// Eval calls F.
func (c *Custom[T]) Eval(t float64, z, theta, dz []T) { c.F(t, z, theta, dz) }

// HasVJP reports whether VJP may be called.
func (c *Custom[T]) HasVJP() bool { return c.BackF != nil }

// HasJVP reports whether JVP may be called.
func (c *Custom[T]) HasJVP() bool { return c.ForwardF != nil }

// VJP calls BackF, which must not be nil.
func (c *Custom[T]) VJP(t float64, z, theta, a, az, atheta []T) (at float64) {
	return c.BackF(t, z, theta, a, az, atheta)
}

// JVP calls ForwardF, which must not be nil.
func (c *Custom[T]) JVP(t float64, z, theta, v, w, jv []T) { c.ForwardF(t, z, theta, v, w, jv) }

// Sum is f = f_1 + f_2 + …, each part with its own θ; all parts share the state.
type Sum[T backend.Float] struct {
	parts []backend.System[T]
}

// Plus adds right-hand sides of one dimension: any that the backend runs, an
// *mlp.Model too. θ is theirs, one after another.
func Plus[T backend.Float](parts ...backend.System[T]) (*Sum[T], error) {
	if len(parts) == 0 {
		return nil, errors.New("field: Plus needs at least one right-hand side")
	}
	for i, p := range parts {
		if p == nil {
			return nil, fmt.Errorf("field: Plus: part %d is nil", i)
		}
		if p.Dim() != parts[0].Dim() {
			return nil, fmt.Errorf("field: Plus: part %d has %d components and part 0 has %d; all parts need the same", i, p.Dim(), parts[0].Dim())
		}
	}
	return &Sum[T]{parts: slices.Clone(parts)}, nil
}

// Parts returns the right-hand sides added, in the order of θ.
func (s *Sum[T]) Parts() []backend.System[T] { return s.parts }

// Dim is the number of components of the state, D.
func (s *Sum[T]) Dim() int { return s.parts[0].Dim() }

// NumParams is the length of θ, the sum over the parts.
func (s *Sum[T]) NumParams() int {
	n := 0
	for _, p := range s.parts {
		n += p.NumParams()
	}
	return n
}

// Params returns a new slice with the parts' parameters, one after another. To
// change them, write to the parts' own or call SetParams.
func (s *Sum[T]) Params() []T {
	theta := make([]T, 0, s.NumParams())
	for _, p := range s.parts {
		theta = append(theta, p.Params()...)
	}
	return theta
}

// SetParams copies theta, of length NumParams, into the parts.
func (s *Sum[T]) SetParams(theta []T) {
	if len(theta) != s.NumParams() {
		panic("field: SetParams with the wrong number of parameters")
	}
	for _, p := range s.parts {
		n := p.NumParams()
		if q, ok := p.(interface{ SetParams(theta []T) }); ok {
			q.SetParams(theta[:n])
		} else {
			copy(p.Params(), theta[:n])
		}
		theta = theta[n:]
	}
}
