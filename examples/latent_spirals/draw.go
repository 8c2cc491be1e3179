package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/internal/picture"
)

// draw writes a panel for each piece: the truth, the points that were seen, and the
// model's course, dashed where it foretells.
func draw(path string, shown []piece, courses [][]float32) error {
	panels := make([]*plot.Plot, len(shown))
	for k, p := range shown {
		panel := picture.Panel(fmt.Sprintf("%d points seen", len(p.seen.Times)), "", "")
		truth := picture.Line(picture.Stroke(picture.Grey, 3, false), picture.Orbit(p.points, 2, 0, 1))
		seen := picture.Dots(picture.Black, 1.2, picture.Orbit(p.seen.Values, 2, 0, 1))
		within := picture.Line(picture.Stroke(picture.Blue, 1.5, false), picture.Orbit(courses[k][:2*window], 2, 0, 1))
		after := picture.Line(picture.Stroke(picture.Red, 1.5, true), picture.Orbit(courses[k][2*window:], 2, 0, 1))
		panel.Add(truth, seen, within, after)
		if k == 0 {
			panel.Legend.Add("spiral", truth)
			panel.Legend.Add("seen", []plot.Thumbnailer{seen}...)
			panel.Legend.Add("model", within)
			panel.Legend.Add("foretold", after)
		}
		square(panel, p.points)
		panels[k] = panel
	}
	return picture.Save(path, picture.Layout{Columns: 2, Width: 9, Height: 9, DPI: 60}, panels...)
}

// square makes both axes as long as the longer one, so that spirals keep their shape.
func square(p *plot.Plot, points []float32) {
	x0, x1, y0, y1 := plotter.XYRange(picture.Orbit(points, 2, 0, 1))
	half := 0.65 * max(x1-x0, y1-y0)
	p.X.Min, p.X.Max = (x0+x1)/2-half, (x0+x1)/2+half
	p.Y.Min, p.Y.Max = (y0+y1)/2-half, (y0+y1)/2+half
}
