package matrix_test

import (
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/matrix"
	"github.com/seed-5f5774c8/neuralode/solver"

	"gonum.org/v1/gonum/mat"
)

func TestSliceAndDense_AreInverse(t *testing.T) {
	x := []float32{1, 2, 3, 4, 5, 6}
	m := matrix.Dense(2, 3, x)
	if m.At(1, 0) != 4 {
		t.Errorf("row 1, column 0 is %v", m.At(1, 0))
	}
	if got := matrix.Slice[float32](m); !slices.Equal(got, x) {
		t.Errorf("%v", got)
	}
	if got := matrix.Slice[float64](m.T()); !slices.Equal(got, []float64{1, 4, 2, 5, 3, 6}) {
		t.Errorf("transposed: %v", got)
	}
}

// The targets made of the trajectories of a solution are the solution's own layout.
func TestTargets_AreLaidOutAsASolution(t *testing.T) {
	for _, each := range []bool{false, true} {
		dev := cpu.New[float32]()
		f := field.New(2, []float32{1}, rotation[float32], rotation[field.Dual])
		s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample})
		check(err)
		z0, ts := []float32{1, 0, 0, 2, 3, 3}, []float64{0, 0.5, 2, 3}
		sol, err := s.Solve(t.Context(), z0, ts)
		check(err)
		whole := sol.Y
		if each { // sample after sample
			sol, err = s.SolveEach(t.Context(), z0, []solver.Sample{{Times: ts}, {Times: ts}, {Times: ts}})
			check(err)
		}
		var samples []mat.Matrix
		for b := range sol.Batch {
			samples = append(samples, matrix.Trajectory(sol, b))
		}
		if got := matrix.Targets[float32](samples...); !slices.Equal(got, whole) {
			t.Errorf("each %v: %v, want %v", each, got, whole)
		}
		if got := matrix.Slice[float32](matrix.State(sol, 2)); !slices.Equal(got, whole[12:18]) {
			t.Errorf("each %v: state %v, want %v", each, got, whole[12:18])
		}
	}
}

func TestDense_WithoutElements(t *testing.T) {
	if m := matrix.Dense(0, 2, []float64{}); !m.IsEmpty() || len(matrix.Slice[float64](m)) != 0 {
		t.Errorf("%v", m)
	}
}

func TestPanics(t *testing.T) {
	for name, do := range map[string]func(){
		"Dense":   func() { matrix.Dense(2, 2, []float64{1, 2, 3}) },
		"Targets": func() { matrix.Targets[float64](mat.NewDense(2, 2, nil), mat.NewDense(3, 2, nil)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s took what does not fit", name)
				}
			}()
			do()
		}()
	}
}
