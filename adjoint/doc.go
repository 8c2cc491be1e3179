// Package adjoint computes gradients of a loss of an ODE's solution.
//
// For dz/dt = f(z, t; θ), z(t0) = z0, and a loss L(z(t_1), …, z(t_n)), the adjoint
// a(t) = ∂L/∂z(t) and the gradient with respect to θ solve
//
//	dz/dt   =  f(z, t; θ)
//	da/dt   = -aᵀ ∂f/∂z            a(t_n) = ∂L/∂z(t_n)
//	da_θ/dt = -aᵀ ∂f/∂θ            a_θ(t_n) = 0
//
// backwards from t_n to t0, with a += ∂L/∂z(t_i) at every output time t_i on the
// way. Then dL/dz0 = a(t0) and dL/dθ = a_θ(t0) (Chen et al. 2018, arXiv 1806.07366,
// eqs. 4, 5 and 51, appendix B), and
//
//	dL/dt_i = ∂L/∂z(t_i)·f(z(t_i), t_i),   dL/dt0 = -a(t0)·f(z0, t0).
//
// [Settings.Method] says how that is computed.
//
// [Discrete], the default, differentiates the solver instead: it goes back over the
// accepted steps and applies the chain rule to each. The gradient is that of the
// computed solution, to rounding, and converges to the exact solution's with the
// tolerances. How the step sizes depend on z0 and θ is left out, as is usual: its part
// vanishes with the tolerances. [Settings.StepSizes] takes it in: the gradient is then
// that of the adaptive solve as a program. The steps are kept, or made again from
// checkpoints: [Settings.Budget].
//
// [Continuous] solves the equations above, in memory that does not grow with the number
// of steps. z is solved for again, backwards; its distance from the forward solution is
// reported as [Drift], and where a cotangent enters, z is reset to what the forward
// solve returned. The gradient is the exact solution's, approximated to the tolerances
// of the reverse solve. Solutions that contract strongly forwards in time, stiff ones
// above all, blow up backwards: there the drift is large and the gradient wrong.
// [Interpolating] takes z from the forward solve's interpolant and has no drift. In both
// a_θ is not a part of the state but a quadrature: it is summed with the method's
// weights over accepted steps, needs no stage copies and does not choose the step size
// (the seminorm of Kidger, Chen & Lyons 2021, arXiv 2009.09457) unless
// Settings.FullNorm says so.
//
// [Check] compares a gradient with finite differences and with a second method.
package adjoint
