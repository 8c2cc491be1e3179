package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Every optimiser finds the exact solution of a well-posed least-squares problem.
func TestFit_FindsLeastSquares(t *testing.T) {
	t.Run("float64", func(t *testing.T) { findsLeastSquares[float64](t, 1e-3) })
	t.Run("float32", func(t *testing.T) { findsLeastSquares[float32](t, 1e-3) })
}

func findsLeastSquares[T backend.Float](t *testing.T, tol float64) {
	obj := newLinear[T](40, 3, 0)
	for _, c := range []struct {
		o     Optimizer
		batch int
		s     Schedule
	}{
		{Optimizer{LR: 0.1}, 8, Schedule{Kind: Cosine, Warmup: 20}},
		{Optimizer{LR: 0.3}, 0, Schedule{Kind: Cosine}},
		{Optimizer{Kind: AdamW, LR: 0.1, WeightDecay: 1e-5}, 8, Schedule{Kind: Cosine}},
		{Optimizer{Kind: RMSprop, LR: 0.05}, 8, Schedule{Kind: Exponential, Gamma: 1e-4}},
		{Optimizer{Kind: SGD, LR: 0.1}, 8, Schedule{}},
		{Optimizer{Kind: SGD, LR: 0.02, Momentum: 0.9, Nesterov: true}, 7, Schedule{}},
	} {
		theta := make([]T, 3)
		res, err := Fit(t.Context(), obj, theta, Settings[T]{Optimizer: c.o, Schedule: c.s, BatchSize: c.batch, Epochs: 200, Seed: 5})
		if err != nil {
			t.Errorf("%v: %v", c.o.Kind, err)
			continue
		}
		for j, v := range res.Theta {
			// The end of the course is at the optimiser's last, small steps.
			if !near(float64(v), float64(j+1), 0, tol) {
				t.Errorf("%v: parameters %v, want [1 2 3]", c.o.Kind, res.Theta)
				break
			}
		}
		if !slices.Equal(theta, make([]T, 3)) {
			t.Error("theta was changed")
		}
		if res.Stop != Completed || res.Epochs != 200 || len(res.History) != 200 || res.Evaluations != res.Steps {
			t.Errorf("%+v", res)
		}
	}
}

// One epoch by hand: batches in the order of the shuffle, the last of them short,
// the epoch's loss weighted by their sizes, clipping, and the schedule by update.
func TestFit_OneEpochByHand(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	set := Settings[float64]{
		Optimizer: Optimizer{Kind: SGD, LR: 0.2}, Schedule: Schedule{Warmup: 4},
		BatchSize: 4, Epochs: 1, ClipNorm: 0.5, Seed: 11,
	}
	var steps []Record
	set.OnStep = func(r Report[float64]) error {
		steps = append(steps, r.Record)
		return nil
	}
	res, err := Fit(t.Context(), obj, []float64{0, 0}, set)
	if err != nil {
		t.Fatal(err)
	}
	order := make([]int, 10)
	shuffle(order, 11, 0)
	theta, grad, sum := []float64{0, 0}, make([]float64, 2), 0.0
	for i, batch := range [][]int{order[:4], order[4:8], order[8:]} {
		loss, _ := obj.Gradient(t.Context(), theta, batch, grad)
		sum += loss * float64(len(batch))
		norm := math.Hypot(grad[0], grad[1])
		lr := 0.2 * float64(i+1) / 4
		for j := range theta {
			theta[j] -= lr * grad[j] * min(0.5/(norm+1e-6), 1)
		}
		if s := steps[i]; !near(s.Loss, loss, 1e-14, 0) || !near(s.GradNorm, norm, 1e-14, 0) || !near(s.LR, lr, 1e-15, 0) || s.Step != i+1 || s.Epoch != 0 || !math.IsNaN(s.Validation) {
			t.Errorf("update %d: %+v", i, s)
		}
	}
	for j := range theta {
		if !near(res.Theta[j], theta[j], 1e-14, 0) {
			t.Errorf("parameters %v, want %v", res.Theta, theta)
		}
	}
	if h := res.History; len(h) != 1 || !near(h[0].Loss, sum/10, 1e-14, 0) || h[0].Epoch != 1 || h[0].Step != 3 {
		t.Errorf("history %+v", h)
	}
}

func TestShuffle(t *testing.T) {
	a, b := make([]int, 100), make([]int, 100)
	shuffle(a, 1, 0)
	shuffle(b, 1, 0)
	if !slices.Equal(a, b) {
		t.Error("the same seed and epoch give another order")
	}
	for _, other := range [][2]uint64{{1, 1}, {2, 0}} {
		if shuffle(b, other[0], int(other[1])); slices.Equal(a, b) {
			t.Error("another seed or epoch gives the same order")
		}
	}
	slices.Sort(a)
	if !slices.Equal(a, count(100)) {
		t.Error("not a permutation")
	}
	training, held := Split(10, 0.3, 4)
	if len(held) != 3 || !slices.IsSorted(held) || !slices.IsSorted(training) {
		t.Error(training, held)
	}
	if both := append(training, held...); len(both) != 10 {
		t.Error(both)
	} else if slices.Sort(both); !slices.Equal(both, count(10)) {
		t.Error(both)
	}
}

func TestFit_BudgetOfSteps(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	for _, c := range []struct{ epochs, steps, want, epochsDone, records int }{
		{0, 0, 300, 100, 100}, // the default
		{4, 0, 12, 4, 4},
		{0, 7, 7, 2, 3},
		{2, 7, 6, 2, 2},
		{4, 7, 7, 2, 3},
		{0, 2, 2, 0, 1},
	} {
		res, err := Fit(t.Context(), obj, []float64{0, 0}, Settings[float64]{BatchSize: 4, Epochs: c.epochs, Steps: c.steps, Validation: obj})
		if err != nil || res.Steps != c.want || res.Epochs != c.epochsDone || len(res.History) != c.records || res.Stop != Completed {
			t.Errorf("%+v: %d steps, %d epochs, %d records, %v, %v", c, res.Steps, res.Epochs, len(res.History), res.Stop, err)
			continue
		}
		// The last record is of the last parameters, its epoch full or not.
		last := res.History[len(res.History)-1]
		if loss, _ := obj.Loss(t.Context(), res.Theta, count(10)); last.Validation != loss || last.Step != c.want {
			t.Errorf("%+v: last record %+v, want the validation loss %v", c, last, loss)
		}
	}
}

// scripted gives losses from a list, whatever the parameters are, and a gradient
// that moves them by 1 an update.
type scripted struct {
	samples int
	losses  []float64
	i       int
}

func (s *scripted) NumParams() int  { return 1 }
func (s *scripted) NumSamples() int { return s.samples }
func (s *scripted) Loss(context.Context, []float64, []int) (float64, error) {
	s.i++
	return s.losses[s.i-1], nil
}
func (s *scripted) Gradient(_ context.Context, _ []float64, _ []int, grad []float64) (float64, error) {
	grad[0] = -1
	return s.Loss(context.Background(), nil, nil)
}

func TestFit_EarlyStoppingAndBest(t *testing.T) {
	sgd := Optimizer{Kind: SGD, LR: 1}
	flat := &scripted{samples: 4, losses: slices.Repeat([]float64{1}, 1000)}

	// On a validation loss, every second epoch of two updates.
	val := &scripted{samples: 1, losses: []float64{5, 3, 4, 2.95, 3, 3.1, 9, 9}}
	res, err := Fit(t.Context(), flat, []float64{0}, Settings[float64]{
		Optimizer: sgd, BatchSize: 2, Epochs: 100, Validation: val, ValidateEvery: 2, Patience: 3, MinDelta: 0.1,
	})
	if err != nil {
		t.Fatal(err)
	}
	// 3 is the last fall by more than 0.1; 4, 2.95 and 3 use up the patience, but
	// 2.95, after epoch 8, is the best.
	if res.Stop != EarlyStopped || res.Epochs != 10 || res.BestLoss != 2.95 || res.BestStep != 16 || res.Best[0] != 16 || res.Theta[0] != 20 {
		t.Errorf("%+v", res)
	}
	if h := res.History; !math.IsNaN(h[0].Validation) || h[1].Validation != 5 || h[9].Validation != 3 {
		t.Errorf("history %+v", h)
	}

	// On the training loss of full batches, which belongs to the parameters before
	// the update. The last parameters count too.
	full := &scripted{samples: 4, losses: []float64{5, 3, 4, 4, 1}}
	res, err = Fit(t.Context(), full, []float64{0}, Settings[float64]{Optimizer: sgd, Epochs: 100, Patience: 2})
	if err != nil || res.Stop != EarlyStopped || res.Steps != 4 || res.BestLoss != 1 || res.BestStep != 4 || res.Best[0] != 4 {
		t.Errorf("%+v, %v", res, err)
	}
	full = &scripted{samples: 4, losses: []float64{5, 3, 4, 4, 3.5}}
	res, err = Fit(t.Context(), full, []float64{0}, Settings[float64]{Optimizer: sgd, Epochs: 4})
	if err != nil || res.Stop != Completed || res.BestLoss != 3 || res.BestStep != 1 || res.Best[0] != 1 {
		t.Errorf("%+v, %v", res, err)
	}

	// On the mean over an epoch's batches.
	mini := &scripted{samples: 4, losses: []float64{5, 3, 2, 4, 6, 6}}
	res, err = Fit(t.Context(), mini, []float64{0}, Settings[float64]{Optimizer: sgd, BatchSize: 2, Epochs: 3})
	if err != nil || res.BestLoss != 3 || res.BestStep != 4 || res.Best[0] != 4 || res.Stop != Completed {
		t.Errorf("%+v, %v", res, err)
	}
}

// A validation with fewer parameters gets the first ones.
func TestFit_ValidationOfFewerParameters(t *testing.T) {
	obj, val := newLinear[float64](10, 3, 0), newLinear[float64](10, 2, 0)
	res, err := Fit(t.Context(), obj, make([]float64, 3), Settings[float64]{Epochs: 2, Validation: val})
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := val.Loss(t.Context(), res.Theta[:2], count(10)); res.History[1].Validation != want {
		t.Errorf("validation %v, want %v", res.History[1].Validation, want)
	}
}

func TestFit_NonFinite(t *testing.T) {
	type hook = func(theta []float64, batch []int, loss *float64, grad []float64) error
	// Fails in sample 7 from the second epoch on.
	after := func(steps int, do hook) hook {
		n := 0
		return func(theta []float64, batch []int, loss *float64, grad []float64) error {
			if grad != nil {
				n++
			}
			if n > steps && slices.Contains(batch, 7) {
				return do(theta, batch, loss, grad)
			}
			return nil
		}
	}
	nanLoss := func(_ []float64, _ []int, loss *float64, _ []float64) error {
		*loss = math.NaN()
		return nil
	}
	infGrad := func(_ []float64, _ []int, _ *float64, grad []float64) error {
		if grad != nil {
			grad[2] = math.Inf(-1)
		}
		return nil
	}
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		hook  hook
		batch int
		want  []string
		error NonFiniteError
	}{
		{"loss", after(5, nanLoss), 4, []string{"train: step ", " of epoch 1: the loss is NaN, first for sample 7; lower the learning rate", "last good parameters"},
			NonFiniteError{What: "loss", Param: -1, Sample: 7}},
		{"gradient", after(5, infGrad), 4, []string{"the gradient of parameter 2 is -Inf, first for sample 7"},
			NonFiniteError{What: "gradient", Param: 2, Sample: 7}},
		{"error", after(5, func([]float64, []int, *float64, []float64) error { return broken }), 4, []string{"train: step ", " of epoch 1: broken"}, NonFiniteError{}},
		{"no single sample", func(_ []float64, batch []int, loss *float64, _ []float64) error {
			if len(batch) == 20 {
				*loss = math.Inf(1)
			}
			return nil
		}, 0, []string{"train: step 0 of epoch 0: the loss is +Inf; lower"}, NonFiniteError{What: "loss", Param: -1, Sample: -1}},
	} {
		obj := newLinear[float64](20, 3, 0.1)
		obj.hook = c.hook
		var thetas [][]float64
		thetas = append(thetas, []float64{0, 0, 0})
		res, err := Fit(t.Context(), obj, thetas[0], Settings[float64]{BatchSize: c.batch, Epochs: 50, OnStep: func(r Report[float64]) error {
			thetas = append(thetas, slices.Clone(r.Theta))
			return nil
		}})
		wantError(t, err, c.want...)
		if res == nil || res.Stop != Failed {
			t.Errorf("%s: %+v", c.name, res)
			continue
		}
		if bad := (*NonFiniteError)(nil); errors.As(err, &bad) {
			if bad.What != c.error.What || bad.Param != c.error.Param || bad.Sample != c.error.Sample || bad.Step != res.Steps {
				t.Errorf("%s: %+v, want %+v", c.name, bad, c.error)
			}
		} else if !errors.Is(err, broken) {
			t.Errorf("%s: %v", c.name, err)
		}
		// The parameters at which the failure was found are not good any more, those
		// before them are.
		if want := thetas[max(len(thetas)-2, 0)]; !slices.Equal(res.Theta, want) {
			t.Errorf("%s: parameters %v, want %v", c.name, res.Theta, want)
		}
		if len(res.History) != res.Epochs {
			t.Errorf("%s: the history is lost", c.name)
		}
	}

	// An update that overflows.
	obj := newLinear[float64](20, 3, 0.1)
	res, err := Fit(t.Context(), obj, []float64{1, 1, 1}, Settings[float64]{Optimizer: Optimizer{Kind: SGD, LR: 1e308}, Epochs: 3})
	wantError(t, err, "the update of parameter ", " is ", "Inf")
	if res == nil || !slices.Equal(res.Theta, []float64{1, 1, 1}) {
		t.Errorf("%+v", res)
	}

	// A validation.
	val := newLinear[float64](20, 3, 0.1)
	val.hook = nanLoss
	res, err = Fit(t.Context(), obj, []float64{1, 1, 1}, Settings[float64]{Epochs: 3, Validation: val})
	wantError(t, err, "step 1 of epoch 0: the validation loss is NaN, first for sample 0")
	if res == nil || res.Stop != Failed || !slices.Equal(res.Theta, []float64{1, 1, 1}) || !math.IsInf(res.BestLoss, 1) {
		t.Errorf("%+v", res)
	}
	val.hook = func([]float64, []int, *float64, []float64) error { return broken }
	if _, err = Fit(t.Context(), obj, []float64{1, 1, 1}, Settings[float64]{Epochs: 3, Validation: val}); !errors.Is(err, broken) {
		t.Error(err)
	}
	wantError(t, err, "validation loss after step 1 of epoch 0: broken")
}

func TestFit_Cancel(t *testing.T) {
	obj := newLinear[float64](20, 3, 0.1)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	res, err := Fit(ctx, obj, make([]float64, 3), Settings[float64]{BatchSize: 4, OnStep: func(r Report[float64]) error {
		if r.Step == 12 {
			cancel(why)
		}
		return nil
	}})
	wantError(t, err, "train: cancelled at step 12 of epoch 2: enough")
	if !errors.Is(err, why) || res.Stop != Cancelled || res.Steps != 12 || res.Epochs != 2 || len(res.History) != 2 {
		t.Errorf("%+v", res)
	}

	// Inside an evaluation: the update does not happen, and the parameters stay.
	ctx, cancel = context.WithCancelCause(t.Context())
	var last []float64
	obj.hook = func(theta []float64, _ []int, _ *float64, _ []float64) error {
		if obj.calls == 20 {
			cancel(why)
			last = slices.Clone(theta)
			return fmt.Errorf("solve: %w", why)
		}
		return nil
	}
	obj.calls = 0
	res, err = Fit(ctx, obj, make([]float64, 3), Settings[float64]{BatchSize: 4})
	if !errors.Is(err, why) || res.Stop != Cancelled || res.Steps != 19 || !slices.Equal(res.Theta, last) {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestFit_Callbacks(t *testing.T) {
	obj := newLinear[float64](20, 3, 0.1)
	epochs := 0
	set := Settings[float64]{BatchSize: 4, Epochs: 100, Validation: obj, OnEpoch: func(r Report[float64]) error {
		if epochs++; epochs != r.Epoch || math.IsNaN(r.Validation) || len(r.Theta) != 3 {
			t.Errorf("epoch %d: %+v", epochs, r)
		}
		if r.Epoch == 3 {
			return ErrStop
		}
		return nil
	}}
	res, err := Fit(t.Context(), obj, make([]float64, 3), set)
	if err != nil || res.Stop != ByCallback || res.Epochs != 3 || res.Steps != 15 {
		t.Errorf("%+v, %v", res, err)
	}
	// A stop after the last update of an epoch still ends the epoch.
	epochs = 0
	set.OnStep = func(r Report[float64]) error {
		if r.Step == 10 {
			return ErrStop
		}
		return nil
	}
	if res, err = Fit(t.Context(), obj, make([]float64, 3), set); err != nil || res.Stop != ByCallback || res.Epochs != 2 || len(res.History) != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	broken := errors.New("broken")
	set.OnStep = func(r Report[float64]) error { return broken }
	res, err = Fit(t.Context(), obj, make([]float64, 3), set)
	wantError(t, err, "train: the callback of step 1: broken")
	if !errors.Is(err, broken) || res.Stop != Failed {
		t.Errorf("%+v", res)
	}
}

type empty struct{ linear[float64] }

func TestFit_BadInput(t *testing.T) {
	obj := newLinear[float64](10, 2, 0)
	for _, c := range []struct {
		obj   Objective[float64]
		theta []float64
		set   Settings[float64]
		want  string
	}{
		{nil, nil, Settings[float64]{}, "the objective is nil"},
		{&empty{linear[float64]{k: 2}}, []float64{0, 0}, Settings[float64]{}, "the objective has 0 samples"},
		{obj, []float64{0}, Settings[float64]{}, "theta has 1 parameters, and the objective 2"},
		{obj, []float64{0, math.NaN()}, Settings[float64]{}, "parameter 1 is NaN; start from finite ones"},
		{obj, []float64{0, 0}, Settings[float64]{Validation: &empty{linear[float64]{k: 2}}}, "Settings.Validation has 0 samples"},
		{obj, []float64{0, 0}, Settings[float64]{Validation: newLinear[float64](5, 3, 0)}, "Settings.Validation has 3 parameters, more than the 2"},
		{obj, []float64{0, 0}, Settings[float64]{Optimizer: Optimizer{LR: -1}}, "Optimizer.LR is -1"},
		{obj, []float64{0, 0}, Settings[float64]{Schedule: Schedule{Warmup: -1}}, "Schedule.Warmup is -1"},
		{obj, []float64{0, 0}, Settings[float64]{ClipNorm: -1}, "Settings.ClipNorm is -1; give a finite number"},
		{obj, []float64{0, 0}, Settings[float64]{MinDelta: math.NaN()}, "Settings.MinDelta is NaN"},
		{obj, []float64{0, 0}, Settings[float64]{Epochs: -1}, "Settings.Epochs is -1"},
		{obj, []float64{0, 0}, Settings[float64]{Steps: -1}, "Settings.Steps is -1"},
		{obj, []float64{0, 0}, Settings[float64]{BatchSize: -1}, "Settings.BatchSize is -1"},
		{obj, []float64{0, 0}, Settings[float64]{ValidateEvery: -1}, "Settings.ValidateEvery is -1"},
		{obj, []float64{0, 0}, Settings[float64]{Patience: -1}, "Settings.Patience is -1"},
		{obj, []float64{0, 0}, Settings[float64]{CheckpointEvery: -1}, "Settings.CheckpointEvery is -1"},
		{obj, []float64{0, 0}, Settings[float64]{Epochs: math.MaxInt, BatchSize: 1}, "which overflows at 10 updates an epoch"},
	} {
		res, err := Fit(t.Context(), c.obj, c.theta, c.set)
		if res != nil {
			t.Errorf("%s: a result", c.want)
		}
		wantError(t, err, "train: ", c.want)
	}
}

// After the first updates the loop itself allocates nothing but the history.
func TestFit_StepsDoNotAllocate(t *testing.T) {
	obj := newLinear[float64](64, 3, 0.1)
	run := func(steps int) float64 {
		return testing.AllocsPerRun(5, func() {
			if _, err := Fit(context.Background(), obj, make([]float64, 3), Settings[float64]{BatchSize: 1, Steps: steps, ClipNorm: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	if few, many := run(10), run(60); many > few {
		t.Errorf("%v allocations in 10 updates, %v in 60", few, many)
	}
}

func TestProgress_Lines(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.1)
	var b strings.Builder
	set := Settings[float64]{Optimizer: Optimizer{Kind: SGD, LR: 0.1}, Epochs: 100, Validation: obj, Progress: &b, Title: "fit"}
	if _, err := Fit(t.Context(), obj, []float64{0, 0}, set); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 20 || !strings.HasPrefix(lines[0], "fit: epoch 5/100  loss ") || !strings.HasPrefix(lines[19], "fit: epoch 100/100  loss ") ||
		!strings.Contains(lines[3], "  validation ") || !strings.Contains(lines[3], "  lr 0.1  gradient ") || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q", b.String())
	}
	// A run that ends between two lines shows where.
	b.Reset()
	set.OnEpoch = func(r Report[float64]) error {
		if r.Epoch == 7 {
			return ErrStop
		}
		return nil
	}
	if _, err := Fit(t.Context(), obj, []float64{0, 0}, set); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(b.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "fit: epoch 7/100") {
		t.Errorf("%q", b.String())
	}
}

func TestProgress_Bar(t *testing.T) {
	var b strings.Builder
	r := makeReporter(&b, true, "fit", "epoch", 40, 4)
	r.resume(8)
	for i := 9; i <= 40; i++ {
		if i == 20 {
			time.Sleep(barPeriod)
		}
		r.step(Record{Epoch: i / 4, Step: i, Loss: 1 / float64(i), Validation: math.NaN(), LR: 0.1, GradNorm: 2})
	}
	r.close()
	out := b.String()
	if !strings.Contains(out, "\r") || !strings.Contains(out, "fit: epoch 5/10  loss 0.05  lr 0.1  gradient 2  50% |") || !strings.Contains(out, "continues after step 8") ||
		!strings.HasSuffix(out, "fit: epoch 10/10  loss 0.025  lr 0.1  gradient 2\n") {
		t.Errorf("%q", out)
	}
}
