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
}

func newBLAS[T backend.Float]() (b blas[T]) {
	var impl gonum.Implementation
	switch p := any(&b).(type) {
	case *blas[float32]:
		p.rawGemm, p.axpy = impl.Sgemm, impl.Saxpy
	case *blas[float64]:
		p.rawGemm, p.axpy = impl.Dgemm, impl.Daxpy
	}
	return b
}

// Panels no larger than these stay below the size at which gonum starts
// goroutines, each of which allocates and none of which pays at these sizes.
const (
	panelM = 64
	panelN = 192
)

// mul computes c += a·b for row-major a [m, k], b [k, n], c [m, n]. Each row of c
// depends on its own row of a alone, in one order of accumulation.
func (bl *blas[T]) mul(m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int) {
	if k == 0 {
		return
	}
	for i := 0; i < m; i += panelM {
		mi := min(panelM, m-i)
		for j := 0; j < n; j += panelN {
			nj := min(panelN, n-j)
			bl.rawGemm(blasapi.NoTrans, blasapi.NoTrans, mi, nj, k, 1, a[i*lda:], lda, b[j:], ldb, 1, c[i*ldc+j:], ldc)
		}
	}
}

// mulT computes c += aᵀ·b for row-major a [k, m], b [k, n], c [m, n], adding the
// rows of a and b in ascending order.
func (bl *blas[T]) mulT(m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int) {
	if k == 0 {
		return
	}
	for i := 0; i < m; i += panelM {
		mi := min(panelM, m-i)
		for j := 0; j < n; j += panelN {
			nj := min(panelN, n-j)
			bl.rawGemm(blasapi.Trans, blasapi.NoTrans, mi, nj, k, 1, a[i:], lda, b[j:], ldb, 1, c[i*ldc+j:], ldc)
		}
	}
}

// addScaled computes y += alpha·x.
func (bl *blas[T]) addScaled(alpha T, x, y []T) {
	const short = 16 // below it the call costs more than it saves
	if len(x) < short {
		for i, v := range x {
			y[i] += alpha * v
		}
		return
	}
	bl.axpy(len(x), alpha, x, 1, y, 1)
}
