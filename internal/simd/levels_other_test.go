//go:build noasm || !amd64

package simd

import "testing"

func forLevels(t *testing.T, test func(*testing.T)) { t.Run(Level(), test) }

func peaks[T Float]() []peakLoop { return nil }
