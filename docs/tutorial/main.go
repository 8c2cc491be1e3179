// Command tutorial is the program of docs/tutorial.md: from a CSV file to a model that a
// server can answer with.
package main

import (
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func main() {
	data := flag.String("data", "docs/tutorial/pendulum.csv", "the record: release, time, angle, speed")
	out := flag.String("out", ".", "folder for the model and the checkpoint")
	epochs := flag.Int("epochs", 300, "how often each release is used to learn from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run(ctx, os.Stdout, *data, *out, *epochs)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

const dim = 2 // components of the state: angle and speed

// read returns the series of a file with the columns release, time, angle, speed. An empty
// cell is a value that is missing.
func read(path string) (all []train.Series[float64]) {
	f, err := os.Open(path)
	check(err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	check(err)
	for i, row := range rows[1:] {
		if row[0] != rows[i][0] { // the first of a release
			all = append(all, train.Series[float64]{})
		}
		s := &all[len(all)-1]
		for j, cell := range row[1:] {
			x := math.NaN()
			if cell != "" {
				x, err = strconv.ParseFloat(cell, 64)
				check(err)
			}
			if j == 0 {
				s.Times = append(s.Times, x)
			} else {
				s.Values = append(s.Values, x)
			}
		}
		s.Z0 = s.Values[:dim]
	}
	return all
}

// scaling is z = (x - Shift)/Scale: states of mean 0 and standard deviation 1.
type scaling struct{ Shift, Scale [dim]float64 }

// scalingOf is that of the values of series.
func scalingOf(all []train.Series[float64]) (c scaling) {
	for j := range dim {
		var n, sum, squares float64
		for _, s := range all {
			for i := j; i < len(s.Values); i += dim {
				if x := s.Values[i]; !math.IsNaN(x) {
					n, sum, squares = n+1, sum+x, squares+x*x
				}
			}
		}
		c.Shift[j] = sum / n
		c.Scale[j] = math.Sqrt(squares/n - c.Shift[j]*c.Shift[j])
	}
	return c
}

// apply returns the series in scaled units.
func (c scaling) apply(all []train.Series[float64]) []train.Series[float64] {
	var scaled []train.Series[float64]
	for _, s := range all {
		z := make([]float64, len(s.Values))
		for i, x := range s.Values {
			z[i] = (x - c.Shift[i%dim]) / c.Scale[i%dim]
		}
		scaled = append(scaled, train.Series[float64]{Times: s.Times, Z0: z[:dim], Values: z})
	}
	return scaled
}

// undo puts the scaling into the first and the last layer: from dz/dt = f(z) the model
// becomes dx/dt = Scale·f((x - Shift)/Scale), and takes and gives the units of the data.
func (c scaling) undo(m *mlp.Model[float64]) {
	last := m.Spec.NumLayers() - 1
	w, b := m.Weight(0), m.Bias(0)
	for i := range w {
		w[i] /= c.Scale[i%dim]
		b[i/dim] -= w[i] * c.Shift[i%dim]
	}
	w, b = m.Weight(last), m.Bias(last)
	for i := range w {
		w[i] *= c.Scale[i/(len(w)/dim)]
	}
	for j := range b {
		b[j] *= c.Scale[j]
	}
}

// pick is the part of a list at these places.
func pick[E any](list []E, places []int) (part []E) {
	for _, i := range places {
		part = append(part, list[i])
	}
	return part
}

func run(ctx context.Context, w io.Writer, data, out string, epochs int) (rmse float64) {
	all := read(data)

	known, last := train.Split(len(all), 0.25, 1)
	rest, held := pick(all, known), pick(all, last)
	learn, choose := train.Split(len(rest), 0.25, 2)
	c := scalingOf(pick(rest, learn))
	scaled := c.apply(rest)
	fmt.Fprintf(w, "%d releases to learn from, %d to choose the epoch, %d to judge\n", len(learn), len(choose), len(held))

	dev := solver.Auto[float64]()
	defer dev.Close()
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, dim, 32, 32, dim), mlp.Init{}, 1)
	check(err)
	s, err := solver.New(dev, model, solver.Settings{Stepping: solver.PerSample, RTol: 1e-5, ATol: 1e-5})
	check(err)
	defer s.Close()

	fit, err := train.NewRagged(s, pick(scaled, learn), train.TrajectorySettings{})
	check(err)
	defer fit.Close()
	validation, err := train.NewRagged(s, pick(scaled, choose), train.TrajectorySettings{})
	check(err)
	defer validation.Close()
	res, err := train.Fit(ctx, fit, model.Params(), train.Settings[float64]{
		Optimizer:  train.Optimizer{Kind: train.Adam, LR: 0.01},
		Schedule:   train.Schedule{Kind: train.Cosine},
		BatchSize:  5,
		Epochs:     epochs,
		Seed:       1,
		Validation: validation,
		Checkpoint: filepath.Join(out, "checkpoint.safetensors"),
		Progress:   os.Stderr,
		Title:      "pendulum",
	})
	check(err)
	fmt.Fprintf(w, "validation loss %.4f after %d of %d updates\n", res.BestLoss, res.BestStep, res.Steps)

	model.SetParams(res.Best)
	c.undo(model)
	check(s.SetParams(model.Params()))

	var z0, truth []float64
	var samples []solver.Sample
	for _, r := range held {
		z0, samples, truth = append(z0, r.Z0...), append(samples, solver.Sample{Times: r.Times}), append(truth, r.Values...)
	}
	sol, err := s.SolveEach(ctx, z0, samples)
	check(err)
	mse, err := train.EvalLoss(train.Loss{}, sol.Y, train.Target[float64]{Values: truth, Weights: train.Observed(truth)}, nil)
	check(err)
	fmt.Fprintf(w, "root mean square error of the releases held back: %.3f\n", math.Sqrt(mse))

	sol, err = s.Solve(ctx, []float64{1.5, 0}, []float64{0, 0.5, 1, 1.5, 2})
	check(err)
	for i, t := range sol.Times {
		fmt.Fprintf(w, "after %.1f s: angle %6.3f, speed %6.3f\n", t, sol.Sample(i, 0)[0], sol.Sample(i, 0)[1])
	}

	check(model.SaveFile(filepath.Join(out, "pendulum.safetensors")))
	return math.Sqrt(mse)
}
