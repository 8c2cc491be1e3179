// Command lorenz_ensemble follows pairs of neighbours on the Lorenz attractor
//
//	x' = 10(y-x)   y' = x(28-z) - y   z' = xy - 8z/3
//
// each with its own step size, and finds the largest Lyapunov exponent from how fast
// they part.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func main() {
	n := flag.Int("n", 5000, "number of pairs")
	example.Main("lorenz_ensemble", func(ctx context.Context, e *example.Env) error { return run(ctx, e, *n) })
}

func lorenz(_ float64, s, _, ds []float64) {
	ds[0] = 10 * (s[1] - s[0])
	ds[1] = s[0]*(28-s[2]) - s[1]
	ds[2] = s[0]*s[1] - 8./3*s[2]
}

// The points have come to the attractor, and spread over it, after the time before. Then
// they get neighbours at the distance apart. After turn these have turned to the direction
// that grows; at end they are still close.
const before, apart, turn, end = 50.0, 1e-8, 2.0, 14.0

const samples = 70 // outputs after the first

func run(ctx context.Context, e *example.Env, n int) error {
	if n < 1 {
		return fmt.Errorf("-n %d: there must be a pair", n)
	}
	n = example.Pick(e, min(n, 100), n)
	rng := rand.New(rand.NewPCG(1, 2))
	var z0 []float64
	for range n {
		z0 = append(z0, 20*rng.Float64()-10, 20*rng.Float64()-10, 10+30*rng.Float64())
	}
	var times []float64
	for i := range samples + 1 {
		times = append(times, end*float64(i)/samples)
	}

	system := &field.Custom[float64]{N: 3, F: lorenz, CUDA: field.Source{Eval: `
		dz[0] = 10 * (z[1] - z[0]);
		dz[1] = z[0] * (28 - z[2]) - z[1];
		dz[2] = z[0] * z[1] - 8. / 3 * z[2];`}}
	dev := solver.Auto[float64]()
	defer dev.Close()
	solve := func(z0, times []float64, tolerance float64) (*solver.Solution[float64], error) {
		s, err := solver.New(dev, system, solver.Settings{
			Method: solver.Vern7, RTol: tolerance, ATol: tolerance, Stepping: solver.PerSample,
		})
		if err != nil {
			return nil, err
		}
		defer s.Close()
		return s.Solve(ctx, z0, times)
	}
	settled, err := solve(z0, []float64{0, before}, 1e-6)
	if err != nil {
		return err
	}
	var pairs []float64
	for b := range n {
		z := settled.Sample(1, b)
		pairs = append(pairs, z[0], z[1], z[2], z[0]+apart, z[1], z[2])
	}
	start := time.Now()
	sol, err := solve(pairs, times, 1e-11)
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	var evaluations, steps float64
	for _, st := range sol.Stats {
		evaluations += float64(st.Evaluations)
		steps += float64(st.Accepted + st.Rejected)
	}
	e.Printf("%d trajectories of length %g on the %s: %.3g steps, %.3g evaluations of f, %.2f s\n", 2*n, end, sol.Backend, steps, evaluations, took)

	// The mean over the pairs of ln(distance).
	logs := make([]float64, len(times))
	for i := range times {
		for b := range n {
			p, q := sol.Sample(i, 2*b), sol.Sample(i, 2*b+1)
			logs[i] += math.Log(math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2])) / float64(n)
		}
	}
	first := int(math.Round(turn / end * samples))
	exponent := (logs[samples] - logs[first]) / (end - turn)
	e.Found("lyapunov_exponent", exponent)
	e.Found("trajectories_per_second", float64(2*n)/took)

	cloud := picture.Panel(fmt.Sprintf("One of each pair at t = %g", end), "x", "z")
	var dots plotter.XYs
	for b := range min(n, 3000) {
		z := sol.Sample(samples, 2*b)
		dots = append(dots, plotter.XY{X: z[0], Y: z[2]})
	}
	cloud.Add(picture.Dots(picture.Blue, 0.8, dots))
	growth := picture.Panel("Mean of the distances' logarithms", "t", "log₁₀ distance")
	for i := range logs {
		logs[i] /= math.Ln10
	}
	mean := picture.Line(picture.Stroke(picture.Blue, 1.8, false), picture.Course(times, logs, 1, 0))
	slope := picture.Line(picture.Stroke(picture.Black, 1, true), plotter.XYs{
		{X: turn, Y: logs[first]}, {X: end, Y: logs[first] + 0.9056*(end-turn)/math.Ln10}})
	growth.Add(mean, slope)
	growth.Legend.Add("pairs", mean)
	growth.Legend.Add("slope 0.9056", slope)
	growth.Legend.Left = true
	return picture.Save(e.File("lorenz_ensemble.png"), picture.Layout{}, cloud, growth)
}
