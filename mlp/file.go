package mlp

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// SpecKey is the key of a file's metadata under which the Spec lies, as the JSON
// of [Spec.MarshalJSON].
const SpecKey = "neuralode.spec"

// Save writes m as safetensors to w, the parameters in type T. The same model
// gives the same bytes. It fails if m is invalid or has a NaN or infinite
// parameter, before anything is written, and if w fails.
func (m *Model[T]) Save(w io.Writer) error {
	tensors, metadata, err := m.encode()
	if err != nil {
		return err
	}
	if err := safetensors.Write(w, tensors, metadata); err != nil {
		return fmt.Errorf("mlp: saving the model: %w", err)
	}
	return nil
}

// SaveFile writes m to the file path as [Model.Save] does, atomically: a crash
// or an error leaves what was there before.
func (m *Model[T]) SaveFile(path string) error {
	tensors, metadata, err := m.encode()
	if err != nil {
		return err
	}
	if err := safetensors.WriteFile(path, tensors, metadata); err != nil {
		return fmt.Errorf("mlp: saving the model: %w", err)
	}
	return nil
}

func (m *Model[T]) encode() ([]safetensors.Tensor, map[string]string, error) {
	if err := m.Validate(); err != nil {
		return nil, nil, err
	}
	spec, err := json.Marshal(m.Spec)
	if err != nil {
		return nil, nil, err
	}
	var tensors []safetensors.Tensor
	for _, e := range entries(m.Spec) {
		values := m.Theta[e.offset : e.offset+e.size()]
		for i, v := range values {
			if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, nil, fmt.Errorf("mlp: %s has the value %v at element %d; training has diverged, save an earlier state", e.name, v, i)
			}
		}
		tensors = append(tensors, safetensors.New(e.name, e.shape, values))
	}
	return tensors, map[string]string{SpecKey: string(spec)}, nil
}

// Load reads a model that [Model.Save] wrote, or another program in the same
// form, from r to its end. Float32 and float64 files both load into either type.
//
// A file that is damaged or holds anything else is refused, with an error that
// names the tensor and the byte: no partly loaded model is returned. So are
// missing, superfluous or wrongly shaped tensors, NaN and infinite values, and
// values too large for T.
func Load[T Float](r io.Reader) (*Model[T], error) { return load[T](r, nil) }

// LoadFile reads the file path as [Load] does.
func LoadFile[T Float](path string) (*Model[T], error) { return loadFile[T](path, nil) }

// LoadWithSpec reads, as [Load] does, a file without a Spec in its metadata, such
// as another program writes. If the file has one, it must equal spec.
func LoadWithSpec[T Float](r io.Reader, spec Spec) (*Model[T], error) { return load[T](r, &spec) }

// LoadFileWithSpec reads the file path as [LoadWithSpec] does.
func LoadFileWithSpec[T Float](path string, spec Spec) (*Model[T], error) {
	return loadFile[T](path, &spec)
}

func loadFile[T Float](path string, spec *Spec) (*Model[T], error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("mlp: %w", err)
	}
	m, err := decode[T](b, spec)
	if err != nil {
		return nil, fmt.Errorf("mlp: loading %s: %w", path, err)
	}
	return m, nil
}

func load[T Float](r io.Reader, spec *Spec) (*Model[T], error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("mlp: loading a model: %w", err)
	}
	m, err := decode[T](b, spec)
	if err != nil {
		return nil, fmt.Errorf("mlp: loading a model: %w", err)
	}
	return m, nil
}

func decode[T Float](b []byte, want *Spec) (*Model[T], error) {
	f, err := safetensors.Read(b)
	if err != nil {
		return nil, err
	}
	spec, err := specOf(f, want)
	if err != nil {
		return nil, err
	}
	// Everything is checked before θ is allocated: a Spec of a few bytes can ask
	// for gigabytes.
	list := entries(spec)
	byName := make(map[string]safetensors.Tensor, len(f.Tensors))
	for _, t := range f.Tensors {
		byName[t.Name] = t
	}
	tensors := make([]safetensors.Tensor, len(list))
	for i, e := range list {
		t, ok := byName[e.name]
		if !ok {
			return nil, fmt.Errorf("tensor %q is missing; the Spec has %d layers, each with weight and bias", e.name, spec.NumLayers())
		}
		if !slices.Equal(t.Shape, e.shape) {
			return nil, fmt.Errorf("tensor %q at byte %d has shape %v, but the Spec says %v; load it with the Spec it was made with", e.name, t.Offset, t.Shape, e.shape)
		}
		tensors[i] = t
		delete(byName, e.name)
	}
	for _, t := range f.Tensors {
		if _, extra := byName[t.Name]; extra {
			return nil, fmt.Errorf("tensor %.80q at byte %d is not part of a model of %d layers; remove it or load with another Spec", t.Name, t.Offset, spec.NumLayers())
		}
	}
	m := &Model[T]{Spec: spec, Theta: make([]T, spec.NumParams())}
	for i, e := range list {
		if err := safetensors.Floats(m.Theta[e.offset:e.offset+e.size()], tensors[i]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// specOf finds the Spec in the file's metadata, or takes want.
func specOf(f *safetensors.File, want *Spec) (Spec, error) {
	if want != nil {
		if err := want.Validate(); err != nil {
			return Spec{}, err
		}
	}
	text, ok := f.Metadata[SpecKey]
	if !ok {
		if want == nil {
			return Spec{}, fmt.Errorf("the file's metadata has no %q; load it with LoadWithSpec or LoadFileWithSpec", SpecKey)
		}
		return want.Clone(), nil
	}
	var spec Spec
	if err := spec.UnmarshalJSON([]byte(text)); err != nil {
		return Spec{}, fmt.Errorf("metadata %q: %w", SpecKey, err)
	}
	if want != nil && !spec.Equal(*want) {
		return Spec{}, fmt.Errorf("metadata %q is %s, not the Spec asked for; load it without one", SpecKey, text)
	}
	return spec, nil
}

// entry is one tensor of a model: θ[offset : offset+size()].
type entry struct {
	name   string
	shape  []int
	offset int
}

func (e entry) size() int {
	n := 1
	for _, d := range e.shape {
		n *= d
	}
	return n
}

func entries(s Spec) []entry {
	var list []entry
	for i, l := range s.Layers() {
		list = append(list,
			entry{fmt.Sprintf("layers.%d.weight", i), []int{l.Out, l.In}, l.W},
			entry{fmt.Sprintf("layers.%d.bias", i), []int{l.Out}, l.B})
	}
	return list
}
