package main

import (
	"context"
	"io"
	"math"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// model is a right-hand side to fit to the record.
type model struct {
	name string
	rhs  backend.System[float64]
}

// effort says how long a model is fitted.
type effort struct {
	epochs     int // over the windows
	iterations int // over the whole record
}

// windowYears is the length of the windows of the first step.
const windowYears = 5

// result is a fitted model. Errors are in thousands of pelts.
type result struct {
	model
	device        string   // that computed
	remarks       []string // of the solver
	theta, z0     []float64
	rmse          float64 // of one solution, over all years
	evaluations   int64   // of f in that solution
	gradients     int     // that the fit computed
	took          time.Duration
	gradientError float64   // relative, see checkGradient
	epochs, steps []float64 // RMSE in the course of the first and the second step
	years, u      []float64 // the solution at many times; units, [years, 2]
}

// fit adjusts a model to the record in two steps. First, the solutions that start
// from every year's pelts are to meet those of the four years after it: many short
// trajectories, which Adam learns in mini-batches. Second, one solution is to meet
// all years; L-BFGS adjusts its initial state too. Without the first step the long
// solution now and then gets stuck in a poor minimum.
func fit(ctx context.Context, dev backend.Backend[float64], m model, rec record, e effort, bar io.Writer) (*result, error) {
	start := time.Now()
	// Tight tolerances give L-BFGS accurate gradients.
	s, err := solver.New(dev, m.rhs, solver.Settings{Method: solver.Vern7, RTol: 1e-8, ATol: 1e-8})
	if err != nil {
		return nil, err
	}
	defer s.Close()

	windows, err := train.NewTrajectories(s, rec.windows(windowYears), train.TrajectorySettings{})
	if err != nil {
		return nil, err
	}
	defer windows.Close()
	short, err := train.Fit(ctx, windows, m.rhs.Params(), train.Settings[float64]{
		Optimizer: train.Optimizer{Kind: train.Adam, LR: 0.01},
		Schedule:  train.Schedule{Kind: train.Cosine},
		ClipNorm:  1, BatchSize: 4, Epochs: e.epochs, Seed: 1,
		Progress: bar, Title: m.name + ", windows",
	})
	if err != nil {
		return nil, err
	}

	whole, err := train.NewTrajectories(s, rec.whole(), train.TrajectorySettings{LearnZ0: true})
	if err != nil {
		return nil, err
	}
	defer whole.Close()
	x := append(short.Best, rec.u[:2]...) // θ, then the initial state
	long, err := train.LBFGS(ctx, whole, x, train.LBFGSSettings[float64]{
		Iterations: e.iterations, Progress: bar, Title: m.name + ", record",
	})
	if err != nil {
		return nil, err
	}

	p := s.NumParams()
	r := &result{
		model: m, theta: long.Best[:p], z0: long.Best[p:],
		gradients: short.Evaluations + long.Evaluations, took: time.Since(start),
		epochs: course(short.History), steps: course(long.History),
	}
	if r.gradientError, err = checkGradient(ctx, m.rhs, whole, rec, x); err != nil {
		return nil, err
	}
	return r, r.follow(ctx, s, rec)
}

// follow solves the fitted model through the record, once to compare it and once
// more at many times for the figure.
func (r *result) follow(ctx context.Context, s *solver.Solver[float64], rec record) error {
	if err := s.SetParams(r.theta); err != nil {
		return err
	}
	sol, err := s.Solve(ctx, r.z0, rec.years)
	if err != nil {
		return err
	}
	loss, err := train.EvalLoss(train.Loss{Kind: train.MSE}, sol.Y, train.Target[float64]{Values: rec.u}, nil)
	if err != nil {
		return err
	}
	r.rmse, r.evaluations = rmse(loss), sol.Evaluations()
	r.device, r.remarks = sol.Backend, sol.Warnings

	const perYear = 20
	first, last := rec.years[0], rec.years[len(rec.years)-1]
	for i := range int(last-first)*perYear + 1 {
		r.years = append(r.years, first+float64(i)/perYear)
	}
	if sol, err = s.Solve(ctx, r.z0, r.years); err != nil {
		return err
	}
	r.u = sol.Y
	return nil
}

// rmse is in thousands of pelts; loss is the mean squared error in units.
func rmse(loss float64) float64 { return unit * math.Sqrt(loss) }

// course is the RMSE over a fit.
func course(history []train.Record) []float64 {
	list := make([]float64, len(history))
	for i, r := range history {
		list[i] = rmse(r.Loss)
	}
	return list
}
