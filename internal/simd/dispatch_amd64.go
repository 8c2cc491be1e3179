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

// gemmAsm cuts wide products into blocks, measured on a Zen 4: few enough terms that what
// a block of rows reads of A and B is still in a cache for the next, and of a C that is
// larger than one a block of rows at a time, whose columns then follow each other.
func gemmAsm[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) bool {
	const rows, large = 12, 128 << 10
	if level == 0 {
		return false
	}
	terms, high := 1024, m
	if csa > 1 { // every term is on a line of its own
		terms = 2048 / size[T]()
	}
	if n > 128/size[T]() && m*n*size[T]() > large {
		high = rows
	}
	for p := 0; p == 0 || p < k; p += terms {
		for i := 0; i < m; i += high {
			to := min(i+high, m)
			var bi []T
			if bias != nil && p == 0 {
				bi = bias[i:to]
			}
			if k == 0 {
				gemmBlock(mode, c[i*ldc:], ldc, nil, 0, 0, nil, 0, to-i, n, 0, bi)
				continue
			}
			gemmBlock(mode, c[i*ldc:], ldc, a[i*rsa+p*csa:], rsa, csa, b[p*ldb:], ldb, to-i, n, min(terms, k-p), bi)
		}
		mode = Add
	}
	return true
}

// gemmBlock is Gemm, two vectors of columns at a time.
func gemmBlock[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) {
	size := size[T]()
	half := 32 / size // lanes of AVX2
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
		case left >= half:
			if size == 4 {
				gemmF32AVX2x1(f32(c), ldc, f32(a), rsa, csa, f32(b), ldbytes, m, k, f32(bias), int(mode))
			} else {
				gemmF64AVX2x1(f64(c), ldc, f64(a), rsa, csa, f64(b), ldbytes, m, k, f64(bias), int(mode))
			}
			j += half
		default:
			if size == 4 {
				gemmF32AVX2x1Tail(f32(c), ldc, f32(a), rsa, csa, f32(b), ldbytes, m, k, f32(bias), int(mode), left)
			} else {
				gemmF64AVX2x1Tail(f64(c), ldc, f64(a), rsa, csa, f64(b), ldbytes, m, k, f64(bias), int(mode), left)
			}
			j = n
		}
	}
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

func errorsAsm[T Float](sq []float64, y0, y1 []T, h, e []float64, k [][]T, atol, rtol float64) bool {
	if level == 0 {
		return false
	}
	n, each, terms := len(sq), len(h)-1, unsafe.Pointer(unsafe.SliceData(k))
	switch {
	case size[T]() == 4 && level == 1:
		errorSquaresF32AVX2(f64(sq), f32(y0), f32(y1), f64(h), each, f64(e), (*[]float32)(terms), len(e), n, atol, rtol)
	case size[T]() == 4:
		errorSquaresF32AVX512(f64(sq), f32(y0), f32(y1), f64(h), each, f64(e), (*[]float32)(terms), len(e), n, atol, rtol)
	case level == 1:
		errorSquaresF64AVX2(f64(sq), f64(y0), f64(y1), f64(h), each, f64(e), (*[]float64)(terms), len(e), n, atol, rtol)
	default:
		errorSquaresF64AVX512(f64(sq), f64(y0), f64(y1), f64(h), each, f64(e), (*[]float64)(terms), len(e), n, atol, rtol)
	}
	return true
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

// vectorLanes is the number of rows that gather and scatter take at a time.
func vectorLanes[T Float]() int { return 32 / size[T]() }

// fewRows are rows for the lanes of a vector of which there are too few, the last repeated.
func fewRows(rows []int32) (all [8]int32) {
	for i := range all {
		all[i] = rows[min(i, len(rows)-1)]
	}
	return all
}

var firstRows = [8]int32{0, 1, 2, 3, 4, 5, 6, 7}

func transposeAsm[T Float](dst []T, ldd int, src []T, lds, m, n int) bool {
	if level == 0 {
		return false
	}
	lanes := vectorLanes[T]()
	for i := 0; i < m; i += lanes {
		rows := firstRows
		if m-i < lanes {
			rows = fewRows(firstRows[:m-i])
		}
		gatherLanes(dst[i:], ldd, src[i*lds:], lds, &rows[0], n, min(lanes, m-i))
	}
	return true
}

func gatherAsm[T Float](dst []T, ld int, src []T, rows []int32, d int) bool {
	if level == 0 {
		return false
	}
	if d == 0 {
		return true
	}
	lanes := vectorLanes[T]()
	together := contiguous(rows)
	for i := 0; i < ld; i += lanes {
		if i+lanes <= len(rows) {
			if together {
				gatherLanes(dst[i:], ld, src[(int(rows[0])+i)*d:], d, &firstRows[0], d, lanes)
			} else {
				gatherLanes(dst[i:], ld, src, d, &rows[i], d, lanes)
			}
			continue
		}
		few := fewRows(rows[min(i, len(rows)-1):])
		gatherLanes(dst[i:], ld, src, d, &few[0], d, min(lanes, ld-i))
	}
	return true
}

func gatherLanes[T Float](dst []T, ldd int, src []T, lds int, rows *int32, cols, lanes int) {
	if size[T]() == 4 {
		gatherF32AVX2(f32(dst), ldd*4, f32(src), lds*4, rows, cols, lanes)
	} else {
		gatherF64AVX2(f64(dst), ldd*8, f64(src), lds*8, rows, cols, lanes)
	}
}

func scatterAsm[T Float](dst []T, src []T, ld int, rows []int32, d int, alpha T, add bool) bool {
	if level == 0 {
		return false
	}
	if d == 0 || len(rows) == 0 {
		return true
	}
	lanes, mode := vectorLanes[T](), 0
	if add {
		mode = 1
	}
	together := contiguous(rows)
	for i := 0; i < len(rows); i += lanes {
		n, dst, first := min(lanes, len(rows)-i), dst, &rows[i]
		if together {
			dst, first = dst[(int(rows[0])+i)*d:], &firstRows[0]
		} else if n < lanes {
			few := fewRows(rows[i:])
			first = &few[0]
		}
		if size[T]() == 4 {
			scatterF32AVX2(f32(dst), d*4, first, f32(src[i:]), ld*4, d, n, float32(alpha), mode)
		} else {
			scatterF64AVX2(f64(dst), d*8, first, f64(src[i:]), ld*8, d, n, float64(alpha), mode)
		}
	}
	return true
}
