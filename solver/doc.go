// Package solver integrates a batch of initial value problems
//
//	dz/dt = f(z, t; θ),  z(t0) = z0
//
// on any backend and returns z at the times asked for. f is a Neural ODE's MLP or
// a right-hand side written in Go (package field); θ is shared by the batch and
// over time. This is the forward pass of a Neural ODE (Chen et al. 2018, arXiv
// 1806.07366, eq. 2); package adjoint computes its gradients.
//
//	dev := solver.Auto[float64]()
//	s, err := solver.New(dev, model, solver.Settings{})
//	sol, err := s.Solve(ctx, z0, ts)
//
// Methods are explicit Runge-Kutta methods with a fixed step or with a step size
// controlled by an embedded error estimate. The batch steps jointly, or every
// sample on its own, then also over times of its own: [Solver.SolveEach]. Output times
// do not shorten steps: outputs inside a step come from the method's interpolant. An
// [Event] is found on it too, and may end a sample or reset its state.
package solver
