//go:build !noasm

package simd

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// level is what the processor has: 0 nothing of use, 1 AVX2 with FMA, 2 AVX-512. Tests
// lower it.
var level = func() int {
	switch {
	case !cpu.X86.HasAVX2 || !cpu.X86.HasFMA:
		return 0
	case !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512DQ || !cpu.X86.HasAVX512VL:
		return 1
	}
	return 2
}()

// Level names the instructions in use: "avx512", "avx2" or "go".
func Level() string { return [...]string{"go", "avx2", "avx512"}[level] }

func size[T Float]() int {
	var x T
	return int(unsafe.Sizeof(x))
}

func f32[T Float](s []T) *float32 { return (*float32)(unsafe.Pointer(unsafe.SliceData(s))) }
func f64[T Float](s []T) *float64 { return (*float64)(unsafe.Pointer(unsafe.SliceData(s))) }

// aBytes is how much of A is used again before it leaves the cache.
const aBytes = 256 << 10

func gemmAsm[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) bool {
	if level == 0 {
		return false
	}
	size := size[T]()
	half := 32 / size // lanes of AVX2
	// Rows of A are taken for all columns while they are in the cache.
	if rows := max(aBytes/(max(k, 1)*size)/12*12, 48); m > rows && n > 4*half {
		for i := 0; i < m; i += rows {
			now, b0 := min(rows, m-i), bias
			if bias != nil {
				b0 = bias[i:]
			}
			gemmAsm(mode, c[i*ldc:], ldc, a[i*rsa:], rsa, csa, b, ldb, now, n, k, b0)
		}
		return true
	}
	ldc, rsa, csa, ldbytes := ldc*size, rsa*size, csa*size, ldb*size
	for j := 0; j < n; {
		c, b := c[j:], b[min(j, len(b)):]
		switch left := n - j; {
		case left >= 4*half && level == 2:
			if size == 4 {
				gemmF32AVX512x2(f32(c), ldc, f32(a), rsa, csa, f32(b), ldbytes, m, k, f32(bias), int(mode))
			} else {
				gemmF64AVX512x2(f64(c), ldc, f64(a), rsa, csa, f64(b), ldbytes, m, k, f64(bias), int(mode))
			}
			j += 4 * half
		case left >= 2*half:
			if size == 4 {
				gemmF32AVX2x2(f32(c), ldc, f32(a), rsa, csa, f32(b), ldbytes, m, k, f32(bias), int(mode))
			} else {
				gemmF64AVX2x2(f64(c), ldc, f64(a), rsa, csa, f64(b), ldbytes, m, k, f64(bias), int(mode))
			}
			j += 2 * half
		default:
			left = min(left, half)
			if size == 4 {
				gemmF32AVX2x1(f32(c), ldc, f32(a), rsa, csa, f32(b), ldbytes, m, k, f32(bias), int(mode), left)
			} else {
				gemmF64AVX2x1(f64(c), ldc, f64(a), rsa, csa, f64(b), ldbytes, m, k, f64(bias), int(mode), left)
			}
			j += left
		}
	}
	return true
}

func combineAsm[T Float](dst, y, h, c []T, k [][]T) bool {
	if level == 0 {
		return false
	}
	each := len(h) - 1
	if size[T]() == 4 {
		combineF32AVX2(f32(dst), f32(y), f32(h), each, f32(c), (*[]float32)(unsafe.Pointer(unsafe.SliceData(k))), len(c), len(dst))
	} else {
		combineF64AVX2(f64(dst), f64(y), f64(h), each, f64(c), (*[]float64)(unsafe.Pointer(unsafe.SliceData(k))), len(c), len(dst))
	}
	return true
}

// errorsAsm returns how many elements it has done.
func errorsAsm[T Float](sq []float64, y0, y1 []T, h, e []float64, k [][]T, atol, rtol float64) int {
	n := len(sq) &^ 3
	if level == 0 || n == 0 {
		return 0
	}
	each := len(h) - 1
	if size[T]() == 4 {
		errorSquaresF32AVX2(&sq[0], f32(y0), f32(y1), &h[0], each, unsafe.SliceData(e), (*[]float32)(unsafe.Pointer(unsafe.SliceData(k))), len(e), n, atol, rtol)
	} else {
		errorSquaresF64AVX2(&sq[0], f64(y0), f64(y1), &h[0], each, unsafe.SliceData(e), (*[]float64)(unsafe.Pointer(unsafe.SliceData(k))), len(e), n, atol, rtol)
	}
	return n
}

func sumMaxAsm(x []float64, sum, most *[4]float64) bool {
	if level == 0 {
		return false
	}
	sumMaxAVX2(&x[0], len(x), &sum[0], &most[0])
	return true
}

func rowSumsAsm[T Float](dst, x []T, ld, n int) bool {
	if level == 0 {
		return false
	}
	if size[T]() == 4 {
		rowSumsF32AVX2(f32(dst), f32(x), ld*4, len(dst), n)
	} else {
		rowSumsF64AVX2(f64(dst), f64(x), ld*8, len(dst), n)
	}
	return true
}

// transposeAsm returns the rows and columns that it has done: whole squares.
func transposeAsm[T Float](dst []T, ldd int, src []T, lds, m, n int) (rows, cols int) {
	size := size[T]()
	lanes := 32 / size
	m, n = m&^(lanes-1), n&^(lanes-1)
	if level == 0 || m == 0 || n == 0 {
		return 0, 0
	}
	for i := 0; i < m; i += lanes {
		if size == 4 {
			transposeF32AVX2(f32(dst[i:]), ldd*4, f32(src[i*lds:]), lds*4, n/lanes)
		} else {
			transposeF64AVX2(f64(dst[i:]), ldd*8, f64(src[i*lds:]), lds*8, n/lanes)
		}
	}
	return m, n
}
