//go:build cuda && cgo && linux && amd64

package gpu

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// vjpWide goes through the layers and back. The forward pass leaves the input x of
// every layer and σ' at its output; on the way back δ takes the place of σ'.
func (f *bound[T]) vjpWide(at backend.At, rows int, o *products[T]) {
	var need scratchPlan[T]
	for l := range f.layers {
		ly := &f.layers[l]
		if l > 0 {
			need.matrix(ly.in, 1)
		}
		need.matrix(ly.out, 1)
		if o.g != 0 {
			s := ly.split(int64(rows))
			need.bytes = max(need.bytes, padded(s.most*s.params*sizeOf[T]()))
		}
	}
	w, ok := f.start(at, rows, need, false, o.w, o.timesH)
	if !ok {
		return
	}
	x, delta := f.x[:0], f.delta[:0]
	for l := range f.layers {
		var in matrix
		if l > 0 {
			in = w.matrix(f.layers[l].in)
		} else if w.copied {
			in = w.matrix(int32(f.dim))
		}
		x, delta = append(x, in), append(delta, w.matrix(f.layers[l].out))
	}
	f.x, f.delta = x, delta
	partial := driver.Ptr(0)
	if o.g != 0 {
		partial = w.scratch.take(need.bytes)
	}
	last := len(f.layers) - 1
	x0 := x[0]
	for ; w.first < int64(rows); w.first += w.chunk {
		x[0], _ = w.input(o.z, 0, x0, matrix{})
		for l := range f.layers {
			if l == last {
				w.forward(l, x[l], matrix{o.dz, int32(f.dim)}, delta[l], o.a)
			} else {
				w.forward(l, x[l], x[l+1], delta[l], 0)
			}
		}
		timed := false
		for l := last; l >= 0; l-- {
			if o.g != 0 {
				w.weights(l, delta[l], x[l], partial, o.g)
			}
			if o.at != 0 && (f.layers[l].time != 0 || l == 0 && !timed) {
				w.time(l, delta[l], o, timed)
				timed = true
			}
			if l > 0 {
				w.back(l, delta[l], delta[l-1], o)
			} else if o.az != 0 {
				w.back(l, delta[l], matrix{}, o)
			}
		}
	}
}

// backArgs ends with Back in kernels/wide.cuh.
type backArgs[T backend.Float] struct {
	rows                   mlpRows
	delta, w, below, az, z driver.Ptr
	alpha                  T
	ldd, ldw, ldb          int32
	in, out, cube          int32
	first, chunk           int32
}

// back turns σ' in below into δ of the layer below l or, without one, computes az.
func (w *wide[T]) back(l int, delta, below matrix, o *products[T]) {
	ly := &w.layers[l]
	a := backArgs[T]{
		rows: w.rows, delta: delta.p, w: w.at(w.params.ptr, ly.w), below: below.p, az: o.az, z: o.z, alpha: o.alpha,
		ldd: delta.ld, ldw: ly.ld(), ldb: below.ld, in: ly.in, out: ly.out, cube: w.cube,
		first: int32(w.first), chunk: int32(w.chunk),
	}
	product(w, ly, &ly.kernels.back, ly.in, &a)
}

// timeArgs ends with LayerTime in kernels/mlp_vjp.cu.
type timeArgs[T backend.Float] struct {
	rows               mlpRows
	delta, w, at       driver.Ptr
	alpha              T
	ldd, ldw, out, add int32
	first, chunk       int32
	_                  int32
}

// time adds the layer's part of aᵀ∂f/∂t, or sets it.
func (w *wide[T]) time(l int, delta matrix, o *products[T], add bool) {
	ly := &w.layers[l]
	a := timeArgs[T]{
		rows: w.rows, delta: delta.p, at: o.at, alpha: o.alpha, ldd: delta.ld, ldw: ly.ld(), out: ly.out,
		first: int32(w.first), chunk: int32(w.chunk),
	}
	if ly.time != 0 {
		a.w = w.at(w.params.ptr, ly.w+int(ly.in))
	}
	if add {
		a.add = 1
	}
	launch(w.b, "mlp_vjp", "mlp_vjp_time", ceilDiv(w.chunk, blockSize/32), 0, &a)
}

// split is how a layer's part of the gradient is split over rows.
type split struct {
	kernel           string
	tiles            int64 // of the weight
	parts, run, most int64 // of the rows, rows of each, and no more parts for fewer rows
	params           int64 // of the layer
}

// split depends on shapes alone, so that a gradient has the same bits on all devices
// that run the net layer by layer.
func (l *layer) split(rows int64) (s split) {
	const fill, least = 256, 128 // blocks wanted, and rows of a part
	s.kernel = l.kernels.weights.small
	large := l.out > 64 && l.in > 64
	if large {
		s.kernel = l.kernels.weights.large
	}
	s.tiles = l.kernels.tiles(int64(l.out), int64(l.in), large)
	s.most = min(ceilDiv(fill, s.tiles), ceilDiv(rows, least))
	s.run = max(least, ceilDiv(ceilDiv(rows, s.most), 16)*16)
	s.parts = ceilDiv(rows, s.run)
	s.params = int64(l.out) * int64(l.ld()+1)
	return s
}

// weightsArgs ends with LayerWeights in kernels/wide.cuh.
type weightsArgs struct {
	rows              mlpRows
	delta, x, partial driver.Ptr
	ldd, ldx          int32
	in, out, time     int32
	first, chunk, run int32
}

// weights adds the layer's part of the gradient to g.
func (w *wide[T]) weights(l int, delta, x matrix, partial, g driver.Ptr) {
	ly := &w.layers[l]
	s := ly.split(w.chunk)
	a := weightsArgs{
		rows: w.rows, delta: delta.p, x: x.p, partial: partial, ldd: delta.ld, ldx: x.ld,
		in: ly.in, out: ly.out, time: ly.time, first: int32(w.first), chunk: int32(w.chunk), run: int32(s.run),
	}
	launch(w.b, ly.kernels.weights.family, s.kernel, s.tiles*s.parts, 0, &a)
	r := reduceArgs{
		rows: w.rows, g: w.at(g, ly.w), partial: partial,
		params: int32(s.params), blocks: int32(s.parts), run: int32(s.run), first: int32(w.first), chunk: int32(w.chunk),
	}
	launch(w.b, "mlp_vjp", "mlp_vjp_reduce", ceilDiv(s.params, 32), 0, &r)
}
