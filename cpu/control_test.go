package cpu

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// controlled are right-hand sides of two components that read a signal of two
// channels, with values that are learned: one of each form, and a sum.
func controlled[T backend.Float](r *rig[T], kind control.Kind, series int) map[string]backend.System[T] {
	var all []control.Series[T]
	for range series {
		all = append(all, control.Series[T]{Times: []float64{0, 0.5, 0.7, 200}, Values: r.random(8)})
	}
	u := must(control.NewSignal(kind, 2, all...))
	read := func(f control.Map[T], form control.Form) backend.System[T] {
		return must(control.New(f, u, control.Settings{Form: form, Learn: true}))
	}
	// Written by hand: what control.NewFunc derives draws scratch memory from a pool.
	fn := &control.Func[T]{
		N: 2, C: 2, Theta: []T{2},
		F: func(_ float64, z, u, theta, dz []T) { dz[0], dz[1] = theta[0]*u[0]*z[1], u[1]-z[0] },
		BackF: func(_ float64, z, u, theta, a, az, au, atheta []T) float64 {
			az[0], az[1] = -a[1], theta[0]*u[0]*a[0]
			au[0], au[1] = theta[0]*z[1]*a[0], a[1]
			if atheta != nil {
				atheta[0] += a[0] * u[0] * z[1]
			}
			return 0
		},
		ForwardF: func(_ float64, z, u, theta, v, vu, w, jv []T) {
			jv[0], jv[1] = theta[0]*(u[0]*v[1]+vu[0]*z[1])+w[0]*u[0]*z[1], vu[1]-v[0]
		},
	}
	systems := map[string]backend.System[T]{
		"Func":    read(fn, control.Value),
		"MLP":     read(r.model(mlp.Tanh, 4, 70, 2), control.Value),
		"with u'": read(r.model(mlp.Tanh, 6, 9, 2), control.AndRate),
		"CDE":     read(r.model(mlp.Tanh, 2, 9, 4), control.CDE),
	}
	systems["Sum"] = must(field.Plus(systems["CDE"], systems["Func"], newRotor[T]()))
	return systems
}

// No verb of a controlled field allocates once it has run.
func TestControl_DoesNotAllocate(t *testing.T) {
	t.Run("float32", controlDoesNotAllocate[float32])
	t.Run("float64", controlDoesNotAllocate[float64])
}

func controlDoesNotAllocate[T backend.Float](t *testing.T) {
	const rows, d = 130, 2
	for _, kind := range []control.Kind{control.Linear, control.Hermite, control.NaturalCubic} {
		for _, series := range []int{1, rows} {
			r := newRig[T](t, rows)
			systems := controlled(r, kind, series)
			delete(systems, "Sum") // its rotor draws scratch memory from a pool
			for name, sys := range systems {
				vec := func() backend.Vec[T] { return r.vec(rows, d, r.random(rows*d)) }
				f, at := r.bind(sys), r.at(0.5)
				theta := append([]T(nil), sys.Params()...)
				y, dz, az, a, dt := vec(), vec(), vec(), vec(), r.vec(rows, 1, make([]T, rows))
				g, w := r.vec(1, f.NumParams(), make([]T, f.NumParams())), r.vec(1, f.NumParams(), make([]T, f.NumParams()))
				for verb, call := range map[string]func(){
					"Eval": func() { f.Eval(dz, at, y) },
					"VJP": func() {
						f.VJP(at, backend.VJP[T]{Z: y, A: a, DZ: dz, AZ: az, AT: dt, Alpha: -1, G: g, W: 1, TimesH: true})
					},
					"JVP":                  func() { f.JVP(at, backend.JVP[T]{Z: y, V: a, W: w, DZ: dz, JV: az}) },
					"Upload of θ and Eval": func() { r.Upload(f.Params(), theta); f.Eval(dz, at, y) },
				} {
					if n := testing.AllocsPerRun(5, call); n != 0 {
						t.Errorf("%s of %s, %v, %d series: %v allocations", verb, name, kind, series, n)
					}
				}
				f.Close()
			}
			if err := r.Sync(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A sum has its parts' products, and each its part of θ: that of a controlled one
// the knots' values.
func TestSum_OfControlledParts(t *testing.T) {
	const rows, d = 67, 2
	r := newRig[float64](t, 1)
	systems := controlled(r, control.NaturalCubic, rows)
	z, a, v := r.random(rows*d), r.random(rows*d), r.random(rows*d)
	Z, A, V := r.vec(rows, d, z), r.vec(rows, d, a), r.vec(rows, d, v)
	at := r.at(0.3)
	type results struct{ dz, az, at, g, jv []float64 }
	run := func(sys backend.System[float64], w []float64) results {
		f := r.bind(sys)
		vec := func(rows, cols int) backend.Vec[float64] { return r.vec(rows, cols, make([]float64, rows*cols)) }
		dz, az, dt, g, jv := vec(rows, d), vec(rows, d), vec(rows, 1), vec(1, f.NumParams()), vec(rows, d)
		f.Eval(dz, at, Z)
		f.VJP(at, backend.VJP[float64]{Z: Z, A: A, AZ: az, AT: dt, Alpha: 1, G: g, W: 1})
		f.JVP(at, backend.JVP[float64]{Z: Z, V: V, W: r.vec(1, len(w), w), JV: jv})
		return results{r.read(dz), r.read(az), r.read(dt), r.read(g), r.read(jv)}
	}
	sum := systems["Sum"].(*field.Sum[float64])
	w := r.random(sum.NumParams())
	got := run(sum, w)
	var want results
	rest := w
	for i, part := range sum.Parts() {
		n := part.NumParams()
		one := run(part, rest[:n])
		rest = rest[n:]
		want.g = append(want.g, one.g...)
		if i == 0 {
			want.dz, want.az, want.at, want.jv = one.dz, one.az, one.at, one.jv
			continue
		}
		addTo(want.dz, 1, one.dz)
		addTo(want.az, 1, one.az)
		addTo(want.at, 1, one.at)
		addTo(want.jv, 1, one.jv)
	}
	for what, x := range map[string][2][]float64{
		"f": {got.dz, want.dz}, "az": {got.az, want.az}, "at": {got.at, want.at}, "g": {got.g, want.g}, "jv": {got.jv, want.jv},
	} {
		for i, v := range x[0] {
			if d := v - x[1][i]; !(d < 1e-12 && d > -1e-12) { // sums in another order
				t.Fatalf("%s[%d] = %v, its parts add up to %v", what, i, v, x[1][i])
			}
		}
	}
}
