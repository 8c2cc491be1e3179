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
