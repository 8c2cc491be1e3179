package field

import (
	"math"
	"math/big"
	"math/cmplx"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/diff/fd"
)

// function is one of math.go at every type, with its reference.
type function struct {
	name   string
	f32    func(float32) float32
	f64    func(float64) float64
	dual   func(Dual) Dual
	value  func(float64) float64
	slope  func(complex128) complex128 // the analytic continuation; nil if package cmplx has none
	lo, hi float64                     // where it is differentiable
}

var functions = []function{
	{"Exp", Exp[float32], Exp[float64], Exp[Dual], math.Exp, cmplx.Exp, -20, 20},
	{"Expm1", Expm1[float32], Expm1[float64], Expm1[Dual], math.Expm1, cmplx.Exp, -20, 20},
	{"Log", Log[float32], Log[float64], Log[Dual], math.Log, cmplx.Log, 1e-3, 50},
	{"Log1p", Log1p[float32], Log1p[float64], Log1p[Dual], math.Log1p, nil, -0.99, 50},
	{"Sqrt", Sqrt[float32], Sqrt[float64], Sqrt[Dual], math.Sqrt, cmplx.Sqrt, 1e-3, 50},
	{"Sin", Sin[float32], Sin[float64], Sin[Dual], math.Sin, cmplx.Sin, -20, 20},
	{"Cos", Cos[float32], Cos[float64], Cos[Dual], math.Cos, cmplx.Cos, -20, 20},
	{"Tan", Tan[float32], Tan[float64], Tan[Dual], math.Tan, nil, -1.5, 1.5},
	{"Asin", Asin[float32], Asin[float64], Asin[Dual], math.Asin, nil, -0.99, 0.99},
	{"Acos", Acos[float32], Acos[float64], Acos[Dual], math.Acos, nil, -0.99, 0.99},
	{"Atan", Atan[float32], Atan[float64], Atan[Dual], math.Atan, nil, -20, 20},
	{"Sinh", Sinh[float32], Sinh[float64], Sinh[Dual], math.Sinh, cmplx.Sinh, -20, 20},
	{"Cosh", Cosh[float32], Cosh[float64], Cosh[Dual], math.Cosh, cmplx.Cosh, -20, 20},
	{"Tanh", Tanh[float32], Tanh[float64], Tanh[Dual], math.Tanh, nil, -20, 20},
	{"Abs", Abs[float32], Abs[float64], Abs[Dual], math.Abs, nil, 1e-3, 20},
	{"Abs", Abs[float32], Abs[float64], Abs[Dual], math.Abs, nil, -20, -1e-3},
	{"Pow(x, 3)", pow3[float32], pow3[float64], pow3[Dual], func(x float64) float64 { return math.Pow(x, 3) }, nil, -5, 5},
	{"Pow(x, -2.5)", powM[float32], powM[float64], powM[Dual], func(x float64) float64 { return math.Pow(x, -2.5) }, nil, 0.1, 9},
	{"Pow(2.5, x)", exp25[float32], exp25[float64], exp25[Dual], func(x float64) float64 { return math.Pow(2.5, x) }, nil, -9, 9},
	{"Pow(x, x)", powX[float32], powX[float64], powX[Dual], func(x float64) float64 { return math.Pow(x, x) }, nil, 0.1, 5},
	{"Hypot(x, 3)", hypot3[float32], hypot3[float64], hypot3[Dual], func(x float64) float64 { return math.Hypot(x, 3) }, nil, -9, 9},
	{"Hypot(3, x)", hypot3r[float32], hypot3r[float64], hypot3r[Dual], func(x float64) float64 { return math.Hypot(3, x) }, nil, -9, 9},
	{"Atan2(x, -3)", atan2y[float32], atan2y[float64], atan2y[Dual], func(x float64) float64 { return math.Atan2(x, -3) }, nil, 0.1, 9},
	{"Atan2(-3, x)", atan2x[float32], atan2x[float64], atan2x[Dual], func(x float64) float64 { return math.Atan2(-3, x) }, nil, -9, 9},
	{"Max(x, 2)", max2[float32], max2[float64], max2[Dual], func(x float64) float64 { return math.Max(x, 2) }, nil, 2.1, 9},
	{"Max(2, x)", max2[float32], max2[float64], max2[Dual], func(x float64) float64 { return math.Max(x, 2) }, nil, -9, 1.9},
	{"Min(x, 2)", min2[float32], min2[float64], min2[Dual], func(x float64) float64 { return math.Min(x, 2) }, nil, -9, 1.9},
	{"Min(2, x)", min2[float32], min2[float64], min2[Dual], func(x float64) float64 { return math.Min(x, 2) }, nil, 2.1, 9},
}

func pow3[T Number](x T) T    { return Pow(x, 3) }
func powM[T Number](x T) T    { return Pow(x, -2.5) }
func exp25[T Number](x T) T   { return Pow(2.5, x) }
func powX[T Number](x T) T    { return Pow(x, x) }
func hypot3[T Number](x T) T  { return Hypot(x, 3) }
func hypot3r[T Number](x T) T { return Hypot(3, x) }
func atan2y[T Number](x T) T  { return Atan2(x, -3) }
func atan2x[T Number](x T) T  { return Atan2(-3, x) }
func max2[T Number](x T) T    { return Max(2, x) }
func min2[T Number](x T) T    { return Min(x, 2) }

func close(got, want, tol float64) bool {
	return got == want || math.Abs(got-want) <= tol+tol*math.Abs(want)
}

func same(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }

// Values are those of package math to the last bit, at every type; slopes are
// those of central differences, whose error is h²/6·f”' + 1e-16·f/h < 1e-7·(1+|f'|)
// for these functions at these steps, and to rounding those of complex steps.
func TestFunctions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, f := range functions {
		for range 200 {
			x := f.lo + (f.hi-f.lo)*r.Float64()
			want := f.value(x)
			y := f.dual(MakeDual(x, 2))
			if got := f.f64(x); !same(got, want) || !same(real(y), want) || !same(Value(y), want) {
				t.Errorf("%s: %v at %v and the Dual %v, want %v", f.name, got, x, real(y), want)
			}
			if got, want := f.f32(float32(x)), float32(f.value(float64(float32(x)))); got != want {
				t.Errorf("%s at float32: %v at %v, want %v", f.name, got, x, want)
			}
			slope := Tangent(y) / 2
			// A step that suits the nearest singularity.
			h := 1e-5 * math.Min(1, math.Min(x-f.lo, f.hi-x)+1e-3)
			if got := fd.Derivative(f.value, x, &fd.Settings{Formula: fd.Central, Step: h}); !close(slope, got, 1e-7) {
				t.Errorf("%s: slope %v at %v, by differences %v", f.name, slope, x, got)
			}
			if f.slope != nil {
				// The few roundings of a function and its slope.
				if want := imag(f.slope(complex(x, 1e-100))) / 1e-100; !close(slope, want, 8*0x1p-52) {
					t.Errorf("%s: slope %v at %v, by a complex step %v", f.name, slope, x, want)
				}
			}
			if got := f.dual(complex(x, 0)); imag(got) != 0 {
				t.Errorf("%s of a constant has the tangent %v", f.name, Tangent(got))
			}
		}
	}
}

func TestFunctions_Edges(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	d := func(v float64) Dual { return MakeDual(v, 1) }
	for _, c := range []struct {
		name         string
		got          Dual
		value, slope float64
	}{
		{"Sqrt(0)", Sqrt(d(0)), 0, inf},
		{"Sqrt of a constant 0", Sqrt(Dual(0)), 0, 0},
		{"Sqrt(-1)", Sqrt(d(-1)), nan, nan},
		{"Log(0)", Log(d(0)), -inf, inf},
		{"Log of a constant 0", Log(Dual(0)), -inf, 0},
		{"Log1p(-1)", Log1p(d(-1)), -inf, inf},
		{"Log1p(1e-300)", Log1p(d(1e-300)), 1e-300, 1},
		{"Expm1(1e-300)", Expm1(d(1e-300)), 1e-300, 1},
		{"Expm1(-50)", Expm1(d(-50)), math.Expm1(-50), math.Exp(-50)}, // y + 1 would be 0
		{"Exp(-290)", Exp(d(-290)), math.Exp(-290), math.Exp(-290)},   // about 1e-126
		{"Exp(700)", Exp(d(700)), math.Exp(700), math.Exp(700)},
		{"Exp(710)", Exp(d(710)), inf, inf},
		{"Exp(-800)", Exp(d(-800)), 0, 0},
		{"Tanh(20)", Tanh(d(20)), 1, 1 / math.Cosh(20) / math.Cosh(20)}, // 1 - y² would be 0
		{"Tanh(1000)", Tanh(d(1000)), 1, 0},
		{"Tanh(-Inf)", Tanh(d(-inf)), -1, 0},
		{"Sinh(0)", Sinh(d(0)), 0, 1},
		{"Cosh(0)", Cosh(d(0)), 1, 0},
		{"Asin(1)", Asin(d(1)), math.Pi / 2, inf},
		{"Acos(-1)", Acos(d(-1)), math.Pi, -inf},
		{"Asin(1-2⁻⁵³)", Asin(d(1 - 0x1p-53)), math.Asin(1 - 0x1p-53), 1 / math.Sqrt(0x1p-53*(2-0x1p-53))},
		{"Asin(2)", Asin(d(2)), nan, nan},
		{"Atan(1e300)", Atan(d(1e300)), math.Pi / 2, 0},
		{"Abs(0)", Abs(d(0)), 0, 0},
		{"Abs(-0)", Abs(d(math.Copysign(0, -1))), 0, 0},
		{"Abs(-2)", Abs(d(-2)), 2, -1},
		{"Abs(NaN)", Abs(d(nan)), nan, 1},
		{"Abs(-Inf)", Abs(d(-inf)), inf, -1},
		{"Pow(0, 0)", Pow(d(0), 0), 1, 0},
		{"Pow(0, 1)", Pow(d(0), 1), 0, 1},
		{"Pow(0, 2)", Pow(d(0), 2), 0, 0},
		{"Pow(0, 0.5)", Pow(d(0), 0.5), 0, inf},
		{"Pow(0, -1)", Pow(d(0), -1), inf, -inf},
		{"Pow(-2, 3)", Pow(d(-2), 3), -8, 12},
		{"Pow(-2, -1)", Pow(d(-2), -1), -0.5, -0.25},
		{"Pow(-2, 0)", Pow(d(-2), 0), 1, 0},
		{"Pow(-2, 0.5)", Pow(d(-2), 0.5), nan, nan},
		{"Pow(2, y)", Pow(2, d(3)), 8, 8 * math.Ln2},
		{"Pow(0, y)", Pow(0, d(3)), 0, 0},
		{"Pow(0, y) at 0", Pow(0, d(0)), 1, 0},
		{"Pow(-2, y)", Pow(-2, d(3)), -8, nan},
		{"Pow(1e200, 2)", Pow(d(1e200), 2), inf, 2e200},
		{"Hypot(0, 0)", Hypot(d(0), d(0)), 0, 0},
		{"Hypot(3e200, 4e200)", Hypot(d(3e200), d(4e200)), 5e200, 1.4},
		{"Hypot(-3e-200, 4e-200)", Hypot(d(-3e-200), d(4e-200)), 5e-200, 0.2},
		{"Atan2(0, 0)", Atan2(d(0), d(0)), 0, 0},
		{"Atan2(0, -1)", Atan2(d(0), -1), math.Pi, -1},
		{"Atan2(1e200, 1e200)", Atan2(d(1e200), 0), math.Pi / 2, 0},
		{"Max(1, 1)", Max(d(1), 1), 1, 0},
		{"Max(1, 1) the other way", Max(1, d(1)), 1, 1},
		{"Min(1, 1)", Min(d(1), 1), 1, 0},
		{"Max(NaN, 1)", Max(MakeDual(nan, 1), 1), nan, 1},
		{"Max(1, NaN)", Max(1, MakeDual(nan, 1)), nan, 1},
		{"Min(NaN, 1)", Min(MakeDual(nan, 1), 1), nan, 1},
		{"Min(1, NaN)", Min(1, MakeDual(nan, 1)), nan, 1},
		{"Sin(1e22)", Sin(d(1e22)), math.Sin(1e22), math.Cos(1e22)},
		{"Const(3)", Const[Dual](3), 3, 0},
		{"Chain", Chain(d(5), 7, 11), 7, 11},
		{"Chain of a constant", Chain(Dual(5), 7, inf), 7, 0},
		{"saturated sigmoid", 1 / (1 + Exp(-d(-1000))), 0, 0},
		{"1/0 of constants", 1 / Const[Dual](0), inf, nan},
	} {
		ok := func(got, want float64) bool {
			return math.IsNaN(got) && math.IsNaN(want) || close(got, want, 4*0x1p-52)
		}
		if got, slope := real(c.got), Tangent(c.got); !ok(got, c.value) || !ok(slope, c.slope) {
			t.Errorf("%s is %v with slope %v, want %v and %v", c.name, got, slope, c.value, c.slope)
		}
	}
	if got := Const[float32](0.1); got != 0.1 {
		t.Errorf("Const at float32 is %v", got)
	}
	if got := Chain(float32(1), 0.1, 5) + float32(Chain(1.0, 2, 5)); got != 2.1 {
		t.Errorf("Chain at real types is %v", got)
	}
}

// span is random in sign and log-uniform in size.
func span(r *rand.Rand, lo, hi float64) float64 {
	x := math.Pow(10, lo+(hi-lo)*r.Float64())
	if r.IntN(2) == 0 {
		return -x
	}
	return x
}

// In the range that Dual documents, the four operations give the float64 value to
// the last bit, and the tangent to a few roundings of its terms, by 300-bit
// arithmetic.
func TestDual_OperationsAreExact(t *testing.T) {
	b := func(x float64) *big.Float { return big.NewFloat(x).SetPrec(300) }
	mul := func(x, y *big.Float) *big.Float { return new(big.Float).Mul(x, y) }
	quo := func(x, y *big.Float) *big.Float { return new(big.Float).Quo(x, y) }
	r := rand.New(rand.NewPCG(2, 2))
	tangent := func() float64 {
		if r.IntN(4) == 0 {
			return 0
		}
		return span(r, -30, 30)
	}
	for range 50000 {
		x, dx, y, dy := span(r, -30, 30), tangent(), span(r, -30, 30), tangent()
		if r.IntN(10) == 0 {
			x = 0
		}
		X, Y := MakeDual(x, dx), MakeDual(y, dy)
		check := func(op string, got Dual, value, meet float64, terms ...*big.Float) {
			t.Helper()
			zero := 0.0 // what may stand for 0
			if meet > 1e18 {
				zero = 1e-240
			}
			if v := real(got); v != value && !(value == 0 && math.Abs(v) <= zero) { // ±0 are equal
				t.Fatalf("(%g + %gε) %s (%g + %gε) has value %g, want %g", x, dx, op, y, dy, v, value)
			}
			sum, size := new(big.Float).SetPrec(300), new(big.Float).SetPrec(300)
			for _, term := range terms {
				sum.Add(sum, term)
				size.Add(size, new(big.Float).Abs(term))
			}
			diff, _ := new(big.Float).Sub(sum, b(Tangent(got))).Float64()
			if s, _ := size.Float64(); !(math.Abs(diff) <= 4*0x1p-53*s) {
				want, _ := sum.Float64()
				t.Fatalf("(%g + %gε) %s (%g + %gε) has tangent %g, want %g", x, dx, op, y, dy, Tangent(got), want)
			}
		}
		largest := math.Max(math.Abs(dx), math.Abs(dy))
		check("+", X+Y, x+y, 0, b(dx), b(dy))
		check("-", X-Y, x-y, 0, b(dx), b(-dy))
		check("*", X*Y, x*y, largest, mul(b(x), b(dy)), mul(b(y), b(dx)))
		check("/", X/Y, x/y, largest/math.Abs(y), quo(b(dx), b(y)), mul(b(-1), quo(mul(b(x), b(dy)), mul(b(y), b(y)))))
	}
}

// What the documentation says of tangents out of range.
func TestDual_Range(t *testing.T) {
	for _, c := range []struct {
		tangent float64
		rel     float64 // error of MakeDual and Tangent
	}{{1.8e-127, 0}, {1e-127, 0x1p-52}, {1e-135, 1e-7}, {1e-144, 1}, {1.7e308, 0}} {
		got := Tangent(MakeDual(1, c.tangent))
		if e := math.Abs(got/c.tangent - 1); e > c.rel || c.rel == 1 && got != 0 {
			t.Errorf("tangent %g comes back as %g", c.tangent, got)
		}
	}
	if x := MakeDual(0, 1e18); real(x*x) != 0 {
		t.Errorf("0·0 with tangents 1e18 is %g", real(x*x))
	}
	if x := MakeDual(0, 1e100); real(x*x) == 0 || math.Abs(real(x*x)) > 1e-161 {
		t.Errorf("0·0 with tangents 1e100 is %g", real(x*x))
	}
}

// A long computation has the float64 value, bit for bit where the compiler does
// not fuse multiplications and additions, and its slope is that of differences.
func TestDual_LongComputation(t *testing.T) {
	for _, z := range []float64{0, 1e-12, 0.3, 1, 2.7, 15} {
		want := long(z)
		got := long(MakeDual(z, 1))
		// Fused, each of some 300 operations may differ by a rounding.
		if tol := 300 * 0x1p-53; !close(real(got), want, tol) {
			t.Errorf("value at %v is %v, in float64 %v", z, real(got), want)
		}
		h := 1e-5 * (1 + z)
		if slope := (long(z+h) - long(z-h)) / (2 * h); !close(Tangent(got), slope, 1e-8) {
			t.Errorf("slope at %v is %v, by differences %v", z, Tangent(got), slope)
		}
	}
}

func long[T Number](z T) T {
	x, y := z, Const[T](0.5)
	for range 20 {
		x, y = x+0.1*(Sin(y)*x-x*x/(1+x*x)), y+0.1*(Exp(-x*x)-y*Tanh(x)/(2+Cos(x*y)))
	}
	return x * y
}
