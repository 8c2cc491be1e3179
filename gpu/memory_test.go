//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// limited opens a backend with so many bytes, 0 for all.
func limited(t *testing.T, limit int64) *gpu.Backend[float32] {
	t.Helper()
	dev, err := gpu.Open[float32](gpu.Options{MemoryLimit: limit})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// suggested is the number that a failure of memory names with the given words, or 0.
func suggested(t *testing.T, err error, words string) int {
	t.Helper()
	if !errors.Is(err, backend.ErrOutOfMemory) {
		t.Fatalf("got %v, want a failure of memory", err)
	}
	m := regexp.MustCompile(fmt.Sprintf(words, `(\d+)`)).FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gradientOf solves a batch with fixed steps and returns the gradient of a loss of it.
func gradientOf(t *testing.T, dev backend.Backend[float32], batch int, set solver.Settings, with adjoint.Settings) (*adjoint.Gradient[float32], error) {
	t.Helper()
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 8, 4, 8), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	set.Method = solver.RK4
	s, err := solver.New(dev, m, set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := adjoint.New(s, with)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	z0 := make([]float32, batch*8)
	for i := range z0 {
		z0[i] = float32(i%17)/8 - 1
	}
	sol, err := a.Solve(context.Background(), z0, []float64{0, 1})
	if err != nil {
		return nil, err
	}
	g, err := a.Gradients(context.Background(), sol, sol.Y)
	return g, err
}

// The batch that an error says would fit does, and one that is much larger does not.
func TestMemory_BatchThatWouldFit(t *testing.T) {
	const limit = 1 << 20
	dev := limited(t, limit)
	small := mlp.Dense(mlp.Tanh, 2, 8, 2)
	for name, c := range map[string]struct {
		spec mlp.Spec
		set  solver.Settings
		each bool
	}{
		"joint":              {small, solver.Settings{Method: solver.Bosh3}, false},
		"alone":              {small, solver.Settings{Method: solver.Euler, Step: 0.5, Stepping: solver.PerSample}, false},
		"times of their own": {small, solver.Settings{Method: solver.Tsit5, Stepping: solver.PerSample}, true},
		"wide states":        {mlp.Dense(mlp.Tanh, 100, 8, 100), solver.Settings{Method: solver.RK4, Step: 0.5}, false},
	} {
		t.Run(name, func(t *testing.T) {
			solve := func(batch int) error {
				m, err := mlp.New[float32](c.spec, mlp.Init{}, 1)
				if err != nil {
					t.Fatal(err)
				}
				s, err := solver.New(dev, m, c.set)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				z0 := make([]float32, batch*m.Dim())
				if c.each {
					samples := slices.Repeat([]solver.Sample{{Times: []float64{0, 0.3, 0.5, 1}}}, batch)
					_, err = s.SolveEach(context.Background(), z0, samples)
				} else {
					_, err = s.Solve(context.Background(), z0, []float64{0, 0.5, 1})
				}
				return err
			}
			err := solve(20_000)
			n := suggested(t, err, "a batch of %s would fit")
			t.Logf("%v", err)
			if n == 0 {
				t.Fatal("no batch is named")
			}
			if err := solve(n); err != nil {
				t.Errorf("a batch of %d: %v", n, err)
			}
			if err := solve(2 * n); !errors.Is(err, backend.ErrOutOfMemory) {
				t.Errorf("a batch of %d: %v", 2*n, err)
			}
			if used := dev.MemoryUsed(); used != 0 {
				t.Errorf("%d bytes are in use", used)
			}
		})
	}
}

// What a gradient has no room for comes with the budget, or the batch, that would fit;
// with the budget the gradient has the bits of one without, but for the order of the sum
// dL/dθ where the device goes back over all steps at once.
func TestMemory_BudgetThatWouldFit(t *testing.T) {
	const limit, batch = 1 << 20, 400
	whole := limited(t, 0)
	for name, c := range map[string]struct {
		stepping solver.Stepping
		fusion   solver.Fusion
		with     adjoint.Settings
	}{
		"joint":              {solver.Joint, solver.FuseNever, adjoint.Settings{}},
		"alone":              {solver.PerSample, solver.FuseAuto, adjoint.Settings{Store: adjoint.States}},
		"too large a budget": {solver.Joint, solver.FuseAuto, adjoint.Settings{Budget: 1 << 23}},
	} {
		t.Run(name, func(t *testing.T) {
			set := solver.Settings{Step: 1. / 24, Stepping: c.stepping, Fusion: c.fusion}
			want, err := gradientOf(t, whole, batch, set, adjoint.Settings{})
			if err != nil {
				t.Fatal(err)
			}
			dev := limited(t, limit)
			_, err = gradientOf(t, dev, batch, set, c.with)
			budget := suggested(t, err, "set Settings.Budget to %s bytes")
			t.Logf("%v", err)
			if budget < limit/4 {
				t.Fatalf("a budget of %d bytes of %d", budget, limit)
			}
			if used := dev.MemoryUsed(); used != 0 {
				t.Errorf("%d bytes are in use", used)
			}
			got, err := gradientOf(t, dev, batch, set, adjoint.Settings{Budget: int64(budget)})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Z0, want.Z0) || c.fusion == solver.FuseNever && !slices.Equal(got.Theta, want.Theta) {
				t.Error("another gradient than without a budget")
			}
			near(t, "dL/dθ", got.Theta, want.Theta, 1e-6)
		})
	}
}

func TestMemory_GradientOfTooLargeABatch(t *testing.T) {
	const batch = 1000
	for name, c := range map[string]struct {
		limit int64
		with  adjoint.Settings
	}{
		"discrete":   {700 << 10, adjoint.Settings{}},
		"continuous": {700 << 10, adjoint.Settings{Method: adjoint.Continuous}},
		"reversible": {800 << 10, adjoint.Settings{Method: adjoint.Reversible}},
	} {
		t.Run(name, func(t *testing.T) {
			dev := limited(t, c.limit)
			set := solver.Settings{Step: 1. / 8}
			_, err := gradientOf(t, dev, batch, set, c.with)
			n := suggested(t, err, "a batch of %s would fit")
			t.Logf("%v", err)
			if n < batch/4 || n >= batch {
				t.Fatalf("a batch of %d", n)
			}
			_, err = gradientOf(t, dev, n, set, c.with)
			if c.with.Method == adjoint.Auto && err != nil { // not with all steps at once
				c.with.Budget = int64(suggested(t, err, "set Settings.Budget to %s bytes"))
				_, err = gradientOf(t, dev, n, set, c.with)
			}
			if err != nil {
				t.Errorf("a batch of %d: %v", n, err)
			}
			if used := dev.MemoryUsed(); used != 0 {
				t.Errorf("%d bytes are in use", used)
			}
		})
	}
}
