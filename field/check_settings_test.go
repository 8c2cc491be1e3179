package field

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

type onlyEval struct{ *Generic[float64] }

func (onlyEval) VJP() {}
func (onlyEval) JVP() {}

type wrongParams struct{ *Generic[float64] }

func (wrongParams) NumParams() int { return 9 }

func TestCheck_RefusesSettings(t *testing.T) {
	g := New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	nan := math.NaN()
	type set = CheckSettings[float64]
	point := func(p Point[float64]) set { return set{Points: []Point[float64]{p}} }
	for _, c := range []struct {
		f    Func[float64]
		set  set
		want string
	}{
		{&Custom[float64]{N: 2}, set{}, "Custom.F is nil"},
		{&Custom[float64]{F: g.Eval}, set{}, "Custom.N is 0"},
		{&Custom[float64]{N: 2, F: g.Eval}, set{}, "has neither VJP nor JVP; there is nothing to check"},
		{onlyEval{g}, set{}, "has neither VJP nor JVP"},
		{wrongParams{g}, set{}, "has dimension 2, NumParams 9 and Params of length 4"},
		{g, set{Tol: -1}, "the setting Tol is -1"},
		{g, set{Tol: nan}, "the setting Tol is NaN"},
		{g, set{Tol: 1}, "the setting Tol is 1"},
		{g, set{Random: -1}, "the setting Random is -1"},
		{g, set{Low: []float64{1}}, "the setting Low has length 1; f has 2 states"},
		{g, set{High: []float64{1, 2, 3}}, "the setting High has length 3"},
		{g, set{High: []float64{1, nan}}, "point 0 is not finite"},
		{g, set{T1: math.Inf(1)}, "point 0 is not finite"},
		{g, point(Point[float64]{Z: []float64{1}}), "point 0 has 1 states and 4 parameters, f has 2 and 4"},
		{g, point(Point[float64]{Z: []float64{1, 2}, Theta: []float64{1}}), "point 0 has 2 states and 1 parameters"},
		{g, point(Point[float64]{Z: []float64{1, nan}}), "point 0 is not finite: t = 0, z = [1 NaN]"},
		{g, point(Point[float64]{Z: []float64{1, 2}, T: nan}), "point 0 is not finite"},
		{g, point(Point[float64]{Z: []float64{1, 2}, Theta: []float64{1, 2, 3, nan}}), "point 0 is not finite"},
	} {
		r, err := Check(c.f, c.set)
		if r == nil || err == nil || !strings.HasPrefix(err.Error(), "field: Check: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, error %v, want %q", r, err, c.want)
		}
	}
}

func TestCheck_Points(t *testing.T) {
	g := New(2, []float64{1.5, 0, -3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	var seen []Point[float64]
	f := &Custom[float64]{N: 2, Theta: g.Params(), F: g.Eval, BackF: func(t float64, z, theta, a, az, atheta []float64) float64 {
		seen = append(seen, Point[float64]{t, slices.Clone(z), slices.Clone(theta)})
		return g.VJP(t, z, theta, a, az, atheta)
	}}
	look := func(set CheckSettings[float64]) string {
		seen = nil
		if _, err := Check(f, set); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(seen)
	}
	a := look(CheckSettings[float64]{Random: 100, Low: []float64{-1, 5}, High: []float64{0, 6}, T0: 2, T1: 3})
	for _, p := range seen {
		if p.T < 2 || p.T > 3 || p.Z[0] < -1 || p.Z[0] > 0 || p.Z[1] < 5 || p.Z[1] > 6 {
			t.Fatalf("random point %v", p)
		}
		th := p.Theta
		if th[0] < 1.35 || th[0] > 1.65 || th[1] < 0 || th[1] > 0.1 || th[2] > -2.7 || th[2] < -3.3 || th[0] == 1.5 || th[1] == 0 {
			t.Fatalf("random θ %v", th)
		}
	}
	if len(seen) != 100*7 { // three calls a component and one for linearity
		t.Errorf("%d calls of VJP", len(seen))
	}
	set := CheckSettings[float64]{Random: 100, Low: []float64{-1, 5}, High: []float64{0, 6}, T0: 2, T1: 3}
	if look(set) != a {
		t.Error("one seed gives other points")
	}
	set.Seed = 1
	if look(set) == a {
		t.Error("two seeds give the same points")
	}
}
