package train

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// oscillator is x" = -k·x - c·x', θ = (k, c).
func oscillator[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = -theta[0]*z[0] - theta[1]*z[1]
}

func newOscillator(k, c float64) backend.System[float64] {
	return field.New(2, []float64{k, c}, oscillator[float64], oscillator[field.Dual])
}

// swings is sixteen swings of k = 4, c = 0.02 from (1, 0), with noise of a tenth of the first
// amplitude in x and x'.
const trueK, trueC, swingNoise = 4.0, 0.02, 0.1

func swings() Series[float64] {
	r := rand.New(rand.NewPCG(1, 2))
	w := math.Sqrt(trueK - trueC*trueC/4)
	var s Series[float64]
	for i := range 201 {
		t := 0.25 * float64(i)
		e, a := math.Exp(-trueC*t/2), trueC/(2*w)
		x := e * (math.Cos(w*t) + a*math.Sin(w*t))
		v := -e * trueK / w * math.Sin(w*t)
		s.Times = append(s.Times, t)
		s.Values = append(s.Values, x+swingNoise*r.NormFloat64(), v+swingNoise*r.NormFloat64())
	}
	s.Z0 = s.Values[:2]
	return s
}

func perSample(t *testing.T, f backend.System[float64], set solver.Settings) *solver.Solver[float64] {
	t.Helper()
	set.Stepping = solver.PerSample
	return newSolver(t, f, set)
}

// lorenz is the system of Lorenz 1963, θ = (σ, ρ, β).
func lorenz[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0] * (z[1] - z[0])
	dz[1] = z[0]*(theta[1]-z[2]) - z[1]
	dz[2] = z[0]*z[1] - theta[2]*z[2]
}

func newLorenz(theta ...float64) backend.System[float64] {
	return field.New(3, theta, lorenz[float64], lorenz[field.Dual])
}

// Chaos takes one solve from the beginning away from the data whatever θ is; segments find
// the parameters as exactly as the noise lets them.
func TestShooting_FindsWhatOneSolveDoesNot(t *testing.T) {
	truth := []float64{10, 28, 8. / 3}
	var times []float64
	for i := range 251 {
		times = append(times, 0.06*float64(i))
	}
	z0 := []float64{-8, 7, 27}
	sol, err := perSample(t, newLorenz(truth...), solver.Settings{Method: solver.Vern7, RTol: 1e-11, ATol: 1e-11}).Solve(t.Context(), z0, times)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range sol.Y {
		sol.Y[i] += 0.5 * r.NormFloat64()
	}
	s := perSample(t, newLorenz(7, 20, 2), solver.Settings{})
	data := []Series[float64]{{Times: times, Z0: sol.Y[:3], Values: sol.Y}}
	// worst is the largest relative error of the parameters that a fit finds.
	worst := func(o Objective[float64], theta []float64) (off float64) {
		res, err := LBFGS(t.Context(), o, theta, LBFGSSettings[float64]{Iterations: 60})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range truth {
			off = max(off, math.Abs(res.Best[i]/v-1))
		}
		return off
	}
	whole, err := NewRagged(s, data, TrajectorySettings{LearnZ0: true})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	start, err := whole.Params()
	if err != nil {
		t.Fatal(err)
	}
	if off := worst(whole, start); off < 0.1 {
		t.Errorf("one solve finds the parameters to %g by itself: the problem shows nothing", off)
	}
	o, err := NewShooting(s, data, ShootingSettings{Continuity: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if start, err = o.Params(); err != nil {
		t.Fatal(err)
	}
	if off := worst(o, start); off > 0.02 {
		t.Errorf("segments find the parameters to %g", off)
	}
}

func TestShooting_GradientMatchesDifferences(t *testing.T) {
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := perSample(t, m, solver.Settings{Method: solver.RK4, Step: 0.1})
	nan := math.NaN()
	data := []Series[float64]{
		{Times: []float64{0, 0.2, 0.5, 0.6, 1}, Z0: []float64{1, 2}, Values: []float64{1, nan, 0.5, 0.1, nan, 0.3, 0.7, 0.2, nan, -1}},
		{Times: []float64{1, 0.5}, Z0: []float64{0, 1}, Values: []float64{nan, nan, 0.4, 0.1}},
		{Times: []float64{0, 0.3, 0.4}, Z0: []float64{0, 1}, Values: []float64{0, 1, 1, 2, 2, 3}},
	}
	o, err := NewShooting(s, data, ShootingSettings{Length: 2, Continuity: 0.7, Loss: Loss{Kind: Huber, Delta: 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	theta, err := o.Params()
	if err != nil {
		t.Fatal(err)
	}
	// Missing values start at those before: 0.3 was seen for x₂ at t = 0.5, none for x₁.
	if got := o.States(theta, 0); !slices.Equal(got, []float64{1, 2, 1, 0.3}) {
		t.Errorf("the segments of series 0 start at %v", got)
	}
	if n := len(o.segments); n != 4 || o.NumParams() != s.NumParams()+8 {
		t.Errorf("%d segments and %d parameters", n, o.NumParams())
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range theta {
		theta[i] += 0.3 * r.NormFloat64()
	}
	grad := make([]float64, len(theta))
	for _, batch := range [][]int{{0, 1, 2}, {2, 0}, {1}} {
		if _, err := o.Gradient(t.Context(), theta, batch, grad); err != nil {
			t.Fatal(err)
		}
		for i := range theta {
			const h = 1e-6
			var l [2]float64
			for k, d := range []float64{-h, h} {
				p := slices.Clone(theta)
				p[i] += d
				if l[k], err = o.Loss(t.Context(), p, batch); err != nil {
					t.Fatal(err)
				}
			}
			if want := (l[1] - l[0]) / (2 * h); !near(grad[i], want, 1e-7, 1e-9) {
				t.Errorf("batch %v, parameter %d: %g, by differences %g", batch, i, grad[i], want)
			}
		}
	}
	_, err = NewShooting(s, data, ShootingSettings{Length: -1})
	wantError(t, err, "Length -1")
	_, err = NewShooting(s, nil, ShootingSettings{})
	wantError(t, err, "no series")
	_, err = o.Loss(t.Context(), theta[:3], []int{0})
	wantError(t, err, "3 parameters")
}

// Smooth is exact for what its polynomials are: lines, and the slopes of parabolas, at
// unequal times and with values missing.
func TestSmooth_IsExactForPolynomials(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var s Series[float64]
	at := 0.0
	for i := range 40 {
		at += 0.05 + r.Float64()
		line, parabola := 3-2*at, 1+at-0.1*at*at
		if i%7 == 3 {
			line = math.NaN()
		}
		s.Times, s.Values = append(s.Times, at), append(s.Values, line, parabola)
	}
	for _, h := range []float64{0, 0.01, 3, 100} {
		z, dz, err := Smooth(s, h)
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range s.Times {
			if !near(z[2*i], 3-2*at, 1e-9, 1e-9) || !near(dz[2*i], -2, 1e-7, 0) || !near(dz[2*i+1], 1-0.2*at, 1e-7, 1e-7) {
				t.Errorf("h = %g, t = %g: line %g with slope %g, parabola's slope %g", h, at, z[2*i], dz[2*i], dz[2*i+1])
			}
		}
	}
	_, _, err := Smooth(Series[float64]{Times: []float64{0, 1, 1, 2}, Values: make([]float64, 4)}, 0)
	wantError(t, err, "time 2 is 1")
	_, _, err = Smooth(Series[float64]{Times: []float64{0, 1, 2, 3}, Values: []float64{1, 2, 3, math.NaN()}}, 0)
	wantError(t, err, "component 0 has 3 values")
	_, _, err = Smooth(Series[float64]{Times: []float64{0, 1, 2, 3}, Values: []float64{1, 2, 3, math.Inf(1)}}, 0)
	wantError(t, err, "value 0 of time 3 is +Inf")
	_, _, err = Smooth(s, -1)
	wantError(t, err, "bandwidth -1")
}

// The loss is that of f against the derivatives, at times of any size.
func TestCollocation_IsTheLossOfF(t *testing.T) {
	spec := mlp.Dense(mlp.Tanh, 2, 4, 2)
	spec.Time = mlp.TimeInput
	m, err := mlp.New[float64](spec, mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	dev := cpu.New[float64]()
	defer dev.Close()
	r := rand.New(rand.NewPCG(7, 8))
	const n = 200
	var times, z, dz []float64
	want, f := 0.0, make([]float64, 2)
	for range n {
		at := r.Float64() * math.Pow(10, 4*r.Float64()-2)
		x := []float64{r.NormFloat64(), r.NormFloat64()}
		d := []float64{r.NormFloat64(), r.NormFloat64()}
		m.Eval(at, x, f)
		for j := range 2 {
			want += (f[j] - d[j]) * (f[j] - d[j]) / (2 * n)
		}
		times, z, dz = append(times, at), append(z, x...), append(dz, d...)
	}
	c, err := NewCollocation(dev, m, times, z, dz, Loss{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Loss(t.Context(), m.Theta, count(n))
	if err != nil || !near(got, want, 1e-9, 0) {
		t.Errorf("loss %.15g, %v, want %.15g", got, err, want)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, err = NewCollocation(dev, m, times, z, dz[:4], Loss{})
	wantError(t, err, "4 derivatives")
	if n := dev.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

// The derivatives of the smoothed series give the parameters nearly, from far away; one
// solve finds them from there.
func TestCollocation_StartsAFit(t *testing.T) {
	data, f := swings(), newOscillator(1, 0.3)
	z, dz, err := Smooth(data, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	dev := cpu.New[float64]()
	defer dev.Close()
	c, err := NewCollocation(dev, f, data.Times, z, dz, Loss{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := LBFGS(t.Context(), c, []float64{1, 0.3}, LBFGSSettings[float64]{})
	if err != nil {
		t.Fatal(err)
	}
	if k := res.Best[0]; math.Abs(k-trueK) > 0.6 {
		t.Errorf("collocation finds k = %g, c = %g", k, res.Best[1])
	}
	s := perSample(t, f, solver.Settings{})
	whole, err := NewRagged(s, []Series[float64]{data}, TrajectorySettings{LearnZ0: true})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	res, err = LBFGS(t.Context(), whole, append(res.Best, z[:2]...), LBFGSSettings[float64]{Iterations: 200})
	if err != nil {
		t.Fatal(err)
	}
	if k, c := res.Best[0], res.Best[1]; math.Abs(k-trueK) > 5e-3 || math.Abs(c-trueC) > 2e-3 {
		t.Errorf("then one solve finds k = %g, c = %g", k, c)
	}
}
