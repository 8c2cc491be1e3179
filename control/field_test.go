package control_test

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// pendulum is a driven one with two channels, the torque and a factor of its gravity.
func pendulum[T field.Number](t T, z, u, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = -theta[0]*u[1]*field.Sin(z[0]) - theta[1]*z[1] + u[0] + 0.1*field.Cos(t)
}

// rates reads u and u' of two channels, the latter not linearly.
func rates[T field.Number](t T, z, u, theta, dz []T) {
	dz[0] = theta[0]*u[0]*z[1] + u[2]*u[2]*u[1]
	dz[1] = u[3]*z[0]/4 - theta[1]*t*u[2]
}

// newFunc is control.NewFunc of f.
func newFunc[T backend.Float](f32 func(_ float32, z, u, theta, dz []float32), f64 func(_ float64, z, u, theta, dz []float64),
	dual func(_ field.Dual, z, u, theta, dz []field.Dual), channels int) *control.Func[T] {
	var f any
	if any(T(0)) == any(float32(0)) {
		f = control.NewFunc(2, channels, []float32{1.3, 0.4}, f32, dual)
	} else {
		f = control.NewFunc(2, channels, []float64{1.3, 0.4}, f64, dual)
	}
	return f.(*control.Func[T])
}

// byHand is dz/dt = θ·u·z with its products written out.
func byHand[T backend.Float]() *control.Func[T] {
	return &control.Func[T]{
		N: 1, C: 2, Theta: []T{0.7},
		F: func(_ float64, z, u, th, dz []T) { dz[0] = th[0]*u[0]*z[0] + u[1] },
		BackF: func(_ float64, z, u, th, a, az, au, ath []T) float64 {
			az[0], au[0], au[1] = a[0]*th[0]*u[0], a[0]*th[0]*z[0], a[0]
			if ath != nil {
				ath[0] += a[0] * u[0] * z[0]
			}
			return 0
		},
		ForwardF: func(_ float64, z, u, th, v, vu, w, jv []T) {
			jv[0] = th[0]*(u[0]*v[0]+vu[0]*z[0]) + w[0]*u[0]*z[0] + vu[1]
		},
	}
}

func network[T backend.Float](in, out int) *mlp.Model[T] {
	spec := mlp.Dense(mlp.Tanh, in, 9, out)
	spec.Time = mlp.TimeEveryLayer
	m := must(mlp.New[T](spec, mlp.Init{}, 5))
	for i := range m.Theta { // biases too
		m.Theta[i] += T(0.1 * math.Sin(float64(i)))
	}
	return m
}

// systems are one of each form and kind of function, over a signal of two channels
// and `series` series.
func systems[T backend.Float](kind control.Kind, series int, learn bool) map[string]*control.Field[T] {
	r := rand.New(rand.NewPCG(11, uint64(kind)))
	var all []control.Series[T]
	for i := range series {
		all = append(all, random[T](r, -1, 12+i%5, 2))
	}
	list := map[string]*control.Field[T]{}
	add := func(name string, f control.Map[T], form control.Form) {
		if form == control.Value || kind != control.Constant {
			list[name] = must(control.New(f, must(control.NewSignal(kind, 2, all...)), control.Settings{Form: form, Learn: learn}))
		}
	}
	add("pendulum", newFunc[T](pendulum[float32], pendulum[float64], pendulum[field.Dual], 2), control.Value)
	add("rates", newFunc[T](rates[float32], rates[float64], rates[field.Dual], 4), control.AndRate)
	add("by hand", byHand[T](), control.Value)
	add("MLP", network[T](5, 3), control.Value)
	add("MLP with rate", network[T](7, 3), control.AndRate)
	add("CDE", network[T](3, 6), control.CDE)
	return list
}

// inOrder yields m's entries by name, so that a test is the same on each run.
func inOrder[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// Every product of every form by finite differences. The points keep away from
// knots, where a derivative by t need not exist.
func TestField_PassesCheck(t *testing.T) {
	t.Run("float32", passesCheck[float32])
	t.Run("float64", passesCheck[float64])
}

func passesCheck[T backend.Float](t *testing.T) {
	for _, kind := range kinds {
		for _, learn := range []bool{false, true} {
			for name, f := range inOrder(systems[T](kind, 2, learn)) {
				set := field.CheckSettings[T]{}
				k := f.Signal().Knots(1)
				r := rand.New(rand.NewPCG(1, 1))
				for i := range 2 {
					p := field.Point[T]{T: float64(T((k[i] + k[i+1]) / 2))}
					for range f.Dim() {
						p.Z = append(p.Z, T(r.NormFloat64()))
					}
					set.Points = append(set.Points, p)
				}
				if _, err := field.Check(f.Sample(1), set); err != nil {
					t.Errorf("%s, %v, learned %v: %v", name, kind, learn, err)
				}
			}
		}
	}
}

// The CPU backend, for a batch of more than a tile, against one sample at a time.
func TestField_OnCPUMatchesSample(t *testing.T) {
	t.Run("float32", onCPU[float32])
	t.Run("float64", onCPU[float64])
}

func onCPU[T backend.Float](t *testing.T) {
	const rows = 70
	for _, kind := range kinds {
		for _, series := range []int{1, rows} {
			for _, learn := range []bool{false, true} {
				for name, f := range inOrder(systems[T](kind, series, learn)) {
					compareWithSamples(t, fmt.Sprintf("%s, %v, %d series, learned %v", name, kind, series, learn), f, rows)
				}
			}
		}
	}
}

func compareWithSamples[T backend.Float](t *testing.T, name string, f *control.Field[T], rows int) {
	b, d, p := cpu.New[T](), f.Dim(), f.NumParams()
	defer b.Close()
	r := rand.New(rand.NewPCG(3, 3))
	clk := must(b.NewClock(rows))
	spans := make([]backend.Span, rows)
	for i := range spans {
		h := 1 + r.Float64()
		spans[i] = backend.Span{T0: 0, H0: h, Stops: []float64{h}}
		if i%9 == 4 {
			spans[i].Stops[0] = 0 // has ended, is not selected
		}
	}
	b.Start(clk, spans...)
	at := backend.At{Clock: clk, C: 0.625}
	bound := must(b.Bind(f))
	if bound.NumParams() != p || bound.Dim() != d {
		t.Fatalf("%s: %d parameters and %d components, bound %d and %d", name, p, d, bound.NumParams(), bound.Dim())
	}
	// Another θ than the one that was bound.
	theta := slices.Clone(f.Params())
	for i := range theta {
		theta[i] += T(0.1 * r.NormFloat64())
	}
	b.Upload(bound.Params(), theta)
	host := func(n int) []T {
		x := make([]T, n)
		for i := range x {
			x[i] = T(r.NormFloat64())
		}
		return x
	}
	vec := func(rows, cols int, x []T) backend.Vec[T] {
		v := must(b.NewVec(1, rows, cols))
		b.Upload(v, x)
		return v
	}
	z, a, v, w := host(rows*d), host(rows*d), host(rows*d), host(p)
	old := T(7) // what outputs hold before
	full := func(n int) []T { return slices.Repeat([]T{old}, n) }
	Z, A, V, W := vec(rows, d, z), vec(rows, d, a), vec(rows, d, v), vec(1, p, w)
	outs := map[string]backend.Vec[T]{}
	for _, o := range []string{"Eval", "VJP's f", "az", "JVP's f", "jv"} {
		outs[o] = vec(rows, d, full(rows*d))
	}
	AT, G := vec(rows, 1, full(rows)), vec(1, p, full(p))
	bound.Eval(outs["Eval"], at, Z)
	bound.VJP(at, backend.VJP[T]{Z: Z, A: A, DZ: outs["VJP's f"], AZ: outs["az"], AT: AT, Alpha: -0.5, G: G, W: 0.25, TimesH: true})
	bound.JVP(at, backend.JVP[T]{Z: Z, V: V, W: W, DZ: outs["JVP's f"], JV: outs["jv"]})
	// Outputs one at a time, and without a tangent of θ.
	alone := map[string]backend.Vec[T]{"az": vec(rows, d, full(rows*d)), "jv": vec(rows, d, full(rows*d))}
	aloneT, aloneG := vec(rows, 1, full(rows)), vec(1, p, full(p))
	bound.VJP(at, backend.VJP[T]{Z: Z, A: A, AZ: alone["az"], Alpha: -0.5})
	bound.VJP(at, backend.VJP[T]{Z: Z, A: A, AT: aloneT, Alpha: -0.5})
	bound.VJP(at, backend.VJP[T]{Z: Z, A: A, G: aloneG, W: 0.25, TimesH: true})
	bound.JVP(at, backend.JVP[T]{Z: Z, V: V, JV: alone["jv"]})
	read := func(v backend.Vec[T]) []T {
		_, r, c := v.Shape()
		x := make([]T, r*c)
		if err := b.Download(x, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return x
	}

	wantG, sizeG := make([]float64, p), make([]float64, p)
	bad := 0
	check := func(what string, got T, want, size float64) {
		// Some hundred operations of T on each way, on terms of that size.
		if d := math.Abs(float64(got) - want); !(d <= 200*eps[T]()*(size+1)) && bad < 5 {
			bad++
			t.Errorf("%s: %s = %v, want %v", name, what, got, want)
		}
	}
	for _, i := range []int{0, 63, 64} { // what was computed alone is the same to the last bit
		if got, want := read(alone["az"])[i*d:(i+1)*d], read(outs["az"])[i*d:(i+1)*d]; !slices.Equal(got, want) {
			t.Errorf("%s: az is %v alone and %v beside others", name, got, want)
		}
		if got, want := read(aloneT)[i], read(AT)[i]; got != want {
			t.Errorf("%s: at is %v alone and %v beside others", name, got, want)
		}
	}
	if !slices.Equal(read(aloneG), read(G)) {
		t.Errorf("%s: G is another one alone than beside others", name)
	}
	eval, evalV, evalJ, az, at1, jv, jv0 := read(outs["Eval"]), read(outs["VJP's f"]), read(outs["JVP's f"]), read(outs["az"]), read(AT), read(outs["jv"]), read(alone["jv"])
	for i := range rows {
		h := spans[i].Stops[0]
		row := func(x []T) []T { return x[i*d : (i+1)*d] }
		if h == 0 {
			for _, x := range [][]T{row(eval), row(evalV), row(evalJ), row(az), row(jv), {at1[i]}} {
				if slices.ContainsFunc(x, func(v T) bool { return v != old }) {
					t.Fatalf("%s: row %d is not selected and was written", name, i)
				}
			}
			continue
		}
		s := f.Sample(i).(interface {
			field.VJPer[T]
			field.JVPer[T]
		})
		now := 0.625 * h
		dz, wantAZ, g, wantJV := make([]T, d), make([]T, d), make([]T, p), make([]T, d)
		s.Eval(now, row(z), theta, dz)
		atW := s.VJP(now, row(z), theta, row(a), wantAZ, g)
		s.JVP(now, row(z), theta, row(v), w, wantJV)
		none := make([]T, d)
		s.JVP(now, row(z), theta, row(v), make([]T, p), none)
		largest := func(x []T) float64 {
			m := 0.0
			for _, v := range x {
				m = max(m, math.Abs(float64(v)))
			}
			return m
		}
		for j := range d {
			for _, x := range [][]T{eval, evalV, evalJ} {
				check("f", x[i*d+j], float64(dz[j]), largest(dz))
			}
			check("az", az[i*d+j], -0.5*float64(wantAZ[j]), largest(wantAZ))
			check("jv", jv[i*d+j], float64(wantJV[j]), largest(wantJV)*float64(1+len(w)/50))
			check("jv without w", jv0[i*d+j], float64(none[j]), largest(none))
		}
		check("at", at1[i], -0.5*atW, math.Abs(atW)+100) // its terms cancel, u' is up to 50
		for j, v := range g {
			wantG[j] += 0.25 * h * float64(v)
			sizeG[j] += math.Abs(0.25 * h * float64(v))
		}
	}
	for j, x := range read(G) {
		check(fmt.Sprintf("G[%d]", j), x, float64(old)+wantG[j], float64(old)+sizeG[j])
	}
	if err := b.Sync(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func TestField_ParamsAndSplit(t *testing.T) {
	f := systems[float64](control.Hermite, 2, true)["MLP"]
	n, v := f.Inner().NumParams(), f.Signal().NumValues()
	theta := f.Params()
	if f.NumParams() != n+v || len(theta) != n+v {
		t.Fatalf("%d parameters, of which %d and %d; Params has %d", f.NumParams(), n, v, len(theta))
	}
	inner, values := f.Split(theta)
	if !slices.Equal(inner, f.Inner().Params()) || !slices.Equal(values, f.Signal().Values()) {
		t.Error("Split gives something else than the function's and the signal's")
	}
	for i := range theta {
		theta[i] = float64(i)
	}
	if f.Params()[0] == 0 || f.Signal().Values()[0] == float64(n) {
		t.Error("Params with learned values is no copy")
	}
	f.SetParams(theta)
	if !slices.Equal(f.Params(), theta) {
		t.Error("SetParams did not set")
	}
	// As a part of a sum too.
	sum := must(field.Plus[float64](network[float64](3, 3), f))
	all := sum.Params()
	for i := range all {
		all[i] = -float64(i)
	}
	sum.SetParams(all)
	if !slices.Equal(sum.Params(), all) {
		t.Error("SetParams of a sum does not reach the signal")
	}
	fixed := systems[float64](control.Hermite, 2, false)["MLP"]
	if _, values := fixed.Split(fixed.Params()); values != nil || fixed.NumParams() != n || &fixed.Params()[0] != &fixed.Inner().Params()[0] {
		t.Error("values that are not learned are among the parameters")
	}
}

func TestNew_Errors(t *testing.T) {
	sig := func(kind control.Kind) *control.Signal[float64] {
		return must(control.NewSignal(kind, 2, control.Series[float64]{Times: []float64{0, 1}, Values: make([]float64, 4)}))
	}
	linear := sig(control.Linear)
	short := network[float64](4, 2)
	short.Theta = short.Theta[1:]
	for _, c := range []struct {
		f    control.Map[float64]
		u    *control.Signal[float64]
		form control.Form
		want string
	}{
		{nil, linear, 0, "needs a function and a signal, and got nil"},
		{network[float64](4, 2), nil, 0, "needs a function and a signal, and got nil"},
		{short, linear, 0, "mlp: Theta has length"},
		{&control.Func[float64]{N: 2, C: 2}, linear, 0, "Func.F is nil"},
		{&control.Func[float64]{N: 2}, linear, 0, "Func.N is 2 and C 0"},
		{struct{ control.Map[float64] }{network[float64](4, 2)}, linear, 0, "give an *mlp.Model, a *control.Func or a field.Func with OutDim"},
		{network[float64](3, 2), linear, control.Value, "from 3 to 2 components and a signal of 2 channels do not make a right-hand side of form value; for a state of 2 components it must be from 4 to 2"},
		{network[float64](4, 2), linear, control.AndRate, "of form value and rate; for a state of 2 components it must be from 6 to 2"},
		{network[float64](3, 2), linear, control.CDE, "of form CDE; for a state of 3 components it must be from 3 to 6"},
		{network[float64](4, 2), linear, 7, "Settings.Form is 7; use Value, AndRate or CDE"},
		{network[float64](6, 2), sig(control.Constant), control.AndRate, "which a piecewise constant signal does not have; use a Linear"},
		{network[float64](3, 6), sig(control.Constant), control.CDE, "which a piecewise constant signal does not have"},
	} {
		f, err := control.New(c.f, c.u, control.Settings{Form: c.form})
		if err == nil || f != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("form %v: error %v, want %q", c.form, err, c.want)
		}
	}
}

// What reads a signal is no right-hand side by itself, and products that a function
// lacks are named.
func TestBind_Errors(t *testing.T) {
	b := cpu.New[float64]()
	defer b.Close()
	only := &control.Func[float64]{N: 1, C: 1, F: func(_ float64, z, u, _, dz []float64) { dz[0] = u[0] }}
	if _, err := b.Bind(only); err == nil || !strings.Contains(err.Error(), "control.New gives it the signal") {
		t.Errorf("a Func alone: %v", err)
	}
	f := must(control.New(only, must(control.NewSignal(control.Linear, 1, control.Series[float64]{Times: []float64{0, 1}, Values: []float64{1, 2}})), control.Settings{}))
	bound := must(b.Bind(f))
	clk := must(b.NewClock(1))
	b.Start(clk, backend.Span{Stops: []float64{1}})
	x, y := must(b.NewVec(1, 1, 1)), must(b.NewVec(1, 1, 1))
	bound.VJP(backend.At{Clock: clk}, backend.VJP[float64]{Z: x, A: x, AZ: y})
	if err := b.Sync(); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "Func.BackF") {
		t.Errorf("VJP: %v", err)
	}
	bound.JVP(backend.At{Clock: clk}, backend.JVP[float64]{Z: x, V: x, JV: y})
	if err := b.Sync(); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "Func.ForwardF") {
		t.Errorf("JVP: %v", err)
	}
	if _, err := field.Check(f.Sample(0), field.CheckSettings[float64]{}); err == nil || !strings.Contains(err.Error(), "neither VJP nor JVP") {
		t.Errorf("Check: %v", err)
	}
}

func TestNewFunc_Panics(t *testing.T) {
	for want, call := range map[string]func(){
		"control: NewFunc needs at least one component and one channel": func() { control.NewFunc(1, 0, nil, pendulum[float64], pendulum[field.Dual]) },
		"control: NewFunc needs the function at both types":             func() { control.NewFunc[float64](1, 1, nil, nil, pendulum[field.Dual]) },
		"control: SetParams with the wrong number of parameters": func() {
			systems[float64](control.Linear, 1, true)["MLP"].SetParams(nil)
		},
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
