package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTranspose_EverySize(t *testing.T) {
	t.Run("float32", transposeSizes[float32])
	t.Run("float64", transposeSizes[float64])
}

func transposeSizes[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	forLevels(t, func(t *testing.T) {
		for m := range 37 {
			for n := range 37 {
				lds, ldd := n+rng.IntN(3), m+rng.IntN(3)
				src := random[T](rng, m*lds)
				dst, whole := guarded[T](n * ldd)
				Transpose(dst, ldd, src, lds, m, n)
				for j := range n {
					for i, v := range dst[j*ldd:][:ldd] {
						if i < m && v != src[i*lds+j] || i >= m && v != 77 {
							t.Fatalf("%d×%d: [%d,%d] = %g", m, n, j, i, v)
						}
					}
				}
				if !whole() {
					t.Fatalf("%d×%d wrote outside", m, n)
				}
			}
		}
	})
}

// rowsOf returns n different rows of a batch, all that follow the first or any.
func rowsOf(rng *rand.Rand, batch, n int, contiguous bool) []int32 {
	rows := make([]int32, n)
	first := rng.IntN(batch - n + 1)
	perm := rng.Perm(batch)
	for i := range rows {
		rows[i] = int32(perm[i])
		if contiguous {
			rows[i] = int32(first + i)
		}
	}
	slices.Sort(rows)
	return rows
}

func TestGatherScatter(t *testing.T) {
	t.Run("float32", testGatherScatter[float32])
	t.Run("float64", testGatherScatter[float64])
}

func testGatherScatter[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	const batch = 40
	forLevels(t, func(t *testing.T) {
		for _, d := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 20, 31, 64} {
			for n := 1; n <= 33; n++ {
				for ld := n; ld <= 33; ld += 1 + rng.IntN(9) {
					rows := rowsOf(rng, batch, n, rng.IntN(2) == 0)
					x := random[T](rng, batch*d)
					tile, whole := guarded[T](d * ld)
					Gather(tile, ld, x, rows, d)
					for e, v := range tile {
						j, i := e/ld, min(e%ld, n-1)
						if w := x[int(rows[i])*d+j]; v != w {
							t.Fatalf("d=%d n=%d ld=%d: [%d,%d] = %g, want %g", d, n, ld, j, e%ld, v, w)
						}
					}
					if !whole() {
						t.Fatalf("d=%d n=%d ld=%d: Gather wrote outside", d, n, ld)
					}
					testScatter[T](t, rng, batch, d, ld, rows)
				}
			}
		}
	})
}

func testScatter[T Float](t *testing.T, rng *rand.Rand, batch, d, ld int, rows []int32) {
	tile, start := random[T](rng, d*ld), random[T](rng, batch*d)
	for _, add := range []bool{false, true} {
		for _, alpha := range []T{1, T(rng.NormFloat64())} {
			dst, whole := guarded[T](batch * d)
			copy(dst, start)
			Scatter(dst, tile, ld, rows, d, alpha, add)
			if !whole() {
				t.Fatalf("d=%d rows=%d ld=%d: Scatter wrote outside", d, len(rows), ld)
			}
			want := append([]T(nil), start...)
			for i, r := range rows {
				for j := range d {
					v := float64(alpha) * float64(tile[j*ld+i])
					at := int(r)*d + j
					if add {
						v += float64(want[at])
					}
					// Two roundings, of the product and of the sum.
					tol := ulp[T](1) * (math.Abs(v) + math.Abs(float64(want[at])))
					if got := float64(dst[at]); math.Abs(got-v) > tol {
						t.Fatalf("d=%d rows=%d ld=%d alpha=%g add=%v: row %d, %d: %g, want %g", d, len(rows), ld, alpha, add, r, j, got, v)
					}
					dst[at], want[at] = 0, 0
				}
			}
			for i := range dst {
				if dst[i] != want[i] {
					t.Fatalf("Scatter wrote to a row that is not its own")
				}
			}
		}
	}
}

func TestLayout_Panics(t *testing.T) {
	x, y := make([]float64, 12), make([]float64, 12)
	for what, f := range map[string]func(){
		"simd: Transpose with rows that overlap":         func() { Transpose(y, 2, x, 4, 3, 4) },
		"simd: Gather of no rows, or of more than lanes": func() { Gather(y, 3, x, nil, 2) },
		"simd: tile too short":                           func() { Gather(y[:5], 3, x, []int32{0}, 2) },
		"simd: no such row":                              func() { Scatter(y, x, 3, []int32{0, 6}, 2, 1, false) },
		"simd: Scatter of more rows than lanes":          func() { Scatter(y, x, 1, []int32{0, 1}, 2, 1, false) },
	} {
		if !panics(f, what) {
			t.Errorf("no panic with %q", what)
		}
	}
}

// guarded returns a slice of n elements between guards, and a function that tells
// whether the guards are whole.
func guarded[T Float](n int) (x []T, whole func() bool) {
	const guard = 64
	buf := make([]T, n+2*guard)
	for i := range buf {
		buf[i] = 77
	}
	return buf[guard : guard+n : guard+n], func() bool {
		for i, v := range buf {
			if (i < guard || i >= guard+n) && v != 77 {
				return false
			}
		}
		return true
	}
}

// panics tells whether f panics with what.
func panics(f func(), what string) (ok bool) {
	defer func() { ok = recover() == what }()
	f()
	return false
}
