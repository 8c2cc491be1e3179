package simd

import (
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// gemmGo is Gemm by gonum's BLAS.
func gemmGo[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) {
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		switch {
		case bias != nil:
			for j := range row {
				row[j] = bias[i]
			}
		case mode == Set:
			clear(row)
		}
	}
	if k == 0 {
		return
	}
	trans, lda := blas.NoTrans, rsa
	switch {
	case csa == 1 && (rsa >= k || m == 1):
		lda = max(rsa, k)
	case rsa == 1 && (csa >= m || k == 1):
		trans, lda = blas.Trans, max(csa, m)
	default:
		addProducts(c, ldc, a, rsa, csa, b, ldb, m, n, k, false)
		return
	}
	// Panels no larger than these stay below the size at which gonum starts goroutines,
	// each of which allocates and none of which pays at these sizes.
	const panelM, panelN = 64, 192
	for i := 0; i < m; i += panelM {
		mi := min(panelM, m-i)
		for j := 0; j < n; j += panelN {
			gonumGemm(trans, mi, min(panelN, n-j), k, a[i*rsa:], lda, b[j:], ldb, c[i*ldc+j:], ldc)
		}
	}
	if !allFinite(b, ldb, k, n) {
		addProducts(c, ldc, a, rsa, csa, b, ldb, m, n, k, true)
	}
}

// gonumGemm adds a·b, or aᵀ·b, to c.
func gonumGemm[T Float](trans blas.Transpose, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int) {
	var g gonum.Implementation
	if unsafe.Sizeof(c[0]) == 4 {
		g.Sgemm(trans, blas.NoTrans, m, n, k, 1, as[float32](a), lda, as[float32](b), ldb, 1, as[float32](c), ldc)
	} else {
		g.Dgemm(trans, blas.NoTrans, m, n, k, 1, as[float64](a), lda, as[float64](b), ldb, 1, as[float64](c), ldc)
	}
}

// as is x as a slice of the type that T is.
func as[E, T Float](x []T) []E {
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// addProducts adds A·B to C, or the products with zeros of A alone, which gonum leaves
// out: they are NaN where B is not finite.
func addProducts[T Float](c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, zerosAlone bool) {
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		for p := range k {
			x := a[i*rsa+p*csa]
			if zerosAlone && x != 0 {
				continue
			}
			for j, v := range b[p*ldb : p*ldb+n] {
				row[j] += x * v
			}
		}
	}
}

func allFinite[T Float](b []T, ldb, k, n int) bool {
	for p := range k {
		var s T
		for _, v := range b[p*ldb : p*ldb+n] {
			s += v - v
		}
		if s != 0 {
			return false
		}
	}
	return true
}
