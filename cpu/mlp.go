package cpu

import (
	blasapi "gonum.org/v1/gonum/blas"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// tileRows is how many samples go through all layers together: their
// activations stay in the core's cache.
const tileRows = panelM

// mlpKernel evaluates a batched MLP: x_{l+1} = act_l(W_l·x_l + w_t·t + b_l).
// Activations are [tile, width], so that every product is row-major times
// row-major, and time enters as a part of the bias.
type mlpKernel[T backend.Float] struct {
	bl     *blas[T]
	spec   mlp.Spec
	layers []mlp.Layer
	theta  []T
	mem    *memory[T]

	// wT[l] is layer l's weight without its time column, transposed [in, out].
	wT     [][]T
	packed uint64 // version of θ that wT holds
	finite bool   // θ is

	x     [][]T // x[l]: input of layer l, x[L]: output; [tile, width]
	pre   [][]T // before the activation
	t     []T   // time of each row of the tile
	delta []T   // cotangent or tangent of the current layer's output
	next  []T
	scale []T             // delta times the row's weight
	wDotT []T             // tangent of a layer's weight, transposed
	dot   *mlpTangents[T] // made where second derivatives are asked for
}

func newMLPKernel[T backend.Float](bl *blas[T], m *mlp.Model[T], theta []T, mem *memory[T]) *mlpKernel[T] {
	k := &mlpKernel[T]{bl: bl, spec: m.Spec, theta: theta, mem: mem, t: make([]T, tileRows)}
	widest, largest := 0, 0
	for _, w := range m.Spec.Widths {
		widest = max(widest, w)
		k.x = append(k.x, make([]T, tileRows*w))
	}
	for l := 0; l < m.Spec.NumLayers(); l++ {
		layer := m.Spec.Layer(l)
		k.layers = append(k.layers, layer)
		n := k.in(l) * layer.Out
		largest = max(largest, n)
		k.wT = append(k.wT, make([]T, n))
		k.pre = append(k.pre, make([]T, tileRows*layer.Out))
	}
	k.delta, k.next, k.scale = make([]T, tileRows*widest), make([]T, tileRows*widest), make([]T, tileRows*widest)
	k.wDotT = make([]T, largest)
	return k
}

func (k *mlpKernel[T]) canVJP() error { return nil }
func (k *mlpKernel[T]) canJVP() error { return nil }

func (k *mlpKernel[T]) bytes() int64 {
	n := len(k.t) + len(k.delta) + len(k.next) + len(k.scale) + len(k.wDotT) + k.dot.size()
	for _, s := range [][][]T{k.x, k.pre, k.wT} {
		for _, v := range s {
			n += len(v)
		}
	}
	return int64(n) * sizeOf[T]()
}

// in is the input width of layer l without the time column.
func (k *mlpKernel[T]) in(l int) int {
	if k.layers[l].HasTime {
		return k.layers[l].In - 1
	}
	return k.layers[l].In
}

// transpose writes the weight in src, [out, ld], to dst, [in, out].
func transpose[T backend.Float](dst, src []T, in, out, ld int) {
	for o := 0; o < out; o++ {
		row := src[o*ld : o*ld+in]
		for i, v := range row {
			dst[i*out+o] = v
		}
	}
}

func (k *mlpKernel[T]) pack() {
	if k.packed == k.mem.version {
		return
	}
	for l, ly := range k.layers {
		transpose(k.wT[l], k.theta[ly.W:], k.in(l), ly.Out, ly.In)
	}
	k.finite = k.bl.finite(k.theta)
	k.packed = k.mem.version
}

// tile is the part of r that starts at lo.
func (r *rows) tile(lo int) rows {
	hi := min(lo+tileRows, len(r.index))
	return rows{index: r.index[lo:hi], t: r.t[lo:hi], h: r.h[lo:hi]}
}

// forward takes a tile through all layers, leaving x and pre of each.
func (k *mlpKernel[T]) forward(z []T, r rows) {
	d, m := k.spec.Widths[0], len(r.index)
	for n, i := range r.index {
		k.t[n] = T(r.t[n])
		copy(k.x[0][n*d:(n+1)*d], z[i*d:(i+1)*d])
	}
	if k.spec.Input == mlp.InputCube {
		x := k.x[0][:m*d]
		for i, v := range x {
			x[i] = v * v * v
		}
	}
	for l, ly := range k.layers {
		pre := k.pre[l][:m*ly.Out]
		bias := k.theta[ly.B : ly.B+ly.Out]
		for n := 0; n < m; n++ {
			copy(pre[n*ly.Out:], bias)
		}
		in := k.in(l)
		if ly.HasTime {
			k.addTime(pre, k.theta, l, m)
		}
		k.bl.mul(blasapi.NoTrans, m, ly.Out, in, matrix[T]{d: k.x[l], ld: in}, matrix[T]{k.wT[l], ly.Out, k.finite}, pre, ly.Out)
		activate(ly.Act, k.x[l+1][:m*ly.Out], pre)
	}
}

// addTime adds t times the time column of layer l in theta to every row of pre.
func (k *mlpKernel[T]) addTime(pre, theta []T, l, m int) {
	ly := k.layers[l]
	for n := 0; n < m; n++ {
		row := pre[n*ly.Out : (n+1)*ly.Out]
		t := k.t[n]
		for o := range row {
			row[o] += t * theta[ly.W+(o+1)*ly.In-1]
		}
	}
}

// addOutput adds x[L] to the rows of dz.
func (k *mlpKernel[T]) addOutput(dz []T, r rows) {
	addRows(dz, 1, k.x[len(k.layers)], k.out(), r)
}

// out is the number of components of f.
func (k *mlpKernel[T]) out() int { return k.spec.Widths[len(k.layers)] }

// addRows adds alpha times the tile's rows in src, of width d, to dst.
func addRows[T backend.Float](dst []T, alpha T, src []T, d int, r rows) {
	for n, i := range r.index {
		addTo(dst[i*d:(i+1)*d], alpha, src[n*d:(n+1)*d])
	}
}

func (k *mlpKernel[T]) eval(dz, z []T, r *rows) {
	k.pack()
	for lo := 0; lo < len(r.index); lo += tileRows {
		tile := r.tile(lo)
		k.forward(z, tile)
		k.addOutput(dz, tile)
	}
}

func (k *mlpKernel[T]) vjp(o *vjp[T], r *rows) {
	k.pack()
	for lo := 0; lo < len(r.index); lo += tileRows {
		tile := r.tile(lo)
		k.forward(o.z, tile)
		if o.dz != nil {
			k.addOutput(o.dz, tile)
		}
		if o.az == nil && o.at == nil && o.g == nil {
			continue
		}
		var weight []T
		if o.g != nil {
			weight = o.weight[lo : lo+len(tile.index)]
		}
		k.backward(o, weight, tile)
	}
}

// backward takes the tile's cotangents back through all layers.
func (k *mlpKernel[T]) backward(o *vjp[T], weight []T, r rows) {
	d, m := k.out(), len(r.index)
	for n, i := range r.index {
		copy(k.delta[n*d:(n+1)*d], o.a[i*d:(i+1)*d])
	}
	for l := len(k.layers) - 1; l >= 0; l-- {
		ly, in := k.layers[l], k.in(l)
		delta := k.delta[:m*ly.Out]
		timesDerivative(ly.Act, delta, k.pre[l][:m*ly.Out], k.x[l+1][:m*ly.Out])
		if o.g != nil {
			k.addWeightGradient(o.g, l, delta, weight)
		}
		if o.at != nil && ly.HasTime {
			for n, i := range r.index {
				var s T
				for j, v := range delta[n*ly.Out : (n+1)*ly.Out] {
					s += v * k.theta[ly.W+(j+1)*ly.In-1]
				}
				o.at[i] += o.alpha * s
			}
		}
		if l == 0 && o.az == nil {
			return
		}
		next := k.next[:m*in]
		clear(next)
		k.bl.mul(blasapi.NoTrans, m, in, ly.Out, matrix[T]{d: delta, ld: ly.Out}, matrix[T]{k.theta[ly.W:], ly.In, k.finite}, next, in)
		k.delta, k.next = k.next, k.delta
	}
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(k.delta, o.z, r)
	}
	addRows(o.az, o.alpha, k.delta, k.spec.Widths[0], r)
}

// timesCubeSlope multiplies the tile's rows by 3z².
func (k *mlpKernel[T]) timesCubeSlope(x, z []T, r rows) {
	d := k.spec.Widths[0]
	for n, i := range r.index {
		row := x[n*d : (n+1)*d]
		for j, v := range z[i*d : (i+1)*d] {
			row[j] *= 3 * v * v
		}
	}
}

// addWeightGradient adds Σ_n weight[n]·delta_n·[x_n, t_n, 1]ᵀ to layer l's part of g.
func (k *mlpKernel[T]) addWeightGradient(g []T, l int, delta, weight []T) {
	ly, in, m := k.layers[l], k.in(l), len(weight)
	scaled := k.scale[:m*ly.Out]
	gb := g[ly.B : ly.B+ly.Out]
	for n, w := range weight {
		row := scaled[n*ly.Out : (n+1)*ly.Out]
		for j, v := range delta[n*ly.Out : (n+1)*ly.Out] {
			row[j] = w * v
			gb[j] += row[j]
		}
		if ly.HasTime {
			t := k.t[n]
			for j, v := range row {
				g[ly.W+(j+1)*ly.In-1] += t * v
			}
		}
	}
	x := k.x[l]
	k.bl.mul(blasapi.Trans, ly.Out, in, m, matrix[T]{d: scaled, ld: ly.Out}, matrix[T]{x, in, k.bl.finite(x[:m*in])}, g[ly.W:], ly.In)
}

func (k *mlpKernel[T]) jvp(o *jvp[T], r *rows) {
	k.pack()
	for lo := 0; lo < len(r.index); lo += tileRows {
		tile := r.tile(lo)
		k.forward(o.z, tile)
		if o.dz != nil {
			k.addOutput(o.dz, tile)
		}
		k.tangent(o, tile)
	}
}

// tangent takes the tile's tangents forward through all layers.
func (k *mlpKernel[T]) tangent(o *jvp[T], r rows) {
	d, m := k.spec.Widths[0], len(r.index)
	for n, i := range r.index {
		copy(k.delta[n*d:(n+1)*d], o.v[i*d:(i+1)*d])
	}
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(k.delta, o.z, r)
	}
	for l, ly := range k.layers {
		in := k.in(l)
		next := k.next[:m*ly.Out]
		clear(next)
		k.bl.mul(blasapi.NoTrans, m, ly.Out, in, matrix[T]{d: k.delta, ld: in}, matrix[T]{k.wT[l], ly.Out, k.finite}, next, ly.Out)
		if o.w != nil {
			k.addWeightTangent(next, o.w, l, m)
		}
		timesDerivative(ly.Act, next, k.pre[l][:m*ly.Out], k.x[l+1][:m*ly.Out])
		k.delta, k.next = k.next, k.delta
	}
	addRows(o.jv, 1, k.delta, k.out(), r)
}

// addWeightTangent adds to pre what the tangent w of θ makes of x[l].
func (k *mlpKernel[T]) addWeightTangent(pre, w []T, l, m int) {
	ly, in := k.layers[l], k.in(l)
	for n := range m {
		addTo(row(pre, n, ly.Out), 1, w[ly.B:ly.B+ly.Out])
	}
	if ly.HasTime {
		k.addTime(pre, w, l, m)
	}
	wT := k.wDotT[:in*ly.Out]
	transpose(wT, w[ly.W:], in, ly.Out, ly.In)
	k.bl.mul(blasapi.NoTrans, m, ly.Out, in, matrix[T]{d: k.x[l], ld: in}, matrix[T]{wT, ly.Out, k.bl.finite(wT)}, pre, ly.Out)
}
