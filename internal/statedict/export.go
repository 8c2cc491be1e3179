package statedict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// DefaultNames are the layers' names in a ModuleList called layers.
const DefaultNames = "layers.{i}"

// Export returns the model's tensors, weight and bias of each layer in turn, and
// says where each came from. Names is the layers' name with {i} in place of the
// layer's number, or {2i} for twice that, as the layers of an nn.Sequential with
// activations between them have. With timeFirst the time is the first column of a
// weight. It fails if names gives two layers one name or the model is invalid.
func Export[T mlp.Float](m *mlp.Model[T], names string, timeFirst bool) ([]safetensors.Tensor, []Line, error) {
	if err := m.Validate(); err != nil {
		return nil, nil, err
	}
	if m.Spec.NumLayers() > 1 && !strings.Contains(names, "{i}") && !strings.Contains(names, "{2i}") {
		return nil, nil, fmt.Errorf("statedict: the names %q are the same for all layers; put {i} in the place of the layer's number, or {2i}", names)
	}
	var tensors []safetensors.Tensor
	var lines []Line
	for l, y := range m.Spec.Layers() {
		name := strings.NewReplacer("{i}", fmt.Sprint(l), "{2i}", fmt.Sprint(2*l)).Replace(names)
		w := m.Weight(l)
		note := ""
		if timeFirst && y.HasTime {
			w = slices.Clone(w)
			for row := range slices.Chunk(w, y.In) {
				t := row[len(row)-1]
				copy(row[1:], row)
				row[0] = t
			}
			note = "column of t moved from last to first"
		}
		weight := safetensors.New(name+".weight", []int{y.Out, y.In}, w)
		bias := safetensors.New(name+".bias", []int{y.Out}, m.Bias(l))
		tensors = append(tensors, weight, bias)
		for i, t := range []safetensors.Tensor{weight, bias} {
			line := Line{From: fmt.Sprintf("layers.%d.%s", l, []string{"weight", "bias"}[i]), DType: t.DType.String(), Shape: t.Shape, To: t.Name}
			if i == 0 {
				line.Note = note
			}
			lines = append(lines, line)
		}
	}
	return tensors, lines, nil
}

// Formula is the function in words, as "cat(z³, t) → Linear(3, 50) → tanh →
// Linear(50, 2)": what a program has to do with the tensors.
func Formula(s mlp.Spec) string {
	x := "z"
	if s.Input == mlp.InputCube {
		x = "z³"
	}
	var b strings.Builder
	for l, y := range s.Layers() {
		switch {
		case l == 0 && y.HasTime:
			x = "cat(" + x + ", t)"
		case l > 0 && y.HasTime:
			x = " → cat(·, t)"
		case l > 0:
			x = ""
		}
		fmt.Fprintf(&b, "%s → Linear(%d, %d)", x, y.In, y.Out)
		if y.Act != mlp.Identity {
			fmt.Fprintf(&b, " → %v", y.Act)
		}
	}
	return b.String()
}
