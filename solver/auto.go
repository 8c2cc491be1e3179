package solver

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
)

// Auto opens the fastest device that answers. Today that is the CPU; a Solution
// says which device computed it. The caller closes the backend.
func Auto[T backend.Float]() backend.Backend[T] {
	return cpu.New[T]()
}
