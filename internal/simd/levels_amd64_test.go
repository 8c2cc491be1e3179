//go:build !noasm

package simd

import "testing"

// forLevels runs a test with all instructions that the processor has, and less.
func forLevels(t *testing.T, test func(*testing.T)) {
	best := level
	defer func() { level = best }()
	for level = 0; level <= best; level++ {
		t.Run(Level(), test)
	}
	level = best
}

// peaks are the loops that reach the machine's peak, for each kind of vector.
func peaks[T Float]() (list []peakLoop) {
	const n, sums = 10000, 12
	add := func(bytes int, f func(int)) {
		list = append(list, peakLoop{float64(2 * sums * n * bytes / elemSize[T]()), func() { f(n) }})
	}
	f32 := elemSize[T]() == 4
	if level >= 1 {
		add(32, map[bool]func(int){true: peakF32AVX2, false: peakF64AVX2}[f32])
	}
	if level >= 2 {
		add(64, map[bool]func(int){true: peakF32AVX512, false: peakF64AVX512}[f32])
	}
	return list
}
