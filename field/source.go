package field

import "github.com/seed-5f5774c8/neuralode/backend"

// Source is a right-hand side as CUDA C++, for a device that compiles it when it is
// bound: the bodies of three functions of one sample. In them `real` is the element
// type, float or double, and real t, const real *z and const real *theta are the
// arguments of f.
type Source struct {
	// Eval sets real dz[D].
	Eval string
	// VJP, for a cotangent const real a[D], sets real az[D] = aᵀ∂f/∂z, real atheta[P] =
	// aᵀ∂f/∂θ and the variable real at = aᵀ∂f/∂t. Reverse-mode gradients need it.
	VJP string
	// JVP, for tangents const real v[D] and w[P], sets real jv[D] = (∂f/∂z)v + (∂f/∂θ)w.
	// Forward sensitivities need it.
	JVP string
}

// Sourcer is a right-hand side that a CUDA device runs too. What its source computes is
// what the methods of the Func do, which the CPU runs.
type Sourcer[T backend.Float] interface {
	Func[T]
	Source() Source
}

// Source returns CUDA.
func (c *Custom[T]) Source() Source { return c.CUDA }
