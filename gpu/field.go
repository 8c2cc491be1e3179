//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// bound is an MLP bound to this backend. Nets whose tiles of samples fit into shared
// memory go through all layers in one launch (field_narrow.go), others, and those on
// tensor cores, layer by layer (field_wide.go).
type bound[T backend.Float] struct {
	core[T]
	sms    int // multiprocessors of the device
	layers []layer
	cube   int32
	tensor bool // tensor cores compute some of its layers
	narrow narrow
	walked walked
	budget int64    // bytes that a wide net may keep of a chunk of rows
	x      []matrix // of every layer of a wide net: its input,
	delta  []matrix // and σ' and then δ at its output
}

// core is what every bound right-hand side has.
type core[T backend.Float] struct {
	b      *Backend[T]
	dim    int
	params *vec[T]
	arenas []arena
	closed bool
}

// newCore puts θ on the device.
func newCore[T backend.Float](b *Backend[T], sys backend.System[T]) (core[T], error) {
	v, err := b.NewVec(1, 1, sys.NumParams())
	if err != nil {
		return core[T]{}, err
	}
	b.Upload(v, sys.Params())
	return core[T]{b: b, dim: sys.Dim(), params: v.(*vec[T])}, nil
}

// layer is mlp.Layer with the time column counted apart.
type layer struct {
	in, out, time int32
	act           int32
	w, b          int // offsets into θ
	kernels       *wideKernels
}

// ld is the row length of the layer's weight.
func (l *layer) ld() int32 { return l.in + l.time }

// arena is scratch memory. Launches follow each other on one stream, so that all
// verbs can share one. It stays where it is until the field is closed, for a
// recorded launch keeps its address.
type arena struct {
	ptr  driver.Ptr
	size int64
}

// Bind prepares an *mlp.Model, or compiles a field.Sourcer.
func (b *Backend[T]) Bind(sys backend.System[T]) (backend.Field[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	switch s := sys.(type) {
	case *mlp.Model[T]:
		return b.bindMLP(s)
	case field.Sourcer[T]:
		if s.Source().Eval != "" {
			return b.bindSource(s)
		}
	}
	return nil, fmt.Errorf("gpu: Bind of a %T: %w: give an *mlp.Model, equations (expr.Parse) or CUDA source (field.Sourcer), or use the CPU backend", sys, backend.ErrUnsupported)
}

func (b *Backend[T]) bindMLP(m *mlp.Model[T]) (backend.Field[T], error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if m.Dim() != m.OutDim() {
		return nil, fmt.Errorf("gpu: an MLP from %d to %d components is no right-hand side: %w: give it as many outputs as inputs",
			m.Dim(), m.OutDim(), backend.ErrUnsupported)
	}
	f := &bound[T]{sms: b.sms, budget: chunkBytes}
	for i, l := range m.Spec.Layers() {
		if l.In > maxLayer || l.Out > maxLayer {
			return nil, fmt.Errorf("gpu: layer %d has more than %d units: %w: use the CPU backend", i, maxLayer, backend.ErrUnsupported)
		}
		x := layer{in: int32(l.In), out: int32(l.Out), act: int32(l.Act), w: l.W, b: l.B}
		if l.HasTime {
			x.in, x.time = x.in-1, 1
		}
		f.layers = append(f.layers, x)
	}
	if m.Spec.Input == mlp.InputCube {
		f.cube = 1
	}
	var err error
	if f.core, err = newCore(b, backend.System[T](m)); err != nil {
		return nil, err
	}
	if f.chooseWide(); !f.tensor {
		if err := f.planNarrow(); err != nil {
			f.Close()
			return nil, err
		}
	}
	if err := b.takeErr(); err != nil { // or θ might not be there
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *core[T]) Dim() int               { return f.dim }
func (f *core[T]) NumParams() int         { return f.params.cols }
func (f *core[T]) Params() backend.Vec[T] { return f.params }

func (f *core[T]) Close() {
	if f.closed {
		return
	}
	f.closed = true
	for _, a := range f.arenas {
		f.b.release(a.ptr, a.size)
	}
	f.arenas = nil
	f.b.Free(f.params)
}

func (f *bound[T]) Close() {
	if !f.closed {
		f.b.release(f.narrow.layers, f.narrow.size)
		f.freeWalked()
	}
	f.core.Close()
}

// open says whether a call may run, and latches the reason if not.
func (f *core[T]) open() bool {
	if !f.b.live() {
		return false
	}
	if f.closed {
		f.b.fail(fmt.Errorf("gpu: field: %w: bind the system again", backend.ErrClosed))
	}
	f.b.pool.use(f.params.ptr)
	return !f.closed
}

// operand is the device memory of a 1×rows×cols operand, 0 for nil.
func (f *core[T]) operand(v backend.Vec[T], rows, cols int) driver.Ptr {
	if v == nil {
		return 0
	}
	x := f.b.vec(v)
	if x.blocks != 1 || x.cols != cols || x.rows != rows {
		panic("gpu: operand of another shape than the field's")
	}
	return x.ptr
}

// reserve returns n bytes that nothing enqueued later than this call's launches uses.
func (f *core[T]) reserve(n int64) (carve, bool) {
	var largest int64
	for _, a := range f.arenas {
		if a.size >= n {
			return carve{a.ptr, a.ptr + driver.Ptr(a.size)}, true
		}
		largest = max(largest, a.size)
	}
	if f.b.d.Failed() {
		return carve{}, false
	}
	size := max(n, 2*largest)
	p, err := f.b.alloc(size)
	if errors.Is(err, backend.ErrOutOfMemory) && size > n {
		size = n
		p, err = f.b.alloc(size)
	}
	if err != nil {
		f.b.fail(fmt.Errorf("gpu: scratch memory of a field: %w", err))
		return carve{}, false
	}
	f.arenas = append(f.arenas, arena{p, size})
	return carve{p, p + driver.Ptr(size)}, true
}

// carve hands out parts of scratch memory.
type carve struct{ next, end driver.Ptr }

// scratchAlign keeps every part aligned for the widest access.
const scratchAlign = 256

// padded is the part of scratch memory that n bytes take.
func padded(n int64) int64 { return (n + scratchAlign - 1) &^ (scratchAlign - 1) }

func (c *carve) take(n int64) driver.Ptr {
	p := c.next
	c.next += driver.Ptr(padded(n))
	if c.next > c.end {
		panic("gpu: scratch memory too small")
	}
	return p
}

// mlpRows is MlpRows in kernels/mlp.cuh.
type mlpRows struct {
	clk                           clockView
	c, factor                     float64
	list, times, weights, listed  driver.Ptr
	rows, selects, timesH, counts int32
}

// call is one verb on its way: the rows it selects, and what is left of its scratch
// memory.
type call struct {
	rows    mlpRows
	scratch carve
}

// rowsBytes is the scratch memory that begin needs beside the verb's.
func (f *bound[T]) rowsBytes(c *clock[T], rows int) int64 {
	if c.lanes == 1 {
		return 0
	}
	n := int64(rows)
	return padded(4*n) + 2*padded(n*sizeOf[T]()) + padded(4*(ceilDiv(n, blockSize)+1))
}

// begin selects the rows of a verb that needs `bytes` of scratch memory.
func (f *bound[T]) begin(at backend.At, rows int, bytes int64, weight float64, timesH bool) (k call, ok bool) {
	c := f.b.clock(at.Clock)
	if c.lanes != 1 && c.lanes != rows {
		panic("gpu: as many rows as lanes are needed")
	}
	if bytes += f.rowsBytes(c, rows); bytes > 0 {
		if k.scratch, ok = f.reserve(bytes); !ok {
			return k, false
		}
	}
	r := &k.rows
	*r = mlpRows{clk: c.view, c: at.C, factor: weight, rows: int32(rows), selects: selection(at.Rows), counts: 1}
	if timesH {
		r.timesH = 1
	}
	if c.lanes > 1 {
		n := int64(rows)
		blocks := ceilDiv(n, blockSize)
		a := rowsFillArgs{
			list: k.scratch.take(4 * n), times: k.scratch.take(n * sizeOf[T]()), weights: k.scratch.take(n * sizeOf[T]()),
			counts: k.scratch.take(4 * (blocks + 1)),
		}
		a.rows = *r
		if blocks > 1 {
			launch(f.b, "mlp_rows", "mlp_rows_count", blocks, 0, &rowsCountArgs{clk: c.view, counts: a.counts, rows: r.rows, selects: r.selects})
		}
		launch(f.b, "mlp_rows", "mlp_rows_fill", blocks, 0, &a)
		r.list, r.times, r.weights = a.list, a.times, a.weights
		r.listed = a.counts + driver.Ptr(4*blocks)
	}
	return k, true
}

type rowsCountArgs struct {
	clk           clockView
	counts        driver.Ptr
	rows, selects int32
}

type rowsFillArgs struct {
	rows                         mlpRows
	list, times, weights, counts driver.Ptr
}

// Eval sets dz = f(t, z; θ).
func (f *bound[T]) Eval(dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
	if !f.open() {
		return
	}
	_, rows, _ := z.Shape()
	Z, DZ := f.operand(z, rows, f.dim), f.operand(dz, rows, f.dim)
	if p := f.narrow.forward.of(rows, f.sms); p != nil {
		f.evalNarrow(p, at, rows, Z, DZ)
	} else {
		f.evalWide(at, rows, Z, DZ)
	}
}

// products are the operands of a VJP on the device.
type products[T backend.Float] struct {
	z, a, dz, az, at, g driver.Ptr
	alpha               T
	w                   float64
	timesH              bool
}

func (f *core[T]) products(v *backend.VJP[T], rows int) products[T] {
	o := products[T]{
		z: f.operand(v.Z, rows, f.dim), a: f.operand(v.A, rows, f.dim),
		dz: f.operand(v.DZ, rows, f.dim), az: f.operand(v.AZ, rows, f.dim), at: f.operand(v.AT, rows, 1),
		alpha: T(v.Alpha), w: v.W, timesH: v.TimesH,
	}
	if v.G != nil {
		o.g = f.operand(v.G, 1, f.params.cols)
	}
	return o
}

// VJP computes vector-Jacobian products.
func (f *bound[T]) VJP(at backend.At, v backend.VJP[T]) {
	if !f.open() {
		return
	}
	_, rows, _ := v.Z.Shape()
	o := f.products(&v, rows)
	switch {
	case o.az == 0 && o.at == 0 && v.G == nil && o.dz == 0:
		f.count(at, rows)
		return
	case o.az == 0 && o.at == 0 && v.G == nil:
		f.Eval(v.DZ, at, v.Z)
		return
	case v.A == nil:
		panic("gpu: VJP without a cotangent")
	}
	if p := f.narrow.vjp.of(rows, f.sms); p != nil {
		f.vjpNarrow(p, at, rows, &o)
	} else {
		f.vjpWide(at, rows, &o)
	}
}

// tangents are the operands of a JVP on the device.
type tangents struct{ z, v, w, dz, jv driver.Ptr }

func (f *core[T]) tangents(j *backend.JVP[T], rows int) tangents {
	o := tangents{
		z: f.operand(j.Z, rows, f.dim), v: f.operand(j.V, rows, f.dim),
		dz: f.operand(j.DZ, rows, f.dim), jv: f.operand(j.JV, rows, f.dim),
	}
	if j.W != nil {
		o.w = f.operand(j.W, 1, f.params.cols)
	}
	return o
}

// JVP computes Jacobian-vector products.
func (f *bound[T]) JVP(at backend.At, j backend.JVP[T]) {
	if !f.open() {
		return
	}
	_, rows, _ := j.Z.Shape()
	o := f.tangents(&j, rows)
	kinds := &f.narrow.jvp
	if j.W != nil {
		kinds = &f.narrow.jvpW
	}
	if p := kinds.of(rows, f.sms); p != nil {
		f.jvpNarrow(p, at, rows, &o)
	} else {
		f.jvpWide(at, rows, &o)
	}
}

// count counts an evaluation that nothing is wanted of.
func (f *bound[T]) count(at backend.At, rows int) {
	if k, ok := f.begin(at, rows, 0, 0, false); ok {
		launch(f.b, "mlp_forward", "mlp_forward_input", 1, 0, &inputArgs{rows: k.rows})
	}
}
