package solver_test

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// BenchmarkSolve times forward solves.
func BenchmarkSolve(b *testing.B) {
	for _, n := range problems.Networks() {
		for _, set := range []solver.Settings{
			{Method: solver.Dopri5}, {Method: solver.Tsit5}, {Method: solver.Dopri5, Stepping: solver.PerSample},
		} {
			set.RTol, set.ATol = n.RTol, n.RTol/100
			stepping := "joint"
			if set.Stepping == solver.PerSample {
				stepping = "each"
			}
			tail := n.Benchmark() + "/" + stepping
			b.Run(set.Method.String()+"/f32/"+tail, func(b *testing.B) { benchmarkSolve[float32](b, &n, set) })
			b.Run(set.Method.String()+"/f64/"+tail, func(b *testing.B) { benchmarkSolve[float64](b, &n, set) })
		}
	}
}

func benchmarkSolve[T backend.Float](b *testing.B, n *problems.Network, set solver.Settings) {
	m, z0 := problems.ModelOf[T](n)
	s := open(b, m, set)
	b.ReportAllocs()
	var evaluations int64
	for b.Loop() {
		sol, err := s.Solve(background, z0, n.Times)
		if err != nil {
			b.Fatal(err)
		}
		evaluations = sol.Evaluations()
	}
	b.ReportMetric(float64(evaluations), "evals/solve")
}
