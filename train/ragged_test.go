package train

import (
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

var tightAlone = solver.Settings{RTol: 1e-11, ATol: 1e-11, Stepping: solver.PerSample}

// unequal are the spirals, sample b without its last b times.
func unequal() []Series[float64] {
	d := spirals[float64]()
	var list []Series[float64]
	for b := range 4 {
		s := Series[float64]{Times: d.Times[:5-b], Z0: d.Z0[2*b : 2*b+2]}
		for i := range s.Times {
			s.Values = append(s.Values, d.Targets[(i*4+b)*2:][:2]...)
		}
		list = append(list, s)
	}
	return list
}

func newRagged(t *testing.T, s *solver.Solver[float64], data []Series[float64], set TrajectorySettings) *Ragged[float64] {
	t.Helper()
	r, err := NewRagged(s, data, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Series without their last times are trajectories whose last targets weigh nothing.
func TestRagged_MatchesTrajectories(t *testing.T) {
	s := newSolver(t, network[float64](t, mlp.Tanh), tightAlone)
	d := spirals[float64]()
	for b := range 4 {
		for i := 5 - b; i < 5; i++ {
			clear(d.Weights[(i*4+b)*2:][:2])
		}
	}
	for _, set := range []TrajectorySettings{
		{}, {LearnZ0: true}, {Loss: Loss{Kind: MAE, Reduction: Sum}, LearnZ0: true}, {Loss: Loss{Kind: Huber, Delta: 0.1}},
	} {
		rag, ref := newRagged(t, s, unequal(), set), newTrajectories(t, s, d, set)
		theta, err := rag.Params()
		if err != nil {
			t.Fatal(err)
		}
		for _, batch := range [][]int{{0, 1, 2, 3}, {3, 1}} {
			got, want := make([]float64, rag.NumParams()), make([]float64, ref.NumParams())
			loss, err := rag.Gradient(t.Context(), theta, batch, got)
			if err != nil {
				t.Fatal(err)
			}
			wantLoss, err := ref.Gradient(t.Context(), theta, batch, want)
			if err != nil {
				t.Fatal(err)
			}
			alone, err := rag.Loss(t.Context(), theta, batch)
			if err != nil || alone != loss {
				t.Errorf("Loss is %v (%v), Gradient's %v", alone, err, loss)
			}
			// The tolerances are 1e-11, and longer spans take other steps.
			if !near(loss, wantLoss, 1e-9, 0) {
				t.Errorf("%+v %v: loss %v, want %v", set, batch, loss, wantLoss)
			}
			for i := range want {
				if !near(got[i], want[i], 1e-7, 1e-9) {
					t.Errorf("%+v %v: gradient %d is %v, want %v", set, batch, i, got[i], want[i])
				}
			}
		}
		if rag.Evaluations() == 0 || ref.Evaluations() < rag.Evaluations() {
			t.Errorf("%d evaluations were counted, and %d where the spans are longer", rag.Evaluations(), ref.Evaluations())
		}
	}
}

func TestRagged_GradientMatchesFiniteDifference(t *testing.T) {
	s := newSolver(t, network[float64](t, mlp.Tanh), tightAlone)
	r := newRagged(t, s, unequal(), TrajectorySettings{LearnZ0: true})
	theta, err := r.Params()
	if err != nil {
		t.Fatal(err)
	}
	grad, batch := make([]float64, r.NumParams()), []int{2, 0}
	if _, err := r.Gradient(t.Context(), theta, batch, grad); err != nil {
		t.Fatal(err)
	}
	const h = 1e-4
	for i := range theta {
		var at [2]float64
		for k, sign := range []float64{-1, 1} {
			x := slices.Clone(theta)
			x[i] += sign * h
			if at[k], err = r.Loss(t.Context(), x, batch); err != nil {
				t.Fatal(err)
			}
		}
		// Central differences err by h² and by the tolerance over h.
		if want := (at[1] - at[0]) / (2 * h); !near(grad[i], want, 1e-6, 1e-6) {
			t.Errorf("gradient %d is %v, differences give %v", i, grad[i], want)
		}
	}
}

func TestNewRagged_Refuses(t *testing.T) {
	m := network[float64](t, mlp.Tanh)
	joint, alone := newSolver(t, m, solver.Settings{}), newSolver(t, m, tightAlone)
	nan := math.NaN()
	one := func(s Series[float64]) []Series[float64] { return append(unequal(), s) }
	for _, c := range []struct {
		s    *solver.Solver[float64]
		data []Series[float64]
		set  TrajectorySettings
		want string
	}{
		{nil, unequal(), TrajectorySettings{}, "needs a solver"},
		{joint, unequal(), TrajectorySettings{}, "solver.PerSample"},
		{alone, nil, TrajectorySettings{}, "no series"},
		{alone, unequal(), TrajectorySettings{Loss: Loss{Kind: CrossEntropy}}, "use MSE"},
		{alone, unequal(), TrajectorySettings{Loss: Loss{Delta: -1, Kind: Huber}}, "Delta"},
		{alone, one(Series[float64]{}), TrajectorySettings{}, "series 4: its Times are empty"},
		{alone, one(Series[float64]{Times: []float64{0}, Z0: []float64{1}}), TrajectorySettings{}, "Z0 has 1"},
		{alone, one(Series[float64]{Times: []float64{0}, Z0: []float64{1, nan}}), TrajectorySettings{}, "Z0[1] is NaN"},
		{alone, one(Series[float64]{Times: []float64{0}, Z0: []float64{1, 1}}), TrajectorySettings{}, "[1, 2]"},
		{alone, one(Series[float64]{Times: []float64{0}, Z0: []float64{1, 1}, Values: []float64{nan, nan}}), TrajectorySettings{}, "missing"},
		{alone, one(Series[float64]{Times: []float64{0}, Z0: []float64{1, 1}, Values: []float64{1, math.Inf(1)}}), TrajectorySettings{}, "Values[0, 1] is +Inf"},
	} {
		_, err := NewRagged(c.s, c.data, c.set)
		wantError(t, err, c.want)
	}
}
