package solver_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// model is a small MLP with the time in every layer.
func model[T backend.Float](t testing.TB, widths ...int) *mlp.Model[T] {
	t.Helper()
	spec := mlp.Dense(mlp.Tanh, widths...)
	spec.Time = mlp.TimeEveryLayer
	m, err := mlp.New[T](spec, mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// systems are right-hand sides of each kind with two components.
func systems[T backend.Float](t testing.TB) map[string]backend.System[T] {
	lv := problems.System[T](problems.ForcedLotkaVolterra())
	sum, err := field.Plus[T](problems.System[T](problems.Linear()), model[T](t, 2, 8, 2))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]backend.System[T]{"Go": lv, "MLP": model[T](t, 2, 16, 16, 2), "sum": sum}
}

// sample is what a solve says about one sample.
type sample[T backend.Float] struct {
	y      []T // [len(ts), D]
	stats  solver.Stats
	status solver.Status
}

func samples[T backend.Float](sol *solver.Solution[T]) []sample[T] {
	list := make([]sample[T], sol.Batch)
	for b := range list {
		for i := range sol.Times {
			list[b].y = append(list[b].y, sol.Sample(i, b)...)
		}
		list[b].stats, list[b].status = sol.Stats[b], sol.Status[b]
	}
	return list
}

func (s sample[T]) equal(o sample[T]) bool {
	return same(s.y, o.y) && s.stats == o.stats && s.status == o.status
}

// initial is a batch of positive states of two components, all different.
func initial[T backend.Float](n int, rng *rand.Rand) []T {
	z := make([]T, 2*n)
	for i := range z {
		z[i] = T(0.2 + 2*rng.Float64())
	}
	return z
}

// TestPerSample_IsTheSameInAnyCompany solves each sample alone and in random
// batches, and compares to the last bit.
func TestPerSample_IsTheSameInAnyCompany(t *testing.T) {
	t.Run("float32", testCompany[float32])
	t.Run("float64", testCompany[float64])
}

func testCompany[T backend.Float](t *testing.T) {
	const n = 9
	ts := grid(0, 1.5, 4)
	for name, sys := range systems[T](t) {
		for _, m := range solver.Methods() {
			rng := rand.New(rand.NewPCG(1, uint64(m)))
			set := anySettings(m)
			set.Stepping = solver.PerSample
			set.Breakpoints = []float64{0.4}
			s := open(t, sys, set)
			z0 := initial[T](n, rng)
			var alone []sample[T]
			for b := range n {
				sol, err := s.Solve(background, z0[2*b:2*b+2], ts)
				if err != nil {
					t.Fatal(err)
				}
				alone = append(alone, samples(sol)...)
			}
			for range 4 {
				pick := rng.Perm(n)[:2+rng.IntN(n-1)]
				var batch []T
				for _, b := range pick {
					batch = append(batch, z0[2*b:2*b+2]...)
				}
				sol, err := s.Solve(background, batch, ts)
				if err != nil {
					t.Fatal(err)
				}
				for i, got := range samples(sol) {
					if want := alone[pick[i]]; !got.equal(want) {
						t.Errorf("%s, %s: sample %d of batch %v is\n%+v, alone\n%+v", name, m, i, pick, got, want)
					}
				}
			}
		}
	}
}

// TestPerSample_Many has more samples than a tile of any backend.
func TestPerSample_Many(t *testing.T) {
	const n = 257
	rng := rand.New(rand.NewPCG(2, 2))
	z0 := initial[float64](n, rng)
	for name, sys := range systems[float64](t) {
		s := open(t, sys, solver.Settings{Stepping: solver.PerSample, RTol: 1e-7, ATol: 1e-8})
		sol, err := s.Solve(background, z0, []float64{0, 1, 2})
		if err != nil {
			t.Fatal(err)
		}
		joint := open(t, sys, solver.Settings{RTol: 1e-11, ATol: 1e-12})
		ref, err := joint.Solve(background, z0, []float64{0, 1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(sol.Y, ref.Y); d > 1e-5 {
			t.Errorf("%s: off by %.1g", name, d)
		}
		counts := map[int64]bool{}
		for _, b := range []int{0, 63, 64, 200, n - 1} {
			one, err := s.Solve(background, z0[2*b:2*b+2], []float64{0, 1, 2})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := samples(sol)[b], samples(one)[0]; !got.equal(want) {
				t.Errorf("%s: sample %d of %d is %+v, alone %+v", name, b, n, got, want)
			}
		}
		for _, st := range sol.Stats {
			counts[st.Evaluations] = true
		}
		if name == "Go" && len(counts) < 3 {
			t.Errorf("all samples took %v evaluations: they do not step on their own", counts)
		}
	}
}

// TestPerSample_OthersFinish: f is NaN, or blows up, for one sample of many.
func TestPerSample_OthersFinish(t *testing.T) {
	t.Run("float32", testOthersFinish[float32])
	t.Run("float64", testOthersFinish[float64])
}

func testOthersFinish[T backend.Float](t *testing.T) {
	const n, bad = 7, 4
	// The second component says what happens to the first: nothing, NaN from t = 0.5
	// on, or z' = z².
	sys := custom(2, func(at float64, z, _, dz []T) {
		dz[0], dz[1] = -z[0]*T(math.Cos(at)), 0
		switch {
		case z[1] == 1 && at > 0.5:
			dz[0] = T(math.NaN())
		case z[1] == 2:
			dz[0] = z[0] * z[0]
		}
	})
	ts := grid(0, 2, 8)
	for _, m := range solver.Methods() {
		for kind := 1; kind <= 2; kind++ {
			set := anySettings(m)
			set.Stepping = solver.PerSample
			s := open(t, sys, set)
			z0 := make([]T, 2*n)
			for b := range n {
				z0[2*b] = T(1 + 0.25*float64(b))
			}
			healthy, err := s.Solve(background, z0, ts)
			if err != nil {
				t.Fatal(err)
			}
			z0[2*bad+1] = T(kind)
			sol, err := s.Solve(background, z0, ts)
			if kind == 2 && !m.Adaptive() && err == nil {
				continue // fixed steps may leap over a pole
			}
			var failed *solver.Error
			if !errors.As(err, &failed) || len(failed.Failures) != 1 || failed.Samples != n {
				t.Errorf("%s: %v", m, err)
				continue
			}
			f := failed.Failures[0]
			if f.Sample != bad || f.Component != 0 || f.Joint || !(f.T > 0 && f.T < 2) || f.Status != sol.Status[bad] || f.Status == solver.Done {
				t.Errorf("%s: %+v, %v", m, f, sol.Status)
			}
			wantText(t, err, fmt.Sprintf("solver: sample %d at t = %g, h = ", bad, f.T), "component 0")
			if kind == 1 && (f.Status != solver.NotFinite || f.T > 0.5+set.Step) {
				t.Errorf("%s: NaN from t = 0.5 on ended with %v at %g", m, f.Status, f.T)
			}
			for i, ti := range ts {
				if got := math.IsNaN(float64(sol.Sample(i, bad)[0])); got != (ti > f.T) {
					t.Errorf("%s: the sample that failed at %g has NaN %v at %g", m, f.T, got, ti)
				}
			}
			want, got := samples(healthy), samples(sol)
			for b := range n {
				if b != bad && !got[b].equal(want[b]) {
					t.Errorf("%s: sample %d is %+v, without the failure %+v", m, b, got[b], want[b])
				}
			}
		}
	}
}

// TestJoint_FailsAsAWhole and names the sample that made it.
func TestJoint_FailsAsAWhole(t *testing.T) {
	sys := custom(2, func(at float64, z, _, dz []float64) {
		dz[0], dz[1] = -z[0], z[1]
		if z[0] > 5 && at > 0.25 {
			dz[1] = math.Inf(1)
		}
	})
	sol, err := open(t, sys, solver.Settings{}).Solve(background, []float64{1, 1, 2, 2, 50, 3, 4, 4}, grid(0, 1, 10))
	var failed *solver.Error
	if !errors.As(err, &failed) || len(failed.Failures) != 1 {
		t.Fatal(err)
	}
	if f := failed.Failures[0]; !f.Joint || f.Sample != 2 || f.Component != 1 || f.Status != solver.NotFinite || !errors.Is(err, solver.NotFinite) {
		t.Errorf("%+v", f)
	}
	wantText(t, err, "solver: sample 2 at t = 0.2", "(the batch stepped jointly and stops with it)", "component 1 became NaN or infinite", "check f")
	for b := range sol.Status {
		if sol.Status[b] != solver.NotFinite || sol.Stats[b] != sol.Stats[0] {
			t.Errorf("sample %d: %v, %+v", b, sol.Status[b], sol.Stats[b])
		}
		if x, y := sol.Sample(2, b)[0], sol.Sample(3, b)[0]; math.IsNaN(x) || !math.IsNaN(y) {
			t.Errorf("sample %d: %g at 0.2 and %g at 0.3; the first was reached", b, x, y)
		}
	}
}
