//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"testing"

	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func TestFused_Smoke(t *testing.T) {
	dev := open[float64](t)
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	solve := func(f solver.Fusion) *solver.Solution[float64] {
		s, err := solver.New(dev, m, solver.Settings{Stepping: solver.PerSample, Fusion: f})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		before := dev.Counts()
		sol, err := s.Solve(context.Background(), []float64{1, 0, 0, 1, 0.5, -2}, []float64{0, 0.5, 1})
		if err != nil {
			t.Fatal(err)
		}
		after := dev.Counts()
		t.Log(sol.Fused, after.Launches-before.Launches, after.Waits-before.Waits, sol.Y, sol.Stats)
		return sol
	}
	solve(solver.FuseNever)
	solve(solver.FuseAlways)
}
