package cpu

import (
	blasapi "gonum.org/v1/gonum/blas"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// mlpTangents is what a tile's second derivatives need beside its first: the tangents
// of x and pre of every layer, and of a layer's cotangent.
type mlpTangents[T backend.Float] struct {
	x, pre      [][]T
	delta, next []T
}

func (s *mlpTangents[T]) size() (n int) {
	if s == nil {
		return 0
	}
	n = len(s.delta) + len(s.next)
	for _, v := range append(s.x, s.pre...) {
		n += len(v)
	}
	return n
}

func (k *mlpKernel[T]) canVJPTangent() error { return nil }

func (k *mlpKernel[T]) vjpTangent(o *vjpTangent[T], r *rows) {
	if k.dot == nil {
		k.dot = &mlpTangents[T]{delta: make([]T, len(k.delta)), next: make([]T, len(k.next))}
		for _, x := range k.x {
			k.dot.x = append(k.dot.x, make([]T, len(x)))
		}
		for _, x := range k.pre {
			k.dot.pre = append(k.dot.pre, make([]T, len(x)))
		}
	}
	k.pack()
	finite := o.w != nil && k.bl.finite(o.w)
	for lo := 0; lo < len(r.index); lo += tileRows {
		tile := r.tile(lo)
		k.forward(o.z, tile)
		k.forwardTangent(o, tile)
		var weight []T
		if o.g != nil {
			weight = o.weight[lo : lo+len(tile.index)]
		}
		k.backwardTangent(o, weight, tile, finite)
	}
}

// forwardTangent takes the tile's tangents forward, leaving those of x and pre.
func (k *mlpKernel[T]) forwardTangent(o *vjpTangent[T], r rows) {
	s, d, m := k.dot, k.spec.Widths[0], len(r.index)
	for n, i := range r.index {
		copy(row(s.x[0], n, d), row(o.v, i, d))
	}
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(s.x[0], o.z, r)
	}
	for l, ly := range k.layers {
		in, pre, x := k.in(l), s.pre[l][:m*ly.Out], s.x[l+1][:m*ly.Out]
		clear(pre)
		k.bl.mul(blasapi.NoTrans, m, ly.Out, in, matrix[T]{d: s.x[l], ld: in}, matrix[T]{k.wT[l], ly.Out, k.finite}, pre, ly.Out)
		if o.w != nil {
			k.addWeightTangent(pre, o.w, l, m)
		}
		copy(x, pre)
		timesDerivative(ly.Act, x, k.pre[l][:m*ly.Out], k.x[l+1][:m*ly.Out])
	}
}

// backwardTangent takes the tile's cotangents and their tangents back through all
// layers: with δ = g∘σ', its tangent is δ̇ = ġ∘σ' + g∘σ”∘ṡ, s the layer's pre.
func (k *mlpKernel[T]) backwardTangent(o *vjpTangent[T], weight []T, r rows, finite bool) {
	s, d, m := k.dot, k.out(), len(r.index)
	for n, i := range r.index {
		copy(row(k.delta, n, d), row(o.a, i, d))
		copy(row(s.delta, n, d), row(o.b, i, d))
	}
	for l := len(k.layers) - 1; l >= 0; l-- {
		ly, in := k.layers[l], k.in(l)
		delta, dot := k.delta[:m*ly.Out], s.delta[:m*ly.Out]
		pre, out := k.pre[l][:m*ly.Out], k.x[l+1][:m*ly.Out]
		timesDerivative(ly.Act, dot, pre, out)
		addSecond(ly.Act, dot, delta, s.pre[l][:m*ly.Out], pre, out)
		timesDerivative(ly.Act, delta, pre, out)
		if o.g != nil {
			k.addWeightGradient(o.g, l, dot, weight)
			k.addInputTangent(o.g, l, delta, weight)
		}
		if l == 0 && o.bz == nil {
			return
		}
		next, dotNext := k.next[:m*in], s.next[:m*in]
		clear(next)
		clear(dotNext)
		w := matrix[T]{k.theta[ly.W:], ly.In, k.finite}
		k.bl.mul(blasapi.NoTrans, m, in, ly.Out, matrix[T]{d: delta, ld: ly.Out}, w, next, in)
		k.bl.mul(blasapi.NoTrans, m, in, ly.Out, matrix[T]{d: dot, ld: ly.Out}, w, dotNext, in)
		if o.w != nil {
			k.bl.mul(blasapi.NoTrans, m, in, ly.Out, matrix[T]{d: delta, ld: ly.Out}, matrix[T]{o.w[ly.W:], ly.In, finite}, dotNext, in)
		}
		k.delta, k.next = k.next, k.delta
		s.delta, s.next = s.next, s.delta
	}
	d = k.spec.Widths[0]
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(s.delta, o.z, r)
		for n, i := range r.index {
			dot, z, v := row(s.delta, n, d), row(o.z, i, d), row(o.v, i, d)
			for j, g := range row(k.delta, n, d) {
				dot[j] += g * 6 * z[j] * v[j]
			}
		}
	}
	addRows(o.bz, o.alpha, s.delta, d, r)
}

// addInputTangent adds Σ_n weight[n]·delta_n·ẋ_nᵀ to layer l's weight in g.
func (k *mlpKernel[T]) addInputTangent(g []T, l int, delta, weight []T) {
	ly, in, m := k.layers[l], k.in(l), len(weight)
	scaled := k.scale[:m*ly.Out]
	for n, w := range weight {
		to := row(scaled, n, ly.Out)
		for j, v := range row(delta, n, ly.Out) {
			to[j] = w * v
		}
	}
	x := k.dot.x[l]
	k.bl.mul(blasapi.Trans, ly.Out, in, m, matrix[T]{d: scaled, ld: ly.Out}, matrix[T]{x, in, k.bl.finite(x[:m*in])}, g[ly.W:], ly.In)
}

// addSecond adds delta·σ”(x)·dot to dst, element by element, where y = σ(x).
func addSecond[T backend.Float](act mlp.Activation, dst, delta, dot, x, y []T) {
	switch act {
	case mlp.Identity:
	case mlp.Tanh:
		for i, v := range y {
			dst[i] -= 2 * v * (1 - v*v) * delta[i] * dot[i]
		}
	default:
		for i, v := range x {
			dst[i] += T(act.Second(float64(v))) * delta[i] * dot[i]
		}
	}
}
