package picture

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// A picture has the size asked for, the same bytes again, and what was drawn in it.
func TestSave(t *testing.T) {
	var files [2][]byte
	for i := range files {
		p := Panel("title", "x", "y")
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 1, 0, 1
		p.X.Tick.Marker = Every(1, 0, 1)
		p.Add(Dots(Red, 20, plotter.XYs{{X: 0.5, Y: 0.5}}),
			Flow{Columns: 3, Rows: 3, Reach: 0.1, F: func(z, dz []float64) { dz[0], dz[1] = 0, 0 }}) // arrows of length 0
		path := filepath.Join(t.TempDir(), "a.png")
		if err := Save(path, Layout{Width: 5.08, Height: 5.08, DPI: 100}, p, p); err != nil {
			t.Fatal(err)
		}
		var err error
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		if b := img.Bounds(); b.Dx() != 400 || b.Dy() != 200 {
			t.Errorf("size %v, want 400 by 200", b)
		}
		red := 0
		for x := range 400 {
			for y := range 200 {
				if r, g, b, _ := img.At(x, y).RGBA(); r > 0xc000 && g < 0x6000 && b < 0x6000 {
					red++
				}
			}
		}
		if red < 1000 {
			t.Errorf("%d pixels of the red dots, want over a thousand", red)
		}
	}
	if string(files[0]) != string(files[1]) {
		t.Error("the files of two runs differ")
	}
}

// Write knows three formats.
func TestWrite(t *testing.T) {
	p := Panel("title", "x", "y")
	for format, want := range map[string]string{"png": "\x89PNG", "svg": "<?xml", "pdf": "%PDF"} {
		var b bytes.Buffer
		if err := Write(&b, format, Layout{}, p); err != nil || !strings.HasPrefix(b.String(), want) {
			t.Errorf("%s begins with %.8q, error %v", format, b.String(), err)
		}
	}
	if err := Write(&bytes.Buffer{}, "gif", Layout{}, p); err == nil {
		t.Error("there is no GIF")
	}
}

// Without a Reach the longest arrow is as long as a cell, whatever the units; half of it
// where the speed is a quarter; and nothing where there is no finite value.
func TestFlow_Reach(t *testing.T) {
	arrows := func(unit float64) []vg.Length {
		var rec recorder.Canvas
		p := plot.New()
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 3*unit, 0, 1
		Flow{Columns: 3, Rows: 1, F: func(z, dz []float64) {
			dz[0], dz[1] = unit*[]float64{4, -1, math.Inf(1)}[int(z[0]/unit)], 0
		}}.Plot(draw.NewCanvas(&rec, 300, 200), p)
		var lengths []vg.Length
		for _, a := range rec.Actions {
			if s, ok := a.(*recorder.Stroke); ok {
				lengths = append(lengths, s.Path[1].Pos.X-s.Path[0].Pos.X)
			}
		}
		return lengths
	}
	for _, unit := range []float64{1, 1e6} {
		got := arrows(unit)
		if len(got) != 2 || math.Abs(float64(got[0])-100) > 1e-9 || math.Abs(float64(got[1])+50) > 1e-9 {
			t.Errorf("unit %g: lengths %v, want 100 and -50", unit, got)
		}
	}
}

func TestDecades(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		want   string
	}{
		{-3.2, 1.1, "0.001 0.01 0.1 1 10"},
		{-0.4, 1, "0.5 1 2 5 10"},
		{0.1, 0.2, "1.26 1.58"},
		{-20, 4, "1e-18 1e-15 1e-12 1e-09 1e-06 0.001 1 1e+03"},
	} {
		var labels []string
		for _, k := range (Decades{}).Ticks(c.lo, c.hi) {
			labels = append(labels, k.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("from %g to %g: %s, want %s", c.lo, c.hi, got, c.want)
		}
	}
}
