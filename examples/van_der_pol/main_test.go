package main

import (
	"context"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestVanDerPol_Periods(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, 121) })
	// Steps of tolerance 1e-8 over 200 units of time, about 30 periods.
	if found["period_error"] > 1e-6 {
		t.Errorf("the period of μ = 1 is off by %g", found["period_error"])
	}
	if found["evaluations_own"] >= found["evaluations_joint"] {
		t.Errorf("%v evaluations with own step sizes, %v with one for all", found["evaluations_own"], found["evaluations_joint"])
	}
}
