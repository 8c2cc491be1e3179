// Package problems holds initial value problems
//
//	dz/dt = f(t, z; θ),  z(t0) = z0
//
// with what is known of their solutions and of the gradients of losses over them:
// the yardstick of the tests and of the work-precision tables.
package problems

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

// Problem is an initial value problem for one sample.
type Problem struct {
	Name   string
	Source string    // where the equations come from
	Theta  []float64 // θ, empty if the problem has no parameters
	Z0     []float64
	T0, T1 float64
	// Stiff: an explicit method needs small steps for its stability all along.
	Stiff bool

	// End is z(T1). Where no Exact gives it, it was computed with an extrapolation
	// method of order 20 in 34 digits, unless the Source says otherwise.
	End []float64
	// Exact sets z to the solution at t, for any t of the span; nil if there is no
	// closed form.
	Exact func(t float64, z []float64)

	Losses []Loss // with reference gradients, if any

	f32  func(t float32, z, theta, dz []float32)
	f64  func(t float64, z, theta, dz []float64)
	dual func(t field.Dual, z, theta, dz []field.Dual)
}

// Loss is a scalar L of the states at output times, with its derivatives. The
// values hold for the Problem's own θ and z0; they were computed with an
// extrapolation method of order 20 and central differences of order 4, in 34 digits.
type Loss struct {
	Times []float64 // output times, t0 first
	// Cotangent sets a = ∂L/∂z(Times[i]), where z = z(Times[i]).
	Cotangent func(i int, z, a []float64)

	Value  float64   // L
	DZ0    []float64 // dL/dz0, the direct part of an output at t0 included
	DTheta []float64
	// DTimes is dL/dt_i = ∂L/∂z(t_i)·f(t_i, z(t_i)) for i > 0, and for i = 0 the
	// derivative by t0 with z(t0) = z0 held: -(DZ0 - ∂L/∂z(t0))·f(t0, z0).
	DTimes []float64
}

// Dim is the number of components of the state, D.
func (p *Problem) Dim() int { return len(p.Z0) }

// System returns the right-hand side of p with a copy of its θ.
func System[T backend.Float](p *Problem) *field.Generic[T] {
	var g any
	switch any(T(0)).(type) {
	case float32:
		g = field.New(p.Dim(), Convert[float32](p.Theta), p.f32, p.dual)
	default:
		g = field.New(p.Dim(), Convert[float64](p.Theta), p.f64, p.dual)
	}
	return g.(*field.Generic[T])
}

// Convert copies x to another precision.
func Convert[T, S backend.Float](x []S) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// Cotangents returns ∂L/∂z at every output time, [len(Times), D], for the states
// y of one sample at these times.
func Cotangents[T backend.Float](l *Loss, y []T) []T {
	a := make([]float64, len(y))
	d := len(y) / len(l.Times)
	z := Convert[float64](y)
	for i := range l.Times {
		l.Cotangent(i, z[i*d:(i+1)*d], a[i*d:(i+1)*d])
	}
	return Convert[T](a)
}

// All lists every problem.
func All() []*Problem {
	all := withGradients()
	all = append(all, detest()...)
	all = append(all, VanDerPol(), Riccati())
	return append(all, stiff()...)
}

// NonStiff lists the problems that explicit methods suit.
func NonStiff() []*Problem {
	var list []*Problem
	for _, p := range All() {
		if !p.Stiff {
			list = append(list, p)
		}
	}
	return list
}

// Get returns the problem of that name; it panics if there is none.
func Get(name string) *Problem {
	for _, p := range All() {
		if p.Name == name {
			return p
		}
	}
	panic(fmt.Sprintf("problems: no problem is called %q", name))
}

// exactly sets End from Exact.
func exactly(p *Problem) *Problem {
	p.End = make([]float64, p.Dim())
	p.Exact(p.T1, p.End)
	return p
}
