package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// job is a task of a case in one variant, on this library's side.
type job interface {
	// time runs the task so often and returns the time of one.
	time(ctx context.Context, calls int) (time.Duration, error)
	check(ctx context.Context) (arrays, counts, error)
	close()
}

// serve answers requests until in ends, as peer.py does.
func serve(ctx context.Context, in io.Reader, out io.Writer) error {
	jobs := map[int]job{}
	defer func() {
		for _, j := range jobs {
			j.close()
		}
	}()
	answer := func(q request) (a reply, err error) {
		switch q.Op {
		case "hello":
			a.Versions = map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
			return a, nil
		case "prepare":
			if q.Case == nil {
				return a, errors.New("prepare without a case")
			}
			begin := time.Now()
			j, err := prepare(*q.Case, q.Task, q.Variant)
			if err != nil {
				return a, err
			}
			if _, err := j.time(ctx, 1); err != nil {
				j.close()
				return a, err
			}
			jobs[q.Job] = j
			a.Seconds = time.Since(begin).Seconds()
			return a, nil
		}
		j := jobs[q.Job]
		if j == nil {
			return a, fmt.Errorf("there is no job %d", q.Job)
		}
		switch q.Op {
		case "check":
			var results arrays
			if results, a.Counts, err = j.check(ctx); err == nil {
				err = results.write(q.File)
			}
		case "time":
			var t time.Duration
			t, err = j.time(ctx, q.Calls)
			a.Seconds = t.Seconds()
		case "drop":
			j.close()
			delete(jobs, q.Job)
		default:
			err = fmt.Errorf("unknown request %q", q.Op)
		}
		return a, err
	}
	enc := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		a, err := answer(q)
		if err != nil {
			a = reply{Error: err.Error()}
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// prepare makes a job. variant is joint or sample, then the method of the gradient:
// discrete (the default) or continuous, after a slash.
func prepare(c caseSpec, t task, variant string) (job, error) {
	if c.Double {
		return newJob[float64](c, t, variant)
	}
	return newJob[float32](c, t, variant)
}

// work is a job: it uses the library as a program would.
type work[T mlp.Float] struct {
	task    task
	lr      float64
	theta   []T
	z0      []T
	times   []float64
	targets []T

	dev  *cpu.Backend[T]
	s    *solver.Solver[T]
	adj  *adjoint.Adjoint[T]    // gradient
	fit  *train.Trajectories[T] // train
	dLdz []T

	sol *solver.Solution[T] // of the last run
	g   *adjoint.Gradient[T]
}

func newJob[T mlp.Float](c caseSpec, t task, variant string) (job, error) {
	stepping, method, _ := strings.Cut(variant, "/")
	set := solver.Settings{
		Method: solver.Dopri5, RTol: c.RTol, ATol: c.ATol,
		Controller: solver.I, // the peers' controller
	}
	switch stepping {
	case "joint":
	case "sample":
		set.Stepping = solver.PerSample
	default:
		return nil, fmt.Errorf("unknown variant %q", variant)
	}
	way := adjoint.Settings{NoTimes: true}
	switch method {
	case "discrete":
	case "continuous":
		way.Method = adjoint.Continuous
	default:
		return nil, fmt.Errorf("unknown variant %q", variant)
	}
	w := &work[T]{task: t, lr: c.LR}
	model := &mlp.Model[T]{Spec: c.Model}
	if err := w.read(c.File, model); err != nil {
		return nil, err
	}
	w.dev = cpu.New[T]()
	var err error
	if w.s, err = solver.New(w.dev, model, set); err == nil {
		switch t {
		case forward:
		case gradient:
			w.adj, err = adjoint.New(w.s, way)
		case training:
			data := train.Data[T]{Times: w.times, Z0: w.z0, Targets: w.targets}
			w.fit, err = train.NewTrajectories(w.s, data, train.TrajectorySettings{Adjoint: way})
		default:
			err = fmt.Errorf("unknown task %q", t)
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// read takes the case's file, and the parameters of model from it.
func (w *work[T]) read(path string, model *mlp.Model[T]) error {
	if err := model.Spec.Validate(); err != nil {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := safetensors.Read(raw)
	if err != nil {
		return err
	}
	floats := func(name string) (x []T) {
		t, ok := f.Tensor(name)
		if !ok && err == nil {
			err = fmt.Errorf("%s has no tensor %s", path, name)
		}
		if err == nil {
			x = make([]T, t.Len())
			err = safetensors.Floats(x, t)
		}
		return x
	}
	w.z0, w.targets = floats("z0"), floats("targets")
	for _, t := range floats("times") {
		w.times = append(w.times, float64(t))
	}
	for i := range model.Spec.NumLayers() {
		model.Theta = append(append(model.Theta, floats(weightName(i))...), floats(biasName(i))...)
	}
	if err != nil {
		return err
	}
	w.theta = model.Theta
	return model.Validate()
}

func weightName(layer int) string { return fmt.Sprintf("layers.%d.weight", layer) }
func biasName(layer int) string   { return fmt.Sprintf("layers.%d.bias", layer) }

func (w *work[T]) close() {
	if w.adj != nil {
		w.adj.Close()
	}
	if w.fit != nil {
		w.fit.Close()
	}
	if w.s != nil {
		w.s.Close()
	}
	w.dev.Close()
}

// run does the task once; training runs are train's.
func (w *work[T]) run(ctx context.Context) (err error) {
	if w.task == forward {
		w.sol, err = w.s.Solve(ctx, w.z0, w.times)
		return err
	}
	if w.sol, err = w.adj.Solve(ctx, w.z0, w.times); err != nil {
		return err
	}
	if w.dLdz == nil {
		w.dLdz = make([]T, len(w.sol.Y))
	}
	if _, err = train.EvalLoss(train.Loss{}, w.sol.Y, train.Target[T]{Values: w.targets}, w.dLdz); err != nil {
		return err
	}
	w.g, err = w.adj.Gradients(ctx, w.sol, w.dLdz)
	return err
}

// train makes updates from the case's parameters and returns their losses, and the time
// from the end of the first to the end of the last.
func (w *work[T]) train(ctx context.Context, updates int) (losses []T, span time.Duration, err error) {
	var first time.Time
	_, err = train.Fit(ctx, w.fit, w.theta, train.Settings[T]{
		Steps: updates, Optimizer: train.Optimizer{LR: w.lr},
		OnStep: func(r train.Report[T]) error {
			if first.IsZero() {
				first = time.Now()
			}
			span = time.Since(first)
			losses = append(losses, T(r.Loss))
			return nil
		},
	})
	return losses, span, err
}

func (w *work[T]) time(ctx context.Context, calls int) (time.Duration, error) {
	if w.task == training {
		_, span, err := w.train(ctx, calls+1)
		return span / time.Duration(calls), err
	}
	begin := time.Now()
	for range calls {
		if err := w.run(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(begin) / time.Duration(calls), nil
}

func (w *work[T]) check(ctx context.Context) (arrays, counts, error) {
	if w.task == training {
		losses, _, err := w.train(ctx, checkedUpdates)
		return arrays{"losses": widen(losses)}, counts{}, err
	}
	if err := w.run(ctx); err != nil {
		return nil, counts{}, err
	}
	var n counts
	for b, s := range w.sol.Stats {
		if b == 0 || s.Evaluations > n.Evaluations {
			n = counts{Evaluations: s.Evaluations, Accepted: s.Accepted, Rejected: s.Rejected}
		}
	}
	a := arrays{"y": widen(w.sol.Y)}
	if w.task == gradient {
		a["dz0"], a["dtheta"] = widen(w.g.Z0), widen(w.g.Theta)
		for _, s := range w.g.Stats {
			n.Back = max(n.Back, s.Evaluations)
		}
	}
	return a, n, nil
}

func widen[T mlp.Float](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
