// Package gpu is the backend.Backend that runs on an NVIDIA GPU: a batched MLP
//
//	dz = f(z, t; θ),  aᵀ∂f/∂z,  aᵀ∂f/∂θ,  aᵀ∂f/∂t,  (∂f/∂z)v + (∂f/∂θ)w
//
// and the Runge-Kutta verbs, by the CUDA kernels of package kernels.
//
// Products of layers can run on tensor cores: see [Precision].
// Right-hand sides given as equations or CUDA source are compiled when they are bound, by
// NVRTC if it is there. A whole solve whose samples step alone is one launch where the
// network is narrow or the right-hand side was compiled.
//
// It is built with -tags cuda, cgo and CUDA's header cuda.h, on linux/amd64. A
// program built so starts on any machine: the driver is loaded at run time, and [Open]
// says why there is no device. Without the tag the package is a stub whose Open
// answers backend.ErrUnavailable.
//
// Reductions have a fixed order and no atomics on floating-point numbers: a rerun on
// one device is equal to the last bit. Results differ from the CPU's by rounding.
package gpu
