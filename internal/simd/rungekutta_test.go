package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Sums, norms and transposes against their definitions in float64, at every length from
// 0 to 70 and with all instructions.
func TestRungeKutta(t *testing.T) {
	t.Run("float32", rungeKutta[float32])
	t.Run("float64", rungeKutta[float64])
}

func rungeKutta[T Float](t *testing.T) {
	eps := ulp[T](1)
	forLevels(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for n := range 71 {
			for _, each := range []bool{false, true} {
				terms := rng.IntN(9)
				y, y1, h, c := random[T](rng, n), random[T](rng, n), random[T](rng, max(n, 1)), random[T](rng, terms)
				k, e, h64 := make([][]T, terms), make([]float64, terms), make([]float64, max(n, 1))
				for j := range k {
					k[j] = random[T](rng, n)
					e[j] = float64(c[j])
				}
				if terms > 2 {
					e[1], k[1] = 0, nil // not read by ErrorSquares
				}
				if !each {
					h, h64 = h[:1], h64[:1]
				}
				for i, v := range h {
					h64[i] = float64(v)
				}
				at := func(i int) float64 { return h64[min(i, len(h64)-1)] }

				sq := make([]float64, n)
				ErrorSquares(sq, y, y1, h64, e, k, 1e-3, 1e-2)
				var sum, most float64
				for i := range sq {
					est, abs := 0.0, 0.0
					for j, a := range e {
						if a != 0 {
							est += a * float64(k[j][i])
							abs += math.Abs(a * float64(k[j][i]))
						}
					}
					scale := 1e-3 + 1e-2*math.Max(math.Abs(float64(y[i])), math.Abs(float64(y1[i])))
					r, slack := at(i)*est/scale, math.Abs(at(i))*abs/scale*1e-14
					if got := math.Sqrt(sq[i]); !(math.Abs(got-math.Abs(r)) <= slack) {
						t.Fatalf("n = %d: square %d is %v², want %v²", n, i, got, r)
					}
					sum += sq[i]
					most = max(most, sq[i])
				}
				if s, m := SumMax(sq); !(math.Abs(s-sum) <= 1e-13*sum) || m != most {
					t.Fatalf("n = %d: SumMax is %v, %v, want %v, %v", n, s, m, sum, most)
				}

				if terms > 2 {
					k[1] = random[T](rng, n)
				}
				dst := make([]T, n+1)
				dst[n] = 7
				Combine(dst[:n], y, h, c, k)
				for i := range n {
					want, abs := 0.0, 0.0
					for j, a := range c {
						want += float64(a) * float64(k[j][i])
						abs += math.Abs(float64(a) * float64(k[j][i]))
					}
					want = float64(y[i]) + at(i)*want
					abs = math.Abs(float64(y[i])) + math.Abs(at(i))*abs
					if !(math.Abs(float64(dst[i])-want) <= float64(terms+2)*eps*abs) {
						t.Fatalf("n = %d: Combine[%d] is %v, want %v", n, i, dst[i], want)
					}
				}
				if dst[n] != 7 {
					t.Fatalf("n = %d: Combine wrote beyond its end", n)
				}
			}
		}
	})
}

func TestErrorSquares_NotFinite(t *testing.T) {
	inf := math.Inf(1)
	forLevels(t, func(t *testing.T) {
		for _, x := range []float64{math.NaN(), inf, -inf} {
			for i := range 6 {
				for what := range 3 {
					v := [3][]float64{make([]float64, 6), make([]float64, 6), make([]float64, 6)}
					v[what][i] = x
					sq := make([]float64, 6)
					ErrorSquares(sq, v[0], v[1], []float64{1}, []float64{1}, [][]float64{v[2]}, 0, 0)
					for j, s := range sq {
						if bad := s-s != 0; bad != (j == i) {
							t.Errorf("%v at %d of operand %d: square %d is %v", x, i, what, j, s)
						}
					}
				}
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	t.Run("float32", transposes[float32])
	t.Run("float64", transposes[float64])
}

func transposes[T Float](t *testing.T) {
	forLevels(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for range 500 {
			m, n := 1+rng.IntN(40), 1+rng.IntN(40)
			lds, ldd := n+rng.IntN(3), m+rng.IntN(3)
			src, dst := random[T](rng, m*lds), make([]T, n*ldd)
			Transpose(dst, ldd, src, lds, m, n)
			sums := random[T](rng, m)
			before := append([]T(nil), sums...)
			AddRowSums(sums, src, lds, n)
			for i := range m {
				want, abs := float64(before[i]), math.Abs(float64(before[i]))
				for j := range n {
					if dst[j*ldd+i] != src[i*lds+j] {
						t.Fatalf("%d×%d: element %d, %d", m, n, i, j)
					}
					want += float64(src[i*lds+j])
					abs += math.Abs(float64(src[i*lds+j]))
				}
				if !(math.Abs(float64(sums[i])-want) <= float64(n)*ulp[T](1)*abs) {
					t.Fatalf("%d×%d: row %d sums to %v, want %v", m, n, i, sums[i], want)
				}
			}

			// Rows of a batch to a tile and back.
			d, lanes := 1+rng.IntN(12), 32
			batch := random[T](rng, 50*d)
			var rows []int32
			for r := int32(0); r < 50 && len(rows) < lanes; r++ {
				if m < 20 || rng.IntN(2) == 0 {
					rows = append(rows, r)
				}
			}
			tile := make([]T, d*lanes)
			Gather(tile, lanes, batch, rows, d)
			for j := range d {
				for i := range lanes {
					if r := rows[min(i, len(rows)-1)]; tile[j*lanes+i] != batch[int(r)*d+j] {
						t.Fatalf("Gather: lane %d, feature %d", i, j)
					}
				}
			}
			for _, add := range []bool{false, true} {
				to := random[T](rng, len(batch))
				was := append([]T(nil), to...)
				Scatter(to, tile, lanes, rows, d, -2, add)
				for r := range 50 {
					for j := range d {
						want := was[r*d+j]
						for i, x := range rows {
							if int(x) == r {
								if !add {
									want = 0
								}
								want += -2 * tile[j*lanes+i]
							}
						}
						if to[r*d+j] != want {
							t.Fatalf("Scatter: row %d, component %d is %v, want %v", r, j, to[r*d+j], want)
						}
					}
				}
			}
		}
	})
}

// AVX2 and AVX-512 give the same bits, at every place of a slice.
func TestErrorSquares_SameBits(t *testing.T) {
	t.Run("float32", errorBits[float32])
	t.Run("float64", errorBits[float64])
}

func errorBits[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	const n = 61
	y0, y1, k0, k1 := random[T](rng, n), random[T](rng, n), random[T](rng, n), random[T](rng, n)
	h, e := random[float64](rng, n), random[float64](rng, 2)
	var first []float64
	forLevels(t, func(t *testing.T) {
		if Level() == "go" {
			return
		}
		sq, part := make([]float64, n), make([]float64, n)
		ErrorSquares(sq, y0, y1, h, e, [][]T{k0, k1}, 1e-3, 1e-2)
		if first == nil {
			first = sq
		}
		for i := range sq {
			to := min(n, i+1+i%7)
			ErrorSquares(part[i:to], y0[i:to], y1[i:to], h[i:to], e, [][]T{k0[i:to], k1[i:to]}, 1e-3, 1e-2)
			if sq[i] != first[i] || part[i] != first[i] {
				t.Fatalf("element %d: %v, %v with all, %v with few", i, first[i], sq[i], part[i])
			}
		}
	})
}
