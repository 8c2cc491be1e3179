package adjoint

import (
	"context"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
)

// checkpoints limits the memory of a recording. The attempts of a solve are cut into
// segments of equal length; a tape holds the steps of one of them, and checkpoints,
// from which a segment can be made again, bit for bit, stand at the beginnings of
// some. They are placed while the number of segments is not known yet, by the dynamic
// algorithm of Wang, Moin & Iaccarino 2009, Minimal repetition dynamic checkpointing
// algorithm for unsteady adjoint calculation, SIAM J. Sci. Comput. 31(4), algorithm 1:
// with s of them no segment of binom(s+r, s) is made more than r times again.
type checkpoints[T backend.Float] struct {
	budget int64 // bytes on the device
	host   int64 // and in the host's memory, for more checkpoints

	base   int64 // bytes of an empty tape
	tape   int64 // and of the room on it
	length int   // attempts of a segment
	slots  int   // checkpoints that there is room for on the device
	more   int   // and in the host's memory
	hosted int   // checkpoints made there
	size   int64
	placed []*checkpoint[T] // by ascending segment; the first is the solve's start
	spare  []*checkpoint[T]
	last   int // the segment on the tape
	ended  int // attempts of the whole solve
}

// checkpoint is the state of a solve at the beginning of a segment.
type checkpoint[T backend.Float] struct {
	segment int
	level   int

	// The lanes, the state and its first stage: on the device,
	clk  backend.Clock
	y, k backend.Vec[T]
	// or in the host's memory.
	lanes        []byte
	hostY, hostK []T
}

func (c *checkpoints[T]) free(dev backend.Backend[T]) {
	if c == nil {
		return
	}
	for _, p := range append(c.placed, c.spare...) {
		p.free(dev)
	}
	c.placed, c.spare, c.slots, c.hosted = nil, nil, 0, 0
}

func (p *checkpoint[T]) free(dev backend.Backend[T]) {
	if p.clk == nil {
		return // the host's
	}
	p.clk.Close()
	dev.Free(p.y)
	dev.Free(p.k)
}

func newCheckpoint[T backend.Float](l *step.Loop[T]) (*checkpoint[T], error) {
	p := &checkpoint[T]{}
	var err error
	if p.clk, err = l.Backend.NewClock(l.Lanes); err != nil {
		return nil, err
	}
	if p.y, err = l.Backend.NewVec(l.Blocks, l.Rows, l.Cols); err == nil {
		p.k, err = l.Backend.NewVec(l.Blocks, l.Rows, l.Cols)
	}
	if err != nil {
		p.free(l.Backend)
		return nil, err
	}
	return p, nil
}

// hostSize is the number of bytes of a checkpoint in the host's memory.
func hostSize[T backend.Float](l *step.Loop[T]) int64 {
	var x T
	return int64(l.Backend.(backend.Reverser[T]).ClockSize(l.Clock)) + 2*int64(unsafe.Sizeof(x))*int64(l.Blocks*l.Rows*l.Cols)
}

// save keeps where the loop is.
func (p *checkpoint[T]) save(l *step.Loop[T]) error {
	dev := l.Backend.(backend.Reverser[T])
	if p.clk == nil {
		if err := dev.ReadClock(p.lanes, l.Clock); err != nil {
			return err
		}
		if err := dev.Download(p.hostY, l.Y.Vec); err != nil {
			return err
		}
		return dev.Download(p.hostK, l.K[0].Vec)
	}
	dev.CopyClock(p.clk, l.Clock)
	dev.Copy(p.y, l.Y.Vec)
	dev.Copy(p.k, l.K[0].Vec)
	return nil
}

// load puts the loop there.
func (p *checkpoint[T]) load(l *step.Loop[T]) {
	dev := l.Backend.(backend.Reverser[T])
	if p.clk == nil {
		dev.WriteClock(l.Clock, p.lanes)
		dev.Upload(l.Y.Vec, p.hostY)
		dev.Upload(l.K[0].Vec, p.hostK)
		return
	}
	dev.CopyClock(l.Clock, p.clk)
	dev.Copy(l.Y.Vec, p.y)
	dev.Copy(l.K[0].Vec, p.k)
}

// plan divides the budget between the tape and the checkpoints of a loop.
func (c *checkpoints[T]) plan(l *step.Loop[T]) error {
	dev := l.Backend.(backend.Reverser[T])
	if c.slots > 0 {
		return nil
	}
	grown := func(do func() error) (int64, error) {
		before := dev.MemoryUsed()
		err := do()
		return dev.MemoryUsed() - before, err
	}
	var first *checkpoint[T]
	var err error
	if c.size, err = grown(func() (err error) { first, err = newCheckpoint(l); return err }); err != nil {
		return err
	}
	c.spare = append(c.spare, first)
	one, err := grown(func() error { return dev.Reserve(l.Tape, 1) })
	if err != nil {
		return err
	}
	if c.base+c.size+one > c.budget {
		return fmt.Errorf("Settings.Budget is %d bytes, and one checkpoint with the tape of one step takes %d: give at least that", c.budget, c.base+c.size+one)
	}
	budget := c.budget - c.base
	// Half for each: the number of steps that a given effort reaches is about that of
	// the tape times a power of that of the checkpoints.
	const longest = 1 << 16
	tape := one
	c.length = int(min(max((budget-c.size)/2/one, 1), longest))
	for c.length > 1 {
		more, err := grown(func() error { return dev.Reserve(l.Tape, c.length) })
		if err != nil {
			return err
		}
		if tape += more; tape <= (budget-c.size+1)/2 {
			break
		}
		c.length /= 2
		if c.length == 1 {
			if err := dev.Reserve(l.Tape, 1); err != nil {
				return err
			}
			tape = one
		}
	}
	c.tape = tape
	c.slots = int(min((budget-tape)/c.size, math.MaxInt32))
	c.more = int(min(c.host/hostSize(l), math.MaxInt32))
	return nil
}

// run integrates over spans, with the last segment on the tape.
func (c *checkpoints[T]) run(ctx context.Context, l *step.Loop[T], spans []backend.Span) error {
	if c == nil {
		_, err := l.Run(ctx, spans...)
		return err
	}
	before := l.Backend.MemoryUsed()
	if err := l.Start(ctx, spans...); err != nil {
		return err
	}
	if c.slots == 0 {
		c.base = l.Backend.MemoryUsed() - before
	}
	if err := c.plan(l); err != nil {
		return err
	}
	c.spare, c.placed = append(c.spare, c.placed...), nil
	for c.last = 0; ; c.last++ {
		running, err := c.segment(ctx, l, c.last, 0)
		if err != nil {
			return err
		}
		if !running || ctx.Err() != nil {
			break
		}
	}
	c.ended = l.Attempts
	return nil
}

// segment makes segment q, at whose beginning the loop is, and places a checkpoint
// there; those before the base-th stay.
func (c *checkpoints[T]) segment(ctx context.Context, l *step.Loop[T], q, base int) (running bool, err error) {
	dev := l.Backend.(backend.Reverser[T])
	if err := c.place(l, q, base); err != nil {
		return false, err
	}
	dev.Reset(l.Tape)
	p, err := l.Continue(ctx, (q+1)*c.length)
	return p.Running > 0, err
}

// bytes is what is held of steps on the device.
func (c *checkpoints[T]) bytes() int64 {
	return c.base + c.tape + int64(len(c.placed)+len(c.spare)-c.hosted)*c.size
}

// place makes a checkpoint of where the loop is, unless others are worth more.
func (c *checkpoints[T]) place(l *step.Loop[T], q, base int) error {
	level := 0
	if n := len(c.placed); n == c.slots+c.more {
		drop := c.dispensable(base)
		if drop < 0 {
			if n-1 <= base { // nothing but the base
				return nil
			}
			drop, level = n-1, c.placed[n-1].level+1
		}
		c.drop(drop)
	}
	p, err := c.take(l)
	if err != nil {
		return err
	}
	p.segment, p.level = q, level
	c.placed = append(c.placed, p)
	return p.save(l)
}

// take returns a checkpoint that is not in use, one on the device if there is room.
func (c *checkpoints[T]) take(l *step.Loop[T]) (*checkpoint[T], error) {
	onDevice := func(p *checkpoint[T]) bool { return p.clk != nil }
	i := slices.IndexFunc(c.spare, onDevice)
	if made := len(c.placed) + len(c.spare) - c.hosted; i < 0 && made < c.slots {
		return newCheckpoint(l)
	}
	if i < 0 && len(c.spare) == 0 {
		n := l.Blocks * l.Rows * l.Cols
		c.hosted++
		return &checkpoint[T]{
			lanes: make([]byte, l.Backend.(backend.Reverser[T]).ClockSize(l.Clock)), hostY: make([]T, n), hostK: make([]T, n),
		}, nil
	}
	i = max(i, 0)
	p := c.spare[i]
	c.spare = slices.Delete(c.spare, i, i+1)
	return p, nil
}

// dispensable is a checkpoint after the base with one of a higher level behind it.
func (c *checkpoints[T]) dispensable(base int) int {
	highest := -1
	for i := len(c.placed) - 1; i > base; i-- {
		if c.placed[i].level < highest {
			return i
		}
		highest = max(highest, c.placed[i].level)
	}
	return -1
}

func (c *checkpoints[T]) drop(i int) {
	c.spare = append(c.spare, c.placed[i])
	c.placed = append(c.placed[:i], c.placed[i+1:]...)
}

// back puts segment q on the tape, which has a later one, and returns the number of
// the last attempt in it. It calls count with -1 before it evaluates anything, and
// with 1 after that.
func (c *checkpoints[T]) back(ctx context.Context, l *step.Loop[T], q int, count func(sign int64) error) (attempts int, err error) {
	if q == c.last {
		return c.ended, nil
	}
	for c.placed[len(c.placed)-1].segment > q {
		c.drop(len(c.placed) - 1)
	}
	dev, base := l.Backend.(backend.Reverser[T]), len(c.placed)-1
	p := c.placed[base]
	p.load(l)
	l.Attempts = p.segment * c.length
	if err := count(-1); err != nil {
		return 0, err
	}
	for i := p.segment; i <= q; i++ {
		if i == p.segment {
			dev.Reset(l.Tape)
			_, err = l.Continue(ctx, (i+1)*c.length)
		} else {
			_, err = c.segment(ctx, l, i, base)
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return 0, err
		}
	}
	c.last = q // what the tape has
	return (q + 1) * c.length, count(1)
}
