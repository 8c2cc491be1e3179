//go:build cuda && cgo && linux && amd64

package gpu

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// The arrays of a clock that the host reads, and their numbers: kernels/clock.cuh.
const (
	realT, realH, realWant, realWorst = 0, 2, 8, 10
	realSmallest, realLast, numReals  = 13, 14, 20
	wideEvaluations, wideAccepted     = 0, 1
	wideRejected, numWides            = 2, 3
	wordStatus, wordRow, wordCol      = 1, 7, 8
	numWords                          = 9
)

// pollLanes is POLL_LANES in kernels/clock.cu.
const pollLanes = 16 * blockSize

// clockView is ClockView in kernels/clock.cuh.
type clockView struct {
	reals, wides, words, span driver.Ptr
	lanes, stride             int32
}

// spanView is SpanView in kernels/clock.cuh.
type spanView struct {
	t0, h0, maxStep             float64
	stops, saves, blocks, jumps driver.Ptr
	stopCount, saveCount        int32
	jumpT0, single              int32
	own                         driver.Ptr
	rel, abs                    float64
	row                         int64
}

// progress is Progress in kernels/progress.cuh.
type progress struct {
	accepted, rejected, attempts int64
	left, t                      float64
	running, failed              int32
	lane, tape                   int32
}

// clock is the stepping state of every lane. Its memory, which stays where it is,
// holds the span, the progress, its partial sums, reals, wides and words.
type clock[T backend.Float] struct {
	owner *Backend[T]
	lanes int
	view  clockView
	mem   driver.Ptr
	size  int64

	started    bool
	own        bool       // lanes have spans of their own
	progress   driver.Ptr // followed by the sums of Poll's blocks
	times      driver.Ptr // of the span
	timesCap   int64
	sent, next []byte     // what Start sent last, and sends
	partial    driver.Ptr // sums of chunks
	partialCap int64
	download   []uint64 // of reals, wides and words
	tape       *tape[T] // the one pushed to since Start
}

func (c *clock[T]) Lanes() int { return c.lanes }

// Close releases the clock.
func (c *clock[T]) Close() {
	b := c.owner
	b.release(c.mem, c.size)
	b.release(c.times, c.timesCap)
	b.release(c.partial, c.partialCap)
	c.mem, c.times, c.partial = 0, 0, 0
	c.timesCap, c.partialCap = 0, 0
}

// NewClock allocates a clock.
func (b *Backend[T]) NewClock(lanes int) (backend.Clock, error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if lanes < 1 {
		panic("gpu: a clock needs at least one lane")
	}
	const spanSize, progressSize = int64(unsafe.Sizeof(spanView{})), int64(unsafe.Sizeof(progress{}))
	stride := (int64(lanes) + 31) &^ 31
	head := spanSize + progressSize*(1+ceilDiv(int64(lanes), pollLanes))
	head = (head + 255) &^ 255
	size := head + stride*(8*numReals+8*numWides+4*numWords)
	mem, err := b.zeroed(size)
	if err != nil {
		return nil, err
	}
	c := &clock[T]{owner: b, lanes: lanes, mem: mem, size: size, progress: mem + driver.Ptr(spanSize)}
	at := mem + driver.Ptr(head)
	c.view = clockView{span: mem, reals: at, lanes: int32(lanes), stride: int32(stride)}
	c.view.wides = at + driver.Ptr(8*numReals*stride)
	c.view.words = c.view.wides + driver.Ptr(8*numWides*stride)
	return c, nil
}

func (b *Backend[T]) clock(c backend.Clock) *clock[T] {
	x, ok := c.(*clock[T])
	if !ok || x.owner != b {
		panic("gpu: clock of another backend")
	}
	b.pool.use(x.mem)
	return x
}

// fits checks that v has a row a lane.
func (c *clock[T]) fits(v *vec[T]) {
	if c.lanes != 1 && c.lanes != v.rows {
		panic("gpu: as many rows as lanes are needed")
	}
}

// selection is Rows in kernels/clock.cuh.
func selection(r backend.Rows) int32 {
	if r > backend.Fresh {
		panic("gpu: unknown selection of rows")
	}
	return int32(r)
}

// scratch returns device memory for the sums of chunks. It grows at the first call
// of a solve, if at all.
func (c *clock[T]) scratch(size int64) (driver.Ptr, bool) {
	if size > c.partialCap {
		c.owner.release(c.partial, c.partialCap)
		c.partial, c.partialCap = 0, 0
		p, ok := c.owner.room(size)
		if !ok {
			return 0, false
		}
		c.partial, c.partialCap = p, size
	}
	c.owner.pool.use(c.partial)
	return c.partial, true
}

// startArgs is StartArgs in kernels/clock.cu.
type startArgs struct{ clk clockView }

// Start sets every lane to the beginning of its span.
func (b *Backend[T]) Start(clk backend.Clock, spans ...backend.Span) {
	if !b.live() {
		return
	}
	if c := b.clock(clk); c.send(spans) {
		perLane(c, "clock_start", &startArgs{c.view})
	}
}

// send copies the spans to the device, if it has others. It reports false if there is no
// room for them.
func (c *clock[T]) send(spans []backend.Span) bool {
	b := c.owner
	if len(spans) != 1 && len(spans) != c.lanes {
		panic("gpu: Start needs one span, or one for each lane")
	}
	var count int64 // of doubles and of words, half a double each
	for i := range spans {
		s := &spans[i]
		if !s.Valid() {
			panic("gpu: Start with a span that is not valid")
		}
		count += 2*int64(len(s.Stops)) + int64(len(s.Saves))
	}
	b.hosted(func(int) { c.started, c.tape = true, nil })
	const viewSize = int64(unsafe.Sizeof(spanView{}))
	views := viewSize * int64(len(spans))
	size := views + 8*count
	if size > c.timesCap {
		b.release(c.times, c.timesCap)
		c.times, c.timesCap, c.sent = 0, 0, nil
		p, ok := b.room(size)
		if !ok {
			return false
		}
		c.times, c.timesCap = p, size
	}
	// The views, then the arrays of each.
	up := slices.Grow(c.next[:0], int(size))[:views]
	var first spanView
	for i := range spans {
		s := &spans[i]
		v := spanView{
			t0: s.T0, h0: s.H0, maxStep: s.MaxStep, stopCount: int32(len(s.Stops)), saveCount: int32(len(s.Saves)),
			rel: s.Tol.Rel, abs: s.Tol.Abs, row: int64(s.Row), jumpT0: jumpAt(s, s.T0),
		}
		if sizeOf[T]() == 4 {
			v.single = 1
		}
		here := func() driver.Ptr { return c.times + driver.Ptr(len(up)) }
		v.stops = here()
		up = append(up, bytesOf(s.Stops)...)
		v.saves = here()
		up = append(up, bytesOf(s.Saves)...)
		v.blocks = here()
		for j := range s.Stops {
			block := j
			if s.Blocks != nil {
				block = s.Blocks[j]
			}
			up = binary.NativeEndian.AppendUint32(up, uint32(int32(block)))
		}
		v.jumps = here()
		for _, t := range s.Stops {
			up = binary.NativeEndian.AppendUint32(up, uint32(jumpAt(s, t)))
		}
		copy(up[viewSize*int64(i):], bytesOf([]spanView{v}))
		if i == 0 {
			first = v
		}
	}
	c.next = up
	if c.own = len(spans) > 1; c.own {
		first.own = c.times
	} else {
		first.row = 0
	}
	b.pool.use(c.times)
	if !bytes.Equal(up, c.sent) { // which recorded calls keep to
		b.pool.moved(c.times)
		b.d.CopyHD(c.times, unsafe.Pointer(&up[0]), size)
		b.d.CopyHD(c.view.span, unsafe.Pointer(&first), viewSize)
		c.sent, c.next = up, c.sent
		if b.d.Failed() {
			c.sent = nil
		}
	}
	return true
}

// jumpAt is 1 if f jumps at t, else 0.
func jumpAt(s *backend.Span, t float64) int32 {
	if slices.Contains(s.Breaks, t) {
		return 1
	}
	return 0
}

// bytesOf is the memory of x.
func bytesOf[E any](x []E) []byte {
	var e E
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(e)))
}

// perLane launches a kernel of kernels/clock.cu whose threads own a lane each.
func perLane[T backend.Float, A any](c *clock[T], name string, args *A) {
	launch(c.owner, "clock", name, ceilDiv(int64(c.lanes), blockSize), 0, args)
}

func (c *clock[T]) checkStarted() {
	if !c.started {
		panic("gpu: Start comes before a step")
	}
}

var firstNorm = norm{"clock", "clock_norms", "clock_norms_chunks", "clock_norms_finish", 24}

// normsArgs is NormsArgs in kernels/clock.cu.
type normsArgs struct {
	clk        clockView
	x          extent
	y0, f0, f1 driver.Ptr
	rel, abs   float64
	partial    driver.Ptr
	plan
	_ int32
}

// proposeArgs is ProposeArgs in kernels/clock.cu.
type proposeArgs struct {
	clk           clockView
	order, second int32
}

// ProposeStep chooses the first step: Hairer, Nørsett & Wanner, Solving ODEs I,
// II.4, p. 169.
func (b *Backend[T]) ProposeStep(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	c.checkStarted()
	y, k0 := b.vec(y0), b.vec(f0)
	sameShape(y, k0)
	a := normsArgs{clk: c.view, x: c.extent(y), y0: y.ptr, f0: k0.ptr, rel: tol.Rel, abs: tol.Abs}
	p := proposeArgs{clk: c.view, order: int32(order)}
	if f1 != nil {
		k1 := b.vec(f1)
		sameShape(y, k1)
		a.f1, p.second = k1.ptr, 1
	}
	a.plan = planFor(a.x.n)
	reduceLanes(b, c, firstNorm, a.x, a.plan, &a.partial, &a)
	perLane(c, "clock_propose", &p)
}

// control is Control in kernels/lane.cuh.
type control struct {
	order                                 float64
	beta                                  [3]float64
	safety, minFactor, maxFactor, minStep float64
	maxAttempts                           int64
	fixed, handover                       int32
}

func controlOf(ctl backend.Control) control {
	c := control{
		order: ctl.Order, beta: ctl.Beta, safety: ctl.Safety,
		minFactor: ctl.MinFactor, maxFactor: ctl.MaxFactor, minStep: ctl.MinStep,
		maxAttempts: ctl.MaxAttempts, handover: int32(ctl.Handover),
	}
	if ctl.Fixed {
		c.fixed = 1
	}
	return c
}

// advanceArgs is AdvanceArgs in kernels/clock.cu.
type advanceArgs struct {
	clk clockView
	control
}

// Advance decides about every running lane's attempt.
func (b *Backend[T]) Advance(clk backend.Clock, ctl backend.Control) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	c.checkStarted()
	perLane(c, "clock_advance", &advanceArgs{c.view, controlOf(ctl)})
}

// pollArgs is PollArgs in kernels/clock.cu.
type pollArgs struct {
	clk                     clockView
	partial, progress, tape driver.Ptr
}

// Poll waits and tells how far the solve is.
func (b *Backend[T]) Poll(clk backend.Clock) (backend.Progress, error) {
	if err := b.takeErr(); err != nil {
		return backend.Progress{}, err
	}
	c := b.clock(clk)
	a := pollArgs{clk: c.view, progress: c.progress, partial: c.progress + driver.Ptr(unsafe.Sizeof(progress{}))}
	if c.tape != nil {
		a.tape = c.tape.longest
	}
	launch(b, "clock", "clock_poll", ceilDiv(int64(c.lanes), pollLanes), 0, &a)
	launch(b, "clock", "clock_poll_finish", 1, 0, &a)
	status, err := b.fetch(c.progress, int64(unsafe.Sizeof(progress{})))
	if err != nil {
		return backend.Progress{}, err
	}
	p := (*progress)(status)
	if c.tape != nil {
		c.tape.bound = int(p.tape)
	}
	return p.public(), nil
}

func (p *progress) public() backend.Progress {
	return backend.Progress{
		Running: int(p.running), Failed: int(p.failed),
		Accepted: p.accepted, Rejected: p.rejected, Attempts: p.attempts, T: p.t,
	}
}

// fetch waits for a few bytes from the device, in page-locked memory.
func (b *Backend[T]) fetch(src driver.Ptr, n int64) (unsafe.Pointer, error) {
	if b.status == nil {
		var err error
		if b.status, err = b.d.Pinned(256); err != nil {
			return nil, err
		}
	}
	b.d.FetchPinned(b.status, src, n)
	return unsafe.Pointer(&b.status.Bytes()[0]), b.d.Sync()
}

// Lanes fills dst with what each lane did.
func (b *Backend[T]) Lanes(clk backend.Clock, dst []backend.Lane) error {
	if err := b.takeErr(); err != nil {
		return err
	}
	c := b.clock(clk)
	if len(dst) != c.lanes {
		panic("gpu: one entry a lane is needed")
	}
	n := int(c.view.stride)
	if c.download == nil {
		c.download = make([]uint64, n*(numReals+numWides)+n*numWords/2)
	}
	if err := b.d.CopyDH(unsafe.Pointer(&c.download[0]), c.view.reals, int64(8*len(c.download))); err != nil {
		return err
	}
	reals := arrays[float64](c.download, n)
	wides := arrays[int64](c.download[n*numReals:], n)
	words := arrays[int32](c.download[n*(numReals+numWides):], n)
	for i := range dst {
		l := &dst[i]
		*l = backend.Lane{
			Status: backend.Status(words(wordStatus)[i]), T: reals(realT)[i], H: reals(realH)[i],
			Evaluations: wides(wideEvaluations)[i], Accepted: wides(wideAccepted)[i], Rejected: wides(wideRejected)[i],
			SmallestH: reals(realSmallest)[i], LastH: reals(realLast)[i], Next: reals(realWant)[i],
			Row: int(words(wordRow)[i]), Col: int(words(wordCol)[i]), Ratio: max(reals(realWorst)[i], 0),
		}
		if l.Accepted == 0 {
			l.SmallestH = 0
		}
	}
	return nil
}

// arrays reads memory as arrays of n elements.
func arrays[E any](mem []uint64, n int) func(which int) []E {
	p := (*E)(unsafe.Pointer(unsafe.SliceData(mem)))
	return func(which int) []E { return unsafe.Slice(p, (which+1)*n)[which*n:] }
}
