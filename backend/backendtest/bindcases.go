package backendtest

import (
	"errors"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

func bindCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"Bind/describes the system", bindDescribes[T]},
		{"Bind/copies parameters", bindCopies[T]},
		{"Bind/unsupported", bindUnsupported[T]},
		{"Bind/not valid", bindInvalid[T]},
	}
}

func bindDescribes[T backend.Float](s *suite[T]) {
	m := s.model(mlp.Dense(mlp.Tanh, 3, 4, 3))
	f := s.bind(m)
	blocks, rows, cols := f.Params().Shape()
	if f.Dim() != 3 || f.NumParams() != len(m.Theta) || blocks != 1 || rows != 1 || cols != len(m.Theta) {
		s.Errorf("Bind: dimension %d, %d parameters in %d×%d×%d; want 3, %d in 1×1×%[6]d", f.Dim(), f.NumParams(), blocks, rows, cols, len(m.Theta))
	}
	s.equalBits("Bind: Params", s.download(f.Params()), m.Theta, "in the system")
}

func bindCopies[T backend.Float](s *suite[T]) {
	m := s.model(mlp.Dense(mlp.Tanh, 3, 4, 3))
	was := append([]T(nil), m.Theta...)
	f := s.bind(m)
	clear(m.Theta)
	s.equalBits("Bind: Params after the system's own changed", s.download(f.Params()), was, "when it was bound")
}

// alien is a System that no backend knows.
type alien[T backend.Float] struct{}

func (alien[T]) Dim() int       { return 2 }
func (alien[T]) NumParams() int { return 1 }
func (alien[T]) Params() []T    { return make([]T, 1) }

func bindUnsupported[T backend.Float](s *suite[T]) {
	if f, err := s.Bind(alien[T]{}); !errors.Is(err, backend.ErrUnsupported) || f != nil {
		s.Errorf("Bind of a system of a type of our own: %v, %v; want nil, ErrUnsupported", f, err)
	}
}

func bindInvalid[T backend.Float](s *suite[T]) {
	spec := mlp.Dense(mlp.Tanh, 3, 4, 3)
	n := spec.NumParams()
	for name, m := range map[string]*mlp.Model[T]{
		"one parameter less":     {Spec: spec, Theta: s.random(n - 1)},
		"one parameter too many": {Spec: spec, Theta: s.random(n + 1)},
		"no parameters":          {Spec: spec},
		"more outputs":           s.model(mlp.Dense(mlp.Tanh, 3, 4, 2)),
		"an empty Spec":          {},
	} {
		if f, err := s.Bind(m); err == nil || f != nil {
			s.Errorf("Bind of a model with %s: %v, %v; want nil and an error", name, f, err)
		}
	}
}
