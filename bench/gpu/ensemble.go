package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field/expr"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// ensemble is the time of a solve of many small systems, from host memory to host memory.
type ensemble struct {
	Trajectories   int     `json:"trajectories"`
	Millis         float64 `json:"milliseconds"` // in one launch
	Launches       int64   `json:"launches"`
	StagedMillis   float64 `json:"step_by_step_milliseconds"`
	StagedLaunches int64   `json:"step_by_step_launches"`
	CPUMillis      float64 `json:"cpu_milliseconds"` // 0: not run
	Evaluations    int64   `json:"evaluations"`      // of all trajectories
}

// The ensemble of Utkarsh et al. 2024, Automated translation and accelerated solving of
// differential equations on multiple GPU platforms: the Lorenz equations with ρ from 0 to
// 21, which is a component of the state here.
const ensembleTitle = "Lorenz ensemble: σ = 10, β = 8/3, ρ 0…21, from (1, 0, 0), t 0…1, float32, tsit5, tolerances 1e-6"

// cpuMost is the largest ensemble that the CPU backend runs too.
const cpuMost = 1 << 17

// ensembles measures ensembles of growing size, until the device is full.
func (r *report) ensembles() error {
	dev, err := gpu.Open[float32](gpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	host := cpu.New[float32]()
	defer host.Close()
	for _, n := range r.settings.ensembles {
		e, err := r.ensemble(dev, host, n)
		if errors.Is(err, backend.ErrOutOfMemory) && len(r.Ensembles) > 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("an ensemble of %d: %w", n, err)
		}
		r.Ensembles = append(r.Ensembles, e)
	}
	return nil
}

func (r *report) ensemble(dev *gpu.Backend[float32], host backend.Backend[float32], n int) (e ensemble, err error) {
	e.Trajectories = n
	z0 := make([]float32, 4*n)
	for i := range n {
		z0[4*i], z0[4*i+3] = 1, 21*float32(i)/float32(n-1)
	}
	runs := 1 + r.settings.runs/5
	once := func(on backend.Backend[float32], fusion solver.Fusion) (ms float64, launches int64, err error) {
		sys, err := expr.Parse([]string{"10*(z1-z0)", "z0*(z3-z2) - z1", "z0*z1 - 8/3*z2", "0"}, expr.Settings[float32]{})
		if err != nil {
			return 0, 0, err
		}
		s, err := solver.New(on, sys, solver.Settings{RTol: 1e-6, ATol: 1e-6, Stepping: solver.PerSample, Fusion: fusion})
		if err != nil {
			return 0, 0, err
		}
		defer s.Close()
		var times []float64
		for range runs + 1 { // the first is a warm-up
			before, start := dev.Counts().Launches, time.Now()
			sol, err := s.Solve(context.Background(), z0, []float64{0, 1})
			if err != nil {
				return 0, 0, err
			}
			times = append(times, 1e3*time.Since(start).Seconds())
			launches = dev.Counts().Launches - before
			e.Evaluations = 0
			for _, st := range sol.Stats {
				e.Evaluations += st.Evaluations
			}
		}
		return median(times[1:]), launches, nil
	}
	if n <= cpuMost {
		if e.CPUMillis, _, err = once(host, solver.FuseAuto); err != nil {
			return e, err
		}
	}
	if e.StagedMillis, e.StagedLaunches, err = once(dev, solver.FuseNever); err != nil {
		return e, err
	}
	e.Millis, e.Launches, err = once(dev, solver.FuseAlways)
	return e, err
}
