package control

import (
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

// Sample is the right-hand side of one sample by itself, with the products that the
// function has, as field.Check takes it. It is NaN outside the knots. It allocates in
// every call; a solver is given the Field.
func (f *Field[T]) Sample(i int) field.Func[T] {
	return sample[T]{f, i, reference(f.inner)}
}

type sample[T backend.Float] struct {
	*Field[T]
	i     int
	inner field.Func[T]
}

var (
	_ field.VJPer[float32] = sample[float32]{}
	_ field.JVPer[float64] = sample[float64]{}
)

func (s sample[T]) HasVJP() bool {
	_, ok := s.inner.(field.VJPer[T])
	has, tells := s.inner.(interface{ HasVJP() bool })
	return ok && (!tells || has.HasVJP())
}

func (s sample[T]) HasJVP() bool {
	_, ok := s.inner.(field.JVPer[T])
	has, tells := s.inner.(interface{ HasJVP() bool })
	return ok && (!tells || has.HasJVP())
}

// reading is a signal read at one time: x is the function's input.
type reading[T backend.Float] struct {
	signal        *Signal[T]
	x, u, du, d2u []T
	theta, values []T
}

// read evaluates the signal at t, with the values that theta holds.
func (s sample[T]) read(t float64, z, theta []T) (r reading[T]) {
	c := s.signal.channels
	r.signal = s.signal
	if r.theta, r.values = s.Split(theta); r.values != nil {
		r.signal = s.signal.Clone()
		r.signal.SetValues(r.values)
	}
	r.u, r.du, r.d2u = make([]T, c), make([]T, c), make([]T, c)
	_ = r.signal.At(s.i, t, r.u, r.du, r.d2u) // NaN on an error
	r.x = s.input(z, r.u, r.du)
	return r
}

// input is x, or its tangent.
func (s sample[T]) input(z, u, du []T) []T {
	switch s.set.Form {
	case Value:
		return slices.Concat(z, u)
	case AndRate:
		return slices.Concat(z, u, du)
	}
	return slices.Clone(z)
}

// contract sets dz to y or, for a CDE, to Y·du.
func (s sample[T]) contract(dz, y, du []T) {
	if s.set.Form != CDE {
		copy(dz, y)
		return
	}
	for i := range dz {
		dz[i] = dot(y[i*len(du):(i+1)*len(du)], du)
	}
}

func dot[T backend.Float](x, y []T) (sum T) {
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

func (s sample[T]) output() []T { return make([]T, s.Field.inner.OutDim()) }

func (s sample[T]) Eval(t float64, z, theta, dz []T) {
	r, y := s.read(t, z, theta), s.output()
	s.inner.Eval(t, r.x, r.theta, y)
	s.contract(dz, y, r.du)
}

func (s sample[T]) VJP(t float64, z, theta, a, az, atheta []T) (at float64) {
	r, d, c := s.read(t, z, theta), s.dim, s.signal.channels
	ax, ay := make([]T, len(r.x)), slices.Clone(a)
	var aTheta, aValues []T
	if atheta != nil {
		aTheta, aValues = s.Split(atheta)
	}
	var au, adu []T // cotangents of u and u'
	if s.set.Form == CDE {
		y := s.output()
		s.inner.Eval(t, r.x, r.theta, y)
		ay, adu = make([]T, len(y)), make([]T, c)
		for i := range y {
			ay[i] = a[i/c] * r.du[i%c]
			adu[i%c] += a[i/c] * y[i]
		}
	}
	at = s.inner.(field.VJPer[T]).VJP(t, r.x, r.theta, ay, ax, aTheta)
	copy(az, ax[:d])
	if s.set.Form != CDE {
		au = ax[d : d+c]
		at += float64(dot(au, r.du))
	}
	if s.set.Form == AndRate {
		adu = ax[d+c:]
	}
	if adu != nil {
		at += float64(dot(adu, r.d2u))
	}
	if aValues != nil {
		p := r.signal.Pullback()
		p.Add(aValues, s.i, t, 1, au, adu)
		p.Flush(aValues)
	}
	return at
}

func (s sample[T]) JVP(t float64, z, theta, v, w, jv []T) {
	r, c := s.read(t, z, theta), s.signal.channels
	u, du := make([]T, c), make([]T, c) // their tangents
	wTheta, wValues := s.Split(w)
	if wValues != nil {
		tangent := s.signal.Clone()
		tangent.SetValues(wValues)
		_ = tangent.At(s.i, t, u, du, nil)
	}
	y := s.output()
	s.inner.(field.JVPer[T]).JVP(t, r.x, r.theta, s.input(v, u, du), wTheta, y)
	s.contract(jv, y, r.du)
	if s.set.Form == CDE && wValues != nil {
		s.inner.Eval(t, r.x, r.theta, y)
		more := make([]T, len(jv))
		s.contract(more, y, du)
		for i, m := range more {
			jv[i] += m
		}
	}
}
