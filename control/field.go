package control

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// Form says how the signal enters.
type Form uint8

const (
	Value   Form = iota // dz/dt = f(t, x; θ), x = [z, u(t)]
	AndRate             // dz/dt = f(t, x; θ), x = [z, u(t), u'(t)]
	CDE                 // dz/dt = F(t, z; θ)·u'(t), F row-major [D, C]
)

var formNames = [...]string{"value", "value and rate", "CDE"}

func (f Form) String() string {
	if int(f) < len(formNames) {
		return formNames[f]
	}
	return fmt.Sprintf("Form(%d)", uint8(f))
}

// Settings says how a right-hand side reads its signal.
type Settings struct {
	Form Form
	// Learn makes the values at the knots a part of θ, so that gradients hold theirs.
	Learn bool
}

// Field is a right-hand side that reads a signal: row r of a batch reads series r, or
// the only one. θ is the function's and after it, with Settings.Learn, the values at
// the knots of all series, as Signal.Values has them.
type Field[T backend.Float] struct {
	inner  Map[T]
	signal *Signal[T]
	set    Settings
	dim    int
}

// New puts a function and its signal together. The dimensions of f must fit:
// D + C → D or, with the rate, D + 2C → D; for a CDE D → D·C.
func New[T backend.Float](f Map[T], u *Signal[T], set Settings) (*Field[T], error) {
	if f == nil || u == nil {
		return nil, errors.New("control: New needs a function and a signal, and got nil")
	}
	if v, ok := f.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	if reference(f) == nil {
		return nil, fmt.Errorf("control: New got a %T; give an *mlp.Model, a *control.Func or a field.Func with OutDim", f)
	}
	if got, want := len(f.Params()), f.NumParams(); got != want {
		return nil, fmt.Errorf("control: %T says that it has %d parameters, but its Params has length %d", f, want, got)
	}
	c, in, out := u.channels, f.Dim(), f.OutDim()
	d, wantIn, wantOut := out, out+c, out
	switch set.Form {
	case Value:
	case AndRate:
		wantIn += c
	case CDE:
		d, wantIn, wantOut = in, in, in*c
	default:
		return nil, fmt.Errorf("control: Settings.Form is %d; use Value, AndRate or CDE", set.Form)
	}
	if in != wantIn || out != wantOut || d < 1 {
		return nil, fmt.Errorf("control: a function from %d to %d components and a signal of %d channels do not make a right-hand side of form %v; for a state of %d components it must be from %d to %d",
			in, out, c, set.Form, max(d, 1), wantIn, wantOut)
	}
	if set.Form != Value && u.kind == Constant {
		return nil, fmt.Errorf("control: form %v reads u', which a piecewise constant signal does not have; use a Linear, Hermite or NaturalCubic one", set.Form)
	}
	return &Field[T]{inner: f, signal: u, set: set, dim: d}, nil
}

// Dim is the number of components of the state, D.
func (f *Field[T]) Dim() int { return f.dim }

// NumParams is the length of θ.
func (f *Field[T]) NumParams() int {
	n := f.inner.NumParams()
	if f.set.Learn {
		n += len(f.signal.values)
	}
	return n
}

// Params returns θ: the function's own or, with Settings.Learn, a new slice. To
// change it, write to the function's parameters and call Signal.SetValues, or call
// SetParams.
func (f *Field[T]) Params() []T {
	theta := f.inner.Params()
	if !f.set.Learn {
		return theta
	}
	return append(theta[:len(theta):len(theta)], f.signal.values...)
}

// SetParams copies theta, of length NumParams, into the function and the signal.
func (f *Field[T]) SetParams(theta []T) {
	if len(theta) != f.NumParams() {
		panic("control: SetParams with the wrong number of parameters")
	}
	inner, values := f.Split(theta)
	copy(f.inner.Params(), inner)
	if f.set.Learn {
		f.signal.SetValues(values)
	}
}

// Split takes θ, or a gradient laid out like it, apart: what belongs to the function,
// and to the values at the knots, nil unless Settings.Learn. Neither is copied.
// Signal.SampleValues takes the latter apart.
func (f *Field[T]) Split(theta []T) (inner, values []T) {
	n := f.inner.NumParams()
	if inner = theta[:n:n]; f.set.Learn {
		values = theta[n:]
	}
	return inner, values
}

// Inner is the function that New was given.
func (f *Field[T]) Inner() Map[T] { return f.inner }

// Signal is the signal that New was given.
func (f *Field[T]) Signal() *Signal[T] { return f.signal }

// Settings are those that New was given.
func (f *Field[T]) Settings() Settings { return f.set }

// reference returns f as a function of one sample, nil if it is none.
func reference[T backend.Float](f Map[T]) field.Func[T] {
	switch f := f.(type) {
	case *mlp.Model[T]:
		return network[T]{f}
	case field.Func[T]:
		return f
	}
	return nil
}

// network is an MLP by its plain arithmetic.
type network[T backend.Float] struct{ *mlp.Model[T] }

func (n network[T]) with(theta []T) *mlp.Model[T] {
	return &mlp.Model[T]{Spec: n.Spec, Theta: theta}
}

func (n network[T]) Eval(t float64, x, theta, dz []T) { n.with(theta).Eval(t, x, dz) }

func (n network[T]) VJP(t float64, x, theta, a, ax, atheta []T) (at float64) {
	return n.with(theta).VJP(t, x, a, ax, atheta)
}

func (n network[T]) JVP(t float64, x, theta, v, w, jv []T) { n.with(theta).JVP(t, x, v, w, jv) }
