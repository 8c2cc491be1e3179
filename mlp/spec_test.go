package mlp

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestDense(t *testing.T) {
	s := Dense(Tanh, 2, 50, 40, 3)
	want := Spec{Widths: []int{2, 50, 40, 3}, Activations: []Activation{Tanh, Tanh, Identity}}
	if !s.Equal(want) {
		t.Errorf("got %+v", s)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if err := Dense(Tanh).Validate(); err == nil {
		t.Error("Dense without widths is valid")
	}
	widths := []int{2, 2}
	s = Dense(Tanh, widths...)
	widths[0] = 9
	if s.Widths[0] != 2 {
		t.Error("Dense keeps the caller's slice")
	}
}

func TestSpec_Validate(t *testing.T) {
	id := func(n int) []Activation { return make([]Activation, n) }
	huge := 1 << 30
	for _, c := range []struct {
		spec Spec
		want string // part of the error; empty for none
	}{
		{Spec{Widths: []int{1, 1}, Activations: id(1)}, ""},
		{Spec{}, "Spec.Widths has length 0; give at least"},
		{Spec{Widths: []int{3}}, "Spec.Widths has length 1; give at least"},
		{Spec{Widths: []int{3, 0, 3}, Activations: id(2)}, "Spec.Widths[1] is 0; every width is at least 1"},
		{Spec{Widths: []int{-3, 3}, Activations: id(1)}, "Spec.Widths[0] is -3"},
		{Spec{Widths: []int{3, 3}}, "Spec.Activations has length 0 for 1 layers; give one per layer"},
		{Spec{Widths: []int{3, 3}, Activations: id(2)}, "Spec.Activations has length 2 for 1 layers"},
		{Spec{Widths: []int{3, 3}, Activations: []Activation{99}}, "Spec.Activations[0]: mlp: activation 99 unknown; use one of identity, tanh"},
		{Spec{Widths: []int{3, 3}, Activations: id(1), Time: 9}, "Spec.Time: mlp: time conditioning 9 unknown; use one of none, input"},
		{Spec{Widths: []int{3, 3}, Activations: id(1), Input: 9}, "Spec.Input: mlp: input map 9 unknown; use one of identity, cube"},
		// out·(in+1) is 46340², just below 2³¹, and then 46341², just above.
		{Spec{Widths: []int{46339, 46340}, Activations: id(1)}, ""},
		{Spec{Widths: []int{46340, 46341}, Activations: id(1)}, "more than 2147483647 parameters by layer 0 of 46340→46341; use narrower layers"},
		{Spec{Widths: []int{46339, 46341}, Activations: id(1)}, ""},
		{Spec{Widths: []int{46339, 46341}, Activations: id(1), Time: TimeInput}, "more than 2147483647 parameters"},
		{Spec{Widths: []int{huge, huge, huge, huge, huge}, Activations: id(4)}, "by layer 0"},
		{Spec{Widths: []int{math.MaxInt, math.MaxInt}, Activations: id(1), Time: TimeEveryLayer}, "by layer 0"},
		{Spec{Widths: []int{4*huge - 1, 4 * huge}, Activations: id(1)}, "by layer 0"}, // 2⁶⁴ parameters
		{Spec{Widths: []int{1, huge, 1, huge, 1}, Activations: id(4)}, "by layer 0"},
		{Spec{Widths: []int{1, huge - 1, 1, 1}, Activations: id(3)}, "by layer 1"},
	} {
		err := c.spec.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.spec, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "mlp: ")):
			t.Errorf("%+v: error %v, want %q", c.spec, err, c.want)
		}
	}
}

func TestSpec_Layout(t *testing.T) {
	s := Spec{Widths: []int{2, 5, 4, 3}, Activations: []Activation{Tanh, SiLU, Identity}}
	for _, c := range []struct {
		time   Time
		layers []Layer
		total  int
	}{
		{TimeNone, []Layer{{2, 5, false, Tanh, 0, 10}, {5, 4, false, SiLU, 15, 35}, {4, 3, false, Identity, 39, 51}}, 54},
		{TimeInput, []Layer{{3, 5, true, Tanh, 0, 15}, {5, 4, false, SiLU, 20, 40}, {4, 3, false, Identity, 44, 56}}, 59},
		{TimeEveryLayer, []Layer{{3, 5, true, Tanh, 0, 15}, {6, 4, true, SiLU, 20, 44}, {5, 3, true, Identity, 48, 63}}, 66},
	} {
		s.Time = c.time
		if s.NumParams() != c.total || s.NumLayers() != 3 {
			t.Errorf("%v: %d parameters in %d layers", c.time, s.NumParams(), s.NumLayers())
		}
		for l, want := range c.layers {
			if got := s.Layer(l); got != want {
				t.Errorf("%v: layer %d is %+v, want %+v", c.time, l, got, want)
			}
		}
	}
}

// The largest valid Specs must not overflow the offsets of Layers.
func TestSpec_LargestLayout(t *testing.T) {
	s := Spec{Widths: []int{46339, 46341}, Activations: []Activation{Identity}}
	if got := s.NumParams(); got != 46341*46339+46341 || got > MaxParams {
		t.Errorf("NumParams() = %d", got)
	}
}

func TestModel_ViewsAndCopies(t *testing.T) {
	spec := Spec{Widths: []int{2, 3, 2}, Activations: []Activation{Tanh, Identity}, Time: TimeInput}
	m, err := New[float64](spec, Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	theta := make([]float64, m.NumParams())
	for i := range theta {
		theta[i] = float64(i)
	}
	m.SetParams(theta)
	theta[0] = -1
	if m.Theta[0] != 0 || &m.Params()[0] != &m.Theta[0] {
		t.Error("SetParams must copy, Params must not")
	}
	for l, want := range [][4]float64{{0, 8, 9, 11}, {12, 17, 18, 19}} { // first and last of W and b
		w, b := m.Weight(l), m.Bias(l)
		if got := [4]float64{w[0], w[len(w)-1], b[0], b[len(b)-1]}; got != want {
			t.Errorf("layer %d: weight and bias span %v, want %v", l, got, want)
		}
		if cap(w) != len(w) || cap(b) != len(b) {
			t.Errorf("layer %d: appending to a view would overwrite its neighbour", l)
		}
		w[0]++
		if m.Theta[m.Spec.Layer(l).W] != want[0]+1 {
			t.Errorf("layer %d: Weight is a copy", l)
		}
	}
	c := m.Clone()
	c.Theta[3], c.Spec.Widths[0], c.Spec.Activations[0] = -5, 7, Sin
	if m.Theta[3] == -5 || m.Spec.Widths[0] == 7 || m.Spec.Activations[0] == Sin || spec.Widths[0] == 7 {
		t.Error("Clone shares memory")
	}
	f := Convert[float32](m)
	for i := range f.Theta {
		if f.Theta[i] != float32(m.Theta[i]) {
			t.Errorf("Convert: parameter %d is %v, want %v", i, f.Theta[i], m.Theta[i])
		}
	}
	if m.Dim() != 2 || m.OutDim() != 2 || m.NumParams() != 20 {
		t.Errorf("dimensions %d, %d, %d", m.Dim(), m.OutDim(), m.NumParams())
	}
	m.Theta = m.Theta[1:]
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "Theta has length 19, but the Spec has 20") {
		t.Errorf("Validate: %v", err)
	}
	m.Spec.Widths = nil
	if err := m.Validate(); err == nil {
		t.Error("a model without Spec is valid")
	}
}

func TestModel_PanicsOnWrongLengths(t *testing.T) {
	m, err := New[float32](Dense(Tanh, 2, 3), Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	z, out, th := make([]float32, 2), make([]float32, 3), make([]float32, m.NumParams())
	for want, calls := range map[string][]func(){
		"mlp: Eval with slices of the wrong length": {
			func() { m.Eval(0, out, out) }, func() { m.Eval(0, z, z) }},
		"mlp: VJP with slices of the wrong length": {
			func() { m.VJP(0, out, out, z, th) }, func() { m.VJP(0, z, z, z, th) },
			func() { m.VJP(0, z, out, out, th) }, func() { m.VJP(0, z, out, z, th[1:]) }},
		"mlp: JVP with slices of the wrong length": {
			func() { m.JVP(0, out, z, th, out) }, func() { m.JVP(0, z, out, th, out) },
			func() { m.JVP(0, z, z, th[1:], out) }, func() { m.JVP(0, z, z, th, z) }},
		"mlp: SetParams with the wrong number of parameters": {func() { m.SetParams(th[1:]) }},
	} {
		for i, f := range calls {
			func() {
				defer func() {
					if r := recover(); r != want {
						t.Errorf("call %d recovered %v, want %q", i, r, want)
					}
				}()
				f()
			}()
		}
	}
}

func TestSpec_JSON(t *testing.T) {
	s := Spec{Widths: []int{2, 50, 2}, Activations: []Activation{Tanh, Identity}, Time: TimeEveryLayer, Input: InputCube}
	b, err := json.Marshal(s)
	const want = `{"version":1,"widths":[2,50,2],"activations":["tanh","identity"],"time":"every_layer","input":"cube"}`
	if string(b) != want || err != nil {
		t.Fatalf("%s, %v", b, err)
	}
	var got Spec
	if err := json.Unmarshal(b, &got); err != nil || !got.Equal(s) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := json.Marshal(Spec{}); err == nil {
		t.Error("an invalid Spec was marshalled")
	}

	for _, c := range []struct{ name, old, new, want string }{
		{"activation", `"tanh"`, `"foo"`, `layer 0: mlp: activation "foo" unknown; use one of identity, tanh`},
		{"activation as number", `"tanh"`, `1`, "not the JSON that this version writes"},
		{"activation in other case", `"tanh"`, `"Tanh"`, `activation "Tanh" unknown`},
		{"activation missing", `"tanh",`, ``, "Spec.Activations has length 1 for 2 layers"},
		{"activations as base64", `["tanh","identity"]`, `"AQA="`, "not the JSON that this version writes"},
		{"null activation", `"tanh"`, `null`, `activation "" unknown`},
		{"time", `every_layer`, `sometimes`, `time conditioning "sometimes" unknown; use one of none, input, every_layer`},
		{"input", `cube`, `square`, `input map "square" unknown; use one of identity, cube`},
		{"version", `:1,`, `:2,`, "version 2, this program reads version 1; use the program that wrote it"},
		{"no version", `"version":1,`, ``, "version 0"},
		{"unknown key", `"time"`, `"tide"`, `key "tide" is unknown or given twice`},
		{"other case", `"time"`, `"Time"`, `key "Time" is unknown`},
		{"twice", `"version":1,`, `"version":1,"version":1,`, `key "version" is unknown or given twice`},
		{"negative width", `50`, `-50`, "Spec.Widths[1] is -50"},
		{"fraction", `50`, `50.5`, "not the JSON that this version writes"},
		{"absurd width", `50`, `9223372036854775807`, "use narrower layers"},
		{"beyond int64", `50`, `9223372036854775808`, "not the JSON"},
		{"trailing", `}`, `} {}`, "invalid JSON"},
		{"truncated", `}`, ``, "invalid JSON"},
		{"array", want, `[]`, "no object"},
		{"null", want, `null`, "no object"},
		{"empty", want, ``, "invalid JSON"},
	} {
		text := strings.Replace(want, c.old, c.new, 1)
		if text == want {
			t.Fatalf("%s: nothing replaced", c.name)
		}
		kept := Dense(Sin, 4, 4)
		err := kept.UnmarshalJSON([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		if !kept.Equal(Dense(Sin, 4, 4)) {
			t.Errorf("%s: the Spec was changed", c.name)
		}
	}
}
