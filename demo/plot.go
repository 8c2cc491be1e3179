package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

var (
	black = color.Gray{Y: 40}
	grey  = color.Gray{Y: 170}
	blue  = color.RGBA{R: 31, G: 119, B: 180, A: 255}
	red   = color.RGBA{R: 214, G: 69, B: 50, A: 255}
)

// look is how a model is drawn.
type look struct {
	*result
	draw.LineStyle
}

func (l look) line(xys plotter.XYs) *plotter.Line {
	return &plotter.Line{XYs: xys, LineStyle: l.LineStyle}
}

// drawFigure writes four panels to the PNG file path: the record and both models
// over time, hare and lynx; the phase portrait with the flow of the network; and the
// course of the fits.
func drawFigure(path string, rec record, lv, node *result, network *mlp.Model[float64]) error {
	models := []look{
		{lv, draw.LineStyle{Color: red, Width: vg.Points(1.8), Dashes: []vg.Length{vg.Points(5), vg.Points(3)}}},
		{node, draw.LineStyle{Color: blue, Width: vg.Points(1.8)}},
	}
	const width, height, gap = 26 * vg.Centimeter, 19 * vg.Centimeter, 9 * vg.Millimeter
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(130))
	tiles := draw.Tiles{Rows: 2, Cols: 2, PadX: gap, PadY: gap, PadTop: gap / 2, PadBottom: gap / 2, PadLeft: gap / 2, PadRight: gap / 2}
	for i, panel := range []*plot.Plot{
		overTime(rec, models, 0, "Snowshoe hare"), overTime(rec, models, 1, "Canada lynx"),
		phasePortrait(rec, models, network), progress(models),
	} {
		panel.Draw(tiles.At(draw.New(img), i%2, i/2))
	}
	var file bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(&file); err != nil {
		return err
	}
	return os.WriteFile(path, file.Bytes(), 0o644)
}

func newPanel(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = vg.Points(10)
	style := func(s *text.Style, size float64) { s.Font.Variant, s.Font.Size = "Sans", vg.Points(size) }
	style(&p.Title.TextStyle, 12)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		style(&a.Label.TextStyle, 10)
		style(&a.Tick.Label, 9)
		a.Label.Padding = vg.Points(4)
	}
	style(&p.Legend.TextStyle, 9)
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(3)
	p.Legend.ThumbnailWidth = vg.Points(26)
	return p
}

// every returns ticks with labels from lo to hi.
func every(step, lo, hi int) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for v := lo; v <= hi; v += step {
		ticks = append(ticks, plot.Tick{Value: float64(v), Label: strconv.Itoa(v)})
	}
	return ticks
}

// points is the record as dots.
func points(xys plotter.XYs) *plotter.Scatter {
	return &plotter.Scatter{XYs: xys, GlyphStyle: draw.GlyphStyle{Color: black, Radius: vg.Points(2.6), Shape: draw.CircleGlyph{}}}
}

// overTime plots one species against the years.
func overTime(rec record, models []look, species int, title string) *plot.Plot {
	p := newPanel(title, "year", "thousands of pelts")
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
	p.X.Tick.Marker = every(5, 1900, 1920)
	p.Y.Min, p.Y.Max = 0, 100
	p.Y.Tick.Marker = every(20, 0, 100)
	return p
}

// phasePortrait plots lynx against hare over the flow of the network.
func phasePortrait(rec record, models []look, network *mlp.Model[float64]) *plot.Plot {
	p := newPanel("Phase portrait and learned vector field", "hare, thousands of pelts", "lynx, thousands of pelts")
	p.Add(flow{network})
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
	p.X.Tick.Marker, p.Y.Tick.Marker = every(20, 0, 80), every(20, 0, 60)
	return p
}

// flow draws an arrow along du/dt at every point of a grid. Its length grows with
// the root of the speed, so that slow regions stay readable.
type flow struct{ *mlp.Model[float64] }

func (f flow) Plot(c draw.Canvas, p *plot.Plot) {
	const columns, rows, reach = 15, 13, 0.07
	x, y := p.Transforms(&c)
	c.SetLineStyle(draw.LineStyle{Color: grey, Width: vg.Points(0.8)})
	du := make([]float64, 2)
	for i := range columns {
		for j := range rows {
			u := []float64{
				(p.X.Min + (p.X.Max-p.X.Min)*(float64(i)+0.5)/columns) / unit,
				(p.Y.Min + (p.Y.Max-p.Y.Min)*(float64(j)+0.5)/rows) / unit,
			}
			f.Eval(0, u, du)
			dt := reach / math.Sqrt(math.Hypot(du[0], du[1])+1e-6)
			point := func(dt float64) vg.Point {
				return vg.Point{X: x(unit * (u[0] + dt*du[0])), Y: y(unit * (u[1] + dt*du[1]))}
			}
			arrow(c, point(-dt), point(dt))
		}
	}
}

// arrow strokes a line from a to b with a head at b.
func arrow(c draw.Canvas, a, b vg.Point) {
	along := b.Sub(a)
	length := math.Hypot(float64(along.X), float64(along.Y))
	along = along.Scale(vg.Length(min(float64(vg.Points(3)), length/2) / length))
	across := vg.Point{X: -along.Y, Y: along.X}.Scale(0.5)
	var path vg.Path
	path.Move(a)
	path.Line(b)
	path.Move(b.Sub(along).Add(across))
	path.Line(b)
	path.Line(b.Sub(along).Sub(across))
	c.Stroke(path)
}

// progress plots the error of the fits: epochs over the windows, then iterations over
// the record.
func progress(models []look) *plot.Plot {
	p := newPanel("Fit: Adam on windows, then L-BFGS on the record", "epochs, then iterations", "RMSE, thousands of pelts")
	// The axis is linear in log10: plot.LogScale misplaces the label.
	p.Y.Min, p.Y.Max = math.Log10(1.5), math.Log10(50)
	var ticks plot.ConstantTicks
	for _, e := range []float64{2, 5, 10, 20, 50} {
		ticks = append(ticks, plot.Tick{Value: math.Log10(e), Label: strconv.FormatFloat(e, 'g', -1, 64)})
	}
	p.Y.Tick.Marker, p.X.Tick.Marker = ticks, every(100, 0, 700)
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
	p.Add(&plotter.Line{XYs: plotter.XYs{{X: n, Y: p.Y.Min}, {X: n, Y: p.Y.Max}}, LineStyle: draw.LineStyle{Color: grey, Width: vg.Points(0.8)}})
	return p
}
