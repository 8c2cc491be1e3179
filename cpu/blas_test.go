package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	blasapi "gonum.org/v1/gonum/blas"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func TestMul_MatchesTheDefinition(t *testing.T) {
	t.Run("float32", mulMatches[float32])
	t.Run("float64", mulMatches[float64])
}

func mulMatches[T backend.Float](t *testing.T) {
	bl := newBLAS[T]()
	rng := rand.New(rand.NewPCG(1, 2))
	matrixOf := func(rows, cols, pad int, bad float64) matrix[T] {
		m := matrix[T]{d: make([]T, rows*(cols+pad)), ld: cols + pad}
		for i := range m.d {
			m.d[i] = T(rng.NormFloat64())
			switch rng.IntN(8) {
			case 0:
				m.d[i] = 0 // gonum skips it
			case 1:
				if rng.IntN(10) == 0 {
					m.d[i] = T(bad)
				}
			}
		}
		m.finite = bl.finite(m.d)
		return m
	}
	for _, size := range [][3]int{{1, 1, 1}, {3, 5, 2}, {64, 192, 7}, {65, 193, 3}, {130, 2, 70}, {2, 400, 513}, {1, 7, 0}} {
		for _, trans := range []blasapi.Transpose{blasapi.NoTrans, blasapi.Trans} {
			for _, bad := range []float64{0.5, math.Inf(1), math.NaN()} {
				m, n, k := size[0], size[1], size[2]
				name := fmt.Sprintf("%c %v with %g", trans, size, bad)
				a, b, c := matrixOf(m, k, 1, 0.5), matrixOf(k, n, 2, bad), matrixOf(m, n, 3, 0.5)
				if trans == blasapi.Trans {
					a = matrixOf(k, m, 1, 0.5)
				}
				was := append([]T(nil), c.d...)
				bl.mul(trans, m, n, k, a, b, c.d, c.ld)
				for i := range m {
					for j := range c.ld {
						want, size := float64(was[i*c.ld+j]), math.Abs(float64(was[i*c.ld+j]))
						for l := 0; l < k && j < n; l++ {
							at := i*a.ld + l
							if trans == blasapi.Trans {
								at = l*a.ld + i
							}
							p := float64(a.d[at]) * float64(b.d[l*b.ld+j])
							want += p
							size += math.Abs(p)
						}
						got := float64(c.d[i*c.ld+j])
						if finite := want-want == 0; finite != (got-got == 0) || finite && math.Abs(got-want) > float64(k+1)*eps[T]()*size {
							t.Fatalf("%s: element (%d, %d) is %g, want %g", name, i, j, got, want)
						}
					}
				}
			}
		}
	}
}

func TestFinite(t *testing.T) {
	bl := newBLAS[float32]()
	for n := range 40 {
		x := make([]float32, n)
		if !bl.finite(x) {
			t.Fatalf("%d zeros are not finite", n)
		}
		for i := range x {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				x[i] = float32(bad)
				if bl.finite(x) {
					t.Errorf("%g at %d of %d is overlooked", bad, i, n)
				}
				x[i] = 1
			}
		}
	}
}
