package cpu

import (
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// No verb allocates once it has run.
func TestVerbs_DoNotAllocate(t *testing.T) {
	t.Run("float32", doNotAllocate[float32])
	t.Run("float64", doNotAllocate[float64])
}

func doNotAllocate[T backend.Float](t *testing.T) {
	const rows, d = 130, 2
	// One lane, and one a row.
	for i, lanes := range []int{1, rows, 1, rows} {
		r := newRig[T](t, lanes)
		b := r.Backend
		b.SetThreads(1 + i/2)
		vec := func() backend.Vec[T] { return r.vec(rows, d, r.random(rows*d)) }
		y, trial, k, table := vec(), vec(), []backend.Vec[T]{vec(), vec()}, must(b.NewVec(4, rows, d))
		at := r.at(0.5)
		ctl := backend.Control{Order: 2, Beta: [3]float64{0.4, -0.1, 0}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 5}
		tol := backend.Tolerance{Rel: 1, Abs: 1}
		span := backend.Span{
			T0: 0.3, H0: 0.5, Saves: []float64{0.5, 0.7}, Stops: []float64{0.8, 90, 100},
			Blocks: []int{0, 1, 2}, Breaks: []float64{0.8},
		}
		parts := []backend.Part[T]{{Y0: y, Y1: trial, K: k}}
		moves := []backend.Move[T]{{Dst: y, Src: trial}}
		coef, e := []float64{0.5, 0.25}, []float64{0.01, -0.01}
		dense := [][]float64{{1, -0.5}, {0, 0.5}}
		host, laneOf := make([]T, rows*d), make([]backend.Lane, lanes)
		verbs := map[string]func(){
			"Start":       func() { b.Start(r.clk, span) },
			"ProposeStep": func() { b.ProposeStep(r.clk, y, k[0], k[1], 2, tol) },
			"Combine":     func() { b.Combine(trial, y, at, coef, k) },
			"ErrorRatio":  func() { b.ErrorRatio(r.clk, tol, e, e, parts) },
			"Advance":     func() { b.Start(r.clk, span); b.Advance(r.clk, ctl) },
			"Save":        func() { b.Save(r.clk, dense, y, trial, k, table) },
			"Commit":      func() { b.Commit(r.clk, backend.Accepted, moves) },
			"AtStop":      func() { b.AtStop(r.clk, backend.Add, y, table) },
			"Upload":      func() { b.Upload(y, host) },
			"Copy":        func() { b.Copy(y, trial) },
			"Zero":        func() { b.Zero(k[1]) },
			"Download":    func() { _ = b.Download(host, y) },
			"Lanes":       func() { _ = b.Lanes(r.clk, laneOf) },
			"Poll":        func() { _, _ = b.Poll(r.clk) },
		}
		m := r.model(mlp.Tanh, d, 64, 200, d)
		// Written by hand: field.New draws scratch memory from a pool, which the garbage
		// collector may empty.
		fn := &field.Custom[T]{
			N: d, Theta: []T{2},
			F: func(_ float64, z, theta, dz []T) { dz[0], dz[1] = theta[0]*z[1], -z[0] },
			BackF: func(_ float64, z, theta, a, az, atheta []T) float64 {
				az[0], az[1] = -a[1], theta[0]*a[0]
				if atheta != nil {
					atheta[0] += a[0] * z[1]
				}
				return 0
			},
			ForwardF: func(_ float64, z, theta, v, w, jv []T) { jv[0], jv[1] = theta[0]*v[1]+w[0]*z[1], -v[0] },
		}
		for name, sys := range map[string]backend.System[T]{"MLP": m, "Func": fn, "Sum": must(field.Plus[T](m, fn))} {
			f := r.bind(sys)
			dz, az, a, dt := vec(), vec(), vec(), r.vec(rows, 1, make([]T, rows))
			g, w := r.vec(1, f.NumParams(), make([]T, f.NumParams())), r.vec(1, f.NumParams(), make([]T, f.NumParams()))
			theta := append([]T(nil), sys.Params()...)
			verbs["Eval of "+name] = func() { f.Eval(dz, at, y) }
			verbs["VJP of "+name] = func() {
				f.VJP(at, backend.VJP[T]{Z: y, A: a, DZ: dz, AZ: az, AT: dt, Alpha: -1, G: g, W: 1, TimesH: true})
			}
			verbs["JVP of "+name] = func() { f.JVP(at, backend.JVP[T]{Z: y, V: a, W: w, DZ: dz, JV: az}) }
			verbs["Upload of θ and Eval of "+name] = func() { b.Upload(f.Params(), theta); f.Eval(dz, at, y) }
		}
		for name, verb := range verbs {
			b.Start(r.clk, span)
			n := testing.AllocsPerRun(5, verb)
			for try := 1; n != 0 && try < 5; try++ { // a worker may get its first unit late
				n = testing.AllocsPerRun(5, verb)
			}
			if n != 0 {
				t.Errorf("%s, %d lanes, %d threads: %v allocations", name, lanes, b.Threads(), n)
			}
		}
		if err := b.Sync(); err != nil {
			t.Error(err)
		}
	}
}
