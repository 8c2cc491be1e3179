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
	if _, err := second(f.kernels[0]); err != nil {
		f.b.latch(err)
		return
	}
	o := f.begin(tangentOfVJP, at, v.Z)
	o.v, o.a, o.b = o.state(v.V, f.dim, false), o.state(v.A, f.dim, false), o.state(v.B, f.dim, false)
	o.w, o.az, o.alpha = o.param(v.W), o.state(v.BZ, f.dim, true), T(v.Alpha)
	o.sum(v.G, v.Weight, v.TimesH)
	f.b.do(o)
}

func (k *sumKernel[T]) canVJPTangent() error {
	return k.each(func(p kernel[T]) error {
		_, err := second(p)
		return err
	})
}

func (k *sumKernel[T]) vjpTangent(o *vjpTangent[T], r *rows) {
	k.dot = *o
	w, g, add := o.w, o.g, r.add
	for i, p := range k.parts {
		if w != nil {
			k.dot.w, w = w[:k.size[i]], w[k.size[i]:]
		}
		if g != nil {
			k.dot.g, g = g[:k.size[i]], g[k.size[i]:]
		}
		p.(secondOrder[T]).vjpTangent(&k.dot, r)
		r.add = true
	}
	r.add = add
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
			put(row(o.bz, i, k.in), o.alpha, k.az, r.add)
		}
		if o.g != nil {
			addTo(o.g, o.weight[n], grad)
		}
	}
}
