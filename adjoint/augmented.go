package adjoint

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// augmented is the system [z, a] for the stepping loop, with a_θ as its quadrature, or
// the system [a] where z comes from a recording.
type augmented[T backend.Float] struct {
	dev   backend.Backend[T]
	field backend.Field[T]
	mem   *memory[T]
	quad  quadrature[T] // nil if there are no parameters

	record *recording[T] // where z comes from, nil if it is in the state
	z      backend.Vec[T]
}

// operands returns z and a at the instant, with a and, where it is solved for, z from
// the state y.
func (s *augmented[T]) operands(y step.Block[T], at backend.At) (z, a backend.Vec[T]) {
	if s.record == nil {
		return y.Of[0], y.Of[1]
	}
	s.record.interpolate(s.z, at)
	return s.z, y.Of[0]
}

// quadrature sums a_θ = -∫ aᵀ∂f/∂θ dt over accepted steps.
type quadrature[T backend.Float] interface {
	// before is called ahead of stage i's products; they add w·Σ aᵀ∂f/∂θ to g, if
	// it is not nil.
	before(i int, at backend.At) (g backend.Vec[T], w float64)
	// after is called when they were computed.
	after(i int, at backend.At)
	// advanced is called after the decision about an attempt.
	advanced()
}

// Stage sets dst = [f, -aᵀ∂f/∂z].
func (s *augmented[T]) Stage(i int, dst, y step.Block[T], at backend.At) {
	v := backend.VJP[T]{AZ: dst.Of[len(dst.Of)-1], Alpha: -1}
	v.Z, v.A = s.operands(y, at)
	if s.record == nil {
		v.DZ = dst.Of[0]
	}
	if s.quad == nil {
		s.field.VJP(at, v)
		return
	}
	v.G, v.W = s.quad.before(i, at)
	s.field.VJP(at, v)
	s.quad.after(i, at)
}

// Advanced sums a_θ.
func (s *augmented[T]) Advanced() {
	if s.quad != nil {
		s.quad.advanced()
	}
}

// Moved adds the cotangents of an output time just reached to a, and resets z to
// the forward solve's.
func (s *augmented[T]) Moved() {
	m, y := s.mem, s.mem.loop.Y
	if s.record == nil {
		s.dev.AtStop(m.loop.Clock, backend.Store, y.Of[0], m.reached)
		s.dev.AtStop(m.loop.Clock, backend.Load, y.Of[0], m.saved)
	}
	s.dev.AtStop(m.loop.Clock, backend.Add, m.a(), m.jump)
}

func (s *augmented[T]) accepted() backend.At {
	return backend.At{Clock: s.mem.loop.Clock, Rows: backend.Accepted}
}

// joint is the quadrature of a batch with one step size: the products of all stages
// are summed while the step is attempted, and taken over if it is accepted. Unless
// a_θ has to enter the error norm, three vectors serve for any number of stages:
// that of the first stage, which outlives a rejected attempt; that of the last
// stage of an FSAL method, which becomes the first; and the sum of the others.
type joint[T backend.Float] struct {
	*augmented[T]
	target []backend.Vec[T] // where stage i's product goes,
	weight []float64        // with this factor,
	fresh  []bool           // the first of an attempt to go there
	terms  []backend.Vec[T] // a_θ += h·Σ coef·terms
	coef   []float64
	zero   backend.Vec[T]
	trial  backend.Vec[T]    // a_θ at the end of the attempt; nil without the full norm
	reset  []backend.Move[T] // clears the first stage's
	accept []backend.Move[T]
}

func newJoint[T backend.Float](sys *augmented[T], tab *tableau.Tableau, full bool, vec func() backend.Vec[T]) *joint[T] {
	s := tab.Stages()
	q := &joint[T]{augmented: sys, zero: vec()}
	first := vec()
	q.target, q.weight, q.fresh = []backend.Vec[T]{first}, []float64{-1}, []bool{false}
	q.terms, q.coef = []backend.Vec[T]{first}, []float64{tab.B[0]}
	var sum backend.Vec[T]
	for i := 1; i < s; i++ {
		switch {
		case full || tab.FSAL && i == s-1:
			own := vec()
			q.add(own, -1, true)
			q.terms, q.coef = append(q.terms, own), append(q.coef, tab.B[i])
		case tab.B[i] == 0:
			q.add(nil, 0, false)
		default:
			if sum == nil {
				sum = vec()
				q.terms, q.coef = append(q.terms, sum), append(q.coef, 1)
				q.add(sum, -tab.B[i], true)
			} else {
				q.add(sum, -tab.B[i], false)
			}
		}
	}
	q.reset = []backend.Move[T]{{Dst: first, Src: q.zero}}
	if full {
		q.trial = vec()
		q.accept = append(q.accept, backend.Move[T]{Dst: sys.mem.theta, Src: q.trial})
	}
	if tab.FSAL {
		q.accept = append(q.accept, backend.Move[T]{Dst: first, Src: q.target[s-1]})
	}
	return q
}

func (q *joint[T]) add(target backend.Vec[T], weight float64, fresh bool) {
	q.target, q.weight, q.fresh = append(q.target, target), append(q.weight, weight), append(q.fresh, fresh)
}

// errorParts puts a_θ into the error norm if there is a trial.
func (q *joint[T]) errorParts() []backend.Part[T] {
	if q.trial == nil {
		return nil
	}
	return []backend.Part[T]{{Y0: q.mem.theta, Y1: q.trial, K: q.target}}
}

func (q *joint[T]) before(i int, at backend.At) (g backend.Vec[T], w float64) {
	switch {
	case i == 0:
		q.dev.Commit(at.Clock, at.Rows, q.reset)
	case q.fresh[i]:
		q.dev.Zero(q.target[i])
	}
	return q.target[i], q.weight[i]
}

func (q *joint[T]) after(i int, at backend.At) {
	if q.trial != nil && i == len(q.target)-1 {
		q.dev.Combine(q.trial, q.mem.theta, at, q.coef, q.terms)
	}
}

func (q *joint[T]) advanced() {
	if q.trial == nil {
		q.dev.Combine(q.mem.theta, q.mem.theta, q.accepted(), q.coef, q.terms)
	}
	q.dev.Commit(q.mem.loop.Clock, backend.Accepted, q.accept)
}

// replayed is the quadrature of a batch whose samples step alone. dL/dθ is their
// sum, out of which a rejected sample's part could not be taken again; so the
// stages of accepted steps are evaluated once more, after the decision.
type replayed[T backend.Float] struct {
	*augmented[T]
	work step.Block[T]
}

func (q *replayed[T]) before(int, backend.At) (g backend.Vec[T], w float64) { return nil, 0 }
func (q *replayed[T]) after(int, backend.At)                                {}

func (q *replayed[T]) advanced() {
	loop := q.mem.loop
	at := q.accepted()
	for i, b := range loop.Tableau.B {
		if b == 0 {
			continue
		}
		at.C = loop.Tableau.C[i]
		y := loop.Y
		if i > 0 {
			q.dev.Combine(q.work.Vec, y.Vec, at, loop.Tableau.A[i], loop.Stages())
			y = q.work
		}
		z, a := q.operands(y, at)
		q.field.VJP(at, backend.VJP[T]{Z: z, A: a, G: q.mem.theta, W: -b, TimesH: true})
	}
}
