package cpu

import (
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
)

// product is the op of a field's verbs.
type product[T backend.Float] struct {
	on[T]
	f    *bound[T]
	at   backend.At
	kind productKind
	// Operands of the verbs, as in backend.VJP, JVP and VJPTangent; nil ones are skipped.
	z, v, a, b, w, dz, az, adt, jv *vec[T]
	alpha                          T
	g                              *vec[T]
	weight                         float64
	timesH                         bool
	into                           *sums[T] // where units add for g; nil: to g itself

	// What a worker hands to its kernel: kept, because what crosses an interface by
	// pointer would be garbage after each call.
	calls []call[T]
}

type productKind uint8

const (
	evaluation productKind = iota
	vectorJacobian
	jacobianVector
	tangentOfVJP
)

// call is a worker's operands.
type call[T backend.Float] struct {
	back vjp[T]
	fwd  jvp[T]
	dot  vjpTangent[T]
}

func (f *bound[T]) released() bool { return f.kernels == nil }

// begin starts an op for the field's verbs on so many rows.
func (f *bound[T]) begin(kind productKind, at backend.At, z backend.Vec[T]) *product[T] {
	f.b.uses(f)
	o := keep(f.b, &f.last)
	_, n, _ := z.Shape()
	c := f.b.clock(at.Clock)
	if !c.single() && len(c.lanes) != n {
		panic("cpu: as many rows as lanes are needed")
	}
	*o = product[T]{
		on: on[T]{clk: c, rows: n, work: f.work, block: f.block},
		f:  f, at: at, kind: kind, calls: o.calls,
	}
	if kind != evaluation {
		o.work *= 3
	}
	o.z = o.state(z, f.dim, false)
	return o
}

// state is the host memory of a 1×B×cols operand.
func (o *product[T]) state(v backend.Vec[T], cols int, write bool) *vec[T] {
	return o.operand(v, o.rows, cols, write)
}

// param is that of a 1×1×P operand.
func (o *product[T]) param(v backend.Vec[T]) *vec[T] {
	return o.operand(v, 1, len(o.f.params.d), false)
}

func (o *product[T]) operand(v backend.Vec[T], rows, cols int, write bool) *vec[T] {
	if v == nil {
		return nil
	}
	x := o.f.b.vec(v)
	if write {
		x.mem.version++
	}
	if x.blocks != 1 || x.cols != cols || x.rows != rows {
		panic("cpu: operand of another shape than the field's")
	}
	return x
}

// sum names the memory that sums over rows are added to.
func (o *product[T]) sum(g backend.Vec[T], weight float64, timesH bool) {
	if g == nil {
		return
	}
	x := o.f.b.raw(g)
	x.mem.version++
	if x.blocks != 1 || x.cols != len(o.f.params.d) || x.rows != 1 {
		panic("cpu: operand of another shape than the field's")
	}
	o.g, o.weight, o.timesH, o.sums = x, weight, timesH, len(x.d)
}

func (f *bound[T]) Eval(dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
	if !f.open() {
		return
	}
	o := f.begin(evaluation, at, z)
	o.dz = o.state(dz, f.dim, true)
	f.b.do(o)
}

func (f *bound[T]) VJP(at backend.At, v backend.VJP[T]) {
	if !f.open() {
		return
	}
	if err := f.kernels[0].canVJP(); err != nil {
		f.b.latch(err)
		return
	}
	o := f.begin(vectorJacobian, at, v.Z)
	o.a, o.alpha = o.state(v.A, f.dim, false), T(v.Alpha)
	o.dz, o.az, o.adt = o.state(v.DZ, f.dim, true), o.state(v.AZ, f.dim, true), o.state(v.AT, 1, true)
	o.sum(v.G, v.W, v.TimesH)
	f.b.do(o)
}

func (f *bound[T]) JVP(at backend.At, j backend.JVP[T]) {
	if !f.open() {
		return
	}
	if err := f.kernels[0].canJVP(); err != nil {
		f.b.latch(err)
		return
	}
	o := f.begin(jacobianVector, at, j.Z)
	o.v, o.w = o.state(j.V, f.dim, false), o.param(j.W)
	o.dz, o.jv = o.state(j.DZ, f.dim, true), o.state(j.JV, f.dim, true)
	f.b.do(o)
}

// prepare makes a kernel for every worker, and memory for sums.
func (o *product[T]) prepare(workers, units int) {
	f := o.f
	for len(f.kernels) < workers {
		k := f.kernels[0].more()
		f.b.bytes.Add(k.bytes())
		f.kernels = append(f.kernels, k)
	}
	if len(o.calls) < workers {
		o.calls = slices.Grow(o.calls, workers-len(o.calls))[:workers]
	}
	o.into = nil
	if o.g != nil && units > 1 {
		o.into = f.b.sumsOf(o.g, units)
	}
}

func (o *product[T]) unit(w *worker[T], u unit) {
	r := o.pick(w, u)
	if len(r.index) == 0 {
		return
	}
	k, call := o.f.kernels[w.id], &o.calls[w.id]
	var g, weight []T
	if o.g != nil {
		g = o.g.d
		if o.into != nil {
			g = o.into.of(u.i)
		}
		w.weight = w.weight[:0]
		for i := range r.index {
			x := o.weight
			if o.timesH {
				x *= r.h[i]
			}
			w.weight = append(w.weight, T(x))
		}
		weight = w.weight
	}
	switch o.kind {
	case evaluation:
		k.eval(o.dz.d, o.z.d, r)
	case vectorJacobian:
		call.back = vjp[T]{z: o.z.d, a: o.a.data(), dz: o.dz.data(), az: o.az.data(), at: o.adt.data(), alpha: o.alpha, g: g, weight: weight}
		k.vjp(&call.back, r)
	case jacobianVector:
		call.fwd = jvp[T]{z: o.z.d, v: o.v.d, w: o.w.data(), dz: o.dz.data(), jv: o.jv.d}
		k.jvp(&call.fwd, r)
	case tangentOfVJP:
		call.dot = vjpTangent[T]{z: o.z.d, v: o.v.d, a: o.a.d, b: o.b.d, w: o.w.data(), bz: o.az.data(), alpha: o.alpha, g: g, weight: weight}
		if o.az != nil || g != nil {
			before := k.bytes()
			k.(secondOrder[T]).vjpTangent(&call.dot, r)
			if grown := k.bytes() - before; grown != 0 { // scratch that only this needs
				o.f.b.bytes.Add(grown)
			}
		}
	}
}

// data is the memory of v, nil if there is no v.
func (v *vec[T]) data() []T {
	if v == nil {
		return nil
	}
	return v.d
}

// pick collects the selected rows of a unit and counts the evaluation of their lanes.
func (o *product[T]) pick(w *worker[T], u unit) *rows {
	s := &w.rows
	s.index, s.t, s.h, s.add = s.index[:0], s.t[:0], s.h[:0], false
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		l := &o.clk.lanes[i]
		if !l.selected(o.at.Rows) {
			continue
		}
		if !o.clk.single() || u.i == 0 {
			l.evals++
		}
		t, h := l.instant(o.at.Rows, o.at.C), l.size(o.at.Rows)
		for r := lo; r < hi; r++ {
			s.index, s.t, s.h = append(s.index, int32(r)), append(s.t, t), append(s.h, h)
		}
	}
	return s
}

// sums keeps what every unit of rows has added to a Vec, until somebody reads that. So
// its bits depend on the rows, and not on how many goroutines there are or how many
// steps are made in one call.
type sums[T backend.Float] struct {
	b     *Backend[T]
	to    []T
	d     []T // a copy of to for each unit
	units int
	used  bool
	k     [][]T
	ones  []T
}

// sumsOf are the sums for g of so many units.
func (b *Backend[T]) sumsOf(g *vec[T], units int) *sums[T] {
	s := g.mem.sums
	if s == nil || s.units != units || len(s.to) != len(g.d) || len(g.d) > 0 && &s.to[0] != &g.d[0] {
		s.flush()
		b.bytes.Add(-s.bytes())
		s = &sums[T]{b: b, to: g.d, d: make([]T, units*len(g.d)), units: units}
		g.mem.sums = s
		b.bytes.Add(s.bytes())
	}
	s.used = true
	return s
}

// of is where a unit adds.
func (s *sums[T]) of(unit int) []T {
	n := len(s.to)
	return s.d[unit*n : (unit+1)*n : (unit+1)*n]
}

func (s *sums[T]) bytes() int64 {
	if s == nil {
		return 0
	}
	return int64(len(s.d)) * sizeOf[T]()
}

// flush adds the sums to what they belong to, in the order of units.
func (s *sums[T]) flush() {
	if s == nil || !s.used {
		return
	}
	for i := 0; i < s.units; i += maxStages {
		s.k, s.ones = s.k[:0], s.ones[:0]
		for j := i; j < min(i+maxStages, s.units); j++ {
			s.k, s.ones = append(s.k, s.of(j)), append(s.ones, 1)
		}
		simd.Combine(s.to, s.to, s.ones[:1], s.ones, s.k)
	}
	clear(s.d)
	s.used = false
}
