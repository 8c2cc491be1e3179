// Package modelfile reads and writes what the command line trains: a multilayer
// perceptron with the units, the names and the solver's settings that it was trained with.
//
// The model's own variables are τ = (t - t_shift)/t_scale and z_j = (x_j - shift_j)/scale_j,
// t the time and x the states of the data; further components of z are augmented ones,
// which begin at 0 (Dupont et al. 2019, arXiv 1904.01681).
package modelfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Key is the key of a file's metadata under which the Meta lies, as JSON.
const Key = "neuralode.data"

// Meta is what a model's file says beside its layers.
type Meta struct {
	Time   string   `json:"time"`         // name of the column
	ID     string   `json:"id,omitempty"` // name of the column that tells series apart
	States []string `json:"states"`       // names of the columns, [D]

	TimeShift float64   `json:"time_shift"`
	TimeScale float64   `json:"time_scale"` // positive
	Shift     []float64 `json:"shift"`      // [D]
	Scale     []float64 `json:"scale"`      // [D], positive

	Method   string  `json:"method"`
	Stepping string  `json:"stepping"`
	RTol     float64 `json:"rtol,omitempty"` // 0: the solver's default
	ATol     float64 `json:"atol,omitempty"` // of z
	Step     float64 `json:"step,omitempty"` // in units of τ; 0: chosen

	Series []Start `json:"series,omitempty"` // that the model was trained on
}

// Start is where a series begins.
type Start struct {
	ID    string    `json:"id"`
	Time  float64   `json:"time"` // t
	End   float64   `json:"end"`  // t of the last observation
	State []float64 `json:"state"`
	// State is z, of all components, observed or learned.
}

// File is the contents of a model's file.
type File struct {
	Model *mlp.Model[float64]
	Wide  bool // the parameters were saved in float64
	Meta
}

// Save writes the model and meta to path, atomically.
func Save[T backend.Float](path string, m *mlp.Model[T], meta Meta) error {
	if err := meta.validate(m.Spec); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := m.Save(&b); err != nil {
		return err
	}
	f, err := safetensors.Read(b.Bytes())
	if err != nil {
		return err
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	f.Metadata[Key] = string(text)
	return safetensors.WriteFile(path, f.Tensors, f.Metadata)
}

// Load reads a file that [Save] or [mlp.Model.SaveFile] wrote. Without a Meta the model's
// variables are the data's, and the states are called x0, x1, ….
func Load(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := mlp.Load[float64](bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	raw, err := safetensors.Read(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &File{Model: m, Wide: raw.Tensors[0].DType == safetensors.F64}
	if text, ok := raw.Metadata[Key]; ok {
		dec := json.NewDecoder(strings.NewReader(text))
		if err = dec.Decode(&f.Meta); err == nil {
			err = f.validate(m.Spec)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: metadata %q: %w", path, Key, err)
		}
		return f, nil
	}
	f.Time, f.TimeScale = "time", 1
	for j := range m.Spec.Widths[0] {
		f.States = append(f.States, fmt.Sprintf("x%d", j))
		f.Shift, f.Scale = append(f.Shift, 0), append(f.Scale, 1)
	}
	return f, f.validate(m.Spec)
}

func (m *Meta) validate(spec mlp.Spec) error {
	in, out := spec.Widths[0], spec.Widths[len(spec.Widths)-1]
	d := len(m.States)
	switch {
	case in != out:
		return fmt.Errorf("the network maps %d components to %d; the right-hand side of an ODE has as many outputs as states", in, out)
	case d == 0 || d > in:
		return fmt.Errorf("%d states are named, and the network has %d", d, in)
	case len(m.Shift) != d || len(m.Scale) != d:
		return fmt.Errorf("there are %d shifts and %d scales for %d states", len(m.Shift), len(m.Scale), d)
	}
	for _, x := range append([]float64{m.TimeScale}, m.Scale...) {
		if !(x > 0) || math.IsInf(x, 0) {
			return fmt.Errorf("a scale is %g; scales are positive", x)
		}
	}
	for _, s := range m.Series {
		if len(s.State) != in {
			return fmt.Errorf("the initial state of series %q has %d components, want %d", s.ID, len(s.State), in)
		}
	}
	_, err := m.Settings()
	return err
}

// Settings are those of the solver.
func (m *Meta) Settings() (set solver.Settings, err error) {
	set = solver.Settings{RTol: m.RTol, ATol: m.ATol, Step: m.Step}
	if m.Method != "" {
		if set.Method, err = solver.ParseMethod(m.Method); err != nil {
			return set, err
		}
	}
	switch m.Stepping {
	case "", solver.Joint.String():
	case solver.PerSample.String():
		set.Stepping = solver.PerSample
	default:
		return set, fmt.Errorf("the stepping %q is neither %v nor %v", m.Stepping, solver.Joint, solver.PerSample)
	}
	return set, nil
}

// Tau returns the model's time at t.
func (m *Meta) Tau(t float64) float64 { return (t - m.TimeShift) / m.TimeScale }

// Taus returns the model's times at ts.
func (m *Meta) Taus(ts []float64) []float64 {
	list := make([]float64, len(ts))
	for i, t := range ts {
		list[i] = m.Tau(t)
	}
	return list
}

// Z returns rows of states x, [n, D], as z, [n, dim]; augmented components are fill.
func (m *Meta) Z(x []float64, dim int, fill float64) []float64 {
	d := len(m.States)
	z := make([]float64, 0, len(x)/d*dim)
	for row := range slices.Chunk(x, d) {
		for j, v := range row {
			z = append(z, (v-m.Shift[j])/m.Scale[j])
		}
		for range dim - d {
			z = append(z, fill)
		}
	}
	return z
}

// X returns rows of z, [n, dim], as states x, [n, D].
func (m *Meta) X(z []float64, dim int) []float64 {
	x := make([]float64, 0, len(z)/dim*len(m.States))
	for row := range slices.Chunk(z, dim) {
		for j := range m.States {
			x = append(x, m.Shift[j]+m.Scale[j]*row[j])
		}
	}
	return x
}
