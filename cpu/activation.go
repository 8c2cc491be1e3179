package cpu

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// activate sets y = act(x), element by element.
func activate[T backend.Float](act mlp.Activation, y, x []T) {
	switch act {
	case mlp.Identity:
		copy(y, x)
	case mlp.Tanh:
		for i, v := range x {
			y[i] = T(math.Tanh(float64(v)))
		}
	default:
		for i, v := range x {
			y[i] = T(act.Value(float64(v)))
		}
	}
}

// timesDerivative multiplies d by act'(x), where y = act(x).
func timesDerivative[T backend.Float](act mlp.Activation, d, x, y []T) {
	switch act {
	case mlp.Identity:
	case mlp.Tanh:
		for i, v := range y {
			d[i] *= 1 - v*v
		}
	default:
		for i, v := range x {
			d[i] *= T(act.Deriv(float64(v)))
		}
	}
}
