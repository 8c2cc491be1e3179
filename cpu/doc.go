// Package cpu is the [backend.Backend] that runs on the host.
//
// It evaluates batched MLPs, a tile of samples at a time, and right-hand sides written
// in Go (package field) sample by sample:
//
//	dz = f(z, t; θ),  aᵀ∂f/∂z,  aᵀ∂f/∂θ,  aᵀ∂f/∂t,  (∂f/∂z)v + (∂f/∂θ)w
//
// It needs neither cgo nor a device, and it is the reference for other backends. On amd64
// its arithmetic is assembly for AVX2 and AVX-512; elsewhere, or with the build tag noasm,
// it is Go and gonum's BLAS (internal/simd).
//
// Every verb runs to its end before it returns. A sequence of them that was recorded is
// run unit by unit: a few samples go through a whole step, and where each has a step size
// of its own through many steps, while they are in the cache, and units are spread over
// goroutines, of which none is left when the call returns. With one step size for all
// they wait for each other once in a step. [Backend.SetThreads] limits their number.
//
// The result of a row does not depend on the other rows of its batch, bit for bit,
// where rows have lanes of their own; and nothing depends on the number of goroutines:
// sums over rows are made of those of units, in ascending order.
package cpu
