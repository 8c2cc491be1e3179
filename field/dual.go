package field

import "math"

// Number is what a generic right-hand side computes with: + - * / and the
// functions of this package. Constants mix in as they are: 2*x, x/3.
type Number interface{ float32 | float64 | Dual }

// Dual is a dual number a + ȧ·ε, ε² = 0: a value and its tangent. It is a
// complex number whose imaginary part holds ȧ·2⁻⁶⁰⁰, so that Go's operators do
// the arithmetic: the product of two imaginary parts, 2⁻¹²⁰⁰ in size, is lost to
// underflow, which leaves exactly the product rule (the complex step of Squire &
// Trapp 1998, SIAM Review 40, 110, at a step where it is exact). Do not use the
// functions of math/cmplx: those here take the tangent along.
type Dual = complex128

const (
	step   = 0x1p-600
	unstep = 0x1p+600
)

// MakeDual is the dual number value + tangent·ε.
func MakeDual(value, tangent float64) Dual { return complex(value, tangent*step) }

// Tangent is ȧ of a + ȧ·ε.
func Tangent(x Dual) float64 { return imag(x) * unstep }

// Value is the value of x without its tangent, for decisions.
func Value[T Number](x T) float64 {
	switch x := any(x).(type) {
	case float32:
		return float64(x)
	case float64:
		return x
	case Dual:
		return real(x)
	}
	panic("field: unreachable")
}

// chain returns v with the tangent of x times slope: the chain rule.
func chain[T Number](x T, v, slope float64) T {
	var y any
	switch x := any(x).(type) {
	case float32:
		y = float32(v)
	case float64:
		y = v
	case Dual:
		y = complex(v, imag(x)*slope)
	}
	return y.(T)
}

// Exp is eˣ.
func Exp[T Number](x T) T { e := math.Exp(Value(x)); return chain(x, e, e) }

// Expm1 is eˣ - 1, exact near 0.
func Expm1[T Number](x T) T { e := math.Expm1(Value(x)); return chain(x, e, e+1) }

// Log is the natural logarithm.
func Log[T Number](x T) T { v := Value(x); return chain(x, math.Log(v), 1/v) }

// Log1p is ln(1 + x), exact near 0.
func Log1p[T Number](x T) T { v := Value(x); return chain(x, math.Log1p(v), 1/(1+v)) }

// Sqrt is √x.
func Sqrt[T Number](x T) T { r := math.Sqrt(Value(x)); return chain(x, r, 0.5/r) }

// Sin is the sine of x in radians.
func Sin[T Number](x T) T { s, c := math.Sincos(Value(x)); return chain(x, s, c) }

// Cos is the cosine of x in radians.
func Cos[T Number](x T) T { s, c := math.Sincos(Value(x)); return chain(x, c, -s) }

// Tan is the tangent of x in radians.
func Tan[T Number](x T) T { y := math.Tan(Value(x)); return chain(x, y, 1+y*y) }

// Asin is the inverse of Sin, in radians.
func Asin[T Number](x T) T { v := Value(x); return chain(x, math.Asin(v), 1/math.Sqrt(1-v*v)) }

// Acos is the inverse of Cos, in radians.
func Acos[T Number](x T) T { v := Value(x); return chain(x, math.Acos(v), -1/math.Sqrt(1-v*v)) }

// Atan is the inverse of Tan, in radians.
func Atan[T Number](x T) T { v := Value(x); return chain(x, math.Atan(v), 1/(1+v*v)) }

// Sinh is the hyperbolic sine.
func Sinh[T Number](x T) T { v := Value(x); return chain(x, math.Sinh(v), math.Cosh(v)) }

// Cosh is the hyperbolic cosine.
func Cosh[T Number](x T) T { v := Value(x); return chain(x, math.Cosh(v), math.Sinh(v)) }

// Tanh is the hyperbolic tangent.
func Tanh[T Number](x T) T { y := math.Tanh(Value(x)); return chain(x, y, 1-y*y) }

// Pow is xʸ. The tangent of y counts only where x > 0.
func Pow[T Number](x, y T) T {
	a, b := Value(x), Value(y)
	v := math.Pow(a, b)
	r := chain(x, v, b*math.Pow(a, b-1))
	if a > 0 {
		// r carries the value once; add only the other tangent.
		r += chain(y, v, v*math.Log(a)) - chain(0*y, v, 0)
	}
	return r
}

// Abs is |x|; its slope at 0 is 0.
func Abs[T Number](x T) T {
	v := Value(x)
	switch {
	case v < 0:
		return -x
	case v == 0:
		return 0 * x
	}
	return x
}

// Max is the larger of x and y, y if they are equal.
func Max[T Number](x, y T) T {
	if Value(x) > Value(y) {
		return x
	}
	return y
}

// Min is the smaller of x and y, y if they are equal.
func Min[T Number](x, y T) T {
	if Value(x) < Value(y) {
		return x
	}
	return y
}
