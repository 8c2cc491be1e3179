//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// fusedWidth is the width of the layers that are counted, fusedBatch the samples.
const (
	fusedWidth = 32
	fusedBatch = 128
)

// A whole solve moves little more than the weights once for every block, the states in and
// the outputs, without waste, and its inner loops meet no bank conflict; nor do those of
// its gradient.
func TestFused_Counters(t *testing.T) {
	if os.Getenv("CUDASIM_SEED") != "" {
		t.Skip("the stand-in finds bank conflicts between lanes in the order in which it runs them")
	}
	n := 0
	for name, c := range gpu.Profile(t, "TestFused_ForCounters", "CUDASIM_SM=70") {
		if !strings.HasPrefix(name, "fused_") {
			continue
		}
		n++
		// An inner loop has a good part of the loads: the others are sums of a block's
		// threads, the interpolant's weights, and what is done once a step.
		var loads, replays int64
		for _, s := range c.Sites {
			if s.Space == "shared" && s.Op == "load" {
				loads += s.Requests
				replays += s.Replays
			}
		}
		for _, s := range c.Sites {
			if s.Space == "shared" && s.Op == "load" && s.Replays > 0 && s.Requests > loads/1000 {
				t.Errorf("%s: %d replays of %d loads in line %d, of %d loads in all", name, s.Replays, s.Requests, s.Line, loads)
			}
		}
		t.Logf("%s: %d replays of %d loads of shared memory", name, replays, loads)
		load, store := c.Rows("load"), c.Rows("store")
		t.Logf("%s: %d bytes loaded, %d stored; rows at %.3f and %.3f", name, c.Load.Bytes, c.Store.Bytes, load.Efficiency, store.Efficiency)
		if load.Efficiency < 0.95 || store.Efficiency < 0.95 {
			for _, s := range c.Sites {
				if s.Space == "global" && s.Bytes > 8*s.Requests && float64(s.Bytes) < 0.95*float64(32*s.Sectors) {
					t.Errorf("%s: %s in line %d: %d bytes in %d sectors", name, s.Op, s.Line, s.Bytes, s.Sectors)
				}
			}
		}
		if name != "fused_solve_tile32_f32" {
			continue
		}
		const state = fusedBatch * fusedWidth
		const weights = fusedBatch / 32 * 2 * fusedWidth * (fusedWidth + 1) // of two layers, once for every block
		const least = 4 * (weights + state + 2*state)                       // with two outputs
		if moved := 32 * (c.Load.Sectors + c.Store.Sectors); moved > least*12/10 {
			t.Errorf("%d bytes moved, of weights, states and outputs %d", moved, least)
		}
	}
	if n != 4 { // solves in both precisions, adjoint and reduction
		t.Errorf("%d kernels ran", n)
	}
}

// The solve in float32 keeps nothing, that in float64 its steps.
func TestFused_ForCounters(t *testing.T) {
	gpu.Profiling(t)
	ctx := context.Background()
	set := solver.Settings{Stepping: solver.PerSample, Fusion: solver.FuseAlways, RTol: 1e-3, ATol: 1e-4}
	times := []float64{0, 0.4, 1}
	spec := mlp.Dense(mlp.Tanh, fusedWidth, fusedWidth, fusedWidth)
	single := must(solver.New(open[float32](t), must(mlp.New[float32](spec, mlp.Init{}, 3)), set))
	defer single.Close()
	must(single.Solve(ctx, convert[float32](sines(fusedBatch*fusedWidth)), times))

	double := must(solver.New(open[float64](t), must(mlp.New[float64](spec, mlp.Init{}, 3)), set))
	defer double.Close()
	a := must(adjoint.New(double, adjoint.Settings{NoTimes: true}))
	defer a.Close()
	sol := must(a.Solve(ctx, sines(fusedBatch*fusedWidth), times))
	must(a.Gradients(ctx, sol, make([]float64, len(sol.Y))))
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
