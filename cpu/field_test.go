package cpu

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// rig is a backend with a clock about to step from t = 0.3 by h = 0.5.
type rig[T backend.Float] struct {
	testing.TB
	*Backend[T]
	clk backend.Clock
	rng *rand.Rand
}

func newRig[T backend.Float](t testing.TB, lanes int) *rig[T] {
	b := New[T]()
	r := &rig[T]{t, b, must(b.NewClock(lanes)), rand.New(rand.NewPCG(1, 2))}
	b.Start(r.clk, backend.Span{T0: 0.3, H0: 0.5, Stops: []float64{100}})
	return r
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func (r *rig[T]) at(c float64) backend.At {
	return backend.At{Clock: r.clk, C: c, Rows: backend.Running}
}

func (r *rig[T]) random(n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(r.rng.NormFloat64())
	}
	return x
}

func (r *rig[T]) vec(rows, cols int, host []T) backend.Vec[T] {
	v := must(r.NewVec(1, rows, cols))
	r.Upload(v, host)
	return v
}

func (r *rig[T]) read(v backend.Vec[T]) []T {
	r.Helper()
	_, rows, cols := v.Shape()
	x := make([]T, rows*cols)
	if err := r.Download(x, v); err != nil {
		r.Fatal(err)
	}
	return x
}

func (r *rig[T]) bind(sys backend.System[T]) backend.Field[T] {
	r.Helper()
	f, err := r.Bind(sys)
	if err != nil {
		r.Fatal(err)
	}
	return f
}

func (r *rig[T]) model(act mlp.Activation, widths ...int) *mlp.Model[T] {
	s := mlp.Dense(act, widths...)
	s.Time = mlp.TimeEveryLayer
	return must(mlp.New[T](s, mlp.Init{}, 7))
}

// rotor is f = [θ0·z0·z1 + sin t, θ1·z1² - t·z0].
func rotor[T field.Number](t T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0]*z[1] + field.Sin(t)
	dz[1] = theta[1]*z[1]*z[1] - t*z[0]
}

func newRotor[T backend.Float]() field.Func[T] {
	theta := []T{0.7, -1.3}
	switch any(theta).(type) {
	case []float32:
		return any(field.New(2, []float32{0.7, -1.3}, rotor[float32], rotor[field.Dual])).(field.Func[T])
	default:
		return any(field.New(2, []float64{0.7, -1.3}, rotor[float64], rotor[field.Dual])).(field.Func[T])
	}
}

// products are all results for one row.
type products struct {
	dz, az, atheta, jv [2]float64
	at                 float64
}

// rotorProducts are rotor's, differentiated by hand.
func rotorProducts(t float64, z, th, a, v, w []float64) (p products) {
	p.dz = [2]float64{th[0]*z[0]*z[1] + math.Sin(t), th[1]*z[1]*z[1] - t*z[0]}
	p.az = [2]float64{a[0]*th[0]*z[1] - a[1]*t, a[0]*th[0]*z[0] + 2*a[1]*th[1]*z[1]}
	p.atheta = [2]float64{a[0] * z[0] * z[1], a[1] * z[1] * z[1]}
	p.at = a[0]*math.Cos(t) - a[1]*z[0]
	p.jv = [2]float64{
		th[0]*(v[0]*z[1]+z[0]*v[1]) + w[0]*z[0]*z[1],
		2*th[1]*z[1]*v[1] - t*v[0] + w[1]*z[1]*z[1],
	}
	return p
}

func wide[T backend.Float](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func eps[T backend.Float]() float64 {
	if sizeOf[T]() == 4 {
		return 0x1p-23
	}
	return 0x1p-52
}

func TestFunc_MatchesHandDerivatives(t *testing.T) {
	t.Run("float32", func(t *testing.T) { compareFields[float32](t, false) })
	t.Run("float64", func(t *testing.T) { compareFields[float64](t, false) })
}

// A sum of known physics, an MLP and the physics once more.
func TestSum_MatchesItsParts(t *testing.T) {
	t.Run("float32", func(t *testing.T) { compareFields[float32](t, true) })
	t.Run("float64", func(t *testing.T) { compareFields[float64](t, true) })
}

func compareFields[T backend.Float](t *testing.T, sum bool) {
	const rows = 5
	r := newRig[T](t, rows)
	var sys backend.System[T] = newRotor[T]()
	m := r.model(mlp.Tanh, 2, 9, 2)
	if sum {
		sys = must(field.Plus[T](newRotor[T](), m, newRotor[T]()))
	}
	f := r.bind(sys)
	p := f.NumParams()
	theta := r.random(p) // not what it was bound with
	r.Upload(f.Params(), theta)
	z, a, v, w, g0 := r.random(2*rows), r.random(2*rows), r.random(2*rows), r.random(p), r.random(p)
	Z, A, V, W, G := r.vec(rows, 2, z), r.vec(rows, 2, a), r.vec(rows, 2, v), r.vec(1, p, w), r.vec(1, p, g0)
	dz, dz2, dz3, az, at, jv := r.vec(rows, 2, z), r.vec(rows, 2, z), r.vec(rows, 2, z), r.vec(rows, 2, z), r.vec(rows, 1, z[:rows]), r.vec(rows, 2, z)
	f.Eval(dz, r.at(0.5), Z)
	f.VJP(r.at(0.5), backend.VJP[T]{Z: Z, A: A, DZ: dz2, AZ: az, AT: at, Alpha: -1, G: G, W: 2, TimesH: true})
	f.JVP(r.at(0.5), backend.JVP[T]{Z: Z, V: V, W: W, DZ: dz3, JV: jv})
	jv0 := r.vec(rows, 2, z)
	f.JVP(r.at(0.5), backend.JVP[T]{Z: Z, V: V, JV: jv0})

	const time, weight = 0.3 + 0.5*0.5, 2 * 0.5
	wantG := wide(g0)
	check := func(what string, got T, want float64) {
		t.Helper()
		// Some tens of operations on numbers of order 1, and a sum over rows.
		if math.Abs(float64(got)-want) > 100*eps[T]()*(1+math.Abs(want)) {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	md := &mlp.Model[float64]{Spec: m.Spec}
	for row := range rows {
		x := func(y []T) []float64 { return wide(y[2*row : 2*row+2]) }
		parts := []int{0}
		if sum {
			parts = []int{0, p - 2}
			md.Theta = wide(theta[2 : p-2])
		}
		var want products
		jvNoW := [2]float64{}
		for _, o := range parts {
			one := rotorProducts(time, x(z), wide(theta[o:o+2]), x(a), x(v), wide(w[o:o+2]))
			still := rotorProducts(time, x(z), wide(theta[o:o+2]), x(a), x(v), []float64{0, 0})
			for i := range 2 {
				want.dz[i] += one.dz[i]
				want.az[i] += one.az[i]
				want.jv[i] += one.jv[i]
				jvNoW[i] += still.jv[i]
				wantG[o+i] += weight * one.atheta[i]
			}
			want.at += one.at
		}
		if sum {
			d, back, fwd, still := make([]float64, 2), make([]float64, 2), make([]float64, 2), make([]float64, 2)
			grad := make([]float64, p-4)
			md.Eval(time, x(z), d)
			want.at += md.VJP(time, x(z), x(a), back, grad)
			md.JVP(time, x(z), x(v), wide(w[2:p-2]), fwd)
			md.JVP(time, x(z), x(v), nil, still)
			for i := range 2 {
				want.dz[i] += d[i]
				want.az[i] += back[i]
				want.jv[i] += fwd[i]
				jvNoW[i] += still[i]
			}
			for i, v := range grad {
				wantG[2+i] += weight * v
			}
		}
		for i := range 2 {
			k := 2*row + i
			check("Eval", r.read(dz)[k], want.dz[i])
			check("VJP's DZ", r.read(dz2)[k], want.dz[i])
			check("JVP's DZ", r.read(dz3)[k], want.dz[i])
			check("AZ", r.read(az)[k], -want.az[i])
			check("JV", r.read(jv)[k], want.jv[i])
			check("JV without w", r.read(jv0)[k], jvNoW[i])
		}
		check("AT", r.read(at)[row], -want.at)
	}
	for i, got := range r.read(G) {
		check(fmt.Sprintf("G[%d]", i), got, wantG[i])
	}
}

// What a Func leaves out is not needed as long as nobody asks for it.
func TestFunc_WithoutProducts(t *testing.T) {
	r := newRig[float64](t, 1)
	only := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }}
	z, out := r.vec(1, 1, []float64{2}), r.vec(1, 1, []float64{0})
	for name, sys := range map[string]backend.System[float64]{
		"Custom": only,
		"Sum":    must(field.Plus[float64](r.model(mlp.Tanh, 1, 2, 1), only)),
	} {
		f := r.bind(sys)
		f.Eval(out, r.at(0), z)
		if err := r.Sync(); err != nil {
			t.Errorf("%s: Eval: %v", name, err)
		}
		f.VJP(r.at(0), backend.VJP[float64]{Z: z, A: z, AZ: out, Alpha: 1})
		err := r.Sync()
		if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "implement field.VJPer (Custom.BackF") {
			t.Errorf("%s: VJP: %v", name, err)
		}
		f.JVP(r.at(0), backend.JVP[float64]{Z: z, V: z, JV: out})
		err = r.Sync()
		if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "implement field.JVPer (Custom.ForwardF") {
			t.Errorf("%s: JVP: %v", name, err)
		}
		if err := r.Sync(); err != nil {
			t.Errorf("%s: the failure was reported twice: %v", name, err)
		}
	}
}

// liar is a Func that contradicts itself.
type liar struct {
	field.Func[float64]
	dim, params int
}

func (l liar) Dim() int       { return l.dim }
func (l liar) NumParams() int { return l.params }

func TestBind_Errors(t *testing.T) {
	b := New[float64]()
	spec := mlp.Dense(mlp.Tanh, 2, 3, 2)
	short := &mlp.Model[float64]{Spec: spec, Theta: make([]float64, 16)}
	rotor := newRotor[float64]()
	for _, c := range []struct {
		sys  backend.System[float64]
		want string
	}{
		{nil, "cpu: Bind: <nil>: not supported by this backend; give an *mlp.Model, a field.Func, a *control.Field, a *field.Sum or a *field.Flow"},
		{struct{ backend.System[float64] }{}, "not supported by this backend; give an *mlp.Model"},
		{short, "cpu: Bind: mlp: Theta has length 16, but the Spec has 17 parameters; make the model with New or Load"},
		{&mlp.Model[float64]{}, "cpu: Bind: mlp: Spec.Widths has length 0"},
		{&mlp.Model[float64]{Spec: mlp.Dense(mlp.Tanh, 2, 3), Theta: make([]float64, 9)}, "from 2 to 3 components is no right-hand side; give it as many outputs as inputs"},
		{&field.Custom[float64]{N: 2}, "cpu: Bind: field: Custom.F is nil"},
		{liar{rotor, 2, 3}, "cpu.liar says that it has 3 parameters, but its Params has length 2"},
		{liar{rotor, 0, 2}, "cpu.liar has dimension 0; a state has at least one component"},
		{must(field.Plus[float64](rotor, short)), "cpu: Bind: part 1 of a sum: mlp: Theta has length 16"},
	} {
		if f, err := b.Bind(c.sys); err == nil || !strings.Contains(err.Error(), c.want) || f != nil {
			t.Errorf("Bind(%T): %v, want %q", c.sys, err, c.want)
		}
	}
	if used := b.MemoryUsed(); used != 0 {
		t.Errorf("%d bytes are in use after Bind failed", used)
	}
}

func TestMemoryUsed_CountsFields(t *testing.T) {
	r := newRig[float32](t, 3)
	base := r.MemoryUsed()
	m := r.model(mlp.Tanh, 2, 50, 2)
	for _, sys := range []backend.System[float32]{m, newRotor[float32](), must(field.Plus[float32](m, newRotor[float32]())),
		&field.Custom[float32]{N: 2, F: func(_ float64, _, _, _ []float32) {}}} {
		f := r.bind(sys)
		if got, least := r.MemoryUsed()-base, int64(sys.NumParams())*int64(unsafe.Sizeof(float32(0))); got < least || got == 0 {
			t.Errorf("a %T of %d parameters counts as %d bytes", sys, sys.NumParams(), got)
		}
		f.Close()
		if got := r.MemoryUsed(); got != base {
			t.Errorf("%T: %d bytes before, %d after", sys, base, got)
		}
	}
	r.clk.Close()
	if got := r.MemoryUsed(); got != 0 {
		t.Errorf("%d bytes are in use after all was closed", got)
	}
}

// Layers wider than the panels that go to BLAS, with a batch of more than a tile.
func TestMLP_WideLayers(t *testing.T) {
	t.Run("float32", wideLayers[float32])
	t.Run("float64", wideLayers[float64])
}

func wideLayers[T backend.Float](t *testing.T) {
	const rows, d, time = 67, 3, 0.3
	r := newRig[T](t, 1)
	m := r.model(mlp.Tanh, d, 513, 200, d)
	f := r.bind(m)
	p := f.NumParams()
	z, a, v, w := r.random(d*rows), r.random(d*rows), r.random(d*rows), r.random(p)
	dz, az, at, jv := r.vec(rows, d, z), r.vec(rows, d, z), r.vec(rows, 1, z[:rows]), r.vec(rows, d, z)
	G := r.vec(1, p, make([]T, p))
	f.VJP(r.at(0), backend.VJP[T]{Z: r.vec(rows, d, z), A: r.vec(rows, d, a), DZ: dz, AZ: az, AT: at, Alpha: 1, G: G, W: 1})
	f.JVP(r.at(0), backend.JVP[T]{Z: r.vec(rows, d, z), V: r.vec(rows, d, v), W: r.vec(1, p, w), JV: jv})

	ref := mlp.Convert[float64](m)
	grad := make([]float64, p)
	check := func(what string, got []T, want []float64, scale float64) {
		t.Helper()
		for i, g := range got {
			// A sum of n terms of order s errs by about √n·s·eps; 4 for luck.
			if tol := 4 * math.Sqrt(513) * eps[T]() * scale; math.Abs(float64(g)-want[i]) > tol {
				t.Errorf("%s[%d] is %g, want %g ± %.1g", what, i, g, want[i], tol)
				return
			}
		}
	}
	gotDZ, gotAZ, gotJV, gotAT := r.read(dz), r.read(az), r.read(jv), r.read(at)
	for row := range rows {
		lo, hi := row*d, (row+1)*d
		x := func(y []T) []float64 { return wide(y[lo:hi]) }
		wantDZ, wantAZ, wantJV := make([]float64, d), make([]float64, d), make([]float64, d)
		ref.Eval(time, x(z), wantDZ)
		wantAT := ref.VJP(time, x(z), x(a), wantAZ, grad)
		ref.JVP(time, x(z), x(v), wide(w), wantJV)
		check("DZ", gotDZ[lo:hi], wantDZ, 1)
		check("AZ", gotAZ[lo:hi], wantAZ, 1)
		check("AT", gotAT[row:row+1], []float64{wantAT}, 1)
		check("JV", gotJV[lo:hi], wantJV, 30) // w is of order 1 and θ of order 1/√n
	}
	check("G", r.read(G), grad, 10)
}
