package simd

import (
	"fmt"
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

func BenchmarkGemm(b *testing.B) {
	b.Run("f32", benchGemm[float32])
	b.Run("f64", benchGemm[float64])
}

func benchGemm[T Float](b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	lanes := 128 / elemSize[T]()
	for _, s := range [][2]int{{2, 50}, {50, 2}, {64, 64}, {128, 128}, {512, 512}, {2048, 2048}} {
		in, out := s[0], s[1]
		w, x, y, bias := random[T](rng, in*out), random[T](rng, in*lanes), random[T](rng, out*lanes), random[T](rng, out)
		xT := random[T](rng, in*lanes)
		g := make([]T, in*out)
		for name, do := range map[string]func(){
			"forward": func() { Gemm(Set, y, lanes, w, in, 1, x, lanes, out, lanes, in, bias) },
			"back":    func() { Gemm(Set, x, lanes, w, 1, in, y, lanes, in, lanes, out, nil) },
			"weights": func() { Gemm(Add, g, in, y, lanes, 1, xT, in, out, in, lanes, nil) },
		} {
			b.Run(fmt.Sprintf("%s/B=%d/in=%d/out=%d", name, lanes, in, out), func(b *testing.B) {
				for b.Loop() {
					do()
				}
				b.ReportMetric(2*float64(in*out*lanes)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
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
