package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// A checkpoint is a safetensors file with the tensors
//
//	theta, theta.good, theta.best        [P]
//	optimizer.m, optimizer.v, optimizer.a [P], those that the optimiser has
//	history                              [epochs, 6] float64, the fields of Record
//
// and in its metadata, as JSON, what the run is (identity), how far it is (progress),
// and the SHA-256 sum of all of this. The order of samples and the learning rate are
// functions of the seed, the schedule and the progress.
const (
	identityKey = "neuralode.train.identity"
	progressKey = "neuralode.train.progress"
	sumKey      = "neuralode.train.sha256"

	checkpointFormat = "1"
	recordFields     = 6
)

// number is a float64 that JSON keeps to the last bit, NaN and infinity included.
type number float64

func (n number) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(n), 'g', -1, 64), nil
}

func (n *number) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	*n = number(v)
	return err
}

// identify describes the run: whatever a resumed run must have in common with it.
func (f *fit[T]) identify() (map[string]string, error) {
	var one T
	id := map[string]string{
		"format":         checkpointFormat,
		"precision":      fmt.Sprintf("float%d", 8*unsafe.Sizeof(one)),
		"parameters":     fmt.Sprint(len(f.theta)),
		"samples":        fmt.Sprint(f.n),
		"optimizer":      fmt.Sprintf("%+v", f.set.Optimizer),
		"schedule":       fmt.Sprintf("%+v", f.set.Schedule),
		"clip norm":      fmt.Sprint(f.set.ClipNorm),
		"batch size":     fmt.Sprint(f.set.BatchSize),
		"seed":           fmt.Sprint(f.set.Seed),
		"validate every": fmt.Sprint(f.set.ValidateEvery),
		"min delta":      fmt.Sprint(f.set.MinDelta),
	}
	add := func(prefix string, obj Objective[T]) error {
		if obj == nil {
			id[prefix+"objective"] = "none"
			return nil
		}
		id[prefix+"objective"] = fmt.Sprintf("%T", obj)
		known, ok := obj.(Identifier)
		if !ok {
			return nil
		}
		texts, err := known.Identity()
		for k, v := range texts {
			id[prefix+k] = v
		}
		return err
	}
	if err := errors.Join(add("", f.obj), add("validation ", f.set.Validation)); err != nil {
		return nil, fmt.Errorf("train: identifying the objective for the checkpoint: %w", err)
	}
	return id, nil
}

// open prepares checkpoints and, if the file exists, continues from it.
func (f *fit[T]) open() (err error) {
	if f.identity, err = f.identify(); err != nil {
		return err
	}
	path := f.set.Checkpoint
	removeTemporary(path)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("train: Settings.Checkpoint: %w; make the directory first", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("train: Settings.Checkpoint: %w", err)
	}
	if err := f.decode(b); err != nil {
		return fmt.Errorf("train: checkpoint %s: %w", path, err)
	}
	return nil
}

// removeTemporary deletes what a killed process left of a checkpoint it was writing.
func removeTemporary(path string) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	entries, _ := os.ReadDir(dir) // an error shows when the checkpoint is read or written
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "."+base+".") && strings.HasSuffix(name, ".tmp") {
			os.Remove(filepath.Join(dir, name))
		}
	}
}

// save writes the checkpoint.
func (f *fit[T]) save() error {
	if err := f.pull(); err != nil {
		return err
	}
	tensors := []safetensors.Tensor{
		vector("theta", f.theta), vector("theta.good", f.good), vector("theta.best", f.best),
		safetensors.New("history", []int{len(f.history), recordFields}, flatten(f.history)),
	}
	for _, m := range f.moments() {
		if *m.x != nil {
			tensors = append(tensors, vector(m.name, *m.x))
		}
	}
	metadata := make(map[string]string)
	for key, v := range map[string]any{identityKey: f.identity, progressKey: f.progress} {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("train: saving the checkpoint: %w", err)
		}
		metadata[key] = string(text)
	}
	metadata[sumKey] = checksum(tensors, metadata)
	if err := safetensors.WriteFile(f.set.Checkpoint, tensors, metadata); err != nil {
		return fmt.Errorf("train: saving the checkpoint: %w", err)
	}
	f.saved = time.Now()
	return nil
}

func vector[T backend.Float](name string, x []T) safetensors.Tensor {
	return safetensors.New(name, []int{len(x)}, x)
}

type moment[T backend.Float] struct {
	name string
	x    *[]T
}

func (f *fit[T]) moments() []moment[T] {
	return []moment[T]{{"optimizer.m", &f.opt.M}, {"optimizer.v", &f.opt.V}, {"optimizer.a", &f.opt.A}}
}

// checksum covers everything but itself.
func checksum(tensors []safetensors.Tensor, metadata map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(metadata)) {
		if k != sumKey {
			fmt.Fprintf(h, "%q: %q\n", k, metadata[k])
		}
	}
	sorted := slices.SortedFunc(slices.Values(tensors), func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range sorted {
		fmt.Fprintf(h, "%q: %v %v\n", t.Name, t.DType, t.Shape)
		h.Write(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// decode sets the state to that of a checkpoint. After an error it is of no use.
func (f *fit[T]) decode(b []byte) error {
	const damaged = "the file is damaged; use a copy of it, or delete it to start afresh"
	file, err := safetensors.Read(b)
	if err != nil {
		return fmt.Errorf("%w; delete the file to start afresh", err)
	}
	if _, ok := file.Metadata[sumKey]; !ok {
		return errors.New("the file is no checkpoint of a training run; give another path")
	}
	if sum := checksum(file.Tensors, file.Metadata); sum != file.Metadata[sumKey] {
		return fmt.Errorf("its checksum is %.16s…, but %.16s… was written: %s", sum, file.Metadata[sumKey], damaged)
	}
	if err := f.compare(file.Metadata[identityKey]); err != nil {
		return err
	}
	dec := json.NewDecoder(strings.NewReader(file.Metadata[progressKey]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f.progress); err != nil {
		return fmt.Errorf("metadata %q: %v: %s", progressKey, err, damaged)
	}
	for _, m := range append(f.moments(), moment[T]{"theta", &f.theta}, moment[T]{"theta.good", &f.good}, moment[T]{"theta.best", &f.best}) {
		if *m.x == nil {
			continue
		}
		t, ok := file.Tensor(m.name)
		if !ok || !slices.Equal(t.Shape, []int{len(*m.x)}) {
			return fmt.Errorf("tensor %q is missing or not of %d elements: %s", m.name, len(*m.x), damaged)
		}
		values, err := safetensors.Values[T](t)
		if err != nil {
			return err
		}
		*m.x = values
	}
	t, _ := file.Tensor("history")
	values, err := safetensors.Values[float64](t)
	if err != nil || !slices.Equal(t.Shape, []int{f.Epoch, recordFields}) {
		return fmt.Errorf("tensor \"history\" is missing or not of %d epochs: %s", f.Epoch, damaged)
	}
	f.history = unflatten(values)
	f.opt.Step = int64(f.Step)
	if f.Step < 0 || f.Position < 0 || f.Position > f.n || f.Position%f.set.BatchSize != 0 && f.Position != f.n {
		return fmt.Errorf("it is at step %d, sample %d of %d: %s", f.Step, f.Position, f.n, damaged)
	}
	return nil
}

// compare tells in what the checkpoint's run differs from this one.
func (f *fit[T]) compare(text string) error {
	var was map[string]string
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&was); err != nil {
		return fmt.Errorf("metadata %q: %v: the file is damaged; delete it to start afresh", identityKey, err)
	}
	if was["format"] != checkpointFormat {
		return fmt.Errorf("its format is %q, but this program reads %q; use the program that wrote it, or delete it to start afresh", was["format"], checkpointFormat)
	}
	keys := maps.Clone(was)
	maps.Copy(keys, f.identity)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if a, b := was[k], f.identity[k]; a != b {
			return fmt.Errorf("it is of another run: its %s is %s, not %s; set it back, or delete the file to start afresh", k, a, b)
		}
	}
	return nil
}

func flatten(history []Record) []float64 {
	x := make([]float64, 0, recordFields*len(history))
	for _, r := range history {
		x = append(x, float64(r.Epoch), float64(r.Step), r.Loss, r.Validation, r.LR, r.GradNorm)
	}
	return x
}

func unflatten(x []float64) []Record {
	history := make([]Record, 0, len(x)/recordFields)
	for ; len(x) > 0; x = x[recordFields:] {
		history = append(history, Record{Epoch: int(x[0]), Step: int(x[1]), Loss: x[2], Validation: x[3], LR: x[4], GradNorm: x[5]})
	}
	return history
}
