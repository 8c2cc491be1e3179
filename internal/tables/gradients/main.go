// Command gradients prints what each way to a gradient costs and how far off it is,
// on the same problems with the same forward solve.
//
//	go run ./internal/tables/gradients
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	err := run(w, 31)
	if err := errors.Join(err, w.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "gradients:", err)
		os.Exit(1)
	}
}

// task is a gradient to compute.
type task struct {
	name      string
	sys       backend.System[float64]
	z0        []float64
	ts        []float64
	cotangent func(sol *solver.Solution[float64]) []float64
	want      []float64 // dL/dz0 and dL/dθ
}

// way is one way to compute it.
type way struct {
	name  string
	set   adjoint.Settings
	steps int // of fixed size, if not 0
}

var ways = []way{
	{"discrete, stages kept", adjoint.Settings{Method: adjoint.Discrete}, 0},
	{"discrete, states kept", adjoint.Settings{Method: adjoint.Discrete, Store: adjoint.States}, 0},
	{"discrete, 4 KiB", adjoint.Settings{Method: adjoint.Discrete, Budget: 4096}, 0},
	{"discrete, step sizes too", adjoint.Settings{Method: adjoint.Discrete, StepSizes: true}, 0},
	{"continuous", adjoint.Settings{Method: adjoint.Continuous}, 0},
	{"continuous, full norm", adjoint.Settings{Method: adjoint.Continuous, FullNorm: true}, 0},
	{"interpolating", adjoint.Settings{Method: adjoint.Interpolating}, 0},
	{"reversible, 1000 steps", adjoint.Settings{Method: adjoint.Reversible}, 1000},
}

// run prints the table, with medians of so many runs.
func run(w io.Writer, runs int) error {
	tasks, err := all()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "tsit5 in float64 at its default tolerances, RTol 1e-6 and ATol 1e-8. Error is the largest of a")
	fmt.Fprintln(w, "component of dL/dz0 and dL/dθ over the largest component of the reference. Evaluations are of f")
	fmt.Fprintln(w, "forwards, and of f or its products backwards. Bytes are those kept of the forward solve's steps;")
	fmt.Fprintln(w, "times are medians of solve and gradient together. Reversible has fixed steps, tsit5's too.")
	for _, t := range tasks {
		fmt.Fprintf(w, "\n%s\n%-24s%10s%10s%11s%10s%10s\n", t.name, "method", "error", "forward", "backward", "bytes", "ms")
		for _, by := range ways {
			if err := t.row(w, by, runs); err != nil {
				return fmt.Errorf("%s, %s: %w", t.name, by.name, err)
			}
		}
		if len(t.want) <= 8 {
			if err := t.forward(w, runs); err != nil {
				return fmt.Errorf("%s, forward: %w", t.name, err)
			}
		}
	}
	return nil
}

// forward is the row of forward sensitivities along all of z0 and θ.
func (t *task) forward(w io.Writer, runs int) error {
	dev := cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New[float64](dev, t.sys, solver.Settings{})
	if err != nil {
		return err
	}
	defer s.Close()
	v, err := adjoint.NewSensitivity(s, adjoint.SensitivitySettings{})
	if err != nil {
		return err
	}
	defer v.Close()
	along := slices.Concat(adjoint.StateTangents[float64](1, s.Dim()), adjoint.ParamTangents[float64](s.NumParams()))
	var times []time.Duration
	var got []float64
	var sol *adjoint.TangentSolution[float64]
	for range runs {
		begin := time.Now()
		if sol, err = v.Solve(context.Background(), t.z0, t.ts, along); err != nil {
			return err
		}
		if got, err = sol.Derivatives(t.cotangent(sol.Solution)); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	t.print(w, "forward sensitivities", got, sol.Evaluations(), 0, 0, times[len(times)/2])
	return nil
}

// print is a row.
func (t *task) print(w io.Writer, name string, got []float64, forward, backward, bytes int64, median time.Duration) {
	worst, largest := 0.0, 0.0
	for i, v := range got {
		worst = max(worst, math.Abs(v-t.want[i]))
		largest = max(largest, math.Abs(t.want[i]))
	}
	fmt.Fprintf(w, "%-24s%10.1e%10d%11d%10d%10.3f\n", name, worst/largest, forward, backward, bytes, float64(median.Microseconds())/1e3)
}

// all are the problems with reference gradients, and a Neural ODE.
func all() (tasks []task, err error) {
	for _, p := range []*problems.Problem{problems.LotkaVolterra(), problems.ForcedLotkaVolterra(), problems.CubicSpiral()} {
		loss := p.Losses[0]
		tasks = append(tasks, task{
			name: p.Name, sys: problems.System[float64](p), z0: p.Z0, ts: loss.Times,
			cotangent: func(sol *solver.Solution[float64]) []float64 { return problems.Cotangents(&loss, sol.Y) },
			want:      slices.Concat(loss.DZ0, loss.DTheta),
		})
	}
	spec := mlp.Dense(mlp.Tanh, 2, 50, 2)
	spec.Input = mlp.InputCube
	model, err := mlp.New[float64](spec, mlp.Init{}, 3)
	if err != nil {
		return nil, err
	}
	net := task{
		name: "2-50-2 Neural ODE of z³, a batch of 20, 10 output times", sys: model,
		cotangent: func(sol *solver.Solution[float64]) []float64 {
			a := slices.Clone(sol.Y)
			for i := range a {
				a[i] = 2 * sol.Y[i] / float64(len(a)) // mean of squares
			}
			return a
		},
	}
	for i := range 20 {
		phi := 2 * math.Pi * float64(i) / 20
		net.z0 = append(net.z0, 1.2*math.Cos(phi), 1.2*math.Sin(phi))
	}
	for i := range 10 {
		net.ts = append(net.ts, float64(i)/9)
	}
	// Its reference is the discrete gradient at tolerances that leave 12 digits.
	g, _, err := net.gradient(adjoint.Settings{Method: adjoint.Discrete, NoTimes: true}, solver.Settings{Method: solver.Dopri8, RTol: 1e-13, ATol: 1e-14}, 1)
	if err != nil {
		return nil, err
	}
	net.want = slices.Concat(g.g.Z0, g.g.Theta)
	return append(tasks, net), nil
}

type result struct {
	g       *adjoint.Gradient[float64]
	forward int64
}

// gradient computes the gradient n times, or for a second, and returns the median time.
func (t *task) gradient(set adjoint.Settings, own solver.Settings, n int) (r result, median time.Duration, err error) {
	dev := cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New[float64](dev, t.sys, own)
	if err != nil {
		return r, 0, err
	}
	defer s.Close()
	set.NoTimes = true
	a, err := adjoint.New(s, set)
	if err != nil {
		return r, 0, err
	}
	defer a.Close()
	ctx := context.Background()
	var times []time.Duration
	for start := time.Now(); len(times) < n && (len(times) == 0 || time.Since(start) < time.Second); {
		begin := time.Now()
		sol, err := a.Solve(ctx, t.z0, t.ts)
		if err != nil {
			return r, 0, err
		}
		if r.g, err = a.Gradients(ctx, sol, t.cotangent(sol)); err != nil {
			return r, 0, err
		}
		times = append(times, time.Since(begin))
		r.forward = sol.Evaluations()
	}
	slices.Sort(times)
	return r, times[len(times)/2], nil
}

func (t *task) row(w io.Writer, by way, runs int) error {
	var own solver.Settings
	if by.steps > 0 {
		own.Step = (t.ts[len(t.ts)-1] - t.ts[0]) / float64(by.steps)
	}
	r, median, err := t.gradient(by.set, own, runs)
	if err != nil {
		return err
	}
	t.print(w, by.name, slices.Concat(r.g.Z0, r.g.Theta), r.forward, r.g.Stats[0].Evaluations, r.g.Memory+r.g.HostMemory, median)
	return nil
}
