package statedict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

func model(t *testing.T, spec mlp.Spec) *mlp.Model[float64] {
	m, err := mlp.New[float64](spec, mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func same(t *testing.T, got, want *mlp.Model[float64]) {
	t.Helper()
	if !got.Spec.Equal(want.Spec) || !slices.Equal(got.Theta, want.Theta) {
		t.Errorf("%+v is not the model %+v", got.Spec, want.Spec)
	}
}

// What Export writes, Import reads, wherever the time's column lies and whatever
// the order of the file.
func TestImport_ReadsExport(t *testing.T) {
	for _, widths := range [][]int{{2, 2}, {2, 5, 2}, {2, 2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1}} {
		for _, time := range []mlp.Time{mlp.TimeNone, mlp.TimeInput, mlp.TimeEveryLayer} {
			for _, first := range []bool{false, true} {
				for _, names := range []string{DefaultNames, "odefunc.net.{2i}", "{i}"} {
					spec := mlp.Dense(mlp.Tanh, widths...)
					spec.Time, spec.Input = time, mlp.InputCube
					if len(widths) == 2 && time == mlp.TimeEveryLayer {
						continue // the same as TimeInput
					}
					want := model(t, spec)
					tensors, lines, err := Export(want, names, first)
					if err != nil {
						t.Fatal(err)
					}
					if len(lines) != len(tensors) || lines[0].From != "layers.0.weight" || lines[0].To != tensors[0].Name {
						t.Errorf("lines %+v", lines)
					}
					slices.SortFunc(tensors, func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
					got, lines, err := Import[float64](tensors, Settings{Hidden: mlp.Tanh, Input: mlp.InputCube, TimeFirst: first})
					if err != nil {
						t.Fatalf("%v, %v, %s: %v", widths, time, names, err)
					}
					same(t, got, want)
					if len(lines) != len(tensors) || slices.ContainsFunc(lines, func(l Line) bool { return l.To == "" }) {
						t.Errorf("lines %+v", lines)
					}
				}
			}
		}
	}
}

// named renames the layers of a model's tensors.
func named(t *testing.T, m *mlp.Model[float64], names ...string) []safetensors.Tensor {
	tensors, _, err := Export(m, DefaultNames, false)
	if err != nil {
		t.Fatal(err)
	}
	for l, name := range names {
		if name != "" {
			name += "."
		}
		tensors[2*l].Name = name + "weight"
		tensors[2*l+1].Name = name + "bias"
	}
	return tensors
}

// Names without numbers tell no order; the file's, or Layers, does.
func TestImport_Order(t *testing.T) {
	m := model(t, mlp.Dense(mlp.Tanh, 2, 8, 16, 2))
	tensors := named(t, m, "start", "middle", "end")
	if _, _, err := Import[float64](tensors, Settings{Hidden: mlp.Tanh}); err == nil || !strings.Contains(err.Error(), "do not tell their order; give it with --layers") {
		t.Errorf("ambiguous: %v", err)
	}
	for _, set := range []Settings{{Ordered: true}, {Layers: []string{"start", "middle", "end"}}} {
		set.Hidden = mlp.Tanh
		got, _, err := Import[float64](tensors, set)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, m)
		slices.Reverse(tensors)
	}
}

// A checkpoint: the network under a prefix, another one, and an optimiser's state.
func TestImport_Prefix(t *testing.T) {
	m := model(t, mlp.Dense(mlp.SiLU, 3, 4, 3))
	tensors := named(t, m, "model.func.0", "model.func.2")
	tensors = append(tensors, named(t, m, "encoder.0", "encoder.2")...)
	tensors = append(tensors, safetensors.New("optimizer.step", nil, []float64{1}))
	got, lines, err := Import[float64](tensors, Settings{Hidden: mlp.SiLU, Prefix: "model.func"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, m)
	var left []string
	for _, l := range lines {
		if l.To == "" {
			left = append(left, l.From)
		}
	}
	if want := []string{"encoder.0.weight", "encoder.0.bias", "encoder.2.weight", "encoder.2.bias", "optimizer.step"}; !slices.Equal(left, want) {
		t.Errorf("left over: %v, want %v", left, want)
	}
}

func TestImport_NoBias(t *testing.T) {
	m := model(t, mlp.Dense(mlp.Tanh, 2, 3, 2))
	tensors := named(t, m)
	tensors = slices.Delete(tensors, 3, 4)
	clear(m.Bias(1))
	got, lines, err := Import[float64](tensors, Settings{Hidden: mlp.Tanh})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, m)
	if l := lines[3]; l.From != "" || l.To != "layers.1.bias" || !strings.Contains(l.Note, "zero") {
		t.Errorf("line %+v", l)
	}
}

// A network that is no right-hand side of its own needs the word where the time is.
func TestImport_TimeGiven(t *testing.T) {
	m := model(t, mlp.Dense(mlp.Tanh, 5, 8, 2))
	if _, _, err := Import[float64](named(t, m), Settings{Hidden: mlp.Tanh}); err == nil || !strings.Contains(err.Error(), "give --time") {
		t.Errorf("error %v", err)
	}
	none := mlp.TimeNone
	got, _, err := Import[float64](named(t, m), Settings{Hidden: mlp.Tanh, Time: &none})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, m)
}

func TestImport_Refuses(t *testing.T) {
	m := model(t, mlp.Dense(mlp.Tanh, 2, 3, 2))
	tensors := func() []safetensors.Tensor { return named(t, m, "a1", "a2") }
	with := func(x ...safetensors.Tensor) []safetensors.Tensor { return append(tensors(), x...) }
	for _, c := range []struct {
		name    string
		tensors []safetensors.Tensor
		set     Settings
		want    string
	}{
		{"nothing", nil, Settings{}, "the file has: no tensors"},
		{"no weights", []safetensors.Tensor{safetensors.New("W", []int{2, 2}, make([]float64, 4))}, Settings{}, "the file has: W [2 2]"},
		{"prefix", tensors(), Settings{Prefix: "net"}, "no tensor is named net.….weight"},
		{"twice", with(tensors()[0]), Settings{}, `two tensors are named "a1.weight"`},
		{"left over", with(safetensors.New("scale", nil, []float64{1})), Settings{}, `"scale", of shape [], belongs to no layer`},
		{"convolution", with(safetensors.New("c.weight", []int{1, 1, 1}, []float64{1})), Settings{}, `"c.weight", of shape [1 1 1], belongs to no layer`},
		{"bias", []safetensors.Tensor{tensors()[0], safetensors.New("a1.bias", []int{2}, make([]float64, 2))}, Settings{}, `"a1.bias" has shape [2], but its weight has shape [3 2]`},
		{"no right-hand side", named(t, model(t, mlp.Dense(mlp.Tanh, 2, 3, 5)), "1", "2"), Settings{}, "give --time"},
		{"no chain", named(t, model(t, mlp.Dense(mlp.Tanh, 2, 3, 4, 2)), "3", "2", "1"), Settings{}, "do not take what the one before returns"},
		{"unknown layer", tensors(), Settings{Layers: []string{"a1", "c"}}, `--layers names "c" once too often, or there is no such layer`},
		{"layer left out", tensors(), Settings{Layers: []string{"a1"}}, "--layers leaves out"},
		{"layer twice", tensors(), Settings{Layers: []string{"a1", "a1"}}, `names "a1" once too often`},
		{"type", []safetensors.Tensor{safetensors.New("0.weight", []int{1, 1}, []int64{1})}, Settings{}, "is I64"},
	} {
		got, lines, err := Import[float64](c.tensors, c.set)
		if err == nil || got != nil || lines != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if _, lines, err := Import[float64](with(safetensors.New("scale", nil, []float64{1})), Settings{Ignore: []string{"sc*"}}); err != nil || lines[4].From != "scale" || lines[4].To != "" {
		t.Errorf("ignored: %v, error %v", lines, err)
	}
	if _, _, err := Export(m, "layer", false); err == nil || !strings.Contains(err.Error(), "put {i} in the place") {
		t.Errorf("names: %v", err)
	}
}

func TestNamed(t *testing.T) {
	var names []string
	f := func(shape ...int) safetensors.Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return safetensors.New(fmt.Sprint(len(names)), shape, make([]float64, n))
	}
	leaves := []safetensors.Tensor{f(), f(3, 2), f(3), f(3, 3), f(2, 3), f(2), f(7)}
	for i := range leaves {
		leaves[i].Name = fmt.Sprint(i)
	}
	for _, x := range Named(leaves) {
		names = append(names, x.Name)
	}
	want := []string{"leaf.0", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.2.weight", "layers.2.bias", "leaf.6"}
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestFormula(t *testing.T) {
	s := mlp.Dense(mlp.Tanh, 2, 50, 2)
	s.Input, s.Time = mlp.InputCube, mlp.TimeEveryLayer
	const want = "cat(z³, t) → Linear(3, 50) → tanh → cat(·, t) → Linear(51, 2)"
	if got := Formula(s); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
