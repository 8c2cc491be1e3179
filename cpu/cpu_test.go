package cpu

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/backend/backendtest"
)

func TestConformance(t *testing.T) {
	t.Run("float32", conforms[float32])
	t.Run("float64", conforms[float64])
}

func conforms[T backend.Float](t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend[T] { return New[T]() })
}
