package adjoint_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// BenchmarkGradients times a forward solve and its gradient with respect to z0 and
// θ, at the sizes of torchdiffeq's ode_demo.py and of wider models.
func BenchmarkGradients(b *testing.B) {
	for _, c := range []struct {
		widths  []int
		in      mlp.Input
		batch   int
		times   int
		rtol    float64
		stepped solver.Stepping
	}{
		{[]int{2, 50, 2}, mlp.InputCube, 1, 10, 1e-7, solver.Joint},
		{[]int{2, 50, 2}, mlp.InputCube, 20, 10, 1e-7, solver.Joint},
		{[]int{2, 50, 2}, mlp.InputCube, 20, 10, 1e-7, solver.PerSample},
		{[]int{2, 64, 64, 2}, mlp.InputIdentity, 128, 10, 1e-5, solver.Joint},
		{[]int{64, 64, 64, 64}, mlp.InputIdentity, 512, 2, 1e-5, solver.Joint},
	} {
		name := fmt.Sprintf("B=%d/D=%d/W=%d/layers=%d/%v", c.batch, c.widths[0], c.widths[1], len(c.widths)-1, c.stepped)
		set := solver.Settings{Method: solver.Dopri5, RTol: c.rtol, ATol: c.rtol / 100, Stepping: c.stepped}
		b.Run("dopri5/f32/"+name, func(b *testing.B) { gradientBench[float32](b, c.widths, c.in, c.batch, c.times, set) })
		b.Run("dopri5/f64/"+name, func(b *testing.B) { gradientBench[float64](b, c.widths, c.in, c.batch, c.times, set) })
	}
}

func gradientBench[T backend.Float](b *testing.B, widths []int, in mlp.Input, batch, times int, set solver.Settings) {
	spec := mlp.Dense(mlp.Tanh, widths...)
	spec.Input = in
	m, err := mlp.New[T](spec, mlp.Init{}, 1)
	if err != nil {
		b.Fatal(err)
	}
	s := newSolver(b, m, set)
	z0 := problems.Convert[T](noise(rand.New(rand.NewPCG(1, 1)), batch*widths[0], 1))
	ts := make([]float64, times)
	for i := range ts {
		ts[i] = float64(i) / float64(times-1)
	}
	a, err := adjoint.New(s, adjoint.Settings{NoTimes: true})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	var forward, back int64
	for b.Loop() {
		sol, err := a.Solve(ctx, z0, ts)
		if err != nil {
			b.Fatal(err)
		}
		cot := make([]T, len(sol.Y))
		for i := range cot {
			cot[i] = 1
		}
		g, err := a.Gradients(ctx, sol, cot)
		if err != nil {
			b.Fatal(err)
		}
		forward, back = sol.Stats[0].Evaluations, g.Stats[0].Evaluations
	}
	b.ReportMetric(float64(forward), "evals-forward")
	b.ReportMetric(float64(back), "evals-back")
}
