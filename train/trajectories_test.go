package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func newSolver[T backend.Float](t *testing.T, sys backend.System[T], set solver.Settings) *solver.Solver[T] {
	t.Helper()
	dev := cpu.New[T]()
	s, err := solver.New(dev, sys, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		dev.Close()
	})
	return s
}

func newTrajectories[T backend.Float](t *testing.T, s *solver.Solver[T], d Data[T], set TrajectorySettings) *Trajectories[T] {
	t.Helper()
	obj, err := NewTrajectories(s, d, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { obj.Close() })
	return obj
}

func network[T backend.Float](t *testing.T, act mlp.Activation) *mlp.Model[T] {
	t.Helper()
	m, err := mlp.New[T](mlp.Dense(act, 2, 6, 2), mlp.Init{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// spirals are four samples at five times with some values missing.
func spirals[T backend.Float]() Data[T] {
	d := Data[T]{Times: []float64{0, 0.3, 0.7, 1.2, 2}}
	for b := range 4 {
		d.Z0 = append(d.Z0, T(1+0.3*float64(b)), T(-0.2*float64(b)))
	}
	for i, t := range d.Times {
		for b := range 4 {
			r, a := math.Exp(-0.2*t)*(1+0.3*float64(b)), 1.5*t-0.2*float64(b)
			d.Targets = append(d.Targets, T(r*math.Cos(a)), T(r*math.Sin(a)))
			if (i+b)%3 == 0 {
				d.Targets[len(d.Targets)-2] = T(math.NaN())
			}
		}
	}
	d.Weights = Observed(d.Targets)
	return d
}

var tight = solver.Settings{RTol: 1e-11, ATol: 1e-11}

func TestTrajectories_GradientMatchesFiniteDifference(t *testing.T) {
	labels := spirals[float64]()
	labels.Targets, labels.Weights = nil, nil
	for i := range 5 * 4 {
		labels.Labels = append(labels.Labels, int32(i%3-1))
	}
	for _, c := range []struct {
		name string
		data Data[float64]
		set  TrajectorySettings
	}{
		{"mse", spirals[float64](), TrajectorySettings{}},
		{"mae", spirals[float64](), TrajectorySettings{Loss: Loss{Kind: MAE, Reduction: Sum}, LearnZ0: true}},
		{"huber", spirals[float64](), TrajectorySettings{Loss: Loss{Kind: Huber, Delta: 0.3}, LearnZ0: true}},
		{"cross entropy", labels, TrajectorySettings{Loss: Loss{Kind: CrossEntropy}, LearnZ0: true}},
	} {
		s := newSolver(t, network[float64](t, mlp.Tanh), tight)
		obj := newTrajectories(t, s, c.data, c.set)
		theta, err := obj.Params()
		if err != nil {
			t.Fatal(err)
		}
		want := 6*2 + 6 + 2*6 + 2
		if c.set.LearnZ0 {
			want += 4 * 2
		}
		if len(theta) != want || obj.NumParams() != want || obj.NumSamples() != 4 {
			t.Fatalf("%s: %d parameters, %d samples", c.name, len(theta), obj.NumSamples())
		}
		for _, batch := range [][]int{{0, 1, 2, 3}, {3, 1}, {2}} {
			grad := slices.Repeat([]float64{9}, len(theta))
			loss, err := obj.Gradient(t.Context(), theta, batch, grad)
			if err != nil {
				t.Fatal(err)
			}
			if alone, err := obj.Loss(t.Context(), theta, batch); err != nil || alone != loss {
				t.Errorf("%s: Loss %v, %v, Gradient %v", c.name, alone, err, loss)
			}
			for i := range theta {
				// Central differences: truncation h²/6·L''' ≈ 1e-9, the solves' 1e-11/h = 1e-7.
				const h = 1e-4
				var l [2]float64
				for k := range l {
					x := slices.Clone(theta)
					x[i] += h * float64(2*k-1)
					if l[k], err = obj.Loss(t.Context(), x, batch); err != nil {
						t.Fatal(err)
					}
				}
				if fd := (l[1] - l[0]) / (2 * h); !near(grad[i], fd, 1e-6, 1e-6) {
					t.Errorf("%s, batch %v: gradient %d is %v, by differences %v", c.name, batch, i, grad[i], fd)
				}
			}
		}
	}
}

func TestTrajectories_Float32MatchesFloat64(t *testing.T) {
	high := newTrajectories(t, newSolver(t, network[float64](t, mlp.Softplus), tight), spirals[float64](), TrajectorySettings{})
	low := newTrajectories(t, newSolver(t, network[float32](t, mlp.Softplus), solver.Settings{RTol: 1e-6, ATol: 1e-6}), spirals[float32](), TrajectorySettings{})
	theta, _ := high.Params()
	theta32, _ := low.Params()
	grad, grad32 := make([]float64, len(theta)), make([]float32, len(theta))
	loss, err := high.Gradient(t.Context(), theta, count(4), grad)
	if err != nil {
		t.Fatal(err)
	}
	loss32, err := low.Gradient(t.Context(), theta32, count(4), grad32)
	if err != nil {
		t.Fatal(err)
	}
	// The low solves' tolerance, 1e-6 a step, over some ten steps, and f32's rounding.
	if !near(loss32, loss, 1e-4, 0) {
		t.Errorf("loss %v, want %v", loss32, loss)
	}
	for i, g := range grad {
		if !near(float64(grad32[i]), g, 1e-4, 1e-5) {
			t.Errorf("gradient %d is %v, want %v", i, grad32[i], g)
		}
	}
}

func lotkaVolterra[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

func newLotkaVolterra(theta []float64) *field.Generic[float64] {
	return field.New(2, theta, lotkaVolterra[float64], lotkaVolterra[field.Dual])
}

// Parameters and initial states are found again from the trajectories that they
// make, by both methods.
func TestTrajectories_RecoversLotkaVolterra(t *testing.T) {
	truth := []float64{1.5, 1, 3, 1}
	z0 := []float64{1, 1, 2, 0.5, 1.5, 1.2}
	d := Data[float64]{Z0: z0}
	for i := range 11 {
		d.Times = append(d.Times, 0.2*float64(i))
	}
	set := solver.Settings{RTol: 1e-9, ATol: 1e-9}
	sol, err := newSolver(t, newLotkaVolterra(truth), set).Solve(t.Context(), z0, d.Times)
	if err != nil {
		t.Fatal(err)
	}
	d.Targets = sol.Y
	d.Z0 = []float64{1.1, 0.9, 1.9, 0.6, 1.4, 1.3}
	obj := newTrajectories(t, newSolver(t, newLotkaVolterra([]float64{1.2, 0.8, 2.5, 1.2}), set), d, TrajectorySettings{LearnZ0: true})
	start, err := obj.Params()
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(truth), z0...)

	quasi, err := LBFGS(t.Context(), obj, start, LBFGSSettings[float64]{})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range quasi.Best {
		// A loss of 1e-15 is a residual of 3e-8; the problem's condition is a few tens.
		if !near(v, want[i], 1e-5, 1e-5) {
			t.Errorf("L-BFGS, %d iterations: %v, want %v", quasi.Steps, quasi.Best, want)
			break
		}
	}
	loose := newTrajectories(t, newSolver(t, newLotkaVolterra(truth), solver.Settings{RTol: 1e-4, ATol: 1e-4}), d, TrajectorySettings{LearnZ0: true})
	adam, err := Fit(t.Context(), loose, start, Settings[float64]{
		Optimizer: Optimizer{LR: 0.05}, Schedule: Schedule{Kind: Cosine}, Epochs: 400, BatchSize: 2, Seed: 1, ClipNorm: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range adam.Best {
		// A loss of 1e-4 is a residual of 1e-2, and so are the parameters' errors.
		if !near(v, want[i], 2e-2, 2e-2) {
			t.Errorf("Adam: %v, want %v, loss %g", adam.Best, want, adam.BestLoss)
			break
		}
	}
	if adam.BestLoss > 1e-4 {
		t.Errorf("Adam: loss %g", adam.BestLoss)
	}
	t.Logf("L-BFGS: loss %.2g after %d gradients; Adam: loss %.2g after %d", quasi.BestLoss, quasi.Evaluations, adam.BestLoss, adam.Evaluations)
}

// A network that is trained to move two classes apart sorts them.
func TestTrajectories_Classifies(t *testing.T) {
	d := Data[float64]{Times: []float64{0, 1}}
	for i := range 20 {
		a := float64(i) * 0.7
		r := 0.5 + float64(i%2)
		d.Z0 = append(d.Z0, r*math.Cos(a), r*math.Sin(a), 0) // two rings, and a third dimension
		d.Labels = append(d.Labels, -1)                      // nothing at t0
	}
	for i := range 20 {
		d.Labels = append(d.Labels, int32(i%2))
	}
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 16, 3), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := newSolver(t, m, solver.Settings{RTol: 1e-4, ATol: 1e-4})
	obj := newTrajectories(t, s, d, TrajectorySettings{Loss: Loss{Kind: CrossEntropy}})
	theta, _ := obj.Params()
	res, err := Fit(t.Context(), obj, theta, Settings[float64]{Optimizer: Optimizer{LR: 0.05}, Epochs: 80})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetParams(res.Best); err != nil {
		t.Fatal(err)
	}
	sol, err := s.Solve(t.Context(), d.Z0, d.Times)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		z := sol.Sample(1, i)
		if c := i % 2; z[c] <= z[1-c] || z[c] <= z[2] {
			t.Errorf("sample %d of class %d has logits %v; loss %g", i, c, z, res.BestLoss)
		}
	}
}

// A trajectory that blows up is named by its sample of the data, and L-BFGS steps
// around it.
func TestTrajectories_FailedSolve(t *testing.T) {
	grow := &field.Custom[float64]{
		N: 1, Theta: []float64{0},
		F: func(_ float64, z, theta, dz []float64) { dz[0] = theta[0] * z[0] * z[0] }, // z = z0/(1 - θ z0 t)
		BackF: func(_ float64, z, theta, a, az, atheta []float64) float64 {
			az[0] = a[0] * 2 * theta[0] * z[0]
			if atheta != nil {
				atheta[0] += a[0] * z[0] * z[0]
			}
			return 0
		},
	}
	const theta = 0.24 // it blows up at θ z0 = 1
	d := Data[float64]{Times: []float64{0, 1}, Z0: []float64{1, 2, 4, 3}}
	d.Targets = append(d.Targets, d.Z0...)
	for _, z := range d.Z0 {
		d.Targets = append(d.Targets, z/(1-theta*z))
	}
	s := newSolver(t, grow, solver.Settings{Stepping: solver.PerSample, MaxAttempts: 2000})
	obj := newTrajectories(t, s, d, TrajectorySettings{})
	_, err := obj.Loss(t.Context(), []float64{0.3}, []int{3, 2, 0})
	wantError(t, err, "trajectory of sample 2, which is sample 1 of this solve: solver: ")
	if failed := (*solver.Error)(nil); !errors.As(err, &failed) {
		t.Errorf("%v", err)
	}
	res, err := Fit(t.Context(), obj, []float64{0.1}, Settings[float64]{Optimizer: Optimizer{Kind: SGD, LR: 1}, ClipNorm: 0.2, Epochs: 5})
	wantError(t, err, "train: step 1 of epoch 1: trajectory of sample 2, which is sample 2 of this solve: solver: ")
	if res == nil || res.Stop != Failed || res.Theta[0] != 0.1 || res.BestStep != 0 {
		t.Errorf("%+v", res)
	}
	failures := 0
	counted := counting{Objective: obj, failures: &failures}
	res, err = LBFGS(t.Context(), counted, []float64{0.1}, LBFGSSettings[float64]{})
	if err != nil || failures == 0 || !near(res.Theta[0], theta, 1e-6, 0) {
		t.Errorf("%+v, %v, %d failures", res, err, failures)
	}
}

// counting counts failed gradients.
type counting struct {
	Objective[float64]
	failures *int
}

func (c counting) Gradient(ctx context.Context, theta []float64, batch []int, grad []float64) (float64, error) {
	loss, err := c.Objective.Gradient(ctx, theta, batch, grad)
	if err != nil {
		*c.failures++
	}
	return loss, err
}

func TestTrajectories_Subset(t *testing.T) {
	s := newSolver(t, network[float64](t, mlp.Tanh), tight)
	obj := newTrajectories(t, s, spirals[float64](), TrajectorySettings{})
	part, err := obj.Subset([]int{3, 1})
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	theta, _ := obj.Params()
	want, err := obj.Loss(t.Context(), theta, []int{3, 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := part.Loss(t.Context(), theta, []int{0, 1}); err != nil || got != want || part.NumSamples() != 2 {
		t.Errorf("loss %v, %v, want %v", got, err, want)
	}
	_, err = obj.Subset([]int{4})
	wantError(t, err, "Subset has sample 4, but there are 4")
	_, err = obj.Subset(nil)
	wantError(t, err, "Data.Z0 has 0 elements")
}

func TestTrajectories_BadInput(t *testing.T) {
	s := newSolver(t, network[float64](t, mlp.Tanh), tight)
	if _, err := NewTrajectories[float64](nil, Data[float64]{}, TrajectorySettings{}); err == nil {
		t.Error("no solver")
	}
	for _, c := range []struct {
		edit func(*Data[float64], *TrajectorySettings)
		want string
	}{
		{func(d *Data[float64], _ *TrajectorySettings) { d.Times = nil }, "Data.Times is empty"},
		{func(d *Data[float64], _ *TrajectorySettings) { d.Z0 = d.Z0[:7] }, "Data.Z0 has 7 elements, not a positive multiple of the dimension 2"},
		{func(d *Data[float64], _ *TrajectorySettings) { d.Z0[5] = math.NaN() }, "Data.Z0 of sample 2, component 1, is NaN"},
		{func(d *Data[float64], _ *TrajectorySettings) { d.Targets = d.Targets[8:] }, "Data.Targets has 32 elements, want 40: lay it out as [5, 4, 2], the first time included"},
		{func(d *Data[float64], s *TrajectorySettings) { s.Loss.Kind = CrossEntropy }, "Data.Labels has 0 elements, want 20: lay it out as [5, 4]"},
		{func(d *Data[float64], s *TrajectorySettings) { d.Weights = nil }, "target 0 is NaN; give it weight 0 if it is missing (elements are laid out as [5, 4, 2])"},
		{func(d *Data[float64], s *TrajectorySettings) { d.Weights = d.Weights[1:] }, "39 weights for 40 targets"},
		{func(d *Data[float64], s *TrajectorySettings) { s.Loss.Kind = 99 }, "Loss.Kind is 99"},
		{func(d *Data[float64], s *TrajectorySettings) {
			for i := range d.Weights {
				if i%8 >= 4 && i%8 < 6 {
					d.Weights[i] = 0
				}
			}
		}, "all targets of sample 2 have weight 0 or no label; leave the sample out"},
		{func(d *Data[float64], s *TrajectorySettings) {
			d.Targets, d.Weights = nil, nil
			d.Labels = slices.Repeat([]int32{2}, 20)
			s.Loss.Kind = CrossEntropy
		}, "label 0 is 2, but there are 2 classes"},
		{func(_ *Data[float64], s *TrajectorySettings) {
			s.Adjoint = adjoint.Settings{Method: adjoint.Continuous, Solver: &solver.Settings{RTol: -1}}
		}, "Settings.Solver: solver: Settings.RTol is -1"},
	} {
		d, set := spirals[float64](), TrajectorySettings{}
		c.edit(&d, &set)
		_, err := NewTrajectories(s, d, set)
		wantError(t, err, c.want)
	}
	// What the solver finds out.
	d := spirals[float64]()
	d.Times[2] = 0.1
	obj := newTrajectories(t, s, d, TrajectorySettings{})
	theta, _ := obj.Params()
	_, err := Fit(t.Context(), obj, theta, Settings[float64]{})
	wantError(t, err, "train: step 0 of epoch 0: solver: ts is not monotone at index 2")
	_, err = obj.Loss(t.Context(), theta[1:], count(4))
	wantError(t, err, "Trajectories got 31 parameters")
}

// A checkpoint knows the right-hand side, the data and the settings.
func TestTrajectories_Checkpoint(t *testing.T) {
	type run struct {
		act    mlp.Activation
		solver solver.Settings
		set    TrajectorySettings
		edit   func(*Data[float64])
		steps  int
	}
	path := filepath.Join(t.TempDir(), "run")
	fit := func(r run, path string) (*Result[float64], error) {
		d := spirals[float64]()
		if r.edit != nil {
			r.edit(&d)
		}
		s := newSolver(t, network[float64](t, r.act), r.solver)
		obj := newTrajectories(t, s, d, r.set)
		theta, _ := obj.Params()
		return Fit(t.Context(), obj, theta, Settings[float64]{BatchSize: 3, Steps: r.steps, Optimizer: Optimizer{LR: 0.1}, Checkpoint: path})
	}
	want, err := fit(run{act: mlp.Tanh, steps: 7}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = fit(run{act: mlp.Tanh, steps: 3}, path); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		run
		want string
	}{
		{run{act: mlp.Sin}, "its right-hand side is 2 components, 32 parameters, probed ["},
		{run{solver: solver.Settings{RTol: 1e-7}}, "its solver is tsit5"},
		{run{solver: solver.Settings{Method: solver.Dopri5}}, "its solver is tsit5"},
		{run{set: TrajectorySettings{Loss: Loss{Kind: MAE}}}, "its loss is {Kind:mse"},
		{run{set: TrajectorySettings{LearnZ0: true}}, "its learned z0 is false, not true"},
		{run{set: TrajectorySettings{Adjoint: adjoint.Settings{Method: adjoint.Continuous}}}, "its adjoint is discrete, as the solver"},
		{run{edit: func(d *Data[float64]) { d.Targets[7] += 1e-12 }}, "its data is sha256 "},
		{run{edit: func(d *Data[float64]) { d.Times[4] += 1e-12 }}, "its data is sha256 "},
		{run{edit: func(d *Data[float64]) { d.Z0[7] += 1e-12 }}, "its data is sha256 "},
		{run{edit: func(d *Data[float64]) { d.Weights[7] = 2 }}, "its data is sha256 "},
	} {
		c.steps = 7
		if c.act == 0 {
			c.act = mlp.Tanh
		}
		_, err := fit(c.run, path)
		wantError(t, err, "train: checkpoint "+path+": it is of another run: ", c.want)
	}
	got, err := fit(run{act: mlp.Tanh, steps: 7}, path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Resumed != 3 {
		t.Errorf("resumed at %d", got.Resumed)
	}
	sameRun(t, "trajectories", got, want)
}

// Looking at the right-hand side leaves its parameters as they are.
func TestTrajectories_IdentityKeepsParameters(t *testing.T) {
	s := newSolver(t, network[float32](t, mlp.Tanh), solver.Settings{})
	obj := newTrajectories(t, s, spirals[float32](), TrajectorySettings{})
	before, _ := obj.Params()
	a, err := obj.Identity()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := obj.Identity()
	after, _ := obj.Params()
	if fmt.Sprint(a) != fmt.Sprint(b) || !slices.Equal(before, after) || len(a) != 6 {
		t.Errorf("%v, %v", a, b)
	}
}
