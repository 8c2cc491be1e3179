package solver_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// A neural ODE: dz/dt is a multilayer perceptron of z, for a batch of two samples.
func ExampleSolver_Solve() {
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 50, 2), mlp.Init{}, 1)
	if err != nil {
		panic(err)
	}
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, model, solver.Settings{})
	if err != nil {
		panic(err)
	}
	defer s.Close()

	z0 := []float64{2, 0, 0, 1} // [batch, dimension]
	sol, err := s.Solve(context.Background(), z0, []float64{0, 0.5, 1})
	if err != nil {
		panic(err)
	}
	for i, t := range sol.Times {
		fmt.Printf("t = %.1f: %.4f %.4f\n", t, sol.Sample(i, 0), sol.Sample(i, 1))
	}
	fmt.Println(sol.Method, "on the", sol.Backend)
	// Output:
	// t = 0.0: [2.0000 0.0000] [0.0000 1.0000]
	// t = 0.5: [1.7640 0.0381] [-0.1357 0.9235]
	// t = 1.0: [1.5271 0.0596] [-0.2616 0.8326]
	// tsit5 on the cpu
}

func lotkaVolterra[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

// Any time of the span, not only those asked for: Settings.Dense keeps the steps.
func ExampleSolution_At() {
	dev := cpu.New[float64]()
	defer dev.Close()
	predators := field.New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual])
	s, err := solver.New(dev, predators, solver.Settings{Method: solver.Dopri5, Dense: true})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1, 1}, []float64{0, 10})
	if err != nil {
		panic(err)
	}
	for _, t := range []float64{2.5, 5, 7.5} {
		z, err := sol.At(t)
		if err != nil {
			panic(err)
		}
		fmt.Printf("z(%.1f) = %.3f\n", t, z)
	}
	_, err = sol.At(11)
	fmt.Println(err)
	// Output:
	// z(2.5) = [2.178 4.369]
	// z(5.0) = [6.099 0.628]
	// z(7.5) = [2.347 0.275]
	// solver: At(11) is outside the span from 0 to 10, and a solution is not extrapolated; solve over a longer span
}

// Each sample with its own steps: the fast one does not make the slow one wait.
func ExampleStepping() {
	dev := cpu.New[float64]()
	defer dev.Close()
	// The second component is an angular frequency, constant in time.
	oscillator := &field.Custom[float64]{N: 2, F: func(t float64, z, _, dz []float64) {
		dz[0], dz[1] = z[1]*math.Cos(z[1]*t), 0
	}}
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		s, err := solver.New(dev, oscillator, solver.Settings{Stepping: stepping})
		if err != nil {
			panic(err)
		}
		sol, err := s.Solve(context.Background(), []float64{0, 1, 0, 50}, []float64{0, 3})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: %d and %d steps\n", stepping, sol.Stats[0].Accepted, sol.Stats[1].Accepted)
		s.Close()
	}
	// Output:
	// joint: 290 and 290 steps
	// per sample: 10 and 320 steps
}

// Where a solve fails, and what to do about it. What was computed is there.
func ExampleError() {
	dev := cpu.New[float64]()
	defer dev.Close()
	square := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = z[0] * z[0] }}
	s, err := solver.New(dev, square, solver.Settings{Stepping: solver.PerSample})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	// dz/dt = z² from z0 goes to infinity at t = 1/z0.
	sol, err := s.Solve(context.Background(), []float64{0.1, 0.5, 0.2}, []float64{0, 1, 3})
	var failed *solver.Error
	if errors.As(err, &failed) {
		for _, f := range failed.Failures {
			fmt.Printf("%v: sample %d at t = %.3f\n", f.Status, f.Sample, f.T)
		}
	}
	_, remedy, _ := strings.Cut(err.Error(), "smallest step: ")
	fmt.Println("..." + remedy)
	fmt.Println(sol.Status)
	fmt.Printf("%.4f\n", sol.Final())
	// Output:
	// step size too small: sample 1 at t = 2.000
	// ...the solution may be singular there; end the span earlier, loosen RTol and ATol, or put discontinuities of f into Settings.Breakpoints
	// [done step size too small done]
	// [0.1429 NaN 0.5000]
}
