package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// sameRun compares two results to the last bit, but for what says how they came
// about.
func sameRun[T backend.Float](t *testing.T, what string, got, want *Result[T]) {
	t.Helper()
	bits := func(x []T) string { return fmt.Sprintf("%x", x) }
	if bits(got.Theta) != bits(want.Theta) || bits(got.Best) != bits(want.Best) {
		t.Errorf("%s: parameters %v, best %v, want %v, %v", what, got.Theta, got.Best, want.Theta, want.Best)
	}
	if got.BestLoss != want.BestLoss || got.BestStep != want.BestStep || got.Steps != want.Steps || got.Epochs != want.Epochs || got.Stop != want.Stop {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
	if a, b := fmt.Sprintf("%x", flatten(got.History)), fmt.Sprintf("%x", flatten(want.History)); a != b {
		t.Errorf("%s: history %v, want %v", what, got.History, want.History)
	}
}

func TestCheckpoint_ResumesBitEqual(t *testing.T) {
	t.Run("float64", resumesBitEqual[float64])
	t.Run("float32", resumesBitEqual[float32])
}

func resumesBitEqual[T backend.Float](t *testing.T) {
	obj, val := newLinear[T](13, 3, 0.3), newLinear[T](5, 3, 0.2)
	cosine := Schedule{Kind: Cosine, Warmup: 3}
	for name, set := range map[string]Settings[T]{
		"adam":         {BatchSize: 4, Epochs: 4, Schedule: cosine, ClipNorm: 2, Validation: val, ValidateEvery: 2},
		"adamw full":   {Optimizer: Optimizer{Kind: AdamW, LR: 0.1}, Epochs: 9},
		"rmsprop":      {Optimizer: Optimizer{Kind: RMSprop, Momentum: 0.5, Centered: true}, BatchSize: 5, Steps: 8, Seed: 3, Validation: val},
		"sgd":          {Optimizer: Optimizer{Kind: SGD, LR: 0.1}, BatchSize: 6, Epochs: 3},
		"sgd momentum": {Optimizer: Optimizer{Kind: SGD, LR: 0.1, Momentum: 0.9}, BatchSize: 7, Steps: 5},
		"early":        {Optimizer: Optimizer{Kind: SGD, LR: 0.5}, BatchSize: 3, Epochs: 30, Patience: 2, MinDelta: 1e-3},
	} {
		theta := []T{0, 0.5, 0}
		want, err := Fit(t.Context(), obj, theta, set)
		if err != nil {
			t.Fatal(err)
		}
		if name == "early" && (want.Stop != EarlyStopped || want.Epochs < 4) {
			t.Fatalf("%+v", want)
		}
		for stop := 0; stop <= want.Steps; stop++ {
			set := set
			set.Checkpoint = filepath.Join(t.TempDir(), "run.safetensors")
			part, err := stopAfter(t, obj, theta, set, stop)
			if stop < want.Steps && (!errors.Is(err, context.Canceled) || part.Steps != stop) {
				t.Fatalf("%s: stopped with %+v, %v", name, part, err)
			}
			// θ does not matter any more.
			got, err := Fit(t.Context(), obj, []T{9, 9, 9}, set)
			if err != nil {
				t.Fatalf("%s stopped at %d: %v", name, stop, err)
			}
			if got.Resumed != part.Steps || got.Evaluations != want.Steps-part.Steps {
				t.Errorf("%s: stopped at %d, resumed at %d with %d evaluations", name, stop, got.Resumed, got.Evaluations)
			}
			sameRun(t, fmt.Sprintf("%s stopped at %d", name, stop), got, want)
		}
	}
}

// stopAfter cancels a run inside the evaluation after that many updates, or right
// after the last.
func stopAfter[T backend.Float](t *testing.T, obj *linear[T], theta []T, set Settings[T], steps int) (*Result[T], error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	obj.hook = func(_ []T, _ []int, _ *float64, grad []T) error {
		if grad == nil {
			return nil
		}
		if n++; n == steps+1 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	defer func() { obj.hook = nil }()
	return Fit(ctx, obj, theta, set)
}

// A run cancelled in the validation at the end of an epoch ends the epoch when it
// continues.
func TestCheckpoint_CancelledInValidation(t *testing.T) {
	obj, val := newLinear[float64](9, 2, 0.3), newLinear[float64](5, 2, 0.2)
	set := Settings[float64]{BatchSize: 4, Epochs: 3, Validation: val}
	want, err := Fit(t.Context(), obj, []float64{0, 0}, set)
	if err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop <= 3; stop++ {
		set.Checkpoint = filepath.Join(t.TempDir(), "run")
		ctx, cancel := context.WithCancel(t.Context())
		val.calls = 0
		val.hook = func([]float64, []int, *float64, []float64) error {
			if val.calls == stop {
				cancel()
			}
			return ctx.Err()
		}
		part, err := Fit(ctx, obj, []float64{0, 0}, set)
		if !errors.Is(err, context.Canceled) || part.Steps != 3*stop || part.Epochs != stop-1 {
			t.Errorf("%+v, %v", part, err)
		}
		val.hook = nil
		got, err := Fit(t.Context(), obj, []float64{0, 0}, set)
		if err != nil {
			t.Fatal(err)
		}
		sameRun(t, fmt.Sprint("stopped in validation ", stop), got, want)
		cancel()
	}
}

// A finished run goes on when its budget is raised, as if it had had it at once.
func TestCheckpoint_RaisedBudget(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	for _, c := range []struct{ short, long Settings[float64] }{
		{Settings[float64]{Epochs: 3}, Settings[float64]{Epochs: 7}},
		{Settings[float64]{Steps: 5, BatchSize: 4, Validation: obj}, Settings[float64]{Epochs: 7, BatchSize: 4, Validation: obj}},
		{Settings[float64]{Epochs: 40, Patience: 1, BatchSize: 4, Optimizer: Optimizer{LR: 2}}, Settings[float64]{Epochs: 40, BatchSize: 4, Optimizer: Optimizer{LR: 2}}},
	} {
		want, err := Fit(t.Context(), obj, []float64{0, 0}, c.long)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "run")
		c.short.Checkpoint, c.long.Checkpoint = path, path
		first, err := Fit(t.Context(), obj, []float64{0, 0}, c.short)
		if err != nil || first.Steps >= want.Steps {
			t.Fatalf("%+v, %v", first, err)
		}
		again, err := Fit(t.Context(), obj, []float64{0, 0}, c.short)
		if err != nil || again.Evaluations != 0 {
			t.Errorf("a finished run made %d evaluations, %v", again.Evaluations, err)
		}
		sameRun(t, "finished", again, first)
		got, err := Fit(t.Context(), obj, []float64{0, 0}, c.long)
		if err != nil {
			t.Fatal(err)
		}
		sameRun(t, "raised", got, want)
	}
}

// identified is an objective with an Identity.
type identified struct {
	*linear[float64]
	text string
	err  error
}

func (i identified) Identity() (map[string]string, error) {
	return map[string]string{"model": i.text}, i.err
}

func TestCheckpoint_RefusesOtherRuns(t *testing.T) {
	obj := identified{newLinear[float64](10, 2, 0.3), "tanh", nil}
	base := Settings[float64]{BatchSize: 4, Epochs: 3, Checkpoint: filepath.Join(t.TempDir(), "run")}
	if _, err := Fit(t.Context(), obj, []float64{0, 0}, base); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(base.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		obj   Objective[float64]
		theta int
		edit  func(*Settings[float64])
		want  string
	}{
		{edit: func(s *Settings[float64]) { s.Optimizer.LR = 0.5 }, want: "its optimizer is {Kind:adam LR:0.001 "},
		{edit: func(s *Settings[float64]) { s.Schedule.Warmup = 5 }, want: "its schedule is "},
		{edit: func(s *Settings[float64]) { s.ClipNorm = 1 }, want: "its clip norm is 0, not 1; set it back, or delete the file"},
		{edit: func(s *Settings[float64]) { s.BatchSize = 5 }, want: "its batch size is 4, not 5"},
		{edit: func(s *Settings[float64]) { s.Seed = 1 }, want: "its seed is 0, not 1"},
		{edit: func(s *Settings[float64]) { s.ValidateEvery = 2 }, want: "its validate every is 1, not 2"},
		{edit: func(s *Settings[float64]) { s.MinDelta = 2 }, want: "its min delta is 0, not 2"},
		{edit: func(s *Settings[float64]) { s.Validation = obj }, want: "its validation model is , not tanh"},
		{obj: identified{newLinear[float64](10, 2, 0.3), "sin", nil}, want: "its model is tanh, not sin"},
		{obj: identified{newLinear[float64](11, 2, 0.3), "tanh", nil}, want: "its samples is 10, not 11"},
		{obj: identified{newLinear[float64](10, 3, 0.3), "tanh", nil}, theta: 3, want: "its parameters is 2, not 3"},
		{obj: newLinear[float64](10, 2, 0.3), want: "its model is tanh, not "},
		{obj: identified{obj.linear, "", errors.New("no device")}, want: "identifying the objective for the checkpoint: no device"},
	} {
		set := base
		if c.edit != nil {
			c.edit(&set)
		}
		if c.obj == nil {
			c.obj = obj
		}
		res, err := Fit(t.Context(), c.obj, make([]float64, max(c.theta, 2)), set)
		if res != nil {
			t.Errorf("%s: a result", c.want)
		}
		wantError(t, err, "train: ", c.want)
	}
	if _, err := Fit(t.Context(), newLinear[float32](10, 2, 0.3), []float32{0, 0}, Settings[float32]{BatchSize: 4, Epochs: 3, Checkpoint: base.Checkpoint}); err == nil {
		t.Error("float32 continued from float64")
	} else {
		wantError(t, err, "its ", "another run")
	}
	if after, err := os.ReadFile(base.Checkpoint); err != nil || !slices.Equal(after, before) {
		t.Errorf("the checkpoint was changed (%v)", err)
	}
}

func TestCheckpoint_RefusesDamage(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	dir := t.TempDir()
	set := Settings[float64]{BatchSize: 4, Epochs: 3, Checkpoint: filepath.Join(dir, "run")}
	fit := func() error {
		res, err := Fit(t.Context(), obj, []float64{0, 0}, set)
		if (res == nil) != (err != nil) {
			t.Errorf("%v, %v", res, err)
		}
		return err
	}
	if err := fit(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(set.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFit(obj, []float64{0, 0}, set)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		wantError(t, f.decode(good[:n]), "delete the file")
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1 << (i % 8)
		if f.decode(b) == nil {
			t.Errorf("a flipped bit in byte %d of %d was not seen", i, len(good))
		}
	}
	wantError(t, f.decode(append(slices.Clone(good), 0)), "1 bytes follow the last tensor")
	if err := f.decode(good); err != nil {
		t.Errorf("the undamaged file: %v", err)
	}
	if err := os.WriteFile(set.Checkpoint, good[:len(good)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	wantError(t, fit(), "train: checkpoint "+set.Checkpoint+": ", "the file is truncated", "delete the file to start afresh")

	// Files of another kind.
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := model.SaveFile(set.Checkpoint); err != nil {
		t.Fatal(err)
	}
	wantError(t, fit(), "the file is no checkpoint of a training run; give another path")
	set.Checkpoint = dir
	wantError(t, fit(), "train: Settings.Checkpoint: ")
	set.Checkpoint = filepath.Join(dir, "none", "run")
	wantError(t, fit(), "train: Settings.Checkpoint: ", "make the directory first")
}

// A file that someone else wrote, checksum and all.
func TestCheckpoint_RefusesInconsistent(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	set := Settings[float64]{BatchSize: 4, Steps: 4, Checkpoint: filepath.Join(t.TempDir(), "run")}
	if _, err := Fit(t.Context(), obj, []float64{0, 0}, set); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(set.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		edit func(f *safetensors.File)
		want string
	}{
		{func(f *safetensors.File) { f.Tensors = f.Tensors[1:] }, "is missing"},
		{func(f *safetensors.File) {
			for i, x := range f.Tensors {
				if x.Name == "theta" {
					f.Tensors[i] = safetensors.New("theta", []int{3}, []float64{1, 2, 3})
				}
			}
		}, `tensor "theta" is missing or not of 2 elements`},
		{func(f *safetensors.File) {
			for i, x := range f.Tensors {
				if x.Name == "theta" {
					f.Tensors[i] = safetensors.New("theta", []int{2}, []float32{1, 2})
				}
			}
		}, `tensor "theta"`},
		{func(f *safetensors.File) { f.Metadata[progressKey] = `{"step":-1}` }, ""},
		{func(f *safetensors.File) {
			f.Metadata[progressKey] = strings.Replace(f.Metadata[progressKey], `"position":4`, `"position":5`, 1)
		}, "it is at step 4, sample 5 of 10"},
		{func(f *safetensors.File) {
			f.Metadata[progressKey] = strings.Replace(f.Metadata[progressKey], `"epoch":1`, `"epoch":2`, 1)
		}, `tensor "history" is missing or not of 2 epochs`},
		{func(f *safetensors.File) { f.Metadata[progressKey] = `{"stop":1}` }, "unknown field"},
		{func(f *safetensors.File) { f.Metadata[progressKey] = `` }, "the file is damaged"},
		{func(f *safetensors.File) { f.Metadata[identityKey] = `[]` }, "the file is damaged"},
		{func(f *safetensors.File) {
			f.Metadata[identityKey] = strings.Replace(f.Metadata[identityKey], `"format":"1"`, `"format":"2"`, 1)
		}, `its format is "2", but this program reads "1"`},
	} {
		f, err := safetensors.Read(slices.Clone(b))
		if err != nil {
			t.Fatal(err)
		}
		c.edit(f)
		f.Metadata[sumKey] = checksum(f.Tensors, f.Metadata)
		if err := safetensors.WriteFile(set.Checkpoint, f.Tensors, f.Metadata); err != nil {
			t.Fatal(err)
		}
		_, err = Fit(t.Context(), obj, []float64{0, 0}, set)
		wantError(t, err, "train: checkpoint ", c.want)
	}
}

// The state survives what JSON and safetensors cannot hold plainly.
func TestNumber_RoundTrip(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), 0.1, 5e-324, math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN()} {
		text, err := number(v).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got number
		if err := got.UnmarshalText(text); err != nil || math.Float64bits(float64(got)) != math.Float64bits(v) {
			t.Errorf("%v became %v (%s), %v", v, got, text, err)
		}
	}
}

// A run that fails leaves the last checkpoint, and the one that continues from it
// fails in the same way, with the same last good parameters.
func TestCheckpoint_FailureKeepsLast(t *testing.T) {
	obj := newLinear[float64](10, 2, 0.3)
	obj.hook = func(theta []float64, _ []int, loss *float64, _ []float64) error {
		if theta[0] > 0.0125 {
			*loss = math.NaN()
		}
		return nil
	}
	set := Settings[float64]{BatchSize: 4, Epochs: 30, Checkpoint: filepath.Join(t.TempDir(), "run"), CheckpointEvery: 1}
	first, err := Fit(t.Context(), obj, []float64{0, 0}, set)
	wantError(t, err, "the loss is NaN")
	second, again := Fit(t.Context(), obj, []float64{0, 0}, set)
	if again == nil || again.Error() != err.Error() || second.Resumed != first.Steps || first.Steps < 12 || first.Theta[0] > 0.0125 {
		t.Errorf("%+v, %v, then %+v, %v", first, err, second, again)
	}
	sameRun(t, "failed again", second, first)
}

func TestCheckpoint_RemovesTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	names := []string{".run.0123456789abcdef.tmp", ".run2.0123456789abcdef.tmp", "run.tmp", ".other.tmp"}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	obj := newLinear[float64](10, 2, 0.3)
	if _, err := Fit(t.Context(), obj, []float64{0, 0}, Settings[float64]{Epochs: 1, Checkpoint: filepath.Join(dir, "run")}); err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); (err == nil) != (i > 0) {
			t.Errorf("%s: %v", n, err)
		}
	}
}

// A checkpoint with any content and a checksum that fits is refused or taken, but
// does not panic, and one that is taken can be continued from.
func FuzzCheckpoint(f *testing.F) {
	obj := newLinear[float64](10, 2, 0.3)
	set := Settings[float64]{BatchSize: 4, Steps: 4, Checkpoint: filepath.Join(f.TempDir(), "run")}
	if _, err := Fit(f.Context(), obj, []float64{0, 0}, set); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(set.Checkpoint)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-8])
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := safetensors.Read(b)
		if err != nil || file.Metadata == nil {
			return
		}
		file.Metadata[sumKey] = checksum(file.Tensors, file.Metadata)
		var w strings.Builder
		if err := safetensors.Write(&w, file.Tensors, file.Metadata); err != nil {
			return
		}
		set := Settings[float64]{BatchSize: 4, Steps: 4}
		run, err := newFit(obj, []float64{0, 0}, set)
		if err != nil {
			t.Fatal(err)
		}
		if run.identity, err = run.identify(); err != nil {
			t.Fatal(err)
		}
		if run.decode([]byte(w.String())) != nil {
			return
		}
		run.updates = min(run.Step, math.MaxInt-3) + 3
		run.set.Patience = 0
		if run.Position > 0 {
			run.shuffle()
		}
		run.run(context.Background())
	})
}
