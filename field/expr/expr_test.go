package expr

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

func parse[T backend.Float](t testing.TB, set Settings[T], equations ...string) *System[T] {
	t.Helper()
	s, err := Parse(equations, set)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Values are those of the same expressions in Go.
func TestEval_MatchesGo(t *testing.T) {
	const x, y, c, at = 0.7, -1.3, 2.5, 0.4
	for _, e := range []struct {
		text string
		want float64
	}{
		{"1 + 2*3 - 4/8", 6.5},
		{"-x^2", -x * x},
		{"2^-x", math.Pow(2, -x)},
		{"2^3^2 * x", 512 * x},
		{"(2^3)^2 * x", 64 * x},
		{"x - y - c", x - y - c},
		{"x/y/c", x / y / c},
		{"x^-3", 1 / (x * (x * x))},
		{"x^0.5", math.Sqrt(x)},
		{"x^0", 1},
		{"x^c", math.Pow(x, c)},
		{"--x - -y", x + y},
		{"+x*-y", -x * y},
		{"1e-3*t + .5 + 2.E+1", 1e-3*at + .5 + 20},
		{"sin(pi*x) + cos(y)*tan(x)", math.Sin(math.Pi*x) + math.Cos(y)*math.Tan(x)},
		{"exp(x) + expm1(y) + log(c) + log1p(x) + sqrt(c)", math.Exp(x) + math.Expm1(y) + math.Log(c) + math.Log1p(x) + math.Sqrt(c)},
		{"asin(x) + acos(x)*2 + atan(y)", math.Asin(x) + math.Acos(x)*2 + math.Atan(y)},
		{"sinh(x) + cosh(y) + tanh(c)", math.Sinh(x) + math.Cosh(y) + math.Tanh(c)},
		{"abs(y) + 2*min(x, y) + 3*max(x, y)", math.Abs(y) + 2*min(x, y) + 3*max(x, y)},
		{"atan2(y, x) + pow(x, y) + hypot(x, y)", math.Atan2(y, x) + math.Pow(x, y) + math.Hypot(x, y)},
		{"if(x < y, x, c) + if(x > y, 10*x, 10*c)", c + 10*x},
		{"if(0.1 > x, 1/0, sqrt(x))", math.Sqrt(x)},
	} {
		s := parse(t, Settings[float64]{State: []string{"x", "y"}, Params: []string{"c"}, Theta: []float64{c}}, e.text, "0")
		dz := make([]float64, 2)
		s.Eval(at, []float64{x, y}, s.Params(), dz)
		if d := math.Abs(dz[0] - e.want); !(d <= 1e-15*max(1, math.Abs(e.want))) || dz[1] != 0 {
			t.Errorf("%s = %.17g, want %.17g", e.text, dz[0], e.want)
		}
	}
}

// everything uses each operation, some of them of several variables.
var everything = []string{
	"z0*z1 - a*z0/(1+z1^2) + exp(-t)*z1 + expm1(z0/4) + sinh(z1/2)*cosh(a*z0/3)",
	"sin(a*z0)*cos(z1) + tan(z0/5) + log(3+z0)*b + log1p(z1^2) + sqrt(4+z0*z1) + atan(b*z1)",
	"asin(z0/3) - acos(z1/3) + tanh(z0+a) + abs(z0-0.017)*b + hypot(z0, z1+4) + atan2(z1+5, z0)",
	"min(z0, z1*a) + max(z1, b*z2) + max(b*z2, z1) + min(z1*a, z0) + if(z0 < z1, z2*z1, a*z2^3) + pow(3+z0, z2/3) + (5+z1)^a + z2^-1",
}

// Products are the derivatives, first and second, on either side of every kink.
func TestProducts_MatchFiniteDifferences(t *testing.T) {
	t.Run("float64", func(t *testing.T) { differences[float64](t) })
	t.Run("float32", func(t *testing.T) { differences[float32](t) })
}

func differences[T backend.Float](t *testing.T) {
	f := parse(t, Settings[T]{Params: []string{"a", "b"}, Theta: []T{1.3, 0.7}}, everything...)
	for _, set := range []field.CheckSettings[T]{
		{Low: []T{-2, 0.3, 3.5, -2}, High: []T{-0.3, 2, 4, 2}},
		{Low: []T{0.3, -2, 3.5, -2}, High: []T{2, -0.3, 4, 2}},
	} {
		r, err := field.Check(f, set)
		if err != nil {
			t.Fatal(err)
		}
		if r.VJP.Entries == 0 || r.JVP.Entries == 0 || r.VJPTangent.Entries == 0 {
			t.Error("a product was not compared")
		}
	}
}

// What does not move has no slope, and a branch that is not taken none either.
func TestProducts_AtSingularities(t *testing.T) {
	for _, text := range []string{
		"sqrt(0*z0 + a*0) + z0", "if(z0 < 1, z0, log(z0-1))", "if(z0 < 1, z0, sqrt(z0-1))",
		"hypot(z0-0.5, 0) - hypot(z0-0.5, 0) + z0", "abs(z0-0.5) + z0", "atan2(z0-0.5, 0)*0 + z0",
		"pow(a, 2.5) + z0", "(z0-0.5)^b + z0", "max(z0, z0)", "min(z0, z0)",
	} {
		s := parse(t, Settings[float64]{Params: []string{"a", "b"}, Theta: []float64{0, 3}}, text)
		az, atheta, jv := []float64{0}, []float64{0, 0}, []float64{0}
		s.VJP(0, []float64{0.5}, s.Params(), []float64{1}, az, atheta)
		s.JVP(0, []float64{0.5}, s.Params(), []float64{1}, []float64{0, 0}, jv)
		if az[0] != 1 || jv[0] != 1 || atheta[0] != 0 || atheta[1] != 0 {
			t.Errorf("%s at 0.5: ∂f/∂z = %v by VJP and %v by JVP, want 1; ∂f/∂θ = %v, want 0", text, az[0], jv[0], atheta)
		}
	}
}

// NaN comes out of what it went into.
func TestEval_KeepsNaN(t *testing.T) {
	for _, text := range []string{"z0 + 1", "max(z0, 1)", "max(1, z0)", "min(z0, 1)", "min(1, z0)", "abs(z0)", "z0^2", "sqrt(z0)"} {
		dz := []float64{0}
		s := parse(t, Settings[float64]{}, text)
		s.Eval(0, []float64{math.NaN()}, nil, dz)
		if !math.IsNaN(dz[0]) {
			t.Errorf("%s of NaN is %v", text, dz[0])
		}
	}
}

func TestParse_SharesWhatIsEqual(t *testing.T) {
	s := parse(t, Settings[float64]{}, "sin(z0*z1)*exp(z0)", "exp(z0) - sin(z1*z0)")
	if n := len(s.eval.code); n != 5 {
		t.Errorf("%d operations, want 5: a product, sin, exp, a product and a difference", n)
	}
}

func TestParse_Errors(t *testing.T) {
	for _, e := range []struct{ text, want string }{
		{"", "column 1: the equation ends"},
		{"z0 +", "column 5: the equation ends"},
		{"z0 z0", "column 4: 'z' is not expected"},
		{"2 z0", "column 3: 'z' is not expected"},
		{"σ*z0", `column 1: "σ" is not known; the names are k, pi, t, z0`},
		{"k*ρ", `column 3: "ρ" is not known`},
		{"(z0", `column 4: a ")" is missing`},
		{"z0)", "column 3: ')' is not expected"},
		{"sin z0", "column 1: sin is a function"},
		{"sine(z0)", `column 1: there is no function "sine"`},
		{"k(z0+1)", `column 1: there is no function "k"`},
		{"pow(z0)", `column 7: a "," is missing in pow, which takes 2`},
		{"sin(z0, 1)", `column 7: a ")" is missing to close sin`},
		{"if(z0, 1, 2)", "column 6: a < or > is missing"},
		{"z0*/2", "column 4: '/' is not expected here; a value is"},
		{"1.2.3", "column 1: 1.2.3 is no number"},
		{"1e999*z0", "column 1: 1e999 is no number"},
		{"1e*z0", "column 1: 1e is no number"},
		{"z0 = 2", "column 4: '=' is not expected"},
		{strings.Repeat("(", 5000), "nested more than 1000 deep"},
		{strings.Repeat("z0^", 5000) + "2", "nested more than 1000 deep"},
	} {
		_, err := Parse([]string{e.text}, Settings[float64]{Params: []string{"k"}})
		if err == nil || !strings.Contains(err.Error(), e.want) || !strings.HasPrefix(err.Error(), "expr: Parse: equation 0") {
			t.Errorf("%.40q: error %v, want %q in it", e.text, err, e.want)
		}
	}
	for _, s := range []struct {
		equations []string
		set       Settings[float64]
		want      string
	}{
		{nil, Settings[float64]{}, "no equation"},
		{[]string{"1"}, Settings[float64]{State: []string{"x", "y"}}, "1 equations and 2 names"},
		{[]string{"1"}, Settings[float64]{Params: []string{"k"}, Theta: []float64{1, 2}}, "1 parameters and a Theta of length 2"},
		{[]string{"1"}, Settings[float64]{Params: []string{"z0"}}, `"z0" is taken`},
		{[]string{"1"}, Settings[float64]{Params: []string{"t"}}, `"t" is taken`},
		{[]string{"1"}, Settings[float64]{Params: []string{"exp"}}, `"exp" is taken`},
		{[]string{"1"}, Settings[float64]{Params: []string{"if"}}, `"if" is taken`},
		{[]string{"1"}, Settings[float64]{Params: []string{"2x"}}, `"2x" is no name`},
		{[]string{"1"}, Settings[float64]{Params: []string{""}}, `"" is no name`},
	} {
		if _, err := Parse(s.equations, s.set); err == nil || !strings.Contains(err.Error(), s.want) {
			t.Errorf("error %v, want %q in it", err, s.want)
		}
	}
}

// Whatever the text, Parse returns, and what it accepts can be evaluated and derived.
func FuzzParse(f *testing.F) {
	for _, e := range everything {
		f.Add(e)
	}
	f.Add("if(z0<1,2^-z1,1/0)")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]string{text, "z0", "0", "0"}, Settings[float64]{Params: []string{"a", "b"}})
		if err != nil {
			return
		}
		z := []float64{rand.Float64(), 1, 2, 3}
		s.Eval(0, z, s.Params(), make([]float64, 4))
		s.VJP(0, z, s.Params(), z, make([]float64, 4), make([]float64, 2))
	})
}

func BenchmarkEval(b *testing.B) {
	s := parse(b, Settings[float64]{Params: []string{"s", "r", "b"}, Theta: []float64{10, 28, 8. / 3}}, "s*(z1-z0)", "z0*(r-z2)-z1", "z0*z1-b*z2")
	z, dz := []float64{1, 2, 3}, make([]float64, 3)
	for b.Loop() {
		s.Eval(0, z, s.theta, dz)
	}
}
