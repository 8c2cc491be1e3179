package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unsafe"

	"gonum.org/v1/gonum/optimize"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// LBFGSSettings says how [LBFGS] minimises. Its zero value is the default.
type LBFGSSettings[T backend.Float] struct {
	Iterations int // at most; 0 means 100
	// Memory is the number of pairs of steps and gradients that stand for the
	// Hessian; 0 means 15.
	Memory int
	// GradTol ends the run when no component of the gradient is larger; 0 means 1e-7.
	GradTol float64
	// LossTol ends it when the loss fell by less than this fraction of itself in 10
	// iterations; 0 means 1e-9 in float64 and 1e-6 in float32.
	LossTol float64

	// Progress and Title are those of [Settings].
	Progress io.Writer
	Title    string
	// OnIteration is called at the start and after every iteration. An error ends
	// the run; [ErrStop] ends it as a success.
	OnIteration func(Report[T]) error
}

const lossTolWindow = 10 // iterations

// LBFGS minimises obj over all samples by the limited-memory BFGS method (Nocedal &
// Wright 2006, Numerical Optimization, algorithm 7.5) of gonum, with its bisection
// line search for the strong Wolfe conditions. Few parameters, no noise and tight
// tolerances of the solves suit it; float32 stops it early. It starts from theta,
// which is copied, and saves no checkpoints.
//
// A trial point whose solve fails (an error that wraps a *[solver.Error]), or whose
// loss or gradient is not finite, counts as infinitely bad: the line search takes a
// smaller step. Any other error of the objective ends the run, and so does ctx; what
// was reached is returned with it. After a failed line search the method starts
// again from the gradient alone.
//
// In the Result, Steps, Epochs and the history count iterations, LR is 0, and Theta
// is the last iterate.
func LBFGS[T backend.Float](ctx context.Context, obj Objective[T], theta []T, set LBFGSSettings[T]) (*Result[T], error) {
	l, err := newLBFGS(ctx, obj, theta, set)
	if err != nil {
		return nil, err
	}
	defer l.rep.close()
	l.evaluate()
	if bad := (*NonFiniteError)(nil); errors.As(l.trialErr, &bad) {
		l.fatal = bad
	} else if l.trialErr != nil {
		l.fatal = fmt.Errorf("train: at the start: %w", l.trialErr)
	}
	for l.fatal == nil && l.stop == running {
		before := max(len(l.history), 1)
		_, err := optimize.Minimize(l.problem(), l.x, &optimize.Settings{Converger: l},
			&optimize.LBFGS{Store: l.set.Memory, GradStopThreshold: math.NaN()})
		if l.fatal != nil || l.stop != running || len(l.history) > before {
			continue // ends, or starts again from the last iterate
		}
		l.stop = NoProgress
		if l.trials > 0 && l.failed == l.trials {
			l.fatal = fmt.Errorf("train: iteration %d: none of %d trial points could be evaluated (%w), the last: %w", len(l.history), l.trials, err, l.trialErr)
		}
	}
	if l.fatal != nil {
		l.stop = Failed
		if ctx.Err() != nil {
			l.stop = Cancelled
		}
	}
	return l.result(), l.fatal
}

const running Stop = math.MaxUint8

// lbfgs is the objective as gonum sees it, with a memory of one evaluation.
type lbfgs[T backend.Float] struct {
	ctx context.Context
	obj Objective[T]
	set LBFGSSettings[T]
	all []int
	rep *reporter

	theta, grad []T // the last evaluation
	loss        float64
	evaluated   bool
	evaluations int

	start    bool      // Minimize begins
	x        []float64 // the last iterate
	best     []T
	bestLoss float64
	bestStep int
	history  []Record

	trials, failed int // points tried since the last iterate, and those that failed
	trialErr       error
	stop           Stop
	fatal          error
}

func newLBFGS[T backend.Float](ctx context.Context, obj Objective[T], theta []T, set LBFGSSettings[T]) (*lbfgs[T], error) {
	if err := checkStart(obj, nil, theta); err != nil {
		return nil, err
	}
	lossTol := 1e-9
	if unsafe.Sizeof(theta[0]) == 4 {
		lossTol = 1e-6
	}
	for _, f := range []struct {
		name  string
		value *float64
		zero  float64
	}{{"GradTol", &set.GradTol, 1e-7}, {"LossTol", &set.LossTol, lossTol}} {
		if !(*f.value >= 0) || math.IsInf(*f.value, 0) {
			return nil, fmt.Errorf("train: LBFGSSettings.%s is %g; give a positive number, or 0 for %g", f.name, *f.value, f.zero)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if set.Iterations < 0 || set.Memory < 0 {
		return nil, fmt.Errorf("train: LBFGSSettings.Iterations is %d and Memory %d; neither can be negative", set.Iterations, set.Memory)
	}
	if set.Iterations == 0 {
		set.Iterations = 100
	}
	return &lbfgs[T]{
		ctx: ctx, obj: obj, set: set, all: count(obj.NumSamples()), stop: running,
		rep:   newReporter(set.Progress, set.Title, "iteration", set.Iterations, 1),
		theta: slices.Clone(theta), grad: make([]T, len(theta)),
		x: widen(theta), best: slices.Clone(theta), bestLoss: math.Inf(1),
	}, nil
}

func widen[T backend.Float](x []T) []float64 {
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	return wide
}

// evaluate sets loss and grad to those at theta, the loss to +Inf if that fails.
func (l *lbfgs[T]) evaluate() {
	l.evaluated = true
	l.trials++
	l.evaluations++
	l.trialErr = nil
	now := len(l.history) // the iteration under way
	loss, err := l.obj.Gradient(l.ctx, l.theta, l.all, l.grad)
	var unsolved *solver.Error
	switch i := learn.FirstNonFinite(l.grad); {
	case l.ctx.Err() != nil:
		l.fatal = fmt.Errorf("train: cancelled in iteration %d: %w", now, context.Cause(l.ctx))
	case err != nil && !errors.As(err, &unsolved):
		l.fatal = fmt.Errorf("train: iteration %d: %w", now, err)
	case err != nil:
		l.trialErr = err
	case !finite(loss):
		l.trialErr = &NonFiniteError{What: "loss", Value: loss, Step: now, Epoch: now, Param: -1, Sample: l.blame(nil)}
	case i >= 0:
		e := &NonFiniteError{What: "gradient", Value: float64(l.grad[i]), Step: now, Epoch: now, Param: i}
		e.Sample = l.blame(l.grad)
		l.trialErr = e
	}
	if l.fatal != nil || l.trialErr != nil {
		l.failed++
		l.loss = math.Inf(1)
		clear(l.grad)
		return
	}
	if l.loss = loss; loss < l.bestLoss {
		l.bestLoss, l.bestStep = loss, now
		copy(l.best, l.theta)
	}
}

// blame looks for the sample at fault where that is reported: at the start.
func (l *lbfgs[T]) blame(grad []T) int {
	if len(l.history) > 0 {
		return -1
	}
	return blame(l.ctx, l.obj, l.theta, l.all, grad)
}

// at evaluates the point x, unless rounded to T it is the last one.
func (l *lbfgs[T]) at(x []float64) {
	for i, v := range x {
		l.evaluated = l.evaluated && l.theta[i] == T(v)
		l.theta[i] = T(v)
	}
	if !l.evaluated && l.fatal == nil {
		l.evaluate()
	}
}

func (l *lbfgs[T]) problem() optimize.Problem {
	return optimize.Problem{
		Func: func(x []float64) float64 {
			l.at(x)
			return l.loss
		},
		Grad: func(grad, x []float64) {
			l.at(x)
			for i, g := range l.grad {
				grad[i] = float64(g)
			}
		},
		Status: func() (optimize.Status, error) { return optimize.NotTerminated, l.fatal },
	}
}

// Init and Converged make an [optimize.Converger], which sees every iterate, the
// one that Minimize starts from first.
func (l *lbfgs[T]) Init(int) { l.start = true }

func (l *lbfgs[T]) Converged(loc *optimize.Location) optimize.Status {
	l.trials, l.failed = 0, 0
	again := l.start && len(l.history) > 0
	l.start = false
	if again {
		return optimize.NotTerminated
	}
	copy(l.x, loc.X)
	now := Record{Epoch: len(l.history), Step: len(l.history), Loss: loc.F, Validation: math.NaN(), GradNorm: Norm(loc.Gradient)}
	l.history = append(l.history, now)
	l.rep.step(now)
	largest := 0.0
	for _, g := range loc.Gradient {
		largest = max(largest, math.Abs(g))
	}
	ago := len(l.history) - 1 - lossTolWindow
	switch {
	case largest <= l.set.GradTol:
		l.stop = Converged
	case ago >= 0 && l.history[ago].Loss-loc.F <= l.set.LossTol*math.Abs(loc.F):
		l.stop = Converged
	case now.Step >= l.set.Iterations:
		l.stop = Completed
	}
	if l.set.OnIteration != nil {
		l.at(loc.X)
		if err := l.set.OnIteration(Report[T]{Record: now, Theta: l.theta}); errors.Is(err, ErrStop) {
			l.stop = ByCallback
		} else if err != nil {
			l.fatal = fmt.Errorf("train: the callback of iteration %d: %w", now.Step, err)
		}
	}
	if l.stop != running || l.fatal != nil {
		return optimize.Success
	}
	return optimize.NotTerminated
}

func (l *lbfgs[T]) result() *Result[T] {
	theta := make([]T, len(l.x))
	for i, v := range l.x {
		theta[i] = T(v)
	}
	n := max(len(l.history)-1, 0)
	return &Result[T]{
		Theta: theta, Best: l.best, BestLoss: l.bestLoss, BestStep: l.bestStep,
		Steps: n, Epochs: n, Evaluations: l.evaluations, Stop: l.stop, History: l.history,
	}
}
