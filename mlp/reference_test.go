package mlp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// Values computed by hand, with Identity, so that every product can be followed.
func TestEval_ByHand(t *testing.T) {
	m := &Model[float64]{
		Spec: Spec{Widths: []int{2, 1, 2}, Activations: []Activation{Identity, Identity}, Time: TimeEveryLayer, Input: InputCube},
		Theta: []float64{
			2, 3, 5, 7, // x = 2z1³ + 3z2³ + 5t + 7
			11, 13, 17, 19, // [11 13; 17 19] [x, t]
			23, 29,
		},
	}
	dz := make([]float64, 2)
	m.Eval(0.5, []float64{1, -2}, dz)
	x := 2.0 - 24 + 2.5 + 7 // -12.5
	if want := [2]float64{11*x + 6.5 + 23, 17*x + 9.5 + 29}; dz[0] != want[0] || dz[1] != want[1] {
		t.Errorf("f = %v, want %v", dz, want)
	}
	az, atheta := make([]float64, 2), make([]float64, 10)
	at := m.VJP(0.5, []float64{1, -2}, []float64{1, 10}, az, atheta)
	// The cotangent of x is 11 + 170 = 181, and z³ adds the factors 3 and 12.
	if az[0] != 181*2*3 || az[1] != 181*3*12 {
		t.Errorf("az = %v", az)
	}
	if at != 181*5+13+190 {
		t.Errorf("at = %v", at)
	}
	want := []float64{181, 181 * -8, 181 * 0.5, 181, x, 0.5, 10 * x, 5, 1, 10}
	for i := range want {
		if atheta[i] != want[i] {
			t.Errorf("atheta[%d] = %v, want %v", i, atheta[i], want[i])
		}
	}
	jv := make([]float64, 2)
	m.JVP(0.5, []float64{1, -2}, []float64{1, 1}, nil, jv)
	if jv[0] != 11*(6+36) || jv[1] != 17*(6+36) {
		t.Errorf("jv = %v", jv)
	}
}

// forEachNetwork runs f for every activation × time conditioning × input map.
func forEachNetwork(t *testing.T, f func(t *testing.T, m *Model[float64], r *rand.Rand)) {
	for _, act := range Activations() {
		for _, tm := range []Time{TimeNone, TimeInput, TimeEveryLayer} {
			for _, in := range []Input{InputIdentity, InputCube} {
				t.Run(fmt.Sprintf("%v/%v/%v", act, tm, in), func(t *testing.T) {
					spec := Spec{Widths: []int{3, 4, 5, 2}, Activations: []Activation{act, act, act}, Time: tm, Input: in}
					m, err := New[float64](spec, Init{Weight: Normal, StdDev: 0.7}, 7)
					if err != nil {
						t.Fatal(err)
					}
					f(t, m, rand.New(rand.NewPCG(1, 2)))
				})
			}
		}
	}
}

func normals(r *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64()
	}
	return v
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

// numeric is the central difference of a·f along direction e of x, which f reads.
func numeric(f func(), out, a []float64, x *float64) float64 {
	// Truncation h²/6·f''' and rounding 1e-16·f/h are both below 1e-8 here.
	const h = 1e-5
	old := *x
	*x = old + h
	f()
	plus := dot(a, out)
	*x = old - h
	f()
	minus := dot(a, out)
	*x = old
	return (plus - minus) / (2 * h)
}

const fdTol = 1e-7 // ten times the error of numeric

func TestVJP_MatchesFiniteDifference(t *testing.T) {
	forEachNetwork(t, func(t *testing.T, m *Model[float64], r *rand.Rand) {
		tm, z, a := 0.3, normals(r, 3), normals(r, 2)
		az, atheta := make([]float64, 3), make([]float64, m.NumParams())
		at := m.VJP(tm, z, a, az, atheta)
		out := make([]float64, 2)
		eval := func() { m.Eval(tm, z, out) }
		for i := range z {
			if fd := numeric(eval, out, a, &z[i]); !close(az[i], fd, fdTol, fdTol) {
				t.Errorf("az[%d] = %g, finite difference %g", i, az[i], fd)
			}
		}
		for i := range m.Theta {
			if fd := numeric(eval, out, a, &m.Theta[i]); !close(atheta[i], fd, fdTol, fdTol) {
				t.Errorf("atheta[%d] = %g, finite difference %g", i, atheta[i], fd)
			}
		}
		if fd := numeric(eval, out, a, &tm); !close(at, fd, fdTol, fdTol) {
			t.Errorf("at = %g, finite difference %g", at, fd)
		}
		if m.Spec.Time == TimeNone && at != 0 {
			t.Errorf("at = %g for an autonomous f", at)
		}
	})
}

func TestJVP_MatchesFiniteDifference(t *testing.T) {
	forEachNetwork(t, func(t *testing.T, m *Model[float64], r *rand.Rand) {
		const tm = 0.3
		z, v, w := normals(r, 3), normals(r, 3), normals(r, m.NumParams())
		z0, theta0 := append([]float64{}, z...), append([]float64{}, m.Theta...)
		for _, c := range []struct {
			name string
			v, w []float64
		}{{"v", v, nil}, {"w", nil, w}, {"both", v, w}, {"neither", nil, nil}} {
			jv, out := make([]float64, 2), make([]float64, 2)
			m.JVP(tm, z, c.v, c.w, jv)
			s := 0.0
			eval := func() {
				for i := range c.v {
					z[i] = z0[i] + s*c.v[i]
				}
				for i := range c.w {
					m.Theta[i] = theta0[i] + s*c.w[i]
				}
				m.Eval(tm, z, out)
			}
			for i := range jv {
				unit := make([]float64, 2)
				unit[i] = 1
				// w has dozens of components: third derivatives along it are larger.
				if fd := numeric(eval, out, unit, &s); !close(jv[i], fd, 10*fdTol, 10*fdTol) {
					t.Errorf("%s: jv[%d] = %g, finite difference %g", c.name, i, jv[i], fd)
				}
			}
			copy(z, z0)
			copy(m.Theta, theta0)
		}
	})
}

// aᵀ(Jv) = (aᵀJ)v, for z and θ, up to the rounding of a few hundred products.
func TestVJP_IsAdjointOfJVP(t *testing.T) {
	forEachNetwork(t, func(t *testing.T, m *Model[float64], r *rand.Rand) {
		z, a, v, w := normals(r, 3), normals(r, 2), normals(r, 3), normals(r, m.NumParams())
		az, atheta, jv := make([]float64, 3), make([]float64, m.NumParams()), make([]float64, 2)
		m.VJP(0.3, z, a, az, atheta)
		m.JVP(0.3, z, v, w, jv)
		if left, right := dot(a, jv), dot(az, v)+dot(atheta, w); !close(left, right, 1e-13, 1e-13) {
			t.Errorf("aᵀ(Jv) = %g, (aᵀJ)v = %g", left, right)
		}
	})
}

func TestVJP_AccumulatesThetaAndOverwritesZ(t *testing.T) {
	m, err := New[float64](Spec{Widths: []int{2, 3, 2}, Activations: []Activation{Tanh, Identity}, Time: TimeInput}, Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	z, a := normals(r, 2), normals(r, 2)
	az, once := make([]float64, 2), make([]float64, m.NumParams())
	at := m.VJP(1, z, a, az, once)

	twice := make([]float64, m.NumParams())
	again := []float64{100, 100}
	m.VJP(1, z, a, again, twice)
	m.VJP(1, z, a, nil, twice)
	for i := range once {
		if twice[i] != 2*once[i] || once[i] == 0 {
			t.Errorf("atheta[%d]: %g once, %g twice", i, once[i], twice[i])
		}
	}
	if again[0] != az[0] || again[1] != az[1] {
		t.Errorf("az = %v, want %v whatever it held", again, az)
	}
	if got := m.VJP(1, z, a, nil, nil); got != at {
		t.Errorf("at = %g without outputs, %g with", got, at)
	}
	inPlace := append([]float64{}, a...)
	m.VJP(1, z, inPlace, inPlace, nil)
	if inPlace[0] != az[0] || inPlace[1] != az[1] {
		t.Errorf("az in place of a = %v, want %v", inPlace, az)
	}
}

// Float32 models compute in float64 and round once, so they differ from float64
// models with the same (rounded) parameters by half a float32 ulp.
func TestReference_Float32(t *testing.T) {
	forEachNetwork(t, func(t *testing.T, m64 *Model[float64], r *rand.Rand) {
		m := Convert[float32](m64)
		m64 = Convert[float64](m)
		round := func(x []float64) []float32 {
			y := make([]float32, len(x))
			for i := range x {
				y[i] = float32(x[i])
				x[i] = float64(y[i])
			}
			return y
		}
		z64, a64 := normals(r, 3), normals(r, 2)
		z, a := round(z64), round(a64)
		got := map[string][]float32{"dz": make([]float32, 2), "az": make([]float32, 3), "atheta": make([]float32, m.NumParams()), "jv": make([]float32, 2)}
		want := map[string][]float64{"dz": make([]float64, 2), "az": make([]float64, 3), "atheta": make([]float64, m.NumParams()), "jv": make([]float64, 2)}
		m.Eval(0.3, z, got["dz"])
		m64.Eval(0.3, z64, want["dz"])
		m.VJP(0.3, z, a, got["az"], got["atheta"])
		m64.VJP(0.3, z64, a64, want["az"], want["atheta"])
		m.JVP(0.3, z, z, m.Theta, got["jv"])
		m64.JVP(0.3, z64, z64, m64.Theta, want["jv"])
		for name := range got {
			for i, g := range got[name] {
				if g != float32(want[name][i]) {
					t.Errorf("%s[%d] = %v, want %v", name, i, g, float32(want[name][i]))
				}
			}
		}
	})
}

func TestEval_NaNPropagates(t *testing.T) {
	for _, act := range Activations() {
		m, err := New[float64](Spec{Widths: []int{2, 3, 2}, Activations: []Activation{act, act}}, Init{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		dz := make([]float64, 2)
		m.Eval(0, []float64{0, math.NaN()}, dz)
		if !math.IsNaN(dz[0]) || !math.IsNaN(dz[1]) {
			t.Errorf("%v: f(NaN) = %v", act, dz)
		}
	}
}
