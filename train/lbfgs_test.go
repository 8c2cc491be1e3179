package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// rosenbrock is Σ 100(x_{i+1}-x_i²)² + (1-x_i)², with its minimum 0 at (1, …, 1).
type rosenbrock[T backend.Float] struct{ n int }

func (r rosenbrock[T]) NumParams() int  { return r.n }
func (r rosenbrock[T]) NumSamples() int { return 1 }

func (r rosenbrock[T]) Loss(ctx context.Context, x []T, batch []int) (float64, error) {
	return r.Gradient(ctx, x, batch, make([]T, len(x)))
}

func (r rosenbrock[T]) Gradient(_ context.Context, x []T, _ []int, grad []T) (float64, error) {
	clear(grad)
	sum := 0.0
	for i := range r.n - 1 {
		v := float64(x[i])
		a, b := float64(x[i+1])-v*v, 1-v
		sum += 100*a*a + b*b
		grad[i] += T(-400*a*v - 2*b)
		grad[i+1] += T(200 * a)
	}
	return sum, nil
}

// barrier is Σ s·x_i - log(s·x_i) - 1, with its minimum 0 at (1, …, 1)/s. Where an
// x_i is not positive it fails with err, or is NaN if err is nil, and so it does
// everywhere after the first evaluation if broken.
type barrier struct {
	s      float64
	err    error
	broken bool
	calls  int
	fails  int
}

func (b *barrier) NumParams() int  { return 3 }
func (b *barrier) NumSamples() int { return 1 }

func (b *barrier) Loss(ctx context.Context, x []float64, batch []int) (float64, error) {
	return b.Gradient(ctx, x, batch, make([]float64, len(x)))
}

func (b *barrier) Gradient(_ context.Context, x []float64, _ []int, grad []float64) (float64, error) {
	b.calls++
	sum := 0.0
	for i, v := range x {
		if v <= 0 || b.broken && b.calls > 1 {
			b.fails++
			return math.NaN(), b.err
		}
		v *= b.s
		sum += v - math.Log(v) - 1
		grad[i] = b.s * (1 - 1/v)
	}
	return sum, nil
}

func TestLBFGS_FindsRosenbrockMinimum(t *testing.T) {
	res, err := LBFGS(t.Context(), rosenbrock[float64]{n: 10}, slices.Repeat([]float64{-1.2}, 10), LBFGSSettings[float64]{})
	if err != nil || res.Stop != Converged {
		t.Fatalf("%+v, %v", res, err)
	}
	// The gradient's components are below 1e-7 and the smallest curvature near the
	// minimum is 0.4, but the loss may stop it before: 1e-5 is what Newton's last
	// step needs.
	for _, x := range res.Theta {
		if !near(x, 1, 1e-5, 0) {
			t.Errorf("minimum at %v", res.Theta)
			break
		}
	}
	if res.Steps > 90 || len(res.History) != res.Steps+1 || res.Epochs != res.Steps || res.Evaluations < res.Steps || res.BestLoss > 1e-10 {
		t.Errorf("%d iterations, %d evaluations, loss %g", res.Steps, res.Evaluations, res.BestLoss)
	}
	for i, r := range res.History {
		if r.Step != i || i > 0 && r.Loss > res.History[i-1].Loss {
			t.Errorf("history %+v", res.History)
			break
		}
	}

	// float32 gets as far as its rounding lets it and then ends by itself.
	low, err := LBFGS(t.Context(), rosenbrock[float32]{n: 4}, slices.Repeat([]float32{-1.2}, 4), LBFGSSettings[float32]{})
	if err != nil || low.Stop != Converged && low.Stop != NoProgress {
		t.Fatalf("%+v, %v", low, err)
	}
	for _, x := range low.Best {
		if !near(float64(x), 1, 1e-3, 0) {
			t.Errorf("float32 minimum at %v", low.Best)
			break
		}
	}
}

// Trial points that cannot be evaluated make the line search take shorter steps.
func TestLBFGS_FailedTrialsAreInfinitelyBad(t *testing.T) {
	unsolved := fmt.Errorf("adjoint: %w", &solver.Error{Failures: []solver.Failure{{Status: solver.NotFinite}}, Samples: 1})
	start := []float64{30, 5, 0.01}
	for _, cause := range []error{nil, unsolved} {
		// At scale 1000 the first trial point, at distance 1, is far outside, and so
		// are the next ones.
		for _, scale := range []float64{1, 1000} {
			obj := &barrier{s: scale, err: cause}
			res, err := LBFGS(t.Context(), obj, []float64{30 / scale, 5 / scale, 2 / scale}, LBFGSSettings[float64]{})
			if err != nil || res.Stop != Converged || scale == 1 && obj.fails == 0 || scale > 1 && obj.fails < 5 {
				t.Errorf("%v: %v after %d iterations, %v, %d failures", cause, res.Stop, res.Steps, err, obj.fails)
				continue
			}
			for _, x := range res.Theta {
				if !near(x*scale, 1, 1e-6, 0) { // f' = s - 1/x is below 1e-7 there
					t.Errorf("%v: minimum at %v", cause, res.Theta)
					break
				}
			}
		}
	}
	// If all of them fail that is an error, and the start is kept.
	res, err := LBFGS(t.Context(), &barrier{s: 1, err: unsolved, broken: true}, start, LBFGSSettings[float64]{})
	wantError(t, err, "train: iteration 1: none of ", " trial points could be evaluated", "sample 0 at t = 0")
	if res == nil || res.Stop != Failed || !slices.Equal(res.Theta, start) || res.BestStep != 0 || !errors.Is(err, solver.NotFinite) {
		t.Errorf("%+v", res)
	} else if res.Evaluations > 100 {
		t.Errorf("%d evaluations to give up", res.Evaluations)
	}
}

func TestLBFGS_Start(t *testing.T) {
	// A start at the minimum ends at once.
	res, err := LBFGS(t.Context(), rosenbrock[float64]{n: 3}, []float64{1, 1, 1}, LBFGSSettings[float64]{})
	if err != nil || res.Stop != Converged || res.Steps != 0 || res.Evaluations != 1 || res.BestLoss != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	// One that cannot be evaluated is an error that says where.
	obj := newLinear[float64](10, 2, 0.1)
	obj.hook = func(_ []float64, batch []int, loss *float64, _ []float64) error {
		if slices.Contains(batch, 6) {
			*loss = math.Inf(1)
		}
		return nil
	}
	res, err = LBFGS(t.Context(), obj, []float64{0, 0}, LBFGSSettings[float64]{})
	wantError(t, err, "train: step 0 of epoch 0: the loss is +Inf, first for sample 6")
	if res == nil || res.Stop != Failed || !slices.Equal(res.Theta, []float64{0, 0}) {
		t.Errorf("%+v", res)
	}
	obj.hook = func(_ []float64, batch []int, _ *float64, grad []float64) error {
		if grad != nil && slices.Contains(batch, 3) {
			grad[1] = math.NaN()
		}
		return nil
	}
	_, err = LBFGS(t.Context(), obj, []float64{0, 0}, LBFGSSettings[float64]{})
	wantError(t, err, "train: step 0 of epoch 0: the gradient of parameter 1 is NaN, first for sample 3")
}

func TestLBFGS_Ends(t *testing.T) {
	start := slices.Repeat([]float64{-1.2}, 10)
	// Another error of the objective.
	broken := errors.New("out of memory")
	obj := &barrier{s: 1, err: broken}
	res, err := LBFGS(t.Context(), obj, []float64{30, 5, 0.01}, LBFGSSettings[float64]{})
	wantError(t, err, "train: iteration ", ": out of memory")
	if !errors.Is(err, broken) || res.Stop != Failed || obj.fails != 1 || res.BestLoss > res.History[0].Loss {
		t.Errorf("%+v", res)
	}
	// Rounding: a step of length 1 does not move a parameter of 1e17.
	res, err = LBFGS(t.Context(), &scripted{samples: 1, losses: []float64{1, 1, 1}}, []float64{1e17}, LBFGSSettings[float64]{})
	if err != nil || res.Stop != NoProgress || res.Steps != 0 || res.Theta[0] != 1e17 {
		t.Errorf("%+v, %v", res, err)
	}
	// Iterations.
	res, err = LBFGS(t.Context(), rosenbrock[float64]{n: 10}, start, LBFGSSettings[float64]{Iterations: 5})
	if err != nil || res.Stop != Completed || res.Steps != 5 || res.Theta[0] == start[0] {
		t.Errorf("%+v, %v", res, err)
	}
	// Callbacks, with the parameters that belong to the loss.
	check := rosenbrock[float64]{n: 10}
	seen := 0
	res, err = LBFGS(t.Context(), rosenbrock[float64]{n: 10}, start, LBFGSSettings[float64]{OnIteration: func(r Report[float64]) error {
		if loss, _ := check.Loss(t.Context(), r.Theta, nil); loss != r.Loss || r.Step != seen {
			t.Errorf("iteration %d: loss %v at its parameters, reported %+v", seen, loss, r.Record)
		}
		if seen++; r.Step == 4 {
			return ErrStop
		}
		return nil
	}})
	if err != nil || res.Stop != ByCallback || res.Steps != 4 || seen != 5 {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = LBFGS(t.Context(), rosenbrock[float64]{n: 10}, start, LBFGSSettings[float64]{OnIteration: func(r Report[float64]) error { return broken }})
	wantError(t, err, "train: the callback of iteration 0: out of memory")
	if res.Stop != Failed {
		t.Errorf("%+v", res)
	}
	// The context.
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	res, err = LBFGS(ctx, rosenbrock[float64]{n: 10}, start, LBFGSSettings[float64]{OnIteration: func(r Report[float64]) error {
		if r.Step == 6 {
			cancel(why)
		}
		return nil
	}})
	wantError(t, err, "train: cancelled in iteration 7: enough")
	if !errors.Is(err, why) || res.Stop != Cancelled || res.Steps != 6 {
		t.Errorf("%+v", res)
	}
}

func TestLBFGS_Progress(t *testing.T) {
	var b strings.Builder
	if _, err := LBFGS(t.Context(), rosenbrock[float64]{n: 4}, slices.Repeat([]float64{-1.2}, 4), LBFGSSettings[float64]{Iterations: 40, Progress: &b, Title: "fit"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if !strings.HasPrefix(lines[1], "fit: iteration 2/40  loss ") || strings.Contains(b.String(), "lr") || len(lines) > 23 {
		t.Errorf("%q", b.String())
	}
}

func TestLBFGS_BadInput(t *testing.T) {
	obj := newLinear[float64](10, 2, 0)
	for _, c := range []struct {
		theta []float64
		set   LBFGSSettings[float64]
		want  string
	}{
		{[]float64{0}, LBFGSSettings[float64]{}, "theta has 1 parameters, and the objective 2"},
		{[]float64{0, math.Inf(1)}, LBFGSSettings[float64]{}, "parameter 1 is +Inf"},
		{[]float64{0, 0}, LBFGSSettings[float64]{GradTol: -1}, "LBFGSSettings.GradTol is -1"},
		{[]float64{0, 0}, LBFGSSettings[float64]{LossTol: math.NaN()}, "LBFGSSettings.LossTol is NaN"},
		{[]float64{0, 0}, LBFGSSettings[float64]{Iterations: -1}, "neither can be negative"},
		{[]float64{0, 0}, LBFGSSettings[float64]{Memory: -1}, "neither can be negative"},
	} {
		res, err := LBFGS(t.Context(), obj, c.theta, c.set)
		if res != nil {
			t.Errorf("%s: a result", c.want)
		}
		wantError(t, err, "train: ", c.want)
	}
}
