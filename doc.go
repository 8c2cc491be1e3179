// Package neuralode is the root of a library that solves and learns neural ordinary
// differential equations,
//
//	dz/dt = f(z, t; θ),  z(t0) = z0
//
// (Chen et al. 2018, arXiv 1806.07366). It holds nothing itself; the packages are
//
//   - mlp: a multilayer perceptron as f, its parameters, files
//   - field: f written in Go, with derivatives by dual numbers; sums of both;
//     field/expr: f as equations in text
//   - solver: solutions of a batch, by explicit Runge-Kutta methods
//   - control: signals that f reads, or is driven by
//   - adjoint: gradients of a loss of a solution, exact or by the adjoint method
//   - train: losses, optimisers, the training loop, checkpoints
//   - flow: continuous normalising flows
//   - latent: latent ODEs
//   - matrix: states and gradients as gonum matrices
//   - tableau: the Runge-Kutta methods as data
//   - backend: the interface behind which a device computes; cpu is the host's, gpu
//     that of CUDA (not finished)
//
// The folder docs has a tutorial, and pages on how to choose, migrate and extend. The
// example below learns a rotation from four points on it.
package neuralode
