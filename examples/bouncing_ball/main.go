// Command bouncing_ball finds gravity, drag and the restitution of a ball from noisy
// heights over several bounces. Gradients go through the bounces: their times depend on
// all three.
package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func main() { example.Main("bouncing_ball", run) }

// The state is the height and the velocity; θ is gravity and drag.
func flight[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = -theta[0] - theta[1]*z[1]*field.Abs(z[1])
}

func height[T field.Number](_ T, z, _ []T) T { return z[0] }

// bounce turns the velocity around; θ of the event is the restitution.
func bounce[T field.Number](_ T, z, theta, out []T) { out[1] = -theta[0] * z[1] }

// ball is a train.Objective over one sample: the mean squared error of the heights. Its
// parameters are gravity, drag and restitution.
type ball struct {
	s       *solver.Solver[float64]
	a       *adjoint.Adjoint[float64]
	bounce  []float64 // the event's θ, which the solver reads
	z0      []float64
	times   []float64
	heights []float64
}

func newBall(dev *cpu.Backend[float64], z0 []float64, p [3]float64) (*ball, error) {
	event := solver.NewEvent([]float64{p[2]}, height[float64], height[field.Dual], bounce[float64], bounce[field.Dual])
	event.Name, event.Direction = "bounce", solver.Falling
	f := field.New(2, p[:2], flight[float64], flight[field.Dual])
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample, RTol: 1e-9, ATol: 1e-9, Dense: true}, event)
	if err != nil {
		return nil, err
	}
	a, err := adjoint.New(s, adjoint.Settings{NoTimes: true})
	if err != nil {
		return nil, err
	}
	return &ball{s: s, a: a, bounce: event.Theta, z0: z0}, nil
}

func (b *ball) close() {
	b.a.Close()
	b.s.Close()
}

func (b *ball) NumParams() int  { return 3 }
func (b *ball) NumSamples() int { return 1 }

func (b *ball) solve(ctx context.Context, p, times []float64) (*solver.Solution[float64], error) {
	b.bounce[0] = p[2]
	if err := b.s.SetParams(p[:2]); err != nil {
		return nil, err
	}
	return b.a.Solve(ctx, b.z0, times)
}

func (b *ball) Loss(ctx context.Context, p []float64, batch []int) (float64, error) {
	return b.Gradient(ctx, p, batch, make([]float64, 3))
}

func (b *ball) Gradient(ctx context.Context, p []float64, _ []int, grad []float64) (float64, error) {
	sol, err := b.solve(ctx, p, b.times)
	if err != nil {
		return 0, err
	}
	// The targets have a height and a velocity for each time; the velocity is not seen.
	target := train.Target[float64]{Values: make([]float64, len(sol.Y)), Weights: make([]float64, len(sol.Y))}
	for i, h := range b.heights {
		target.Values[2*i], target.Weights[2*i] = h, 1
	}
	dLdz := make([]float64, len(sol.Y))
	loss, err := train.EvalLoss(train.Loss{}, sol.Y, target, dLdz)
	if err != nil {
		return 0, err
	}
	g, err := b.a.Gradients(ctx, sol, dLdz)
	if err != nil {
		return 0, err
	}
	grad[0], grad[1], grad[2] = g.Theta[0], g.Theta[1], g.Events[0][0]
	return loss, nil
}

func run(ctx context.Context, e *example.Env) error {
	dev := cpu.New[float64]()
	defer dev.Close()
	truth, start := [3]float64{9.81, 0.02, 0.8}, [3]float64{8, 0.05, 0.7}
	z0 := []float64{2, 0} // metres, metres a second
	thrown, err := newBall(dev, z0, truth)
	if err != nil {
		return err
	}
	defer thrown.close()
	const end, n, noise = 3.0, 91, 0.02 // seconds, frames, metres
	var times, fine []float64
	for i := range n {
		times = append(times, end*float64(i)/(n-1))
	}
	for i := range 601 {
		fine = append(fine, end*float64(i)/600)
	}
	real, err := thrown.solve(ctx, truth[:], times)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	heights := make([]float64, n)
	for i := range heights {
		heights[i] = real.Sample(i, 0)[0] + noise*rng.NormFloat64()
	}

	fit, err := newBall(dev, z0, start)
	if err != nil {
		return err
	}
	defer fit.close()
	first, err := fit.solve(ctx, start[:], fine)
	if err != nil {
		return err
	}
	// Far from the truth a bounce is out of step with the record and the loss has poor
	// minima. So the fit sees the first bounce first, then more and more of them.
	p, iterations := start[:], 0
	for _, until := range []float64{1, 1.7, end} {
		fit.times, fit.heights = times, heights
		for fit.times[len(fit.times)-1] > until+1e-9 {
			fit.times, fit.heights = fit.times[:len(fit.times)-1], fit.heights[:len(fit.heights)-1]
		}
		res, err := train.LBFGS(ctx, fit, p, train.LBFGSSettings[float64]{Iterations: example.Pick(e, 20, 100)})
		if err != nil {
			return err
		}
		p, iterations = res.Best, iterations+res.Steps
		e.Printf("until %.1f s: gravity %.3f, drag %.4f, restitution %.4f, RMSE %.1f mm\n", until, p[0], p[1], p[2], 1000*math.Sqrt(res.BestLoss))
	}
	e.Found("gravity", p[0])
	e.Found("drag", p[1])
	e.Found("restitution", p[2])
	e.Found("iterations", float64(iterations))
	last, err := fit.solve(ctx, p, fine)
	if err != nil {
		return err
	}
	e.Found("bounces", float64(len(last.Events[0])))

	panel := picture.Panel("A ball's height, and what was found from it", "seconds", "metres")
	before := picture.Line(picture.Stroke(picture.Grey, 1.5, true), picture.Course(fine, first.Y, 2, 0))
	after := picture.Line(picture.Stroke(picture.Blue, 1.8, false), picture.Course(fine, last.Y, 2, 0))
	seen := picture.Dots(picture.Black, 1.8, picture.Course(times, heights, 1, 0))
	var ground plotter.XYs
	for _, o := range last.Events[0] {
		ground = append(ground, plotter.XY{X: o.T})
	}
	panel.Add(before, after, seen, picture.Dots(picture.Red, 3, ground))
	panel.Legend.Add("record", seen)
	panel.Legend.Add(fmt.Sprintf("start: g = %g, e = %g", start[0], start[2]), before)
	panel.Legend.Add(fmt.Sprintf("found: g = %.2f, e = %.3f", p[0], p[2]), after)
	panel.Y.Max = 2.4
	return picture.Save(e.File("bouncing_ball.png"), picture.Layout{Width: 18, Height: 9}, panel)
}
