package adjoint_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func newAdjoint[T backend.Float](t testing.TB, s *solver.Solver[T], set adjoint.Settings) *adjoint.Adjoint[T] {
	t.Helper()
	a, err := adjoint.New(s, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func must[V any](t testing.TB) func(v V, err error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The gradient of the computed solution, however wrong that is: steps far too long and
// no divisors of the times between outputs, breakpoints, both directions of time, fixed
// steps and ones of which the tolerance would allow more than MaxStep. The steps do not
// depend on what is varied, so the differences are those of the same discrete solve,
// good to about 1e-9 at a step of 1e-5.
func TestReversible_MatchesFiniteDifferenceOfTheComputedSolution(t *testing.T) {
	adaptive := solver.Settings{RTol: 1e3, ATol: 1e3, MaxStep: 0.23, FirstStep: 0.23}
	for _, method := range []solver.Method{solver.Tsit5, solver.Dopri8, solver.Bosh3, solver.Euler, solver.Midpoint, solver.RK4} {
		for _, ts := range [][]float64{{0.2, 1.2}, {0.2, 0.5, 0.6, 0.95, 1.2}, {1.2, 0.7, 0.3, 0.2}} {
			for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
				for _, set := range []solver.Settings{{Step: 0.13}, adaptive} {
					if set.Step == 0 && !method.Adaptive() {
						continue
					}
					set.Method, set.Stepping, set.Breakpoints = method, stepping, []float64{0.85}
					m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity)
					r := rand.New(rand.NewPCG(5, uint64(len(ts))))
					z0, w := noise(r, 2*3, 0.7), noise(r, len(ts)*2*3, 1)
					s := newSolver(t, m, set)
					rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible, Coupling: 0.9})
					sol := must[*solver.Solution[float64]](t)(rev.Solve(ctx, z0, ts))
					_, a := loss(w, sol.Y)
					g := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a))
					value := func() float64 {
						if err := s.SetParams(m.Theta); err != nil {
							t.Fatal(err)
						}
						l, _ := loss(w, must[*solver.Solution[float64]](t)(rev.Solve(ctx, z0, ts)).Y)
						return l
					}
					name := fmt.Sprintf("%v, %v, %d times, Step %g", method, stepping, len(ts), set.Step)
					closeTo(t, name+" dL/dz0", g.Z0, differences(z0, 1e-5, value), 1e-7)
					closeTo(t, name+" dL/dθ", g.Theta[:30], differences(m.Theta[:30], 1e-5, value), 1e-7)
					if g.Drift.Abs > 1e-13 {
						t.Errorf("%s: %v", name, g.Drift)
					}
				}
			}
		}
	}
}

// Every reference gradient. The error is that of the solution.
func TestReversible_MatchesReference(t *testing.T) {
	for _, p := range problems.All() {
		for k, loss := range p.Losses {
			for _, m := range []solver.Method{solver.Tsit5, solver.Dopri8} {
				set := solver.Settings{Method: m, RTol: 1e-11, ATol: 1e-11, MaxAttempts: 1e7}
				if p.Name == "forced_lotka_volterra" {
					set.Step = 0.0025 // y and z part at the steps that the error estimate allows
				}
				s := newSolver(t, problems.System[float64](p), set)
				rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
				sol := must[*solver.Solution[float64]](t)(rev.Solve(ctx, p.Z0, loss.Times))
				g := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, problems.Cotangents(&loss, sol.Y)))
				name := fmt.Sprintf("%s %d %v", p.Name, k, m)
				closeTo(t, name+" dL/dz0", g.Z0, loss.DZ0, 1e-6)
				closeTo(t, name+" dL/dθ", g.Theta, loss.DTheta, 1e-6)
				closeTo(t, name+" dL/dt", g.Times, loss.DTimes, 1e-6)
				t.Logf("%s: %d steps, %v, gap %v", name, sol.Stats[0].Accepted, g.Drift, g.Gap)
			}
		}
	}
}

// The scheme has the order of its method, on a problem whose right-hand side depends on
// the time. Closer to λ = 1 what y and z differ by is damped too slowly for steps this
// long to show it.
func TestReversible_HasItsOrder(t *testing.T) {
	// y' = -2t·y² + cos t has no solution in closed form: the reference is DOP853's.
	f := field.New(1, []float64{}, timed[float64], timed[field.Dual])
	exact := solve(t, newSolver(t, f, solver.Settings{Method: solver.Dopri8, RTol: 1e-14, ATol: 1e-14}), []float64{1}, []float64{0, 2}).Final()[0]
	for _, m := range []solver.Method{solver.Euler, solver.Midpoint, solver.Bosh3, solver.RK4, solver.Tsit5} {
		order := float64(m.Tableau().Order)
		var x, y []float64
		n := 40.0
		switch {
		case order > 4:
			n = 20 // rounding errors would show
		case order < 4:
			n = 320
		}
		for range 4 {
			n *= 2
			s := newSolver(t, f, solver.Settings{Method: m, Step: 2 / n})
			rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible, Coupling: 0.7})
			e := math.Abs(must[*solver.Solution[float64]](t)(rev.Solve(ctx, []float64{1}, []float64{0, 2})).Final()[0] - exact)
			x, y = append(x, math.Log(2/n)), append(y, math.Log(e))
		}
		if slope := fit(x, y); math.Abs(slope-order) > 0.2 {
			t.Errorf("%v: order %.2f, want %g", m, slope, order)
		}
	}
}

func timed[T field.Number](t T, z, _, dz []T) { dz[0] = -2*t*z[0]*z[0] + field.Cos(t) }

// fit is the slope of the least-squares line.
func fit(x, y []float64) float64 {
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	n := float64(len(x))
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

// Memory does not grow with the number of fixed steps, and by a few numbers a step, of
// whatever batch, with chosen ones. All of it comes back.
func TestReversible_Memory(t *testing.T) {
	m := mlp.Convert[float32](model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity))
	dev := cpu.New[float32]()
	dev.SetThreads(1) // more threads keep memory of their own
	held := func(set solver.Settings, batch int) (bytes, steps int64) {
		t.Helper()
		s := must[*solver.Solver[float32]](t)(solver.New(dev, m, set))
		before := dev.MemoryUsed()
		rev := must[*adjoint.Adjoint[float32]](t)(adjoint.New(s, adjoint.Settings{Method: adjoint.Reversible}))
		sol := must[*solver.Solution[float32]](t)(rev.Solve(ctx, make([]float32, 3*batch), []float64{0, 1, 2}))
		must[*adjoint.Gradient[float32]](t)(rev.Gradients(ctx, sol, make([]float32, len(sol.Y))))
		bytes = dev.MemoryUsed() - before
		rev.Close()
		if after := dev.MemoryUsed(); after != before {
			t.Errorf("%d bytes held before, %d after", before, after)
		}
		s.Close()
		return bytes, sol.Stats[0].Accepted
	}
	few, n := held(solver.Settings{Step: 0.1}, 4)
	many, more := held(solver.Settings{Step: 0.002}, 4)
	if few != many || more < 45*n {
		t.Errorf("%d bytes for %d steps, %d for %d", few, n, many, more)
	}
	for _, batch := range []int{1, 100} {
		base, n := held(solver.Settings{MaxStep: 0.1}, batch)
		long, more := held(solver.Settings{MaxStep: 0.005}, batch)
		if per := float64(long-base) / float64(more-n); per > 256 { // ten numbers, and what append leaves free
			t.Errorf("%.0f bytes a step at a batch of %d", per, batch)
		}
	}
}

// A gradient is the same to the last bit again, after another one, and of the same
// samples in any company; the batch's dL/dθ is the sum of the samples'.
func TestReversible_Batch(t *testing.T) {
	m := model(t, mlp.Softplus, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(8, 8))
	const batch = 70 // more than a tile of the CPU backend
	z0 := noise(r, batch*3, 0.7)
	ts := []float64{0.3, 0.8, 1.7}
	w := noise(r, 3*3, 1)
	for _, set := range []solver.Settings{{Step: 0.17}, {Step: 0.17, Stepping: solver.PerSample}, {RTol: 1e-5, ATol: 1e-5, Stepping: solver.PerSample}} {
		s := newSolver(t, m, set)
		rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
		gradient := func(z0 []float64, n int, scale float64) (*adjoint.Gradient[float64], func() *adjoint.Gradient[float64]) {
			sol := must[*solver.Solution[float64]](t)(rev.Solve(ctx, z0, ts))
			all := make([]float64, 0, len(sol.Y))
			for i := range ts {
				for range n {
					for _, v := range w[i*3 : (i+1)*3] {
						all = append(all, scale*v)
					}
				}
			}
			_, a := loss(all, sol.Y)
			again := func() *adjoint.Gradient[float64] {
				return must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a))
			}
			return again(), again
		}
		g, again := gradient(z0, batch, 1)
		h := again()
		if !slices.Equal(g.Z0, h.Z0) || !slices.Equal(g.Theta, h.Theta) || !slices.Equal(g.Times, h.Times) {
			t.Errorf("%+v: another gradient of the same solve", set)
		}
		gradient(z0[:6], 2, 3)
		if h = again(); !slices.Equal(g.Z0, h.Z0) || !slices.Equal(g.Theta, h.Theta) {
			t.Errorf("%+v: another gradient after another solve", set)
		}
		sum := make([]float64, len(g.Theta))
		for b := range batch {
			one, _ := gradient(z0[b*3:(b+1)*3], 1, 1)
			if !slices.Equal(one.Z0, g.Z0[b*3:(b+1)*3]) {
				t.Fatalf("%+v: sample %d has another gradient alone", set, b)
			}
			for i, v := range one.Theta {
				sum[i] += v
			}
		}
		closeTo(t, "dL/dθ", g.Theta, sum, 1e-12) // 70 terms in another order
	}
}

// Samples with times of their own, and with spans of length zero, have the gradients
// that they have alone; one that fails is left out.
func TestReversible_SolveEachAndMasks(t *testing.T) {
	f := field.New(1, []float64{1}, explode[float64], explode[field.Dual])
	for _, set := range []solver.Settings{{Step: 0.13}, {MinStep: 1e-9}, {Step: 0.13, Breakpoints: []float64{0.5}}} {
		set.Stepping = solver.PerSample
		s := newSolver(t, f, set)
		rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
		samples := []solver.Sample{{Times: []float64{0, 0.3, 1}}, {Times: []float64{0, 0.2, 1}}, {Times: []float64{2, 1, 0.5}}, {Times: []float64{3, 3}}, {Times: []float64{0, 0.1, 0.4}}}
		z0 := []float64{0.5, -1, 0.7, 0.1, 0.3}
		sol, err := rev.SolveEach(ctx, z0, samples)
		if !errors.Is(err, solver.NotFinite) {
			t.Fatalf("the second sample is not defined, and the error is %v", err)
		}
		a := make([]float64, len(sol.Y))
		for i := range a {
			a[i] = float64(1 + i)
		}
		g := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a))
		if !slices.Equal(g.Masked, []bool{false, true, false, false, false}) {
			t.Errorf("masked %v", g.Masked)
		}
		theta := 0.0
		for b := range samples {
			if b == 1 {
				if g.Z0[b] != 0 {
					t.Errorf("dL/dz0 of a failed sample is %g", g.Z0[b])
				}
				continue
			}
			one := must[*solver.Solution[float64]](t)(rev.SolveEach(ctx, z0[b:b+1], samples[b:b+1]))
			h := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, one, a[sol.Row(0, b):][:len(samples[b].Times)]))
			if h.Z0[0] != g.Z0[b] {
				t.Errorf("sample %d: dL/dz0 is %g in the batch and %g alone", b, g.Z0[b], h.Z0[0])
			}
			theta += h.Theta[0]
		}
		closeTo(t, "dL/dθ", g.Theta, []float64{theta}, 1e-14)

		// Over times in common, by a clock without the failure and by a tape beside it.
		ts := []float64{0, 0.2, 1}
		some, err := rev.Solve(ctx, []float64{0.5, -1, 0.7}, ts)
		if !errors.Is(err, solver.NotFinite) {
			t.Fatal(err)
		}
		g = must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, some, []float64{1, 1, 1, 1, 1, 1, 1, 1, 2}))
		good := must[*solver.Solution[float64]](t)(rev.Solve(ctx, []float64{0.5, 0.7}, ts))
		h := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, good, []float64{1, 1, 1, 1, 1, 2}))
		closeTo(t, "dL/dz0 beside a failure", g.Z0, []float64{h.Z0[0], 0, h.Z0[1]}, 1e-13)
		closeTo(t, "dL/dθ beside a failure", g.Theta, h.Theta, 1e-13)
	}
}

// In float32 rounding errors of y grow by 1/λ a step on the way back, from one output to
// the one before, and the gradient is that much off.
func TestReversible_Float32MatchesFloat64(t *testing.T) {
	m := model(t, mlp.SiLU, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(1, 2))
	z0, ts := noise(r, 5*3, 0.7), []float64{0, 0.4, 1}
	w := noise(r, len(ts)*len(z0), 1)
	for _, set := range []solver.Settings{{Step: 0.02}, {RTol: 1e-6, ATol: 1e-6, Stepping: solver.PerSample}} {
		set.Method = solver.Dopri5
		of := adjoint.Settings{Method: adjoint.Reversible}
		wide, single := newAdjoint(t, newSolver(t, m, set), of), newAdjoint(t, newSolver(t, mlp.Convert[float32](m), set), of)
		sol64 := must[*solver.Solution[float64]](t)(wide.Solve(ctx, z0, ts))
		sol32 := must[*solver.Solution[float32]](t)(single.Solve(ctx, problems.Convert[float32](z0), ts))
		_, a64 := loss(w, sol64.Y)
		_, a32 := loss(w, sol32.Y)
		g64 := must[*adjoint.Gradient[float64]](t)(wide.Gradients(ctx, sol64, a64))
		g32 := must[*adjoint.Gradient[float32]](t)(single.Gradients(ctx, sol32, a32))
		closeTo(t, "dL/dz0", g32.Z0, g64.Z0, 1e-5)
		closeTo(t, "dL/dθ", g32.Theta, g64.Theta, 1e-5)
	}
}

// A solve and a gradient whose data stays on the device give what the others give.
func TestReversible_OnDevice(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(3, 2))
	z0, ts := noise(r, 4*3, 0.7), []float64{0, 0.4, 1}
	for _, set := range []solver.Settings{{Step: 0.07}, {}} {
		s := newSolver(t, m, set)
		rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
		sol := must[*solver.Solution[float64]](t)(rev.Solve(ctx, z0, ts))
		a := noise(r, len(sol.Y), 1)
		want := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a))
		for _, jumps := range [][]int{{1, 2}, {1}} {
			got := make([]float64, len(m.Theta))
			err := s.OnDevice(func(d *solver.Device[float64]) error {
				z, cot := must[backend.Vec[float64]](t)(d.Backend.NewVec(1, 4, 3)), must[backend.Vec[float64]](t)(d.Backend.NewVec(3, 4, 3))
				d.Backend.Upload(z, z0)
				d.Backend.Upload(cot, a)
				states, err := rev.SolveOnDevice(ctx, d, z, ts)
				if err != nil {
					return err
				}
				theta, err := rev.OnDevice(ctx, d, ts, jumps, states, cot)
				if err != nil {
					return err
				}
				return d.Backend.Download(got, theta)
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(jumps) == 1 {
				clear(a[2*4*3:])
				want = must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a))
			}
			if !slices.Equal(got, want.Theta) {
				t.Errorf("%+v, jumps %v: another dL/dθ on the device", set, jumps)
			}
		}
	}
}

func TestReversible_Errors(t *testing.T) {
	p := problems.LotkaVolterra()
	s := newSolver(t, problems.System[float64](p), solver.Settings{})
	for _, c := range []struct {
		set  adjoint.Settings
		want string
	}{
		{adjoint.Settings{Method: adjoint.Reversible, Coupling: 1.1}, "up to 1"},
		{adjoint.Settings{Method: adjoint.Reversible, Coupling: math.NaN()}, "up to 1"},
		{adjoint.Settings{Coupling: 0.9}, "Coupling is about Reversible"},
		{adjoint.Settings{Method: adjoint.Reversible, Budget: 1}, "about Discrete"},
		{adjoint.Settings{Method: adjoint.Reversible, FullNorm: true}, "set Method to Continuous"},
		{adjoint.Settings{Method: adjoint.Reversible + 1}, "or Reversible"},
	} {
		_, err := adjoint.New(s, c.set)
		wants(t, err, c.want)
	}
	event := solver.Event[float64]{G: func(_ float64, z, _ []float64) float64 { return z[0] }}
	_, err := adjoint.New(newSolver(t, problems.System[float64](p), solver.Settings{Stepping: solver.PerSample}, event), adjoint.Settings{Method: adjoint.Reversible})
	wants(t, err, "use Discrete")

	rev := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
	plain := solve(t, s, p.Z0, []float64{0, 1})
	_, err = rev.Gradients(ctx, plain, make([]float64, len(plain.Y)))
	wants(t, err, "needs a solution from Adjoint.Solve")

	sol := must[*solver.Solution[float64]](t)(rev.Solve(ctx, p.Z0, []float64{0, 1}))
	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := rev.Gradients(c, sol, make([]float64, len(sol.Y))); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled gradient: %v", err)
	}
	a := []float64{0, 0, 1, 2}
	got := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, sol, a)) // after the cancelled one
	fresh := newAdjoint(t, s, adjoint.Settings{Method: adjoint.Reversible})
	want := must[*adjoint.Gradient[float64]](t)(fresh.Gradients(ctx, sol, a)) // which solves again
	if !slices.Equal(got.Theta, want.Theta) || !slices.Equal(got.Z0, want.Z0) {
		t.Error("another gradient after a cancelled one")
	}
	point := must[*solver.Solution[float64]](t)(rev.Solve(ctx, p.Z0, []float64{1, 1}))
	if g := must[*adjoint.Gradient[float64]](t)(rev.Gradients(ctx, point, []float64{1, 2, 3, 4})); !slices.Equal(g.Z0, []float64{4, 6}) {
		t.Errorf("over a span of length zero dL/dz0 is %v", g.Z0)
	}
}
