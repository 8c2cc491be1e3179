package simd

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func random[T Float](rng *rand.Rand, n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(rng.NormFloat64())
	}
	return x
}

// TestGemm_MatchesTheDefinition, with every number of rows, columns and terms there is a
// kernel for, and none written beside them.
func TestGemm_MatchesTheDefinition(t *testing.T) {
	t.Run("float32", testGemm[float32])
	t.Run("float64", testGemm[float64])
}

func testGemm[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	eps := math.Pow(2, -24)
	if elemSize[T]() == 8 {
		eps = math.Pow(2, -53)
	}
	for range 3000 {
		m, n, k := 1+rng.IntN(30), 1+rng.IntN(70), rng.IntN(20)
		ldc, ldb := n+rng.IntN(3), n+rng.IntN(3)
		rsa, csa := k+rng.IntN(3), 1
		if rng.IntN(2) == 0 {
			rsa, csa = 1, m+rng.IntN(3)
		}
		a, b, bias := random[T](rng, m*max(rsa, 1)+k*csa), random[T](rng, k*ldb+n), random[T](rng, m)
		c0 := random[T](rng, m*ldc+8)
		if rng.IntN(2) == 0 {
			bias = nil
		}
		mode := Mode(rng.IntN(2))
		c := append([]T(nil), c0...)
		Gemm(mode, c, ldc, a, rsa, csa, b, ldb, m, n, k, bias)
		other := append([]T(nil), c0...)
		gemmGo(mode, other, ldc, a, rsa, csa, b, ldb, m, n, k, func() []T {
			if mode == Add {
				return nil
			}
			return bias
		}())
		for at, got := range c {
			i, j := at/ldc, at%ldc
			if i >= m || j >= n {
				if got != c0[at] {
					t.Fatalf("%d×%d×%d: wrote beside C", m, n, k)
				}
				continue
			}
			var sum, abs float64
			switch {
			case mode == Add:
				sum = float64(c0[at])
			case bias != nil:
				sum = float64(bias[i])
			}
			abs = math.Abs(sum)
			for p := range k {
				x := float64(a[i*rsa+p*csa]) * float64(b[p*ldb+j])
				sum += x
				abs += math.Abs(x)
			}
			// k roundings of sums, and in Go of products.
			for _, v := range []T{got, other[at]} {
				if d := math.Abs(float64(v) - sum); !(d <= 2*float64(k+1)*eps*abs) {
					t.Fatalf("%d×%d×%d, element %d, %d: %v, want %v", m, n, k, i, j, v, sum)
				}
			}
		}
	}
}

func elemSize[T Float]() int {
	var x T
	return int(unsafe.Sizeof(x))
}

// What is not finite is not lost beside a zero, by no path.
func TestGemm_ZeroTimesNaN(t *testing.T) {
	forLevels(t, func(t *testing.T) {
		nan := float32(math.NaN())
		c := make([]float32, 4)
		Gemm(Set, c, 2, []float32{0, 1, 0, 0}, 2, 1, []float32{nan, 1, 2, 3}, 2, 2, 2, 2, nil)
		if c[0] == c[0] || c[2] == c[2] || c[1] != 3 || c[3] != 0 {
			t.Errorf("%v", c)
		}
	})
}

// An element's bits depend on its row of A and its column of B alone: not on the other
// rows and columns, on the order in which A lies, on blocks, or on AVX2 or AVX-512.
func TestGemm_SameBitsInAnyCompany(t *testing.T) {
	t.Run("float32", gemmCompany[float32])
	t.Run("float64", gemmCompany[float64])
}

func gemmCompany[T Float](t *testing.T) {
	for _, s := range [][3]int{{61, 70, 57}, {40, 40, 2100}, {370, 130, 33}} {
		m, n, k := s[0], s[1], s[2]
		rng := rand.New(rand.NewPCG(5, 6))
		a, b, c0 := random[T](rng, m*k), random[T](rng, k*n), random[T](rng, m*n)
		aT := make([]T, m*k)
		Transpose(aT, m, a, k, m, k)
		var first []T
		forLevels(t, func(t *testing.T) {
			if Level() == "go" {
				return // it adds by fours, in an order of its own
			}
			all := append([]T(nil), c0...)
			Gemm(Add, all, n, a, k, 1, b, n, m, n, k, nil)
			if first == nil {
				first = all
			}
			for i, v := range all {
				if v != first[i] {
					t.Fatalf("element %d is %v and %v", i, first[i], v)
				}
			}
			for range 50 {
				i0, j0 := rng.IntN(m), rng.IntN(n)
				mi, nj := 1+rng.IntN(m-i0), 1+rng.IntN(n-j0)
				rsa, csa, part := k, 1, a[i0*k:]
				if rng.IntN(2) == 0 {
					rsa, csa, part = 1, m, aT[i0:]
				}
				c := append([]T(nil), c0[i0*n+j0:]...)
				Gemm(Add, c, n, part, rsa, csa, b[j0:], n, mi, nj, k, nil)
				for i := range mi {
					for j := range nj {
						if got, want := c[i*n+j], all[(i0+i)*n+j0+j]; got != want {
							t.Fatalf("%d×%d×%d, rows %d+%d, columns %d+%d: %v, in the whole %v", m, n, k, i0, mi, j0, nj, got, want)
						}
					}
				}
			}
		})
		for range 200 {
			if first == nil {
				break // no assembly here
			}
			i, j := rng.IntN(m), rng.IntN(n)
			sum := float64(c0[i*n+j])
			abs := math.Abs(sum)
			for p := range k {
				x := float64(a[i*k+p]) * float64(b[p*n+j])
				sum += x
				abs += math.Abs(x)
			}
			if d := math.Abs(float64(first[i*n+j]) - sum); !(d <= 2*float64(k+1)*ulp[T](1)/2*abs) {
				t.Fatalf("%d×%d×%d: %v, want %v", m, n, k, first[i*n+j], sum)
			}
		}
	}
}
