package cpu

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

var _ backend.SecondOrder[float32] = (*bound[float32])(nil)

// secondOrder is a kernel with second derivatives.
type secondOrder[T backend.Float] interface {
	vjpTangent(o *vjpTangent[T], r *rows)
	// canVJPTangent returns nil if the product exists, else the remedy.
	canVJPTangent() error
}

// vjpTangent is backend.VJPTangent on host slices; nil slices are skipped.
type vjpTangent[T backend.Float] struct {
	z, v, a, b, w, bz, g []T
	alpha                T
	weight               []T // as in vjp
}

// second returns the second derivatives of k, or the remedy.
func second[T backend.Float](k kernel[T]) (secondOrder[T], error) {
	s, ok := k.(secondOrder[T])
	if !ok {
		return nil, fmt.Errorf("cpu: this right-hand side has no second derivatives: %w: use an *mlp.Model, a field.SecondOrderer or a sum of these", backend.ErrUnsupported)
	}
	return s, s.canVJPTangent()
}

func (f *bound[T]) VJPTangent(at backend.At, v backend.VJPTangent[T]) {
	if !f.open() {
		return
	}
	k, err := second(f.k)
	if err != nil {
		f.b.latch(err)
		return
	}
	_, nrows, _ := v.Z.Shape()
	o := &f.dot
	*o = vjpTangent[T]{
		z: f.state(v.Z, nrows, f.dim, false), v: f.state(v.V, nrows, f.dim, false),
		a: f.state(v.A, nrows, f.dim, false), b: f.state(v.B, nrows, f.dim, false),
		bz: f.state(v.BZ, nrows, f.dim, true), alpha: T(v.Alpha),
	}
	if v.W != nil {
		o.w = f.state(v.W, 1, len(f.params.d), false)
	}
	if v.G != nil {
		o.g = f.state(v.G, 1, len(f.params.d), true)
	}
	r := f.pick(at, nrows)
	if len(r.index) == 0 || o.bz == nil && o.g == nil {
		return
	}
	if v.G != nil {
		f.weight = f.weight[:0]
		for i := range r.index {
			w := v.Weight
			if v.TimesH {
				w *= r.h[i]
			}
			f.weight = append(f.weight, T(w))
		}
		o.weight = f.weight
	}
	clearRows(o.bz, f.dim, r)
	before := f.k.bytes()
	k.vjpTangent(o, r)
	f.b.bytes += f.k.bytes() - before // scratch that only this needs
}

func (k *sumKernel[T]) canVJPTangent() error {
	return k.each(func(p kernel[T]) error {
		_, err := second(p)
		return err
	})
}

func (k *sumKernel[T]) vjpTangent(o *vjpTangent[T], r *rows) {
	k.dot = *o
	w, g := o.w, o.g
	for i, p := range k.parts {
		if w != nil {
			k.dot.w, w = w[:k.size[i]], w[k.size[i]:]
		}
		if g != nil {
			k.dot.g, g = g[:k.size[i]], g[k.size[i]:]
		}
		p.(secondOrder[T]).vjpTangent(&k.dot, r)
	}
}

func (k *funcKernel[T]) canVJPTangent() error {
	_, ok := k.f.(field.SecondOrderer[T])
	if h, has := k.f.(interface{ HasVJPTangent() bool }); !ok || has && !h.HasVJPTangent() {
		return fmt.Errorf("cpu: %T has no second derivatives: %w: implement field.SecondOrderer (Custom.SecondF)", k.f, backend.ErrUnsupported)
	}
	return nil
}

func (k *funcKernel[T]) vjpTangent(o *vjpTangent[T], r *rows) {
	w := o.w
	if w == nil {
		w = k.zeros
	}
	for n, i := range r.index {
		var grad []T
		if o.g != nil {
			grad = k.grad
			clear(grad)
		}
		k.f.(field.SecondOrderer[T]).VJPTangent(r.t[n], row(o.z, i, k.in), k.theta, row(o.a, i, k.out), row(o.v, i, k.in), row(o.b, i, k.out), w, k.az, grad)
		if o.bz != nil {
			addTo(row(o.bz, i, k.in), o.alpha, k.az)
		}
		if o.g != nil {
			addTo(o.g, o.weight[n], grad)
		}
	}
}
