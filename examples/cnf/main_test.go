package main

import (
	"context"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestCNF_Learns(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, 20, false) })
	for _, c := range curves {
		// A uniform density over the picture has -ln (2·half)² = -2.33.
		got, truth := found[c.name+"_test_loglik"], found[c.name+"_truth_loglik"]
		if got < -2*math.Log(2*half) || got > truth {
			t.Errorf("%s: log-likelihood %g after a few updates, that of the truth %g", c.name, got, truth)
		}
		if sum := found[c.name+"_density_sum"]; sum > 1.01 || sum < 0.8 {
			t.Errorf("%s: the density sums to %g over the picture", c.name, sum)
		}
	}
}

// The densities that the fits are compared with sum to 1.
func TestCurve_LogDensity(t *testing.T) {
	const n = 60
	for _, c := range curves {
		sum := 0.0
		for i := range n * n {
			at := func(k int) float32 { return float32(half * (2*(float64(k)+0.5)/n - 1)) }
			p := math.Exp(c.logDensity([]float32{at(i % n), at(i / n)}))
			sum += p * (2 * half / n) * (2 * half / n)
		}
		// The grid's spacing is below the noise, for which its sum is exact to 1e-6 or so.
		if math.Abs(sum-1) > 1e-3 {
			t.Errorf("%s: the density sums to %g", c.name, sum)
		}
	}
}
