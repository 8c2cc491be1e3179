package solver_test

import (
	"sync"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// TestSolve_AllocatesNothingPerStep compares spans of few and of many steps.
func TestSolve_AllocatesNothingPerStep(t *testing.T) {
	t.Run("float32", testAllocations[float32])
	t.Run("float64", testAllocations[float64])
}

func testAllocations[T backend.Float](t *testing.T) {
	z0 := []T{1, 1, 0.5, 0.7, 1.2, 0.9}
	for name, sys := range systems[T](t) {
		for _, m := range []solver.Method{solver.Tsit5, solver.Dopri8, solver.HeunEuler21, solver.RK4} {
			for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
				set := anySettings(m)
				set.Stepping, set.MaxStep = stepping, 0.02
				s := open(t, sys, set)
				allocations := func(end float64) float64 {
					ts := grid(0, end, 4)
					return testing.AllocsPerRun(5, func() {
						if _, err := s.Solve(background, z0, ts); err != nil {
							t.Fatal(err)
						}
					})
				}
				if few, many := allocations(0.04), allocations(1.2); few != many {
					t.Errorf("%s, %s, %s: %g allocations in 2 steps, %g in 60", name, m, stepping, few, many)
				}
			}
		}
	}
}

// TestSolver_FromManyGoroutines: one solver takes turns, also with Params.
func TestSolver_FromManyGoroutines(t *testing.T) {
	p := problems.LotkaVolterra()
	s := open(t, problems.System[float64](p), solver.Settings{Stepping: solver.PerSample})
	want := map[int]*solver.Solution[float64]{}
	batch := func(n int) (z0 []float64) {
		for b := range n {
			z0 = append(z0, 1+0.1*float64(b), 1)
		}
		return z0
	}
	for n := 1; n <= 4; n++ {
		sol, err := s.Solve(background, batch(n), grid(0, 2, n))
		if err != nil {
			t.Fatal(err)
		}
		want[n] = sol
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 8 {
				n := 1 + (g+i)%4
				sol, err := s.Solve(background, batch(n), grid(0, 2, n))
				if err != nil || !same(sol.Y, want[n].Y) {
					t.Errorf("goroutine %d, batch of %d: %v", g, n, err)
				}
				if err := s.SetParams(p.Theta); err != nil {
					t.Error(err)
				}
				if theta, err := s.Params(); err != nil || !same(theta, p.Theta) {
					t.Errorf("%v, %v", theta, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSolvers_SideBySide: two backends share nothing.
func TestSolvers_SideBySide(t *testing.T) {
	p := problems.LotkaVolterra()
	sys := problems.System[float64](p) // both read it
	want := solve[float64](t, p, solver.Settings{}, 0, 5)
	var wg sync.WaitGroup
	for range 2 {
		s := open(t, sys, solver.Settings{})
		wg.Go(func() {
			for range 10 {
				sol, err := s.Solve(background, p.Z0, []float64{0, 5})
				if err != nil || !same(sol.Y, want.Y) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSolver_ReusesItsMemory for the same shape, and frees it for another.
func TestSolver_ReusesItsMemory(t *testing.T) {
	dev := cpu.New[float64]()
	defer dev.Close()
	p := problems.LotkaVolterra()
	for _, dense := range []bool{false, true} {
		s, err := solver.New(dev, problems.System[float64](p), solver.Settings{Dense: dense})
		if err != nil {
			t.Fatal(err)
		}
		var used []int64
		for _, n := range []int{1, 1, 64, 64, 1} {
			z0 := make([]float64, 2*n)
			for i := range z0 {
				z0[i] = 1
			}
			if _, err := s.Solve(background, z0, []float64{0, 1}); err != nil {
				t.Fatal(err)
			}
			used = append(used, dev.MemoryUsed())
		}
		if used[0] != used[1] || used[2] != used[3] || used[0] != used[4] || used[2] <= used[0] {
			t.Errorf("dense %v: bytes used after solves of 1, 1, 64, 64, 1 samples: %d", dense, used)
		}
		s.Close()
		if n := dev.MemoryUsed(); n != 0 {
			t.Errorf("dense %v: %d bytes are held after Close", dense, n)
		}
	}
}
