//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// maxWidth is MAX_WIDTH in kernels/narrow.cuh.
const maxWidth = 128

// narrow is how a net runs with a tile of samples on chip, where it can.
type narrow struct {
	forward, vjp, jvp, jvpW tilings
	layers                  driver.Ptr // []narrowLayer of every tiling
	size                    int64
}

// tilings are the two of a kernel: few samples a block for small batches, many for
// large ones. One that does not fit the device is nil.
type tilings struct{ small, large *tiling }

// of chooses the tiling for a batch: the large one once it fills the device. It is
// nil if there is none.
func (t *tilings) of(rows, multiprocessors int) *tiling {
	if t.large != nil && (t.small == nil || rows >= t.large.rows*multiprocessors) {
		return t.large
	}
	return t.small
}

// tiling is how one kernel uses shared memory. Offsets are in elements.
type tiling struct {
	family, name string
	rows         int       // samples of a tile
	shared       int64     // bytes
	occupancy    int       // blocks that fit a multiprocessor
	opened       bool      // the kernel may have that much
	net          narrowNet // without addresses
	vx           int32     // of tangents
	sum          int32     // of a block's part of the gradient, -1: in global memory

	// Of a fused kernel: what its places hold, the states of these, -1 in global
	// memory, and coefficients.
	places, sheet, coef int32
}

// narrowLayer is NarrowLayer in kernels/narrow.cuh.
type narrowLayer struct{ in, out, time, act, w, x, d, slab int32 }

// narrowNet is NarrowNet in kernels/narrow.cuh.
type narrowNet struct {
	theta, thetaDot, layer driver.Ptr
	layers, dim            int32
	cube, resident         int32
	slabs, slabSize        int32
}

// verb is what a narrow kernel keeps in shared memory beside the input of one layer.
type verb struct {
	family  string
	trace   bool // every layer's input and σ'
	tangent bool // a tangent of the input
	weights int  // matrices a layer: of θ, and of its tangent
	large   int  // samples of a large tile
	stages  int  // of a method whose steps the kernel makes
	alone   bool // there are no more blocks than multiprocessors
}

// planNarrow lays out shared memory for the narrow kernels, if the net is narrow.
func (f *bound[T]) planNarrow() error {
	for _, l := range f.layers {
		if l.in > maxWidth || l.out > maxWidth {
			return nil
		}
	}
	// The forward pass keeps one layer, so that in float32 its tile can be larger.
	forward := 64
	if sizeOf[T]() == 4 {
		forward = 128
	}
	n := &f.narrow
	var tables []narrowLayer
	var made []*tiling
	for _, x := range []struct {
		to *tilings
		v  verb
	}{
		{&n.forward, verb{family: "mlp_forward", weights: 1, large: forward}},
		{&n.vjp, verb{family: "mlp_vjp", weights: 1, large: 64, trace: true}},
		{&n.jvp, verb{family: "mlp_jvp", weights: 1, large: 64, tangent: true}},
		{&n.jvpW, verb{family: "mlp_jvp", weights: 2, large: 64, tangent: true}},
	} {
		for _, t := range []struct {
			to   **tiling
			rows int
		}{{&x.to.small, 32}, {&x.to.large, x.v.large}} {
			if p, table := f.plan(x.v, t.rows); p != nil {
				*t.to = p
				made, tables = append(made, p), append(tables, table...)
			}
		}
	}
	if len(made) == 0 {
		return nil
	}
	const layerSize = int64(unsafe.Sizeof(narrowLayer{}))
	size := int64(len(tables)) * layerSize
	var err error
	if n.layers, err = f.b.alloc(size); err != nil {
		return err
	}
	n.size = size
	f.b.d.CopyHD(n.layers, unsafe.Pointer(&tables[0]), size)
	for i, t := range made {
		t.net.layer = n.layers + driver.Ptr(int64(i*len(f.layers))*layerSize)
	}
	return nil
}

// plan lays out shared memory for one kernel. Weights, and with trace a block's part
// of the gradient, stay there if two blocks still fit a multiprocessor; else weights
// pass through two buffers. In a fused kernel weights, gradient and states stay one by
// one, in the order of how often they are used. It returns nil if that does not fit either.
func (f *bound[T]) plan(v verb, rows int) (*tiling, []narrowLayer) {
	size := int32(sizeOf[T]())
	pack := 16 / size
	slab := slabTerms[T]()
	t := &tiling{family: v.family, name: fmt.Sprintf("%s_tile%d", v.family, rows), rows: rows, sum: -1, sheet: -1}
	t.net = narrowNet{layers: int32(len(f.layers)), dim: int32(f.dim), cube: f.cube}

	next := int64((4*maxWidth*size + int32(rows)*(2*size+4)) / size) // TileInfo
	take := func(n int64) int32 {                                    // of no use if it does not fit, and next says so
		at := next
		next += (n + int64(pack) - 1) &^ (int64(pack) - 1)
		return int32(at)
	}
	var widest, buffer int32
	for _, l := range f.layers {
		widest = max(widest, rowStride[T](l.in), rowStride[T](l.out))
		buffer = max(buffer, round4(l.out)*slab)
	}
	table := make([]narrowLayer, len(f.layers))
	shared := int32(0) // by the inputs of all layers
	if !v.trace {
		shared = take(int64(rows) * int64(widest))
	} else {
		buffer = max(buffer, slab*maxWidth) // the slabs of the way back
	}
	if v.tangent {
		t.vx = take(int64(rows) * int64(widest))
	}
	for i, l := range f.layers {
		x := narrowLayer{in: l.in, out: l.out, time: l.time, act: l.act, w: int32(l.w), x: shared}
		if v.trace {
			x.x, x.d = take(int64(rows)*int64(rowStride[T](l.in))), take(int64(rows)*int64(rowStride[T](l.out)))
		}
		table[i] = x
	}

	if v.stages > 0 {
		t.places, t.coef = take(placeBytes*int64(rows)/int64(size)+int64(pack)), take(int64(v.stages*rows))
	}

	limit := int64(f.b.d.Info().MaxShared)
	half := limit / 2
	bytes := func() int64 { return next * int64(size) }
	base := next
	resident := func() {
		for i, l := range f.layers {
			table[i].slab = take(int64(v.weights) * slabElements[T](l))
		}
		t.net.resident = 1
	}
	stream := func() {
		next = base
		t.net.resident, t.net.slabSize = 0, buffer
		t.net.slabs = take(2 * int64(v.weights) * int64(buffer))
	}
	sum := func(most int64) {
		if n := int64(f.params.cols); v.trace && bytes()+n*int64(size) <= most {
			t.sum = take(n)
		}
	}
	if v.stages > 0 {
		most := half
		if stream(); v.alone || bytes() > half {
			most = limit
		}
		next = base
		if resident(); bytes() > most {
			stream()
		}
		sum(most)
		if n := int64(3+v.stages) * int64(rows) * int64(f.dim); bytes()+n*int64(size) <= most {
			t.sheet = take(n)
		}
	} else {
		resident()
		sum(half)
		if bytes() > half || v.trace && t.sum < 0 {
			t.sum = -1
			stream()
			sum(half)
		}
	}
	if bytes() > limit {
		return nil, nil
	}
	t.shared = bytes()
	t.occupancy = int(max(1, min(2, limit/t.shared)))
	return t, table
}

// rowStride is row_stride in kernels/narrow.cuh.
func rowStride[T backend.Float](width int32) int32 {
	pack := int32(16 / sizeOf[T]())
	return (round4(width)/pack | 1) * pack
}

// slabTerms is SLAB in kernels/narrow.cuh.
func slabTerms[T backend.Float]() int32 { return int32(128 / sizeOf[T]()) }

// slabElements is what a layer's weights take in shared memory.
func slabElements[T backend.Float](l layer) int64 {
	slab := slabTerms[T]()
	return int64((l.in + slab - 1) / slab * round4(l.out) * slab)
}

func round4(n int32) int32 { return (n + 3) &^ 3 }

// blocks is the grid of a tiling for a batch: the blocks that the device runs at
// once, each of which takes several tiles if there are more.
func (t *tiling) blocks(rows, multiprocessors int) int64 {
	return min(max(1, ceilDiv(int64(rows), int64(t.rows))), int64(multiprocessors*t.occupancy))
}

// network is t.net with the addresses of a call.
func (f *bound[T]) network(t *tiling, dot driver.Ptr) narrowNet {
	n := t.net
	n.theta, n.thetaDot = f.params.ptr, dot
	return n
}

// launchTiles launches the kernel of a tiling.
func launchTiles[T backend.Float, A any](f *bound[T], t *tiling, blocks int64, args *A) {
	if !t.opened {
		fn, err := f.b.function(t.family, t.name)
		if err == nil {
			err = fn.SetMaxDynamicShared(f.b.d.Info().MaxShared)
		}
		if err != nil {
			f.b.fail(err)
			return
		}
		t.opened = true
	}
	launch(f.b, t.family, t.name, blocks, t.shared, args)
}

// tileForwardArgs are those of mlp_forward_tileN in kernels/mlp_forward.cu.
type tileForwardArgs struct {
	rows  mlpRows
	net   narrowNet
	z, dz driver.Ptr
}

func (f *bound[T]) evalNarrow(t *tiling, at backend.At, rows int, z, dz driver.Ptr) {
	k, ok := f.begin(at, rows, 0, 0, false)
	if !ok {
		return
	}
	a := tileForwardArgs{rows: k.rows, net: f.network(t, 0), z: z, dz: dz}
	launchTiles(f, t, t.blocks(rows, f.sms), &a)
}

// tileVJPArgs ends with TileVjp in kernels/mlp_vjp.cu.
type tileVJPArgs[T backend.Float] struct {
	rows                      mlpRows
	net                       narrowNet
	z, a, dz, az, at, partial driver.Ptr
	alpha                     T
	params, sum               int32
}

// partialLimit bounds what the blocks' parts of the gradient take.
const partialLimit = 64 << 20

func (f *bound[T]) vjpNarrow(t *tiling, at backend.At, rows int, o *products[T]) {
	blocks := t.blocks(rows, f.sms)
	params := int64(f.params.cols)
	var bytes int64
	if o.g != 0 {
		blocks = min(blocks, max(1, partialLimit/(params*sizeOf[T]())))
		bytes = padded(blocks * params * sizeOf[T]())
	}
	k, ok := f.begin(at, rows, bytes, o.w, o.timesH)
	if !ok {
		return
	}
	a := tileVJPArgs[T]{
		rows: k.rows, net: f.network(t, 0),
		z: o.z, a: o.a, dz: o.dz, az: o.az, at: o.at, alpha: o.alpha, params: int32(params), sum: -1,
	}
	if o.g != 0 {
		a.partial, a.sum = k.scratch.take(bytes), t.sum
	}
	launchTiles(f, t, blocks, &a)
	if o.g != 0 {
		r := reduceArgs{
			rows: k.rows, g: o.g, partial: a.partial,
			params: int32(params), blocks: int32(blocks), run: int32(t.rows), chunk: int32(rows),
		}
		launch(f.b, "mlp_vjp", "mlp_vjp_reduce", ceilDiv(params, 32), 0, &r)
	}
}

// reduceArgs ends with Reduce in kernels/mlp_vjp.cu.
type reduceArgs struct {
	rows                              mlpRows
	g, partial                        driver.Ptr
	params, blocks, run, first, chunk int32
	_                                 int32
}

// tileJVPArgs ends with TileJvp in kernels/mlp_jvp.cu.
type tileJVPArgs struct {
	rows         mlpRows
	net          narrowNet
	z, v, dz, jv driver.Ptr
	vx           int32
	_            int32
}

func (f *bound[T]) jvpNarrow(t *tiling, at backend.At, rows int, o *tangents) {
	k, ok := f.begin(at, rows, 0, 0, false)
	if !ok {
		return
	}
	a := tileJVPArgs{rows: k.rows, net: f.network(t, o.w), z: o.z, v: o.v, dz: o.dz, jv: o.jv, vx: t.vx}
	launchTiles(f, t, t.blocks(rows, f.sms), &a)
}
