package adjoint_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

var ctx = context.Background()

// newSolver binds sys to a CPU backend of its own.
func newSolver[T backend.Float](t testing.TB, sys backend.System[T], set solver.Settings, events ...solver.Event[T]) *solver.Solver[T] {
	t.Helper()
	dev := cpu.New[T]()
	s, err := solver.New(dev, sys, set, events...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		dev.Close()
	})
	return s
}

func solve[T backend.Float](t testing.TB, s *solver.Solver[T], z0 []T, ts []float64) *solver.Solution[T] {
	t.Helper()
	sol, err := s.Solve(ctx, z0, ts)
	if err != nil {
		t.Fatal(err)
	}
	return sol
}

func gradients[T backend.Float](t testing.TB, s *solver.Solver[T], set adjoint.Settings, sol *solver.Solution[T], dLdz []T) *adjoint.Gradient[T] {
	t.Helper()
	a, err := adjoint.New(s, set)
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Gradients(ctx, sol, dLdz)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return g
}

// closeTo fails unless every got is within tol·(the largest |want|) of want.
func closeTo[T backend.Float](t *testing.T, what string, got []T, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has length %d, want %d", what, len(got), len(want))
	}
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tol*largest) {
			t.Errorf("%s[%d] = %.12g, want %.12g, off by %.2g of the largest, %.3g", what, i, got[i], w, d/largest, largest)
		}
	}
}

func noise(r *rand.Rand, n int, scale float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = scale * r.NormFloat64()
	}
	return x
}

// Every reference gradient, by every adaptive method. The reverse solve's own
// error is some hundred times its tolerance on these problems; the bound is what
// the library promises at tight tolerances.
func TestGradients_MatchReference(t *testing.T) {
	for _, p := range problems.All() {
		for k, loss := range p.Losses {
			for _, m := range []solver.Method{solver.Tsit5, solver.Dopri5, solver.Dopri8, solver.Vern7, solver.Bosh3} {
				tol := 1e-12
				if m == solver.Bosh3 {
					tol = 1e-10 // its steps are many
				}
				s := newSolver(t, problems.System[float64](p), solver.Settings{Method: m, RTol: tol, ATol: tol, MaxAttempts: 1e7})
				sol := solve(t, s, p.Z0, loss.Times)
				for _, set := range []adjoint.Settings{
					{Method: adjoint.Discrete}, {Method: adjoint.Interpolating},
					{Method: adjoint.Continuous}, {Method: adjoint.Continuous, FullNorm: true},
				} {
					if (set.FullNorm || set.Method == adjoint.Interpolating) && m != solver.Tsit5 {
						continue
					}
					g := gradients(t, s, set, sol, problems.Cotangents(&loss, sol.Y))
					name := p.Name + " " + m.String() + " " + set.Method.String()
					closeTo(t, name+" dL/dz0", g.Z0, loss.DZ0, 1e-6)
					closeTo(t, name+" dL/dθ", g.Theta, loss.DTheta, 1e-6)
					closeTo(t, name+" dL/dt", g.Times, loss.DTimes, 1e-6)
					if g.Drift.Ratio > 1e6 {
						t.Errorf("%s, loss %d: %v", name, k, g.Drift)
					}
				}
			}
		}
	}
}

// Heun's and Fehlberg's methods of order 2 reach less; their gradients must still
// converge to the reference with the tolerance, by the order of the method.
func TestGradients_ConvergeWithTolerance(t *testing.T) {
	p := problems.LotkaVolterra()
	loss := p.Losses[0]
	for i, m := range []solver.Method{solver.HeunEuler21, solver.Fehlberg12, solver.Bosh3, solver.Tsit5, solver.Dopri8, solver.HeunEuler21, solver.Tsit5, solver.Dopri8} {
		var errs []float64
		set := adjoint.Settings{Method: adjoint.Continuous}
		if i > 4 {
			set.Method = adjoint.Discrete
		}
		for _, tol := range []float64{1e-4, 1e-6, 1e-8} {
			s := newSolver(t, problems.System[float64](p), solver.Settings{Method: m, RTol: tol, ATol: tol, MaxAttempts: 1e7})
			sol := solve(t, s, p.Z0, loss.Times)
			g := gradients(t, s, set, sol, problems.Cotangents(&loss, sol.Y))
			worst := 0.0
			for i, w := range loss.DTheta {
				worst = max(worst, math.Abs(g.Theta[i]-w))
			}
			errs = append(errs, worst)
		}
		// A factor of 3 for each of the four decades.
		if !(errs[2] < errs[0]/81) {
			t.Errorf("%v, %v: errors %.2g at tolerances 1e-4, 1e-6, 1e-8 do not fall", m, set.Method, errs)
		}
	}
}

// loss is a smooth function of a whole solution, L = Σ w·y + ½·Σ w·y², with its
// cotangents.
func loss[T backend.Float](w []float64, y []T) (l float64, a []T) {
	a = make([]T, len(y))
	for i, v := range y {
		x := float64(v)
		l += w[i] * (x + x*x/2)
		a[i] = T(w[i] * (1 + x))
	}
	return l, a
}

// model makes an MLP with three states for a sweep of shapes.
func model(t testing.TB, act mlp.Activation, tm mlp.Time, in mlp.Input) *mlp.Model[float64] {
	spec := mlp.Dense(act, 3, 7, 5, 3)
	spec.Time, spec.Input = tm, in
	m, err := mlp.New[float64](spec, mlp.Init{}, 7)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Gradients of the continuous adjoint of an MLP with respect to all of z0, θ and the times, in both kinds of
// stepping, against central differences of the same tight solve. Differences with
// a step of 1e-5 are good to about 1e-9 where the activation is smooth. Where it
// has a kink the solve errs by about its tolerance at every crossing, by another
// amount at every θ, which divided by the step is the noise of the difference:
// the tolerance is tighter there and the step longer, and short steps leave the
// error estimate no room to overlook a kink near the end of one.
func TestGradients_MatchFiniteDifference(t *testing.T) {
	ts := []float64{0.2, 0.5, 1.1, 1.4}
	for _, act := range mlp.Activations() {
		for _, tm := range []mlp.Time{mlp.TimeNone, mlp.TimeInput, mlp.TimeEveryLayer} {
			in := mlp.InputIdentity
			if act == mlp.Tanh {
				in = mlp.InputCube
			}
			set, h := solver.Settings{Method: solver.Dopri8, RTol: 1e-11, ATol: 1e-12}, 1e-5
			if act == mlp.ReLU || act == mlp.LeakyReLU || act == mlp.ELU {
				set.RTol, set.ATol, set.MaxStep, h = 1e-13, 1e-14, 0.002, 3e-4
			}
			for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
				name := act.String() + "/" + tm.String() + "/" + stepping.String()
				t.Run(name, func(t *testing.T) {
					m := model(t, act, tm, in)
					r := rand.New(rand.NewPCG(3, uint64(act)))
					z0 := noise(r, 2*3, 0.7)
					w := noise(r, len(ts)*len(z0), 1)
					set := set
					set.Stepping = stepping
					s := newSolver(t, m, set)
					sol := solve(t, s, z0, ts)
					_, a := loss(w, sol.Y)
					g := gradients(t, s, adjoint.Settings{Method: adjoint.Continuous}, sol, a)

					value := func() float64 {
						if err := s.SetParams(m.Theta); err != nil {
							t.Fatal(err)
						}
						l, _ := loss(w, solve(t, s, z0, ts).Y)
						return l
					}
					diff := func(x *float64) float64 {
						was := *x
						*x = was + h
						up := value()
						*x = was - h
						down := value()
						*x = was
						return (up - down) / (2 * h)
					}
					for _, c := range []struct {
						what string
						x    []float64
						got  []float64
						step int
					}{{"dL/dz0", z0, g.Z0, 1}, {"dL/dθ", m.Theta, g.Theta, 7}, {"dL/dt", ts, g.Times, 1}} {
						var got, want []float64
						for i := 0; i < len(c.x); i += c.step {
							got, want = append(got, c.got[i]), append(want, diff(&c.x[i]))
						}
						closeTo(t, c.what, got, want, 1e-6)
					}
				})
			}
		}
	}
}

// Backwards in time, and cotangents at a subset of the outputs.
func TestGradients_Backwards(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity)
	ts := []float64{1.4, 1, 0.3, -0.5}
	z0 := []float64{0.3, -0.8, 0.5}
	w := make([]float64, len(ts)*3)
	w[3], w[4], w[5] = 1, -2, 0.5 // at ts[1] alone
	s := newSolver(t, m, solver.Settings{RTol: 1e-11, ATol: 1e-11})
	sol := solve(t, s, z0, ts)
	_, a := loss(w, sol.Y)
	g := gradients(t, s, adjoint.Settings{}, sol, a)
	if g.Times[2] != 0 || g.Times[3] != 0 || g.Times[1] == 0 || g.Times[0] == 0 {
		t.Errorf("dL/dt = %v, want zero where the loss does not look", g.Times)
	}
	// The same loss of a solve that ends where the loss looks last.
	short := solve(t, s, z0, ts[:2])
	_, a = loss(w[:6], short.Y)
	h := gradients(t, s, adjoint.Settings{}, short, a)
	closeTo(t, "dL/dz0", g.Z0, h.Z0, 1e-9)
	closeTo(t, "dL/dθ", g.Theta, h.Theta, 1e-9)

	for i := range z0 {
		const d = 1e-5
		up, down := append([]float64{}, z0...), append([]float64{}, z0...)
		up[i], down[i] = up[i]+d, down[i]-d
		lu, _ := loss(w, solve(t, s, up, ts).Y)
		ld, _ := loss(w, solve(t, s, down, ts).Y)
		if want := (lu - ld) / (2 * d); math.Abs(g.Z0[i]-want) > 1e-7 {
			t.Errorf("dL/dz0[%d] = %g, differences give %g", i, g.Z0[i], want)
		}
	}
}

func TestGradients_Float32MatchesFloat64(t *testing.T) {
	m := model(t, mlp.SiLU, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(1, 2))
	z0, ts := noise(r, 5*3, 0.7), []float64{0, 0.4, 1}
	w := noise(r, len(ts)*len(z0), 1)
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{RTol: 1e-6, ATol: 1e-6, Stepping: stepping}
		s64, s32 := newSolver(t, m, set), newSolver(t, mlp.Convert[float32](m), set)
		sol64, sol32 := solve(t, s64, z0, ts), solve(t, s32, problems.Convert[float32](z0), ts)
		_, a64 := loss(w, sol64.Y)
		_, a32 := loss(w, sol32.Y)
		g64, g32 := gradients(t, s64, adjoint.Settings{}, sol64, a64), gradients(t, s32, adjoint.Settings{}, sol32, a32)
		closeTo(t, "dL/dz0", g32.Z0, g64.Z0, 1e-4)
		closeTo(t, "dL/dθ", g32.Theta, g64.Theta, 1e-4)
		closeTo(t, "dL/dt", g32.Times, g64.Times, 1e-4)
	}
}

// A batch that steps sample by sample has the gradients of its samples: dL/dz0 to
// the last bit, dL/dθ as their sum, to rounding.
func TestGradients_PerSampleAloneAndInBatch(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(5, 6))
	const batch = 70 // more than a tile of the CPU backend
	ts := []float64{0, 0.7, 2}
	z0, w := noise(r, batch*3, 1), noise(r, len(ts)*3, 1)
	s := newSolver(t, m, solver.Settings{Stepping: solver.PerSample})
	all := make([]float64, 0, len(ts)*batch*3)
	for i := range ts {
		for range batch {
			all = append(all, w[i*3:(i+1)*3]...)
		}
	}
	sol := solve(t, s, z0, ts)
	_, a := loss(all, sol.Y)
	g := gradients(t, s, adjoint.Settings{}, sol, a)
	again := gradients(t, s, adjoint.Settings{}, sol, a)
	sum := make([]float64, len(g.Theta))
	for b := range batch {
		one := solve(t, s, z0[b*3:(b+1)*3], ts)
		_, a := loss(w, one.Y)
		h := gradients(t, s, adjoint.Settings{}, one, a)
		for i, v := range h.Z0 {
			if g.Z0[b*3+i] != v {
				t.Fatalf("sample %d: dL/dz0[%d] is %v in the batch and %v alone", b, i, g.Z0[b*3+i], v)
			}
		}
		for i, v := range h.Theta {
			sum[i] += v
		}
	}
	closeTo(t, "dL/dθ", g.Theta, sum, 1e-12) // 70 terms in another order
	for i := range g.Theta {
		if g.Theta[i] != again.Theta[i] {
			t.Fatalf("dL/dθ[%d] is %v, then %v", i, g.Theta[i], again.Theta[i])
		}
	}
}

// The seminorm and the full norm agree, and the seminorm needs no more steps.
func TestGradients_FullNorm(t *testing.T) {
	p := problems.CubicSpiral()
	loss := p.Losses[0]
	s := newSolver(t, problems.System[float64](p), solver.Settings{RTol: 1e-8, ATol: 1e-10})
	sol := solve(t, s, p.Z0, loss.Times)
	a := problems.Cotangents(&loss, sol.Y)
	semi, full := gradients(t, s, adjoint.Settings{Method: adjoint.Continuous}, sol, a), gradients(t, s, adjoint.Settings{Method: adjoint.Continuous, FullNorm: true}, sol, a)
	closeTo(t, "dL/dθ", full.Theta, loss.DTheta, 1e-5)
	closeTo(t, "dL/dθ", semi.Theta, loss.DTheta, 1e-5)
	if semi.Stats[0].Accepted > full.Stats[0].Accepted {
		t.Errorf("%d steps with the seminorm, %d with the full norm", semi.Stats[0].Accepted, full.Stats[0].Accepted)
	}
}

// The reverse solve steps with a method and tolerances of its own.
func TestGradients_OwnSettings(t *testing.T) {
	p := problems.LotkaVolterra()
	loss := p.Losses[0]
	s := newSolver(t, problems.System[float64](p), solver.Settings{RTol: 1e-10, ATol: 1e-10})
	sol := solve(t, s, p.Z0, loss.Times)
	a := problems.Cotangents(&loss, sol.Y)
	coarse := gradients(t, s, adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{Method: solver.Bosh3, RTol: 1e-4, ATol: 1e-4}}, sol, a)
	fine := gradients(t, s, adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{Method: solver.Vern7, RTol: 1e-10, ATol: 1e-10}}, sol, a)
	fixed := gradients(t, s, adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{Method: solver.RK4, Step: 0.001}}, sol, a)
	closeTo(t, "dL/dθ", fine.Theta, loss.DTheta, 1e-7)
	closeTo(t, "dL/dθ", fixed.Theta, loss.DTheta, 1e-7)
	if coarse.Stats[0].Accepted >= fine.Stats[0].Accepted {
		t.Errorf("%d steps at 1e-4, %d at 1e-10", coarse.Stats[0].Accepted, fine.Stats[0].Accepted)
	}
	if n := fixed.Stats[0].Accepted; n != 10000 {
		t.Errorf("%d steps of 0.001 over a span of 10", n)
	}
}

// Steps keep their size across output times: 100 times as many outputs cost at
// most one more step each, not a new start.
func TestGradients_StepsAcrossOutputs(t *testing.T) {
	p := problems.CubicSpiral()
	s := newSolver(t, problems.System[float64](p), solver.Settings{RTol: 1e-6, ATol: 1e-8})
	evaluations := func(n int) int64 {
		ts := make([]float64, n)
		for i := range ts {
			ts[i] = 25 * float64(i) / float64(n-1)
		}
		sol := solve(t, s, p.Z0, ts)
		a := make([]float64, len(sol.Y))
		for i := range a {
			a[i] = 1
		}
		return gradients(t, s, adjoint.Settings{Method: adjoint.Continuous}, sol, a).Stats[0].Evaluations
	}
	few, many := evaluations(2), evaluations(200)
	// A jump costs the step cut for it and, as the first stage is stale after it,
	// at most 7 evaluations of Tsit5.
	if many > few+200*7 {
		t.Errorf("%d evaluations with 2 outputs, %d with 200", few, many)
	}
	t.Logf("%d evaluations with 2 outputs, %d with 200", few, many)
}
