// Command forced_oscillator finds the force on a damped oscillator
//
//	x" = -x - 0.3 x' + u(t)
//
// from noisy measurements of x: the values of u at its knots are the parameters.
package main

import (
	"context"
	"math"
	"math/rand/v2"

	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func main() { example.Main("forced_oscillator", run) }

func oscillator[T field.Number](_ T, z, u, _, dz []T) {
	dz[0] = z[1]
	dz[1] = u[0] - z[0] - 0.3*z[1]
}

// force is the truth: a swell and a push.
func force(t float64) float64 {
	return math.Sin(t/2)*math.Exp(-t/12) + 1.2*math.Exp(-2*(t-12)*(t-12))
}

// forced is the oscillator with a signal of these knots' values.
func forced(kind control.Kind, knots, values []float64, learn bool) (*control.Field[float64], error) {
	u, err := control.NewSignal(kind, 1, control.Series[float64]{Times: knots, Values: values})
	if err != nil {
		return nil, err
	}
	return control.New(control.NewFunc(2, 1, nil, oscillator[float64], oscillator[field.Dual]), u, control.Settings{Learn: learn})
}

// grid is n times from 0 to end.
func grid(n int, end float64) []float64 {
	t := make([]float64, n)
	for i := range t {
		t[i] = end * float64(i) / float64(n-1)
	}
	return t
}

func run(ctx context.Context, e *example.Env) error {
	dev := cpu.New[float64]()
	defer dev.Close()
	const end, n, knots, noise = 20.0, 201, 31, 0.02

	// The measurements come from a force that is known at very many knots.
	fine := grid(2001, end)
	values := make([]float64, len(fine))
	for i, t := range fine {
		values[i] = force(t)
	}
	truth, err := forced(control.NaturalCubic, fine, values, false)
	if err != nil {
		return err
	}
	set := solver.Settings{RTol: 1e-8, ATol: 1e-8}
	s, err := solver.New(dev, truth, set)
	if err != nil {
		return err
	}
	defer s.Close()
	times := grid(n, end)
	sol, err := s.Solve(ctx, []float64{0, 0}, times)
	if err != nil {
		return err
	}
	data := train.Data[float64]{Times: times, Z0: []float64{0, 0}, Targets: make([]float64, 2*n)}
	rng := rand.New(rand.NewPCG(1, 2))
	measured := make([]float64, n)
	for i := range times {
		measured[i] = sol.Sample(i, 0)[0] + noise*rng.NormFloat64()
		data.Targets[2*i], data.Targets[2*i+1] = measured[i], math.NaN() // no velocities
	}
	data.Weights = train.Observed(data.Targets)

	// A natural cubic spline of few knots is smooth by itself: it cannot follow the noise.
	model, err := forced(control.NaturalCubic, grid(knots, end), make([]float64, knots), true)
	if err != nil {
		return err
	}
	learner, err := solver.New(dev, model, set)
	if err != nil {
		return err
	}
	defer learner.Close()
	fit, err := train.NewTrajectories(learner, data, train.TrajectorySettings{})
	if err != nil {
		return err
	}
	defer fit.Close()
	res, err := train.LBFGS(ctx, fit, model.Params(), train.LBFGSSettings[float64]{
		Iterations: example.Pick(e, 60, 300), LossTol: 1e-3, Progress: e.Bar, Title: "force",
	})
	if err != nil {
		return err
	}
	model.SetParams(res.Best)

	found := make([]float64, len(fine))
	var sum float64
	for i, t := range fine {
		if err := model.Signal().At(0, t, found[i:i+1], nil, nil); err != nil {
			return err
		}
		sum += (found[i] - force(t)) * (found[i] - force(t))
	}
	e.Printf("%d values of the force from %d measurements with noise %g, %v after %d iterations\n", knots, n, noise, res.Stop, res.Steps)
	e.Found("rmse_x", math.Sqrt(res.BestLoss))
	e.Found("rmse_force", math.Sqrt(sum/float64(len(fine))))

	if err := learner.SetParams(res.Best); err != nil {
		return err
	}
	if sol, err = learner.Solve(ctx, []float64{0, 0}, fine); err != nil {
		return err
	}
	x := picture.Panel("Displacement", "t", "x")
	line, dots := picture.Line(picture.Stroke(picture.Blue, 1.8, false), picture.Course(fine, sol.Y, 2, 0)), picture.Dots(picture.Black, 1.5, picture.Course(times, measured, 1, 0))
	x.Add(line, dots)
	x.Legend.Add("measured", dots)
	x.Legend.Add("solution", line)
	u := picture.Panel("Force", "t", "u")
	was, is := picture.Line(picture.Stroke(picture.Black, 1.5, true), picture.Course(fine, values, 1, 0)), picture.Line(picture.Stroke(picture.Red, 1.8, false), picture.Course(fine, found, 1, 0))
	at := make(plotter.XYs, knots)
	for i, t := range grid(knots, end) {
		at[i] = plotter.XY{X: t, Y: res.Best[i]}
	}
	u.Add(is, was, picture.Dots(picture.Red, 2, at))
	u.Legend.Add("found", is)
	u.Legend.Add("truth", was)
	return picture.Save(e.File("forced_oscillator.png"), picture.Layout{}, x, u)
}
