package latent

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// The arithmetic of layers y = W·x + b on tiles of n samples, which are feature-major:
// [feature][ld], a sample a lane. theta and grad are those that the layer's offsets
// count in.

// apply sets y.
func apply[T backend.Float](ly mlp.Layer, theta, y, x []T, ld, n int) {
	simd.Gemm(simd.Set, y, ld, theta[ly.W:], ly.In, 1, x, ld, ly.Out, n, ly.In, theta[ly.B:ly.B+ly.Out])
}

// back sets dx = Wᵀ·dy, or adds it.
func back[T backend.Float](mode simd.Mode, ly mlp.Layer, theta, dx, dy []T, ld, n int) {
	simd.Gemm(mode, dx, ld, theta[ly.W:], 1, ly.In, dy, ld, ly.In, n, ly.Out, nil)
}

// addGradient adds that of the layer's parameters to grad; work is for n·In numbers.
func addGradient[T backend.Float](ly mlp.Layer, grad, dy, x, work []T, ld, n int) {
	simd.Transpose(work, ly.In, x, ld, ly.In, n)
	simd.Gemm(simd.Add, grad[ly.W:], ly.In, dy, ld, 1, work, ly.In, ly.Out, ly.In, n, nil)
	simd.AddRowSums(grad[ly.B:ly.B+ly.Out], dy, ld, n)
}

// grown is v with n elements, whose contents are not kept.
func grown[T backend.Float](v []T, n int) []T {
	if cap(v) < n {
		return make([]T, n)
	}
	return v[:n]
}
