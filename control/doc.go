// Package control gives a right-hand side an exogenous signal u(t) to read, one for
// each sample of the batch:
//
//	dz/dt = f(t, z, u(t); θ)            forced systems, control inputs
//	dz/dt = f(t, z, u(t), u'(t); θ)
//	dz/dt = F(t, z; θ)·u'(t)            neural controlled differential equations
//
// (the last is Kidger et al. 2020, Neural controlled differential equations for
// irregular time series, arXiv 2005.08926; F(t, z; θ) is a matrix [D, C]).
//
// A [Signal] has C channels and is given at knots, t_0 < … < t_{n-1} with values
// v_i; between them, with h = t_{i+1} - t_i and x = (t - t_i)/h in [0, 1), it is
//
//	Constant       u = v_i, right-continuous; the last value is u at the last knot alone
//	Linear         u = (1-x)·v_i + x·v_{i+1}
//	Hermite        u = (1+2x)(1-x)²·v_i + x²(3-2x)·v_{i+1} + h·x(1-x)²·m_i + h·x²(x-1)·m_{i+1}
//	               with m_i = (v_i - v_{i-1})/(t_i - t_{i-1}) and m_0 = m_1
//	NaturalCubic   the same with the slopes m that make u'' continuous, and 0 at the ends
//
// Hermite is the cubic spline with backward differences of Morrill, Yang, Kidger &
// Lyons 2021, Neural controlled differential equations for online prediction tasks,
// arXiv 2106.11028. It is causal: up to a knot u depends on the values up to that knot
// alone. NaturalCubic depends on all of them everywhere.
//
// [New] puts a function and a signal together into a [Field], which a solver takes
// like any right-hand side and the CPU backend runs: an *mlp.Model whose input is
// [z, u], or a Go function, [Func].
//
// # Gradients
//
// With Settings.Learn the knots' values belong to θ, and dL/dθ then holds their
// gradient. [Field.Split] takes it apart.
//
// # Where the signal is not smooth
//
// u jumps at the knots of a Constant signal and u' at those of a Linear one. A solver
// that is not told has to search for them by rejected steps: give it
// [Signal.Breakpoints].
//
// A signal is not extrapolated: a solve that reads it outside its knots ends with an
// error that wraps [ErrOutside].
package control
