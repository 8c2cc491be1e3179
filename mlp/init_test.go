package mlp

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// Bounds and deviations written out from the papers, for a layer with 300 + time
// inputs and 200 outputs.
func TestInit_Distribution(t *testing.T) {
	const in, out = 301.0, 200.0
	for _, c := range []struct {
		init   Init
		scale  float64
		normal bool
	}{
		{Init{}, 1 / math.Sqrt(in), false},
		{Init{Gain: 9}, 1 / math.Sqrt(in), false},
		{Init{Weight: XavierUniform}, math.Sqrt(6 / (in + out)), false},
		{Init{Weight: XavierUniform, Gain: 2}, 2 * math.Sqrt(6/(in+out)), false},
		{Init{Weight: XavierNormal}, math.Sqrt(2 / (in + out)), true},
		{Init{Weight: XavierNormal, Gain: 5.0 / 3}, 5.0 / 3 * math.Sqrt(2/(in+out)), true},
		{Init{Weight: KaimingUniform}, math.Sqrt(6 / in), false},
		{Init{Weight: KaimingUniform, Gain: math.Sqrt(1.0 / 3)}, 1 / math.Sqrt(in), false}, // a = √5
		{Init{Weight: KaimingNormal}, math.Sqrt(2 / in), true},
		{Init{Weight: KaimingNormal, Gain: 1}, math.Sqrt(1 / in), true},
		{Init{Weight: Normal}, 1, true},
		{Init{Weight: Normal, StdDev: 0.1}, 0.1, true},
	} {
		spec := Spec{Widths: []int{300, 200}, Activations: []Activation{Tanh}, Time: TimeInput}
		m, err := New[float64](spec, c.init, 11)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name string, x []float64, scale float64, normal bool) {
			t.Helper()
			n := float64(len(x))
			var mean, m2, m4, largest float64
			for _, v := range x {
				mean += v / n
				m2 += v * v / n
				m4 += v * v * v * v / n
				largest = math.Max(largest, math.Abs(v))
			}
			sigma, kurtosis := scale, 3.0
			if !normal {
				sigma, kurtosis = scale/math.Sqrt(3), 9.0/5
				// The largest of n uniform draws misses the bound by about 1/n.
				if largest > scale || largest < scale*(1-20/n) {
					t.Errorf("%+v: largest |%s| is %g, bound %g", c.init, name, largest, scale)
				}
			}
			// Five standard errors of the mean, the variance and the kurtosis.
			if math.Abs(mean) > 5*sigma/math.Sqrt(n) {
				t.Errorf("%+v: mean of %s is %g, σ %g", c.init, name, mean, sigma)
			}
			if d := m2/(sigma*sigma) - 1; math.Abs(d) > 5*math.Sqrt((kurtosis-1)/n) {
				t.Errorf("%+v: variance of %s is off by a factor of 1%+g", c.init, name, d)
			}
			if k := m4 / (m2 * m2); math.Abs(k-kurtosis) > 5*math.Sqrt(24/n) {
				t.Errorf("%+v: kurtosis of %s is %g, want %g", c.init, name, k, kurtosis)
			}
		}
		check("weight", m.Weight(0), c.scale, c.normal)
		check("bias", m.Bias(0), 1/math.Sqrt(in), false)
	}
}

func TestInit_Zeros(t *testing.T) {
	spec := Dense(Tanh, 3, 4, 5, 2)
	base, err := New[float64](spec, Init{Weight: XavierNormal}, 5)
	if err != nil {
		t.Fatal(err)
	}
	isZero := func(x []float64) bool { return !slices.ContainsFunc(x, func(v float64) bool { return v != 0 }) }
	for _, c := range []struct{ biasZero, zeroLast bool }{{true, false}, {false, true}, {true, true}} {
		init := Init{Weight: XavierNormal, ZeroLast: c.zeroLast}
		if c.biasZero {
			init.Bias = BiasZero
		}
		m, err := New[float64](spec, init, 5)
		if err != nil {
			t.Fatal(err)
		}
		for l := range 3 {
			zeroW := c.zeroLast && l == 2
			zeroB := zeroW || c.biasZero
			if isZero(m.Weight(l)) != zeroW || isZero(m.Bias(l)) != zeroB {
				t.Errorf("%+v: layer %d has weight %v and bias %v", init, l, m.Weight(l), m.Bias(l))
			}
			// What is not zeroed is the same as without.
			if !zeroW && !slices.Equal(m.Weight(l), base.Weight(l)) || !zeroB && !slices.Equal(m.Bias(l), base.Bias(l)) {
				t.Errorf("%+v: layer %d differs from the one without zeros", init, l)
			}
		}
	}
}

func TestInit_SeedsAndPrecisions(t *testing.T) {
	spec := Dense(Tanh, 3, 16, 3)
	for w := range weightInitNames {
		init := Init{Weight: WeightInit(w)}
		a, err := New[float64](spec, init, 42)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := New[float64](spec, init, 42)
		c, _ := New[float64](spec, init, 43)
		f, _ := New[float32](spec, init, 42)
		if !slices.Equal(a.Theta, b.Theta) {
			t.Errorf("%v: one seed gives two models", init.Weight)
		}
		if a.Theta[0] == c.Theta[0] || a.Theta[1] == c.Theta[1] {
			t.Errorf("%v: two seeds give one model", init.Weight)
		}
		for i := range f.Theta {
			if f.Theta[i] != float32(a.Theta[i]) {
				t.Errorf("%v: parameter %d is %v in float32, %v in float64", init.Weight, i, f.Theta[i], a.Theta[i])
			}
		}
	}
	// Published results depend on a seed's parameters: they must never change.
	m, err := New[float64](Dense(Tanh, 1, 1), Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Theta, []float64{0.8427850876519456, -0.7260697803695306}; !slices.Equal(got, want) {
		t.Errorf("parameters of seed 1 are %v, want %v", got, want)
	}
}

func TestInit_Validate(t *testing.T) {
	for _, c := range []struct {
		init Init
		want string
	}{
		{Init{Weight: 99}, "weight initialiser 99 unknown; use one of torch_linear"},
		{Init{Bias: 99}, "bias initialiser 99 unknown; use one of torch_linear, zero"},
		{Init{Gain: -1}, "Init.Gain is -1; give a positive number"},
		{Init{Gain: math.NaN()}, "Init.Gain is NaN"},
		{Init{Gain: math.Inf(1)}, "Init.Gain is +Inf"},
		{Init{StdDev: -1}, "Init.StdDev is -1"},
		{Init{StdDev: math.NaN()}, "Init.StdDev is NaN"},
		{Init{StdDev: math.Inf(1)}, "Init.StdDev is +Inf"},
	} {
		m, err := New[float64](Dense(Tanh, 2, 2), c.init, 1)
		if m != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v, want %q", c.init, m, err, c.want)
		}
	}
	if m, err := New[float64](Spec{}, Init{}, 1); m != nil || err == nil {
		t.Error("New took an empty Spec")
	}
}
