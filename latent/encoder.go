package latent

import (
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// encoder is a GRU that runs over series from the last observation to the first, and a
// linear layer of its last state. With an observation x and a state h,
//
//	r = σ(W_r x + b_r + V_r h + c_r)
//	u = σ(W_u x + b_u + V_u h + c_u)
//	n = tanh(W_n x + b_n + r⊙(V_n h + c_n))
//	h ← (1-u)⊙n + u⊙h
//
// (torch.nn.GRU). Series are ordered by falling length, so that those under way at a step
// are the first lanes.
type encoder[T backend.Float] struct {
	values, hidden int
	input          mlp.Layer // W, b: 3·hidden outputs
	state          mlp.Layer // V, c
	read           mlp.Layer

	lanes int       // of the batch under way
	steps []step[T] // by the number of the observation
	h     []T       // [hidden][lanes]
	out   []T       // [read.Out][lanes]
	work  []T
	da    []T
	db    []T
	dh    []T
}

// step is what an observation left for the way back.
type step[T backend.Float] struct {
	lanes int // series that have it
	x     []T // [input.In][lanes of the batch]
	h     []T // the state before
	gates []T // r, u and n
	b     []T // V·h + c
}

// newEncoder reads observations of that many values. Its parameters are the first of θ.
func newEncoder[T backend.Float](values, hidden, out int) encoder[T] {
	e := encoder[T]{values: values, hidden: hidden}
	at := 0
	layer := func(in, out int) mlp.Layer {
		ly := mlp.Layer{In: in, Out: out, W: at, B: at + in*out}
		at += (in + 1) * out
		return ly
	}
	// An observation is its values, 0 where there is none, which are there, and the
	// time to the one before.
	e.input = layer(2*values+1, 3*hidden)
	e.state = layer(hidden, 3*hidden)
	e.read = layer(hidden, out)
	return e
}

func (e *encoder[T]) params() int { return e.read.B + e.read.Out }

// draw draws parameters as torch.nn.GRU and torch.nn.Linear do.
func (e *encoder[T]) draw(seed uint64) []T {
	r, bound := rand.New(rand.NewPCG(seed, 0x677275)), 1/math.Sqrt(float64(e.hidden)) // any constant
	theta := make([]T, e.params())
	for i := range theta {
		theta[i] = T(bound * (2*r.Float64() - 1))
	}
	return theta
}

// observe sets lane of x to observation k of s.
func (e *encoder[T]) observe(x []T, lane int, s *Series[T], k int, start float64) {
	for j, v := range s.Values[k*e.values : (k+1)*e.values] {
		seen := T(1)
		if v != v {
			v, seen = 0, 0
		}
		x[j*e.lanes+lane], x[(e.values+j)*e.lanes+lane] = v, seen
	}
	if k > 0 {
		start = s.Times[k-1]
	}
	x[2*e.values*e.lanes+lane] = T(s.Times[k] - start)
}

// forward encodes series, longest first: it returns the last layer, [read.Out][lanes],
// valid until the next call.
func (e *encoder[T]) forward(theta []T, batch []*Series[T], start float64) []T {
	e.lanes = len(batch)
	length := len(batch[0].Times)
	for len(e.steps) < length {
		e.steps = append(e.steps, step[T]{})
	}
	for k := range e.steps[length:] {
		e.steps[length+k].lanes = 0
	}
	size := e.hidden * e.lanes
	e.h = grown(e.h, size)
	clear(e.h)
	for k := length - 1; k >= 0; k-- {
		s := &e.steps[k]
		s.x, s.gates, s.b = grown(s.x, e.input.In*e.lanes), grown(s.gates, 3*size), grown(s.b, 3*size)
		s.h = append(s.h[:0], e.h...)
		for s.lanes = 0; s.lanes < e.lanes && len(batch[s.lanes].Times) > k; s.lanes++ {
			e.observe(s.x, s.lanes, batch[s.lanes], k, start)
		}
		e.advance(theta, s)
	}
	e.out = grown(e.out, e.read.Out*e.lanes)
	apply(e.read, theta, e.out, e.h, e.lanes, e.lanes)
	return e.out
}

// row is row i of a tile, its first n lanes.
func (e *encoder[T]) row(x []T, i, n int) []T { return x[i*e.lanes : i*e.lanes+n] }

// advance takes h through a step.
func (e *encoder[T]) advance(theta []T, s *step[T]) {
	apply(e.input, theta, s.gates, s.x, e.lanes, s.lanes)
	apply(e.state, theta, s.b, s.h, e.lanes, s.lanes)
	for i := range 2 * e.hidden {
		gate, b := e.row(s.gates, i, s.lanes), e.row(s.b, i, s.lanes)
		for j := range gate {
			gate[j] += b[j]
		}
		simd.Activate(mlp.Sigmoid, gate, gate)
	}
	for i := range e.hidden {
		r, u, n := e.row(s.gates, i, s.lanes), e.row(s.gates, e.hidden+i, s.lanes), e.row(s.gates, 2*e.hidden+i, s.lanes)
		b, h := e.row(s.b, 2*e.hidden+i, s.lanes), e.row(e.h, i, s.lanes)
		for j := range n {
			n[j] += r[j] * b[j]
		}
		simd.Activate(mlp.Tanh, n, n)
		for j := range n {
			h[j] = (1-u[j])*n[j] + u[j]*h[j]
		}
	}
}

// backward adds the gradient for the cotangents dout of what forward returned to grad.
func (e *encoder[T]) backward(theta, dout, grad []T) {
	size := e.hidden * e.lanes
	e.da, e.db, e.dh = grown(e.da, 3*size), grown(e.db, 3*size), grown(e.dh, size)
	e.work = grown(e.work, max(e.input.In, e.hidden)*e.lanes)
	addGradient(e.read, grad, dout, e.h, e.work, e.lanes, e.lanes)
	back(simd.Set, e.read, theta, e.dh, dout, e.lanes, e.lanes)
	for k := range e.steps {
		s := &e.steps[k]
		if s.lanes == 0 {
			break
		}
		for i := range e.hidden {
			r, u, n := e.row(s.gates, i, s.lanes), e.row(s.gates, e.hidden+i, s.lanes), e.row(s.gates, 2*e.hidden+i, s.lanes)
			b, h, dh := e.row(s.b, 2*e.hidden+i, s.lanes), e.row(s.h, i, s.lanes), e.row(e.dh, i, s.lanes)
			for j := range dh {
				dn := dh[j] * (1 - u[j]) * (1 - n[j]*n[j])
				dr := dn * b[j] * r[j] * (1 - r[j])
				du := dh[j] * (h[j] - n[j]) * u[j] * (1 - u[j])
				dh[j] *= u[j]
				at := i*e.lanes + j
				e.da[at], e.da[size+at], e.da[2*size+at] = dr, du, dn
				e.db[at], e.db[size+at], e.db[2*size+at] = dr, du, dn*r[j]
			}
		}
		addGradient(e.input, grad, e.da, s.x, e.work, e.lanes, s.lanes)
		addGradient(e.state, grad, e.db, s.h, e.work, e.lanes, s.lanes)
		back(simd.Add, e.state, theta, e.dh, e.db, e.lanes, s.lanes)
	}
}
