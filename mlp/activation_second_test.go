package mlp

import (
	"math"
	"testing"
)

func TestActivation_SecondMatchesFiniteDifference(t *testing.T) {
	// As for Deriv: truncation and rounding are below 1e-9.
	const h, tol = 1e-5, 1e-9
	for _, a := range Activations() {
		for x := -8.0; x <= 8; x += 0.0371 {
			if !smooth(a) && math.Abs(x) < 2*h || a == ELU && math.Abs(x) < 2*h {
				continue
			}
			fd := (a.Deriv(x+h) - a.Deriv(x-h)) / (2 * h)
			if got := a.Second(x); !close(got, fd, tol, tol) {
				t.Errorf("%v.Second(%g) = %g, finite difference %g", a, x, got, fd)
			}
		}
	}
}

// Far out the second derivative vanishes without a NaN on the way, and keeps its
// relative accuracy in the tails: there it is that of e^x and x·φ(x).
func TestActivation_SecondInTheTails(t *testing.T) {
	for _, a := range Activations() {
		for _, x := range []float64{math.Inf(1), math.Inf(-1), 1e300, -1e300, 1e3, -1e3} {
			if got := a.Second(x); got != 0 && a != Sin {
				t.Errorf("%v.Second(%g) = %g, want 0", a, x, got)
			}
		}
		if got := a.Second(math.NaN()); a != Identity && !math.IsNaN(got) {
			t.Errorf("%v.Second(NaN) = %g", a, got)
		}
		if got := a.Second(0); (a == ReLU || a == LeakyReLU) && got != 0 {
			t.Errorf("%v.Second(0) = %g at the kink", a, got)
		}
	}
	e := math.Exp(-40)
	for _, c := range []struct {
		a       Activation
		x, want float64
	}{
		{Tanh, 20, -8 * e}, {Tanh, -20, 8 * e}, {Sigmoid, 40, -e}, {Sigmoid, -40, e}, {Softplus, -40, e}, {ELU, -40, e},
		{SiLU, -40, -38 * e}, {GELU, -10, -98 * math.Exp(-50) / math.Sqrt(2*math.Pi)},
	} {
		if got := c.a.Second(c.x); !close(got, c.want, 0, 1e-13) {
			t.Errorf("%v.Second(%g) = %g, want %g", c.a, c.x, got, c.want)
		}
	}
}
