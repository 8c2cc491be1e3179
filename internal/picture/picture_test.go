package picture

import (
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot/plotter"
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
