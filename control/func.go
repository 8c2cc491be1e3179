package control

import (
	"errors"
	"fmt"
	"sync"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

// Map is what a [Field] evaluates: from x, of length Dim, to OutDim components. It is
// an *mlp.Model, a *[Func], or another field.Func that says its OutDim: z in its
// methods is then x, and dz, a cotangent and jv have length OutDim.
type Map[T backend.Float] interface {
	backend.System[T]
	OutDim() int
}

// Func is a right-hand side of one sample, made of Go functions, that reads N
// components of the state and C numbers of its signal: u(t) or, one after the other,
// u(t) and u'(t). Only F is needed; gradients by an adjoint need BackF, forward
// sensitivities need ForwardF. The functions may be called from several goroutines at
// once, and must not keep or change the slices they are given, but for the outputs.
// [NewFunc] derives both products.
type Func[T backend.Float] struct {
	N, C  int
	Theta []T // θ, may be empty
	// F sets dz = f(t, z, u; θ).
	F func(t float64, z, u, theta, dz []T)
	// BackF computes, for a cotangent a of length N,
	//
	//	az      = aᵀ∂f/∂z    length N, overwritten
	//	au      = aᵀ∂f/∂u    length C, overwritten
	//	atheta += aᵀ∂f/∂θ    accumulated; nil is skipped
	//	at      = aᵀ∂f/∂t    with u held fixed
	BackF func(t float64, z, u, theta, a, az, au, atheta []T) (at float64)
	// ForwardF sets jv = (∂f/∂z)v + (∂f/∂u)vu + (∂f/∂θ)w.
	ForwardF func(t float64, z, u, theta, v, vu, w, jv []T)
}

var (
	_ field.VJPer[float32] = (*Func[float32])(nil)
	_ field.JVPer[float64] = (*Func[float64])(nil)
	_ Map[float64]         = (*Func[float64])(nil)
)

// NewFunc makes a Func of dim components that reads `channels` numbers of its signal
// from one generic function, given at the element type and at field.Dual, with its
// products derived as field.New does it. The function must set every component of dz.
// theta is kept, not copied.
func NewFunc[T backend.Float](dim, channels int, theta []T, f func(t T, z, u, theta, dz []T), dual func(t field.Dual, z, u, theta, dz []field.Dual)) *Func[T] {
	if dim < 1 || channels < 1 {
		panic("control: NewFunc needs at least one component and one channel")
	}
	if f == nil || dual == nil {
		panic("control: NewFunc needs the function at both types")
	}
	// The function as one of x = [z, u], with zeros for dx/dt beyond z.
	in := dim + channels
	g := field.New(in, theta, func(t T, x, theta, dx []T) {
		f(t, x[:dim], x[dim:], theta, dx[:dim])
		clear(dx[dim:])
	}, func(t field.Dual, x, theta, dx []field.Dual) {
		dual(t, x[:dim], x[dim:], theta, dx[:dim])
		clear(dx[dim:])
	})
	type scratch struct{ x, v, y []T }
	pool := sync.Pool{New: func() any { return &scratch{make([]T, in), make([]T, in), make([]T, in)} }}
	join := func(x, z, u []T) {
		copy(x[:dim], z)
		copy(x[dim:], u)
	}
	return &Func[T]{
		N: dim, C: channels, Theta: theta,
		F: func(t float64, z, u, theta, dz []T) { f(T(t), z, u, theta, dz) },
		BackF: func(t float64, z, u, theta, a, az, au, atheta []T) (at float64) {
			s := pool.Get().(*scratch)
			defer pool.Put(s)
			join(s.x, z, u)
			join(s.v, a, nil)
			clear(s.v[dim:])
			at = g.VJP(t, s.x, theta, s.v, s.y, atheta)
			copy(az, s.y)
			copy(au, s.y[dim:])
			return at
		},
		ForwardF: func(t float64, z, u, theta, v, vu, w, jv []T) {
			s := pool.Get().(*scratch)
			defer pool.Put(s)
			join(s.x, z, u)
			join(s.v, v, vu)
			g.JVP(t, s.x, theta, s.v, w, s.y)
			copy(jv, s.y)
		},
	}
}

// Dim is the length of x = [z, u], N + C.
func (f *Func[T]) Dim() int { return f.N + f.C }

// OutDim is N.
func (f *Func[T]) OutDim() int { return f.N }

// NumParams is the length of Theta.
func (f *Func[T]) NumParams() int { return len(f.Theta) }

// Params returns Theta itself, not a copy.
func (f *Func[T]) Params() []T { return f.Theta }

// Validate returns what is wrong with f, if anything.
func (f *Func[T]) Validate() error {
	if f.N < 1 || f.C < 1 {
		return fmt.Errorf("control: Func.N is %d and C %d; a state has at least one component, a signal one channel", f.N, f.C)
	}
	if f.F == nil {
		return errors.New("control: Func.F is nil; set it to the function that computes f(t, z, u; θ)")
	}
	return nil
}

// HasVJP reports whether VJP may be called.
func (f *Func[T]) HasVJP() bool { return f.BackF != nil }

// HasJVP reports whether JVP may be called.
func (f *Func[T]) HasJVP() bool { return f.ForwardF != nil }

// Eval calls F with z and u from x.
func (f *Func[T]) Eval(t float64, x, theta, dz []T) { f.F(t, x[:f.N:f.N], x[f.N:], theta, dz) }

// VJP calls BackF, which must not be nil, with z and u from x and their cotangents
// from ax.
func (f *Func[T]) VJP(t float64, x, theta, a, ax, atheta []T) (at float64) {
	n := f.N
	return f.BackF(t, x[:n:n], x[n:], theta, a, ax[:n:n], ax[n:], atheta)
}

// JVP calls ForwardF, which must not be nil, with z and u from x and their tangents
// from v.
func (f *Func[T]) JVP(t float64, x, theta, v, w, jv []T) {
	n := f.N
	f.ForwardF(t, x[:n:n], x[n:], theta, v[:n:n], v[n:], w, jv)
}
