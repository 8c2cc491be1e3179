// Command cnf learns two densities of the plane from points, two moons and two circles,
// by continuous normalising flows, with the batches, optimiser, method and tolerances of
// examples/cnf.py of torchdiffeq. It draws the points, the density, and points drawn of it.
package main

import (
	"context"
	"flag"
	"math"
	"math/rand/v2"

	"gonum.org/v1/plot"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/flow"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func main() {
	peer := flag.Bool("peer", false, "train as examples/cnf.py of torchdiffeq does: less")
	example.Main("cnf", func(ctx context.Context, e *example.Env) error {
		return run(ctx, e, example.Pick(e, 20, 1500), *peer)
	})
}

const (
	batch  = 512 // points of an update, each drawn anew
	noise  = 0.06
	half   = 1.75 // of a picture's side
	shades = 32
)

// curve is a set of points on two arcs, blurred by noise: the first of n at u in 0..1.
type curve struct {
	name string
	at   func(u float64, second bool) (x, y float64)
}

var curves = []curve{
	// scikit-learn's make_moons, centred.
	{"moons", func(u float64, second bool) (x, y float64) {
		x, y = math.Cos(math.Pi*u), math.Sin(math.Pi*u)
		if second {
			x, y = 1-x, 0.5-y
		}
		return x - 0.5, y - 0.25
	}},
	// make_circles with factor 0.5.
	{"circles", func(u float64, second bool) (x, y float64) {
		x, y = math.Cos(2*math.Pi*u), math.Sin(2*math.Pi*u)
		if second {
			x, y = x/2, y/2
		}
		return x, y
	}},
}

// draw draws n points, row-major [n, 2].
func (c curve) draw(r *rand.Rand, n int) []float32 {
	points := make([]float32, 0, 2*n)
	for range n {
		x, y := c.at(r.Float64(), r.IntN(2) == 1)
		points = append(points, float32(x+noise*r.NormFloat64()), float32(y+noise*r.NormFloat64()))
	}
	return points
}

// logDensity is the mean of log p of points under the density that draw draws of, which
// no model beats but by chance.
func (c curve) logDensity(points []float32) float64 {
	const n = 500 // points an arc of the integral over it, closer together than the noise
	var arcs []float64
	for i := range 2 * n {
		x, y := c.at((float64(i/2)+0.5)/n, i%2 == 1)
		arcs = append(arcs, x, y)
	}
	sum := 0.0
	for i := 0; i < len(points); i += 2 {
		p := 0.0
		for k := 0; k < len(arcs); k += 2 {
			dx, dy := float64(points[i])-arcs[k], float64(points[i+1])-arcs[k+1]
			p += math.Exp(-(dx*dx + dy*dy) / (2 * noise * noise))
		}
		sum += math.Log(p / (2 * n) / (2 * math.Pi * noise * noise))
	}
	return sum / float64(len(points)/2)
}

func run(ctx context.Context, e *example.Env, updates int, peer bool) error {
	rate := train.Schedule{Kind: train.Cosine}
	optimizer := train.Optimizer{Kind: train.Adam, LR: 1e-2}
	if peer {
		updates, optimizer.LR, rate.Kind = 1000, 1e-3, train.Constant
	}
	var panels []*plot.Plot
	for _, c := range curves {
		row, err := learn(ctx, e, c, updates, optimizer, rate)
		if err != nil {
			return err
		}
		panels = append(panels, row...)
	}
	return picture.Save(e.File("cnf.png"), picture.Layout{Columns: 3, Width: 9, Height: 9, DPI: 60}, panels...)
}

// learn fits a flow to points of c and returns three pictures.
func learn(ctx context.Context, e *example.Env, c curve, updates int, optimizer train.Optimizer, rate train.Schedule) ([]*plot.Plot, error) {
	r := rand.New(rand.NewPCG(1, 2))
	data, test := c.draw(r, batch*updates), c.draw(r, example.Pick(e, 100, 10_000))

	spec := mlp.Dense(mlp.Tanh, 2, 64, 64, 2)
	spec.Time = mlp.TimeEveryLayer
	model, err := mlp.New[float32](spec, mlp.Init{}, 1)
	if err != nil {
		return nil, err
	}
	dev := cpu.New[float32]()
	defer dev.Close()
	f, err := flow.New(dev, model, flow.Settings{Solver: solver.Settings{Method: solver.Dopri5, RTol: 1e-5, ATol: 1e-5}})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	res, err := train.Fit(ctx, flow.NewLikelihood(f, data), model.Params(), train.Settings[float32]{
		Optimizer: optimizer, Schedule: rate,
		BatchSize: batch, Epochs: 1, Progress: e.Bar, Title: c.name,
	})
	if err != nil {
		return nil, err
	}
	if err := f.SetParams(res.Theta); err != nil {
		return nil, err
	}
	logp, err := f.LogDensity(ctx, test)
	if err != nil {
		return nil, err
	}
	e.Found(c.name+"_test_loglik", mean(logp))
	e.Found(c.name+"_truth_loglik", c.logDensity(test))

	pixels := example.Pick(e, 40, 200)
	var grid []float32
	for i := range pixels * pixels {
		at := func(k int) float32 { return float32(half * (2*(float64(k)+0.5)/float64(pixels) - 1)) }
		grid = append(grid, at(i%pixels), -at(i/pixels))
	}
	if logp, err = f.LogDensity(ctx, grid); err != nil {
		return nil, err
	}
	density := make([]float64, len(logp))
	for i, v := range logp {
		density[i] = math.Exp(v)
	}
	e.Found(c.name+"_density_sum", mean(density)*4*half*half) // over the picture
	drawn, err := f.Sample(ctx, len(test)/2, 3)
	if err != nil {
		return nil, err
	}
	return []*plot.Plot{
		dots("Points of two "+c.name, test), shade("Learned density", density, pixels), dots("Points drawn of it", drawn),
	}, nil
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}
