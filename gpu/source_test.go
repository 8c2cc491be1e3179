//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/field/expr"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// equations use every operation that there is.
var equations = []string{
	"z0*z1 - a*z0/(1+z1^2) + exp(-t)*z1 + expm1(z0/4) + sinh(z1/2)*cosh(a*z0/3)",
	"sin(a*z0)*cos(z1) + tan(z0/5) + log(3+z0)*b + log1p(z1^2) + sqrt(4+z0*z1) + atan(b*z1)",
	"asin(z0/3) - acos(z1/3) + tanh(z0+a) + abs(z0-0.017)*b + hypot(z0, z1+4) + atan2(z1+5, z0)",
	"min(z0, z1*a) + max(z1, b*z2) + if(z0 < z1, z2*z1, a*z2^3) + pow(3+z0, z2/3) + (5+z1)^a + z2^-1",
}

// bind binds sys, or skips the test where there is no compiler for it.
func bind[T backend.Float](t testing.TB, b backend.Backend[T], sys backend.System[T]) backend.Field[T] {
	t.Helper()
	f, err := b.Bind(sys)
	if errors.Is(err, backend.ErrUnsupported) && strings.Contains(err.Error(), "NVRTC") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func system[T backend.Float](t testing.TB, params []string, theta []T, equations ...string) *expr.System[T] {
	t.Helper()
	s, err := expr.Parse(equations, expr.Settings[T]{Params: params, Theta: theta})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// results of the verbs of a field on one backend.
type verbs[T backend.Float] struct {
	eval, dz, az, at, g, jdz, jv, jv0 []T
	evaluations                       []int64
}

// verbsOf calls every verb for some rows, of which those of even lanes run backwards.
func verbsOf[T backend.Float](t *testing.T, b backend.Backend[T], sys backend.System[T], rows, lanes int, timesH bool) (r verbs[T]) {
	t.Helper()
	f := bind(t, b, sys)
	d, p := sys.Dim(), sys.NumParams()
	rng := rand.New(rand.NewPCG(7, uint64(rows)))
	var owned []backend.Vec[T]
	vec := func(rows, cols int, noise bool) backend.Vec[T] {
		v, err := b.NewVec(1, rows, cols)
		if err != nil {
			t.Fatal(err)
		}
		x := make([]T, rows*cols)
		for i := range x {
			x[i] = -7 // of rows that are not selected
			if noise {
				x[i] = T(0.2 + 1.5*rng.Float64())
			}
		}
		b.Upload(v, x)
		owned = append(owned, v)
		return v
	}
	z, a, v, w := vec(rows, d, true), vec(rows, d, true), vec(rows, d, true), vec(1, p, true)
	eval, dz, az, at, g := vec(rows, d, false), vec(rows, d, false), vec(rows, d, false), vec(rows, 1, false), vec(1, p, false)
	jdz, jv, jv0 := vec(rows, d, false), vec(rows, d, false), vec(rows, d, false)
	clk, err := b.NewClock(lanes)
	if err != nil {
		t.Fatal(err)
	}
	defer clk.Close()
	spans := make([]backend.Span, lanes)
	for i := range spans {
		end := 1 + 0.01*float64(i)
		switch {
		case i%2 == 1:
			end = -end
		case i%5 == 4:
			end = 0 // done at once, and not selected
		}
		spans[i] = backend.Span{Stops: []float64{end}, H0: 0.25}
	}
	b.Start(clk, spans...)
	when := backend.At{Clock: clk, C: 0.3, Rows: backend.Running}
	f.Eval(eval, when, z)
	f.VJP(when, backend.VJP[T]{Z: z, A: a, DZ: dz, AZ: az, AT: at, Alpha: -1, G: g, W: 0.5, TimesH: timesH})
	f.VJP(when, backend.VJP[T]{Z: z, A: a, G: g, W: 0.25})
	f.VJP(when, backend.VJP[T]{Z: z})
	f.JVP(when, backend.JVP[T]{Z: z, V: v, W: w, DZ: jdz, JV: jv})
	f.JVP(when, backend.JVP[T]{Z: z, V: v, JV: jv0})
	for _, x := range []struct {
		to *[]T
		v  backend.Vec[T]
	}{{&r.eval, eval}, {&r.dz, dz}, {&r.az, az}, {&r.at, at}, {&r.g, g}, {&r.jdz, jdz}, {&r.jv, jv}, {&r.jv0, jv0}} {
		_, n, m := x.v.Shape()
		*x.to = make([]T, n*m)
		if err := b.Download(*x.to, x.v); err != nil {
			t.Fatal(err)
		}
	}
	list := make([]backend.Lane, lanes)
	if err := b.Lanes(clk, list); err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		r.evaluations = append(r.evaluations, l.Evaluations)
	}
	for _, v := range owned {
		b.Free(v)
	}
	return r
}

// Compiled equations compute what they do on the CPU, in every verb.
func TestSource_VerbsMatchCPU(t *testing.T) {
	t.Run("float32", func(t *testing.T) { sourceVerbs[float32](t, 1e-5) })
	t.Run("float64", func(t *testing.T) { sourceVerbs[float64](t, 1e-13) })
}

func sourceVerbs[T backend.Float](t *testing.T, tol float64) {
	dev, host := open[T](t), cpu.New[T]()
	defer host.Close()
	sys := system(t, []string{"a", "b"}, []T{1.3, 0.7}, equations...)
	for _, n := range []struct{ rows, lanes int }{{1, 1}, {300, 1}, {700, 700}} {
		got, want := verbsOf(t, dev, sys, n.rows, n.lanes, true), verbsOf(t, host, sys, n.rows, n.lanes, true)
		near(t, "f", got.eval, want.eval, tol)
		near(t, "f of VJP", got.dz, want.dz, tol)
		near(t, "aᵀ∂f/∂z", got.az, want.az, tol)
		near(t, "aᵀ∂f/∂t", got.at, want.at, tol)
		near(t, "aᵀ∂f/∂θ", got.g, want.g, tol)
		near(t, "f of JVP", got.jdz, want.jdz, tol)
		near(t, "(∂f/∂z)v + (∂f/∂θ)w", got.jv, want.jv, tol)
		near(t, "(∂f/∂z)v", got.jv0, want.jv0, tol)
		for i, e := range want.evaluations {
			if got.evaluations[i] != e {
				t.Fatalf("lane %d counts %d evaluations, want %d", i, got.evaluations[i], e)
			}
		}
		again := verbsOf(t, dev, sys, n.rows, n.lanes, true)
		for i, x := range again.g {
			if x != got.g[i] {
				t.Errorf("aᵀ∂f/∂θ[%d] = %v, and %v when computed again", i, got.g[i], x)
			}
		}
	}
}

// gradients solves a batch with time in f and returns states, ∂L/∂z0, ∂L/∂θ and dL/dt.
func gradients[T backend.Float](t *testing.T, dev backend.Backend[T], sys backend.System[T], set solver.Settings, how adjoint.Method) [4][]T {
	t.Helper()
	bind(t, dev, sys)
	ctx := context.Background()
	s, err := solver.New(dev, sys, set)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	z0 := make([]T, 40*3)
	for i := range z0 {
		z0[i] = T(1 + 0.5*math.Sin(float64(i)))
	}
	adj, err := adjoint.New(s, adjoint.Settings{Method: how})
	if err != nil {
		t.Fatal(err)
	}
	defer adj.Close()
	sol, err := adj.Solve(ctx, z0, []float64{0, 0.4, 1, 1.5})
	if err != nil {
		t.Fatal(err)
	}
	cot := make([]T, len(sol.Y))
	for i := range cot {
		cot[i] = T(math.Cos(float64(i)))
	}
	g, err := adj.Gradients(ctx, sol, cot)
	if err != nil {
		t.Fatal(err)
	}
	return [4][]T{sol.Y, g.Z0, g.Theta, convert[T](g.Times)}
}

// forced is a damped oscillator with a force and a slow drift of its stiffness.
func forced[T backend.Float](t testing.TB) *expr.System[T] {
	return system(t, []string{"c", "w"}, []T{0.3, 2}, "z1", "-c*z1 - z2*sin(z0) + cos(w*t)", "-0.1*z2*z0^2")
}

func TestSource_GradientsMatchCPU(t *testing.T) {
	for _, how := range []adjoint.Method{adjoint.Discrete, adjoint.Continuous, adjoint.Interpolating, adjoint.Reversible} {
		for _, step := range []solver.Stepping{solver.Joint, solver.PerSample} {
			host := cpu.New[float64]()
			defer host.Close()
			set := solver.Settings{Stepping: step, RTol: 1e-6, ATol: 1e-8}
			sys := forced[float64](t)
			got, want := gradients(t, open[float64](t), sys, set, how), gradients[float64](t, host, sys, set, how)
			for i, name := range []string{"z", "∂L/∂z0", "∂L/∂θ", "dL/dt"} {
				near(t, how.String()+", "+name, got[i], want[i], 1e-11)
			}
		}
	}
}

// decay is dz/dt = -θ·z as Go and as CUDA source.
func decay(source field.Source) *field.Custom[float64] {
	return &field.Custom[float64]{
		N: 1, Theta: []float64{2}, CUDA: source,
		F: func(_ float64, z, theta, dz []float64) { dz[0] = -theta[0] * z[0] },
	}
}

// A right-hand side given as source computes what it says, and says what it lacks.
func TestSource_OfTheCaller(t *testing.T) {
	ctx, dev := context.Background(), open[float64](t)
	sys := decay(field.Source{Eval: "dz[0] = -theta[0]*z[0];"})
	bind(t, dev, backend.System[float64](sys))
	s, err := solver.New[float64](dev, sys, solver.Settings{RTol: 1e-10, ATol: 1e-12})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(ctx, []float64{1, 3}, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "z(1)", sol.Final(), []float64{math.Exp(-2), 3 * math.Exp(-2)}, 1e-9)
	_, err = adjoint.Gradients(ctx, s, sol, make([]float64, len(sol.Y)))
	if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "field.Source.VJP") {
		t.Errorf("a gradient without a VJP: error %v", err)
	}

	_, err = dev.Bind(decay(field.Source{Eval: "\ndz[0] = -thet[0]*z[0];"}))
	if err == nil || !strings.Contains(err.Error(), "Source.Eval(2)") || !strings.Contains(err.Error(), "thet") {
		t.Errorf("source with a fault in its second line: error %v", err)
	}
	if _, err = dev.Bind(decay(field.Source{})); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("Go without source: error %v, want ErrUnsupported", err)
	}
}
