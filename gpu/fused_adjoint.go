//go:build cuda && cgo && linux && amd64

package gpu

import (
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var (
	_ backend.ReverseFuser[float32] = (*Backend[float32])(nil)
	_ backend.ReverseFuser[float64] = (*Backend[float64])(nil)
)

// placeBytes is what a place takes in Places of kernels/fused_adjoint.cu.
const placeBytes = 5*8 + 8*4

// walked is how a narrow net goes back over whole solves.
type walked struct {
	plans  map[walkShape]*tiling // nil: does not fit
	layers []carve               // of the plans' layers, to release
	method []float64             // as on the device
	coef   driver.Ptr
}

// walkShape is what a plan is made for.
type walkShape struct {
	rows, stages int // places of a tile, stages of the method
	alone        bool
}

// reverseArgs is ReverseArgs in kernels/fused_adjoint.cu.
type reverseArgs struct {
	clk                               clockView
	tape                              tapeView
	net                               narrowNet
	method, cotangents, lambda, carry driver.Ptr
	partial, states, skip             driver.Ptr
	rows, run, outputs                int32
	stages, extra, dense, powers, end int32
	read, kept, begins                int32
	params, sum, sheet, places, coef  int32
}

// partsArgs is PartsArgs in kernels/fused_adjoint.cu.
type partsArgs struct {
	g, partial               driver.Ptr
	params, parts, begins, _ int32
}

// WalkBack computes the discrete adjoint of the steps on a tape in two launches, if the
// field is a narrow net whose places fit into shared memory, or was compiled from source
// with a VJP and a sample's state, stages and gradient are at most 4 KiB.
func (b *Backend[T]) WalkBack(w *backend.Walk[T]) bool {
	if !b.live() {
		return false
	}
	switch f := w.Field.(type) {
	case *bound[T]:
		return f.b == b && f.open() && f.walkBack(w)
	case *sourced[T]:
		return f.b == b && f.open() && f.walkBack(w)
	}
	return false
}

// walk checks the shapes of a walk back.
func (b *Backend[T]) walk(w *backend.Walk[T]) (*clock[T], *tape[T]) {
	c, t, lambda := b.clock(w.Clock), b.tape(w.Tape), b.vec(w.Lambda)
	stages, keep := len(w.A), 1
	if w.Stages {
		keep += stages
	}
	if len(w.C) != stages || len(w.B) > stages || len(w.Dense) > stages || lambda.rows != t.rows || c.lanes != t.lanes ||
		int(t.view.keep) != keep || w.Skip != nil && len(w.Skip) != c.lanes {
		panic("gpu: WalkBack of another shape than the tape's")
	}
	return c, t
}

func (f *bound[T]) walkBack(w *backend.Walk[T]) bool {
	b, stages := f.b, len(w.A)
	c, t := b.walk(w)
	rows := t.rows
	p, err := f.reversePlan(rows, stages)
	if err != nil {
		b.fail(err)
	}
	if p == nil {
		return err != nil
	}
	blocks := p.blocks(rows, f.sms)
	a := reverseArgs{
		clk: c.view, tape: t.view, net: f.network(p, 0),
		lambda: f.operand(w.Lambda, rows, f.dim), carry: f.operand(w.Carry, rows, f.dim),
		rows: int32(rows), stages: int32(stages), extra: int32(len(w.B)), dense: int32(len(w.Dense)), end: int32(w.End),
		params: int32(f.params.cols), sum: p.sum, sheet: p.sheet, places: p.places, coef: p.coef,
	}
	var g driver.Ptr
	if w.Theta != nil {
		g = f.operand(w.Theta, 1, f.params.cols)
		blocks = min(blocks, max(1, partialLimit/(int64(a.params)*sizeOf[T]())))
	}
	a.run = int32(ceilDiv(int64(rows), blocks))
	blocks = ceilDiv(int64(rows), int64(a.run))
	if w.Stages {
		a.kept = 1
	}
	if w.Begin {
		a.begins = 1
	}
	if w.Cotangents != nil {
		out := b.vec(w.Cotangents)
		a.cotangents, a.outputs = out.ptr, c.outputs(out, b.vec(w.Lambda))
	}
	var ok bool
	if a.method, ok = f.setMethod(w, &a); !ok {
		return true
	}
	words, size, ok := b.flags(w.Skip)
	if !ok {
		return true
	}
	defer b.release(words, size)
	a.skip = words
	// Scratch memory: the blocks' parts of g, and their states.
	var parts, states int64
	if g != 0 {
		parts = padded(blocks * int64(a.params) * sizeOf[T]())
	}
	if p.sheet < 0 {
		states = padded(blocks * int64(3+stages) * int64(p.rows) * int64(f.dim) * sizeOf[T]())
	}
	if parts+states > 0 {
		scratch, ok := f.reserve(parts + states)
		if !ok {
			return true
		}
		if parts > 0 {
			a.partial = scratch.take(parts)
		}
		if states > 0 {
			a.states = scratch.take(states)
		}
	}
	launchTiles(f, p, blocks, &a)
	if g != 0 {
		launch(b, p.family, "fused_adjoint_reduce", ceilDiv(int64(a.params), 32), 0, &partsArgs{
			g: g, partial: a.partial, params: a.params, parts: int32(blocks), begins: a.begins,
		})
	}
	return true
}

// reversePlan is how a batch goes back, nil if that does not fit: with many places a block
// once they fill the device.
func (f *bound[T]) reversePlan(rows, stages int) (*tiling, error) {
	if f.narrow.vjp.small == nil { // a wide net
		return nil, nil
	}
	for _, tile := range []int{64, 32} {
		if tile == 64 && rows < 64*f.sms {
			continue
		}
		shape := walkShape{tile, stages, rows <= tile*f.sms}
		p, ok := f.walked.plans[shape]
		if !ok {
			var table []narrowLayer
			p, table = f.plan(verb{family: "fused_adjoint", trace: true, weights: 1, stages: stages, alone: shape.alone}, tile)
			if p != nil {
				size := int64(len(table)) * int64(unsafe.Sizeof(narrowLayer{}))
				at, err := f.b.alloc(size)
				if err != nil {
					return nil, err
				}
				f.b.d.CopyHD(at, unsafe.Pointer(&table[0]), size)
				f.walked.layers = append(f.walked.layers, carve{at, at + driver.Ptr(size)})
				p.net.layer = at
			}
			if f.walked.plans == nil {
				f.walked.plans = map[walkShape]*tiling{}
			}
			f.walked.plans[shape] = p
		}
		if p != nil {
			return p, nil
		}
	}
	return nil, nil
}

// setMethod copies the coefficients of a walk to the device, unless they are there.
func (f *bound[T]) setMethod(w *backend.Walk[T], a *reverseArgs) (driver.Ptr, bool) {
	n := len(w.A)
	m := make([]float64, n*n, n*(n+2))
	for i, row := range w.A {
		copy(m[i*n:(i+1)*n], row)
		for j, v := range row {
			if v != 0 {
				a.read = max(a.read, int32(j)+1)
			}
		}
	}
	m = append(append(m, w.C...), w.B...)
	a.powers = int32(degree(w.Dense))
	for _, p := range w.Dense {
		m = append(append(m, p...), make([]float64, int(a.powers)-len(p))...)
	}
	if o := &f.walked; !slices.Equal(m, o.method) {
		f.freeMethod()
		size := 8 * int64(len(m))
		p, ok := f.b.room(size)
		if !ok {
			return 0, false
		}
		f.b.d.CopyHD(p, unsafe.Pointer(&m[0]), size)
		o.coef, o.method = p, m
	}
	f.b.pool.use(f.walked.coef)
	return f.walked.coef, true
}

func (f *bound[T]) freeMethod() {
	f.b.release(f.walked.coef, 8*int64(len(f.walked.method)))
	f.walked.coef, f.walked.method = 0, nil
}

// freeWalked releases what walks back left.
func (f *bound[T]) freeWalked() {
	f.freeMethod()
	for _, x := range f.walked.layers {
		f.b.release(x.next, int64(x.end-x.next))
	}
	f.walked.layers, f.walked.plans = nil, nil
}
