package simd

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

type Float interface{ float32 | float64 }

type Mode uint8

const (
	Set Mode = iota
	Add
)

func Gemm[T Float](mode Mode, c []T, ldc int, a []T, rsa, csa int, b []T, ldb, m, n, k int, bias []T) {
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
		for p := range k {
			x := a[i*rsa+p*csa]
			for j, v := range b[p*ldb : p*ldb+n] {
				row[j] += x * v
			}
		}
	}
}

func Transpose[T Float](dst []T, ldd int, src []T, lds, m, n int) {
	for i := range m {
		for j := range n {
			dst[j*ldd+i] = src[i*lds+j]
		}
	}
}

func Gather[T Float](dst []T, ld int, src []T, rows []int32, d int) {
	for i := range ld {
		r := int(rows[min(i, len(rows)-1)])
		for j, v := range src[r*d : (r+1)*d] {
			dst[j*ld+i] = v
		}
	}
}

func Scatter[T Float](dst []T, src []T, ld int, rows []int32, d int, alpha T, add bool) {
	for i, r := range rows {
		to := dst[int(r)*d : (int(r)+1)*d]
		for j := range to {
			v := alpha * src[j*ld+i]
			if add {
				v += to[j]
			}
			to[j] = v
		}
	}
}

func Activate[T Float](act mlp.Activation, y, x []T) {
	for i, v := range x {
		y[i] = T(act.Value(float64(v)))
	}
}

func TimesSlope[T Float](act mlp.Activation, d, x, y []T) {
	switch act {
	case mlp.Identity:
	case mlp.Tanh:
		for i, v := range y {
			d[i] *= 1 - v*v
		}
	default:
		for i, v := range x {
			d[i] *= T(act.Deriv(float64(v)))
		}
	}
}

func Combine[T Float](dst, y []T, h []T, c []T, k [][]T) {
	for i := range dst {
		var s T
		for j, a := range c {
			s += a * k[j][i]
		}
		f := h[0]
		if len(h) > 1 {
			f = h[i]
		}
		dst[i] = y[i] + f*s
	}
}

func ErrorSquares[T Float](sq []float64, y0, y1 []T, h []float64, e []float64, k [][]T, atol, rtol float64) {
	for i, v := range y1 {
		var s float64
		for j, a := range e {
			if a != 0 {
				s += a * float64(k[j][i])
			}
		}
		f := h[0]
		if len(h) > 1 {
			f = h[i]
		}
		s *= f
		scale := atol + rtol*max(math.Abs(float64(y0[i])), math.Abs(float64(v)))
		switch {
		case scale-scale != 0:
			sq[i] = math.NaN()
		case s == 0:
			sq[i] = 0
		default:
			s /= scale
			sq[i] = s * s
		}
	}
}

func SumMax(x []float64) (sum, most float64) {
	for _, v := range x {
		sum += v
		most = max(most, v)
	}
	return sum, most
}
