package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// slice is the time that one measurement takes at least.
const slice = 20 * time.Microsecond

// each is the seconds that f takes of the thread's time, over so many runs.
func each(reps int, f func()) float64 {
	start := threadTime()
	for range reps {
		f()
	}
	return (threadTime() - start).Seconds() / float64(reps)
}

// fastest is the seconds that f takes in the fastest of many slices, after each of which
// it calls between.
func fastest(b *testing.B, f, between func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f()
	reps := 1 + int(slice.Seconds()/each(3, f))
	best := math.Inf(1)
	for b.Loop() {
		best = min(best, each(reps, f))
		between()
	}
	b.ReportMetric(0, "ns/op") // of a slice and what is between
	return best
}

// BenchmarkTile is what is done to a tile besides products and activations.
func BenchmarkTile(b *testing.B) {
	b.Run("f32", benchTile[float32])
	b.Run("f64", benchTile[float64])
}

func benchTile[T Float](b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	lanes := 128 / elemSize[T]()
	for _, d := range []int{1, 2, 3, 4, 8, 64} {
		n := d * lanes
		batch, tile, out := random[T](rng, 2*n), random[T](rng, n), random[T](rng, n)
		rows, apart := make([]int32, lanes), make([]int32, lanes)
		for i := range rows {
			rows[i], apart[i] = int32(i), int32(2*i)
		}
		h, c, k := []T{0.1}, random[T](rng, 7), make([][]T, 7)
		e := random[float64](rng, 7)
		for j := range k {
			k[j] = random[T](rng, n)
		}
		sq := make([]float64, n)
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"gather", func() { Gather(tile, lanes, batch, rows, d) }},
			{"gather_apart", func() { Gather(tile, lanes, batch, apart, d) }},
			{"scatter", func() { Scatter(batch, tile, lanes, rows, d, 2, false) }},
			{"scatter_add", func() { Scatter(batch, tile, lanes, rows, d, 2, true) }},
			{"scatter_apart", func() { Scatter(batch, tile, lanes, apart, d, 2, false) }},
			{"combine7", func() { Combine(out, tile, h, c, k) }},
			{"errors7", func() { ErrorSquares(sq, tile, out, []float64{0.1}, e, k, 1e-6, 1e-6) }},
			{"summax", func() { SumMax(sq) }},
			{"row_sums", func() { AddRowSums(c[:1], tile, lanes, lanes) }},
		} {
			b.Run(fmt.Sprintf("%s/B=%d/D=%d", f.name, lanes, d), func(b *testing.B) {
				t := fastest(b, f.run, func() { clear(batch) })
				b.ReportMetric(t*1e9, "ns")
				b.ReportMetric(t*1e9/float64(n), "ns/element")
			})
		}
	}
}
