package train

import (
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func forced[T field.Number](_ T, z, u, th, dz []T) { dz[0] = th[0]*z[0] + u[0] }

// Where every sample has a signal of its own, a mini-batch reads those of its samples,
// in any order, and so does a subset.
func TestTrajectories_SignalsOfMiniBatches(t *testing.T) {
	const n = 4
	var series []control.Series[float64]
	d := Data[float64]{Times: []float64{1, 2}}
	for b := range n {
		series = append(series, control.Series[float64]{Times: []float64{1, 2}, Values: []float64{float64(b), float64(2 * b)}})
		d.Z0 = append(d.Z0, 1)
	}
	d.Targets = make([]float64, 2*n)
	d.Weights = []float64{0, 0, 0, 0, 1, 1, 1, 1}
	signal, err := control.NewSignal(control.Linear, 1, series...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := control.New[float64](control.NewFunc(1, 1, []float64{-0.5}, forced[float64], forced[field.Dual]), signal, control.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSolver(t, f, solver.Settings{})
	obj := newTrajectories(t, s, d, TrajectorySettings{})
	theta, _ := obj.Params()
	one := make([]float64, n)
	for b := range n {
		// z' = -z/2 + b·t from 1 at t = 1: z(2) by the solution.
		p := func(t float64) float64 { return 2*float64(b)*t - 4*float64(b) }
		z := (1-p(1))*math.Exp(-0.5) + p(2)
		if one[b], err = obj.Loss(t.Context(), theta, []int{b}); err != nil {
			t.Fatal(err)
		}
		if math.Abs(one[b]-z*z) > 1e-5*(1+z*z) {
			t.Errorf("sample %d: loss %g, want %g", b, one[b], z*z)
		}
	}
	sub, err := obj.Subset([]int{3, 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	grad := make([]float64, 1)
	for _, c := range []struct {
		obj   *Trajectories[float64]
		batch []int
		want  float64
	}{{obj, []int{3, 1}, (one[3] + one[1]) / 2}, {sub, []int{1, 0}, (one[3] + one[1]) / 2}, {sub, []int{0}, one[3]}} {
		loss, err := c.obj.Gradient(t.Context(), theta, c.batch, grad)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-c.want) > 1e-5*(1+c.want) {
			t.Errorf("batch %v: loss %g, want %g", c.batch, loss, c.want)
		}
	}
	if _, err := obj.Identity(); err != nil {
		t.Error(err)
	}
}
