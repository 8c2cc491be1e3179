//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/backend/backendtest"
	"github.com/seed-5f5774c8/neuralode/gpu"
)

func TestConformance(t *testing.T) {
	t.Run("float32", func(t *testing.T) { conforms[float32](t) })
	t.Run("float64", func(t *testing.T) { conforms[float64](t) })
}

func conforms[T backend.Float](t *testing.T) {
	if _, err := gpu.Devices(); err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	backendtest.Run(t, func(t *testing.T) backend.Backend[T] { return open[T](t) })
}
