package train_test

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// BenchmarkTrainingStep times an update: a solve, a mean squared error, its gradient,
// its clipping, and Adam.
func BenchmarkTrainingStep(b *testing.B) {
	for _, n := range problems.Networks() {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			tail := n.Benchmark() + "/joint"
			if stepping == solver.PerSample {
				tail = n.Benchmark() + "/each"
			}
			b.Run("dopri5/f32/"+tail, func(b *testing.B) { benchmarkTraining[float32](b, &n, stepping) })
			b.Run("dopri5/f64/"+tail, func(b *testing.B) { benchmarkTraining[float64](b, &n, stepping) })
		}
	}
}

func benchmarkTraining[T backend.Float](b *testing.B, n *problems.Network, stepping solver.Stepping) {
	dev := cpu.New[T]()
	defer dev.Close()
	m, z0 := problems.ModelOf[T](n)
	s, err := solver.New(dev, m, solver.Settings{Method: solver.Dopri5, RTol: n.RTol, ATol: n.RTol / 100, Stepping: stepping})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	targets := make([]T, len(n.Times)*len(z0))
	for i := range n.Times {
		copy(targets[i*len(z0):], z0)
	}
	fit, err := train.NewTrajectories(s, train.Data[T]{Times: n.Times, Z0: z0, Targets: targets}, train.TrajectorySettings{})
	if err != nil {
		b.Fatal(err)
	}
	defer fit.Close()
	b.ReportAllocs()
	_, err = train.Fit(b.Context(), fit, m.Params(), train.Settings[T]{
		Steps: b.N + 1, ClipNorm: 1,
		Optimizer: train.Optimizer{LR: 1e-12}, // so that every step has the same work
		OnStep: func(r train.Report[T]) error {
			switch r.Step {
			case 1: // which allocates
				b.ResetTimer()
			case b.N + 1:
				b.StopTimer()
			}
			return nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
}
