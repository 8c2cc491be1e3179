package main

import (
	"context"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestSpiral_Learns(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, 1) })
	if lowest, first := found["lowest_test_mae"], found["first_test_mae"]; lowest > 0.6*first {
		t.Errorf("mean absolute error %g, at first %g", lowest, first)
	}
}
