package cpu

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// few is the mlpKernel of tiles with so few samples that most lanes would be padding. Here
// the lanes of a vector are features, arrays are [sample][feature], and weights are
// transposed. Every sum has the order that it has in a tile, so results have the same
// bits; dL/dθ alone adds its samples in another order.
type few[T backend.Float] struct {
	*mlpKernel[T]
	packed  uint64 // version of θ that w holds
	w       [][]T  // of each layer, [input, and a row for the bias][ld]
	ldw     []int  // features of x[l] and pre[l-1], in whole vectors
	x, pre  [][]T  // as the kernel's
	z       []T    // before the input map
	d, back []T    // cotangent of a layer's output, and of its input
	scaled  []T    // d times the weight of its sample
}

// newFew returns nil for wide nets: reading their weights is most of the work, and the
// same.
func newFew[T backend.Float](k *mlpKernel[T]) *few[T] {
	f := &few[T]{mlpKernel: k}
	vector, most := 64/int(sizeOf[T]()), fewMost[T]()
	whole := func(n int) int { return (n + vector - 1) / vector * vector }
	widest := 0
	for l := range len(k.layers) + 1 {
		n := k.spec.Widths[l]
		if l < len(k.layers) {
			n = max(n, k.layers[l].In)
		}
		f.ldw = append(f.ldw, whole(n))
		f.x = append(f.x, make([]T, most*f.ldw[l]))
		widest = max(widest, f.ldw[l])
	}
	for l, ly := range k.layers {
		if int64(ly.In*ly.Out)*sizeOf[T]() > wideBytes {
			return nil
		}
		f.w = append(f.w, make([]T, (ly.In+1)*f.ldw[l+1]))
		f.pre = append(f.pre, make([]T, most*f.ldw[l+1]))
	}
	f.z = make([]T, most*k.spec.Widths[0])
	f.d, f.back, f.scaled = make([]T, most*widest), make([]T, most*widest), make([]T, most*widest)
	return f
}

// fewMost is how many samples are few: beyond, a tile takes less time.
func fewMost[T backend.Float]() int { return 32 / int(sizeOf[T]()) / 2 }

func (f *few[T]) size() (n int) {
	if f == nil {
		return 0
	}
	for _, s := range [][][]T{f.w, f.x, f.pre} {
		for _, v := range s {
			n += len(v)
		}
	}
	return n + len(f.z) + len(f.d) + len(f.back) + len(f.scaled)
}

// takes reports whether so many samples are few.
func (f *few[T]) takes(samples int) bool { return f != nil && samples <= fewMost[T]() }

// pack takes θ over.
func (f *few[T]) pack() {
	if f.packed == f.mem.version {
		return
	}
	for l, ly := range f.layers {
		ld := f.ldw[l+1]
		simd.Transpose(f.w[l], ld, f.theta[ly.W:], ly.In, ly.Out, ly.In)
		copy(f.w[l][ly.In*ld:], f.theta[ly.B:ly.B+ly.Out])
	}
	f.packed = f.mem.version
}

func (f *few[T]) forward(z []T, r *rows) {
	f.pack()
	m, d := len(r.index), f.spec.Widths[0]
	for s, i := range r.index {
		x := f.x[0][s*f.ldw[0]:][:d]
		copy(x, row(z, int(i), d))
		if f.spec.Input == mlp.InputCube {
			copy(row(f.z, s, d), x)
			for j, v := range x {
				x[j] = v * v * v
			}
		}
	}
	for l, ly := range f.layers {
		ldx, ld := f.ldw[l], f.ldw[l+1]
		x, pre := f.x[l], f.pre[l][:m*ld]
		for s := range m {
			if ly.HasTime {
				x[s*ldx+ly.In-1] = T(r.t[s])
			}
			copy(pre[s*ld:][:ld], f.w[l][ly.In*ld:])
		}
		simd.Gemm(simd.Add, pre, ld, x, ldx, 1, f.w[l], ld, m, ld, ly.In, nil)
		simd.Activate(ly.Act, f.x[l+1][:len(pre)], pre)
	}
}

// scatter takes rows of x, ld apart, times alpha to those of dst.
func (f *few[T]) scatter(dst, x []T, ld, d int, alpha T, r *rows) {
	if dst == nil {
		return
	}
	for s := range r.index {
		simd.Scatter(dst, x[s*ld:], 1, r.index[s:s+1], d, alpha, r.add)
	}
}

// outputs takes f to the rows of dz.
func (f *few[T]) outputs(dz []T, r *rows) {
	l := len(f.layers)
	f.scatter(dz, f.x[l], f.ldw[l], f.out(), 1, r)
}

func (f *few[T]) backward(o *vjp[T], weight []T, r *rows) {
	m, last := len(r.index), len(f.layers)-1
	for s, i := range r.index {
		copy(f.d[s*f.ldw[last+1]:], row(o.a, int(i), f.out()))
		if o.at != nil && !r.add {
			o.at[i] = 0
		}
	}
	for l := last; l >= 0; l-- {
		ly, ldx, ld := f.layers[l], f.ldw[l], f.ldw[l+1]
		n := m * ld
		simd.TimesSlope(ly.Act, f.d[:n], f.pre[l][:n], f.x[l+1][:n])
		if o.g != nil {
			f.addWeightGradient(o.g, l, weight)
		}
		in, time := f.in(l), o.at != nil && ly.HasTime
		if time {
			in++
		}
		if l == 0 && o.az == nil && !time {
			return
		}
		clear(f.back[:m*ldx])
		simd.Gemm(simd.Set, f.back, ldx, f.d, ld, 1, f.theta[ly.W:], ly.In, m, in, ly.Out, nil)
		if time {
			for s, i := range r.index {
				o.at[i] += o.alpha * f.back[s*ldx+in-1]
			}
		}
		f.d, f.back = f.back, f.d
	}
	if o.az == nil {
		return
	}
	d, ld := f.spec.Widths[0], f.ldw[0]
	if f.spec.Input == mlp.InputCube {
		for s := range m {
			x := f.d[s*ld:][:d]
			for j, v := range row(f.z, s, d) {
				x[j] *= 3 * v * v
			}
		}
	}
	f.scatter(o.az, f.d, ld, d, o.alpha, r)
}

// addWeightGradient is the kernel's, of d.
func (f *few[T]) addWeightGradient(g []T, l int, weight []T) {
	ly, ld := f.layers[l], f.ldw[l+1]
	b := g[ly.B : ly.B+ly.Out]
	for s, w := range weight {
		d, scaled := f.d[s*ld:][:ly.Out], f.scaled[s*ld:][:ly.Out]
		for j, v := range d {
			v *= w
			scaled[j] = v
			b[j] += v
		}
	}
	simd.Gemm(simd.Add, g[ly.W:], ly.In, f.scaled, 1, ld, f.x[l], f.ldw[l], ly.Out, ly.In, len(weight), nil)
}
