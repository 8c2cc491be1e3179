package statedict

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// Settings say what names and shapes do not.
type Settings struct {
	// Hidden and Last are the activations of the hidden layers and of the last one.
	Hidden, Last mlp.Activation
	// Input is the map before the first layer.
	Input mlp.Input
	// Time says which layers see the time; nil finds it by the shapes, for a
	// network with as many outputs as states.
	Time *mlp.Time
	// TimeFirst: the time is the first column of a weight, not the last.
	TimeFirst bool
	// Ordered: the tensors are in the order of the module's definition, which is then
	// that of the layers if their names do not tell it.
	Ordered bool
	// Prefix selects the tensors whose names begin with it and a dot.
	Prefix string
	// Layers are the layers' names in their order, without the prefix.
	Layers []string
	// Ignore are patterns, as of [path.Match], of names that may be left over.
	Ignore []string
}

// Line says what became of a tensor. To is the tensor's name in a file of
// package mlp, or empty if it was left over; From is empty for a bias that was
// missing, and is zero.
type Line struct {
	From  string `json:"from"`
	DType string `json:"dtype,omitempty"`
	Shape []int  `json:"shape"`
	To    string `json:"to"`
	Note  string `json:"note,omitempty"`
}

// layer is a weight with its bias, which may be missing.
type layer struct {
	name   string
	weight safetensors.Tensor
	bias   *safetensors.Tensor
}

func (l layer) out() int { return l.weight.Shape[0] }
func (l layer) in() int  { return l.weight.Shape[1] }

// Import makes a model of the tensors, and says what became of each. A missing
// bias is zero. It fails if the tensors under the prefix are not one multilayer
// perceptron, if their order or the time's columns are ambiguous, and if a tensor
// is left over that is not to be ignored.
func Import[T mlp.Float](tensors []safetensors.Tensor, set Settings) (*mlp.Model[T], []Line, error) {
	m, lines, err := assemble[T](tensors, set)
	if err != nil {
		return nil, nil, fmt.Errorf("statedict: %w", err)
	}
	return m, lines, nil
}

func assemble[T mlp.Float](tensors []safetensors.Tensor, set Settings) (*mlp.Model[T], []Line, error) {
	layers, rest, err := find(tensors, set)
	if err != nil {
		return nil, nil, err
	}
	layers, time, err := order(layers, set)
	if err != nil {
		return nil, nil, err
	}

	spec := mlp.Spec{Time: time, Input: set.Input}
	spec.Widths = append(spec.Widths, layers[0].in()-columns(time, 0))
	for l, y := range layers {
		spec.Widths = append(spec.Widths, y.out())
		act := set.Hidden
		if l == len(layers)-1 {
			act = set.Last
		}
		spec.Activations = append(spec.Activations, act)
	}
	if err := spec.Validate(); err != nil {
		return nil, nil, err
	}
	m := &mlp.Model[T]{Spec: spec, Theta: make([]T, spec.NumParams())}
	var lines []Line
	for l, y := range layers {
		w := m.Weight(l)
		if err := safetensors.Floats(w, y.weight); err != nil {
			return nil, nil, err
		}
		line := lineOf(y.weight, fmt.Sprintf("layers.%d.weight", l))
		if set.TimeFirst && spec.Layer(l).HasTime {
			for row := range slices.Chunk(w, y.in()) {
				t := row[0]
				copy(row, row[1:])
				row[len(row)-1] = t
			}
			line.Note = "column of t moved from first to last"
		}
		lines = append(lines, line)
		to := fmt.Sprintf("layers.%d.bias", l)
		if y.bias == nil {
			lines = append(lines, Line{Shape: []int{y.out()}, To: to, Note: "zero; the layer has no bias"})
			continue
		}
		if err := safetensors.Floats(m.Bias(l), *y.bias); err != nil {
			return nil, nil, err
		}
		lines = append(lines, lineOf(*y.bias, to))
	}
	for _, t := range rest {
		lines = append(lines, lineOf(t, ""))
	}
	return m, lines, nil
}

func lineOf(t safetensors.Tensor, to string) Line {
	return Line{From: t.Name, DType: t.DType.String(), Shape: t.Shape, To: to}
}

// columns is how many columns of layer l are the time's.
func columns(time mlp.Time, l int) int {
	if time == mlp.TimeEveryLayer || time == mlp.TimeInput && l == 0 {
		return 1
	}
	return 0
}

// find collects the layers under the prefix, in the order of their weights, and
// the tensors left over.
func find(tensors []safetensors.Tensor, set Settings) (layers []layer, rest []safetensors.Tensor, err error) {
	byName := make(map[string]safetensors.Tensor, len(tensors))
	for _, t := range tensors {
		if _, twice := byName[t.Name]; twice {
			return nil, nil, fmt.Errorf("two tensors are named %.80q; rename one where the file was written", t.Name)
		}
		byName[t.Name] = t
	}
	prefix := set.Prefix
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, ".") + "."
	}
	used := make(map[string]bool)
	for _, t := range tensors {
		key, under := strings.CutPrefix(t.Name, prefix)
		name, isWeight := strings.CutSuffix(key, "weight")
		name, dotted := strings.CutSuffix(name, ".")
		if !under || !isWeight || !dotted && name != "" || len(t.Shape) != 2 || ignored(t.Name, set) {
			continue
		}
		y := layer{name: name, weight: t}
		if b, ok := byName[strings.TrimSuffix(t.Name, "weight")+"bias"]; ok {
			if !slices.Equal(b.Shape, []int{y.out()}) {
				return nil, nil, fmt.Errorf("%q has shape %v, but its weight has shape %v; a bias has one element for each row", b.Name, b.Shape, t.Shape)
			}
			y.bias = &b
			used[b.Name] = true
		}
		used[t.Name] = true
		layers = append(layers, y)
	}
	if len(layers) == 0 {
		return nil, nil, fmt.Errorf("no tensor is named %s….weight and has two dimensions; the file has: %s", prefix, listOf(tensors))
	}
	for _, t := range tensors {
		if used[t.Name] {
			continue
		}
		if strings.HasPrefix(t.Name, prefix) && !ignored(t.Name, set) {
			return nil, nil, fmt.Errorf("%.80q, of shape %v, belongs to no layer of a multilayer perceptron; leave it out with --ignore if the function does not depend on it, or select the network with --prefix", t.Name, t.Shape)
		}
		rest = append(rest, t)
	}
	return layers, rest, nil
}

func ignored(name string, set Settings) bool {
	return slices.ContainsFunc(set.Ignore, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// listOf names some of the tensors, with their shapes.
func listOf(tensors []safetensors.Tensor) string {
	const most = 12
	var parts []string
	for _, t := range tensors[:min(len(tensors), most)] {
		parts = append(parts, fmt.Sprintf("%.60s %v", t.Name, t.Shape))
	}
	if n := len(tensors) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", n))
	}
	if len(parts) == 0 {
		return "no tensors"
	}
	return strings.Join(parts, ", ")
}

// order sorts the layers, and finds which of them see the time.
func order(layers []layer, set Settings) ([]layer, mlp.Time, error) {
	sorted, err := sortByName(layers, set)
	if err != nil {
		return nil, 0, err
	}
	times := []mlp.Time{mlp.TimeNone, mlp.TimeInput, mlp.TimeEveryLayer}
	if set.Time != nil {
		times = []mlp.Time{*set.Time}
	}
	for _, t := range times {
		fits := set.Time != nil || sorted[0].in() == sorted[len(sorted)-1].out()+columns(t, 0)
		for i := range sorted[1:] {
			fits = fits && sorted[i+1].in() == sorted[i].out()+columns(t, i+1)
		}
		if fits {
			return sorted, t, nil
		}
	}
	return nil, 0, fmt.Errorf("the layers %s do not take what the one before returns, or have other numbers of states and outputs; select one network with --prefix, order it with --layers, and give --time if it is no right-hand side of its own", shapes(sorted))
}

func shapes(layers []layer) string {
	list := make([]safetensors.Tensor, len(layers))
	for i, l := range layers {
		list[i] = l.weight
	}
	return listOf(list)
}

// sortByName is the order of set.Layers; else that of the numbers in the names, if
// these differ in nothing else; else that of the file, if it means something.
func sortByName(layers []layer, set Settings) ([]layer, error) {
	if want := set.Layers; len(want) > 0 {
		byName := make(map[string]layer)
		for _, l := range layers {
			byName[l.name] = l
		}
		var sorted []layer
		for _, name := range want {
			l, ok := byName[name]
			if !ok {
				return nil, fmt.Errorf("--layers names %q once too often, or there is no such layer; the layers are %s", name, shapes(layers))
			}
			delete(byName, name)
			sorted = append(sorted, l)
		}
		if len(byName) > 0 {
			return nil, fmt.Errorf("--layers leaves out some of the layers %s; name each, or leave them out with --ignore", shapes(layers))
		}
		return sorted, nil
	}
	texts := make([]string, len(layers))
	numbers := make(map[string][]int, len(layers))
	for i, l := range layers {
		texts[i], numbers[l.name] = split(l.name)
		switch {
		case texts[i] == texts[0]:
		case set.Ordered:
			return layers, nil
		default:
			return nil, fmt.Errorf("the names of the layers %s do not tell their order; give it with --layers", shapes(layers))
		}
	}
	sorted := slices.Clone(layers)
	slices.SortStableFunc(sorted, func(a, b layer) int { return slices.Compare(numbers[a.name], numbers[b.name]) })
	return sorted, nil
}

// split takes the numbers out of a name, and leaves '#' in their places.
func split(name string) (text string, numbers []int) {
	var b strings.Builder
	for i := 0; i < len(name); {
		j := i
		for j < len(name) && name[j] >= '0' && name[j] <= '9' {
			j++
		}
		if n, err := strconv.Atoi(name[i:max(j, i)]); j > i && err == nil {
			numbers = append(numbers, n)
			b.WriteByte('#')
			i = j
			continue
		}
		b.WriteByte(name[i])
		i++
	}
	return b.String(), numbers
}

// Named gives the leaves of a file without names the names of layers: a weight
// with the bias that follows it is a layer. The others keep theirs, behind "leaf.".
func Named(leaves []safetensors.Tensor) []safetensors.Tensor {
	named := slices.Clone(leaves)
	layers := 0
	for i := 0; i < len(named); i++ {
		t := &named[i]
		if len(t.Shape) != 2 {
			t.Name = "leaf." + t.Name
			continue
		}
		name := fmt.Sprintf("layers.%d.", layers)
		layers++
		if i+1 < len(named) && slices.Equal(named[i+1].Shape, t.Shape[:1]) {
			i++
			named[i].Name = name + "bias"
		}
		t.Name = name + "weight"
	}
	return named
}

// Wide tells whether one of the tensors has more precision than float32.
func Wide(tensors []safetensors.Tensor) bool {
	return slices.ContainsFunc(tensors, func(t safetensors.Tensor) bool {
		return t.DType == safetensors.F64
	})
}
