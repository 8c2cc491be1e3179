package mlp

import "math"

// Second is the second derivative of σ at x, with the limit at ±Inf (NaN for Sin) and NaN at NaN (0 for
// Identity). At a kink, and of what is piecewise linear, it is 0; at the kink of ELU
// what it is below.
func (a Activation) Second(x float64) float64 {
	switch a {
	case Identity:
		return 0
	case Tanh:
		y, dy := a.Both(x)
		return -2 * y * dy
	case Sigmoid:
		return sigmoidSecond(x)
	case ReLU, LeakyReLU:
		if x != x {
			return x
		}
		return 0
	case ELU:
		if x > 0 {
			return 0
		}
		return math.Exp(x)
	case Softplus:
		return sigmoidDeriv(x)
	case SiLU:
		return gateSecond(x, sigmoidDeriv(x), sigmoidSecond(x))
	case GELU:
		d := invSqrt2Pi * math.Exp(-x*x/2)
		if d == 0 {
			return 0
		}
		return d * (2 - x*x)
	case GELUTanh:
		u := geluTanhArg(x)
		d := sigmoidDeriv(u)
		if d == 0 {
			return 0
		}
		du := 2 * sqrt2OverPi * (1 + 3*geluCubic*x*x)
		ddu := 2 * sqrt2OverPi * 6 * geluCubic * x
		return gateSecond(x, d*du, sigmoidSecond(u)*du*du+d*ddu)
	case Sin:
		return -math.Sin(x)
	}
	panic("mlp: unknown activation")
}

// sigmoidSecond is σ'(x)·(1-2σ(x)), and 1-2σ = -tanh(x/2).
func sigmoidSecond(x float64) float64 { return -sigmoidDeriv(x) * math.Tanh(x/2) }

// gateSecond is the second derivative of x·p(x), given the first and the second of p: 2·dp + x·ddp.
func gateSecond(x, dp, ddp float64) float64 {
	if dp == 0 {
		return 0
	}
	return 2*dp + x*ddp
}
