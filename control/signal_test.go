package control_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"gonum.org/v1/gonum/interp"
)

var kinds = []control.Kind{control.Constant, control.Linear, control.Hermite, control.NaturalCubic}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func eps[T backend.Float]() float64 {
	var one T
	if unsafe.Sizeof(one) == 4 {
		return 0x1p-23
	}
	return 0x1p-52
}

// random makes a series with n knots from t0 on, at distances between 0.2 and 1.
func random[T backend.Float](r *rand.Rand, t0 float64, n, channels int) (s control.Series[T]) {
	for t := t0; n > 0; n-- {
		s.Times = append(s.Times, t)
		t += 0.2 + 0.8*r.Float64()
		for range channels {
			s.Values = append(s.Values, T(r.NormFloat64()))
		}
	}
	return s
}

// channel is one channel of the values, [n, C].
func channel[T backend.Float](values []T, c, channels int) (v []float64) {
	for i := c; i < len(values); i += channels {
		v = append(v, float64(values[i]))
	}
	return v
}

// textbook is u and u' of one channel by other means: search from the left, the
// cubic through two values and slopes in powers of t - t_i (de Boor, chapter IV), and
// gonum's natural spline.
func textbook(kind control.Kind, times, v []float64, t float64) (u, du float64) {
	i := 0
	for i < len(times)-2 && times[i+1] <= t {
		i++
	}
	h, s := times[i+1]-times[i], t-times[i]
	d := (v[i+1] - v[i]) / h
	switch kind {
	case control.Constant:
		if t == times[i+1] {
			i++
		}
		return v[i], 0
	case control.Linear:
		return v[i] + d*s, d
	case control.Hermite:
		before := d
		if i > 0 {
			before = (v[i] - v[i-1]) / (times[i] - times[i-1])
		}
		c2, c3 := 2*(d-before)/h, (before-d)/(h*h)
		return v[i] + s*(before+s*(c2+s*c3)), before + s*(2*c2+3*c3*s)
	}
	var nc interp.NaturalCubic
	if err := nc.Fit(times, v); err != nil {
		panic(err)
	}
	return nc.Predict(t), nc.PredictDerivative(t)
}

func TestSignal_MatchesTextbook(t *testing.T) {
	t.Run("float32", matchesTextbook[float32])
	t.Run("float64", matchesTextbook[float64])
}

func matchesTextbook[T backend.Float](t *testing.T) {
	const C = 3
	r := rand.New(rand.NewPCG(1, 2))
	for _, kind := range kinds {
		for _, n := range []int{2, 3, 4, 17} {
			one, two := random[T](r, -3, n, C), random[T](r, 40, n+3, C)
			s := must(control.NewSignal(kind, C, one, two))
			u, du := make([]T, C), make([]T, C)
			for sample, in := range []control.Series[T]{one, two} {
				m := len(in.Times)
				if kind == control.NaturalCubic && m < 3 {
					continue // gonum wants three
				}
				at := slices.Clone(in.Times)
				for range 50 {
					at = append(at, in.Times[0]+r.Float64()*(in.Times[m-1]-in.Times[0]))
				}
				for _, now := range at {
					if err := s.At(sample, now, u, du, nil); err != nil {
						t.Fatal(err)
					}
					for c := range C {
						wu, wdu := textbook(kind, in.Times, channel(in.Values, c, C), now)
						// Values are of size 1, slopes up to some 100; each is rounded to T
						// and made of some ten float64 operations.
						if d := math.Abs(float64(u[c]) - wu); !(d <= 4*eps[T]()*(1+math.Abs(wu))+1e-13) {
							t.Errorf("%v, %d knots: u[%d] = %v at %v, want %v", kind, m, c, u[c], now, wu)
						}
						if d := math.Abs(float64(du[c]) - wdu); !(d <= 4*eps[T]()*(1+math.Abs(wdu))+1e-11) {
							t.Errorf("%v, %d knots: u'[%d] = %v at %v, want %v", kind, m, c, du[c], now, wdu)
						}
					}
				}
			}
		}
	}
}

// Two knots make a straight line of all but the constant kind.
func TestSignal_TwoKnots(t *testing.T) {
	for _, kind := range kinds[1:] {
		s := must(control.NewSignal(kind, 1, control.Series[float64]{Times: []float64{1, 3}, Values: []float64{2, 8}}))
		u, du, ddu := make([]float64, 1), make([]float64, 1), make([]float64, 1)
		for _, x := range []float64{1, 1.5, 2.9, 3} {
			if err := s.At(0, x, u, du, ddu); err != nil {
				t.Fatal(err)
			}
			// Rounding of a few operations on numbers up to 8.
			if math.Abs(u[0]-3*x+1) > 1e-14 || math.Abs(du[0]-3) > 1e-14 || math.Abs(ddu[0]) > 1e-14 {
				t.Errorf("%v at %v: %v %v %v", kind, x, u, du, ddu)
			}
		}
	}
}

// The second derivative by differences of the first, inside of intervals, where u'
// is a polynomial of degree 2 at most: central differences are exact.
func TestSignal_SecondDerivative(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	in := random[float64](r, 0, 12, 2)
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, 2, in))
		up, down, ddu := make([]float64, 2), make([]float64, 2), make([]float64, 2)
		for i := range 11 {
			h := in.Times[i+1] - in.Times[i]
			at, d := in.Times[i]+h*(0.2+0.6*r.Float64()), h/8
			for _, err := range []error{s.At(0, at+d, nil, up, nil), s.At(0, at-d, nil, down, nil), s.At(0, at, nil, nil, ddu)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for c := range 2 {
				want := (up[c] - down[c]) / (2 * d)
				if math.Abs(ddu[c]-want) > 1e-11*(1+math.Abs(want)/h) {
					t.Errorf("%v: second derivative %v at %v, want %v", kind, ddu[c], at, want)
				}
			}
		}
	}
}

// Up to a knot a causal signal does not change with the values after it.
func TestSignal_HermiteIsCausal(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	in := random[float64](r, 0, 10, 1)
	later := control.Series[float64]{Times: in.Times, Values: slices.Clone(in.Values)}
	for i := 6; i < 10; i++ {
		later.Values[i] += 1
	}
	for _, kind := range kinds {
		one, two := must(control.NewSignal(kind, 1, in)), must(control.NewSignal(kind, 1, later))
		moved := 0.0
		for range 200 {
			at := r.Float64() * in.Times[5]
			a, b := make([]float64, 1), make([]float64, 1)
			if err := errors.Join(one.At(0, at, a, nil, nil), two.At(0, at, b, nil, nil)); err != nil {
				t.Fatal(err)
			}
			moved = max(moved, math.Abs(a[0]-b[0]))
		}
		if (moved != 0) != (kind == control.NaturalCubic) {
			t.Errorf("%v: values after a knot move u by %g before it", kind, moved)
		}
	}
}

// u and u' are linear in the values, so that the pullback is the transpose of
// reading a signal made of tangents: ⟨du, u(w)⟩ + ⟨dd, u'(w)⟩ = ⟨g, w⟩.
func TestPullback_IsTheTranspose(t *testing.T) {
	t.Run("float32", isTheTranspose[float32])
	t.Run("float64", isTheTranspose[float64])
}

func isTheTranspose[T backend.Float](t *testing.T) {
	const C = 2
	r := rand.New(rand.NewPCG(7, 8))
	noise := func(n int) []T {
		x := make([]T, n)
		for i := range x {
			x[i] = T(r.NormFloat64())
		}
		return x
	}
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, C, random[T](r, 0, 2, C), random[T](r, 0, 9, C), random[T](r, 0, 5, C)))
		g := make([]T, s.NumValues())
		p := s.Pullback()
		w := noise(len(g))
		tangent := s.Clone()
		tangent.SetValues(w)
		want, size := 0.0, 0.0
		for round := range 2 { // the second adds to what the first left
			for n := range 30 {
				sample := n % 3
				k := s.Knots(sample)
				at := k[0] + r.Float64()*(k[len(k)-1]-k[0])
				if n < 6 {
					at = k[n%len(k)]
				}
				du, dd, weight := noise(C), noise(C), T(r.NormFloat64())
				if n%5 == 1 {
					du = nil
				}
				if n%5 == 2 {
					dd = nil
				}
				u, v := make([]T, C), make([]T, C)
				if err := tangent.At(sample, at, u, v, nil); err != nil {
					t.Fatal(err)
				}
				p.Add(g, sample, at, weight, du, dd)
				for _, x := range [][2][]T{{du, u}, {dd, v}} {
					for c, d := range x[0] {
						term := float64(weight) * float64(d) * float64(x[1][c])
						want, size = want+term, size+math.Abs(term)
					}
				}
			}
			p.Flush(g)
			got := 0.0
			for i, d := range g {
				got += float64(d) * float64(w[i])
				size += math.Abs(float64(d) * float64(w[i]))
			}
			// Rounding of each of some hundred terms, at most.
			if d := math.Abs(got - want); !(d <= 16*eps[T]()*size) {
				t.Errorf("%v, round %d: ⟨g, w⟩ = %.12g, want %.12g; terms of %.3g", kind, round, got, want, size)
			}
		}
		p.Flush(g)
		again := slices.Clone(g)
		if p.Flush(g); !slices.Equal(again, g) {
			t.Errorf("%v: a Flush without an Add changes g", kind)
		}
		p.Add(g, 0, 1e6, 1, noise(C), noise(C))
		p.Add(g, 9, 0, 1, noise(C), noise(C))
		if p.Flush(g); !slices.Equal(again, g) {
			t.Errorf("%v: a cotangent outside the knots changes g", kind)
		}
	}
}

func TestSignal_Outside(t *testing.T) {
	t.Run("float32", outside[float32])
	t.Run("float64", outside[float64])
}

func outside[T backend.Float](t *testing.T) {
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, 1,
			control.Series[T]{Times: []float64{-2, 0, 3}, Values: []T{1, 2, 4}},
			control.Series[T]{Times: []float64{0, 1}, Values: []T{5, 6}}))
		u, du, ddu := make([]T, 1), make([]T, 1), make([]T, 1)
		for _, x := range []struct {
			at   float64
			want T
		}{
			{-2 - 2*eps[T](), 1}, {3 + 2*eps[T](), 4}, {-2, 1}, {3, 4}, {0, 2},
		} {
			if err := s.At(0, x.at, u, du, ddu); err != nil || u[0] != x.want {
				t.Errorf("%v at %v: %v, %v, want %v", kind, x.at, u, err, x.want)
			}
		}
		for _, at := range []float64{-2.001, 3.001, 1e300, math.Inf(-1), math.NaN()} {
			err := s.At(0, at, u, du, ddu)
			if !errors.Is(err, control.ErrOutside) || u[0] == u[0] || du[0] == du[0] || ddu[0] == ddu[0] {
				t.Errorf("%v at %v: %v %v %v, error %v", kind, at, u, du, ddu, err)
			}
		}
		for _, want := range []string{"sample 1 reads the signal at t = 1.5", "from 0 to 1", "end the span there, or give more knots"} {
			if err := s.At(1, 1.5, u, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: error %v, want %q", kind, err, want)
			}
		}
		if err := s.At(2, 0.5, u, nil, nil); err == nil || errors.Is(err, control.ErrOutside) ||
			!strings.Contains(err.Error(), "sample 2 reads a signal of 2 series; give one for each row of the batch, or one for all") {
			t.Errorf("%v: error %v", kind, err)
		}
	}
}

func TestSignal_Breakpoints(t *testing.T) {
	one := control.Series[float64]{Times: []float64{0, 1, 2}, Values: make([]float64, 3)}
	two := control.Series[float64]{Times: []float64{-1, 1, 5}, Values: make([]float64, 3)}
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, 1, one, one, two))
		var all, own []float64
		if kind == control.Constant || kind == control.Linear {
			all, own = []float64{-1, 0, 1, 2, 5}, two.Times
		}
		if got := s.Breakpoints(); !slices.Equal(got, all) {
			t.Errorf("%v: Breakpoints %v, want %v", kind, got, all)
		}
		if got := s.SampleBreakpoints(2); !slices.Equal(got, own) {
			t.Errorf("%v: SampleBreakpoints %v, want %v", kind, got, own)
		}
		if got := s.Knots(1); !slices.Equal(got, one.Times) {
			t.Errorf("%v: Knots %v", kind, got)
		}
	}
}

func TestSignal_Values(t *testing.T) {
	one := control.Series[float32]{Times: []float64{0, 1}, Values: []float32{1, 2, 3, 4}}
	two := control.Series[float32]{Times: []float64{0, 1, 2}, Values: []float32{5, 6, 7, 8, 9, 10}}
	s := must(control.NewSignal(control.Hermite, 2, one, two))
	one.Values[0], one.Times[0] = 99, 99 // copied
	v := s.Values()
	if want := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(v, want) || s.NumValues() != 10 {
		t.Errorf("Values %v", v)
	}
	if got := s.SampleValues(v, 1); !slices.Equal(got, two.Values) {
		t.Errorf("SampleValues %v", got)
	}
	c := s.Clone()
	v[1] = 20
	s.SetValues(v)
	u, was := make([]float32, 2), make([]float32, 2)
	if err := errors.Join(s.At(0, 0, u, nil, nil), c.At(0, 0, was, nil, nil)); err != nil {
		t.Fatal(err)
	}
	if u[1] != 20 || was[1] != 2 {
		t.Errorf("u = %v after SetValues, that of a clone made before is %v", u, was)
	}
	if s.Channels() != 2 || s.NumSeries() != 2 || s.Kind() != control.Hermite || s.Kind().String() != "hermite" {
		t.Error("a signal that misdescribes itself")
	}
	shared := must(control.NewSignal(control.Linear, 1, control.Series[float32]{Times: []float64{0, 1}, Values: []float32{3, 5}}))
	if err := shared.At(17, 0.5, u[:1], nil, nil); err != nil || u[0] != 4 {
		t.Errorf("sample 17 of a shared series: %v, %v", u[0], err)
	}
	if got := shared.SampleValues(shared.Values(), 17); !slices.Equal(got, []float32{3, 5}) {
		t.Errorf("SampleValues %v", got)
	}
}

func TestNewSignal_Errors(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		kind     control.Kind
		channels int
		times    []float64
		values   []float64
		want     string
	}{
		{9, 1, []float64{0, 1}, []float64{1, 2}, "kind of a signal is 9; use Constant, Linear, Hermite or NaturalCubic"},
		{control.Linear, 0, []float64{0, 1}, nil, "0 channels and 1 series; give at least one of each"},
		{control.Linear, 1, []float64{0}, []float64{1}, "series 0 has 1 knots; give at least 2"},
		{control.Linear, 1, nil, nil, "has 0 knots"},
		{control.Linear, 1, []float64{0, 0}, []float64{1, 2}, "has a knot at t = 0 after one at 0; sort the knots"},
		{control.Linear, 1, []float64{1, 0}, []float64{1, 2}, "has a knot at t = 0 after one at 1; sort the knots"},
		{control.Linear, 1, []float64{0, math.NaN()}, []float64{1, 2}, "has a knot at t = NaN; give finite times"},
		{control.Linear, 1, []float64{-inf, 0}, []float64{1, 2}, "has a knot at t = -Inf"},
		{control.Linear, 1, []float64{0, 1e-200}, []float64{1, 2}, "rescale the time"},
		{control.Linear, 1, []float64{-1e200, 1e200}, []float64{1, 2}, "rescale the time"},
		{control.Linear, 2, []float64{0, 1}, []float64{1, 2, 3}, "has 3 values for 2 knots of 2 channels; give 4, row-major [n, C]"},
		{control.Linear, 2, []float64{0, 1}, []float64{1, 2, 3, math.NaN()}, "has the value NaN at knot 1, channel 1; fill in what is missing"},
		{control.Linear, 1, []float64{0, 1}, []float64{-1.7e308, 1.7e308}, "between two knots the signal, or a derivative, is beyond float64; rescale"},
		{control.Hermite, 1, []float64{0, 1}, []float64{-1.7e308, 1.7e308}, "is beyond float64"},
		{control.NaturalCubic, 1, []float64{0, 1}, []float64{0, 1e308}, "is beyond float64"},
		{control.Constant, 1, []float64{0, 1}, []float64{-1.7e308, 1.7e308}, ""},
	} {
		s, err := control.NewSignal(c.kind, c.channels, control.Series[float64]{Times: c.times, Values: c.values})
		if c.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err == nil || s != nil || !strings.HasPrefix(err.Error(), "control: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c, err, c.want)
		}
	}
	if _, err := control.NewSignal[float64](control.Linear, 1); err == nil || !strings.Contains(err.Error(), "0 series") {
		t.Error(err)
	}
}

func TestSignal_PanicsOnWrongLengths(t *testing.T) {
	s := must(control.NewSignal(control.Linear, 1, control.Series[float64]{Times: []float64{0, 1}, Values: []float64{1, 2}}))
	for want, call := range map[string]func(){
		"control: At with slices of the wrong length":         func() { _ = s.At(0, 0, make([]float64, 2), nil, nil) },
		"control: SetValues with the wrong number of values":  func() { s.SetValues(make([]float64, 3)) },
		"control: SampleValues of the wrong number of values": func() { s.SampleValues(make([]float64, 3), 0) },
	} {
		func() {
			defer func() {
				if r := recover(); r != want {
					t.Errorf("recovered %v, want %q", r, want)
				}
			}()
			call()
		}()
	}
}

// FuzzSignal reads signals at any knots with any values: no panic, the knots' values
// exactly at the knots, and continuity as the kind has it.
func FuzzSignal(f *testing.F) {
	f.Add(uint8(0), 0.0, 1.0, 2.5, 3.0, 1.0, -2.0, 0.5, 4.0, 1.2)
	f.Add(uint8(1), -1e9, 1.0, 2.0, 3e9, 1e30, -1e-30, 0.0, 1.0, 0.0)
	f.Add(uint8(2), 0.0, 1e-150, 2e-150, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5)
	f.Add(uint8(3), 0.0, 1e150, 1.1e150, 1.2e150, 1e300, -1e300, 1.0, 1.0, 1e150)
	f.Add(uint8(3), 1.0, math.Nextafter(1, 2), 1.5, 2.0, 0.0, 1.0, 2.0, 3.0, 1.7)
	f.Add(uint8(0x83), 16777216.0, 16777217.0, 16777218.0, 16777219.0, 1.0, 2.0, 3.0, 4.0, 16777217.5)
	f.Add(uint8(0x83), -92.0, 1e-150, 2e-149, 3.0, -97.0, 10.0, 1.0, 28.0, -8.5) // beyond float32
	f.Add(uint8(255), math.NaN(), math.Inf(1), 1.0, 1.0, math.NaN(), 0.0, 0.0, 0.0, math.NaN())
	f.Fuzz(func(t *testing.T, bits uint8, t0, t1, t2, t3, v0, v1, v2, v3, at float64) {
		times, values := []float64{t0, t1, t2, t3}, []float64{v0, v1, v2, v3}
		if kind := control.Kind(bits & 7); bits>>7 == 0 {
			fuzzOne(t, kind, times, values, at)
		} else {
			fuzzOne(t, kind, times, []float32{float32(v0), float32(v1), float32(v2), float32(v3)}, at)
		}
	})
}

func fuzzOne[T backend.Float](t *testing.T, kind control.Kind, times []float64, values []T, at float64) {
	s, err := control.NewSignal(kind, 1, control.Series[T]{Times: times, Values: values})
	if err != nil {
		if s != nil {
			t.Error("a signal and an error")
		}
		return
	}
	read := func(at float64) (float64, error) {
		u, du, ddu := make([]T, 1), make([]T, 1), make([]T, 1)
		err := s.At(0, at, u, du, ddu)
		return float64(u[0]), err
	}
	inside := at >= times[0] && at <= times[3]
	u, err := read(at)
	if inside && (err != nil || u != u) || err != nil && (u == u || !errors.Is(err, control.ErrOutside)) {
		t.Errorf("%v at %v: %v, %v", kind, at, u, err)
	}
	g := make([]T, 4)
	p := s.Pullback()
	p.Add(g, 0, at, 1, []T{1}, []T{1})
	p.Flush(g)
	largest, slope := 0.0, 0.0 // of the values, and of u' between two knots
	for i, v := range values {
		largest = max(largest, math.Abs(float64(v)))
		if i > 0 {
			slope = max(slope, math.Abs(float64(v)-float64(values[i-1]))/(times[i]-times[i-1]))
		}
	}
	for i, now := range times {
		v := float64(values[i])
		if u, err := read(now); err != nil || u != v {
			t.Errorf("%v at the knot %v: %v, %v, want %v", kind, now, u, err, v)
		}
		if i == 0 {
			continue
		}
		before := math.Nextafter(now, math.Inf(-1))
		if before == times[i-1] {
			continue // no number lies between
		}
		u, err := read(before)
		if err != nil {
			t.Errorf("%v just before the knot %v: %v", kind, now, err)
		}
		if kind == control.Constant {
			if u != float64(values[i-1]) {
				t.Errorf("%v just before the knot %v: %v, want %v", kind, now, u, values[i-1])
			}
			continue
		}
		// A natural spline's slopes are at most 3 times the largest difference
		// quotient, and a cubic's in between some 5 times that.
		jump, limit := math.Abs(u-v), 16*slope*(now-before)+8*eps[T]()*largest
		if kind != control.Linear {
			limit += 32 * 0x1p-52 * slope * (times[i] - times[i-1])
		}
		if !(jump <= limit) && !math.IsInf(limit, 0) {
			t.Errorf("%v: u is %v just before the knot %v and %v on it; %v may lie between", kind, u, now, v, limit)
		}
	}
}
