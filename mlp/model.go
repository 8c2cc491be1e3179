package mlp

import (
	"fmt"
	"slices"
)

// Model is a Spec with its parameters θ. It is a right-hand side that every
// backend runs. Its methods may be called concurrently as long as nothing writes
// to Theta or Spec.
type Model[T Float] struct {
	Spec  Spec
	Theta []T // length Spec.NumParams(), laid out as the package comment says
}

// New makes a model with parameters drawn as init says; the same seed gives the
// same parameters on every machine, and float32 ones are the float64 ones rounded.
// It fails if spec or init is invalid. The model keeps copies.
func New[T Float](spec Spec, init Init, seed uint64) (*Model[T], error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := init.Validate(); err != nil {
		return nil, err
	}
	m := &Model[T]{Spec: spec.Clone(), Theta: make([]T, spec.NumParams())}
	fill(m.Spec, init, seed, func(i int, v float64) { m.Theta[i] = T(v) })
	return m, nil
}

// Validate returns what is wrong with m, if anything: an invalid Spec, or a
// Theta of the wrong length. A Model from New or Load is valid.
func (m *Model[T]) Validate() error {
	if err := m.Spec.Validate(); err != nil {
		return err
	}
	if want := m.Spec.NumParams(); len(m.Theta) != want {
		return fmt.Errorf("mlp: Theta has length %d, but the Spec has %d parameters; make the model with New or Load", len(m.Theta), want)
	}
	return nil
}

// Dim is the number of components of the state z.
func (m *Model[T]) Dim() int { return m.Spec.Widths[0] }

// OutDim is the number of components of f.
func (m *Model[T]) OutDim() int { return m.Spec.Widths[len(m.Spec.Widths)-1] }

// NumParams is the length of θ.
func (m *Model[T]) NumParams() int { return len(m.Theta) }

// Params returns Theta itself, not a copy.
func (m *Model[T]) Params() []T { return m.Theta }

// SetParams copies theta, of length NumParams, into Theta.
func (m *Model[T]) SetParams(theta []T) {
	if len(theta) != len(m.Theta) {
		panic("mlp: SetParams with the wrong number of parameters")
	}
	copy(m.Theta, theta)
}

// Weight returns the weight of layer l, row-major [Out, In], as a view of Theta.
func (m *Model[T]) Weight(l int) []T {
	y := m.Spec.Layer(l)
	return m.Theta[y.W:y.B:y.B]
}

// Bias returns the bias of layer l, [Out], as a view of Theta.
func (m *Model[T]) Bias(l int) []T {
	y := m.Spec.Layer(l)
	return m.Theta[y.B : y.B+y.Out : y.B+y.Out]
}

// Clone returns a model that shares no memory with m.
func (m *Model[T]) Clone() *Model[T] {
	return &Model[T]{Spec: m.Spec.Clone(), Theta: slices.Clone(m.Theta)}
}

// Convert returns a copy of m with parameters of type U, as in
// Convert[float32](m). Parameters are rounded to the nearest; one beyond U's
// range becomes infinite.
func Convert[U, T Float](m *Model[T]) *Model[U] {
	c := &Model[U]{Spec: m.Spec.Clone(), Theta: make([]U, len(m.Theta))}
	for i, v := range m.Theta {
		c.Theta[i] = U(v)
	}
	return c
}
