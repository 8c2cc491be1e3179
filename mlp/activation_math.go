package mlp

import "math"

const (
	leakySlope = 0.01
	geluCubic  = 0.044715

	sqrt2OverPi = math.Sqrt2 / math.SqrtPi       // √(2/π)
	invSqrt2Pi  = 1 / (math.Sqrt2 * math.SqrtPi) // 1/√(2π)
)

// Value is σ(x). It neither overflows nor loses its relative accuracy for large
// |x|, is the limit at ±Inf (NaN for Sin, which has none), and NaN at NaN.
func (a Activation) Value(x float64) float64 {
	switch a {
	case Identity:
		return x
	case Tanh:
		return math.Tanh(x)
	case Sigmoid:
		return sigmoid(x)
	case ReLU:
		if x <= 0 {
			return 0
		}
		return x
	case LeakyReLU:
		if x > 0 {
			return x
		}
		return leakySlope * x
	case ELU:
		if x > 0 {
			return x
		}
		return math.Expm1(x)
	case Softplus:
		return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
	case SiLU:
		return gate(x, sigmoid(x))
	case GELU:
		return gate(x, normalCDF(x))
	case GELUTanh:
		return gate(x, sigmoid(geluTanhArg(x)))
	case Sin:
		return math.Sin(x)
	}
	panic("mlp: unknown activation")
}

// Deriv is σ'(x), with the limit at ±Inf (NaN for Sin) and NaN at NaN (1 for
// Identity). At a kink it is what PyTorch takes: 0 for ReLU, 0.01 for LeakyReLU.
func (a Activation) Deriv(x float64) float64 {
	_, dy := a.Both(x)
	return dy
}

// Both is σ(x) and σ'(x), the same to the last bit as Value and Deriv, for less
// work than the two of them.
func (a Activation) Both(x float64) (y, dy float64) {
	switch a {
	case Identity:
		return x, 1
	case Tanh:
		y = math.Tanh(x)
		if math.Abs(x) < 1 {
			return y, 1 - y*y
		}
		// 1 - tanh² cancels here. sech²x = 4σ(2x)σ(-2x).
		return y, 4 * sigmoidDeriv(2*x)
	case Sigmoid:
		return sigmoid(x), sigmoidDeriv(x)
	case ReLU:
		switch {
		case x > 0:
			return x, 1
		case x <= 0:
			return 0, 0
		}
		return x, x // NaN
	case LeakyReLU:
		switch {
		case x > 0:
			return x, 1
		case x <= 0:
			return leakySlope * x, leakySlope
		}
		return x, x // NaN
	case ELU:
		if x > 0 {
			return x, 1
		}
		return math.Expm1(x), math.Exp(x)
	case Softplus:
		return a.Value(x), sigmoid(x)
	case SiLU:
		return gateBoth(x, sigmoid(x), sigmoidDeriv(x))
	case GELU:
		return gateBoth(x, normalCDF(x), invSqrt2Pi*math.Exp(-x*x/2))
	case GELUTanh:
		u := geluTanhArg(x)
		d := sigmoidDeriv(u)
		if d != 0 {
			d *= 2 * sqrt2OverPi * (1 + 3*geluCubic*x*x)
		}
		return gateBoth(x, sigmoid(u), d)
	case Sin:
		return math.Sin(x), math.Cos(x)
	}
	panic("mlp: unknown activation")
}

// sigmoid is 1/(1+e^-x), arranged so that the exponential cannot overflow.
func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

// sigmoidDeriv is σ(x)σ(-x) without the cancellation of σ(1-σ).
func sigmoidDeriv(x float64) float64 {
	e := math.Exp(-math.Abs(x))
	return e / ((1 + e) * (1 + e))
}

// normalCDF is Φ(x), by the error function so that its tail keeps its digits.
func normalCDF(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }

// geluTanhArg is u with (1+tanh(u/2))/2 = sigmoid(u) in GELUTanh: that form has
// no cancellation for negative x. It is u = 2√(2/π)(x + 0.044715x³).
func geluTanhArg(x float64) float64 { return 2 * sqrt2OverPi * x * (1 + geluCubic*x*x) }

// gate is x·p for a gate p that vanishes faster than |x| grows.
func gate(x, p float64) float64 {
	if p == 0 {
		return 0
	}
	return x * p
}

// gateBoth is x·p(x) and its derivative p + x·p', given p and p'.
func gateBoth(x, p, dp float64) (y, dy float64) {
	if dp == 0 {
		return gate(x, p), p
	}
	return gate(x, p), p + x*dp
}
