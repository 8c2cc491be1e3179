package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

// Settings says how [Fit] trains. Its zero value is 100 epochs of Adam on all
// samples at once, silently.
type Settings[T backend.Float] struct {
	Optimizer Optimizer
	Schedule  Schedule
	// ClipNorm limits the Euclidean norm of the gradient, see [ClipNorm]; 0: no limit.
	ClipNorm float64

	// Epochs is how often every sample is used, Steps the number of updates: the
	// run ends at whichever comes first, and 0 is no limit; both 0 mean 100 epochs.
	// A run that a checkpoint says has ended goes on if they are raised, unless its
	// Schedule was fitted to the run (see Schedule.Period) and so is another one now.
	Epochs, Steps int
	// BatchSize is the number of samples of an update; the last of an epoch may
	// have fewer. 0, or more than there are, means all of them, in their order.
	BatchSize int
	// Seed selects the order of samples, another one in every epoch.
	Seed uint64

	// Validation, if not nil, chooses the best parameters by its loss over all its
	// samples. If it has fewer parameters than the objective it gets the first of
	// them. Nil means the training loss: the exact one if an update takes all
	// samples, else the mean over an epoch's batches.
	Validation Objective[T]
	// ValidateEvery is the number of epochs between validations; 0 means 1.
	ValidateEvery int
	// Patience ends the run after so many validations, or without Validation epochs,
	// in which the loss did not fall by more than MinDelta; 0: never.
	Patience int
	MinDelta float64

	// Checkpoint, if not empty, is the path of a safetensors file that the state of
	// the run is saved to, atomically. If it exists, the run continues from it, bit
	// for bit as if it had not stopped, and theta is not used. A file that is
	// damaged or of another model, data or settings is an error.
	Checkpoint string
	// CheckpointEvery is the number of updates between saves; 0 means a save after
	// every 10 seconds. The run's end saves too, a failure does not.
	CheckpointEvery int

	// Progress, if not nil, gets a progress bar if it is a terminal and some twenty
	// lines otherwise; os.Stderr is the usual choice. Title stands in front.
	Progress io.Writer
	Title    string

	// OnStep is called after every update, OnEpoch after every epoch. An error ends
	// the run; [ErrStop] ends it as a success. After a kill the calls since the last
	// save are repeated.
	OnStep, OnEpoch func(Report[T]) error
}

// ErrStop is what a callback returns to end a run without an error.
var ErrStop = errors.New("train: stopped by a callback")

// Record is an entry of a run's history.
type Record struct {
	Epoch int // epochs finished
	Step  int // updates made
	// Loss is the training loss before the update; for an epoch, the mean over its
	// batches, weighted by their number of samples.
	Loss       float64
	Validation float64 // loss of Settings.Validation after the update; NaN: not computed
	LR         float64 // learning rate of the last update
	GradNorm   float64 // of the last update, before clipping
}

// Report is what callbacks get.
type Report[T backend.Float] struct {
	Record
	Theta []T // θ after the update; not to be changed or kept
}

// Stop says why a run ended.
type Stop uint8

const (
	Completed    Stop = iota // did its epochs, steps or iterations
	EarlyStopped             // no improvement for Patience
	Converged                // LBFGS: the gradient vanishes, or the loss hardly falls
	NoProgress               // LBFGS: no step along the gradient lowers the loss, by rounding
	ByCallback               // a callback returned ErrStop
	Cancelled                // the context ended
	Failed                   // an error, see there
)

var stopNames = []string{"completed", "stopped early", "converged", "no progress", "stopped by a callback", "cancelled", "failed"}

func (s Stop) String() string { return enumString("Stop", stopNames, s) }

// Result is what a run reached. The caller owns its memory.
type Result[T backend.Float] struct {
	Theta []T // the last parameters with a finite loss and gradient, if it failed
	// Best are the parameters with the smallest loss, and BestLoss and BestStep that
	// loss and the number of updates made when it was found. Without any, before
	// the first epoch ended, they are Theta and +Inf.
	Best     []T
	BestLoss float64
	BestStep int

	Steps, Epochs int // updates made and epochs finished, those before a resume too
	Resumed       int // updates that the checkpoint had
	Evaluations   int // gradients computed by this call
	Stop          Stop
	History       []Record // one entry an epoch; one an iteration of LBFGS
}

// Fit minimises obj from theta, which is copied. What was reached is returned with
// every error but those about its arguments and the checkpoint. An Objective's
// error, and a loss, gradient or parameter that is not finite (a *[NonFiniteError]),
// end the run; so does ctx, whose error is wrapped.
//
// Where obj is a [Trajectories] without learned initial states, on a backend that is a
// backend.Trainer and has room for all of the data, the run stays on the device, which
// sends back a few words an update. The results are the host's to rounding.
func Fit[T backend.Float](ctx context.Context, obj Objective[T], theta []T, set Settings[T]) (*Result[T], error) {
	f, err := newFit(obj, theta, set)
	if err != nil {
		return nil, err
	}
	defer f.close()
	stop, err := f.run(ctx)
	if e := f.pull(); e != nil {
		stop, err = Failed, errors.Join(err, e)
	}
	if f.set.Checkpoint != "" && stop != Failed {
		err = errors.Join(err, f.save())
	}
	if err != nil {
		return f.result(stop), err
	}
	return f.finish(ctx, stop)
}

// progress is the part of a run's state that is numbers.
type progress struct {
	Step      int    `json:"step"`
	Epoch     int    `json:"epoch"`
	Position  int    `json:"position"` // samples of the epoch that were used
	LossSum   number `json:"loss_sum"` // over the epoch's batches, times their sizes
	LR        number `json:"lr"`
	GradNorm  number `json:"grad_norm"`
	BestLoss  number `json:"best_loss"`
	BestStep  int    `json:"best_step"`
	Reference number `json:"reference_loss"` // the smallest by more than MinDelta
	Bad       int    `json:"bad"`            // validations since then
}

// state is all that a run's future depends on.
type state[T backend.Float] struct {
	progress
	theta   []T
	good    []T // the last parameters known to have a finite loss and gradient
	best    []T
	opt     *OptimizerState[T]
	history []Record
}

type fit[T backend.Float] struct {
	state[T]
	obj      Objective[T]
	set      Settings[T] // defaults filled in
	n        int         // samples
	updates  int         // after which the run ends
	perEpoch int
	identity map[string]string
	resumed  int

	evaluations int
	grad        []T
	order       []int // samples of this epoch
	all         []int // samples of the validation
	saved       time.Time
	rep         *reporter
	dev         *resident[T] // nil if updates are made on the host
}

func newFit[T backend.Float](obj Objective[T], theta []T, set Settings[T]) (*fit[T], error) {
	if err := checkStart(obj, set.Validation, theta); err != nil {
		return nil, err
	}
	if err := errors.Join(set.Optimizer.Validate(), set.Schedule.Validate()); err != nil {
		return nil, err
	}
	for _, v := range []struct {
		name  string
		value float64
	}{
		{"ClipNorm", set.ClipNorm}, {"MinDelta", set.MinDelta},
		{"Epochs", float64(set.Epochs)}, {"Steps", float64(set.Steps)}, {"BatchSize", float64(set.BatchSize)},
		{"ValidateEvery", float64(set.ValidateEvery)}, {"Patience", float64(set.Patience)},
		{"CheckpointEvery", float64(set.CheckpointEvery)},
	} {
		if !(v.value >= 0) || math.IsInf(v.value, 0) {
			return nil, fmt.Errorf("train: Settings.%s is %g; give a finite number that is not negative", v.name, v.value)
		}
	}
	f := &fit[T]{obj: obj, n: obj.NumSamples()}
	if set.BatchSize == 0 {
		set.BatchSize = f.n
	}
	set.BatchSize = min(set.BatchSize, f.n)
	set.ValidateEvery = max(set.ValidateEvery, 1)
	f.perEpoch = (f.n + set.BatchSize - 1) / set.BatchSize
	if set.Epochs == 0 && set.Steps == 0 {
		set.Epochs = 100
	}
	f.updates = set.Steps
	if e := set.Epochs; e > 0 {
		if e > math.MaxInt/f.perEpoch {
			return nil, fmt.Errorf("train: Settings.Epochs is %d, which overflows at %d updates an epoch; set Steps", e, f.perEpoch)
		}
		if e *= f.perEpoch; f.updates == 0 || e < f.updates {
			f.updates = e
		}
	}
	set.Optimizer = set.Optimizer.WithDefaults()
	set.Schedule = set.Schedule.WithDefaults(f.updates)
	f.set = set

	f.theta = slices.Clone(theta)
	f.good = slices.Clone(theta)
	f.best = slices.Clone(theta)
	f.opt = NewOptimizerState[T](set.Optimizer, len(theta))
	f.BestLoss, f.Reference = number(math.Inf(1)), number(math.Inf(1))
	f.grad = make([]T, len(theta))
	f.order = count(f.n)
	if set.Validation != nil {
		f.all = count(set.Validation.NumSamples())
	}
	if set.Checkpoint != "" {
		if err := f.open(); err != nil {
			return nil, err
		}
	}
	f.resumed = f.Step
	f.saved = time.Now()
	if f.Position > 0 {
		f.shuffle()
	}
	var err error
	if f.dev, err = newResident(obj, &f.state); err != nil {
		return nil, err
	}
	f.rep = newReporter(set.Progress, set.Title, "epoch", f.updates, f.perEpoch)
	f.rep.resume(f.Step)
	return f, nil
}

func (f *fit[T]) close() {
	f.rep.close()
	if f.dev != nil {
		f.dev.close()
	}
}

// pull brings the host's state up to that of a device that makes the updates.
func (f *fit[T]) pull() error {
	if f.dev == nil {
		return nil
	}
	if err := f.dev.pull(&f.state); err != nil {
		return fmt.Errorf("train: reading the parameters after step %d: %w", f.Step, err)
	}
	return nil
}

// full: every update takes all samples.
func (f *fit[T]) full() bool { return f.set.BatchSize == f.n }

// exact: the training loss chooses the best parameters, and an update computes it.
func (f *fit[T]) exact() bool { return f.full() && f.set.Validation == nil }

func (f *fit[T]) shuffle() {
	if !f.full() {
		shuffle(f.order, f.set.Seed, f.Epoch)
	}
}

func (f *fit[T]) run(ctx context.Context) (Stop, error) {
	for {
		switch {
		case ctx.Err() != nil:
			return f.stopped(ctx, nil)
		case f.Position == f.n: // cancelled at the end of an epoch and resumed
		case f.set.Patience > 0 && f.Bad >= f.set.Patience:
			return EarlyStopped, nil
		case f.Step >= f.updates:
			return Completed, nil
		}
		if err := f.advance(ctx); err != nil {
			return f.stopped(ctx, err)
		}
		every := f.set.CheckpointEvery
		if f.set.Checkpoint != "" && (every > 0 && f.Step%every == 0 || every == 0 && time.Since(f.saved) >= 10*time.Second) {
			if err := f.save(); err != nil {
				return f.stopped(ctx, err)
			}
		}
	}
}

// stopped says how err ended the run. After a failure it goes back to the last good
// parameters.
func (f *fit[T]) stopped(ctx context.Context, err error) (Stop, error) {
	switch {
	case errors.Is(err, ErrStop):
		return ByCallback, nil
	case ctx.Err() != nil:
		return Cancelled, fmt.Errorf("train: cancelled at step %d of epoch %d: %w", f.Step, f.Epoch, context.Cause(ctx))
	}
	if e := f.pull(); e != nil {
		err = errors.Join(err, e)
	}
	copy(f.theta, f.good)
	return Failed, err
}

// advance makes one update and, if it was its last, ends the epoch.
func (f *fit[T]) advance(ctx context.Context) (err error) {
	if f.Position < f.n {
		if err = f.step(ctx); err != nil && !errors.Is(err, ErrStop) {
			return err
		}
	}
	if f.Position == f.n {
		if end := f.endEpoch(ctx); end != nil {
			return end
		}
	}
	return err
}

// step makes one update.
func (f *fit[T]) step(ctx context.Context) error {
	if f.Position == 0 {
		f.shuffle()
	}
	batch := f.order[f.Position:min(f.Position+f.set.BatchSize, f.n)]
	f.evaluations++
	factor := f.set.Schedule.Factor(f.Step)
	loss, norm, err := f.update(ctx, batch, factor)
	if err != nil {
		return err
	}
	f.Step++
	f.Position += len(batch)
	f.LossSum += number(loss * float64(len(batch)))
	f.LR, f.GradNorm = number(f.set.Optimizer.LR*factor), number(norm)
	now := Record{Epoch: f.Epoch, Step: f.Step, Loss: loss, Validation: math.NaN(), LR: float64(f.LR), GradNorm: norm}
	if f.Position < f.n {
		f.rep.step(now)
	}
	return f.call(f.set.OnStep, now)
}

// update makes one update and returns the loss and the gradient's norm before it.
func (f *fit[T]) update(ctx context.Context, batch []int, factor float64) (loss, norm float64, err error) {
	if f.dev != nil {
		if loss, norm, err = f.updateOnDevice(ctx, batch, factor); !errors.Is(err, errHost) {
			return loss, norm, err
		}
		if err = f.pull(); err != nil {
			return 0, 0, err
		}
	}
	if loss, err = f.obj.Gradient(ctx, f.theta, batch, f.grad); err != nil {
		return 0, 0, fmt.Errorf("train: step %d of epoch %d: %w", f.Step, f.Epoch, err)
	}
	norm = math.NaN()
	if finite(loss) {
		norm = Norm(f.grad)
	}
	if !finite(norm) {
		return 0, 0, f.diagnose(ctx, batch, loss, norm)
	}
	if f.set.ClipNorm > 0 {
		ClipNorm(f.grad, f.set.ClipNorm)
	}
	copy(f.good, f.theta)
	if f.exact() && f.improves(loss) {
		copy(f.best, f.theta)
	}
	Update(f.set.Optimizer, factor, f.theta, f.grad, f.opt)
	if i := learn.FirstNonFinite(f.theta); i >= 0 {
		return 0, 0, f.badUpdate(i)
	}
	if f.dev != nil {
		err = f.dev.push(&f.state)
	}
	return loss, norm, err
}

// updateOnDevice is update without the host, or errHost if it takes the host.
func (f *fit[T]) updateOnDevice(ctx context.Context, batch []int, factor float64) (loss, norm float64, err error) {
	o := f.set.Optimizer.plain(f.opt.Step+1, factor)
	o.Clip = f.set.ClipNorm
	out, err := f.dev.step(ctx, batch, o)
	if err != nil {
		return 0, 0, fmt.Errorf("train: step %d of epoch %d: %w", f.Step, f.Epoch, err)
	}
	f.opt.Step++
	if f.exact() && f.improves(out.Loss) {
		f.dev.keep()
	}
	if out.BadParam >= 0 {
		if err := f.pull(); err != nil {
			return 0, 0, err
		}
		return 0, 0, f.badUpdate(out.BadParam)
	}
	return out.Loss, out.Norm, nil
}

// badUpdate is the error of an update that made parameter i not finite.
func (f *fit[T]) badUpdate(i int) error {
	return &NonFiniteError{What: "update", Value: float64(f.theta[i]), Step: f.Step, Epoch: f.Epoch, Param: i, Sample: -1}
}

func (f *fit[T]) call(callback func(Report[T]) error, r Record) error {
	if callback == nil {
		return nil
	}
	if err := f.pull(); err != nil {
		return err
	}
	if err := callback(Report[T]{Record: r, Theta: f.theta}); err != nil {
		return fmt.Errorf("train: the callback of step %d: %w", r.Step, err)
	}
	return nil
}

// diagnose finds what is not finite.
func (f *fit[T]) diagnose(ctx context.Context, batch []int, loss, norm float64) error {
	e := &NonFiniteError{What: "loss", Value: loss, Step: f.Step, Epoch: f.Epoch, Param: -1, Sample: -1}
	if !finite(loss) {
		e.Sample = blame(ctx, f.obj, f.theta, batch, nil)
	} else {
		e.What, e.Value = "gradient", norm
		if e.Param = learn.FirstNonFinite(f.grad); e.Param >= 0 {
			e.Value = float64(f.grad[e.Param])
			e.Sample = blame(ctx, f.obj, f.theta, batch, f.grad)
		}
	}
	return e
}

// endEpoch validates and writes the history.
func (f *fit[T]) endEpoch(ctx context.Context) error {
	r := Record{
		Epoch: f.Epoch + 1, Step: f.Step, Loss: float64(f.LossSum) / float64(f.n), Validation: math.NaN(),
		LR: float64(f.LR), GradNorm: float64(f.GradNorm),
	}
	if f.set.Validation == nil {
		if !f.full() {
			if err := f.consider(r.Loss); err != nil {
				return err
			}
		}
	} else if r.Epoch%f.set.ValidateEvery == 0 {
		loss, err := f.validate(ctx)
		if err != nil {
			return err
		}
		r.Validation = loss
		if err := f.consider(loss); err != nil {
			return err
		}
	}
	f.Epoch, f.Position, f.LossSum = r.Epoch, 0, 0
	f.history = append(f.history, r)
	f.rep.step(r)
	return f.call(f.set.OnEpoch, r)
}

// validate is the loss of the current parameters on the validation's samples or,
// without a validation, on all samples.
func (f *fit[T]) validate(ctx context.Context) (float64, error) {
	obj, all, what := f.set.Validation, f.all, "validation loss"
	if obj == nil {
		obj, all, what = f.obj, f.order, "loss"
	}
	if err := f.pull(); err != nil {
		return 0, err
	}
	theta := f.theta[:obj.NumParams()]
	loss, err := obj.Loss(ctx, theta, all)
	if err != nil {
		return 0, fmt.Errorf("train: %s after step %d of epoch %d: %w", what, f.Step, f.Epoch, err)
	}
	if !finite(loss) {
		return 0, &NonFiniteError{
			What: what, Value: loss, Step: f.Step, Epoch: f.Epoch, Param: -1,
			Sample: blame(ctx, obj, theta, all, nil),
		}
	}
	return loss, nil
}

// consider compares the loss of the current parameters with the best one.
func (f *fit[T]) consider(loss float64) error {
	if f.improves(loss) {
		if err := f.pull(); err != nil {
			return err
		}
		copy(f.best, f.theta)
	}
	return nil
}

// improves notes a loss and reports whether it is the smallest.
func (f *fit[T]) improves(loss float64) bool {
	best := loss < float64(f.BestLoss)
	if best {
		f.BestLoss, f.BestStep = number(loss), f.Step
	}
	if loss < float64(f.Reference)-f.set.MinDelta {
		f.Reference, f.Bad = number(loss), 0
	} else {
		f.Bad++
	}
	return best
}

// finish completes the result of a run that did not fail with what a checkpoint
// must not have, because a longer run would not have it: the record of an epoch
// cut short, and the loss of the last parameters if it chooses the best.
func (f *fit[T]) finish(ctx context.Context, stop Stop) (*Result[T], error) {
	if f.Position > 0 {
		f.history = append(f.history, Record{
			Epoch: f.Epoch, Step: f.Step, Loss: float64(f.LossSum) / float64(f.Position), Validation: math.NaN(),
			LR: float64(f.LR), GradNorm: float64(f.GradNorm),
		})
	}
	n := len(f.history)
	if n > 0 && (f.exact() || f.set.Validation != nil && math.IsNaN(f.history[n-1].Validation)) {
		loss, err := f.validate(ctx)
		if err != nil {
			stop, err = f.stopped(ctx, err)
			return f.result(stop), err
		}
		if f.set.Validation != nil {
			f.history[n-1].Validation = loss
		}
		if err := f.consider(loss); err != nil {
			return f.result(Failed), err
		}
	}
	return f.result(stop), nil
}

func (f *fit[T]) result(stop Stop) *Result[T] {
	if math.IsInf(float64(f.BestLoss), 1) {
		copy(f.best, f.theta)
		f.BestStep = f.Step
	}
	return &Result[T]{
		Theta: f.theta, Best: f.best, BestLoss: float64(f.BestLoss), BestStep: f.BestStep,
		Steps: f.Step, Epochs: f.Epoch, Resumed: f.resumed, Evaluations: f.evaluations, Stop: stop, History: f.history,
	}
}
