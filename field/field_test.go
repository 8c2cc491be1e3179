package field_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// decay is -kz with a push that grows in time, k and the push in θ.
func decay[T field.Number](t T, z, theta, dz []T) {
	dz[0] = -theta[0] * z[0]
	dz[1] = -theta[1]*z[1] + theta[2]*t
}

// shear has no parameters.
func shear[T field.Number](_ T, z, _, dz []T) { dz[0], dz[1] = z[1]*z[1], field.Sin(z[0]) }

func newNet[T backend.Float](t *testing.T) *mlp.Model[T] {
	net, err := mlp.New[T](mlp.Spec{Widths: []int{2, 5, 2}, Activations: []mlp.Activation{mlp.Tanh, mlp.Identity}, Time: mlp.TimeInput}, mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// On a backend, the sum of known physics, a part without parameters and an MLP is
// what its parts give one by one, nested or not.
func TestSum_IsTheSumOfItsParts(t *testing.T) {
	t.Run("float32", func(t *testing.T) { sums(t, decay[float32], shear[float32]) })
	t.Run("float64", func(t *testing.T) { sums(t, decay[float64], shear[float64]) })
}

func sums[T backend.Float](t *testing.T, decayT, shearT func(t T, z, theta, dz []T)) {
	physics := field.New(2, []T{0.5, 2, 3}, decayT, decay[field.Dual])
	extra := field.New(2, nil, shearT, shear[field.Dual])
	net := newNet[T](t)
	inner, err := field.Plus[T](extra, net)
	if err != nil {
		t.Fatal(err)
	}
	nested, err := field.Plus[T](physics, inner)
	if err != nil {
		t.Fatal(err)
	}
	flat, err := field.Plus[T](physics, extra, net)
	if err != nil {
		t.Fatal(err)
	}

	// By the parts' own methods, at time 0.75.
	const at, batch = 0.75, 3
	r := rand.New(rand.NewPCG(5, 5))
	draw := func(n int) []T {
		x := make([]T, n)
		for i := range x {
			x[i] = T(r.NormFloat64())
		}
		return x
	}
	z, a, v, w := draw(2*batch), draw(2*batch), draw(2*batch), draw(3+net.NumParams())
	dz, az, jv, aTime, atheta := make([]float64, 2*batch), make([]float64, 2*batch), make([]float64, 2*batch), make([]float64, batch), make([]float64, len(w))
	for b := range batch {
		z, a, v := z[2*b:2*b+2], a[2*b:2*b+2], v[2*b:2*b+2]
		part := func(eval func(out []T), vjp func(out, g []T) float64, jvp func(w, out []T), lo, hi int) {
			out, g := make([]T, 2), make([]T, hi-lo)
			add := func(dst []float64) {
				for i := range out {
					dst[2*b+i] += float64(out[i])
				}
			}
			eval(out)
			add(dz)
			aTime[b] += vjp(out, g)
			add(az)
			for j := range g {
				atheta[lo+j] += float64(g[j])
			}
			jvp(w[lo:hi], out)
			add(jv)
		}
		for _, g := range []struct {
			f      *field.Generic[T]
			lo, hi int
		}{{physics, 0, 3}, {extra, 3, 3}} {
			part(func(out []T) { g.f.Eval(at, z, g.f.Params(), out) },
				func(out, grad []T) float64 { return g.f.VJP(at, z, g.f.Params(), a, out, grad) },
				func(w, out []T) { g.f.JVP(at, z, g.f.Params(), v, w, out) }, g.lo, g.hi)
		}
		part(func(out []T) { net.Eval(at, z, out) },
			func(out, grad []T) float64 { return net.VJP(at, z, a, out, grad) },
			func(w, out []T) { net.JVP(at, z, v, w, out) }, 3, len(w))
	}

	// Some ten products of size 1 to 10 are added up, each rounded.
	tol := 64 * 0x1p-52
	if _, ok := any(T(0)).(float32); ok {
		tol = 64 * 0x1p-23
	}
	for name, sum := range map[string]*field.Sum[T]{"flat": flat, "nested": nested} {
		dev := cpu.New[T]()
		defer dev.Close()
		f, err := dev.Bind(sum)
		if err != nil {
			t.Fatal(err)
		}
		clk, err := dev.NewClock(1)
		if err != nil {
			t.Fatal(err)
		}
		dev.Start(clk, backend.Span{T0: at, Stops: []float64{at + 1}})
		vec := func(rows, cols int, src []T) backend.Vec[T] {
			x, err := dev.NewVec(1, rows, cols)
			if err != nil {
				t.Fatal(err)
			}
			if src != nil {
				dev.Upload(x, src)
			}
			return x
		}
		compare := func(what string, got backend.Vec[T], want []float64) {
			x := make([]T, len(want))
			if err := dev.Download(x, got); err != nil {
				t.Fatal(err)
			}
			for i := range x {
				if !(math.Abs(float64(x[i])-want[i]) <= tol*(1+math.Abs(want[i]))) {
					t.Errorf("%s: %s[%d] = %v, the parts add up to %v", name, what, i, x[i], want[i])
				}
			}
		}
		Z, A, V, W := vec(batch, 2, z), vec(batch, 2, a), vec(batch, 2, v), vec(1, len(w), w)
		DZ, AZ, AT, G, JV := vec(batch, 2, nil), vec(batch, 2, nil), vec(batch, 1, nil), vec(1, len(w), nil), vec(batch, 2, nil)
		now := backend.At{Clock: clk, Rows: backend.Running}
		f.Eval(DZ, now, Z)
		compare("dz", DZ, dz)
		dev.Zero(DZ)
		f.VJP(now, backend.VJP[T]{Z: Z, A: A, DZ: DZ, AZ: AZ, AT: AT, Alpha: 1, G: G, W: 1})
		compare("dz of VJP", DZ, dz)
		compare("az", AZ, az)
		compare("at", AT, aTime)
		compare("atheta", G, atheta)
		f.JVP(now, backend.JVP[T]{Z: Z, V: V, W: W, JV: JV})
		compare("jv", JV, jv)
	}
}

func TestSum_Params(t *testing.T) {
	physics := field.New(2, []float64{1, 2, 3}, decay[float64], decay[field.Dual])
	custom := &field.Custom[float64]{N: 2, Theta: []float64{4}, F: func(_ float64, _, _, _ []float64) {}}
	net := newNet[float64](t)
	inner, err := field.Plus[float64](custom, net)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := field.Plus[float64](physics, inner)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]float64{1, 2, 3, 4}, net.Theta...)
	if got := sum.Params(); !slices.Equal(got, want) || sum.NumParams() != len(want) || sum.Dim() != 2 || len(sum.Parts()) != 2 {
		t.Errorf("%d parameters %v", sum.NumParams(), got)
	}
	for i := range want {
		want[i] = float64(100 + i)
	}
	sum.SetParams(want)
	if !slices.Equal(physics.Params(), want[:3]) || custom.Theta[0] != 103 || !slices.Equal(net.Theta, want[4:]) || !slices.Equal(sum.Params(), want) {
		t.Errorf("parts have %v, %v, %v", physics.Params(), custom.Theta, net.Theta)
	}
	defer func() {
		if r := recover(); r != "field: SetParams with the wrong number of parameters" {
			t.Errorf("recovered %v", r)
		}
	}()
	sum.SetParams(want[1:])
}

func TestPlus_Refuses(t *testing.T) {
	one := field.New(1, nil, func(_ float64, z, _, dz []float64) { dz[0] = z[0] }, func(_ field.Dual, z, _, dz []field.Dual) { dz[0] = z[0] })
	for _, c := range []struct {
		parts []backend.System[float64]
		want  string
	}{
		{nil, "field: Plus needs at least one right-hand side"},
		{[]backend.System[float64]{one, nil}, "field: Plus: part 1 is nil"},
		{[]backend.System[float64]{one, newNet[float64](t)}, "field: Plus: part 1 has 2 components and part 0 has 1; all parts need the same"},
	} {
		if s, err := field.Plus(c.parts...); s != nil || err == nil || err.Error() != c.want {
			t.Errorf("%v, %v, want %q", s, err, c.want)
		}
	}
}

func TestCustom_Validate(t *testing.T) {
	f := func(_ float64, z, _, dz []float64) { copy(dz, z) }
	for _, c := range []struct {
		c    field.Custom[float64]
		want string
	}{
		{field.Custom[float64]{N: 2, F: f}, ""},
		{field.Custom[float64]{N: 0, F: f}, "field: Custom.N is 0; a state has at least one component"},
		{field.Custom[float64]{N: -1, F: f}, "field: Custom.N is -1"},
		{field.Custom[float64]{N: 2}, "field: Custom.F is nil; set it to the function that computes f(t, z; θ)"},
	} {
		// Alone, bound, and bound as a part of a sum.
		dev := cpu.New[float64]()
		_, bound := dev.Bind(&c.c)
		errs := []error{c.c.Validate(), bound}
		if sum, err := field.Plus[float64](&c.c, &c.c); err == nil {
			_, err = dev.Bind(sum)
			errs = append(errs, err)
		}
		for i, err := range errs {
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%d: error %v, want %q", i, err, c.want)
			}
		}
	}
}

// Without products a Custom solves, but says what is missing for gradients.
func TestCustom_WithoutProducts(t *testing.T) {
	c := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }}
	if c.HasVJP() || c.HasJVP() {
		t.Error("products out of nothing")
	}
	dev := cpu.New[float64]()
	f, err := dev.Bind(c)
	if err != nil {
		t.Fatal(err)
	}
	clk, err := dev.NewClock(1)
	if err != nil {
		t.Fatal(err)
	}
	dev.Start(clk, backend.Span{Stops: []float64{1}})
	x, err := dev.NewVec(1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	y, err := dev.NewVec(1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(){
		"VJP": func() { f.VJP(backend.At{Clock: clk}, backend.VJP[float64]{Z: x, A: x, AZ: y, Alpha: 1}) },
		"JVP": func() { f.JVP(backend.At{Clock: clk}, backend.JVP[float64]{Z: x, V: x, JV: y}) },
	} {
		call()
		if err := dev.Sync(); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "has no "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
