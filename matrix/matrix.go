// Package matrix carries states and gradients to and from the matrices of
// gonum.org/v1/gonum/mat. A row is a sample or a time, a column a component of the state.
// Everything is copied; elements of float32 are rounded on the way in.
package matrix

import (
	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"

	"gonum.org/v1/gonum/mat"
)

// Slice is m row-major: a batch of initial states from [B, D], for [solver.Solver.Solve],
// or the values of a train.Series from [n, D].
func Slice[T backend.Float](m mat.Matrix) []T {
	rows, cols := m.Dims()
	x := make([]T, 0, rows*cols)
	for i := range rows {
		for j := range cols {
			x = append(x, T(m.At(i, j)))
		}
	}
	return x
}

// Targets puts N trajectories, each [n, D], together as the Targets of train.Data have
// them, row-major [n, N, D]. It panics if their dimensions differ.
func Targets[T backend.Float](samples ...mat.Matrix) []T {
	if len(samples) == 0 {
		return nil
	}
	n, dim := samples[0].Dims()
	for _, m := range samples {
		if r, c := m.Dims(); r != n || c != dim {
			panic("matrix: Targets needs matrices of the same dimensions; series of unequal length are for train.NewRagged")
		}
	}
	x := make([]T, 0, n*len(samples)*dim)
	for i := range n {
		for _, m := range samples {
			for j := range dim {
				x = append(x, T(m.At(i, j)))
			}
		}
	}
	return x
}

// Dense is the matrix of x, row-major [rows, cols], such as a gradient's Z0. It panics if
// the length does not fit.
func Dense[T backend.Float](rows, cols int, x []T) *mat.Dense {
	if len(x) != rows*cols {
		panic("matrix: Dense needs rows times cols elements")
	}
	m := zeros(rows, cols)
	for i, v := range x {
		m.Set(i/cols, i%cols, float64(v))
	}
	return m
}

// Trajectory is sample b of a solution at all of its times, [n, D].
func Trajectory[T backend.Float](sol *solver.Solution[T], b int) *mat.Dense {
	n := len(sol.SampleTimes(b))
	m := zeros(n, sol.Dim)
	for i := range n {
		setRow(m, i, sol.Sample(i, b))
	}
	return m
}

// State is the batch of a solution at the i-th of its times, [B, D]; where samples have
// times of their own, at the i-th of each sample's.
func State[T backend.Float](sol *solver.Solution[T], i int) *mat.Dense {
	m := zeros(sol.Batch, sol.Dim)
	for b := range sol.Batch {
		setRow(m, b, sol.Sample(i, b))
	}
	return m
}

// Jacobian is the derivative of sample b at the i-th of its times, [D, M], one column for
// each of the M directions: ∂z/∂z0 for [adjoint.StateTangents], ∂z/∂θ for
// [adjoint.ParamTangents].
func Jacobian[T backend.Float](sol *adjoint.TangentSolution[T], i, b int) *mat.Dense {
	m := zeros(sol.Dim, len(sol.S))
	at := sol.Row(i, b) * sol.Dim
	for k, s := range sol.S {
		for j := range sol.Dim {
			m.Set(j, k, float64(s[at+j]))
		}
	}
	return m
}

// zeros is a matrix of zeros; gonum's NewDense refuses those without elements.
func zeros(rows, cols int) *mat.Dense {
	if rows == 0 || cols == 0 {
		return &mat.Dense{}
	}
	return mat.NewDense(rows, cols, nil)
}

func setRow[T backend.Float](m *mat.Dense, i int, x []T) {
	for j, v := range x {
		m.Set(i, j, float64(v))
	}
}
