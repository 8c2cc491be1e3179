package main

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestForcedOscillator_FindsTheForce(t *testing.T) {
	found := exampletest.Short(t, run)
	// The force's own root mean square is 0.55.
	if found["rmse_force"] > 0.08 || found["rmse_x"] > 0.025 {
		t.Errorf("the force is off by %g, the displacement by %g", found["rmse_force"], found["rmse_x"])
	}
}
