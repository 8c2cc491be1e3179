package main

import (
	"context"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestLorenzEnsemble_LyapunovExponent(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, 100) })
	// 0.9056 (Sprott 2003, Chaos and Time-Series Analysis, section 4.7). Over 10 units of
	// time the exponents of single pairs spread by some 0.2, and there are 100.
	if got := found["lyapunov_exponent"]; math.Abs(got-0.9056) > 0.08 {
		t.Errorf("the exponent is %g, want 0.9056", got)
	}
}
