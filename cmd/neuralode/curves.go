package main

import (
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"

	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/train"
)

// addLine draws points as a line, in the colour of number k; without any, nothing.
func addLine(p *plot.Plot, k int, name string, xys plotter.XYs) {
	if len(xys) == 0 {
		return
	}
	style := picture.Stroke(picture.Black, 1.2, k >= len(plotutil.DefaultColors)) // dashed where colours come again
	style.Color = plotutil.Color(k)
	line := picture.Line(style, xys)
	p.Add(line)
	if name != "" {
		p.Legend.Add(name, line)
	}
}

// addDots draws points, in the colour of number k; without any, nothing.
func addDots(p *plot.Plot, k int, xys plotter.XYs) {
	if len(xys) > 0 {
		dots := picture.Dots(picture.Black, 2, xys)
		dots.Color = plotutil.Color(k)
		p.Add(dots)
	}
}

// course is state j over time.
func (tr *trajectory) course(j int) plotter.XYs {
	xys := make(plotter.XYs, len(tr.States))
	for i, x := range tr.States {
		xys[i] = plotter.XY{X: tr.Times[i], Y: x[j]}
	}
	return xys
}

// observed is state j of a series over time, where it has a value.
func observed(s *table.Series, j int) plotter.XYs {
	var xys plotter.XYs
	for i, t := range s.Times {
		if x := s.Row(i)[j]; !math.IsNaN(x) {
			xys = append(xys, plotter.XY{X: t, Y: x})
		}
	}
	return xys
}

// lossPlot is the course of a run. What is not positive has no place on it.
func lossPlot(history []train.Record) *plot.Plot {
	p := picture.Panel("", "epoch", "loss, in the model's units")
	var loss, validation plotter.XYs
	add := func(xys *plotter.XYs, epoch int, y float64) {
		if y > 0 && !math.IsInf(y, 0) {
			*xys = append(*xys, plotter.XY{X: float64(epoch), Y: math.Log10(y)})
		}
	}
	for _, r := range history {
		add(&loss, r.Epoch, r.Loss)
		add(&validation, r.Epoch, r.Validation)
	}
	addLine(p, 0, "training", loss)
	addLine(p, 1, "validation", validation)
	p.Y.Tick.Marker = picture.Decades{}
	return p
}
