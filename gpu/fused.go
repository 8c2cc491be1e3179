//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

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

// fusedStatic bounds the shared memory of the kernels of kernels/fused_solve.cu beside
// what the launch asks for.
const fusedStatic = 1024

// fusedNet makes solves of one kind by the kernel of kernels/fused_solve.cu.
type fusedNet[T backend.Float] struct {
	fused[T]
	f      *bound[T]
	args   fusedArgs // but for the addresses of a call
	tile   int       // samples of a block
	shared int64     // bytes of a block, but for the span's arrays
	opened bool
}

// fuseNet prepares solves of a narrow net.
func fuseNet[T backend.Float](f *bound[T], p backend.Fusible[T], rows int) (backend.Fused[T], error) {
	if f.tensor {
		return nil, unfused("the network's layers run on tensor cores, one by one; leave Options.Precision out")
	}
	for i, l := range f.layers {
		if l.in > maxWidth || l.out > maxWidth {
			return nil, unfused("layer %d has more than %d units", i, maxWidth)
		}
	}
	const evaluations = 1 << 14
	s := &fusedNet[T]{fused: fused[T]{p: p, b: f.b, limit: evaluations}, f: f}
	if err := s.prepare(rows); err != nil {
		s.Close()
		return nil, err
	}
	s.launcher, s.field = s.ready, f
	return s, nil
}

// prepare lays out shared memory and allocates.
func (s *fusedNet[T]) prepare(rows int) error {
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
	if err := s.share(); err != nil {
		return err
	}
	s.args.work = s.work
	var err error
	if s.args.method, err = s.hold(bytesOf(s.method())); err != nil {
		return err
	}
	if s.args.net.layer, err = s.hold(bytesOf(table)); err != nil {
		return err
	}
	if s.args.sheetAt < 0 {
		s.args.sheets, err = s.reserve(s.blocks * s.sheet() * sizeOf[T]())
	}
	return err
}

// sheet is the number of elements of a block's states and stages.
func (s *fusedNet[T]) sheet() int64 { return int64(2+len(s.p.K)) * int64(s.tile) * int64(s.f.dim) }

// plan lays out shared memory for tiles of so many samples: with the weights and the
// states there if they fit, for two blocks of a multiprocessor or at least for one, else
// with the weights, else with the states.
func (s *fusedNet[T]) plan(tile int) ([]narrowLayer, bool) {
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
func (s *fusedNet[T]) describe() {
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
	if s.second() {
		a.second = 1
	}
	if p.Extra == backend.Accepted {
		a.everywhere = 1
	}
	a.hand = int32(s.handed())
	if p.Table != nil {
		a.table = b.vec(p.Table).ptr
	}
	for i := range p.Keep {
		a.keep[i] = int8(s.kept(i))
	}
}

// open lets the kernel have its shared memory.
func (s *fusedNet[T]) open() (name string, err error) {
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

// ready returns what enqueues a launch of solves over spans.
func (s *fusedNet[T]) ready(spans []backend.Span) (func(turn), error) {
	b := s.b
	name, err := s.open()
	if err != nil {
		return nil, err
	}
	a, shared := s.args, s.shared
	const most = 1 << 10 // doubles of a span in shared memory
	if n := 2*len(spans[0].Stops) + len(spans[0].Saves); len(spans) == 1 && n <= most &&
		shared+8*int64(n) <= int64(b.d.Info().MaxShared)-fusedStatic {
		a.span = int32(n)
		shared += 8 * int64(n)
	}
	return func(t turn) {
		a.tape, a.limit, a.outputs, a.room, a.resume = t.tape, t.limit, t.outputs, t.room, t.resume
		launch(b, "fused_solve", name, s.blocks, shared, &a)
	}, nil
}
