// Package flow fits and evaluates continuous normalising flows: densities of x that an
// ODE carries to a standard normal one,
//
//	dz/dt = f(t, z; θ),   z(0) = x,   z(T) ~ N(0, I)
//	log p(x) = log N(z(T); 0, I) + ∫₀ᵀ tr(∂f/∂z) dt
//
// (Chen et al. 2018, Neural ordinary differential equations, arXiv 1806.07366, eq. 8;
// Grathwohl et al. 2019, FFJORD, arXiv 1810.01367, eq. 4, with time in the other
// direction). The trace is computed exactly, by D products with the Jacobian, or
// estimated by one, with noise that is the same at all times of a solve, see
// [field.Flow].
//
//	f, err := flow.New(dev, model, flow.Settings{})
//	res, err := train.Fit(ctx, flow.NewLikelihood(f, data), model.Params(), train.Settings[float64]{})
//	err = f.SetParams(res.Best)
//	logp, err := f.LogDensity(ctx, points)
//	x, err := f.Sample(ctx, 1000, seed)
//
// [Likelihood] is the objective of maximum likelihood, with the regularisation by kinetic
// energy and by the Jacobian's norm of RNODE (Finlay et al. 2020, arXiv 2002.02798). Its
// gradients are package adjoint's: exact, second derivatives of f included.
//
// Flows run on the CPU. Where a backend cannot run them, New says so with
// backend.ErrUnsupported. Another way to the same density, for small D on any device, is
// the determinant of dz(T)/dx by forward sensitivities (package adjoint).
package flow
