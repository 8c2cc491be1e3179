//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// What docs/gpu-model.md counts: modelBatch samples of nets of four layers of a width, with
// tanh behind three of them, and modelSteps fixed steps of tsit5 in float32.
const (
	modelBatch = 128
	modelSteps = 10
)

// At width 64 at least 60 % of the instructions of the inner loop that runs most are
// multiplications with an addition; those of the PTX, of which ptxas leaves some out. The
// counts are printed, with MODEL_WIDTHS=all those of narrower nets too.
func TestModel_Counts(t *testing.T) {
	widths := []int{64}
	if os.Getenv("MODEL_WIDTHS") == "all" {
		widths = []int{16, 32, 64}
	}
	for _, width := range widths {
		for name, c := range gpu.Profile(t, "TestModel_ForCounters", fmt.Sprintf("MODEL_WIDTH=%d", width)) {
			family, _, _ := strings.Cut(name, "_tile")
			if family != "fused_solve" && family != "fused_adjoint" {
				continue
			}
			ptx := fusedPTX(name, 80)
			var requests, sectors int64
			for _, s := range c.Sites {
				switch {
				case s.Space == "shared":
					requests += s.Requests
				case inGlobal(ptx, s.Line):
					sectors += s.Sectors
				}
			}
			const steps = modelBatch * modelSteps // of samples
			loop, fma := innerLoop(ptx, c)
			t.Logf("width %d, %s: a sample's step is %d instructions, %d FMA, %d requests of shared memory, %d bytes of device memory; inner loop %d FMA of %d",
				width, name, c.Instructions.Total/steps, c.Instructions.FMA/steps, requests/steps, 32*sectors/steps, fma, loop)
			if share := float64(fma) / float64(loop); width == 64 && !(share >= 0.6) {
				t.Errorf("%s: %.2f of the inner loop's instructions are FMA", name, share)
			}
			if layers := int64(6 * 4 * width * width); c.Instructions.FMA/steps < layers {
				t.Errorf("%s: %d FMA, fewer than the layers' %d", name, c.Instructions.FMA/steps, layers)
			}
		}
	}
}

// innerLoop counts the instructions, and among them the FMA of float32, of the loop body
// without branches that computes most.
func innerLoop(ptx []string, c gpu.Counted) (loop, fma int) {
	requests := map[int]int64{}
	for _, s := range c.Sites {
		requests[s.Line] = max(requests[s.Line], s.Requests)
	}
	var most int64
	var n, f int
	var runs int64
	for i, line := range ptx {
		switch text := strings.TrimSpace(line); {
		case strings.HasPrefix(text, "$L__BB"):
			n, f, runs = 0, 0, 0
		case strings.HasPrefix(line, "\t") && strings.HasSuffix(text, ";") && !strings.HasPrefix(text, "."):
			n++
			runs = max(runs, requests[i+1])
			if strings.HasPrefix(text, "fma.rn.f32") {
				f++
			}
			if strings.Contains(text, "bra ") {
				if runs*int64(f) > most {
					most, loop, fma = runs*int64(f), n, f
				}
				n, f, runs = 0, 0, 0
			}
		}
	}
	return loop, fma
}

func TestModel_ForCounters(t *testing.T) {
	gpu.Profiling(t)
	ctx := context.Background()
	var width int
	must(fmt.Sscan(os.Getenv("MODEL_WIDTH"), &width))
	dev := open[float32](t)
	dev.Pretend(1) // tiles of 64 samples where they fit
	set := solver.Settings{Stepping: solver.PerSample, Fusion: solver.FuseAlways, Method: solver.Tsit5, Step: 1. / modelSteps}
	s := must(solver.New(dev, must(mlp.New[float32](mlp.Dense(mlp.Tanh, width, width, width, width, width), mlp.Init{}, 3)), set))
	defer s.Close()
	a := must(adjoint.New(s, adjoint.Settings{NoTimes: true}))
	defer a.Close()
	sol := must(a.Solve(ctx, convert[float32](sines(modelBatch*width)), []float64{0, 1}))
	must(a.Gradients(ctx, sol, make([]float32, len(sol.Y))))
}
