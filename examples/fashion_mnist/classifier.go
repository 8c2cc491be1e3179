package main

import (
	"context"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// classifier is a train.Objective: the cross entropy of
//
//	logits = V z(1) + c,   dz/dt = f(z, t; θ),   z(0) = W x + b
//
// for images x. Its parameters are W, b, V, c and θ, one after another.
type classifier struct {
	s    *solver.Solver[float32]
	a    *adjoint.Adjoint[float32]
	data set
}

// weights are views of the parameters, or of a gradient.
type weights struct {
	W, V  blas32.General // [D, pixels], [classes, D]
	b, c  []float32
	theta []float32
}

func (m *classifier) views(p []float32) weights {
	d := m.s.Dim()
	cut := func(n int) (part []float32) { part, p = p[:n], p[n:]; return part }
	return weights{
		W: matrix(d, pixels, cut(d*pixels)), b: cut(d),
		V: matrix(classes, d, cut(classes*d)), c: cut(classes),
		theta: p,
	}
}

func matrix(rows, cols int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

func (m *classifier) NumParams() int {
	return m.s.Dim()*(pixels+1) + classes*(m.s.Dim()+1) + m.s.NumParams()
}

func (m *classifier) NumSamples() int { return m.data.len() }

// batch gathers images and labels.
func (m *classifier) batch(samples []int) (blas32.General, []int32) {
	x, y := matrix(len(samples), pixels, make([]float32, len(samples)*pixels)), make([]int32, len(samples))
	for r, i := range samples {
		copy(x.Data[r*pixels:], m.data.images[i*pixels:(i+1)*pixels])
		y[r] = m.data.labels[i]
	}
	return x, y
}

// affine is x Aᵀ + b, row by row.
func affine(x, a blas32.General, b []float32) blas32.General {
	out := matrix(x.Rows, a.Rows, make([]float32, x.Rows*a.Rows))
	for r := range x.Rows {
		copy(out.Data[r*a.Rows:], b)
	}
	blas32.Gemm(blas.NoTrans, blas.Trans, 1, x, a, 1, out)
	return out
}

// affineBack sets the gradients of a and b for the cotangents dy of affine's result.
func affineBack(x, dy, da blas32.General, db []float32) {
	blas32.Gemm(blas.Trans, blas.NoTrans, 1, dy, x, 0, da)
	clear(db)
	for r := range dy.Rows {
		for j := range db {
			db[j] += dy.Data[r*dy.Stride+j]
		}
	}
}

// solve returns the solution from the images' z(0), and z(1), with what a gradient of it
// needs if back.
func (m *classifier) solve(ctx context.Context, w weights, x blas32.General, back bool) (*solver.Solution[float32], blas32.General, error) {
	if err := m.s.SetParams(w.theta); err != nil {
		return nil, blas32.General{}, err
	}
	solve := m.s.Solve
	if back {
		solve = m.a.Solve
	}
	sol, err := solve(ctx, affine(x, w.W, w.b).Data, []float64{0, 1})
	if err != nil {
		return nil, blas32.General{}, err
	}
	return sol, matrix(x.Rows, sol.Dim, sol.Final()), nil
}

// logits computes those of samples, row-major [len(samples), classes].
func (m *classifier) logits(ctx context.Context, p []float32, samples []int) ([]float32, error) {
	w := m.views(p)
	x, _ := m.batch(samples)
	_, z, err := m.solve(ctx, w, x, false)
	if err != nil {
		return nil, err
	}
	return affine(z, w.V, w.c).Data, nil
}

func (m *classifier) Loss(ctx context.Context, p []float32, samples []int) (float64, error) {
	logits, err := m.logits(ctx, p, samples)
	if err != nil {
		return 0, err
	}
	_, y := m.batch(samples)
	return train.EvalLoss(train.Loss{Kind: train.CrossEntropy}, logits, train.Target[float32]{Labels: y}, nil)
}

func (m *classifier) Gradient(ctx context.Context, p []float32, samples []int, grad []float32) (float64, error) {
	w, g := m.views(p), m.views(grad)
	x, y := m.batch(samples)
	sol, z, err := m.solve(ctx, w, x, true)
	if err != nil {
		return 0, err
	}
	dlogits := matrix(x.Rows, classes, make([]float32, x.Rows*classes))
	loss, err := train.EvalLoss(train.Loss{Kind: train.CrossEntropy}, affine(z, w.V, w.c).Data, train.Target[float32]{Labels: y}, dlogits.Data)
	if err != nil {
		return 0, err
	}
	affineBack(z, dlogits, g.V, g.c)
	dLdz := make([]float32, len(sol.Y)) // at t = 0 and t = 1
	blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, dlogits, w.V, 0, matrix(x.Rows, sol.Dim, dLdz[len(dLdz)/2:]))
	back, err := m.a.Gradients(ctx, sol, dLdz)
	if err != nil {
		return 0, err
	}
	copy(g.theta, back.Theta)
	affineBack(x, matrix(x.Rows, sol.Dim, back.Z0), g.W, g.b)
	return loss, nil
}
