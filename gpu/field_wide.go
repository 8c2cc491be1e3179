//go:build cuda && cgo && linux && amd64

package gpu

import (
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// A wide net runs layer by layer, for a chunk of the selected rows at a time, so that
// what is kept between layers stays within chunkBytes.
const (
	chunkBytes = 256 << 20
	chunkLeast = 128 // rows
	// maxLayer keeps 128 rows, the largest tile, within 2³¹ elements.
	maxLayer = 1<<24 - 1
)

// Tensor cores compute layers whose input and output have tensorWidth units, on devices
// from tensorCapability on. That hangs on the shape of a layer alone: a sample's result
// does not change with the batch.
const (
	tensorWidth      = 32
	tensorCapability = 80
)

// wideKernels are the products of kernels/wide.cuh in one arithmetic.
type wideKernels struct {
	forward, tangent, back, weights sizes
	columns                         int64 // of a large tile
}

// sizes are a kernel with large tiles and one with small ones.
type sizes struct{ family, large, small string }

func sizesOf(family, verb string) sizes { return sizes{family, verb + "_large", verb + "_small"} }

// scalarKernels are those of the families for all devices.
func scalarKernels[T backend.Float]() *wideKernels {
	k := &wideKernels{
		forward: sizesOf("mlp_forward", "mlp_forward"), tangent: sizesOf("mlp_jvp", "mlp_jvp_layer"),
		back: sizesOf("mlp_vjp", "mlp_vjp_back"), weights: sizesOf("mlp_vjp", "mlp_vjp_weights"), columns: 64,
	}
	if sizeOf[T]() == 4 {
		k.columns = 128
	}
	return k
}

// tensorKernels are those of kernels/tensor.cuh.
func tensorKernels(p Precision) *wideKernels {
	family := "mlp_" + strings.ToLower(p.String())
	k := &wideKernels{
		forward: sizesOf(family, family+"_forward"), tangent: sizesOf(family, family+"_jvp"),
		back: sizesOf(family, family+"_back"), weights: sizesOf(family, family+"_weights"), columns: 128,
	}
	if p == TF32x3 {
		k.columns = 64
	}
	return k
}

// chooseWide chooses the kernels of every layer.
func (f *bound[T]) chooseWide() {
	scalar, tensor := scalarKernels[T](), tensorKernels(f.b.precision)
	for i := range f.layers {
		l := &f.layers[i]
		l.kernels = scalar
		if f.b.precision != Float32 && min(l.in, l.out) >= tensorWidth {
			l.kernels, f.tensor = tensor, true
		}
	}
}

// wide is a verb on its way through a wide net.
type wide[T backend.Float] struct {
	*bound[T]
	call
	total        int   // rows of the operands
	first, chunk int64 // selected rows that are on their way, and how many at most
	copied       bool  // the input is not the operand itself
}

// matrix is a chunk of rows, ld elements apart.
type matrix struct {
	p  driver.Ptr
	ld int32
}

// scratchPlan counts the scratch memory of a verb.
type scratchPlan[T backend.Float] struct {
	width int64 // elements a row
	parts int   // matrices
	bytes int64 // beside them
}

func (s *scratchPlan[T]) matrix(width int32, n int) {
	s.width += int64(n) * int64(round4(width))
	s.parts += n
}

// start selects the rows. need is what the verb keeps of a chunk. It is false if
// there is nothing to do any more.
func (f *bound[T]) start(at backend.At, rows int, need scratchPlan[T], tangent bool, weight float64, timesH bool) (w wide[T], ok bool) {
	if rows == 0 {
		f.count(at, rows)
		return w, false
	}
	w = wide[T]{bound: f, total: rows, copied: f.cube != 0 || f.b.clock(at.Clock).lanes > 1}
	if w.copied {
		need.matrix(int32(f.dim), 1)
		if tangent {
			need.matrix(int32(f.dim), 1)
		}
	}
	w.chunk = min(int64(rows), max(chunkLeast, w.budget/(max(1, need.width)*sizeOf[T]())&^127))
	bytes := need.bytes + need.width*w.chunk*sizeOf[T]() + int64(need.parts)*scratchAlign
	w.call, ok = f.begin(at, rows, bytes, weight, timesH)
	return w, ok
}

// matrix takes a matrix for a chunk of rows. Its rows begin at multiples of 16 bytes.
func (w *wide[T]) matrix(width int32) matrix {
	ld := round4(width)
	return matrix{w.scratch.take(w.chunk * int64(ld) * sizeOf[T]()), ld}
}

// tiles is how many tiles of a Product in kernels/gemm.cuh cover rows × columns.
func (k *wideKernels) tiles(rows, columns int64, large bool) int64 {
	m, n := int64(64), int64(64)
	if large {
		m, n = 128, k.columns
	}
	return ceilDiv(rows, m) * ceilDiv(columns, n)
}

// product launches a kernel of a layer for a product of a chunk's rows × columns: the
// one with large tiles if they fill the device. The first kernel of a verb counts the
// evaluation.
func product[T backend.Float, A any](w *wide[T], ly *layer, s *sizes, columns int32, args *A) {
	name, blocks := s.large, ly.kernels.tiles(w.chunk, int64(columns), true)
	if blocks < int64(w.sms) {
		name, blocks = s.small, ly.kernels.tiles(w.chunk, int64(columns), false)
	}
	launch(w.b, s.family, name, blocks, 0, args)
	w.rows.counts = 0
}

// inputArgs ends with Input in kernels/mlp_forward.cu.
type inputArgs struct {
	rows                        mlpRows
	z, v, x, vx                 driver.Ptr
	first, chunk, dim, ld, cube int32
	_                           int32
}

// input returns g(z), and g'(z)·v if there is a v, of the chunk: in x and vx, or where
// they are if all rows are selected and g is the identity.
func (w *wide[T]) input(z, v driver.Ptr, x, vx matrix) (matrix, matrix) {
	if !w.copied {
		at := driver.Ptr(w.first * int64(w.dim) * sizeOf[T]())
		return matrix{z + at, int32(w.dim)}, matrix{v + at, int32(w.dim)}
	}
	a := inputArgs{
		rows: w.rows, z: z, v: v, x: x.p, vx: vx.p,
		first: int32(w.first), chunk: int32(w.chunk), dim: int32(w.dim), ld: x.ld, cube: w.cube,
	}
	const most = 4096 // blocks, each of which goes on to more elements
	launch(w.b, "mlp_forward", "mlp_forward_input", min(most, ceilDiv(w.chunk*int64(w.dim), blockSize)), 0, &a)
	w.rows.counts = 0
	return x, vx
}

// forwardArgs ends with Forward in kernels/wide.cuh.
type forwardArgs struct {
	rows                 mlpRows
	x, w, b, a, y, slope driver.Ptr
	ldx, ldw, ldy, lds   int32
	in, out, time, act   int32
	first, chunk, last   int32
	_                    int32
}

// forward computes y = σ(W·x + b) of a layer and, if there is one, slope = σ'. Both
// are packed, but for y of the last layer, which has all rows.
func (w *wide[T]) forward(l int, x, y, slope matrix, a driver.Ptr) {
	ly := &w.layers[l]
	theta := w.params.ptr
	args := forwardArgs{
		rows: w.rows, x: x.p, w: w.at(theta, ly.w), b: w.at(theta, ly.b), a: a, y: y.p, slope: slope.p,
		ldx: x.ld, ldw: ly.ld(), ldy: y.ld, lds: slope.ld, in: ly.in, out: ly.out, time: ly.time, act: ly.act,
		first: int32(w.first), chunk: int32(w.chunk),
	}
	if l == len(w.layers)-1 {
		args.last = 1
	}
	product(w, ly, &ly.kernels.forward, ly.out, &args)
}

// at is the address of element i.
func (f *bound[T]) at(p driver.Ptr, i int) driver.Ptr { return p + driver.Ptr(int64(i)*sizeOf[T]()) }

// hidden is the widest output of a layer but the last.
func (f *bound[T]) hidden() (width int32) {
	for _, l := range f.layers[:len(f.layers)-1] {
		width = max(width, l.out)
	}
	return width
}

func (f *bound[T]) evalWide(at backend.At, rows int, z, dz driver.Ptr) {
	var need scratchPlan[T]
	need.matrix(f.hidden(), 2)
	w, ok := f.start(at, rows, need, false, 0, false)
	if !ok {
		return
	}
	h := [2]matrix{w.matrix(f.hidden()), w.matrix(f.hidden())}
	var x0 matrix
	if w.copied {
		x0 = w.matrix(int32(f.dim))
	}
	for ; w.first < int64(rows); w.first += w.chunk {
		x, _ := w.input(z, 0, x0, matrix{})
		for l := range f.layers {
			y := h[l%2]
			if l == len(f.layers)-1 {
				y = matrix{dz, int32(f.dim)}
			}
			w.forward(l, x, y, matrix{}, 0)
			x = y
		}
	}
}

// tangentArgs ends with Tangent in kernels/wide.cuh.
type tangentArgs struct {
	rows                    mlpRows
	vx, w, x, wDot, bDot    driver.Ptr
	slope, to               driver.Ptr
	ldv, ldw, ldx, lds, ldt int32
	in, out, time           int32
	first, chunk, last      int32
	_                       int32
}

func (f *bound[T]) jvpWide(at backend.At, rows int, o *tangents) {
	var need scratchPlan[T]
	widest := max(f.hidden(), int32(f.dim))
	need.matrix(f.hidden(), 4)
	need.matrix(widest, 1)
	w, ok := f.start(at, rows, need, true, 0, false)
	if !ok {
		return
	}
	h := [2]matrix{w.matrix(f.hidden()), w.matrix(f.hidden())}
	vh := [2]matrix{w.matrix(f.hidden()), w.matrix(f.hidden())}
	slope := w.matrix(widest)
	var x0, v0 matrix
	if w.copied {
		x0, v0 = w.matrix(int32(f.dim)), w.matrix(int32(f.dim))
	}
	for ; w.first < int64(rows); w.first += w.chunk {
		x, vx := w.input(o.z, o.v, x0, v0)
		for l := range f.layers {
			ly := &f.layers[l]
			y, to := h[l%2], vh[l%2]
			last := l == len(f.layers)-1
			if last {
				y, to = matrix{o.dz, int32(f.dim)}, matrix{o.jv, int32(f.dim)}
			}
			w.forward(l, x, y, slope, 0)
			a := tangentArgs{
				rows: w.rows, vx: vx.p, w: f.at(f.params.ptr, ly.w), x: x.p, slope: slope.p, to: to.p,
				ldv: vx.ld, ldw: ly.ld(), ldx: x.ld, lds: slope.ld, ldt: to.ld, in: ly.in, out: ly.out, time: ly.time,
				first: int32(w.first), chunk: int32(w.chunk),
			}
			if o.w != 0 {
				a.wDot, a.bDot = f.at(o.w, ly.w), f.at(o.w, ly.b)
			}
			if last {
				a.last = 1
			}
			product(&w, ly, &ly.kernels.tangent, ly.out, &a)
			x, vx = y, to
		}
	}
}
