package latent

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

var ctx = context.Background()

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func newModel[T backend.Float](t *testing.T, f backend.System[T], decoder *mlp.Model[T], set Settings) *Model[T] {
	t.Helper()
	dev := cpu.New[T]()
	m, err := New(dev, f, decoder, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if n := dev.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
		dev.Close()
	})
	return m
}

// small is a model of three latent components and two values, and series of it of unequal
// lengths, one of which begins at Start, with missing values.
func small(t *testing.T) (*Model[float64], []Series[float64]) {
	f := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 5, 3), mlp.Init{}, 1))
	decoder := must(mlp.New[float64](mlp.Dense(mlp.ELU, 3, 4, 2), mlp.Init{}, 2))
	m := newModel(t, f, decoder, Settings{
		Hidden: 4, Seed: 3, Start: -0.5, Noise: 0.7, KL: 0.8, FixedNoise: true,
		Solver: solver.Settings{Method: solver.RK4, Step: 0.2},
	})
	nan := math.NaN()
	return m, []Series[float64]{
		{Times: []float64{0, 0.3}, Values: []float64{1, -0.4, nan, 0.2}},
		{Times: []float64{-0.5, 0.1, 0.2, 0.9}, Values: []float64{0.3, 0.8, nan, nan, -1, 0.5, 0.9, nan}},
		{Times: []float64{0.4}, Values: []float64{0.1, 0.6}},
	}
}

func TestELBO_GradientMatchesDifferences(t *testing.T) {
	m, data := small(t)
	o := must(NewELBO(m, data))
	theta := must(m.Params())
	grad := make([]float64, len(theta))
	for _, batch := range [][]int{{0, 1, 2}, {2, 0}, {1}} {
		loss, err := o.Gradient(ctx, theta, batch, grad)
		if err != nil {
			t.Fatal(err)
		}
		if alone := must(o.Loss(ctx, theta, batch)); alone != loss {
			t.Errorf("Loss is %g, and %g with the gradient", alone, loss)
		}
		for i := range theta {
			const h = 1e-5
			var l [2]float64
			for k, sign := range []float64{-h, h} {
				p := slices.Clone(theta)
				p[i] += sign
				l[k] = must(o.Loss(ctx, p, batch))
			}
			if want := (l[1] - l[0]) / (2 * h); math.Abs(grad[i]-want) > 1e-8*(1+math.Abs(want)) {
				t.Errorf("batch %v, parameter %d: %.10g, by differences %.10g", batch, i, grad[i], want)
			}
		}
	}
}

// The mean over a batch is that of its series alone, whatever their order.
func TestELBO_IsTheMeanOfItsSeries(t *testing.T) {
	m, data := small(t)
	o := must(NewELBO(m, data))
	theta := must(m.Params())
	sum := 0.0
	for i := range data {
		sum += must(o.Loss(ctx, theta, []int{i})) / 3
	}
	for _, batch := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		if got := must(o.Loss(ctx, theta, batch)); math.Abs(got-sum) > 1e-12 {
			t.Errorf("%v: %g, alone %g", batch, got, sum)
		}
	}
}

// Noise differs with θ, and an evaluation repeats to the bit.
func TestELBO_Noise(t *testing.T) {
	m, data := small(t)
	m.set.FixedNoise = false
	o := must(NewELBO(m, data))
	theta := must(m.Params())
	batch := []int{0, 1, 2}
	a, eps := must(o.Loss(ctx, theta, batch)), slices.Clone(o.eps)
	other := slices.Clone(theta)
	other[0] += 1e-9
	must(o.Loss(ctx, other, batch))
	if slices.Equal(eps, o.eps) {
		t.Error("the same noise for another θ")
	}
	if b := must(o.Loss(ctx, theta, batch)); a != b || !slices.Equal(eps, o.eps) {
		t.Errorf("the loss is %g, then %g", a, b)
	}
}

// Where nothing moves and the decoder is x = w·z, series of n observations are normal, and
// the bound is tight for the posterior, whose mean and variance are known.
func TestELBO_IsTightForTheExactPosterior(t *testing.T) {
	const w, s, n = 1.5, 0.4, 5
	f := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{ZeroLast: true}, 1))
	decoder := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1))
	copy(decoder.Theta, []float64{w, 0})
	m := newModel(t, f, decoder, Settings{Noise: s, FixedNoise: true})
	x := []float64{1, 0.2, 0.7, 1.4, 0.9}
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum, squares = sum+v, squares+v*v
	}
	variance := 1 / (1 + n*w*w/(s*s))
	mean := variance * w * sum / (s * s)
	// log N(x; 0, s²I + w²·11ᵀ), by the matrix determinant lemma and Woodbury's identity.
	want := -(n*math.Log(2*math.Pi*s*s) - math.Log(variance) + squares/(s*s) - mean*mean/variance) / 2

	const copies = 4000
	one := Series[float64]{Times: []float64{0, 1, 2, 3, 4}, Values: x}
	data, batch := make([]Series[float64], copies), make([]int, copies)
	for i := range data {
		data[i], batch[i] = one, i
	}
	theta := must(m.Params())
	clear(theta[:m.enc.params()])
	bias := func(mean, variance float64) {
		theta[m.enc.read.B], theta[m.enc.read.B+1] = mean, math.Log(variance)
	}
	o := must(NewELBO(m, data))
	bias(mean, variance)
	// With ε, the loss of a series varies by a deviation below 1.
	if got := -must(o.Loss(ctx, theta, batch)); math.Abs(got-want) > 4/math.Sqrt(copies) {
		t.Errorf("the bound is %g, the likelihood %g", got, want)
	}
	// With another q it is lower by KL(q ‖ posterior).
	bias(mean+0.1, 2*variance)
	gap := (0.01/variance + 2 - 1 - math.Log(2)) / 2
	if got := -must(o.Loss(ctx, theta, batch)); math.Abs(got-(want-gap)) > 4/math.Sqrt(copies) {
		t.Errorf("the bound with another q is %g, want %g", got, want-gap)
	}
}

// The encoder against its formulas, series by series.
func TestEncode_MatchesTheFormulas(t *testing.T) {
	m, data := small(t)
	mean, logvar, err := m.Encode(data)
	if err != nil {
		t.Fatal(err)
	}
	e, sigmoid := &m.enc, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	affine := func(ly mlp.Layer, x []float64) []float64 {
		y := slices.Clone(m.theta[ly.B : ly.B+ly.Out])
		for i := range y {
			for j, v := range x {
				y[i] += m.theta[ly.W+i*ly.In+j] * v
			}
		}
		return y
	}
	for b, s := range data {
		h := make([]float64, e.hidden)
		for k := len(s.Times) - 1; k >= 0; k-- {
			x, last := make([]float64, 5), m.set.Start
			for j := range 2 {
				if v := s.Values[2*k+j]; v == v {
					x[j], x[2+j] = v, 1
				}
			}
			if k > 0 {
				last = s.Times[k-1]
			}
			x[4] = s.Times[k] - last
			a, c := affine(e.input, x), affine(e.state, h)
			for i := range h {
				r, u := sigmoid(a[i]+c[i]), sigmoid(a[e.hidden+i]+c[e.hidden+i])
				n := math.Tanh(a[2*e.hidden+i] + r*c[2*e.hidden+i])
				h[i] = (1-u)*n + u*h[i]
			}
		}
		for j, want := range affine(e.read, h) {
			got := append(slices.Clone(mean[3*b:3*b+3]), logvar[3*b:3*b+3]...)[j]
			if math.Abs(got-want) > 1e-12 {
				t.Errorf("series %d, output %d: %g, want %g", b, j, got, want)
			}
		}
	}
}

// A decay that is decoded by a linear layer; times before and after Start.
func TestDecode_OfADecay(t *testing.T) {
	f := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1))
	copy(f.Theta, []float64{-0.5, 0, 0, -2, 0, 0})
	decoder := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 1), mlp.Init{}, 1))
	copy(decoder.Theta, []float64{3, 1, 0.25})
	m := newModel(t, f, decoder, Settings{Noise: 1, Start: 1, Solver: solver.Settings{RTol: 1e-10, ATol: 1e-12}})
	z0 := make([]float64, 2*100) // more than a tile
	r := rand.New(rand.NewPCG(1, 2))
	for i := range z0 {
		z0[i] = r.NormFloat64()
	}
	for _, times := range [][]float64{{1, 1.5, 2}, {1.2}, {0.5, 0}} {
		x, err := m.Decode(ctx, z0, times)
		if err != nil {
			t.Fatal(err)
		}
		for b := range 100 {
			for i, at := range times {
				want := 3*z0[2*b]*math.Exp(-0.5*(at-1)) + z0[2*b+1]*math.Exp(-2*(at-1)) + 0.25
				if got := x[b*len(times)+i]; math.Abs(got-want) > 1e-8 {
					t.Errorf("state %d at %g: %g, want %g", b, at, got, want)
				}
			}
		}
	}
}

func TestLatent_Errors(t *testing.T) {
	m, good := small(t)
	dev := cpu.New[float64]()
	defer dev.Close()
	f := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 3), mlp.Init{}, 1))
	decoder := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 2), mlp.Init{}, 1))
	timed := must(mlp.New[float64](mlp.Spec{Widths: []int{3, 2}, Activations: []mlp.Activation{mlp.Identity}, Time: mlp.TimeInput}, mlp.Init{}, 1))
	of := func(s Series[float64]) error { _, err := NewELBO(m, []Series[float64]{good[0], s}); return err }
	second := func(_ any, err error) error { return err }
	for want, err := range map[string]error{
		"nil; mlp.New makes one":     second(New(dev, f, nil, Settings{Noise: 1})),
		"function of z alone":        second(New(dev, f, timed, Settings{Noise: 1})),
		"Settings.Noise is 0":        second(New(dev, f, decoder, Settings{})),
		"KL -1":                      second(New(dev, f, decoder, Settings{Noise: 1, KL: -1})),
		"they must be equal":         second(New(dev, must(mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1)), decoder, Settings{Noise: 1})),
		"there are no series":        second(NewELBO(m, nil)),
		"series 1 has 1 times and 1": of(Series[float64]{Times: []float64{1}, Values: []float64{1}}),
		"series 1 has 0 times":       of(Series[float64]{}),
		"time 1 is 1":                of(Series[float64]{Times: []float64{1, 1}, Values: make([]float64, 4)}),
		"time 0 is -1":               of(Series[float64]{Times: []float64{-1, 1}, Values: make([]float64, 4)}),
		"value 1 of time 0 is +Inf":  of(Series[float64]{Times: []float64{1}, Values: []float64{0, math.Inf(1)}}),
		"all values are missing":     of(Series[float64]{Times: []float64{1}, Values: []float64{math.NaN(), math.NaN()}}),
		"give states as [N, 3]":      second(m.Decode(ctx, make([]float64, 4), []float64{1})),
		"at least one time":          second(m.Decode(ctx, make([]float64, 3), nil)),
		"the model has":              m.SetParams(nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one about %q", err, want)
		}
	}
}

// A solve that fails names its series, whatever its place in the solve.
func TestELBO_NamesTheSeriesThatFails(t *testing.T) {
	f := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1))
	copy(f.Theta, []float64{-1, 0})
	decoder := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1))
	m := newModel(t, f, decoder, Settings{Noise: 1, Solver: solver.Settings{MaxAttempts: 5}})
	o := must(NewELBO(m, []Series[float64]{
		{Times: []float64{0.01, 0.02}, Values: []float64{1, 1}},
		{Times: []float64{1000}, Values: []float64{1}},
	}))
	_, err := o.Loss(ctx, must(m.Params()), []int{1, 0})
	if !errors.Is(err, solver.TooManyAttempts) || !strings.Contains(err.Error(), "series 1, which is sample 1") {
		t.Errorf("%v, want one about series 1", err)
	}
}
