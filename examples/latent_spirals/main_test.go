package main

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

// A short fit tells the pieces apart: it misses by less than half of what their mean does.
func TestLatentSpirals_Learns(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, 60, 0.1, 1) })
	var sum, squares [2]float64
	n := 0.0
	for _, p := range pieces(rand.New(rand.NewPCG(1, 2)), 200, 1, 0) {
		for i, v := range p.points[:2*window] {
			sum[i%2], squares[i%2] = sum[i%2]+float64(v), squares[i%2]+float64(v*v)
			n += 0.5
		}
	}
	spread := math.Sqrt((squares[0] + squares[1] - (sum[0]*sum[0]+sum[1]*sum[1])/n) / (2 * n))
	if got := found["rmse_within_30"]; got > spread/2 {
		t.Errorf("RMSE %g; the mean of all points has %g", got, spread)
	}
}
