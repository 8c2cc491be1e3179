//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/kernels"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// fusedWidth is the width of the layers of a net whose solve is counted, fusedBatch the
// number of samples.
const (
	fusedWidth = 64
	fusedBatch = 96
	fusedTimes = 10 // outputs
)

var vectorLoad = regexp.MustCompile(`ld\.shared\.v[24]\.f`)

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
		ptx := fusedPTX(name, 70)
		var loads, replays, moved int64
		var rows, sectors [2]int64
		for _, s := range c.Sites {
			store := 0
			if s.Op == "store" {
				store = 1
			}
			switch {
			case s.Space == "shared" && store == 0:
				loads += s.Requests
				replays += s.Replays
			case inGlobal(ptx, s.Line):
				if s.Bytes > 64*s.Sectors { // the description of a layer, in the first-level cache
					continue
				}
				moved += 32 * s.Sectors
				if s.Bytes > 8*s.Requests { // not a word of one thread
					rows[store] += s.Bytes
					sectors[store] += s.Sectors
				}
			}
		}
		for _, s := range c.Sites { // the inner loops load vectors
			if s.Space == "shared" && s.Replays > 0 && vectorLoad.MatchString(ptx[s.Line-1]) {
				t.Errorf("%s: %d replays of %d loads in line %d", name, s.Replays, s.Requests, s.Line)
			}
		}
		load, store := float64(rows[0])/float64(32*sectors[0]), float64(rows[1])/float64(32*sectors[1])
		t.Logf("%s: %d replays of %d loads of shared memory; %d bytes moved, loads at %.3f, stores at %.3f", name, replays, loads, moved, load, store)
		if !(load >= 0.95 && store >= 0.95) {
			t.Errorf("%s: efficiency of loads %v, of stores %v", name, load, store)
		}
		if name != "fused_solve_tile32_f32" {
			continue
		}
		const state = fusedBatch * fusedWidth
		const weights = fusedBatch / 32 * 2 * fusedWidth * (fusedWidth + 1) // of two layers, once for every block
		const least = 4 * (weights + state + fusedTimes*state)
		// Beside that, the states at the end and some 250 bytes of a clock's lane.
		if ratio := float64(moved) / least; ratio < 1 || ratio > 1.2 {
			t.Errorf("%d bytes moved, of weights, states and outputs %d", moved, least)
		} else {
			t.Logf("%.3f times the weights, states and outputs", ratio)
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
	times := make([]float64, 1+fusedTimes)
	for i := range times {
		times[i] = float64(i) / fusedTimes
	}
	net := func(width int) mlp.Spec { return mlp.Dense(mlp.Tanh, width, width, width) }
	single := must(solver.New(open[float32](t), must(mlp.New[float32](net(fusedWidth), mlp.Init{}, 3)), set))
	defer single.Close()
	must(single.Solve(ctx, convert[float32](sines(fusedBatch*fusedWidth)), times))

	double := must(solver.New(open[float64](t), must(mlp.New[float64](net(32), mlp.Init{}, 3)), set))
	defer double.Close()
	a := must(adjoint.New(double, adjoint.Settings{NoTimes: true}))
	defer a.Close()
	sol := must(a.Solve(ctx, sines(fusedBatch*32), times))
	must(a.Gradients(ctx, sol, make([]float64, len(sol.Y))))
}

// fusedPTX is the lines of the PTX of which a kernel is part.
func fusedPTX(kernel string, capability int) []string {
	family := regexp.MustCompile(`^fused_[a-z]+`).FindString(kernel)
	return strings.Split(string(must(kernels.PTX(family, capability))), "\n")
}

// inGlobal reports whether a line names global memory. States and stages lie in shared
// memory, and are reached by generic addresses, which the stand-in counts as global.
func inGlobal(ptx []string, line int) bool { return strings.Contains(ptx[line-1], ".global") }

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
