package learn

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Hash is FNV-1a over the elements of x: what noise that is a function of the parameters
// begins from.
func Hash[T backend.Float](x []T) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range x {
		h = (h ^ math.Float64bits(float64(v))) * 1099511628211
	}
	return h
}
