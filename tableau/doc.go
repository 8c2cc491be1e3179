// Package tableau holds explicit Runge-Kutta methods as data that checks itself.
//
// A method with s stages advances y' = f(t, y) from t0 by a step h with
//
//	k_i = f(t0 + c_i·h, y0 + h·Σ_{j<i} a_ij·k_j),  i = 0..s-1
//	y1  = y0 + h·Σ_j b_j·k_j
//	err = h·Σ_j e_j·k_j
//	y(t0 + x·h) ≈ y0 + h·Σ_j b_j(x)·k_j,  b_j(x) = Σ_m P[j][m]·x^(m+1),  0 ≤ x ≤ 1
//
// (Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, 2nd ed.,
// Springer 1993, eq. II.1.8, II.4 and II.6; cited below as HNW). Every method's
// interpolant has this one form, whatever form it was published in, so a stepping
// loop needs no code of its own for any method. The sum over j then runs over the
// stages and over the interpolant's extra stages, which are evaluated only for
// steps with an output inside.
//
// Stages are numbered from 0. Coefficients are dimensionless.
//
// [Tableau.Check] verifies a tableau, the library's or a user's, against the
// conditions that it claims to fulfil: those of all rooted trees up to its orders.
package tableau
