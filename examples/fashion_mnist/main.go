// Command fashion_mnist learns to tell the ten classes of Fashion-MNIST apart: a linear
// layer takes an image to the initial state of a Neural ODE, whose state at the end
// another one takes to the classes.
package main

import (
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

const (
	dim    = 64  // of the state
	hidden = 128 // units of f
	held   = 0.1 // fraction of the training images that choose the epoch
)

func main() {
	dir := flag.String("data", "/usr/share/datasets/fashion-mnist", "folder with the four files of Fashion-MNIST")
	epochs := flag.Int("epochs", 25, "of training")
	example.Main("fashion_mnist", func(ctx context.Context, e *example.Env) error { return run(ctx, e, *dir, *epochs) })
}

func run(ctx context.Context, e *example.Env, dir string, epochs int) error {
	all, err := load(dir, "train")
	if err != nil {
		return err
	}
	test, err := load(dir, "t10k")
	if err != nil {
		return err
	}
	if e.Short {
		all, _ = all.split(min(500, all.len()))
		test, _ = test.split(min(200, test.len()))
		epochs = min(epochs, 4)
	}
	training, validation := all.split(all.len() - int(held*float64(all.len())))

	dev := cpu.New[float32]()
	defer dev.Close()
	f, err := mlp.New[float32](mlp.Dense(mlp.Tanh, dim, hidden, dim), mlp.Init{}, 1)
	if err != nil {
		return err
	}
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-3, ATol: 1e-3})
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := adjoint.New(s, adjoint.Settings{NoTimes: true})
	if err != nil {
		return err
	}
	defer a.Close()
	fit, check := &classifier{s, a, training}, &classifier{s, a, validation}

	// The two linear layers start as torch.nn.Linear does: as the layers of an MLP.
	ends, err := mlp.New[float32](mlp.Dense(mlp.Identity, pixels, dim, classes), mlp.Init{}, 2)
	if err != nil {
		return err
	}
	var accuracies []float64
	res, err := train.Fit(ctx, fit, append(ends.Theta, f.Theta...), train.Settings[float32]{
		Optimizer: train.Optimizer{Kind: train.AdamW, LR: 1e-3, WeightDecay: 0.01},
		Schedule:  train.Schedule{Kind: train.Cosine},
		BatchSize: 128, Epochs: epochs, Seed: 1, Validation: check,
		OnEpoch: func(r train.Report[float32]) error {
			correct, err := check.accuracy(ctx, r.Theta)
			accuracies = append(accuracies, 100*correct)
			return err
		},
		Progress: e.Bar, Title: "fashion_mnist",
	})
	if err != nil {
		return err
	}

	judge := &classifier{s, a, test}
	correct, err := judge.accuracy(ctx, res.Best)
	if err != nil {
		return err
	}
	e.Printf("%d parameters, %d of them the ODE's; %d images to learn from, %d to choose the epoch, %d to test\n",
		fit.NumParams(), s.NumParams(), training.len(), validation.len(), test.len())
	e.Found("epochs", float64(res.Epochs))
	e.Found("validation_accuracy", accuracies[max(0, bestEpoch(res)-1)])
	e.Found("test_accuracy", 100*correct)
	shown, err := judge.logits(ctx, res.Best, first(24, test.len()))
	if err != nil {
		return err
	}
	return draw(e.File("fashion_mnist.png"), test, shown, res, accuracies)
}

// bestEpoch is the epoch after which the validation loss was smallest.
func bestEpoch(res *train.Result[float32]) int {
	for _, r := range res.History {
		if r.Step == res.BestStep {
			return r.Epoch
		}
	}
	return res.Epochs
}

// accuracy is the fraction of the images whose largest logit is their class.
func (m *classifier) accuracy(ctx context.Context, p []float32) (float64, error) {
	correct, n := 0, m.data.len()
	const piece = 1000
	for at := 0; at < n; at += piece {
		samples := first(piece, n-at)
		for i := range samples {
			samples[i] += at
		}
		logits, err := m.logits(ctx, p, samples)
		if err != nil {
			return 0, err
		}
		for r, i := range samples {
			if largest(logits[r*classes:(r+1)*classes]) == int(m.data.labels[i]) {
				correct++
			}
		}
	}
	return float64(correct) / float64(n), nil
}

// first lists 0, 1, … below n and limit.
func first(n, limit int) []int {
	list := make([]int, min(n, limit))
	for i := range list {
		list[i] = i
	}
	return list
}

func largest(x []float32) (at int) {
	for i, v := range x {
		if v > x[at] {
			at = i
		}
	}
	return at
}

// draw writes the first test images with what they were taken for, and the course of the
// fit.
func draw(path string, test set, logits []float32, res *train.Result[float32], accuracies []float64) error {
	const columns = 6
	sheet := picture.Panel("Test images; red: taken for the wrong class", "", "")
	sheet.HideAxes()
	for i := range len(logits) / classes {
		x, y := float64(i%columns), -1.25*float64(i/columns)
		img := image.NewGray(image.Rect(0, 0, 28, 28))
		for k := range img.Pix {
			v := 0.3530*float64(test.images[i*pixels+k]) + 0.2860
			img.Pix[k] = uint8(math.Round(255 * (1 - v)))
		}
		sheet.Add(plotter.NewImage(img, x, y, x+0.9, y+0.9))
		guess := largest(logits[i*classes : (i+1)*classes])
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: y - 0.2}}, Labels: []string{names[guess]}})
		if err != nil {
			return err
		}
		label.TextStyle[0].Font.Variant, label.TextStyle[0].Font.Size = "Sans", 8
		label.TextStyle[0].Color = color.Color(picture.Black)
		if guess != int(test.labels[i]) {
			label.TextStyle[0].Color = picture.Red
		}
		sheet.Add(label)
	}

	course := picture.Panel("Accuracy on held training images", "epochs", "%")
	xys := make(plotter.XYs, len(accuracies))
	for i, v := range accuracies {
		xys[i] = plotter.XY{X: float64(i + 1), Y: v}
	}
	course.Add(picture.Line(picture.Stroke(picture.Blue, 1.8, false), xys))
	loss := picture.Panel("Cross entropy", "epochs", "")
	for _, l := range []struct {
		name string
		ink  picture.Ink
		of   func(train.Record) float64
	}{
		{"training", picture.Black, func(r train.Record) float64 { return r.Loss }},
		{"held images", picture.Blue, func(r train.Record) float64 { return r.Validation }},
	} {
		xys := make(plotter.XYs, len(res.History))
		for i, r := range res.History {
			xys[i] = plotter.XY{X: float64(r.Epoch), Y: l.of(r)}
		}
		line := picture.Line(picture.Stroke(l.ink, 1.8, false), xys)
		loss.Add(line)
		loss.Legend.Add(l.name, line)
	}
	if len(accuracies) < 2 { // an axis of length zero cannot be drawn
		return fmt.Errorf("the picture needs 2 epochs or more; this run had %d", len(accuracies))
	}
	return picture.Save(path, picture.Layout{}, []*plot.Plot{sheet, loss, course}...)
}
