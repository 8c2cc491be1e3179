package control_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

var background = context.Background()

func open[T backend.Float](t testing.TB, sys backend.System[T], set solver.Settings) *solver.Solver[T] {
	t.Helper()
	dev := cpu.New[T]()
	s, err := solver.New(dev, sys, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if n := dev.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are still held after Close", n)
		}
		dev.Close()
	})
	return s
}

// oscillator is z” + ω²z = u(t) with ω = θ.
func oscillator[T field.Number](_ T, z, u, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = u[0] - theta[0]*theta[0]*z[0]
}

const omega = 1.7

func driven[T backend.Float](u *control.Signal[T], learn bool) *control.Field[T] {
	f := newFunc[T](oscillator[float32], oscillator[float64], oscillator[field.Dual], 1)
	f.Theta[0], f.Theta[1] = omega, 0
	return must(control.New(f, u, control.Settings{Learn: learn}))
}

// driveAt takes the oscillator's state at a to b. Where u is a cubic polynomial,
// u/ω² - u”/ω⁴ is a solution, so that the rest oscillates freely. Series `sample` is
// read piece by piece, forwards or backwards.
func driveAt[T backend.Float](s *control.Signal[T], sample int, z [2]float64, a, b float64) [2]float64 {
	if a == b {
		return z
	}
	in := func(t float64) bool { return t > min(a, b) && t < max(a, b) }
	ends := append([]float64{a}, slices.DeleteFunc(s.Knots(sample), func(t float64) bool { return !in(t) })...)
	if ends = append(ends, b); b < a {
		slices.Reverse(ends[1 : len(ends)-1])
	}
	u, du, ddu, later := make([]T, 1), make([]T, 1), make([]T, 1), make([]T, 1)
	for i := range len(ends) - 1 {
		// The polynomial of the piece around its middle; its third derivative from
		// the second, which is linear.
		from, to := ends[i], ends[i+1]
		m := (from + to) / 2
		if err := errors.Join(s.At(sample, m, u, du, ddu), s.At(sample, m+(to-from)/4, nil, nil, later)); err != nil {
			panic(err)
		}
		p := [4]float64{float64(u[0]), float64(du[0]), float64(ddu[0]) / 2, float64(later[0]-ddu[0]) / ((to - from) / 4) / 6}
		particular := func(t float64) [2]float64 {
			x := t - m
			const w2 = omega * omega
			return [2]float64{
				(p[0]+x*(p[1]+x*(p[2]+x*p[3])))/w2 - (2*p[2]+6*p[3]*x)/(w2*w2),
				(p[1]+x*(2*p[2]+x*3*p[3]))/w2 - 6*p[3]/(w2*w2),
			}
		}
		at := particular(from)
		x, v := z[0]-at[0], z[1]-at[1]
		sin, cos := math.Sincos(omega * (to - from))
		at = particular(to)
		z = [2]float64{at[0] + x*cos + v/omega*sin, at[1] + v*cos - x*omega*sin}
	}
	return z
}

// A forced oscillator, each sample by a force of its own with knots of its own,
// forwards and backwards, against the exact solution.
func TestSolve_ForcedOscillator(t *testing.T) {
	t.Run("float32", forcedOscillator[float32])
	t.Run("float64", forcedOscillator[float64])
}

func forcedOscillator[T backend.Float](t *testing.T) {
	// The tolerance is on a step, a few dozen of which add up without growth.
	tol, limit := 1e-13, 1e-9
	if eps[T]() > 1e-10 {
		tol, limit = 1e-5, 1e-3
	}
	r := rand.New(rand.NewPCG(2, 9))
	for _, kind := range kinds {
		one, two, three := random[T](r, 0, 9, 1), random[T](r, -1, 14, 1), random[T](r, 0, 2, 1)
		s := must(control.NewSignal(kind, 1, one, two, three))
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			for _, back := range []bool{false, true} {
				// Jointly over what all have, else each over all of its own.
				var samples []solver.Sample
				for i := range 3 {
					k := s.Knots(i)
					x := solver.Sample{Times: []float64{k[0], (k[0] + k[len(k)-1]) / 2, k[len(k)-1]}, Breakpoints: s.SampleBreakpoints(i)}
					if stepping == solver.Joint {
						x.Times = []float64{0, 0.11, three.Times[1]}
					}
					if back {
						slices.Reverse(x.Times)
					}
					samples = append(samples, x)
				}
				set := solver.Settings{Method: solver.Dopri8, RTol: tol, ATol: tol, Stepping: stepping}
				z0 := []T{1, 0, -0.5, 2, 0, 0}
				var sol *solver.Solution[T]
				var err error
				if stepping == solver.Joint {
					set.Breakpoints = s.Breakpoints()
					sol, err = open(t, driven(s, false), set).Solve(background, z0, samples[0].Times)
				} else {
					sol, err = open(t, driven(s, false), set).SolveEach(background, z0, samples)
				}
				if err != nil {
					t.Fatalf("%v, %v: %v", kind, stepping, err)
				}
				for b, x := range samples {
					for i, now := range x.Times {
						want := driveAt(s, b, [2]float64{float64(z0[2*b]), float64(z0[2*b+1])}, x.Times[0], now)
						for j, v := range sol.Sample(i, b) {
							if d := math.Abs(float64(v) - want[j]); !(d <= limit*(1+math.Abs(want[j]))) {
								t.Errorf("%v, %v, back %v: sample %d at %v: z[%d] = %v, want %v", kind, stepping, back, b, now, j, v, want[j])
							}
						}
					}
				}
			}
		}
	}
}

// Fixed steps that do not fit between the knots keep the method's order if they end
// on breakpoints, and lose it otherwise. Every piece takes m steps and half of one.
func TestSolve_OrderAcrossBreakpoints(t *testing.T) {
	const piece = 0.75
	in := control.Series[float64]{Values: []float64{1, -2, 0.5, 3, -1}}
	for i := range in.Values {
		in.Times = append(in.Times, piece*float64(i))
	}
	end := in.Times[len(in.Times)-1]
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, 1, in))
		want := driveAt(s, 0, [2]float64{1, 0}, 0, end)
		for _, m := range []solver.Method{solver.Midpoint, solver.RK4, solver.Dopri5, solver.Dopri8} {
			order := m.Tableau().Order
			steps := []int{16, 24, 32, 48}
			if order == 8 {
				steps = []int{2, 3, 4, 6}
			}
			slope := func(breaks []float64) float64 {
				var h, e []float64
				for _, n := range steps {
					set := solver.Settings{Method: m, Step: piece / (float64(n) + 0.5), Breakpoints: breaks}
					sol, err := open(t, driven(s, false), set).Solve(background, []float64{1, 0}, []float64{0, end})
					if err != nil {
						t.Fatal(err)
					}
					h = append(h, math.Log(set.Step))
					e = append(e, math.Log(math.Hypot(sol.Final()[0]-want[0], sol.Final()[1]-want[1])))
				}
				return fit(h, e)
			}
			// Knots of cubic signals are no breakpoints, but u is smooth between them.
			with := slope(s.Knots(0))
			t.Logf("%v, %v: order %.2f", kind, m, with)
			if !(with > float64(order)-0.3) {
				t.Errorf("%v, %v: order %.2f across breakpoints, want %d", kind, m, with, order)
			}
			if kind == control.Constant && order >= 4 {
				// A jump inside a step costs everything above the first order.
				if without := slope(nil); without > 2 {
					t.Errorf("%v: order %.2f without breakpoints: the test tells nothing", m, without)
				}
			}
		}
	}
}

// fit is the slope of y over x by least squares.
func fit(x, y []float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(x))
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

// dz/dt = z·(θ·u'(t)) is z0·exp(θ·(u(t) - u(t0))), whatever u does.
func TestSolve_CDE(t *testing.T) {
	t.Run("float32", cde[float32])
	t.Run("float64", cde[float64])
}

func cde[T backend.Float](t *testing.T) {
	tol, limit := 1e-11, 1e-9
	if eps[T]() > 1e-10 {
		tol, limit = 1e-5, 1e-3
	}
	r := rand.New(rand.NewPCG(4, 2))
	in := random[T](r, 0, 8, 2)
	last := in.Times[7]
	for _, kind := range kinds[1:] {
		s := must(control.NewSignal(kind, 2, in))
		m := &mlp.Model[T]{Spec: mlp.Dense(mlp.Identity, 1, 2), Theta: []T{0.4, -0.3, 0, 0}}
		f := must(control.New(m, s, control.Settings{Form: control.CDE}))
		sol, err := open(t, f, solver.Settings{RTol: tol, ATol: tol, Breakpoints: s.Knots(0)}).
			Solve(background, []T{2, -1}, []float64{0, last / 3, last})
		if err != nil {
			t.Fatal(err)
		}
		start, now := make([]T, 2), make([]T, 2)
		for i, at := range sol.Times {
			if err := errors.Join(s.At(0, 0, start, nil, nil), s.At(0, at, now, nil, nil)); err != nil {
				t.Fatal(err)
			}
			growth := math.Exp(0.4*float64(now[0]-start[0]) - 0.3*float64(now[1]-start[1]))
			for b, z0 := range []float64{2, -1} {
				if z := float64(sol.Sample(i, b)[0]); !(math.Abs(z-z0*growth) <= limit*(1+growth)) {
					t.Errorf("%v: sample %d is %v at %v, want %v", kind, b, z, at, z0*growth)
				}
			}
		}
	}
}

// Gradients with respect to z0, θ and the knots' values against central differences,
// which with a step of 1e-5 are good to some 1e-9, and against each other.
func TestGradients_MatchFiniteDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	ts := []float64{0.1, 0.6, 1.3, 1.9}
	const batch = 2
	for _, kind := range kinds {
		for name, f := range inOrder(systems[float64](kind, batch, true)) {
			d := f.Dim()
			z0, w := make([]float64, batch*d), make([]float64, len(ts)*batch*d)
			for _, x := range [][]float64{z0, w} {
				for i := range x {
					x[i] = r.NormFloat64()
				}
			}
			loss := func(y []float64) (l float64, a []float64) {
				a = make([]float64, len(y))
				for i, x := range y {
					l += w[i] * (x + x*x/2)
					a[i] = w[i] * (1 + x)
				}
				return l, a
			}
			// The cubic kinds have no breakpoints, but a kink of a derivative at each
			// knot, on which steps had better end at this tolerance.
			breaks := append(f.Signal().Knots(0), f.Signal().Knots(1)...)
			set := solver.Settings{Method: solver.Dopri8, RTol: 1e-11, ATol: 1e-12, Breakpoints: breaks}
			s := open(t, f, set)
			solve := func() *solver.Solution[float64] {
				sol, err := s.Solve(background, z0, ts)
				if err != nil {
					t.Fatalf("%s, %v: %v", name, kind, err)
				}
				return sol
			}
			sol := solve()
			_, a := loss(sol.Y)
			theta := f.Params()
			// Every fifth parameter of a network, all of the others' few, and
			// all values.
			n, few := f.Inner().NumParams(), 1
			if n > 10 {
				few = 5
			}
			tried := func(i int) bool { return i >= n || i%few == 0 }
			want := map[string][]float64{"dL/dz0": nil, "dL/dθ": nil}
			for what, x := range map[string][]float64{"dL/dz0": z0, "dL/dθ": theta} {
				for i := range x {
					if !tried(i) {
						continue
					}
					const h = 1e-5
					value := func(shift float64) float64 {
						was := x[i]
						x[i] += shift
						if err := s.SetParams(theta); err != nil {
							t.Fatal(err)
						}
						l, _ := loss(solve().Y)
						x[i] = was
						return l
					}
					want[what] = append(want[what], (value(h)-value(-h))/(2*h))
				}
			}
			if err := s.SetParams(theta); err != nil {
				t.Fatal(err)
			}
			sol = solve()
			for _, m := range []adjoint.Method{adjoint.Continuous, adjoint.Discrete, adjoint.Interpolating} {
				adj := must(adjoint.New(s, adjoint.Settings{Method: m}))
				g, err := adj.Gradients(background, sol, a)
				if err := errors.Join(err, adj.Close()); err != nil {
					t.Fatalf("%s, %v, %v: %v", name, kind, m, err)
				}
				for what, all := range map[string][]float64{"dL/dz0": g.Z0, "dL/dθ": g.Theta} {
					var got []float64
					for i, v := range all {
						if tried(i) {
							got = append(got, v)
						}
					}
					closeTo(t, fmt.Sprintf("%s, %v, %v: %s", name, kind, m, what), got, want[what], 1e-6)
				}
			}
			if values := want["dL/dθ"][len(want["dL/dθ"])-f.Signal().NumValues():]; !slices.ContainsFunc(values, func(v float64) bool { return v != 0 }) {
				t.Errorf("%s, %v: the loss does not depend on the signal", name, kind)
			}
		}
	}
}

// closeTo fails unless every got is within tol·(the largest |want|) of want.
func closeTo(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= tol*largest) {
			t.Errorf("%s[%d] = %.12g, want %.12g, off by %.2g of the largest", what, i, got[i], w, d/largest)
			return
		}
	}
}

// A batch has the results of its samples, to the last bit: each reads its own signal.
func TestSolve_SamplesAloneAndInBatch(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const batch = 70 // more than a tile
	var all []control.Series[float64]
	var samples []solver.Sample
	z0 := make([]float64, 3*batch)
	for i := range z0 {
		z0[i] = r.NormFloat64()
	}
	for b := range batch {
		in := random[float64](r, float64(b), 4+b%5, 2)
		all = append(all, in)
		samples = append(samples, solver.Sample{Times: []float64{in.Times[0], in.Times[2], in.Times[3]}, Breakpoints: in.Times})
	}
	set := solver.Settings{Stepping: solver.PerSample}
	solve := func(samples []solver.Sample, z0 []float64, all ...control.Series[float64]) (*solver.Solution[float64], *adjoint.Gradient[float64]) {
		f := must(control.New(network[float64](5, 3), must(control.NewSignal(control.NaturalCubic, 2, all...)), control.Settings{Learn: true}))
		s := open(t, f, set)
		sol, err := s.SolveEach(background, z0, samples)
		if err != nil {
			t.Fatal(err)
		}
		dLdz := make([]float64, len(sol.Y))
		for i := range dLdz {
			dLdz[i] = 1
		}
		return sol, must(adjoint.Gradients(background, s, sol, dLdz))
	}
	sol, g := solve(samples, z0, all...)
	f := must(control.New(network[float64](5, 3), must(control.NewSignal(control.NaturalCubic, 2, all...)), control.Settings{Learn: true}))
	_, values := f.Split(g.Theta)
	for b := range batch {
		one, h := solve(samples[b:b+1], z0[3*b:3*b+3], all[b])
		for i := range samples[b].Times {
			if !slices.Equal(sol.Sample(i, b), one.Sample(i, 0)) {
				t.Fatalf("sample %d is %v in the batch and %v alone", b, sol.Sample(i, b), one.Sample(i, 0))
			}
		}
		if !slices.Equal(g.Z0[3*b:3*b+3], h.Z0) {
			t.Fatalf("sample %d: dL/dz0 is %v in the batch and %v alone", b, g.Z0[3*b:3*b+3], h.Z0)
		}
		// No other sample reads this series.
		own := f.Signal().SampleValues(values, b)
		if alone := h.Theta[len(h.Theta)-len(own):]; !slices.Equal(own, alone) {
			t.Fatalf("sample %d: the gradient of its values is %v in the batch and %v alone", b, own, alone)
		}
	}
}

// Reading outside the knots ends a solve with an error, whatever the method and even
// if only one sample does; at the ends of the knots there is none.
func TestSolve_Outside(t *testing.T) {
	t.Run("float32", solveOutside[float32])
	t.Run("float64", solveOutside[float64])
}

func solveOutside[T backend.Float](t *testing.T) {
	for _, kind := range kinds {
		s := must(control.NewSignal(kind, 1,
			control.Series[T]{Times: []float64{0.1, 1, 2.3}, Values: []T{1, 2, 4}},
			control.Series[T]{Times: []float64{0.1, 0.7, 2.3}, Values: []T{5, 6, 1}}))
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			// All knots are breakpoints: f is evaluated just beside the first and last.
			solve := open(t, driven(s, true), solver.Settings{Stepping: stepping, Breakpoints: []float64{0.1, 0.7, 1, 2.3}})
			for _, ts := range [][]float64{{0.1, 2.3}, {2.3, 0.1}, {0.1, 0.5, 1, 2.3}} {
				sol, err := solve.Solve(background, []T{1, 0, 0, 1}, ts)
				if err != nil {
					t.Fatalf("%v, %v: %v", kind, ts, err)
				}
				dLdz := make([]T, len(sol.Y))
				for i := range dLdz {
					dLdz[i] = 1
				}
				if _, err := adjoint.Gradients(background, solve, sol, dLdz); err != nil { // dL/dt too
					t.Errorf("%v, %v: %v", kind, ts, err)
				}
			}
			for _, ts := range [][]float64{{0.1, 2.4}, {0, 1}, {2.3, 0}, {1, 2.301}} {
				sol, err := solve.Solve(background, []T{1, 0, 0, 1}, ts)
				if !errors.Is(err, control.ErrOutside) || sol != nil || !strings.Contains(err.Error(), "from 0.1 to 2.3") {
					t.Errorf("%v, %v, %v: error %v", kind, stepping, ts, err)
				}
			}
			// The solver is as good as before.
			if _, err := solve.Solve(background, []T{1, 0, 0, 1}, []float64{0.1, 2.3}); err != nil {
				t.Errorf("%v: %v", kind, err)
			}
			if _, err := solve.Solve(background, make([]T, 6), []float64{0.1, 2.3}); err == nil || !strings.Contains(err.Error(), "sample 2 reads a signal of 2 series") {
				t.Errorf("%v: three samples of two series: %v", kind, err)
			}
		}
	}
}

// Forward sensitivities along the knots' values are the transpose of their gradient.
func TestSensitivity_MatchesGradient(t *testing.T) {
	for _, kind := range kinds {
		for name, f := range inOrder(systems[float64](kind, 1, true)) {
			set := solver.Settings{RTol: 1e-9, ATol: 1e-9, Breakpoints: f.Signal().Knots(0)}
			s := open(t, f, set)
			z0 := make([]float64, f.Dim())
			for i := range z0 {
				z0[i] = 0.5 - float64(i)
			}
			ts := []float64{0, 1.1}
			sens := must(adjoint.NewSensitivity(s, adjoint.SensitivitySettings{NoErrorControl: true}))
			tangents := adjoint.ParamTangents[float64](f.NumParams())
			res, err := sens.Solve(background, z0, ts, tangents)
			if err != nil {
				t.Fatalf("%s, %v: %v", name, kind, err)
			}
			sol, err := s.Solve(background, z0, ts)
			if err != nil {
				t.Fatal(err)
			}
			dLdz := make([]float64, len(sol.Y))
			dLdz[len(dLdz)-1] = 1
			g := must(adjoint.Gradients(background, s, sol, dLdz))
			got := must(res.Derivatives(dLdz))
			// Both are derivatives of the same computed solution.
			closeTo(t, name+", "+kind.String(), got, g.Theta, 1e-10)
			if err := sens.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
