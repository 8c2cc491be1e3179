package mlp

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

// smooth tells whether a has no kink.
func smooth(a Activation) bool { return a != ReLU && a != LeakyReLU }

// close compares with an absolute and a relative tolerance.
func close(got, want, atol, rtol float64) bool {
	return got == want || math.Abs(got-want) <= atol+rtol*math.Abs(want)
}

// The table comes from 50-digit arithmetic, see testdata/make.py.
func TestActivation_MatchesHighPrecision(t *testing.T) {
	b, err := os.ReadFile("testdata/activations.json")
	if err != nil {
		t.Fatal(err)
	}
	var table map[string][][3]float64
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	if len(table) != len(Activations()) {
		t.Fatalf("table has %d activations, package has %d", len(table), len(Activations()))
	}
	for name, rows := range table {
		a, err := ParseActivation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			x, y, dy := row[0], row[1], row[2]
			// 16 ulps, and the condition of the tails: e^-u and erfc(u) turn a
			// relative error ε of u into u·ε or 2u²·ε, and u reaches 745 (e^-u) and
			// 27 (erfc) before the results are 0. What lies below the smallest
			// normal number may lose digits.
			rtol := 16*0x1p-52 + 1500*0x1p-53
			if a == Identity || a == ReLU || a == LeakyReLU || a == Tanh && math.Abs(x) < 20 {
				rtol = 4 * 0x1p-52
			}
			const atol = 1e-307
			if got := a.Value(x); !close(got, y, atol, rtol) {
				t.Errorf("%v.Value(%g) = %g, want %g", a, x, got, y)
			}
			if got := a.Deriv(x); !close(got, dy, atol, rtol) {
				// Derivatives of SiLU and GELU cross 0: there the terms of a sum
				// cancel, each of which is at most 1.
				if !(math.Abs(x) < 8 && close(got, dy, 4*0x1p-52, 0)) {
					t.Errorf("%v.Deriv(%g) = %g, want %g", a, x, got, dy)
				}
			}
		}
	}
}

func TestActivation_DerivMatchesFiniteDifference(t *testing.T) {
	// Central differences with h = 1e-5: truncation h²/6·|σ'''| < 1e-10 and
	// rounding 1e-16·|σ|/h < 1e-10 for |x| ≤ 8.
	const h, tol = 1e-5, 1e-9
	for _, a := range Activations() {
		for x := -8.0; x <= 8; x += 0.0371 {
			if !smooth(a) && math.Abs(x) < 2*h || a == ELU && math.Abs(x) < 2*h {
				continue
			}
			fd := (a.Value(x+h) - a.Value(x-h)) / (2 * h)
			if got := a.Deriv(x); !close(got, fd, tol, tol) {
				t.Errorf("%v.Deriv(%g) = %g, finite difference %g", a, x, got, fd)
			}
		}
	}
}

func TestActivation_BothIsValueAndDeriv(t *testing.T) {
	xs := []float64{math.Inf(-1), -1e308, -750, -1, -1e-320, math.Copysign(0, -1), 0, 5e-324, 0.5, 1, 709, 1e308, math.Inf(1), math.NaN()}
	for x := -40.0; x < 40; x += 0.377 {
		xs = append(xs, x)
	}
	same := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	for _, a := range Activations() {
		for _, x := range xs {
			y, dy := a.Both(x)
			if !same(y, a.Value(x)) || !same(dy, a.Deriv(x)) {
				t.Errorf("%v.Both(%g) = %g, %g, but Value %g and Deriv %g", a, x, y, dy, a.Value(x), a.Deriv(x))
			}
		}
	}
}

func TestActivation_Limits(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	cases := []struct {
		a            Activation
		y, dy        float64 // at +Inf
		yNeg, dyNeg  float64 // at -Inf
		big, bigNeg  float64 // at ±1e300
		dBig, dBigNg float64 // derivative at ±1e300
	}{
		{Identity, inf, 1, -inf, 1, 1e300, -1e300, 1, 1},
		{Tanh, 1, 0, -1, 0, 1, -1, 0, 0},
		{Sigmoid, 1, 0, 0, 0, 1, 0, 0, 0},
		{ReLU, inf, 1, 0, 0, 1e300, 0, 1, 0},
		{LeakyReLU, inf, 1, -inf, 0.01, 1e300, -1e298, 1, 0.01},
		{ELU, inf, 1, -1, 0, 1e300, -1, 1, 0},
		{Softplus, inf, 1, 0, 0, 1e300, 0, 1, 0},
		{SiLU, inf, 1, 0, 0, 1e300, 0, 1, 0},
		{GELU, inf, 1, 0, 0, 1e300, 0, 1, 0},
		{GELUTanh, inf, 1, 0, 0, 1e300, 0, 1, 0},
		{Sin, nan, nan, nan, nan, math.Sin(1e300), math.Sin(-1e300), math.Cos(1e300), math.Cos(1e300)},
	}
	if len(cases) != len(Activations()) {
		t.Fatalf("%d cases for %d activations", len(cases), len(Activations()))
	}
	same := func(a, b float64) bool { return math.IsNaN(a) && math.IsNaN(b) || close(a, b, 0, 1e-15) }
	for _, c := range cases {
		for _, p := range []struct{ x, y, dy float64 }{
			{inf, c.y, c.dy}, {-inf, c.yNeg, c.dyNeg}, {1e300, c.big, c.dBig}, {-1e300, c.bigNeg, c.dBigNg},
		} {
			if y, dy := c.a.Both(p.x); !same(y, p.y) || !same(dy, p.dy) {
				t.Errorf("%v.Both(%g) = %g, %g, want %g, %g", c.a, p.x, y, dy, p.y, p.dy)
			}
		}
		y, dy := c.a.Both(nan)
		if !math.IsNaN(y) || c.a != Identity && !math.IsNaN(dy) {
			t.Errorf("%v.Both(NaN) = %g, %g", c.a, y, dy)
		}
	}
}

// PyTorch's threshold_backward, leaky_relu_backward and elu_backward at 0.
func TestActivation_Kinks(t *testing.T) {
	for _, c := range []struct {
		a    Activation
		want float64
	}{{ReLU, 0}, {LeakyReLU, 0.01}, {ELU, 1}} {
		for _, x := range []float64{0, math.Copysign(0, -1)} {
			if got := c.a.Deriv(x); got != c.want {
				t.Errorf("%v.Deriv(%g) = %g, want %g", c.a, x, got, c.want)
			}
		}
	}
}

func TestActivation_UnknownPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"Value": func() { Activation(99).Value(0) },
		"Deriv": func() { Activation(99).Deriv(0) },
	} {
		func() {
			defer func() {
				if r := recover(); r != "mlp: unknown activation" {
					t.Errorf("%s: recovered %v", name, r)
				}
			}()
			f()
		}()
	}
}

func TestActivation_Gain(t *testing.T) {
	// Values of torch.nn.init.calculate_gain.
	for a, want := range map[Activation]float64{
		Identity: 1, Sigmoid: 1, Tanh: 5.0 / 3, ReLU: 1.4142135623730951, LeakyReLU: 1.4141428569978354,
	} {
		if got := a.Gain(); !close(got, want, 0, 1e-15) {
			t.Errorf("%v.Gain() = %v, want %v", a, got, want)
		}
	}
}

// enum is what every enumeration of the package implements.
type enum interface {
	fmt.Stringer
	MarshalText() ([]byte, error)
}

func TestEnums_RoundTrip(t *testing.T) {
	check := func(typ string, names []string, at func(uint8) enum, parse func(string) (enum, error), unmarshal func(*uint8, string) error, unknown string) {
		t.Helper()
		for i, name := range names {
			e := at(uint8(i))
			if e.String() != name {
				t.Errorf("%s(%d).String() = %q, want %q", typ, i, e, name)
			}
			text, err := e.MarshalText()
			if string(text) != name || err != nil {
				t.Errorf("%s(%d).MarshalText() = %q, %v", typ, i, text, err)
			}
			if got, err := parse(name); got != e || err != nil {
				t.Errorf("parsing %q: %v, %v", name, got, err)
			}
			var v uint8 = 77
			if err := unmarshal(&v, name); err != nil || v != uint8(i) {
				t.Errorf("unmarshalling %q: %d, %v", name, v, err)
			}
		}
		bad := at(200)
		if want := typ + "(200)"; bad.String() != want {
			t.Errorf("String() = %q, want %q", bad, want)
		}
		if _, err := bad.MarshalText(); err == nil {
			t.Errorf("%s(200).MarshalText() succeeded", typ)
		}
		if _, err := parse("foo"); err == nil || err.Error() != unknown {
			t.Errorf("error %v, want %s", err, unknown)
		}
		var v uint8 = 77
		if err := unmarshal(&v, "foo"); err == nil || v != 77 {
			t.Errorf("unmarshalling foo: %d, %v; want an error and 77 kept", v, err)
		}
	}
	check("Activation", []string{"identity", "tanh", "sigmoid", "relu", "leaky_relu", "elu", "softplus", "silu", "gelu", "gelu_tanh", "sin"},
		func(i uint8) enum { return Activation(i) },
		func(s string) (enum, error) { return ParseActivation(s) },
		func(v *uint8, s string) error { return (*Activation)(v).UnmarshalText([]byte(s)) },
		`mlp: activation "foo" unknown; use one of identity, tanh, sigmoid, relu, leaky_relu, elu, softplus, silu, gelu, gelu_tanh, sin`)
	check("Time", []string{"none", "input", "every_layer"},
		func(i uint8) enum { return Time(i) },
		func(s string) (enum, error) { return ParseTime(s) },
		func(v *uint8, s string) error { return (*Time)(v).UnmarshalText([]byte(s)) },
		`mlp: time conditioning "foo" unknown; use one of none, input, every_layer`)
	check("Input", []string{"identity", "cube"},
		func(i uint8) enum { return Input(i) },
		func(s string) (enum, error) { return ParseInput(s) },
		func(v *uint8, s string) error { return (*Input)(v).UnmarshalText([]byte(s)) },
		`mlp: input map "foo" unknown; use one of identity, cube`)
	check("WeightInit", []string{"torch_linear", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "normal"},
		func(i uint8) enum { return WeightInit(i) },
		func(s string) (enum, error) { return ParseWeightInit(s) },
		func(v *uint8, s string) error { return (*WeightInit)(v).UnmarshalText([]byte(s)) },
		`mlp: weight initialiser "foo" unknown; use one of torch_linear, xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal, normal`)
	check("BiasInit", []string{"torch_linear", "zero"},
		func(i uint8) enum { return BiasInit(i) },
		func(s string) (enum, error) { return ParseBiasInit(s) },
		func(v *uint8, s string) error { return (*BiasInit)(v).UnmarshalText([]byte(s)) },
		`mlp: bias initialiser "foo" unknown; use one of torch_linear, zero`)
	if got := Activations(); len(got) != 11 || got[0] != Identity || got[10] != Sin || !slices.IsSorted(got) {
		t.Errorf("Activations() = %v", got)
	}
}
