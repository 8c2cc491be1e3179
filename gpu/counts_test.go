//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"testing"

	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Five times the steps are five times the replays of one recorded step, and nothing
// else but polls, one in 16 attempts or fewer.
func TestSolve_WaitsAndCopies(t *testing.T) {
	dev := open[float32](t)
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		counts := func(steps int) gpu.Counts {
			s, err := solver.New(dev, m, solver.Settings{Method: solver.Euler, Step: 1 / float64(steps), Stepping: stepping, Fusion: solver.FuseNever})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			before := dev.Counts()
			sol, err := s.Solve(context.Background(), []float32{1, 0, 0, 1}, []float64{0, 0.5, 1})
			if err != nil {
				t.Fatal(err)
			}
			after := dev.Counts()
			if got := int(sol.Stats[0].Accepted); got != steps {
				t.Fatalf("%d steps, want %d", got, steps)
			}
			return gpu.Counts{
				Graphs: after.Graphs - before.Graphs, Waits: after.Waits - before.Waits,
				ToDevice: after.ToDevice - before.ToDevice, ToHost: after.ToHost - before.ToHost,
			}
		}
		few, many := counts(64), counts(320)
		t.Logf("%v: 64 steps: %+v, 320 steps: %+v", stepping, few, many)
		polls := many.Waits - few.Waits
		if polls > (320-64)/16 {
			t.Errorf("%v: %d more waits for 256 more steps", stepping, polls)
		}
		if many.ToDevice != few.ToDevice {
			t.Errorf("%v: %d more bytes to the device", stepping, many.ToDevice-few.ToDevice)
		}
		const words = 64
		if n := many.ToHost - few.ToHost; n > polls*words {
			t.Errorf("%v: %d more bytes to the host in %d more polls", stepping, n, polls)
		}
		// All but the first attempt are replayed, and at most 31 come after the last one
		// that was needed.
		if many.Graphs < 319 || many.Graphs > 319+31 {
			t.Errorf("%v: %d replays for 320 steps", stepping, many.Graphs)
		}
	}
}
