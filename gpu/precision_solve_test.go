//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Solutions and gradients on tensor cores equal the CPU's within the rounding of their
// operands, and those of a rerun to the last bit.
func TestSolve_Precision(t *testing.T) {
	host := cpu.New[float32]()
	defer host.Close()
	for _, c := range []struct {
		p   gpu.Precision
		tol float64
	}{{gpu.TF32x3, 2e-5}, {gpu.TF32, 4e-3}, {gpu.BF16, 3e-2}} {
		dev := openPrecision(t, c.p)
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			set := solver.Settings{Method: solver.Bosh3, Stepping: stepping, RTol: 1e-3, ATol: 1e-4}
			want, got := runNet(t, host, set, 2, 32, 33, 2), runNet(t, dev, set, 2, 32, 33, 2)
			what := c.p.String() + ", " + stepping.String() + ": "
			near(t, what+"z", got.y, want.y, c.tol)
			near(t, what+"dL/dz0", got.z0, want.z0, c.tol)
			near(t, what+"dL/dθ", got.theta, want.theta, c.tol)
			again := runNet(t, dev, set, 2, 32, 33, 2)
			if !slices.Equal(got.y, again.y) || !slices.Equal(got.z0, again.z0) || !slices.Equal(got.theta, again.theta) {
				t.Error(what + "a rerun differs")
			}
		}
	}
}

// openPrecision skips where there is no device for the precision.
func openPrecision(t *testing.T, p gpu.Precision) *gpu.Backend[float32] {
	t.Helper()
	open[float32](t)
	dev, err := gpu.Open[float32](gpu.Options{Precision: p})
	if errors.Is(err, backend.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// A network that tensor cores compute is not solved in one launch; one that is too narrow
// for them is.
func TestFuse_Precision(t *testing.T) {
	dev := openPrecision(t, gpu.TF32)
	for _, c := range []struct {
		width int
		fused bool
	}{{31, true}, {32, false}} {
		n := fusedCase{spec: mlp.Dense(mlp.Tanh, 2, c.width, c.width, 2), batch: 3, times: []float64{0, 1}}
		sol, err := solveFused(t, dev, n, solver.FuseAuto, states[float32](n))
		if err != nil {
			t.Fatal(err)
		}
		if sol.Fused != c.fused {
			t.Errorf("width %d: fused %v", c.width, sol.Fused)
		}
		_, err = solveFused(t, dev, n, solver.FuseAlways, states[float32](n))
		if c.fused && err != nil || !c.fused && (!errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "tensor cores")) {
			t.Errorf("width %d: %v", c.width, err)
		}
	}
}
