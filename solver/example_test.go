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

// A ball that bounces: an event with a reset, and one that is only noted. The ball's
// state is its height and its velocity.
func ExampleEvent() {
	dev := cpu.New[float64]()
	defer dev.Close()
	ball := &field.Custom[float64]{N: 2, F: func(_ float64, z, _, dz []float64) { dz[0], dz[1] = z[1], -8 }}
	bounce := solver.Event[float64]{
		Name:      "bounce",
		G:         func(_ float64, z, _ []float64) float64 { return z[0] },
		Direction: solver.Falling,
		Theta:     []float64{0.5}, // what is left of the speed
		Reset:     func(_ float64, z, theta, out []float64) { out[1] = -theta[0] * z[1] },
	}
	top := solver.Event[float64]{
		Name:      "top",
		G:         func(_ float64, z, _ []float64) float64 { return z[1] },
		Direction: solver.Falling,
	}
	s, err := solver.New(dev, ball, solver.Settings{Stepping: solver.PerSample}, bounce, top)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{10, 0}, []float64{0, 4})
	if err != nil {
		panic(err)
	}
	for _, o := range sol.Events[0] {
		if o.Event == 0 {
			fmt.Printf("t = %.6f: bounce, velocity from %.3f to %.3f\n", o.T, o.Before[1], o.After[1])
		} else {
			fmt.Printf("t = %.6f: top, height %.3f\n", o.T, o.Before[0])
		}
	}
	fmt.Printf("t = 4: height %.3f\n", sol.Final()[0])
	// Output:
	// t = 1.581139: bounce, velocity from -12.649 to 6.325
	// t = 2.371708: top, height 2.500
	// t = 3.162278: bounce, velocity from -6.325 to 3.162
	// t = 3.557562: top, height 0.625
	// t = 3.952847: bounce, velocity from -3.162 to 1.581
	// t = 4: height 0.066
}

// Each sample over times of its own, forwards or backwards, with tolerances of its own.
func ExampleSolver_SolveEach() {
	dev := cpu.New[float64]()
	defer dev.Close()
	decay := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }}
	s, err := solver.New(dev, decay, solver.Settings{Stepping: solver.PerSample})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.SolveEach(context.Background(), []float64{1, 1}, []solver.Sample{
		{Times: []float64{0, 0.5, 1, 2}},
		{Times: []float64{3, 1}, RTol: 1e-9, ATol: 1e-9},
	})
	if err != nil {
		panic(err)
	}
	for b := range sol.Batch {
		for i, t := range sol.SampleTimes(b) {
			fmt.Printf("sample %d: z(%.1f) = %.5f\n", b, t, sol.Sample(i, b)[0])
		}
	}
	// Output:
	// sample 0: z(0.0) = 1.00000
	// sample 0: z(0.5) = 0.60653
	// sample 0: z(1.0) = 0.36788
	// sample 0: z(2.0) = 0.13534
	// sample 1: z(3.0) = 1.00000
	// sample 1: z(1.0) = 7.38906
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

// The fastest device that answers, and which one that was.
func ExampleAuto() {
	dev := solver.Auto[float64]()
	defer dev.Close()
	// Right-hand sides written in Go are solved on the CPU, whatever else there is.
	predators := field.New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual])
	s, err := solver.New(dev, predators, solver.Settings{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1, 1}, []float64{0, 1})
	if err != nil {
		panic(err)
	}
	for _, remark := range sol.Warnings { // why it was not the GPU that the program was built for
		fmt.Println(remark)
	}
	fmt.Println("computed on the", sol.Backend)
	// Output:
	// computed on the cpu
}

func ExampleParseMethod() {
	m, err := solver.ParseMethod("vern7")
	fmt.Println(m, m.Adaptive(), m.Tableau().Order, err)
	// Output:
	// vern7 true 7 <nil>
}

// An event from generic functions, so that gradients can go through it: z falls below θ.
func ExampleNewEvent() {
	level := solver.NewEvent([]float64{0.25}, below[float64], below[field.Dual], nil, nil)
	level.Name, level.Terminal = "level", true
	dev := cpu.New[float64]()
	defer dev.Close()
	decay := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }}
	s, err := solver.New(dev, decay, solver.Settings{Stepping: solver.PerSample}, level)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float64{1}, []float64{0, 10})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%v at t = %.4f, exactly %.4f\n", sol.Status[0], sol.Events[0][0].T, math.Log(4))
	// Output:
	// stopped by an event at t = 1.3863, exactly 1.3863
}

func below[T field.Number](_ T, z, theta []T) T { return z[0] - theta[0] }
