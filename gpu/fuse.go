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

// fusedProgress is FusedProgress in kernels/queue.cuh.
type fusedProgress struct {
	progress
	places int64 // evaluations that there was place for
}

// fused is what solves of one kind in one launch share.
type fused[T backend.Float] struct {
	p      backend.Fusible[T]
	b      *Backend[T]
	blocks int64
	work   driver.Ptr // FusedWork in kernels/queue.cuh
	mem    []arena
	limit  int64 // of what a block does in one launch, if the solve can be cancelled
	places int64 // evaluations that there was place for in the last solve

	field    interface{ open() bool }
	launcher func(spans []backend.Span) (func(turn), error) // what enqueues a launch
}

// unfused says why a solve is not made at once.
func unfused(format string, args ...any) error {
	return fmt.Errorf("gpu: a solve in one launch: %w: "+format, append([]any{backend.ErrUnsupported}, args...)...)
}

// Fuse prepares solves in one launch: of an MLP whose layers have at most 128 units, and
// of a right-hand side that was compiled when it was bound, for which Fuse compiles a
// kernel with the method's coefficients as constants.
//
// Of an MLP, FuseAuto declines where weights do not stay in shared memory and the batch is
// larger than what the device has places for at a time: a block then reads all weights
// again for every 32 samples, where the kernels that run layer by layer or evaluation by
// evaluation read them for 64 or 128. Of a compiled right-hand side it declines where a
// sample's state and stages are more than 4 KiB, far more than the registers of the thread
// that has them. Everywhere else one launch is faster: the state of a step, which step by
// step goes through device memory for every stage, stays on chip, nothing is launched in
// vain, and no sample waits for another.
func (b *Backend[T]) Fuse(p backend.Fusible[T]) (backend.Fused[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	c, y := b.clock(p.Clock), b.vec(p.Y)
	if c.lanes != y.rows || y.blocks != 1 || y.cols != p.Field.Dim() {
		return nil, unfused("it needs a lane for each row; use PerSample stepping")
	}
	if len(p.K) > maxStages || len(p.Keep) > maxKeep {
		return nil, unfused("the method has more than %d stages", maxStages)
	}
	if len(p.B) == 1 && !p.Control.Fixed {
		return nil, unfused("a method of one stage has no step size control")
	}
	switch f := p.Field.(type) {
	case *bound[T]:
		if f.b == b {
			return fuseNet(f, p, y.rows)
		}
	case *sourced[T]:
		if f.b == b {
			return fuseEnsemble(f, p, y.rows)
		}
	}
	return nil, unfused("the right-hand side is of another kind")
}

// reserve allocates n bytes until Close.
func (s *fused[T]) reserve(n int64) (driver.Ptr, error) {
	ptr, err := s.b.alloc(n)
	if err != nil {
		return 0, fmt.Errorf("gpu: a solve in one launch: %w", err)
	}
	s.mem = append(s.mem, arena{ptr, n})
	return ptr, nil
}

// hold is reserve for data, which it copies.
func (s *fused[T]) hold(data []byte) (driver.Ptr, error) {
	n := int64(len(data))
	ptr, err := s.reserve(n)
	if err == nil {
		s.b.d.CopyHD(ptr, unsafe.Pointer(&data[0]), n)
	}
	return ptr, err
}

// share allocates what the blocks share the lanes out by.
func (s *fused[T]) share() (err error) {
	s.work, err = s.hold(make([]byte, 8+(1+s.blocks)*int64(unsafe.Sizeof(fusedProgress{}))))
	return err
}

// Close releases what Fuse allocated.
func (s *fused[T]) Close() {
	for _, m := range s.mem {
		s.b.release(m.ptr, m.size)
	}
	s.mem = nil
}

// powers is the degree of the interpolant, 0 without outputs.
func (s *fused[T]) powers() int {
	if s.p.Table == nil {
		return 0
	}
	return degree(s.p.Dense)
}

// degree is that of an interpolant whose weights have so many coefficients.
func degree(dense [][]float64) (n int) {
	for _, p := range dense {
		n = max(n, len(p))
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

// handed is the stage that may be the next step's first: the one at the end of the step.
func (s *fused[T]) handed() int {
	if s.p.FSAL {
		return len(s.p.B) - 1
	}
	return len(s.p.B)
}

// second says whether there is a second error estimate.
func (s *fused[T]) second() bool { return s.p.E2 != nil && !s.p.Control.Fixed }

// kept says which of state, state at the end of the step, and stages, in this order, the
// tape keeps at place i.
func (s *fused[T]) kept(i int) (which int) {
	for j, of := range append([]backend.Vec[T]{s.p.Y, s.p.Trial}, s.p.K...) {
		if s.b.vec(of).ptr == s.b.vec(s.p.Keep[i]).ptr {
			which = j
		}
	}
	return which
}

// turn is what a launch is told beside what stays the same from solve to solve.
type turn struct {
	tape                  tapeView // without counts: there is none
	limit                 int64    // after which lanes leave with their attempt; 0: none
	outputs, room, resume int32
}

// start sends the spans, and returns what enqueues a launch and what it is told. It reports
// false if it latched an error.
func (s *fused[T]) start(tp backend.Tape[T], cancelled bool, spans []backend.Span) (launch func(turn), a turn, t *tape[T], ok bool) {
	b := s.b
	if !b.live() || !s.field.open() {
		return nil, a, nil, false
	}
	c := b.clock(s.p.Clock)
	if !c.send(spans) {
		return nil, a, nil, false
	}
	for _, m := range s.mem {
		b.pool.use(m.ptr)
	}
	if s.p.Table != nil {
		a.outputs = c.outputs(b.vec(s.p.Table), b.vec(s.p.Y))
	}
	if cancelled {
		a.limit = s.limit
	}
	launch, err := s.launcher(spans)
	if err == nil && tp != nil {
		t = b.tape(tp)
		a.tape = t.view
		if len(t.chunks) == 0 {
			err = t.grow(1)
		}
		b.hosted(func(int) {
			c.tape = t
			t.first, t.window.count = nil, 0
		})
	}
	if err != nil {
		b.fail(err)
	}
	return launch, a, t, err == nil
}

// steps is the number of steps that a launch has room for.
func (t *tape[T]) steps() int32 {
	if t == nil {
		return 0
	}
	return int32(len(t.chunks)) * t.view.per
}

// Enqueue starts the clock and solves, in one launch.
func (s *fused[T]) Enqueue(tp backend.Tape[T], spans ...backend.Span) {
	if launch, a, t, ok := s.start(tp, true, spans); ok {
		a.room = t.steps()
		launch(a)
	}
}

// Solve starts the clock and solves. A launch is followed by another where the tape has
// no more room, which it has if the solve before took as many steps, and where ctx can
// end: blocks then stop after what takes a fraction of a second.
func (s *fused[T]) Solve(ctx context.Context, tp backend.Tape[T], spans ...backend.Span) (backend.Progress, error) {
	b := s.b
	if err := b.takeErr(); err != nil {
		return backend.Progress{}, err
	}
	launch, a, t, ok := s.start(tp, ctx.Done() != nil, spans)
	if !ok {
		return backend.Progress{}, b.takeErr()
	}
	for s.places = 0; ; a.resume = 1 {
		a.room = t.steps()
		launch(a)
		status, err := b.fetch(s.work+8, int64(unsafe.Sizeof(fusedProgress{})))
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
		if t != nil && t.bound >= int(a.room) {
			if err := t.grow(2 * int(a.room)); err != nil && t.steps() == a.room {
				return backend.Progress{}, err
			}
		}
	}
}
