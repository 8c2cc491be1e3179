// Package cpu is the backend.Backend that runs on the host.
//
// It evaluates batched MLPs through gonum's BLAS, a tile of samples at a time,
// and right-hand sides written in Go (package field) sample by sample. It needs
// neither cgo nor a device, and it is the reference for other backends.
//
//	dz = f(z, t; θ),  aᵀ∂f/∂z,  aᵀ∂f/∂θ,  aᵀ∂f/∂t,  (∂f/∂z)v + (∂f/∂θ)w
//
// Every verb runs to its end before it returns, on the goroutine that called it.
// The result of a row does not depend on the other rows of its batch, bit for
// bit, where rows have lanes of their own; sums over rows run in ascending order.
package cpu
