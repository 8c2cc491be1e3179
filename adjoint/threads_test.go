package adjoint_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// No bit of a solution or a gradient depends on the number of threads, and a rerun gives
// the same.
func TestThreads_DoNotMatter(t *testing.T) {
	t.Run("float32", threads[float32])
	t.Run("float64", threads[float64])
}

func threads[T backend.Float](t *testing.T) {
	const batch, d = 150, 3 // three units of rows
	m := mlp.Convert[T](model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity))
	wide, err := mlp.New[T](mlp.Dense(mlp.SiLU, d, 90, d), mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	both, err := field.Plus[T](m, wide)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 5))
	z0 := make([]T, batch*d)
	for i := range z0 {
		z0[i] = T(rng.NormFloat64())
	}
	ts := []float64{0, 0.4, 1, 3}
	dLdz := make([]T, len(ts)*len(z0))
	for i := range dLdz {
		dLdz[i] = T(rng.NormFloat64())
	}
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		for _, method := range []adjoint.Method{adjoint.Discrete, adjoint.Continuous, adjoint.Interpolating} {
			var first []T
			for _, n := range []int{1, 2, 3, 7, 2} {
				b := cpu.New[T]()
				b.SetThreads(n)
				set := solver.Settings{Stepping: stepping, RTol: 1e-5, ATol: 1e-6}
				s := must[*solver.Solver[T]](t)(solver.New(b, both, set))
				a := must[*adjoint.Adjoint[T]](t)(adjoint.New(s, adjoint.Settings{Method: method}))
				for range 2 {
					sol := must[*solver.Solution[T]](t)(a.Solve(ctx, z0, ts))
					g := must[*adjoint.Gradient[T]](t)(a.Gradients(ctx, sol, dLdz))
					all := append(append(append([]T(nil), sol.Y...), g.Z0...), g.Theta...)
					if first == nil {
						first = all
					}
					for i, v := range all {
						if v != first[i] {
							t.Fatalf("%v, %v: %d threads: number %d is %v, was %v", stepping, method, n, i, v, first[i])
						}
					}
				}
				a.Close()
				s.Close()
			}
		}
	}
}

// A panic of a right-hand side reaches the caller from any goroutine.
func TestThreads_Panic(t *testing.T) {
	f := &field.Custom[float64]{N: 2, F: func(at float64, z, _, dz []float64) {
		if at > 0.5 && z[0] > 100 {
			panic("the model's own")
		}
		dz[0], dz[1] = z[1], -z[0]
	}}
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		b := cpu.New[float64]()
		b.SetThreads(4)
		s := must[*solver.Solver[float64]](t)(solver.New(b, f, solver.Settings{Stepping: stepping, MaxStep: 0.01}))
		z0 := make([]float64, 1000)
		z0[777], z0[776] = 1, 200
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); got != "the model's own" {
					t.Errorf("%v: %q", stepping, got)
				}
			}()
			_, err := s.Solve(ctx, z0, []float64{0, 1})
			t.Errorf("%v: no panic, %v", stepping, err)
		}()
	}
}
