package field_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// lotkaVolterra has prey z[0] and predators z[1].
func lotkaVolterra[T field.Number](t T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

// A model is written once; its derivatives come with it.
func ExampleNew() {
	f := field.New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual])

	az, atheta := make([]float64, 2), make([]float64, 4)
	f.VJP(0, []float64{2, 0.5}, f.Params(), []float64{1, 0}, az, atheta)
	fmt.Println("∂f[0]/∂z =", az)
	fmt.Println("∂f[0]/∂θ =", atheta)

	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-10, ATol: 1e-10})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1, 1}, []float64{0, 10})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("z(10) = %.6f\n", sol.Final())
	// Output:
	// ∂f[0]/∂z = [1 -2]
	// ∂f[0]/∂θ = [2 -1 0 0]
	// z(10) = [1.026345 0.909691]
}

// pendulum has a forcing whose frequency is known when the program runs.
func pendulum[T field.Number](frequency float64) func(t T, z, theta, dz []T) {
	w := field.Const[T](frequency)
	return func(t T, z, theta, dz []T) {
		dz[0] = z[1]
		dz[1] = theta[0]*field.Cos(w*t) - field.Sin(z[0])
	}
}

func ExampleConst() {
	f := field.New(2, []float64{0.5}, pendulum[float64](2), pendulum[field.Dual](2))
	dz := make([]float64, 2)
	f.Eval(0, []float64{math.Pi / 2, 3}, f.Params(), dz)
	fmt.Println(dz)
	// Output: [3 -0.5]
}

// A right-hand side with products derived by hand: dz/dt = -θz.
func ExampleCustom() {
	f := &field.Custom[float64]{
		N:     1,
		Theta: []float64{2},
		F:     func(t float64, z, theta, dz []float64) { dz[0] = -theta[0] * z[0] },
		BackF: func(t float64, z, theta, a, az, atheta []float64) (at float64) {
			az[0] = -theta[0] * a[0]
			if atheta != nil {
				atheta[0] -= z[0] * a[0] // added, not set
			}
			return 0
		},
		ForwardF: func(t float64, z, theta, v, w, jv []float64) {
			jv[0] = -theta[0]*v[0] - z[0]*w[0]
		},
	}
	report, err := field.Check(f, field.CheckSettings[float64]{})
	fmt.Println(report.VJP.Entries, report.JVP.Entries, report.VJP.Wrong, report.JVP.Wrong, err)
	// Output: 15 10 0 0 <nil>
}

// growth is what is known of prey and predators: how each lives without the other.
func growth[T field.Number](t T, z, theta, dz []T) {
	dz[0] = theta[0] * z[0]
	dz[1] = -theta[1] * z[1]
}

// A universal differential equation: known physics, and a network for the rest.
func ExamplePlus() {
	known := field.New(2, []float64{1.5, 3}, growth[float64], growth[field.Dual])
	unknown, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{ZeroLast: true}, 1)
	if err != nil {
		log.Fatal(err)
	}
	f, err := field.Plus[float64](known, unknown)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.NumParams(), "parameters, of which", known.NumParams(), "are physics")

	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, f, solver.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1, 1}, []float64{0, 1})
	if err != nil {
		log.Fatal(err)
	}
	// The untrained network is 0: growth alone, e^1.5 and e^-3.
	fmt.Printf("%.3f\n", sol.Final())
	// Output:
	// 84 parameters, of which 2 are physics
	// [4.482 0.050]
}

// A term was forgotten in a derivative by hand.
func ExampleCheck() {
	f := &field.Custom[float64]{
		N:     2,
		Theta: []float64{1.5, 1, 3, 1},
		F:     lotkaVolterra[float64],
	}
	f.BackF = func(t float64, z, theta, a, az, atheta []float64) (at float64) {
		az[0] = a[0]*(theta[0]-theta[1]*z[1]) + a[1]*theta[3]*z[1]
		az[1] = -a[0]*theta[1]*z[0] - a[1]*theta[2] // + a[1]*theta[3]*z[0]
		if atheta != nil {
			atheta[0] += a[0] * z[0]
			atheta[1] -= a[0] * z[0] * z[1]
			atheta[2] -= a[1] * z[1]
			atheta[3] += a[1] * z[0] * z[1]
		}
		return 0
	}
	report, err := field.Check(f, field.CheckSettings[float64]{
		Points: []field.Point[float64]{{T: 0, Z: []float64{2, 0.5}}},
	})
	if err != nil {
		e := report.VJP.Worst
		fmt.Printf("%d of %d derivatives are wrong\n", report.VJP.Wrong, report.VJP.Entries)
		fmt.Printf("∂f[%d]/∂%v[%d] is %.6g, by differences %.6g\n", e.I, e.Of, e.J, e.Product, e.Difference)
	}
	// Output:
	// 1 of 14 derivatives are wrong
	// ∂f[1]/∂z[1] is -3, by differences -1
}

// drag is a table of the drag of a ball over its speed, interpolated by a parabola; the
// package does not know it, and is told its slope.
func drag[T field.Number](v T) T {
	x := field.Value(v)
	return field.Chain(v, 0.1*x+0.02*x*x, 0.1+0.04*x)
}

func fall[T field.Number](_ T, z, _, dz []T) {
	dz[0] = 10 - drag(z[0])
}

func ExampleChain() {
	f := field.New(1, nil, fall[float64], fall[field.Dual])
	dz, az := make([]float64, 1), make([]float64, 1)
	f.Eval(0, []float64{5}, nil, dz)
	f.VJP(0, []float64{5}, nil, []float64{1}, az, nil)
	fmt.Printf("f = %.2f, ∂f/∂z = %.2f\n", dz, az)
	// Output:
	// f = [9.00], ∂f/∂z = [-0.30]
}

// A network as a flow: its state has a component for the logarithm of the density.
func ExampleNewFlow() {
	// dz/dt = [z₀ + z₁, 2·z₁] as a network of one layer: the trace is 3.
	linear := &mlp.Model[float64]{Spec: mlp.Dense(mlp.Identity, 2, 2), Theta: []float64{1, 1, 0, 2, 0, 0}}
	f, err := field.NewFlow[float64](linear, field.FlowSettings{})
	if err != nil {
		log.Fatal(err)
	}
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, f, solver.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1, 1, 0}, []float64{0, 0.5})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("∫ tr(∂f/∂z) dt = %.4f\n", sol.Final()[2])
	// Output:
	// ∫ tr(∂f/∂z) dt = 1.5000
}
