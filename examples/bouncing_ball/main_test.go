package main

import (
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestBouncingBall_FindsTheTruth(t *testing.T) {
	found := exampletest.Short(t, run)
	// 91 heights with a noise of 2 cm.
	for name, want := range map[string][2]float64{"gravity": {9.81, 0.1}, "restitution": {0.8, 0.01}, "drag": {0.02, 0.02}} {
		if math.Abs(found[name]-want[0]) > want[1] {
			t.Errorf("%s is %g, want %g", name, found[name], want[0])
		}
	}
}

func TestBall_GradientIsThatOfDifferences(t *testing.T) {
	dev := cpu.New[float64]()
	defer dev.Close()
	p := [3]float64{9, 0.05, 0.7}
	b, err := newBall(dev, []float64{2, 0}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	b.times, b.heights = []float64{0, 0.5, 1, 1.4, 2}, []float64{2, 1, 0.4, 0.9, 0.3}
	grad := make([]float64, 3)
	if _, err := b.Gradient(t.Context(), p[:], nil, grad); err != nil {
		t.Fatal(err)
	}
	const h = 1e-5 // the tolerance of 1e-9 over it is 1e-4
	for i := range p {
		q := p
		q[i] += h
		up, err := b.Loss(t.Context(), q[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		q[i] -= 2 * h
		down, err := b.Loss(t.Context(), q[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := (up - down) / (2 * h); math.Abs(grad[i]-d) > 1e-3*math.Abs(d)+1e-4 {
			t.Errorf("derivative %d is %g, by differences %g", i, grad[i], d)
		}
	}
}
