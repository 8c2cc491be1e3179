package simd

// Float is the type of elements.
type Float interface{ float32 | float64 }

// Mode says what a product is added to.
type Mode uint8

const (
	Set Mode = iota // the bias, or nothing
	Add             // what is there
)

// Gemm computes, for i < m and j < n,
//
//	C[i·ldc+j] = start + Σ_{p<k} A[i·rsa+p·csa]·B[p·ldb+j]
//
// where start is bias[i], 0 without a bias, or with Add the element of C. Every element
// is one sum in ascending p, by fused multiply-adds in the assembly. C overlaps neither A
// nor B.
func Gemm[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) {
	if m == 0 || n == 0 {
		return
	}
	if ldc < n || k > 0 && ldb < n {
		panic("simd: Gemm with rows that overlap")
	}
	_ = c[(m-1)*ldc+n-1]
	if k > 0 {
		_, _ = a[(m-1)*rsa+(k-1)*csa], b[(k-1)*ldb+n-1]
	}
	if mode == Add {
		bias = nil
	} else if bias != nil {
		bias = bias[:m]
	}
	if !gemmAsm(mode, c, ldc, a, rsa, csa, b, ldb, m, n, k, bias) {
		gemmGo(mode, c, ldc, a, rsa, csa, b, ldb, m, n, k, bias)
	}
}
