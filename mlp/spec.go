package mlp

import (
	"fmt"
	"math"
	"slices"
)

// Float is the element type of states, parameters and gradients. Times are
// float64 everywhere.
type Float interface{ float32 | float64 }

// Time says which layers see the time t, as the last column of their input.
type Time uint8

const (
	TimeNone       Time = iota // none: f is autonomous
	TimeInput                  // the first layer: cat([z, t])
	TimeEveryLayer             // every layer: cat([x, t])
)

var timeNames = []string{TimeNone: "none", TimeInput: "input", TimeEveryLayer: "every_layer"}

// String is the name that [ParseTime] reads.
func (t Time) String() string { return enumString("Time", timeNames, t) }

// ParseTime reads a name as String writes it: none, input or every_layer.
func ParseTime(s string) (Time, error) { return enumParse[Time]("time conditioning", timeNames, s) }

// MarshalText is the name; it fails for a value that is none of the constants.
func (t Time) MarshalText() ([]byte, error) { return enumMarshal("time conditioning", timeNames, t) }

// UnmarshalText reads a name as [ParseTime] does.
func (t *Time) UnmarshalText(text []byte) error {
	v, err := ParseTime(string(text))
	if err == nil {
		*t = v
	}
	return err
}

// Input is the map g from the state to the first layer's input. It acts on z
// only, never on the time.
type Input uint8

const (
	InputIdentity Input = iota // z
	InputCube                  // z³, element by element
)

var inputNames = []string{InputIdentity: "identity", InputCube: "cube"}

// String is the name that [ParseInput] reads.
func (i Input) String() string { return enumString("Input", inputNames, i) }

// ParseInput reads a name as String writes it: identity or cube.
func ParseInput(s string) (Input, error) { return enumParse[Input]("input map", inputNames, s) }

// MarshalText is the name; it fails for a value that is none of the constants.
func (i Input) MarshalText() ([]byte, error) { return enumMarshal("input map", inputNames, i) }

// UnmarshalText reads a name as [ParseInput] does.
func (i *Input) UnmarshalText(text []byte) error {
	v, err := ParseInput(string(text))
	if err == nil {
		*i = v
	}
	return err
}

// MaxParams is the most parameters that a Spec may have, so that every offset
// into θ fits an int32 on any device.
const MaxParams = math.MaxInt32

// Spec describes a multilayer perceptron without its parameters; the package
// comment has the formulas.
type Spec struct {
	// Widths are the components of the state, of every hidden layer, and of the
	// output. A time column is not counted. The right-hand side of an ODE has as
	// many outputs as states.
	Widths []int
	// Activations has one entry per layer, len(Widths)-1 of them.
	Activations []Activation
	// Time says which layers see t; none by default.
	Time Time
	// Input is applied to z before the first layer; the identity by default.
	Input Input
}

// Dense is the usual Spec: act in every hidden layer and none in the last, no
// time. Dense(Tanh, 2, 50, 2) has two states and one hidden layer of 50 units.
func Dense(act Activation, widths ...int) Spec {
	s := Spec{Widths: slices.Clone(widths)}
	if n := len(widths) - 1; n > 0 {
		s.Activations = make([]Activation, n)
		for l := range n - 1 {
			s.Activations[l] = act
		}
	}
	return s
}

// Validate returns what is wrong with s, if anything. Every other method needs
// a valid Spec, and panics or is meaningless without.
func (s Spec) Validate() error {
	if len(s.Widths) < 2 {
		return fmt.Errorf("mlp: Spec.Widths has length %d; give at least the number of inputs and of outputs", len(s.Widths))
	}
	for i, w := range s.Widths {
		if w < 1 {
			return fmt.Errorf("mlp: Spec.Widths[%d] is %d; every width is at least 1", i, w)
		}
	}
	if got, want := len(s.Activations), len(s.Widths)-1; got != want {
		return fmt.Errorf("mlp: Spec.Activations has length %d for %d layers; give one per layer, usually Identity for the last", got, want)
	}
	for l, a := range s.Activations {
		if err := enumCheck("activation", activationNames, a); err != nil {
			return fmt.Errorf("mlp: Spec.Activations[%d]: %w", l, err)
		}
	}
	if err := enumCheck("time conditioning", timeNames, s.Time); err != nil {
		return fmt.Errorf("mlp: Spec.Time: %w", err)
	}
	if err := enumCheck("input map", inputNames, s.Input); err != nil {
		return fmt.Errorf("mlp: Spec.Input: %w", err)
	}
	var total uint64
	for l := range s.Activations {
		// Each factor is below 2^31 where it counts, so the product cannot wrap.
		in, out := uint64(s.Widths[l]), uint64(s.Widths[l+1])
		if in > MaxParams || out > MaxParams {
			total = math.MaxUint64
		} else {
			total += out * (in + 2) // a time column at most, and the bias
			if !s.hasTime(l) {
				total -= out
			}
		}
		if total > MaxParams {
			return fmt.Errorf("mlp: Spec has more than %d parameters by layer %d of %d→%d; use narrower layers", MaxParams, l, s.Widths[l], s.Widths[l+1])
		}
	}
	return nil
}

// Clone returns a Spec that shares no memory with s.
func (s Spec) Clone() Spec {
	s.Widths = slices.Clone(s.Widths)
	s.Activations = slices.Clone(s.Activations)
	return s
}

// Equal tells whether s and o describe the same function of z, t and θ.
func (s Spec) Equal(o Spec) bool {
	return slices.Equal(s.Widths, o.Widths) && slices.Equal(s.Activations, o.Activations) &&
		s.Time == o.Time && s.Input == o.Input
}

// NumLayers is L, the number of weight matrices.
func (s Spec) NumLayers() int { return len(s.Activations) }

// NumParams is the length of θ.
func (s Spec) NumParams() int {
	n := 0
	for _, l := range s.Layers() {
		n += l.Out*l.In + l.Out
	}
	return n
}

// Layer is where one layer lies in θ: its weight, row-major [Out, In], is
// θ[W : W+Out·In], and its bias θ[B : B+Out], which follows at once.
type Layer struct {
	In      int // columns of the weight, the time's included
	Out     int
	HasTime bool // the last column multiplies t
	Act     Activation
	W, B    int // offsets into θ
}

// Layers returns every layer, first to last.
func (s Spec) Layers() []Layer {
	layers := make([]Layer, s.NumLayers())
	offset := 0
	for l := range layers {
		in := s.Widths[l]
		if s.hasTime(l) {
			in++
		}
		out := s.Widths[l+1]
		layers[l] = Layer{In: in, Out: out, HasTime: s.hasTime(l), Act: s.Activations[l], W: offset, B: offset + out*in}
		offset += out*in + out
	}
	return layers
}

// Layer returns layer l of 0 … NumLayers()-1.
func (s Spec) Layer(l int) Layer { return s.Layers()[l] }

func (s Spec) hasTime(l int) bool {
	return s.Time == TimeEveryLayer || s.Time == TimeInput && l == 0
}
