package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// training holds the flags of train.
type training struct {
	config, data, out string
	resume, overwrite bool

	layout    table.Layout
	normalize bool

	hidden                      []int
	activation, time, precision string
	augment                     int

	learnZ0    bool
	window     int
	validation float64
	validateBy string

	loss, optimizer, schedule              string
	huber, lr, weightDecay, clip, minDelta float64
	epochs, batch, patience, warmup, every int
	seed                                   uint64
	solving
}

func (a *app) trainCommand() *cobra.Command {
	t := &training{}
	cmd := &cobra.Command{
		Use:   "train [DATA]",
		Short: "Learn dz/dt = f(z, t) from a table",
		Long: `Train fits a multilayer perceptron f, so that the solutions of dz/dt = f(z, t) pass
through the observations in DATA: CSV, Parquet (.parquet), NumPy (.npy, the first column
the time), or - for CSV on standard input. A row is an instant; empty cells are missing
values. A column that tells series apart makes it many trajectories, of any lengths.

It writes into the folder --out: model.safetensors, which has the units too, so that
predict takes and gives those of the data; metrics.csv and metrics.jsonl; report.html;
config.yaml, the settings, which --config reads; checkpoint.safetensors. Ctrl-C stops it
and saves the best model. --resume goes on from the checkpoint, also after a kill.

States are scaled to mean 0 and standard deviation 1, the time so that they move by
about 1 in 1. Tolerances, steps and the loss are in these units.`,
		Example: `  neuralode train spiral.csv --out run
  neuralode train patients.csv --id patient --states weight,dose --hidden 64,64
  neuralode train long.csv --window 10 --batch 32 --epochs 500 --schedule cosine
  neuralode train --config run/config.yaml --epochs 1000 --resume`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%q is one argument too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.train(cmd, t, args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&t.config, "config", "", "YAML or TOML file of settings, which are named like the flags; flags go before it")
	f.StringVar(&t.data, "data", "", "what DATA is, for config files")
	f.StringVar(&t.out, "out", "run", "folder for the results")
	f.BoolVar(&t.resume, "resume", false, "go on from the checkpoint in --out")
	f.BoolVar(&t.overwrite, "overwrite", false, "begin afresh where --out has a run already")

	f.StringVar(&t.layout.Time, "time-column", "", "column of times (default time or t, else the first)")
	f.StringVar(&t.layout.ID, "id", "", "column that tells series apart (default series or series_id, if any)")
	f.StringSliceVar(&t.layout.States, "states", nil, "columns of states (default all others)")
	f.BoolVar(&t.normalize, "normalize", true, "scale states and times")

	f.IntSliceVar(&t.hidden, "hidden", []int{32, 32}, "widths of the hidden layers")
	f.StringVar(&t.activation, "activation", "tanh", "activation of the hidden layers: "+names(mlp.Activations()))
	f.StringVar(&t.time, "time", "none", "layers that see the time: none, input or every_layer")
	f.IntVar(&t.augment, "augment", 0, "components of the state beyond those observed; they begin at 0")
	f.StringVar(&t.precision, "precision", "float64", "float32 or float64")

	f.BoolVar(&t.learnZ0, "learn-z0", false, "learn the initial states, beginning with the first observations")
	f.IntVar(&t.window, "window", 0, "cut series into all windows of so many rows; 0: none")
	f.Float64Var(&t.validation, "validation", 0.2, "fraction of the data that is held out to choose the best model")
	f.StringVar(&t.validateBy, "validate-by", "auto", "hold out whole series, series, or the ends of all, time; auto: series from 5 on")

	f.StringVar(&t.loss, "loss", "mse", "loss: mse, mae or huber")
	f.Float64Var(&t.huber, "huber-delta", 1, "where the Huber loss becomes linear")
	f.StringVar(&t.optimizer, "optimizer", "adam", "optimizer: adam, adamw, rmsprop or sgd")
	f.Float64Var(&t.lr, "lr", 0.01, "learning rate")
	f.Float64Var(&t.weightDecay, "weight-decay", 0, "weight decay (default 0.01 for adamw)")
	f.Float64Var(&t.clip, "clip", 0, "limit of the gradient's norm; 0: none")
	f.StringVar(&t.schedule, "schedule", "constant", "course of the learning rate: constant, exponential or cosine")
	f.IntVar(&t.warmup, "warmup", 0, "updates in which the learning rate rises")
	f.IntVar(&t.epochs, "epochs", 200, "how often all of the data are used")
	f.IntVar(&t.batch, "batch", 0, "series (or windows) in an update; 0: all")
	f.IntVar(&t.patience, "patience", 0, "stop after so many epochs without improvement; 0: never")
	f.Float64Var(&t.minDelta, "min-delta", 0, "what counts as improvement")
	f.IntVar(&t.every, "checkpoint-every", 0, "updates between checkpoints; 0: 10 seconds")
	f.Uint64Var(&t.seed, "seed", 1, "seed of the weights, the division and the order")
	t.solving.add(f)
	t.solving.addStepping(f)
	return cmd
}

// What is larger than these is a mistake, and would take the memory of a machine.
const (
	maxAugment = 1000
	maxParams  = 50_000_000
)

// What train can choose from.
func losses() []train.LossKind { return []train.LossKind{train.MSE, train.MAE, train.Huber} }
func optimizers() []train.OptimizerKind {
	return []train.OptimizerKind{train.Adam, train.AdamW, train.RMSprop, train.SGD}
}
func schedules() []train.ScheduleKind {
	return []train.ScheduleKind{train.Constant, train.Exponential, train.Cosine}
}

// texts are the names of what can be chosen.
func texts[E fmt.Stringer](list []E) []string {
	var text []string
	for _, e := range list {
		text = append(text, e.String())
	}
	return text
}

func names[E fmt.Stringer](list []E) string { return strings.Join(texts(list), ", ") }

// choose finds the value called name.
func choose[E fmt.Stringer](flag, name string, list []E) (E, error) {
	for _, e := range list {
		if e.String() == name {
			return e, nil
		}
	}
	var none E
	return none, usagef("there is no --%s %q; give one of %s", flag, name, names(list))
}

func (a *app) train(cmd *cobra.Command, t *training, args []string) error {
	if len(args) > 0 {
		t.data = args[0]
		cmd.Flags().Set("data", args[0])
	}
	if t.config != "" {
		if err := readConfig(t.config, cmd.Flags()); err != nil {
			return err
		}
	}
	switch {
	case t.data == "":
		return usagef("DATA is missing; give a file, or data in --config")
	case t.resume && t.overwrite:
		return usagef("--resume and --overwrite exclude each other")
	case !(t.validation >= 0 && t.validation < 1):
		return usagef("--validation is %g; give a fraction of at least 0 and less than 1", t.validation)
	case t.validateBy != "auto" && t.validateBy != "series" && t.validateBy != "time":
		return usagef("there is no --validate-by %q; give auto, series or time", t.validateBy)
	case t.augment < 0 || t.augment > maxAugment:
		return usagef("--augment is %d; give 0 to %d", t.augment, maxAugment)
	case t.epochs < 1:
		return usagef("--epochs is %d; give at least 1", t.epochs)
	case !(t.lr > 0 && t.huber > 0):
		return usagef("--lr is %g and --huber-delta %g; give positive numbers", t.lr, t.huber)
	case t.window < 0 || t.window == 1:
		return usagef("--window is %d; give 0 or at least 2 rows", t.window)
	case t.window > 0 && t.learnZ0:
		return usagef("--window and --learn-z0 exclude each other: windows begin with the states that were observed")
	}
	for flag, v := range map[string]float64{
		"weight-decay": t.weightDecay, "clip": t.clip, "min-delta": t.minDelta, "warmup": float64(t.warmup),
		"batch": float64(t.batch), "patience": float64(t.patience), "checkpoint-every": float64(t.every),
	} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return usagef("--%s is %g; give a finite number of at least 0", flag, v)
		}
	}
	switch t.precision {
	case "float64":
		return fit[float64](cmd.Context(), a, t, cmd.Flags())
	case "float32":
		return fit[float32](cmd.Context(), a, t, cmd.Flags())
	}
	return usagef("there is no --precision %q; give float32 or float64", t.precision)
}

// spec is the network for so many states.
func (t *training) spec(dim int) (mlp.Spec, error) {
	act, err := mlp.ParseActivation(t.activation)
	if err != nil {
		return mlp.Spec{}, usageError{err}
	}
	spec := mlp.Dense(act, append(append([]int{dim}, t.hidden...), dim)...)
	if spec.Time, err = mlp.ParseTime(t.time); err == nil {
		err = spec.Validate()
	}
	if err != nil {
		return spec, usageError{err}
	}
	if n := spec.NumParams(); n > maxParams {
		return spec, usagef("the network has %d parameters, and train takes at most %d; give fewer or narrower --hidden layers", n, maxParams)
	}
	return spec, nil
}

// losses is the part of the settings that says what is fitted.
func (t *training) losses() (train.TrajectorySettings, error) {
	kind, err := choose("loss", t.loss, losses())
	set := train.TrajectorySettings{Loss: train.Loss{Kind: kind}, LearnZ0: t.learnZ0}
	if kind == train.Huber {
		set.Loss.Delta = t.huber
	}
	return set, err
}

// updates is the part of the settings that says how.
func (t *training) updates() (optimizer train.Optimizer, schedule train.Schedule, err error) {
	o, err := choose("optimizer", t.optimizer, optimizers())
	if err != nil {
		return optimizer, schedule, err
	}
	s, err := choose("schedule", t.schedule, schedules())
	return train.Optimizer{Kind: o, LR: t.lr, WeightDecay: t.weightDecay}, train.Schedule{Kind: s, Warmup: t.warmup}, err
}

// outcome is what train prints with --json.
type outcome struct {
	Model       string   `json:"model"`
	Report      string   `json:"report"`
	Stop        string   `json:"stop"`
	Epochs      int      `json:"epochs"`
	Updates     int      `json:"updates"`
	Resumed     int      `json:"resumed"`
	BestLoss    float64  `json:"best_loss"`
	BestUpdate  int      `json:"best_update"`
	ValidatedBy string   `json:"validated_by"`
	Series      int      `json:"series"`
	Parameters  int      `json:"parameters"`
	Seconds     float64  `json:"seconds"`
	Remarks     []string `json:"remarks,omitempty"`
}

// fit trains and writes the results.
func fit[T backend.Float](ctx context.Context, a *app, t *training, flags *pflag.FlagSet) (err error) {
	began := time.Now()
	losses, err := t.losses()
	if err != nil {
		return err
	}
	optimizer, schedule, err := t.updates()
	if err != nil {
		return err
	}
	set, err := t.over(solver.Settings{}, flags)
	if err != nil {
		return err
	}
	tab, err := table.Read(t.data, a.in)
	if err != nil {
		return err
	}
	series, err := tab.Series(t.layout)
	if err != nil {
		return err
	}
	data, err := newDataset(series, t)
	if err != nil {
		return err
	}
	if len(data.training) == 0 {
		return fmt.Errorf("no window begins with a complete state; choose another --window, or 0")
	}
	if set.Stepping == solver.Joint && (ragged(data.training) || len(data.held) > 0 && ragged(data.held)) {
		if flags.Changed("stepping") {
			data.remarks = append(data.remarks, "the series have times of their own, so each has its own step size in place of --stepping joint")
		}
		set.Stepping = solver.PerSample
	}
	spec, err := t.spec(data.dim)
	if err != nil {
		return err
	}
	model, err := mlp.New[T](spec, mlp.Init{}, t.seed)
	if err != nil {
		return err
	}
	dev, err := openBackend[T](t.backend)
	if err != nil {
		return err
	}
	defer dev.Close()
	s, err := solver.New(dev, model, set)
	if err != nil {
		return err
	}
	defer s.Close()
	obj, err := newObjective(s, data.training, losses)
	if err != nil {
		return err
	}
	defer obj.Close()
	var validation train.Objective[T]
	if len(data.held) > 0 {
		own := losses
		own.LearnZ0 = t.learnZ0 && data.by == "time" // else other series: from the first observation
		v, err := newObjective(s, data.held, own)
		if err != nil {
			return fmt.Errorf("validation: %w", err)
		}
		defer v.Close()
		validation = v
	}

	run := &runFolder{path: t.out}
	if err := run.open(t); err != nil {
		return err
	}
	config, err := configOf(flags)
	if err != nil {
		return err
	}
	theta, err := obj.Params()
	if err != nil {
		return err
	}
	for _, r := range data.remarks {
		fmt.Fprintln(a.err, "note:", r)
	}
	updates := (len(data.training) + t.batchSize(len(data.training)) - 1) / t.batchSize(len(data.training)) * t.epochs
	show := newProgress(a.err, updates, obj)
	settings := train.Settings[T]{
		Optimizer: optimizer, Schedule: schedule, ClipNorm: t.clip,
		Epochs: t.epochs, BatchSize: t.batch, Seed: t.seed,
		Validation: validation, Patience: t.patience, MinDelta: t.minDelta,
		Checkpoint: run.file("checkpoint.safetensors"), CheckpointEvery: t.every,
		OnEpoch: func(r train.Report[T]) error {
			show.epoch(r.Record, t.epochs)
			return errors.Join(run.settings(config), run.append(r.Record))
		},
	}
	res, err := train.Fit(ctx, obj, theta, settings)
	show.close()
	if res == nil {
		return err
	}
	if err := run.settings(config); err != nil {
		return err
	}
	best := &mlp.Model[T]{Spec: spec, Theta: res.Best[:spec.NumParams()]}
	meta := data.meta
	meta.Method, meta.Stepping = t.method, set.Stepping.String()
	meta.RTol, meta.ATol, meta.Step = t.rtol, t.atol, t.step
	if t.learnZ0 {
		data.learned(meta.Series, cast[float64](res.Best[spec.NumParams():]))
	}
	out := outcome{
		Model: run.file("model.safetensors"), Report: run.file("report.html"),
		Stop: res.Stop.String(), Epochs: res.Epochs, Updates: res.Steps, Resumed: res.Resumed,
		BestLoss: res.BestLoss, BestUpdate: res.BestStep, ValidatedBy: data.by,
		Series: len(data.series), Parameters: spec.NumParams(), Seconds: time.Since(began).Seconds(), Remarks: data.remarks,
	}
	saved := errors.Join(
		modelfile.Save(out.Model, best, meta),
		run.metrics(res.History),
		run.report(out, string(config), data, &modelfile.File{Model: mlp.Convert[float64](best), Meta: meta}, res.History),
	)
	if err = errors.Join(err, saved); err != nil {
		if saved == nil {
			err = fmt.Errorf("%w; the best model so far is in %s, and --resume goes on", err, out.Model)
		}
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	_, err = fmt.Fprintf(a.out, "%s after %d epochs, loss %.4g (%s); see %s\n", out.Stop, out.Epochs, out.BestLoss,
		map[bool]string{true: "training", false: "validation"}[validation == nil], filepath.ToSlash(out.Report))
	return err
}

func (t *training) batchSize(n int) int { return min(cmp.Or(t.batch, n), n) }
