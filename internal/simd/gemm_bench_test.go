package simd

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkGemm is the three products of a layer, over a tile of samples. Rates are those
// of the fastest of many short slices, beside which the peak is measured in turn, so that
// what else runs on the machine hardly counts.
func BenchmarkGemm(b *testing.B) {
	b.Run("f32", benchGemm[float32])
	b.Run("f64", benchGemm[float64])
}

func benchGemm[T Float](b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	full := 128 / elemSize[T]()
	for _, s := range [][3]int{
		{full, 2, 50}, {full, 50, 2}, {full / 4, 2, 50}, {full / 4, 50, 2}, {full / 4, 64, 64}, {full / 4 * 3, 64, 64},
		{full, 64, 64}, {full, 128, 128}, {full, 256, 256}, {full, 512, 512}, {2 * full, 512, 512}, {4 * full, 512, 512}, {full, 1024, 1024}, {full, 2048, 2048}, {4 * full, 2048, 2048}, {full, 4096, 4096}, {4 * full, 4096, 4096},
	} {
		lanes, in, out := s[0], s[1], s[2]
		w, x, y, bias := random[T](rng, in*out), random[T](rng, in*lanes), random[T](rng, out*lanes), random[T](rng, out)
		xT := random[T](rng, in*lanes)
		g := make([]T, in*out)
		for _, c := range []struct {
			name string
			do   func()
		}{
			{"forward", func() { Gemm(Set, y, lanes, w, in, 1, x, lanes, out, lanes, in, bias) }},
			{"back", func() { Gemm(Set, x, lanes, w, 1, in, y, lanes, in, lanes, out, nil) }},
			{"weights", func() { Gemm(Add, g, in, y, lanes, 1, xT, in, out, in, lanes, nil) }},
		} {
			b.Run(fmt.Sprintf("%s/B=%d/in=%d/out=%d", c.name, lanes, in, out), func(b *testing.B) {
				reportPeak[T](b, 2*float64(in*out*lanes), c.do)
			})
		}
	}
}

// reportPeak times f, of so many operations, against the machine's peak.
func reportPeak[T Float](b *testing.B, flops float64, f func()) {
	peaks, peak := peaks[T](), 0.0
	best := fastest(b, f, func() {
		for _, p := range peaks {
			peak = max(peak, p.flops/each(1, p.run))
		}
	})
	b.ReportMetric(flops/best/1e9, "GFLOP/s")
	if peak > 0 {
		b.ReportMetric(100*flops/best/peak, "%peak")
	}
}

// peakLoop is a loop of nothing but multiplications and additions.
type peakLoop struct {
	flops float64
	run   func()
}
