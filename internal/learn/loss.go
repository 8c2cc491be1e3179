// Package learn has the arithmetic of a training step on the host: losses with their
// derivatives, the norm of a gradient, and updates. Package train documents the formulas;
// settings are valid here, with defaults filled in.
package learn

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Label is a class: a whole number from 0, or a negative one where there is none.
type Label interface{ int32 | float32 | float64 }

// Target is what predictions are compared with: Values, one for each of them, or Labels,
// one for every row of logits. Weights, nil for 1, has an entry for each of these.
type Target[T backend.Float, L Label] struct {
	Values  []T
	Labels  []L
	Weights []T
}

// Weight is what element i counts; one with a negative label counts 0.
func (y *Target[T, L]) Weight(i int) float64 {
	if y.Labels != nil && y.Labels[i] < 0 {
		return 0
	}
	if y.Weights == nil {
		return 1
	}
	return float64(y.Weights[i])
}

// Total is the sum of all weights, in ascending order.
func (y *Target[T, L]) Total() (sum float64) {
	n := max(len(y.Values), len(y.Labels))
	if y.Labels == nil && y.Weights == nil {
		return float64(n)
	}
	for i := range n {
		sum += y.Weight(i)
	}
	return sum
}

// Eval returns Σ w_i ℓ_i, over total if l.Mean, of the predictions pred and, unless grad
// is nil, sets it to the derivative with respect to them.
func Eval[T backend.Float, L Label](l backend.Loss, pred []T, y *Target[T, L], total float64, grad []T) float64 {
	scale, sum := 1.0, 0.0
	if l.Mean {
		scale = 1 / total
	}
	Each(l, pred, y, grad, scale, func(_ int, loss float64) { sum += loss })
	return sum * scale
}

// Each calls each with w_i ℓ_i of every element that counts, in order, and sets
// grad, if not nil, to scale times the derivative of their sum.
func Each[T backend.Float, L Label](l backend.Loss, pred []T, y *Target[T, L], grad []T, scale float64, each func(i int, loss float64)) {
	clear(grad)
	if l.Kind == backend.CrossEntropy {
		c := len(pred) / max(len(y.Labels), 1)
		for i, label := range y.Labels {
			if w := y.Weight(i); w != 0 {
				var g []T
				if grad != nil {
					g = grad[i*c : (i+1)*c]
				}
				each(i, w*crossEntropy(pred[i*c:(i+1)*c], int(label), g, scale*w))
			}
		}
		return
	}
	for i, p := range pred {
		w := y.Weight(i)
		if w == 0 {
			continue
		}
		r := float64(p) - float64(y.Values[i])
		var loss, slope float64
		switch size := math.Abs(r); {
		case l.Kind == backend.MSE:
			loss, slope = r*r, 2*r
		case l.Kind == backend.Huber && size <= l.Delta:
			loss, slope = r*r/2, r
		case l.Kind == backend.Huber:
			loss, slope = l.Delta*(size-l.Delta/2), math.Copysign(l.Delta, r)
		case r == 0:
			// MAE at its kink.
		default:
			loss, slope = size, r/size
		}
		each(i, w*loss)
		if grad != nil {
			grad[i] = T(scale * w * slope)
		}
	}
}

// crossEntropy returns the loss of one row and sets g, if not nil, to scale times
// its derivative, softmax(x) - onehot(c). The largest logit is taken out of the
// exponentials, so that none overflows, and out of their sum, so that a loss near 0
// keeps its digits.
func crossEntropy[T backend.Float](x []T, c int, g []T, scale float64) float64 {
	top := 0
	for j, v := range x {
		if v > x[top] {
			top = j
		}
	}
	m, rest := float64(x[top]), 0.0
	for j, v := range x {
		if j != top {
			rest += math.Exp(float64(v) - m)
		}
	}
	for j := range g {
		p := math.Exp(float64(x[j])-m) / (1 + rest)
		if j == c {
			p--
			if c == top {
				p = -rest / (1 + rest)
			}
		}
		g[j] = T(scale * p)
	}
	return (m - float64(x[c])) + math.Log1p(rest)
}
