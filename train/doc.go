// Package train fits parameters θ: it minimises
//
//	L(θ) = loss of z(t_i; θ) against targets,   dz/dt = f(z, t; θ)
//
// over samples, or any other [Objective].
//
// [Fit] is stochastic gradient descent: shuffled mini-batches, an [Optimizer]
// (SGD, RMSprop, Adam, AdamW), a [Schedule], gradient clipping, validation, early
// stopping, the best parameters kept, and checkpoints from which a run that was
// killed at any moment continues to the same bits. [LBFGS] is full-batch
// quasi-Newton. [Trajectories] is the objective of a Neural ODE; its gradients
// come from package adjoint.
//
//	data := train.Data[float64]{Times: ts, Z0: z0, Targets: y}
//	obj, err := train.NewTrajectories(s, data, train.TrajectorySettings{})
//	theta, err := obj.Params()
//	res, err := train.Fit(ctx, obj, theta, train.Settings[float64]{Epochs: 500, Progress: os.Stderr})
//	model.SetParams(res.Best)
//
// [Ragged] is the objective of series with times of their own. Where one solve of a long
// series is caught in a local minimum, [Shooting] solves it in short segments, and
// [Collocation] fits f to the derivatives of the series as [Smooth] makes it: both find
// parameters from which one solve goes on. [Augment] pads states with zeros for augmented
// Neural ODEs.
//
// A [Loss], an [Optimizer] and a [Schedule] are plain data: a kind and its
// hyper-parameters. What they work on is flat slices.
package train
