// Package latent fits latent ODEs to series of observations x_i at times t_i of their
// own, some values of which may be missing:
//
//	q(z0 | x) = N(μ, diag σ²)        [μ, ln σ²] by a recurrent encoder of x
//	z(t0) = z0,  dz/dt = f(z, t; θ)
//	x_i ~ N(g(z(t_i)), s²)           g a multilayer perceptron, the decoder
//
// (Chen et al. 2018, Neural ordinary differential equations, arXiv 1806.07366, section 5;
// the encoder is a variational autoencoder's, Kingma & Welling 2014, arXiv 1312.6114). The
// encoder is a GRU that runs over a series from its last observation to its first
// (Cho et al. 2014, arXiv 1406.1078, in torch.nn.GRU's form). At every observation it reads
// the values, which of them are there, and the time to the observation before.
//
//	m, err := latent.New(dev, f, decoder, latent.Settings{Noise: 0.1})
//	theta, err := m.Params()
//	obj, err := latent.NewELBO(m, series)
//	res, err := train.Fit(ctx, obj, theta, train.Settings[float64]{})
//	err = m.SetParams(res.Best)
//	mean, logvar, err := m.Encode(series)
//	x, err := m.Decode(ctx, mean, times)
//
// [ELBO] is the objective of the evidence lower bound, with exact gradients: encoder and
// decoder are propagated back on the host, and dL/dz0 comes from package adjoint.
package latent
