// Package field holds right-hand sides written in Go,
//
//	dz/dt = f(t, z; θ)
//
// for models that are no multilayer perceptron: known physics, alone or added to
// an MLP. They run on the CPU, one sample at a time.
//
// The short way is to write f once over a [Number] and let the library derive
// the products that gradients need:
//
//	func lotkaVolterra[T field.Number](t T, z, theta, dz []T) {
//		dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
//		dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
//	}
//
//	f := field.New(2, theta, lotkaVolterra[float64], lotkaVolterra[field.Dual])
//
// [New] gets aᵀ∂f/∂z, aᵀ∂f/∂θ, aᵀ∂f/∂t and (∂f/∂z)v + (∂f/∂θ)w by dual numbers
// (forward-mode automatic differentiation; Griewank & Walther 2008, Evaluating
// Derivatives, section 3.1), exact to rounding. A product from the left takes
// D+P+1 evaluations of f at [Dual], so a model of many parameters brings its own:
// [Custom], or any type with the methods of [VJPer] and [JVPer]. [Check] compares
// such products with finite differences.
//
// [Plus] adds right-hand sides: known physics and an MLP for what is not known
// make a universal differential equation (Rackauckas et al. 2020, arXiv
// 2001.04385).
package field
