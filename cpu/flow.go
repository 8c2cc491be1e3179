package cpu

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
)

// flowRows is how many samples are put together at a time.
const flowRows = 64

// flowKernel evaluates a field.Flow. A tile of rows at a time, it takes z out of the
// state, has the function's own kernel multiply its Jacobian by the vectors ε, and puts
// together what comes of it. With q = (∂f/∂z)ᵀε and the cotangents a, a_ℓ, a_K, a_J its
// own product from the left is, summed over ε,
//
//	bᵀ∂f/∂x + d/dη εᵀ∂f/∂x(z+η·v),   v = a_ℓ·ε + 2a_J·q,   b = a + 2a_K·f,   x = z, θ
//
// (b for one ε alone), which is one backend.VJPTangent of f.
type flowKernel[T backend.Float] struct {
	b       *Backend[T] // latches what goes wrong
	f       *field.Flow[T]
	inner   kernel[T]
	dim     int // of z
	cols    int // of the state
	kinetic int // column of K, 0 if there is none
	jac     int // column of J, 0 if there is none
	samples []int

	// of a tile
	local            rows
	z, eps, q, f0    []T // z, ε, q and f
	v, dot, az, zero []T // tangent, cotangent's tangent, product
	sums             []T // of ℓ, K and J
	back             vjp[T]
	fwd              jvp[T]
	second           vjpTangent[T]
	size             int64
	warm             bool // scratch for second derivatives is there
}

// checkFlow returns why f cannot be run, if it cannot.
func checkFlow[T backend.Float](f *field.Flow[T]) error {
	if err := check(f.Inner()); err != nil {
		return err
	}
	var plain func(backend.System[T]) error
	plain = func(sys backend.System[T]) error {
		switch s := sys.(type) {
		case *control.Field[T], *field.Flow[T]:
			return fmt.Errorf("a field.Flow of a %T: %w; give NewFlow an *mlp.Model, a field.Func or a sum of these", s, backend.ErrUnsupported)
		case *field.Sum[T]:
			for _, p := range s.Parts() {
				if err := plain(p); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return plain(f.Inner())
}

func newFlowKernel[T backend.Float](b *Backend[T], f *field.Flow[T], inner kernel[T]) *flowKernel[T] {
	k := &flowKernel[T]{b: b, f: f, inner: inner, dim: f.Inner().Dim(), cols: f.Dim()}
	set := f.Settings()
	if set.Kinetic {
		k.kinetic = k.dim + 1
	}
	if set.Jacobian {
		k.jac = k.cols - 1
	}
	for n := range int32(flowRows) {
		k.local.index = append(k.local.index, n)
	}
	for _, s := range []*[]T{&k.z, &k.eps, &k.q, &k.f0, &k.v, &k.dot, &k.az, &k.zero} {
		*s = make([]T, flowRows*k.dim)
		k.size += int64(len(*s)) * sizeOf[T]()
	}
	k.sums = make([]T, flowRows*k.cols)
	k.size += int64(len(k.sums)) * sizeOf[T]()
	return k
}

func (k *flowKernel[T]) more() kernel[T] {
	x := newFlowKernel(k.b, k.f, k.inner.more())
	x.samples = k.samples
	return x
}

func (k *flowKernel[T]) tileRows() int            { return tileRows(k.inner) }
func (k *flowKernel[T]) setSamples(samples []int) { k.samples = samples }
func (k *flowKernel[T]) bytes() int64             { return k.size + k.inner.bytes() }
func (k *flowKernel[T]) canJVP() error            { return errors.Join(k.inner.canJVP(), k.canVJP()) }
func (k *flowKernel[T]) canVJP() error {
	_, err := second(k.inner)
	return errors.Join(k.inner.canVJP(), err)
}

// gather takes z out of the states of a tile. It returns the tile as the inner kernel
// sees it.
func (k *flowKernel[T]) gather(z []T, tile rows) *rows {
	for n, i := range tile.index {
		copy(row(k.z, n, k.dim), row(z, i, k.cols))
	}
	k.local.t, k.local.h, k.local.add = tile.t, tile.h, false
	k.local.index = k.local.index[:len(tile.index)]
	clear(k.sums)
	return &k.local
}

// probe sets eps to vector p of the tile's samples.
func (k *flowKernel[T]) probe(p int, tile rows) {
	for n, i := range tile.index {
		s := int(i)
		if k.samples != nil {
			if s >= len(k.samples) {
				panic("cpu: SetSamples named fewer samples than there are rows")
			}
			s = k.samples[s]
		}
		k.f.Probe(p, s, row(k.eps, n, k.dim))
	}
}

// project sets q to (∂f/∂z)ᵀε and, for the first ε, f0 to f, and adds to the sums what
// ε has a part in.
func (k *flowKernel[T]) project(p int, local *rows) {
	k.back = vjp[T]{z: k.z, a: k.eps, az: k.q, alpha: 1}
	if p == 0 {
		k.back.dz = k.f0
	}
	k.inner.vjp(&k.back, local)
	for n := range local.index {
		q, s := row(k.q, n, k.dim), row(k.sums, n, k.cols)
		s[k.dim] += dot(q, row(k.eps, n, k.dim))
		if k.jac > 0 {
			s[k.jac] += dot(q, q)
		}
	}
}

// finish puts what was summed, with f0, into the tile's rows of dz.
func (k *flowKernel[T]) finish(dz []T, tile rows) {
	for n, i := range tile.index {
		s, f := row(k.sums, n, k.cols), row(k.f0, n, k.dim)
		copy(s, f)
		if k.kinetic > 0 {
			s[k.kinetic] = dot(f, f)
		}
		put(row(dz, i, k.cols), 1, s, tile.add)
	}
}

func (k *flowKernel[T]) eval(dz, z []T, r *rows) {
	if err := k.inner.canVJP(); err != nil {
		k.b.latch(err)
		return
	}
	for lo := 0; lo < len(r.index); lo += flowRows {
		tile := r.tile(lo, flowRows)
		local := k.gather(z, tile)
		for p := range k.f.Probes() {
			k.probe(p, tile)
			k.project(p, local)
		}
		k.finish(dz, tile)
	}
}

func (k *flowKernel[T]) vjp(o *vjp[T], r *rows) {
	products := o.az != nil || o.g != nil
	if o.at != nil {
		k.b.latch(fmt.Errorf("cpu: a field.Flow has no derivative with respect to t: %w; leave adjoint.Settings.StepSizes out", backend.ErrUnsupported))
		return
	}
	for lo := 0; lo < len(r.index); lo += flowRows {
		tile := r.tile(lo, flowRows)
		local := k.gather(o.z, tile)
		var weight []T
		if o.g != nil {
			weight = o.weight[lo : lo+len(tile.index)]
		}
		for p := range k.f.Probes() {
			k.probe(p, tile)
			if o.dz != nil || k.jac > 0 || k.kinetic > 0 && p == 0 {
				k.project(p, local)
			}
			if !products {
				continue
			}
			for n, i := range tile.index {
				k.cotangents(n, p, row(o.a, i, k.cols))
			}
			local.add = p > 0
			k.tangentOfVJP(vjpTangent[T]{b: k.dot, alpha: o.alpha, g: o.g, weight: weight}, local)
			local.add = false
		}
		if o.dz != nil {
			k.finish(o.dz, tile)
		}
		if o.az != nil {
			for n, i := range tile.index {
				az := row(o.az, i, k.cols)
				put(az[:k.dim], 1, row(k.az, n, k.dim), tile.add)
				if !tile.add {
					clear(az[k.dim:]) // f does not depend on ℓ, K and J
				}
			}
		}
	}
}

// cotangents sets v and b of row n for vector p, from the cotangents a of the state.
func (k *flowKernel[T]) cotangents(n, p int, a []T) {
	v, b := row(k.v, n, k.dim), row(k.dot, n, k.dim)
	put(v, a[k.dim], row(k.eps, n, k.dim), false)
	if k.jac > 0 {
		addTo(v, 2*a[k.jac], row(k.q, n, k.dim))
	}
	if p > 0 {
		clear(b)
		return
	}
	copy(b, a)
	if k.kinetic > 0 {
		addTo(b, 2*a[k.kinetic], row(k.f0, n, k.dim))
	}
}

// tangentOfVJP sets az to a product of f with tangent v and cotangent ε.
func (k *flowKernel[T]) tangentOfVJP(o vjpTangent[T], local *rows) {
	o.z, o.v, o.a, o.bz = k.z, k.v, k.eps, k.az
	k.second = o
	inner := k.inner.(secondOrder[T])
	if k.warm {
		inner.vjpTangent(&k.second, local)
		return
	}
	before := k.inner.bytes()
	inner.vjpTangent(&k.second, local)
	k.b.bytes.Add(k.inner.bytes() - before) // scratch that only this needs
	k.warm = true
}

// jvp: the tangent of q is a product of vjpTangent too.
func (k *flowKernel[T]) jvp(o *jvp[T], r *rows) {
	for lo := 0; lo < len(r.index); lo += flowRows {
		tile := r.tile(lo, flowRows)
		local := k.gather(o.z, tile)
		for n, i := range tile.index {
			copy(row(k.v, n, k.dim), row(o.v, i, k.cols))
			if !tile.add {
				clear(row(o.jv, i, k.cols))
			}
		}
		k.fwd = jvp[T]{z: k.z, v: k.v, w: o.w, jv: k.dot}
		k.inner.jvp(&k.fwd, local)
		for p := range k.f.Probes() {
			k.probe(p, tile)
			k.project(p, local)
			k.tangentOfVJP(vjpTangent[T]{b: k.zero, w: o.w, alpha: 1}, local)
			for n, i := range tile.index {
				jv, bz := row(o.jv, i, k.cols), row(k.az, n, k.dim)
				jv[k.dim] += dot(bz, row(k.eps, n, k.dim))
				if k.jac > 0 {
					jv[k.jac] += 2 * dot(bz, row(k.q, n, k.dim))
				}
			}
		}
		for n, i := range tile.index {
			jv, jf := row(o.jv, i, k.cols), row(k.dot, n, k.dim)
			addTo(jv[:k.dim], 1, jf)
			if k.kinetic > 0 {
				jv[k.kinetic] += 2 * dot(jf, row(k.f0, n, k.dim))
			}
		}
		if o.dz != nil {
			k.finish(o.dz, tile)
		}
	}
}
