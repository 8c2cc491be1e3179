package cpu

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// mlpKernel evaluates a batched MLP: x_{l+1} = act_l(W_l·x_l + w_t·t + b_l), a tile of
// samples at a time. Inside, arrays are feature-major: [feature][lane], a sample a lane
// of the processor's vectors. The time is a feature like others, the last one of the
// layers that see it, as its column is the last of their weight.
type mlpKernel[T backend.Float] struct {
	spec   mlp.Spec
	layers []mlp.Layer
	theta  []T
	mem    *memory[T] // of θ
	lanes  int        // samples of a full tile
	few    *few[T]    // for tiles of a few samples, or nil

	ld    int             // lanes of the tile, padding included
	x     [][]T           // x[l]: input of layer l with the time, x[L]: output
	pre   [][]T           // before the activation
	t     []T             // time of each lane
	delta []T             // cotangent or tangent of the current layer's output
	next  []T             // what is made of it
	scale []T             // delta times the rows' weights
	xT    []T             // a layer's input, [lane][feature]
	zeros []T             // as long as a tile of the widest layer
	ones  []T             // a factor for simd.Combine
	k     [1][]T          // operands for it
	zT    []T             // the state before the input map
	dot   *mlpTangents[T] // made where second derivatives are asked for
}

// The size of a feature's row in a full tile: a few vectors, or where weights are so
// large that they, and their gradient, leave the cache between tiles, as many samples as
// make the most of a visit.
const (
	tileBytes     = 128
	wideTileBytes = 512
	wideBytes     = 512 << 10 // of a weight
)

// padded is the number of lanes that a tile of m samples takes: whole vectors.
func padded[T backend.Float](m int) int {
	v := 32 / int(sizeOf[T]())
	return (m + v - 1) / v * v
}

func newMLPKernel[T backend.Float](m *mlp.Model[T], theta []T, mem *memory[T]) *mlpKernel[T] {
	k := &mlpKernel[T]{spec: m.Spec, layers: m.Spec.Layers(), theta: theta, mem: mem}
	k.lanes = tileBytes / int(sizeOf[T]())
	for _, ly := range k.layers {
		if int64(ly.In*ly.Out)*sizeOf[T]() > wideBytes {
			k.lanes = wideTileBytes / int(sizeOf[T]())
		}
	}
	k.allocate()
	return k
}

func (k *mlpKernel[T]) more() kernel[T] {
	x := &mlpKernel[T]{spec: k.spec, layers: k.layers, theta: k.theta, mem: k.mem, lanes: k.lanes}
	x.allocate()
	return x
}

// tile is how many rows the kernel takes at a time.
func (k *mlpKernel[T]) tileRows() int { return k.lanes }

func (k *mlpKernel[T]) allocate() {
	lanes, widest := k.lanes, 0
	for _, ly := range k.layers {
		widest = max(widest, ly.In, ly.Out)
		k.x = append(k.x, make([]T, lanes*ly.In))
		k.pre = append(k.pre, make([]T, lanes*ly.Out))
	}
	k.x = append(k.x, make([]T, lanes*k.out()))
	tile := func() []T { return make([]T, lanes*widest) }
	k.delta, k.next, k.scale, k.zeros = tile(), tile(), tile(), tile()
	k.xT = make([]T, lanes*(widest+xTPad))
	k.t, k.zT = make([]T, lanes), make([]T, lanes*k.spec.Widths[0])
	k.ones = []T{1}
	k.few = newFew(k)
}

func (k *mlpKernel[T]) canVJP() error { return nil }
func (k *mlpKernel[T]) canJVP() error { return nil }

func (k *mlpKernel[T]) bytes() int64 {
	n := len(k.t) + len(k.zT) + 4*len(k.delta) + len(k.xT) + k.few.size() + k.dot.size()
	for _, s := range [][][]T{k.x, k.pre} {
		for _, v := range s {
			n += len(v)
		}
	}
	return int64(n) * sizeOf[T]()
}

// xTPad keeps the rows of xT from starting at the same place of a page.
const xTPad = 16

// in is the input width of layer l without the time column.
func (k *mlpKernel[T]) in(l int) int {
	if k.layers[l].HasTime {
		return k.layers[l].In - 1
	}
	return k.layers[l].In
}

// out is the number of components of f.
func (k *mlpKernel[T]) out() int { return k.spec.Widths[len(k.layers)] }

// tile is the part of r that starts at lo.
func (r *rows) tile(lo, size int) rows {
	hi := min(lo+size, len(r.index))
	return rows{index: r.index[lo:hi], t: r.t[lo:hi], h: r.h[lo:hi], add: r.add}
}

// gather takes the tile's rows of src, of width d, to dst.
func (k *mlpKernel[T]) gather(dst, src []T, d int, r *rows) {
	simd.Gather(dst, k.ld, src, r.index, d)
}

// scatter takes alpha times x to the tile's rows of dst.
func (k *mlpKernel[T]) scatter(dst []T, x []T, d int, alpha T, r *rows) {
	if dst != nil {
		simd.Scatter(dst, x, k.ld, r.index, d, alpha, r.add)
	}
}

// affine sets y = W·x, or with bias W·x + b, of layer l of theta, and adds it to y with
// mode Add. With in columns of the weight, the time is left out or not.
func (k *mlpKernel[T]) affine(mode simd.Mode, y, theta, x []T, l, in int, bias bool) {
	ly := k.layers[l]
	var b []T
	if bias {
		b = theta[ly.B : ly.B+ly.Out]
	}
	simd.Gemm(mode, y, k.ld, theta[ly.W:], ly.In, 1, x, k.ld, ly.Out, k.ld, in, b)
}

// back sets x = Wᵀ·y of layer l of theta, for the first n inputs, or adds it.
func (k *mlpKernel[T]) back(mode simd.Mode, x, theta, y []T, l, n int) {
	ly := k.layers[l]
	simd.Gemm(mode, x, k.ld, theta[ly.W:], 1, ly.In, y, k.ld, n, k.ld, ly.Out, nil)
}

// forward takes a tile through all layers, leaving x and pre of each.
func (k *mlpKernel[T]) forward(z []T, r *rows) {
	d, m := k.spec.Widths[0], len(r.index)
	k.ld = padded[T](m)
	for n := range k.ld {
		k.t[n] = T(r.t[min(n, m-1)])
	}
	k.gather(k.x[0], z, d, r)
	if k.spec.Input == mlp.InputCube {
		x := k.x[0][:d*k.ld]
		copy(k.zT, x)
		for i, v := range x {
			x[i] = v * v * v
		}
	}
	for l, ly := range k.layers {
		if ly.HasTime {
			copy(row(k.x[l], ly.In-1, k.ld), k.t)
		}
		pre := k.pre[l][:ly.Out*k.ld]
		k.affine(simd.Set, pre, k.theta, k.x[l], l, ly.In, true)
		simd.Activate(ly.Act, k.x[l+1][:len(pre)], pre)
	}
}

func (k *mlpKernel[T]) eval(dz, z []T, r *rows) {
	for lo := 0; lo < len(r.index); lo += k.lanes {
		tile := r.tile(lo, k.lanes)
		if k.few.takes(len(tile.index)) {
			k.few.forward(z, &tile)
			k.few.outputs(dz, &tile)
			continue
		}
		k.forward(z, &tile)
		k.scatter(dz, k.x[len(k.layers)], k.out(), 1, &tile)
	}
}

func (k *mlpKernel[T]) vjp(o *vjp[T], r *rows) {
	for lo := 0; lo < len(r.index); lo += k.lanes {
		tile := r.tile(lo, k.lanes)
		few := k.few.takes(len(tile.index))
		if few {
			k.few.forward(o.z, &tile)
			k.few.outputs(o.dz, &tile)
		} else {
			k.forward(o.z, &tile)
			k.scatter(o.dz, k.x[len(k.layers)], k.out(), 1, &tile)
		}
		if o.az == nil && o.at == nil && o.g == nil {
			continue
		}
		var weight []T
		if o.g != nil {
			weight = o.weight[lo : lo+len(tile.index)]
		}
		if few {
			k.few.backward(o, weight, &tile)
		} else {
			k.backward(o, weight, &tile)
		}
	}
}

// backward takes the tile's cotangents back through all layers.
func (k *mlpKernel[T]) backward(o *vjp[T], weight []T, r *rows) {
	k.gather(k.delta, o.a, k.out(), r)
	add := r.add // to at, which several layers add to
	if o.at != nil && !add {
		for _, i := range r.index {
			o.at[i] = 0
		}
	}
	for l := len(k.layers) - 1; l >= 0; l-- {
		ly := k.layers[l]
		n := ly.Out * k.ld
		simd.TimesSlope(ly.Act, k.delta[:n], k.pre[l][:n], k.x[l+1][:n])
		if o.g != nil {
			k.addWeightGradient(o.g, l, k.delta[:n], weight)
		}
		in, time := k.in(l), o.at != nil && ly.HasTime
		if time {
			in++
		}
		if l == 0 && o.az == nil && !time {
			return
		}
		k.back(simd.Set, k.next, k.theta, k.delta, l, in)
		if time {
			for n, v := range row(k.next, in-1, k.ld)[:len(r.index)] {
				o.at[r.index[n]] += o.alpha * v
			}
		}
		k.delta, k.next = k.next, k.delta
	}
	if o.az == nil {
		return
	}
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(k.delta)
	}
	k.scatter(o.az, k.delta, k.spec.Widths[0], o.alpha, r)
}

// timesCubeSlope multiplies the tile of x by 3z².
func (k *mlpKernel[T]) timesCubeSlope(x []T) {
	for i, v := range k.zT[:k.spec.Widths[0]*k.ld] {
		x[i] *= 3 * v * v
	}
}

// weighted is delta, of a layer, times the weight of each lane.
func (k *mlpKernel[T]) weighted(delta, weight []T) []T {
	same := true
	for _, w := range weight {
		same = same && w == weight[0]
	}
	switch {
	case same && weight[0] == 1:
		return delta
	case same:
		k.k[0] = delta
		simd.Combine(k.scale[:len(delta)], k.zeros[:len(delta)], weight[:1], k.ones, k.k[:])
	default:
		m := len(weight)
		for i := 0; i < len(delta); i += k.ld {
			k.k[0] = delta[i : i+m]
			simd.Combine(k.scale[i:i+m], k.zeros[:m], weight, k.ones, k.k[:])
		}
	}
	return k.scale
}

// addWeightGradient adds Σ_n weight[n]·delta_n·[x_n, t_n, 1]ᵀ to layer l's part of g.
func (k *mlpKernel[T]) addWeightGradient(g []T, l int, delta, weight []T) {
	ly, m := k.layers[l], len(weight)
	scaled := k.weighted(delta, weight)
	k.addProducts(g, l, scaled, k.x[l], m)
	simd.AddRowSums(g[ly.B:ly.B+ly.Out], scaled, k.ld, m)
}

// addProducts adds Σ_n delta_n·x_nᵀ over m lanes to layer l's weight in g.
func (k *mlpKernel[T]) addProducts(g []T, l int, delta, x []T, m int) {
	ly := k.layers[l]
	ld := ly.In + xTPad
	simd.Transpose(k.xT, ld, x, k.ld, ly.In, m)
	simd.Gemm(simd.Add, g[ly.W:], ly.In, delta, k.ld, 1, k.xT, ld, ly.Out, ly.In, m, nil)
}

func (k *mlpKernel[T]) jvp(o *jvp[T], r *rows) {
	for lo := 0; lo < len(r.index); lo += k.lanes {
		tile := r.tile(lo, k.lanes)
		k.forward(o.z, &tile)
		k.scatter(o.dz, k.x[len(k.layers)], k.out(), 1, &tile)
		k.tangent(o, &tile)
	}
}

// tangent takes the tile's tangents forward through all layers.
func (k *mlpKernel[T]) tangent(o *jvp[T], r *rows) {
	k.gather(k.delta, o.v, k.spec.Widths[0], r)
	if k.spec.Input == mlp.InputCube {
		k.timesCubeSlope(k.delta)
	}
	for l, ly := range k.layers {
		n := ly.Out * k.ld
		k.layerTangent(k.next, k.delta, o.w, l)
		simd.TimesSlope(ly.Act, k.next[:n], k.pre[l][:n], k.x[l+1][:n])
		k.delta, k.next = k.next, k.delta
	}
	k.scatter(o.jv, k.delta, k.out(), 1, r)
}

// layerTangent sets y to the tangent of layer l before its activation: of x its input,
// and of w, if not nil, θ.
func (k *mlpKernel[T]) layerTangent(y, x, w []T, l int) {
	mode := simd.Set
	if w != nil {
		k.affine(mode, y, w, k.x[l], l, k.layers[l].In, true)
		mode = simd.Add
	}
	k.affine(mode, y, k.theta, x, l, k.in(l), false)
}
