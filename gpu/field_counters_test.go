//go:build cuda && cgo && linux && amd64

package gpu

import (
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// Widths that are multiples of 32 are moved without waste, and the inner loops, all of
// whose accesses to shared memory are loads, meet no bank conflict. Before sm_80, where
// copies to shared memory pass through registers, the stand-in counts what they read.
func TestField_Counters(t *testing.T) {
	if os.Getenv("CUDASIM_SEED") != "" {
		t.Skip("the stand-in finds bank conflicts between lanes in the order in which it runs them")
	}
	n := 0
	for name, c := range profile(t, "TestField_ForCounters", "CUDASIM_SM=70") {
		if !strings.HasPrefix(name, "mlp_") || strings.HasPrefix(name, "mlp_rows") {
			continue
		}
		n++
		if c.Load.Efficiency < 0.95 || c.Store.Efficiency < 0.95 {
			t.Errorf("%s: efficiency of loads %v, of stores %v", name, c.Load.Efficiency, c.Store.Efficiency)
		}
		for _, s := range c.Sites {
			if s.Space == "shared" && s.Op == "load" && s.Replays > 0 {
				t.Errorf("%s: %d replays of the load in line %d", name, s.Replays, s.Line)
			}
		}
	}
	if want := 34; n != want {
		t.Errorf("%d kernels ran, want %d", n, want)
	}
}

func TestField_ForCounters(t *testing.T) {
	profiling(t)
	bothPrecisions(t, forCounters[float32], forCounters[float64])
}

func forCounters[T backend.Float](t *testing.T) {
	b := openOrSkip[T](t)
	run := func(c netCase, with func(*bound[T])) {
		s := newSession(t, b, c, c.theta(3))
		defer s.close()
		with(s.f.(*bound[T]))
		s.run(newOperands(c, 5), backend.Running, all, true)
	}
	for _, lanes := range []int{1, 128} {
		run(netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputIdentity, 32, 64, 32), 128, lanes, chosen}, func(*bound[T]) {})
		run(netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputIdentity, 32, 32), 128, lanes, largeTile}, func(*bound[T]) {})
		run(netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputIdentity, 32, 64, 32), 128, lanes, layered}, func(*bound[T]) {})
	}
	// A device of one multiprocessor is full soon: large tiles.
	run(netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputCube, 96, 160, 96), 128, 1, chosen}, func(f *bound[T]) { f.sms = 1 })
}
