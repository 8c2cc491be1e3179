package field

// Number is what a generic right-hand side computes with: + - * / and the
// functions of this package. Constants mix in as they are, 2*x or x/3, and
// variables through [Const]. Decide by [Value]: == on a Dual compares tangents
// too.
type Number interface{ float32 | float64 | Dual }

// Dual is a dual number x + ẋ·ε, ε² = 0: a value and its tangent. It is a
// complex number whose imaginary part holds ẋ·2⁻⁶⁰⁰, so that Go's operators do
// the arithmetic: the product of two imaginary parts, 2⁻¹²⁰⁰ in size, is lost to
// underflow, which leaves exactly the product rule (the complex step of Squire &
// Trapp 1998, SIAM Review 40, 110, at a step where it is exact). Do not use the
// functions of math/cmplx: those here take the tangent along.
//
// While values and tangents are 0 or between 1e-30 and 1e30 in size, every
// operation gives the value that float64 gives, bit for bit, and the tangent to
// rounding. Only a value that should be 0 may come out as up to 1e-240 where two
// tangents above 1e18, or 1e18 times the divisor, meet. Beyond that range the
// tangent loses digits once a product or quotient on its way is below 1e-127, and
// is 0 below 1e-143. A quotient by 0 has no meaning.
type Dual = complex128

const (
	step   = 0x1p-600
	unstep = 0x1p+600
)

// MakeDual is the dual number value + tangent·ε.
func MakeDual(value, tangent float64) Dual { return complex(value, tangent*step) }

// Tangent is ẋ of x + ẋ·ε.
func Tangent(x Dual) float64 { return imag(x) * unstep }

// Const is x as a T without tangent, for numbers known only when the program runs.
func Const[T Number](x float64) T { var c T; return Chain(c, x, 0) }

// Value is the value of x without its tangent, for decisions.
func Value[T Number](x T) float64 {
	switch p := any(&x).(type) {
	case *float32:
		return float64(*p)
	case *float64:
		return *p
	case *Dual:
		return real(*p)
	}
	panic("field: unreachable")
}

// Chain is g(x) by the chain rule for a function g that this package lacks, such
// as a table that is interpolated: y is g and slope is g' at Value(x).
func Chain[T Number](x T, y, slope float64) T {
	switch p := any(&x).(type) {
	case *float32:
		*p = float32(y)
	case *float64:
		*p = y
	case *Dual:
		*p = complex(y, times(imag(*p), slope))
	}
	return x
}

// times is a tangent times a slope. What does not move has no tangent, however
// steep the function: √0 of a constant 0 must not turn a whole product into NaN.
func times(tangent, slope float64) float64 {
	if tangent == 0 {
		return 0
	}
	return tangent * slope
}

// apply is y = g(x), with g'(x) = slope(x, y) computed for a Dual only.
func apply[T Number](x T, g func(x float64) float64, slope func(x, y float64) float64) T {
	switch p := any(&x).(type) {
	case *float32:
		*p = float32(g(float64(*p)))
	case *float64:
		*p = g(*p)
	case *Dual:
		v := real(*p)
		y := g(v)
		*p = complex(y, times(imag(*p), slope(v, y)))
	}
	return x
}

// apply2 is z = g(x, y); slopes returns ∂g/∂x and ∂g/∂y.
func apply2[T Number](x, y T, g func(x, y float64) float64, slopes func(x, y, z float64) (dx, dy float64)) T {
	switch p := any(&x).(type) {
	case *float32:
		*p = float32(g(float64(*p), Value(y)))
	case *float64:
		*p = g(*p, Value(y))
	case *Dual:
		q := any(&y).(*Dual)
		z := g(real(*p), real(*q))
		dx, dy := slopes(real(*p), real(*q), z)
		*p = complex(z, times(imag(*p), dx)+times(imag(*q), dy))
	}
	return x
}
