package simd

import "math"

// Combine sets dst[i] = y[i] + h[i]·Σ_j c[j]·k[j][i], the sum in ascending j. Terms with
// c[j] = 0 count: they are NaN where k[j] is not finite. If h has length 1 it is the same
// for all. dst may be y, not one of k.
func Combine[T Float](dst, y []T, h []T, c []T, k [][]T) {
	n := len(dst)
	y, k = y[:n], k[:len(c)]
	if len(h) != 1 {
		h = h[:n]
	}
	for _, x := range k {
		_ = x[:n]
	}
	if n > 0 && !combineAsm(dst, y, h, c, k) {
		combineGo(dst, y, h, c, k)
	}
}

func combineGo[T Float](dst, y, h, c []T, k [][]T) {
	each := len(h) != 1
	for i := range dst {
		var s T
		for j, a := range c {
			s += a * k[j][i]
		}
		f := h[0]
		if each {
			f = h[i]
		}
		dst[i] = y[i] + f*s
	}
}

// ErrorSquares sets, in float64,
//
//	sq[i] = (h[i]·Σ_j e[j]·k[j][i] / (atol + rtol·max(|y0[i]|, |y1[i]|)))²
//
// and 0 where the estimate is 0, whatever the scale. Of what is not finite it makes what
// is not. Terms with e[j] = 0 are not read. If h has length 1 it is the same for all.
func ErrorSquares[T Float](sq []float64, y0, y1 []T, h, e []float64, k [][]T, atol, rtol float64) {
	n := len(sq)
	y0, y1 = y0[:n], y1[:n]
	if len(h) != 1 {
		h = h[:n]
	}
	for j, x := range k[:len(e)] {
		if e[j] != 0 {
			_ = x[:n]
		}
	}
	if n > 0 && !errorsAsm(sq, y0, y1, h, e, k, atol, rtol) {
		errorSquaresGo(sq, y0, y1, h, e, k, atol, rtol)
	}
}

func errorSquaresGo[T Float](sq []float64, y0, y1 []T, h, e []float64, k [][]T, atol, rtol float64) {
	for i := range sq {
		var est float64
		for j, a := range e {
			if a != 0 {
				est += a * float64(k[j][i])
			}
		}
		f := h[0]
		if len(h) != 1 {
			f = h[i]
		}
		v0, v1 := float64(y0[i]), float64(y1[i])
		est = est*f + (v0 - v0) + (v1 - v1)
		if est != 0 {
			est /= rtol*max(math.Abs(v0), math.Abs(v1)) + atol
		}
		sq[i] = est * est
	}
}

// SumMax returns the sum of x, in an order that depends on its length alone, and its
// largest element, at least 0. Of a NaN the sum is NaN.
func SumMax(x []float64) (sum, most float64) {
	var s, m [4]float64
	n := len(x) &^ 3
	if n > 0 && !sumMaxAsm(x[:n], &s, &m) {
		for i := 0; i < n; i += 4 {
			for j, v := range x[i : i+4] {
				s[j] += v
				if v > m[j] {
					m[j] = v
				}
			}
		}
	}
	for j, v := range x[n:] {
		s[j] += v
		m[j] = max(m[j], v)
	}
	return (s[0] + s[2]) + (s[1] + s[3]), max(m[0], m[1], m[2], m[3])
}

// AddRowSums adds the sum of the first n elements of row i of x, which begins at
// x[i·ld], to dst[i].
func AddRowSums[T Float](dst, x []T, ld, n int) {
	if len(dst) == 0 || n == 0 {
		return
	}
	_ = x[(len(dst)-1)*ld+n-1]
	if rowSumsAsm(dst, x, ld, n) {
		return
	}
	for i := range dst {
		var s T
		for _, v := range x[i*ld : i*ld+n] {
			s += v
		}
		dst[i] += s
	}
}
