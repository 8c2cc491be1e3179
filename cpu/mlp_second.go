package cpu

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
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
	for lo := 0; lo < len(r.index); lo += k.lanes {
		tile := r.tile(lo, k.lanes)
		k.forward(o.z, &tile)
		k.forwardTangent(o, &tile)
		var weight []T
		if o.g != nil {
			weight = o.weight[lo : lo+len(tile.index)]
		}
		k.backwardTangent(o, weight, &tile)
	}
}

// forwardTangent takes the tile's tangents forward, leaving those of x and pre. The
// tangent of the time is zero.
func (k *mlpKernel[T]) forwardTangent(o *vjpTangent[T], r *rows) {
	s := k.dot
	k.gather(s.x[0], o.v, k.spec.Widths[0], r)
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(s.x[0])
	}
	for l, ly := range k.layers {
		n := ly.Out * k.ld
		if ly.HasTime {
			clear(row(s.x[l], ly.In-1, k.ld))
		}
		k.layerTangent(s.pre[l], s.x[l], o.w, l)
		copy(s.x[l+1], s.pre[l][:n])
		simd.TimesSlope(ly.Act, s.x[l+1][:n], k.pre[l][:n], k.x[l+1][:n])
	}
}

// backwardTangent takes the tile's cotangents and their tangents back through all
// layers: with δ = g∘σ', its tangent is δ̇ = ġ∘σ' + g∘σ”∘ṡ, s the layer's pre.
func (k *mlpKernel[T]) backwardTangent(o *vjpTangent[T], weight []T, r *rows) {
	s := k.dot
	k.gather(k.delta, o.a, k.out(), r)
	k.gather(s.delta, o.b, k.out(), r)
	for l := len(k.layers) - 1; l >= 0; l-- {
		ly, in := k.layers[l], k.in(l)
		n := ly.Out * k.ld
		delta, dot := k.delta[:n], s.delta[:n]
		pre, out := k.pre[l][:n], k.x[l+1][:n]
		simd.TimesSlope(ly.Act, dot, pre, out)
		addSecond(ly.Act, dot, delta, s.pre[l][:n], pre, out)
		simd.TimesSlope(ly.Act, delta, pre, out)
		if o.g != nil {
			k.addWeightGradient(o.g, l, dot, weight)
			k.addInputTangent(o.g, l, delta, weight)
		}
		if l == 0 && o.bz == nil {
			return
		}
		k.back(simd.Set, k.next, k.theta, delta, l, in)
		k.back(simd.Set, s.next, k.theta, dot, l, in)
		if o.w != nil {
			k.back(simd.Add, s.next, o.w, delta, l, in)
		}
		k.delta, k.next = k.next, k.delta
		s.delta, s.next = s.next, s.delta
	}
	d := k.spec.Widths[0]
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(s.delta)
		k.gather(k.next, o.v, d, r)
		for i, z := range k.zT[:d*k.ld] {
			s.delta[i] += k.delta[i] * 6 * z * k.next[i]
		}
	}
	k.scatter(o.bz, s.delta, d, o.alpha, r)
}

// addInputTangent adds Σ_n weight[n]·delta_n·ẋ_nᵀ to layer l's weight in g.
func (k *mlpKernel[T]) addInputTangent(g []T, l int, delta, weight []T) {
	k.addProducts(g, l, k.weighted(delta, weight), k.dot.x[l], len(weight))
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
