package main

import (
	"image"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/seed-5f5774c8/neuralode/internal/picture"
)

func panel(title string) *plot.Plot {
	p := picture.Panel(title, "", "")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -half, half, -half, half
	p.HideAxes()
	return p
}

// dots shows the points that the picture holds.
func dots(title string, points []float32) *plot.Plot {
	xys := picture.Orbit(points, 2, 0, 1)
	xys = slices.DeleteFunc(xys, func(p plotter.XY) bool { return max(math.Abs(p.X), math.Abs(p.Y)) > half })
	p := panel(title)
	p.Add(picture.Dots(picture.Blue, 0.5, xys))
	return p
}

// shade shows a density from white at 0 to dark blue at its largest, by its root.
func shade(title string, density []float64, pixels int) *plot.Plot {
	img := image.NewPaletted(image.Rect(0, 0, pixels, pixels), nil)
	for i := range shades {
		x := float64(i) / (shades - 1)
		img.Palette = append(img.Palette, color.RGBA{R: uint8(255 - 245*x), G: uint8(255 - 210*x), B: uint8(255 - 130*x), A: 255})
	}
	top := slices.Max(density)
	for i, v := range density {
		img.Pix[i] = uint8((shades - 1) * math.Sqrt(v/top))
	}
	p := panel(title)
	p.Add(plotter.NewImage(img, -half, -half, half, half))
	return p
}
