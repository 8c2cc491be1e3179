// Command van_der_pol solves a batch of Van der Pol oscillators
//
//	x" = μ(1-x²)x' - x
//
// of very different stiffness: jointly, with one step size for all, and each with its own.
// The crossings of x = 0 upwards are events, from which it measures the periods.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func main() {
	n := flag.Int("n", 121, "number of oscillators, 2 or more")
	example.Main("van_der_pol", func(ctx context.Context, e *example.Env) error { return run(ctx, e, *n) })
}

const least, most = 0.1, 40 // of μ

// result is one solve of the batch.
type result struct {
	*solver.Solution[float64]
	evaluations float64 // of f, the sum over the batch
	seconds     float64
}

func solve(ctx context.Context, z0, times []float64, stepping solver.Stepping) (*result, error) {
	dev := cpu.New[float64]()
	defer dev.Close()
	// The state is x, x' and μ: each sample has a parameter of its own.
	oscillator := &field.Custom[float64]{N: 3, F: func(_ float64, z, _, dz []float64) {
		dz[0], dz[1], dz[2] = z[1], z[2]*(1-z[0]*z[0])*z[1]-z[0], 0
	}}
	var events []solver.Event[float64]
	if stepping == solver.PerSample { // events belong to single samples
		events = append(events, solver.Event[float64]{
			Name: "upwards", Direction: solver.Rising,
			G: func(_ float64, z, _ []float64) float64 { return z[0] },
		})
	}
	s, err := solver.New(dev, oscillator, solver.Settings{RTol: 1e-8, ATol: 1e-8, Stepping: stepping}, events...)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	start := time.Now()
	sol, err := s.Solve(ctx, z0, times)
	if err != nil {
		return nil, err
	}
	r := &result{Solution: sol, seconds: time.Since(start).Seconds()}
	for _, st := range sol.Stats { // under joint stepping that of the batch, for each sample
		r.evaluations += float64(st.Evaluations)
	}
	return r, nil
}

func run(ctx context.Context, e *example.Env, n int) error {
	if n < 2 {
		return fmt.Errorf("-n %d: the range of μ needs 2 oscillators or more", n)
	}
	n = example.Pick(e, min(n, 9), n)
	var z0, mu, times []float64
	for i := range n {
		mu = append(mu, least*math.Pow(most/least, float64(i)/float64(n-1)))
		z0 = append(z0, 2, 0, mu[i])
	}
	z0[2], mu[0] = 1, 1 // whose period is known; the batch need not be in any order
	const end, outputs = 200, 2001
	for i := range outputs {
		times = append(times, end*float64(i)/(outputs-1))
	}
	own, err := solve(ctx, z0, times, solver.PerSample)
	if err != nil {
		return err
	}
	joint, err := solve(ctx, z0, times, solver.Joint)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name string
		*result
	}{{"each its own step size", own}, {"one for the batch", joint}} {
		e.Printf("%-22s %.0f evaluations of f, %.2f s\n", r.name+":", r.evaluations, r.seconds)
	}
	e.Found("evaluations_own", own.evaluations)
	e.Found("evaluations_joint", joint.evaluations)

	periods := make([]float64, n)
	for b, found := range own.Events {
		periods[b] = found[len(found)-1].T - found[len(found)-2].T // 200 is three times the longest
	}
	e.Found("period_error", math.Abs(periods[0]-6.6632868593231)) // of μ = 1
	return draw(e.File("van_der_pol.png"), own, joint, mu, periods)
}

// draw writes some limit cycles, the evaluations for each μ, and the periods.
func draw(path string, own, joint *result, mu, periods []float64) error {
	cycles := picture.Panel("Limit cycles", "x", "x' / μ")
	for k, b := range []int{0, len(mu) * 3 / 4, len(mu) - 1} {
		var xys plotter.XYs
		for i := len(own.Times) / 2; i < len(own.Times); i++ {
			z := own.Sample(i, b)
			xys = append(xys, plotter.XY{X: z[0], Y: z[1] / mu[b]})
		}
		dots := picture.Dots([]picture.Ink{picture.Blue, picture.Green, picture.Red}[k], 0.9, xys)
		cycles.Add(dots)
		cycles.Legend.Add(fmt.Sprintf("μ = %.3g", mu[b]), dots)
	}
	cycles.Y.Max = 4

	cost := picture.Panel("Evaluations of f for one oscillator", "μ", "")
	var each, all, period plotter.XYs
	for b, m := range mu {
		x := math.Log10(m)
		each = append(each, plotter.XY{X: x, Y: math.Log10(float64(own.Stats[b].Evaluations))})
		all = append(all, plotter.XY{X: x, Y: math.Log10(float64(joint.Stats[b].Evaluations))})
		period = append(period, plotter.XY{X: x, Y: math.Log10(periods[b])})
	}
	single, batch := picture.Dots(picture.Blue, 1.5, each), picture.Dots(picture.Red, 1.5, all)
	cost.Add(single, batch)
	cost.Legend.Add("own step size", single)
	cost.Legend.Add("one for the batch", batch)
	cost.Y.Max = math.Log10(4e5)
	cost.Y.Tick.Marker = picture.Log10(1e4, 2e4, 5e4, 1e5, 2e5)

	lengths := picture.Panel("Periods, and (3-2 ln 2)μ", "μ", "")
	var limit plotter.XYs
	for _, m := range []float64{4, most} {
		limit = append(limit, plotter.XY{X: math.Log10(m), Y: math.Log10((3 - 2*math.Ln2) * m)})
	}
	lengths.Add(picture.Dots(picture.Blue, 1.5, period), picture.Line(picture.Stroke(picture.Black, 1, true), limit))
	lengths.Y.Tick.Marker = picture.Log10(5, 10, 20, 50)
	for _, p := range []*plot.Plot{cost, lengths} {
		p.X.Tick.Marker = picture.Log10(0.1, 0.3, 1, 3, 10, 30)
	}
	return picture.Save(path, picture.Layout{}, cycles, cost, lengths)
}
