package main

import (
	"context"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// checkGradient compares the gradient that fitted computes at x, by the adjoint
// method at the tolerances of the fit, with central differences of the same loss
// solved far more accurately, on the CPU. It returns ‖g - differences‖ / ‖differences‖.
func checkGradient(ctx context.Context, rhs backend.System[float64], fitted *train.Trajectories[float64], rec record, x []float64) (float64, error) {
	g := make([]float64, len(x))
	if _, err := fitted.Gradient(ctx, x, []int{0}, g); err != nil {
		return 0, err
	}
	// Steps of one size make the loss a smooth function of x: no step that is
	// accepted here and rejected there disturbs the differences.
	host := cpu.New[float64]()
	defer host.Close()
	s, err := solver.New(host, rhs, solver.Settings{Method: solver.Dopri8, Step: 0.1})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	accurate, err := train.NewTrajectories(s, rec.whole(), train.TrajectorySettings{LearnZ0: true})
	if err != nil {
		return 0, err
	}
	defer accurate.Close()

	const h = 1e-5 // near ε^(1/3), where truncation and rounding balance
	sum, norm := 0.0, 0.0
	for i, xi := range x {
		var loss [2]float64
		for j, sign := range []float64{-1, 1} {
			x[i] = xi + sign*h
			if loss[j], err = accurate.Loss(ctx, x, []int{0}); err != nil {
				return 0, err
			}
		}
		x[i] = xi
		d := (loss[1] - loss[0]) / (2 * h)
		sum += (g[i] - d) * (g[i] - d)
		norm += d * d
	}
	return math.Sqrt(sum / norm), nil
}
