package backend

// SecondOrder is an optional capability of a Field, found by type assertion: second
// derivatives, which Hessian-vector products need.
type SecondOrder[T Float] interface {
	Field[T]
	// VJPTangent computes directional derivatives of vector-Jacobian products, see
	// [VJPTangent]. It enqueues and counts as the other verbs do.
	VJPTangent(at At, v VJPTangent[T])
}

// VJPTangent names the operands of one derivative of a vector-Jacobian product: of
// aᵀ∂f/∂z and aᵀ∂f/∂θ in the direction (v, b, w) of (z, a, θ),
//
//	bᵀ∂f/∂x + d/dε aᵀ∂f/∂x(t, z+ε·v; θ+ε·w) at ε = 0,   x = z, θ
//
// (the R-operator of Pearlmutter 1994, Fast exact multiplication by the Hessian, Neural
// Computation 6(1), 147-160, applied to a VJP). Nil outputs are skipped, a nil W is zero. Where f has a kink its second
// derivative is taken as 0.
type VJPTangent[T Float] struct {
	Z, V  Vec[T]  // in: state and its tangent, 1×B×D
	A, B  Vec[T]  // in: cotangent and its tangent, 1×B×D
	W     Vec[T]  // in: tangent of θ, 1×1×P, or nil
	BZ    Vec[T]  // out: Alpha times the derivative of aᵀ∂f/∂z, 1×B×D
	Alpha float64 // factor of BZ
	// G accumulates Weight times the sum of the derivative of aᵀ∂f/∂θ over the selected
	// rows, as VJP.G does; with TimesH also times the step size of their lane.
	G      Vec[T]
	Weight float64
	TimesH bool
}
