package field

import "github.com/seed-5f5774c8/neuralode/backend"

// SecondOrderer is a VJPer with second derivatives, which Hessian-vector products need.
// A Generic has none: a [Dual] carries one tangent.
type SecondOrderer[T backend.Float] interface {
	VJPer[T]
	// VJPTangent computes the derivative of the products of VJP in the direction
	// (v, b, w) of (z, a, θ), slices of length D, D and P:
	//
	//	bz      = bᵀ∂f/∂z + d/dε aᵀ∂f/∂z(t, z+ε·v; θ+ε·w)    length D, overwritten
	//	btheta += bᵀ∂f/∂θ + d/dε aᵀ∂f/∂θ(t, z+ε·v; θ+ε·w)    length P, accumulated; nil is skipped
	VJPTangent(t float64, z, theta, a, v, b, w, bz, btheta []T)
}

var _ SecondOrderer[float64] = (*Custom[float64])(nil)

// HasVJPTangent reports whether VJPTangent may be called.
func (c *Custom[T]) HasVJPTangent() bool { return c.SecondF != nil }

// VJPTangent calls SecondF, which must not be nil.
func (c *Custom[T]) VJPTangent(t float64, z, theta, a, v, b, w, bz, btheta []T) {
	c.SecondF(t, z, theta, a, v, b, w, bz, btheta)
}
