package main

import (
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// look is how a model is drawn.
type look struct {
	*result
	draw.LineStyle
}

func (l look) line(xys plotter.XYs) *plotter.Line {
	return picture.Line(l.LineStyle, xys)
}

// drawFigure writes four panels to the PNG file path: the record and both models
// over time, hare and lynx; the phase portrait with the flow of the network; and the
// course of the fits.
func drawFigure(path string, rec record, lv, node *result, network *mlp.Model[float64]) error {
	models := []look{
		{lv, picture.Stroke(picture.Red, 1.8, true)},
		{node, picture.Stroke(picture.Blue, 1.8, false)},
	}
	return picture.Save(path, picture.Layout{Columns: 2, Width: 13, Height: 9.5, DPI: 130},
		overTime(rec, models, 0, "Snowshoe hare"), overTime(rec, models, 1, "Canada lynx"),
		phasePortrait(rec, models, network), progress(models))
}

// points is the record as dots.
func points(xys plotter.XYs) *plotter.Scatter { return picture.Dots(picture.Black, 2.6, xys) }

// overTime plots one species against the years.
func overTime(rec record, models []look, species int, title string) *plot.Plot {
	p := picture.Panel(title, "year", "thousands of pelts")
	series := func(years, u []float64) plotter.XYs {
		xys := make(plotter.XYs, len(years))
		for i, t := range years {
			xys[i] = plotter.XY{X: t, Y: unit * u[2*i+species]}
		}
		return xys
	}
	for _, m := range models {
		l := m.line(series(m.years, m.u))
		p.Add(l)
		p.Legend.Add(m.name, l)
	}
	data := points(series(rec.years, rec.u))
	p.Add(data)
	p.Legend.Add("record", data)
	p.X.Tick.Marker = picture.Every(5, 1900, 1920)
	p.Y.Min, p.Y.Max = 0, 100
	p.Y.Tick.Marker = picture.Every(20, 0, 100)
	return p
}

// phasePortrait plots lynx against hare over the flow of the network.
func phasePortrait(rec record, models []look, network *mlp.Model[float64]) *plot.Plot {
	p := picture.Panel("Phase portrait and learned vector field", "hare, thousands of pelts", "lynx, thousands of pelts")
	p.Add(picture.Flow{Columns: 15, Rows: 13, Reach: 0.07 * math.Sqrt(unit), F: func(z, dz []float64) {
		network.Eval(0, []float64{z[0] / unit, z[1] / unit}, dz)
		dz[0], dz[1] = unit*dz[0], unit*dz[1]
	}})
	orbit := func(u []float64) plotter.XYs {
		xys := make(plotter.XYs, len(u)/2)
		for i := range xys {
			xys[i] = plotter.XY{X: unit * u[2*i], Y: unit * u[2*i+1]}
		}
		return xys
	}
	for _, m := range models {
		p.Add(m.line(orbit(m.u)))
	}
	p.Add(points(orbit(rec.u)))
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 90, 0, 70
	p.X.Tick.Marker, p.Y.Tick.Marker = picture.Every(20, 0, 80), picture.Every(20, 0, 60)
	return p
}

// progress plots the error of the fits: epochs over the windows, then iterations over
// the record.
func progress(models []look) *plot.Plot {
	p := picture.Panel("Fit: Adam on windows, then L-BFGS on the record", "epochs, then iterations", "RMSE, thousands of pelts")
	p.Y.Min, p.Y.Max = math.Log10(1.5), math.Log10(50)
	p.Y.Tick.Marker, p.X.Tick.Marker = picture.Log10(2, 5, 10, 20, 50), picture.Every(100, 0, 700)
	for _, m := range models {
		xys := make(plotter.XYs, 0, len(m.epochs)+len(m.steps))
		for _, e := range slices.Concat(m.epochs, m.steps) {
			xys = append(xys, plotter.XY{X: float64(len(xys)), Y: min(max(math.Log10(e), p.Y.Min), p.Y.Max)})
		}
		l := m.line(xys)
		p.Add(l)
		p.Legend.Add(m.name, l)
	}
	n := float64(len(models[0].epochs))
	p.Add(picture.Line(picture.Stroke(picture.Grey, 0.8, false), plotter.XYs{{X: n, Y: p.Y.Min}, {X: n, Y: p.Y.Max}}))
	return p
}
