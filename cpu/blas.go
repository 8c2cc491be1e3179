package cpu

import (
	blasapi "gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// blas is gonum's BLAS for one precision.
type blas[T backend.Float] struct {
	rawGemm func(tA, tB blasapi.Transpose, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)
	axpy    func(n int, alpha T, x []T, incX int, y []T, incY int)
	dot     func(n int, x []T, incX int, y []T, incY int) T
}

func newBLAS[T backend.Float]() (b blas[T]) {
	var impl gonum.Implementation
	switch p := any(&b).(type) {
	case *blas[float32]:
		p.rawGemm, p.axpy, p.dot = impl.Sgemm, impl.Saxpy, impl.Sdot
	case *blas[float64]:
		p.rawGemm, p.axpy, p.dot = impl.Dgemm, impl.Daxpy, impl.Ddot
	}
	return b
}

// Panels no larger than these stay below the size at which gonum starts
// goroutines, each of which allocates and none of which pays at these sizes.
const (
	panelM = 64
	panelN = 192
)

// matrix is a row-major matrix of which a product reads as many rows and columns as
// it needs; row i begins at d[i*ld].
type matrix[T backend.Float] struct {
	d  []T
	ld int
	// finite: all elements certainly are. It matters for a right factor.
	finite bool
}

// mul computes c += a·b, or c += aᵀ·b, for c [m, n] and b [k, n]. Each element
// of c sums over k in ascending order, so that row i depends on nothing but c's own
// and row i of a, or of aᵀ.
func (bl *blas[T]) mul(transA blasapi.Transpose, m, n, k int, a, b matrix[T], c []T, ldc int) {
	if k == 0 {
		return
	}
	for i := 0; i < m; i += panelM {
		mi, ai := min(panelM, m-i), i*a.ld
		if transA == blasapi.Trans {
			ai = i
		}
		for j := 0; j < n; j += panelN {
			nj := min(panelN, n-j)
			bl.rawGemm(transA, blasapi.NoTrans, mi, nj, k, 1, a.d[ai:], a.ld, b.d[j:], b.ld, 1, c[i*ldc+j:], ldc)
		}
	}
	if !b.finite {
		addZeroProducts(transA, m, n, k, a, b, c, ldc)
	}
}

// addZeroProducts adds the products with zeros of a, which gonum leaves out: they are
// NaN where b is not finite.
func addZeroProducts[T backend.Float](transA blasapi.Transpose, m, n, k int, a, b matrix[T], c []T, ldc int) {
	rowStep, colStep := a.ld, 1
	if transA == blasapi.Trans {
		rowStep, colStep = 1, a.ld
	}
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		for l := range k {
			if v := a.d[i*rowStep+l*colStep]; v == 0 {
				addTo(row, v, b.d[l*b.ld:l*b.ld+n])
			}
		}
	}
}

// finite reports whether all of x is certainly finite. It may say no where squares
// overflow.
func (bl *blas[T]) finite(x []T) bool {
	s := bl.dot(len(x), x, 1, x, 1)
	return s-s == 0
}

// addScaled computes y += alpha·x.
func (bl *blas[T]) addScaled(alpha T, x, y []T) {
	const short = 16                  // below it the call costs more than it saves
	if len(x) < short || alpha == 0 { // gonum skips a zero alpha, and would lose a NaN
		addTo(y, alpha, x)
		return
	}
	bl.axpy(len(x), alpha, x, 1, y, 1)
}

// addTo computes dst += alpha·src.
func addTo[T backend.Float](dst []T, alpha T, src []T) {
	for i, v := range src {
		dst[i] += alpha * v
	}
}
