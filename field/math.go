package field

import "math"

// The functions of package math that right-hand sides use, with their slopes.
// float32 ones are computed in float64 and rounded once.

// Exp is eˣ.
func Exp[T Number](x T) T {
	return apply(x, math.Exp, func(_, y float64) float64 { return y })
}

// Expm1 is eˣ - 1, exact near 0.
func Expm1[T Number](x T) T {
	return apply(x, math.Expm1, func(x, _ float64) float64 { return math.Exp(x) })
}

// Log is the natural logarithm.
func Log[T Number](x T) T {
	return apply(x, math.Log, func(x, _ float64) float64 { return 1 / x })
}

// Log1p is ln(1 + x), exact near 0.
func Log1p[T Number](x T) T {
	return apply(x, math.Log1p, func(x, _ float64) float64 { return 1 / (1 + x) })
}

// Sqrt is √x.
func Sqrt[T Number](x T) T {
	return apply(x, math.Sqrt, func(_, y float64) float64 { return 0.5 / y })
}

// Sin is the sine of x in radians.
func Sin[T Number](x T) T {
	return apply(x, math.Sin, func(x, _ float64) float64 { return math.Cos(x) })
}

// Cos is the cosine of x in radians.
func Cos[T Number](x T) T {
	return apply(x, math.Cos, func(x, _ float64) float64 { return -math.Sin(x) })
}

// Tan is the tangent of x in radians.
func Tan[T Number](x T) T {
	return apply(x, math.Tan, func(_, y float64) float64 { return 1 + y*y })
}

// Asin is the inverse of Sin, in radians.
func Asin[T Number](x T) T {
	return apply(x, math.Asin, func(x, _ float64) float64 { return 1 / math.Sqrt((1-x)*(1+x)) })
}

// Acos is the inverse of Cos, in radians.
func Acos[T Number](x T) T {
	return apply(x, math.Acos, func(x, _ float64) float64 { return -1 / math.Sqrt((1-x)*(1+x)) })
}

// Atan is the inverse of Tan, in radians.
func Atan[T Number](x T) T {
	return apply(x, math.Atan, func(x, _ float64) float64 { return 1 / (1 + x*x) })
}

// Atan2 is the angle of the point (x, y), in radians from -π to π; its slopes at
// the origin are 0.
func Atan2[T Number](y, x T) T {
	return apply2(y, x, math.Atan2, func(y, x, _ float64) (dy, dx float64) {
		r := math.Hypot(x, y)
		if r == 0 {
			return 0, 0
		}
		return x / r / r, -y / r / r
	})
}

// Sinh is the hyperbolic sine.
func Sinh[T Number](x T) T {
	return apply(x, math.Sinh, func(x, _ float64) float64 { return math.Cosh(x) })
}

// Cosh is the hyperbolic cosine.
func Cosh[T Number](x T) T {
	return apply(x, math.Cosh, func(x, _ float64) float64 { return math.Sinh(x) })
}

// Tanh is the hyperbolic tangent.
func Tanh[T Number](x T) T {
	return apply(x, math.Tanh, func(x, _ float64) float64 {
		s := 1 / math.Cosh(x) // 1 - tanh² would cancel
		return s * s
	})
}

// Pow is xʸ. Where x < 0, y must be an integer that does not depend on what is
// derived by: the slope in y is NaN there. At x = 0 it is taken as 0 for y ≥ 0.
func Pow[T Number](x, y T) T {
	return apply2(x, y, math.Pow, func(x, y, z float64) (dx, dy float64) {
		if y != 0 { // 0·0⁻¹ is NaN
			dx = y * math.Pow(x, y-1)
		}
		if x != 0 || y < 0 {
			dy = z * math.Log(x)
		}
		return dx, dy
	})
}

// Hypot is √(x² + y²) without overflow on the way; its slopes at the origin are 0.
func Hypot[T Number](x, y T) T {
	return apply2(x, y, math.Hypot, func(x, y, z float64) (dx, dy float64) {
		if z == 0 {
			return 0, 0
		}
		return x / z, y / z
	})
}

// Abs is |x|; its slope at 0 is 0.
func Abs[T Number](x T) T {
	switch v := Value(x); {
	case v < 0:
		return -x
	case v == 0:
		return 0
	}
	return x
}

// Max is the larger of x and y, y if they are equal, NaN if one is.
func Max[T Number](x, y T) T {
	if v := Value(x); v > Value(y) || math.IsNaN(v) {
		return x
	}
	return y
}

// Min is the smaller of x and y, y if they are equal, NaN if one is.
func Min[T Number](x, y T) T {
	if v := Value(x); v < Value(y) || math.IsNaN(v) {
		return x
	}
	return y
}
