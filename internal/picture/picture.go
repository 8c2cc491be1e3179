// Package picture draws the figures of the demo, of the examples and of the command line:
// panels of gonum.org/v1/plot in one look, side by side in a PNG, SVG or PDF file.
package picture

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	_ "gonum.org/v1/plot/vg/vgpdf" // a format of draw.NewFormattedCanvas
	_ "gonum.org/v1/plot/vg/vgsvg" // the same
)

// Ink is a colour of the figures.
type Ink uint8

// The inks: data are black, what is in the background is grey.
const (
	Black Ink = iota
	Grey
	Blue
	Red
	Green
	Orange
)

// RGBA makes an Ink a color.Color.
func (i Ink) RGBA() (r, g, b, a uint32) {
	return [...]color.RGBA{
		Black: {R: 40, G: 40, B: 40, A: 255}, Grey: {R: 170, G: 170, B: 170, A: 255},
		Blue: {R: 31, G: 119, B: 180, A: 255}, Red: {R: 214, G: 69, B: 50, A: 255},
		Green: {R: 44, G: 140, B: 60, A: 255}, Orange: {R: 235, G: 140, B: 20, A: 255},
	}[i].RGBA()
}

// Panel is an empty plot with the house's fonts and paddings.
func Panel(title, x, y string) *plot.Plot {
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

// Every returns ticks with labels from lo to hi.
func Every(step, lo, hi int) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for v := lo; v <= hi; v += step {
		ticks = append(ticks, plot.Tick{Value: float64(v), Label: strconv.Itoa(v)})
	}
	return ticks
}

// Log10 returns ticks of an axis on which log10 of the values is drawn, with the values
// as labels. An axis that is linear in log10 stands in for plot.LogScale, which misplaces
// the label.
func Log10(values ...float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, v := range values {
		ticks = append(ticks, plot.Tick{Value: math.Log10(v), Label: strconv.FormatFloat(v, 'g', -1, 64)})
	}
	return ticks
}

// Decades are ticks of an axis on which log10 of the values is drawn: the powers of ten, and
// twice and five times these where there are few.
type Decades struct{}

// Ticks implements plot.Ticker.
func (Decades) Ticks(lo, hi float64) []plot.Tick {
	factors := []float64{1}
	if hi-lo < 2 {
		factors = []float64{1, 2, 5}
	}
	step := max(1, math.Ceil((hi-lo)/8))
	var ticks []plot.Tick
	for k := math.Floor(lo/step) * step; k <= hi; k += step {
		for _, f := range factors {
			if v := k + math.Log10(f); lo <= v && v <= hi {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(f*math.Pow(10, k), 'g', 3, 64)})
			}
		}
	}
	if len(ticks) < 2 {
		for _, v := range []float64{lo, hi} {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(math.Pow(10, v), 'g', 3, 64)})
		}
	}
	return ticks
}

// Dots draws points, such as data.
func Dots(ink Ink, radius float64, xys plotter.XYs) *plotter.Scatter {
	return &plotter.Scatter{XYs: xys, GlyphStyle: draw.GlyphStyle{Color: ink, Radius: vg.Points(radius), Shape: draw.CircleGlyph{}}}
}

// Stroke is a line of that width, in points, dashed if dashed.
func Stroke(ink Ink, width float64, dashed bool) draw.LineStyle {
	s := draw.LineStyle{Color: ink, Width: vg.Points(width)}
	if dashed {
		s.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	return s
}

// Line draws a line through points.
func Line(style draw.LineStyle, xys plotter.XYs) *plotter.Line {
	return &plotter.Line{XYs: xys, LineStyle: style}
}

// Course pairs the numbers of x and y. y has stride entries for each of x, of which the
// one at offset is taken: Course(times, states, dim, i) is component i over time.
func Course[T float32 | float64](x []float64, y []T, stride, offset int) plotter.XYs {
	xys := make(plotter.XYs, len(x))
	for i := range xys {
		xys[i] = plotter.XY{X: x[i], Y: float64(y[i*stride+offset])}
	}
	return xys
}

// Orbit pairs two components of states, row-major [n, stride].
func Orbit[T float32 | float64](y []T, stride, i, j int) plotter.XYs {
	xys := make(plotter.XYs, len(y)/stride)
	for k := range xys {
		xys[k] = plotter.XY{X: float64(y[k*stride+i]), Y: float64(y[k*stride+j])}
	}
	return xys
}

// Flow is a plot.Plotter that draws an arrow along dz/dt = F(z) at every point of a grid
// over the axes. Its length grows with the root of the speed, so that slow regions stay
// readable.
type Flow struct {
	F             func(z, dz []float64) // in the axes' units
	Columns, Rows int
	// Reach scales the arrows; 0: the longest is as long as a cell of the grid, and
	// speeds are those on paper, whatever the units of the axes.
	Reach float64
}

// Plot draws the arrows.
func (f Flow) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	c.SetLineStyle(Stroke(Grey, 0.8, false))
	dz := make([]float64, 2)
	each := func(visit func(z []float64)) {
		for i := range f.Columns {
			for j := range f.Rows {
				z := []float64{
					p.X.Min + (p.X.Max-p.X.Min)*(float64(i)+0.5)/float64(f.Columns),
					p.Y.Min + (p.Y.Max-p.Y.Min)*(float64(j)+0.5)/float64(f.Rows),
				}
				f.F(z, dz)
				visit(z)
			}
		}
	}
	paper := vg.Point{X: (x(p.X.Max) - x(p.X.Min)) / vg.Length(p.X.Max-p.X.Min), Y: (y(p.Y.Max) - y(p.Y.Min)) / vg.Length(p.Y.Max-p.Y.Min)}
	speed := func() float64 { // 0 where f has no finite value
		v := math.Hypot(dz[0]*float64(paper.X), dz[1]*float64(paper.Y))
		if !(v <= math.MaxFloat64) {
			return 0
		}
		return v
	}
	cell, fastest := 0.0, 0.0
	if f.Reach == 0 {
		cell = math.Min(float64(c.Size().X)/float64(f.Columns), float64(c.Size().Y)/float64(f.Rows))
		each(func([]float64) { fastest = max(fastest, speed()) })
	}
	each(func(z []float64) {
		dt := f.Reach / math.Sqrt(math.Hypot(dz[0], dz[1])+1e-6)
		if f.Reach == 0 {
			if speed() == 0 {
				return
			}
			dt = cell / 2 / math.Sqrt(speed()*fastest)
		}
		point := func(dt float64) vg.Point {
			return vg.Point{X: x(z[0] + dt*dz[0]), Y: y(z[1] + dt*dz[1])}
		}
		arrow(c, point(-dt), point(dt))
	})
}

// arrow strokes a line from a to b with a head at b.
func arrow(c draw.Canvas, a, b vg.Point) {
	along := b.Sub(a)
	length := math.Hypot(float64(along.X), float64(along.Y))
	if length == 0 {
		return
	}
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

// Layout says how panels become a picture.
type Layout struct {
	Columns       int     // of panels, row after row; 0 means one row
	Width, Height float64 // of one panel, in centimetres; 0 means 11 and 8.5
	DPI           int     // 0 means 80
}

// Save writes the panels to a file, in the format that its name ends in: .png, .svg or .pdf.
func Save(path string, l Layout, panels ...*plot.Plot) error {
	var file bytes.Buffer
	if err := Write(&file, strings.TrimPrefix(filepath.Ext(path), "."), l, panels...); err != nil {
		return err
	}
	return os.WriteFile(path, file.Bytes(), 0o644)
}

// Write writes the panels in the format png, svg or pdf.
func Write(w io.Writer, format string, l Layout, panels ...*plot.Plot) error {
	if l.Columns == 0 {
		l.Columns = len(panels)
	}
	if l.Width == 0 {
		l.Width, l.Height = 11, 8.5
	}
	if l.DPI == 0 {
		l.DPI = 80
	}
	rows := (len(panels) + l.Columns - 1) / l.Columns
	width, height := vg.Length(l.Width)*vg.Centimeter*vg.Length(l.Columns), vg.Length(l.Height)*vg.Centimeter*vg.Length(rows)
	var img *vgimg.Canvas
	var canvas vg.CanvasWriterTo
	if format == "png" {
		img = vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(l.DPI))
		canvas = vgimg.PngCanvas{Canvas: img}
	} else {
		var err error
		if canvas, err = draw.NewFormattedCanvas(width, height, format); err != nil {
			return err
		}
	}
	const gap = 9 * vg.Millimeter
	page := draw.NewCanvas(canvas, width, height)
	tiles := draw.Tiles{Rows: rows, Cols: l.Columns, PadX: gap, PadY: gap, PadTop: gap / 2, PadBottom: gap / 2, PadLeft: gap / 2, PadRight: gap / 2}
	for i, p := range panels {
		p.Draw(tiles.At(page, i%l.Columns, i/l.Columns))
	}
	if img != nil {
		return (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(w, compact(img.Image()))
	}
	_, err := canvas.WriteTo(w)
	return err
}

// compact returns img with a palette, for a file of a third of the size, if its colours
// are few once they are rounded to 16 levels of each component: lines and letters on
// white are. Else it returns img itself.
func compact(img image.Image) image.Image {
	b := img.Bounds()
	out := image.NewPaletted(b, nil)
	index := map[color.RGBA]uint8{}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			round := func(v uint32) uint8 { return uint8((v+0x888)/0x1111) * 17 }
			red, green, blue, _ := img.At(x, y).RGBA()
			c := color.RGBA{round(red), round(green), round(blue), 255}
			i, ok := index[c]
			if !ok {
				if len(index) == 256 {
					return img
				}
				i = uint8(len(index))
				index[c], out.Palette = i, append(out.Palette, c)
			}
			out.SetColorIndex(x, y, i)
		}
	}
	return out
}
