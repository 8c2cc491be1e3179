package flow_test

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/flow"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

var ctx = context.Background()

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func newFlow[T backend.Float](t *testing.T, f backend.System[T], set flow.Settings) *flow.Flow[T] {
	t.Helper()
	dev := cpu.New[T]()
	m, err := flow.New(dev, f, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if n := dev.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
		dev.Close()
	})
	return m
}

// network is an MLP that bends the plane a good deal: its weights are enlarged.
func network[T backend.Float](dim int, seed uint64) *mlp.Model[T] {
	spec := mlp.Dense(mlp.Tanh, dim, 16, dim)
	spec.Time = mlp.TimeEveryLayer
	m := must(mlp.New[T](spec, mlp.Init{}, seed))
	for i := range m.Theta {
		m.Theta[i] *= 2
	}
	return m
}

func normal[T backend.Float](n int, seed uint64) []T {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]T, n)
	for i := range x {
		x[i] = T(r.NormFloat64())
	}
	return x
}

// A rotation with growth, f = [[a, -w], [w, a]]·z, takes x to e^{aT}·R(wT)·x and has
// trace 2a: log p(x) = log N(e^{aT}·|x|) + 2aT.
func TestLogDensity_OfALinearFlow(t *testing.T) {
	const a, w, T = 0.3, 1.7, 2.0
	m := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1))
	copy(m.Theta, []float64{a, -w, w, a, 0, 0})
	x := normal[float64](20, 2)
	for _, trace := range []field.Trace{field.ExactTrace, field.Rademacher} { // ±1 are exact too: εᵀAε = tr(A) here
		set := flow.Settings{Trace: trace, Time: T, Solver: solver.Settings{RTol: 1e-10, ATol: 1e-12}}
		z, logp, err := newFlow(t, m, set).ToBase(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range logp {
			c, s, g := math.Cos(w*T), math.Sin(w*T), math.Exp(a*T)
			x0, x1 := x[2*i], x[2*i+1]
			z0, z1 := g*(c*x0-s*x1), g*(s*x0+c*x1)
			want := -math.Log(2*math.Pi) - (z0*z0+z1*z1)/2 + 2*a*T
			if math.Abs(got-want) > 1e-8 || math.Abs(z[2*i]-z0) > 1e-8 || math.Abs(z[2*i+1]-z1) > 1e-8 {
				t.Errorf("%v: point %d goes to (%g, %g) with log p %g, want (%g, %g), %g", trace, i, z[2*i], z[2*i+1], got, z0, z1, want)
			}
		}
	}
}

// Against log |det dz(T)/dx| by forward sensitivities.
func TestLogDensity_MatchesTheDeterminant(t *testing.T) {
	const n, d = 9, 3
	net, x := network[float64](d, 3), normal[float64](n*d, 4)
	set := solver.Settings{RTol: 1e-10, ATol: 1e-12}
	z, logp, err := newFlow(t, net, flow.Settings{Solver: set}).ToBase(ctx, x)
	if err != nil {
		t.Fatal(err)
	}
	s := must(solver.New(cpu.New[float64](), net, set))
	tan := must(must(adjoint.NewSensitivity(s, adjoint.SensitivitySettings{})).
		Solve(ctx, x, []float64{0, 1}, adjoint.StateTangents[float64](n, d)))
	for b := range n {
		jac := mat.NewDense(d, d, nil)
		want := -d / 2.0 * math.Log(2*math.Pi)
		for i := range d {
			row := (n + b) * d
			for j := range d {
				jac.Set(i, j, tan.S[j][row+i])
			}
			want -= z[b*d+i] * z[b*d+i] / 2
		}
		det, _ := mat.LogDet(jac)
		if want += det; math.Abs(logp[b]-want) > 1e-8 {
			t.Errorf("sample %d: log p is %.12g, by the determinant %.12g", b, logp[b], want)
		}
	}
}

// The density sums to 1 over a grid that holds nearly all of it.
func TestLogDensity_SumsToOne(t *testing.T) {
	const n, r = 161, 8.0
	var grid []float32
	for i := range n * n {
		grid = append(grid, float32(-r+2*r*float64(i%n)/(n-1)), float32(-r+2*r*float64(i/n)/(n-1)))
	}
	m := newFlow(t, network[float32](2, 6), flow.Settings{})
	logp, err := m.LogDensity(ctx, grid)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, v := range logp {
		sum += math.Exp(v)
	}
	if sum *= 4 * r * r / (n - 1) / (n - 1); math.Abs(sum-1) > 1e-3 {
		t.Errorf("the density's sum over the grid is %g", sum)
	}
}

// One point many times has as many estimates of the trace; their mean is right.
func TestLogDensity_HutchinsonIsUnbiased(t *testing.T) {
	const n, d = 4000, 3
	net, point := network[float64](d, 3), normal[float64](d, 4)
	exact, err := newFlow(t, net, flow.Settings{}).LogDensity(ctx, point)
	if err != nil {
		t.Fatal(err)
	}
	var x []float64
	for range n {
		x = append(x, point...)
	}
	for _, trace := range []field.Trace{field.Rademacher, field.Gaussian} {
		m := newFlow(t, net, flow.Settings{Trace: trace, Seed: 8})
		logp, err := m.LogDensity(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		mean, square := 0.0, 0.0
		for _, v := range logp {
			mean += (v - exact[0]) / n
			square += (v - exact[0]) * (v - exact[0]) / n
		}
		spread := math.Sqrt(square)
		if spread < 1e-3 || math.Abs(mean) > 4*spread/math.Sqrt(n) {
			t.Errorf("%v: estimates differ from %g by %g on average, with a spread of %g", trace, exact[0], mean, spread)
		}
	}
}

func TestSample_RoundTrip(t *testing.T) {
	m := newFlow(t, network[float64](2, 6), flow.Settings{Time: 1.5})
	x, err := m.Sample(ctx, 50, 7)
	if err != nil {
		t.Fatal(err)
	}
	z, _, err := m.ToBase(ctx, x)
	if err != nil {
		t.Fatal(err)
	}
	back, err := m.FromBase(ctx, z)
	if err != nil {
		t.Fatal(err)
	}
	again := must(m.Sample(ctx, 50, 7))
	for i := range x {
		if math.Abs(back[i]-x[i]) > 1e-5 {
			t.Errorf("component %d: %g went to the base and came back as %g", i, x[i], back[i])
		}
		if again[i] != x[i] {
			t.Errorf("component %d is %g, and %g from the same seed", i, x[i], again[i])
		}
	}
	mean := 0.0
	for _, v := range z {
		mean += v / float64(len(z))
	}
	if math.Abs(mean) > 4/math.Sqrt(float64(len(z))) {
		t.Errorf("the samples come from base points of mean %g", mean)
	}
}

func TestFlow_Errors(t *testing.T) {
	m := newFlow(t, network[float64](2, 6), flow.Settings{})
	for name, err := range map[string]error{
		"not a positive multiple": second(m.LogDensity(ctx, make([]float64, 3))),
		"point 1, component 0":    second(m.FromBase(ctx, []float64{0, 0, math.NaN(), 0})),
		"Sample of 0":             second(m.Sample(ctx, 0, 1)),
		"Settings.Time":           second(flow.New(cpu.New[float64](), network[float64](2, 1), flow.Settings{Time: -1})),
		"Settings.Kinetic":        second(flow.New(cpu.New[float64](), network[float64](2, 1), flow.Settings{Kinetic: math.NaN()})),
		"FlowSettings.Trace":      second(flow.New(cpu.New[float64](), network[float64](2, 1), flow.Settings{Trace: 9})),
		"needs a right-hand side": second(flow.New[float64](cpu.New[float64](), nil, flow.Settings{})),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error about %q, got %v", name, err)
		}
	}
}

func second[V any](_ V, err error) error { return err }

// A linear flow is fitted to normal data by L-BFGS; the best loss is their entropy
// under the normal distribution of their own mean and standard deviation.
func TestLikelihood_FitsANormal(t *testing.T) {
	x := normal[float64](200, 3)
	mean, square := 0.0, 0.0
	for i := range x {
		x[i] = 2 + 0.5*x[i]
		mean += x[i] / 200
		square += x[i] * x[i] / 200
	}
	want := 0.5 * math.Log(2*math.Pi*math.E*(square-mean*mean))
	net := must(mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1))
	m := newFlow(t, net, flow.Settings{})
	res, err := train.LBFGS(ctx, flow.NewLikelihood(m, x), net.Params(), train.LBFGSSettings[float64]{})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(res.BestLoss-want) > 1e-6 {
		t.Errorf("the loss is %.9g, want %.9g", res.BestLoss, want)
	}
}
