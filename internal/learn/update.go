package learn

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Memory is what an optimiser remembers of every parameter; nil where its formulas have
// none.
type Memory[T backend.Float] struct{ M, V, A []T }

// Update makes one update of theta by clip times the gradient grad. Arithmetic of the
// elements is in T.
func Update[T backend.Float](o *backend.Optimizer, clip float64, theta, grad []T, s Memory[T]) {
	switch o.Kind {
	case backend.Adam, backend.AdamW:
		updateAdam(o, clip, theta, grad, s)
	case backend.RMSprop:
		updateRMSprop(o, clip, theta, grad, s)
	case backend.SGD:
		updateSGD(o, clip, theta, grad, s)
	}
}

func updateAdam[T backend.Float](o *backend.Optimizer, clip float64, theta, grad []T, s Memory[T]) {
	t := float64(o.Step)
	root := math.Sqrt(1 - math.Pow(o.Beta2, t))
	step := T(o.LR / (1 - math.Pow(o.Beta1, t)))
	b1, c1, b2, c2 := T(o.Beta1), T(1-o.Beta1), T(o.Beta2), T(1-o.Beta2)
	eps, scale := T(o.Eps), T(1/root)
	decay, keep := T(o.WeightDecay), T(1)
	if o.Kind == backend.AdamW {
		decay, keep = 0, T(1-o.LR*o.WeightDecay)
	}
	for i, p := range theta {
		g := T(clip*float64(grad[i])) + decay*p
		m := b1*s.M[i] + c1*g
		v := b2*s.V[i] + c2*g*g
		s.M[i], s.V[i] = m, v
		theta[i] = keep*p - step*m/(sqrt(v)*scale+eps)
	}
}

func updateRMSprop[T backend.Float](o *backend.Optimizer, clip float64, theta, grad []T, s Memory[T]) {
	rate, alpha, beta := T(o.LR), T(o.Alpha), T(1-o.Alpha)
	decay, eps, mu := T(o.WeightDecay), T(o.Eps), T(o.Momentum)
	for i, p := range theta {
		g := T(clip*float64(grad[i])) + decay*p
		v := alpha*s.V[i] + beta*g*g
		s.V[i] = v
		if s.A != nil {
			a := alpha*s.A[i] + beta*g
			s.A[i] = a
			v = max(v-a*a, 0) // a variance, which rounding can make negative
		}
		d := g / (sqrt(v) + eps)
		if s.M != nil {
			d += mu * s.M[i]
			s.M[i] = d
		}
		theta[i] = p - rate*d
	}
}

func updateSGD[T backend.Float](o *backend.Optimizer, clip float64, theta, grad []T, s Memory[T]) {
	rate, decay, mu, damp := T(o.LR), T(o.WeightDecay), T(o.Momentum), T(1-o.Dampening)
	if o.Step == 1 {
		damp = 1
	}
	for i, p := range theta {
		g := T(clip*float64(grad[i])) + decay*p
		if s.M != nil {
			m := mu*s.M[i] + damp*g
			s.M[i] = m
			if o.Nesterov {
				g += mu * m
			} else {
				g = m
			}
		}
		theta[i] = p - rate*g
	}
}

func sqrt[T backend.Float](x T) T { return T(math.Sqrt(float64(x))) }

// Clip is the factor, at most 1, that takes a gradient with a finite norm down to limit;
// 0 means no limit.
func Clip(norm, limit float64) float64 {
	if limit == 0 || math.IsInf(norm, 0) {
		return 1
	}
	if c := limit / (norm + 1e-6); c < 1 {
		return c
	}
	return 1
}

// Norm is the Euclidean norm of x in float64, summed in ascending order. It
// overflows only if the norm itself does.
func Norm[T backend.Float](x []T) float64 {
	sum, largest := 0.0, 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
		largest = max(largest, math.Abs(float64(v)))
	}
	// The squares overflowed, or lost digits below the smallest normal number.
	if (math.IsInf(sum, 0) || sum < 0x1p-960) && largest > 0 && !math.IsInf(largest, 0) {
		_, e := math.Frexp(largest)
		sum = 0
		for _, v := range x {
			r := math.Ldexp(float64(v), -e)
			sum += r * r
		}
		return math.Ldexp(math.Sqrt(sum), e)
	}
	return math.Sqrt(sum)
}

// FirstNonFinite is the index of the first element that is not finite, or -1.
func FirstNonFinite[T backend.Float](x []T) int {
	for i, v := range x {
		if v-v != 0 {
			return i
		}
	}
	return -1
}
