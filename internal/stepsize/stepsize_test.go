package stepsize

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// slope is the derivative of f at *x by central differences, which at a step of 1e-5 of x
// are good to about 1e-9 of f/x.
func slope(x *float64, f func() float64) float64 {
	was, h := *x, 1e-5**x
	*x = was + h
	up := f()
	*x = was - h
	down := f()
	*x = was
	return (up - down) / (2 * h)
}

func compare(t *testing.T, what string, got, want, unit float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-8*(math.Abs(want)+math.Abs(unit))) {
		t.Errorf("%s: derivative %.12g, differences %.12g", what, got, want)
	}
}

var control = backend.Control{Order: 5, Beta: [3]float64{0.17, -0.04, 0.02}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 10}

func TestAccepted_MatchesFiniteDifference(t *testing.T) {
	for _, c := range []struct {
		name     string
		h, r     float64
		history  [2]float64
		rejected bool
		want     float64
		cut      bool
		least    float64 // MinStep
		size     float64 // expected
	}{
		{"free", 0.3, 0.4, [2]float64{0.7, 0.2}, false, 0.3, false, 0, 0.3 * 0.9 * math.Pow(0.4, -0.17) * math.Pow(0.7, 0.04) * math.Pow(0.2, -0.02)},
		{"largest factor", 0.3, 1e-9, [2]float64{1, 1}, false, 0.3, false, 0, 3},
		{"no error", 0.3, 0, [2]float64{1, 1}, false, 0.3, false, 0, 3},
		{"after a rejection", 0.3, 0.1, [2]float64{1, 1}, true, 0.3, false, 0, 0.3},
		{"after a rejection, smaller", 0.3, 0.99, [2]float64{1, 1}, true, 0.3, false, 0, 0.27 * math.Pow(0.99, -0.17)},
		{"cut, as before", 0.3, 0.01, [2]float64{1, 1}, false, 0.65, true, 0, 0.65},
		{"cut, elementary", 0.3, 0.5, [2]float64{1e-4, 1e-4}, false, 0.65, true, 0, 0.27 * math.Pow(0.5, -0.2)},
		{"cut, free", 0.3, 1e-3, [2]float64{1, 1}, false, 0.31, true, 0, 0.27 * math.Pow(1e-3, -0.17)},
		{"smallest", 0.3, 0.4, [2]float64{1, 1}, false, 0.3, false, 2, 2},
	} {
		ctl := control
		ctl.MinStep = c.least
		f := func() float64 {
			return Accepted(&ctl, 5, c.h, c.r, c.history, c.rejected, c.want, c.cut).Want
		}
		s := Accepted(&ctl, 5, c.h, c.r, c.history, c.rejected, c.want, c.cut)
		compare(t, c.name+", size", s.Want, c.size, 0)
		compare(t, c.name+", h", s.ByH, slope(&c.h, f), s.Want/c.h)
		compare(t, c.name+", want", s.ByWant, slope(&c.want, f), s.Want/c.want)
		if c.r > 0 {
			compare(t, c.name+", ratio", s.ByRatio, slope(&c.r, f), s.Want/c.r)
		}
		for i := range c.history {
			compare(t, c.name+", history", s.ByHistory[i], slope(&c.history[i], f), s.Want/c.history[i])
		}
	}
}

func TestRejected_MatchesFiniteDifference(t *testing.T) {
	for _, r := range []float64{1.5, 40, 1e9} {
		h := 0.3
		f := func() float64 { return Rejected(&control, h, r).Want }
		s := Rejected(&control, h, r)
		compare(t, "h", s.ByH, slope(&h, f), 0)
		compare(t, "ratio", s.ByRatio, slope(&r, f), s.Want/r)
	}
	for _, r := range []float64{math.NaN(), math.Inf(1)} {
		if s := Rejected(&control, 0.3, r); s.Want != 0.3*0.2 || s.ByRatio != 0 || s.ByH != 0.2 {
			t.Errorf("after a ratio of %g: %+v", r, s)
		}
	}
}

func TestFirstSteps_MatchFiniteDifference(t *testing.T) {
	for _, c := range [][5]float64{ // d0, d1, d2, h0, length
		{3, 2, 1, 0.015, 9}, {3, 2, 0.01, 0.015, 9}, {3, 2, 1, 0.015, 0.01}, {1e-6, 2, 1, 1e-6, 9}, {3, 2e-4, 1e-9, 9, 9},
		{300, 2, 1e-9, 1.5, 1}, {3, 1e-17, 1e-20, 0.4, 9}, {3, 1e-17, 1e-20, 0.0004, 9}, {3, 2, 1, 1e-9, 9},
	} {
		d0, d1, d2, h0, length := c[0], c[1], c[2], c[3], c[4]
		f := func() float64 { return Trial(d0, d1, length).Want }
		s := Trial(d0, d1, length)
		compare(t, "trial, d0", s.ByD0, slope(&d0, f), s.Want/d0)
		compare(t, "trial, d1", s.ByD1, slope(&d1, f), s.Want/d1)
		compare(t, "trial, length", s.ByLength, slope(&length, f), s.Want/length)
		f = func() float64 { return First(d1, d2, h0, length, 5).Want }
		s = First(d1, d2, h0, length, 5)
		compare(t, "first, d1", s.ByD1, slope(&d1, f), s.Want/d1)
		compare(t, "first, d2", s.ByD2, slope(&d2, f), s.Want/d2)
		compare(t, "first, trial", s.ByTrial, slope(&h0, f), s.Want/h0)
		compare(t, "first, length", s.ByLength, slope(&length, f), s.Want/length)
	}
}

func TestAim_MatchesFiniteDifference(t *testing.T) {
	for _, c := range [][4]float64{{1, 0.3, 2, 0}, {1, 0.3, 1.2, 0}, {1, 0.3, 1.302, 0}, {1, 0.3, 2, 0.2}, {1, 0.3, 0.5, 0}, {1, 0.7, 0.5, 0}, {1, 0.3, 0.5, 0.1}, {1, 0.3, 1.15, 0.2}} {
		at, want, stop, longest := c[0], c[1], c[2], c[3]
		s := Aim(at, want, stop, longest, StretchAdaptive)
		const a, b = 1.3, -0.4 // cotangents of H and Want
		f := func() float64 {
			s := Aim(at, want, stop, longest, StretchAdaptive)
			return a*s.H + b*s.Want
		}
		byT, byWant, byStop := s.VJP(a, b)
		compare(t, "t", byT, slope(&at, f), 1e-2) // h is rounded as t is
		compare(t, "want", byWant, slope(&want, f), 1e-2)
		compare(t, "stop", byStop, slope(&stop, f), 1e-2)
	}
}

func TestNorms_MatchFiniteDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	some := func() []float64 {
		x := make([]float64, 4)
		for i := range x {
			x[i] = r.NormFloat64()
		}
		return x
	}
	for _, e2 := range [][]float64{nil, {0.3, 0, -0.1}} {
		e := Estimate[float64]{Tol: backend.Tolerance{Rel: 0.1, Abs: 0.02}, H: -0.3, E: []float64{0.1, -0.5, 0.4}, E2: e2, Y0: some(), Y1: some(), K: [][]float64{some(), some(), some()}}
		y0, y1, k := make([]float64, 4), make([]float64, 4), [][]float64{make([]float64, 4), make([]float64, 4), make([]float64, 4)}
		h := e.VJP(2, y0, y1, k)
		f := func() float64 { return 2 * e.Ratio() }
		compare(t, "h", h, slope(&e.H, f), 1)
		for i := range y0 {
			compare(t, "y0", y0[i], slope(&e.Y0[i], f), 1)
			compare(t, "y1", y1[i], slope(&e.Y1[i], f), 1)
			for j := range k {
				compare(t, "k", k[j][i], slope(&e.K[j][i], f), 1)
			}
		}
	}
	v, y := some(), some()
	dv, dy := make([]float64, 4), make([]float64, 4)
	tol := backend.Tolerance{Rel: 0.1, Abs: 0.02}
	NormVJP(3, tol, v, y, dv, dy)
	for i := range v {
		f := func() float64 { return 3 * Norm(tol, v, y) }
		compare(t, "v", dv[i], slope(&v[i], f), 10)
		compare(t, "y", dy[i], slope(&y[i], f), 10)
	}
}

// What is not finite, or too large, has no ratio to derive; zero has the derivative 0.
func TestEstimate_Extremes(t *testing.T) {
	tol := backend.Tolerance{Rel: 1e-3}
	ratio := func(y0, y1, k float64) float64 {
		e := Estimate[float64]{Tol: tol, H: 1, E: []float64{1}, Y0: []float64{y0}, Y1: []float64{y1}, K: [][]float64{{k}}}
		d := []float64{0}
		if h := e.VJP(0, d, d, [][]float64{d}); h != 0 || d[0] != 0 {
			t.Error("no cotangent has a gradient")
		}
		return e.Ratio()
	}
	if r := ratio(1, math.Inf(1), 1); r == r {
		t.Errorf("an infinite state has ratio %g", r)
	}
	if r := ratio(1, 1, math.NaN()); r == r {
		t.Errorf("a stage that is not a number has ratio %g", r)
	}
	if r := ratio(1, 1, 1e200); !math.IsInf(r, 1) {
		t.Errorf("an error of 1e200 has ratio %g", r)
	}
	if r := ratio(0, 0, 0); r != 0 {
		t.Errorf("nothing over nothing has ratio %g", r)
	}
	e := Estimate[float64]{Tol: tol, H: 1, E: []float64{1}, Y0: []float64{0}, Y1: []float64{0}, K: [][]float64{{0}}}
	if h := e.VJP(1, nil, nil, nil); h != 0 {
		t.Errorf("a ratio of 0 has derivative %g", h)
	}
}
