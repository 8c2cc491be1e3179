//go:build cuda && cgo && linux && amd64

package gpu

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var _ backend.Fuser[float32] = (*Backend[float32])(nil)

// fusedArgs is FusedArgs in kernels/fused.cuh.
type fusedArgs struct {
	clk  clockView
	tape tapeView
	control
	net                                           narrowNet
	method, y, first, table, sheets, work         driver.Ptr
	rel, abs                                      float64
	limit                                         int64
	stages, extra, powers, fsal, second, order    int32
	everywhere, hand, outputs                     int32
	room, resume, span                            int32
	tableAt, spanAt, coefAt, xAt, biasAt, sheetAt int32
	keep                                          [maxKeep]int8
}

// fusedProgress is FusedProgress in kernels/fused.cuh, and fusedWork the size of
// FusedWork for so many blocks.
type fusedProgress struct {
	progress
	places int64 // evaluations that there was place for
}

func fusedWork(blocks int64) int64 {
	const size = int64(unsafe.Sizeof(fusedProgress{}))
	return 8 + size + blocks*size
}

// fusedStatic bounds the shared memory of the kernels of kernels/fused_solve.cu beside
// what the launch asks for.
const fusedStatic = 1024

// fused makes solves of one kind by the kernel of kernels/fused_solve.cu.
type fused[T backend.Float] struct {
	p      backend.Fusible[T]
	b      *Backend[T]
	f      *bound[T]
	args   fusedArgs // but for the addresses of a call
	tile   int       // samples of a block
	shared int64     // bytes of a block, but for the span's arrays
	blocks int64
	mem    []arena
	opened bool
	limit  int64 // evaluations of a block in one launch, if the solve can be cancelled
	places int64 // evaluations that there was place for in the last solve
}

// unfused says why a solve is not made at once.
func unfused(format string, args ...any) error {
	return fmt.Errorf("gpu: a solve in one launch: %w: "+format, append([]any{backend.ErrUnsupported}, args...)...)
}

// Fuse prepares solves in one launch, of an MLP whose layers have at most 128 units.
//
// FuseAuto declines where weights do not stay in shared memory and the batch is larger
// than what the device has places for at a time: a block then reads all weights again for
// every 32 samples, where the kernels that run layer by layer or evaluation by evaluation
// read them for 64 or 128. Everywhere else one launch is faster: the state of a step, which
// step by step goes through device memory for every stage, stays on chip, nothing is
// launched in vain, and no sample waits for another.
func (b *Backend[T]) Fuse(p backend.Fusible[T]) (backend.Fused[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	f, ok := p.Field.(*bound[T])
	if !ok || f.b != b {
		return nil, unfused("the right-hand side is of another kind")
	}
	c, y := b.clock(p.Clock), b.vec(p.Y)
	if c.lanes != y.rows || y.blocks != 1 || y.cols != f.dim {
		return nil, unfused("it needs a lane for each row; use PerSample stepping")
	}
	for i, l := range f.layers {
		if l.in > maxWidth || l.out > maxWidth {
			return nil, unfused("layer %d has more than %d units", i, maxWidth)
		}
	}
	if len(p.K) > maxStages || len(p.Keep) > maxKeep {
		return nil, unfused("the method has more than %d stages", maxStages)
	}
	if len(p.B) == 1 && !p.Control.Fixed {
		return nil, unfused("a method of one stage has no step size control")
	}
	s := &fused[T]{p: p, b: b, f: f, limit: 1 << 14}
	if err := s.prepare(y.rows); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare lays out shared memory and allocates.
func (s *fused[T]) prepare(rows int) error {
	table, ok := s.plan(32)
	if !ok {
		return unfused("a tile of 32 samples needs more shared memory than a block can have, %d bytes", s.b.d.Info().MaxShared)
	}
	if rows >= 64*s.f.sms {
		small := *s
		if large, ok := s.plan(64); ok && s.args.sheetAt >= 0 && s.args.net.resident == 1 {
			table = large
		} else {
			*s = small
		}
	}
	limit := int64(s.b.d.Info().MaxShared)
	resident := int64(s.f.sms) * max(1, min(2, limit/(s.shared+fusedStatic)))
	s.blocks = max(1, min(ceilDiv(int64(rows), int64(s.tile)), resident))
	if s.p.Fusion == backend.FuseAuto && s.args.net.resident == 0 && int64(rows) > s.blocks*int64(s.tile) {
		return unfused("weights, which do not fit into shared memory, would be read too often; FuseAlways makes it nevertheless")
	}
	s.describe()
	var sheets int64
	if s.args.sheetAt < 0 {
		sheets = s.blocks * s.sheet() * sizeOf[T]()
	}
	method := bytesOf(s.method())
	layers := bytesOf(table)
	for _, m := range []struct {
		to   *driver.Ptr
		data []byte
		size int64
	}{
		{&s.args.method, method, int64(len(method))},
		{&s.args.net.layer, layers, int64(len(layers))},
		{&s.args.work, make([]byte, fusedWork(s.blocks)), fusedWork(s.blocks)},
		{&s.args.sheets, nil, sheets},
	} {
		if m.size == 0 {
			continue
		}
		ptr, err := s.b.alloc(m.size)
		if err != nil {
			return fmt.Errorf("gpu: a solve in one launch: %w", err)
		}
		*m.to = ptr
		s.mem = append(s.mem, arena{ptr, m.size})
		if m.data != nil {
			s.b.d.CopyHD(ptr, unsafe.Pointer(&m.data[0]), m.size)
		}
	}
	return nil
}

// sheet is the number of elements of a block's states and stages.
func (s *fused[T]) sheet() int64 { return int64(2+len(s.p.K)) * int64(s.tile) * int64(s.f.dim) }

// powers is the degree of the interpolant, 0 without outputs.
func (s *fused[T]) powers() (n int) {
	if s.p.Table != nil {
		for _, p := range s.p.Dense {
			n = max(n, len(p))
		}
	}
	return n
}

// method is Table in kernels/fused.cuh.
func (s *fused[T]) method() (t []float64) {
	n := len(s.p.K)
	row := func(x []float64, n int) {
		t = append(t, x...)
		t = append(t, make([]float64, n-len(x))...)
	}
	for i := range n {
		row(s.p.A[i], n)
	}
	row([]float64{1}, n)
	row(s.p.B, n)
	row(s.p.C[:n], n)
	row([]float64{1}, 1)
	if s.p.Control.Fixed {
		row(nil, 2*n)
	} else {
		row(s.p.E, n)
		row(s.p.E2, n)
	}
	powers := s.powers()
	for i := range n {
		if i < len(s.p.Dense) && powers > 0 {
			row(s.p.Dense[i], powers)
		} else {
			row(nil, powers)
		}
	}
	return t
}

// plan lays out shared memory for tiles of so many samples: with the weights and the
// states there if they fit, for two blocks of a multiprocessor or at least for one, else
// with the weights, else with the states.
func (s *fused[T]) plan(tile int) ([]narrowLayer, bool) {
	f, n, size := s.f, int64(len(s.p.K)), sizeOf[T]()
	s.tile = tile
	limit := int64(s.b.d.Info().MaxShared) - fusedStatic
	for _, try := range []struct {
		resident, sheet bool
		most            int64
	}{{true, true, limit/2 - fusedStatic}, {true, true, limit}, {true, false, limit}, {false, true, limit}, {false, false, limit}} {
		a := &s.args
		a.net = narrowNet{layers: int32(len(f.layers)), dim: int32(f.dim), cube: f.cube}
		next := int64(0) // elements
		take := func(bytes int64) int32 {
			at := next
			next += (bytes + 15) &^ 15 / size
			return int32(at)
		}
		const place = 8*numReals + 8*numWides + 56 + 4*numWords + 16
		take(int64(tile)*(place+size) + int64(unsafe.Sizeof(spanView{})))
		a.tableAt = take(8 * ((n+4+int64(s.powers()))*n + n + 1))
		a.coefAt = take(int64(tile) * n * size)
		var widest, buffer int32
		for _, l := range f.layers {
			widest = max(widest, rowStride[T](l.in), rowStride[T](l.out))
			buffer = max(buffer, round4(l.out)*slabTerms[T]())
		}
		a.xAt = take(int64(tile) * int64(widest) * size)
		a.biasAt = take(2 * maxWidth * size * int64(len(f.layers)))
		table := make([]narrowLayer, len(f.layers))
		for i, l := range f.layers {
			table[i] = narrowLayer{in: l.in, out: l.out, time: l.time, act: l.act, w: int32(l.w)}
			if try.resident {
				table[i].slab = take(slabElements[T](l) * size)
			}
		}
		if try.resident {
			a.net.resident = 1
		} else {
			a.net.slabSize = buffer
			a.net.slabs = take(2 * int64(buffer) * size)
		}
		a.sheetAt = -1
		if try.sheet {
			a.sheetAt = take(s.sheet() * size)
		}
		a.spanAt = int32(next)
		if s.shared = next * size; s.shared <= try.most {
			return table, true
		}
	}
	return nil, false
}

// describe fills in what stays the same from solve to solve.
func (s *fused[T]) describe() {
	p, a, b := &s.p, &s.args, s.b
	a.clk, a.control = b.clock(p.Clock).view, controlOf(p.Control)
	a.net.theta = s.f.params.ptr
	a.y, a.first = b.vec(p.Y).ptr, b.vec(p.K[0]).ptr
	a.rel, a.abs = p.Tol.Rel, p.Tol.Abs
	a.stages, a.extra = int32(len(p.B)), int32(len(p.K)-len(p.B))
	a.powers, a.order = int32(s.powers()), int32(p.Order)
	if p.FSAL {
		a.fsal = 1
	}
	if p.E2 != nil && !p.Control.Fixed {
		a.second = 1
	}
	if p.Extra == backend.Accepted {
		a.everywhere = 1
	}
	if a.hand = a.stages; p.FSAL { // the stage f(t1, y1)
		a.hand--
	}
	if p.Table != nil {
		a.table = b.vec(p.Table).ptr
	}
	for i, v := range p.Keep {
		ptr := b.vec(v).ptr
		for j, of := range append([]backend.Vec[T]{p.Y, p.Trial}, p.K...) {
			if b.vec(of).ptr == ptr {
				a.keep[i] = int8(j)
			}
		}
	}
}

// Close releases what Fuse allocated.
func (s *fused[T]) Close() {
	for _, m := range s.mem {
		s.b.release(m.ptr, m.size)
	}
	s.mem = nil
}

// open lets the kernel have its shared memory.
func (s *fused[T]) open() (name string, err error) {
	name = fmt.Sprintf("fused_solve_tile%d", s.tile)
	if s.opened {
		return name, nil
	}
	fn, err := s.b.function("fused_solve", name)
	if err == nil {
		err = fn.SetMaxDynamicShared(s.b.d.Info().MaxShared - fusedStatic)
	}
	s.opened = err == nil
	return name, err
}

// fusedCall is a solve that is about to be launched.
type fusedCall[T backend.Float] struct {
	args   fusedArgs
	name   string // of the kernel
	shared int64
	tape   *tape[T] // or nil
}

// start sends the spans, and says what to launch. It reports false if it latched an error.
func (s *fused[T]) start(tp backend.Tape[T], cancelled bool, spans []backend.Span) (x fusedCall[T], ok bool) {
	b := s.b
	if !b.live() || !s.f.open() {
		return x, false
	}
	c := b.clock(s.p.Clock)
	if !c.send(spans) {
		return x, false
	}
	x.args, x.shared = s.args, s.shared
	a := &x.args
	for _, m := range s.mem {
		b.pool.use(m.ptr)
	}
	if s.p.Table != nil {
		a.outputs = c.outputs(b.vec(s.p.Table), b.vec(s.p.Y))
	}
	if cancelled {
		a.limit = s.limit
	}
	const most = 1 << 10 // doubles of a span in shared memory
	if n := 2*len(spans[0].Stops) + len(spans[0].Saves); !c.own && n <= most &&
		x.shared+8*int64(n) <= int64(b.d.Info().MaxShared)-fusedStatic {
		a.span = int32(n)
		x.shared += 8 * int64(n)
	}
	var err error
	if x.name, err = s.open(); err == nil && tp != nil {
		x.tape = b.tape(tp)
		a.tape = x.tape.view
		if len(x.tape.chunks) == 0 {
			err = x.tape.grow(1)
		}
		b.hosted(func(int) {
			c.tape = x.tape
			x.tape.first, x.tape.window.count = nil, 0
		})
	}
	if err != nil {
		b.fail(err)
	}
	return x, err == nil
}

// launch enqueues x, with the room that the tape has.
func (s *fused[T]) launch(x *fusedCall[T]) {
	if x.tape != nil {
		x.args.room = int32(len(x.tape.chunks)) * x.tape.view.per
	}
	launch(s.b, "fused_solve", x.name, s.blocks, x.shared, &x.args)
}

// Enqueue starts the clock and solves, in one launch.
func (s *fused[T]) Enqueue(tp backend.Tape[T], spans ...backend.Span) {
	if x, ok := s.start(tp, true, spans); ok {
		s.launch(&x)
	}
}

// Solve starts the clock and solves. A launch is followed by another where the tape has
// no more room, which it has if the solve before took as many steps, and where ctx can
// end: blocks then stop after a number of evaluations that takes a fraction of a second.
func (s *fused[T]) Solve(ctx context.Context, tp backend.Tape[T], spans ...backend.Span) (backend.Progress, error) {
	b := s.b
	if err := b.takeErr(); err != nil {
		return backend.Progress{}, err
	}
	x, ok := s.start(tp, ctx.Done() != nil, spans)
	if !ok {
		return backend.Progress{}, b.takeErr()
	}
	t := x.tape
	for s.places = 0; ; x.args.resume = 1 {
		s.launch(&x)
		status, err := b.fetch(x.args.work+8, int64(unsafe.Sizeof(fusedProgress{})))
		if err != nil {
			return backend.Progress{}, err
		}
		p := *(*fusedProgress)(status)
		s.places += p.places
		if t != nil {
			t.bound = int(p.tape)
		}
		if p.running == 0 || ctx.Err() != nil {
			return p.public(), nil
		}
		if room := int(x.args.room); t != nil && t.bound >= room {
			if err := t.grow(2 * room); err != nil && len(t.chunks)*int(t.view.per) == room {
				return backend.Progress{}, err
			}
		}
	}
}
