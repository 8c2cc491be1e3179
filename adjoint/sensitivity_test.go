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

func newSensitivity[T backend.Float](t testing.TB, s *solver.Solver[T], set adjoint.SensitivitySettings) *adjoint.Sensitivity[T] {
	t.Helper()
	v, err := adjoint.NewSensitivity(s, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func tangents[T backend.Float](t testing.TB, s *solver.Solver[T], set adjoint.SensitivitySettings, z0 []T, ts []float64, along []adjoint.Tangent[T]) *adjoint.TangentSolution[T] {
	t.Helper()
	tan, err := newSensitivity(t, s, set).Solve(ctx, z0, ts, along)
	if err != nil {
		t.Fatal(err)
	}
	return tan
}

// Every reference gradient, all of z0 and θ at once, with the error of the derivatives
// controlled and not. The error at the end is some hundred times the tolerance.
func TestSensitivity_MatchesReference(t *testing.T) {
	for _, p := range problems.All() {
		for k, loss := range p.Losses {
			for _, m := range []solver.Method{solver.Tsit5, solver.Dopri8} {
				s := newSolver(t, problems.System[float64](p), solver.Settings{Method: m, RTol: 1e-12, ATol: 1e-12, MaxAttempts: 1e7})
				along := append(adjoint.StateTangents[float64](1, len(p.Z0)), adjoint.ParamTangents[float64](len(p.Theta))...)
				for _, set := range []adjoint.SensitivitySettings{{}, {NoErrorControl: true}} {
					tan := tangents(t, s, set, p.Z0, loss.Times, along)
					got, err := tan.Derivatives(problems.Cotangents(&loss, tan.Y))
					if err != nil {
						t.Fatal(err)
					}
					name := fmt.Sprintf("%s %d %v %+v", p.Name, k, m, set)
					closeTo(t, name+" dL/dz0", got[:len(p.Z0)], loss.DZ0, 1e-8)
					closeTo(t, name+" dL/dθ", got[len(p.Z0):], loss.DTheta, 1e-8)
				}
			}
		}
	}
}

// Forward and reverse mode differentiate the same steps: at loose tolerances too they
// agree to rounding, at outputs inside steps as at their ends, joint and each alone.
// Fixed steps and NoErrorControl make the steps of the solve without directions.
func TestSensitivity_MatchesDiscrete(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	ts := []float64{0.2, 0.25, 0.9, 1.4, 2.3}
	for _, set := range []solver.Settings{
		{RTol: 1e-3, ATol: 1e-3},
		{RTol: 1e-3, ATol: 1e-3, Stepping: solver.PerSample},
		{Method: solver.Dopri8, RTol: 1e-3, ATol: 1e-3, Stepping: solver.PerSample},
		{Method: solver.Bosh3, RTol: 1e-2, ATol: 1e-2, Breakpoints: []float64{1}},
		{Method: solver.RK4, Step: 0.3},
		{Method: solver.Midpoint, Step: 0.5, Stepping: solver.PerSample},
	} {
		for _, in := range []mlp.Input{mlp.InputIdentity, mlp.InputCube} {
			m := model(t, mlp.SiLU, mlp.TimeEveryLayer, in)
			s := newSolver(t, m, set)
			const batch = 3
			z0 := noise(r, batch*3, 0.7)
			plain := solve(t, s, z0, ts)
			w := noise(r, len(plain.Y), 1)
			_, a := loss(w, plain.Y)
			g := gradients(t, s, adjoint.Settings{}, plain, a)

			along := []adjoint.Tangent[float64]{
				{Z0: noise(r, len(z0), 1)}, {Theta: noise(r, len(m.Theta), 1)},
				{Z0: noise(r, len(z0), 1), Theta: noise(r, len(m.Theta), 1)}, {},
			}
			tan := tangents(t, s, adjoint.SensitivitySettings{NoErrorControl: true}, z0, ts, along)
			if !slices.Equal(tan.Y, plain.Y) {
				t.Errorf("%v: directions without error control changed the solution", set.Method)
			}
			got, err := tan.Derivatives(a)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]float64, len(along))
			for i, d := range along {
				want[i] = dotOf(g.Z0, d.Z0) + dotOf(g.Theta, d.Theta)
			}
			// Some hundred operations of terms of the size of the largest.
			closeTo(t, set.Method.String(), got, want, 1e-12)
			if got[3] != 0 {
				t.Errorf("the derivative along nothing is %g", got[3])
			}
		}
	}
}

// dotOf is x·y, 0 for a nil y.
func dotOf(x, y []float64) (sum float64) {
	for i, v := range y {
		sum += v * x[i]
	}
	return sum
}

// All of S against differences of the solve with steps held fixed, for a field written
// in Go over the parameters of two parts.
func TestSensitivity_MatchesFiniteDifference(t *testing.T) {
	net := model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity)
	f, err := field.Plus(backend.System[float64](net), field.New(3, []float64{0.7, -0.4}, swirl[float64], swirl[field.Dual]))
	if err != nil {
		t.Fatal(err)
	}
	s := newSolver(t, f, solver.Settings{Method: solver.RK4, Step: 0.05})
	r := rand.New(rand.NewPCG(2, 9))
	z0, ts := noise(r, 2*3, 0.7), []float64{1, 0.4, -0.3} // backwards
	theta := f.Params()
	v, w := noise(r, len(z0), 1), noise(r, len(theta), 1)
	tan := tangents(t, s, adjoint.SensitivitySettings{}, z0, ts, []adjoint.Tangent[float64]{{Z0: v, Theta: w}})
	const h = 1e-5
	at := func(e float64) []float64 {
		if err := s.SetParams(plus(theta, e, w)); err != nil {
			t.Fatal(err)
		}
		return solve(t, s, plus(z0, e, v), ts).Y
	}
	up, down := at(h), at(-h)
	want := make([]float64, len(up))
	for i := range want {
		want[i] = (up[i] - down[i]) / (2 * h)
	}
	closeTo(t, "S", tan.S[0], want, 1e-8) // h²
}

func swirl[T field.Number](t T, z, th, dz []T) {
	dz[0] = th[0]*z[1] + t*z[2]
	dz[1] = th[1] * field.Sin(z[0])
	dz[2] = th[0] * th[1] * z[2]
}

// plus is x + e·d.
func plus(x []float64, e float64, d []float64) []float64 {
	y := slices.Clone(x)
	for i := range d {
		y[i] += e * d[i]
	}
	return y
}

func TestSensitivity_Float32MatchesFloat64(t *testing.T) {
	m := model(t, mlp.GELU, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(4, 4))
	z0, ts, v, w := noise(r, 5*3, 0.7), []float64{0, 0.4, 1}, noise(r, 5*3, 1), noise(r, len(m.Theta), 1)
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{RTol: 1e-6, ATol: 1e-6, Stepping: stepping}
		wide := tangents(t, newSolver(t, m, set), adjoint.SensitivitySettings{}, z0, ts, []adjoint.Tangent[float64]{{Z0: v, Theta: w}})
		single := tangents(t, newSolver(t, mlp.Convert[float32](m), set), adjoint.SensitivitySettings{}, problems.Convert[float32](z0), ts,
			[]adjoint.Tangent[float32]{{Z0: problems.Convert[float32](v), Theta: problems.Convert[float32](w)}})
		closeTo(t, "S", single.S[0], wide.S[0], 1e-5)
	}
}

// z at rest, S not: without control the steps are too long for S; with it S is as
// accurate as the tolerance says.
func TestSensitivity_ErrorControl(t *testing.T) {
	// z stays 0; dS/dt = cos(20t) for the direction of θ, so S(t) = sin(20t)/20.
	f := field.New(1, []float64{0}, pushed[float64], pushed[field.Dual])
	s := newSolver(t, f, solver.Settings{RTol: 1e-8, ATol: 1e-8})
	along := adjoint.ParamTangents[float64](1)
	ts := []float64{0, 5}
	want := math.Sin(100) / 20
	controlled := tangents(t, s, adjoint.SensitivitySettings{}, []float64{0}, ts, along)
	free := tangents(t, s, adjoint.SensitivitySettings{NoErrorControl: true}, []float64{0}, ts, along)
	if e := math.Abs(controlled.S[0][1] - want); !(e < 1e-6) {
		t.Errorf("S is off by %g with error control", e)
	}
	if e := math.Abs(free.S[0][1] - want); e < 1e-3 || free.Stats[0].Accepted >= controlled.Stats[0].Accepted {
		t.Errorf("S is off by %g in %d steps without error control, which makes %d: the setting does nothing", e, free.Stats[0].Accepted, controlled.Stats[0].Accepted)
	}
}

func pushed[T field.Number](t T, z, th, dz []T) { dz[0] = th[0] * field.Cos(20*t) }

// A sample has the same derivatives to the last bit alone and in any company, with
// times of its own too, and beside one that fails.
func TestSensitivity_PerSample(t *testing.T) {
	f := field.New(1, []float64{1}, explode[float64], explode[field.Dual])
	s := newSolver(t, f, solver.Settings{Stepping: solver.PerSample, MaxAttempts: 200})
	v := newSensitivity(t, s, adjoint.SensitivitySettings{})
	samples := []solver.Sample{{Times: []float64{0, 0.3, 1}}, {Times: []float64{0, 0.2, 1}}, {Times: []float64{2, 1, 0.5}, RTol: 1e-9, ATol: 1e-9}, {Times: []float64{3, 3}}}
	z0, dz0 := []float64{0.5, 2, 0.7, 0.1}, []float64{1, 1, 2, 3}
	all, err := v.SolveEach(ctx, z0, samples, []adjoint.Tangent[float64]{{Z0: dz0}, {Theta: []float64{1}}})
	if !errors.Is(err, solver.TooManyAttempts) || all.Status[1] != solver.TooManyAttempts {
		t.Fatalf("the second sample comes to where f is too fast to follow, and the error is %v", err)
	}
	for b := range samples {
		one, err := v.SolveEach(ctx, z0[b:b+1], samples[b:b+1], []adjoint.Tangent[float64]{{Z0: dz0[b : b+1]}, {Theta: []float64{1}}})
		if (err != nil) != (b == 1) {
			t.Fatal(err)
		}
		for i, tm := range samples[b].Times {
			for m := range all.S {
				x, y := all.S[m][all.Row(i, b)], one.S[m][one.Row(i, 0)]
				if math.Float64bits(x) != math.Float64bits(y) || (x != x) != (b == 1 && i == 2) {
					t.Errorf("sample %d, direction %d at %g: %v in the batch and %v alone", b, m, tm, x, y)
				}
			}
		}
	}
	// z' = θz²: z = z0/(1-θ·z0·t), ∂z/∂z0 = 1/(1-θ·z0·t)², ∂z/∂θ = z0²t/(1-θ·z0·t)².
	q := 1 / (0.5 * 0.5)
	closeTo(t, "∂z/∂z0", all.S[0][all.Row(2, 0):][:1], []float64{q}, 1e-5)
	closeTo(t, "∂z/∂θ", all.S[1][all.Row(2, 0):][:1], []float64{0.25 * q}, 1e-5)
	if got := all.S[0][all.Row(0, 3):][:2]; !slices.Equal(got, []float64{3, 3}) {
		t.Errorf("over a span of length zero ∂z/∂z0·v is %v, want v itself", got)
	}
}

// What is asked for wrongly is refused with the remedy, and what overflows is reported.
func TestSensitivity_Errors(t *testing.T) {
	p := problems.LotkaVolterra()
	s := newSolver(t, problems.System[float64](p), solver.Settings{})
	v := newSensitivity(t, s, adjoint.SensitivitySettings{})
	ts := []float64{0, 1}
	for _, c := range []struct {
		along []adjoint.Tangent[float64]
		want  string
	}{
		{nil, "at least one"},
		{[]adjoint.Tangent[float64]{{Z0: []float64{1}}}, "directions[0].Z0 has 1"},
		{[]adjoint.Tangent[float64]{{}, {Theta: []float64{1}}}, "directions[1].Theta has 1"},
		{[]adjoint.Tangent[float64]{{Z0: []float64{1, math.Inf(1)}}}, "directions[0].Z0[1] is +Inf"},
	} {
		_, err := v.Solve(ctx, p.Z0, ts, c.along)
		wants(t, err, c.want)
	}
	_, err := v.Solve(nil, p.Z0, ts, adjoint.ParamTangents[float64](4)) //lint:ignore SA1012 that is the test
	wants(t, err, "nil context")
	_, err = v.Solve(ctx, p.Z0[:1], ts, adjoint.ParamTangents[float64](4))
	wants(t, err, "not a multiple")
	_, err = adjoint.NewSensitivity[float64](nil, adjoint.SensitivitySettings{})
	wants(t, err, "needs a solver")

	tan := tangents(t, s, adjoint.SensitivitySettings{}, p.Z0, ts, adjoint.ParamTangents[float64](4))
	_, err = tan.Derivatives([]float64{1})
	wants(t, err, "lay the cotangents out")

	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := v.Solve(c, p.Z0, ts, adjoint.ParamTangents[float64](4)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled solve: %v", err)
	}

	// Without error control nothing looks at S on the way.
	grow := field.New(1, []float32{1}, exponential[float32], exponential[field.Dual])
	big := newSensitivity(t, newSolver(t, grow, solver.Settings{}), adjoint.SensitivitySettings{NoErrorControl: true})
	res, err := big.Solve(ctx, []float32{1e-30}, []float64{0, 5}, []adjoint.Tangent[float32]{{Z0: []float32{1e38}}})
	wants(t, err, "direction 0 of sample 0, component 0 at t = 5 is ")
	if res == nil || len(res.S) != 1 {
		t.Error("what was computed is thrown away")
	}

	bare := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = z[0] }}
	none := newSensitivity(t, newSolver(t, bare, solver.Settings{}), adjoint.SensitivitySettings{})
	_, err = none.Solve(ctx, []float64{1}, ts, adjoint.StateTangents[float64](1, 1))
	if !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("a field without JVP: %v", err)
	}
	wants(t, err, "field.JVPer")
}

func exponential[T field.Number](_ T, z, th, dz []T) { dz[0] = th[0] * z[0] }

// Memory serves solves of one shape, and comes back.
func TestSensitivity_Memory(t *testing.T) {
	dev := cpu.New[float32]()
	s, err := solver.New(dev, problems.System[float32](problems.LotkaVolterra()), solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	before := dev.MemoryUsed()
	v, err := adjoint.NewSensitivity(s, adjoint.SensitivitySettings{})
	if err != nil {
		t.Fatal(err)
	}
	held := int64(0)
	for i := range 6 {
		along := adjoint.ParamTangents[float32](4)
		if i%2 == 1 {
			along = adjoint.StateTangents[float32](1, 2)
		}
		if _, err := v.Solve(ctx, []float32{1, 1}, []float64{0, 1, 5}, along); err != nil {
			t.Fatal(err)
		}
		switch used := dev.MemoryUsed(); {
		case i == 0:
			held = used
		case i%2 == 0 && used != held:
			t.Errorf("solve %d holds %d bytes, the first one %d", i, used, held)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if after := dev.MemoryUsed(); after != before {
		t.Errorf("%d bytes held before, %d after", before, after)
	}
}

// How the solution of dz/dt = -θ·z, z(0) = 1, changes with θ: ∂z/∂θ = -t·exp(-θt).
func ExampleSensitivity() {
	dev := cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(1, []float64{0.5}, decay[float64], decay[field.Dual]), solver.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	v, err := adjoint.NewSensitivity(s, adjoint.SensitivitySettings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	tan, err := v.Solve(context.Background(), []float64{1}, []float64{0, 1, 2}, adjoint.ParamTangents[float64](1))
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, t := range tan.Times {
		fmt.Printf("t = %g: z = %.4f, ∂z/∂θ = %.4f\n", t, tan.Y[i], tan.S[0][i])
	}
	// Output:
	// t = 0: z = 1.0000, ∂z/∂θ = 0.0000
	// t = 1: z = 0.6065, ∂z/∂θ = -0.6065
	// t = 2: z = 0.3679, ∂z/∂θ = -0.7358
}
