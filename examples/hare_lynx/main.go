// Command hare_lynx learns the pelt record of the Hudson's Bay Company, 21 years of hare
// and lynx, with a Neural ODE, and saves the network for examples/serve. It is the
// shortest way from a CSV file to a model; the demo does more with the same record.
package main

import (
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"

	"gonum.org/v1/plot"
)

// unit is what the model counts in, in thousands of pelts: it keeps the state near 1.
const unit = 20

func main() {
	file := flag.String("data", "demo/hare_lynx.csv", "the record: a line of names, then year, hare, lynx")
	example.Main("hare_lynx", func(ctx context.Context, e *example.Env) error { return run(ctx, e, *file) })
}

// read returns the years and the pelts in units, [years, 2].
func read(path string) (years, u []float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: run this from the repository's root, or say by -data where the record is", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment, r.FieldsPerRecord = '#', 3
	if _, err := r.Read(); err != nil { // the names
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return years, u, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		for i, text := range row {
			x, err := strconv.ParseFloat(text, 64)
			line, _ := r.FieldPos(i)
			switch {
			case err != nil:
				return nil, nil, fmt.Errorf("%s: line %d: %w", path, line, err)
			case i == 0:
				years = append(years, x)
			default:
				u = append(u, x/unit)
			}
		}
	}
}

func run(ctx context.Context, e *example.Env, file string) error {
	years, u, err := read(file)
	if err != nil {
		return err
	}
	dev := solver.Auto[float64]()
	defer dev.Close()
	f, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 16, 2), mlp.Init{Weight: mlp.XavierUniform, Bias: mlp.BiasZero}, 1)
	if err != nil {
		return err
	}
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-8, ATol: 1e-8, Method: solver.Vern7})
	if err != nil {
		return err
	}
	defer s.Close()

	// First, five years from every year's pelts: many short trajectories, whose loss has
	// no poor minima. f does not see the time, so that all may count from the first year.
	const window = 5
	starts := len(years) - window + 1
	short := train.Data[float64]{Times: years[:window], Z0: u[:2*starts]}
	for i := range window {
		short.Targets = append(short.Targets, u[2*i:2*(i+starts)]...)
	}
	windows, err := train.NewTrajectories(s, short, train.TrajectorySettings{})
	if err != nil {
		return err
	}
	defer windows.Close()
	res, err := train.Fit(ctx, windows, f.Params(), train.Settings[float64]{
		Optimizer: train.Optimizer{Kind: train.Adam, LR: 0.01}, Schedule: train.Schedule{Kind: train.Cosine},
		ClipNorm: 1, BatchSize: 4, Epochs: example.Pick(e, 10, 200), Seed: 1, Progress: e.Bar, Title: "windows",
	})
	if err != nil {
		return err
	}

	// Then one trajectory through all years. Its initial state is a parameter too.
	whole, err := train.NewTrajectories(s, train.Data[float64]{Times: years, Z0: u[:2], Targets: u}, train.TrajectorySettings{LearnZ0: true})
	if err != nil {
		return err
	}
	defer whole.Close()
	res, err = train.LBFGS(ctx, whole, append(res.Best, u[:2]...), train.LBFGSSettings[float64]{
		Iterations: example.Pick(e, 10, 500), Progress: e.Bar, Title: "record",
	})
	if err != nil {
		return err
	}
	theta, z0 := res.Best[:s.NumParams()], res.Best[s.NumParams():]
	e.Printf("one solution from %.1f thousand hare and %.1f thousand lynx in %.0f\n", unit*z0[0], unit*z0[1], years[0])
	e.Found("rmse", unit*math.Sqrt(res.BestLoss)) // thousands of pelts

	f.SetParams(theta)
	if err := f.SaveFile(e.File("hare_lynx.safetensors")); err != nil {
		return err
	}
	if err := s.SetParams(theta); err != nil {
		return err
	}
	var fine []float64 // times to draw
	for i := range 20*(len(years)-1) + 1 {
		fine = append(fine, years[0]+(years[len(years)-1]-years[0])*float64(i)/float64(20*(len(years)-1)))
	}
	sol, err := s.Solve(ctx, z0, fine)
	if err != nil {
		return err
	}
	for _, y := range [][]float64{sol.Y, u} { // u belongs to this function
		for i := range y {
			y[i] *= unit
		}
	}
	return draw(e.File("hare_lynx.png"), years, u, fine, sol.Y)
}

// draw writes the record and the solution over time, and the phase portrait.
func draw(path string, years, u, fine, y []float64) error {
	time := picture.Panel("The record and one solution", "year", "thousands of pelts")
	for i, s := range []struct {
		name string
		ink  picture.Ink
	}{{"hare", picture.Blue}, {"lynx", picture.Red}} {
		line := picture.Line(picture.Stroke(s.ink, 1.8, false), picture.Course(fine, y, 2, i))
		time.Add(line, picture.Dots(s.ink, 2.4, picture.Course(years, u, 2, i)))
		time.Legend.Add(s.name, line)
	}
	time.Y.Min, time.Y.Max = 0, 100
	time.X.Tick.Marker = picture.Every(5, 1900, 1920)
	phase := picture.Panel("Phase portrait", "hare, thousands of pelts", "lynx, thousands of pelts")
	phase.Add(picture.Line(picture.Stroke(picture.Green, 1.8, false), picture.Orbit(y, 2, 0, 1)),
		picture.Dots(picture.Black, 2.4, picture.Orbit(u, 2, 0, 1)))
	return picture.Save(path, picture.Layout{}, []*plot.Plot{time, phase}...)
}
