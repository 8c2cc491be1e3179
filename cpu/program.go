package cpu

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// op is a verb with its operands. It can be run again, and a unit of rows at a time.
type op[T backend.Float] interface {
	target() *on[T]
	// unit works on the rows of u, in every block.
	unit(w *worker[T], u unit)
}

// Where lanes decide something, an op has a part of its own for that: before any of
// their rows or after all of them. lo and hi are lanes.
type (
	beforer interface{ before(lo, hi int) }
	afterer interface{ after(lo, hi int) }
)

// preparer is an op that needs memory for so many workers and units.
type preparer interface{ prepare(workers, units int) }

// advancer is an op after which lanes may have nothing more to do. Once they have not,
// it can be left out with all that goes with it after it was done once more.
type advancer interface {
	beforer
	// alive reports whether any of the lanes has something to do.
	alive(lo, hi int) bool
}

// on is what an op works on.
type on[T backend.Float] struct {
	clk  *clock[T] // nil if no lane selects rows
	rows int       // -1: any number
	// work is about the number of operations that a row takes, and sums the number of
	// elements that every unit keeps a sum of.
	work, sums int
	block      int // rows that it makes the most of at a time
}

func (o *on[T]) target() *on[T] { return o }

// unit is a range of rows that goes through a program by itself. Units do not
// depend on the number of threads, and so no sum over rows does.
type unit struct{ i, lo, hi int }

const (
	unitRows = 64
	// maxSums bounds the memory for sums of units, in elements: there are fewer and
	// larger units where it would be more.
	maxSums = 1 << 25
)

// unitSize is the number of rows of a unit, a multiple of unitRows, for ops that take so
// many rows at a time and keep sums of so many elements.
func unitSize(rows, block, sums int) int {
	n := max(unitRows, block)
	if most := max(maxSums/max(sums, 1), 8); rows > n*most {
		n = (rows + most - 1) / most
		n = (n + unitRows - 1) / unitRows * unitRows
	}
	return n
}

// program is a sequence of ops on the same rows. A unit of rows goes through all of
// it, and where lanes are its rows through many runs of it, while its states are in the
// cache. With one lane for all rows, units wait for each other where the lane decides.
type program[T backend.Float] struct {
	b      *Backend[T]
	on     on[T]
	size   int // rows of a unit
	units  int
	ops    []op[T]
	phases []phase[T] // with one lane
	ends   advancer   // nil: there is always something to do
	ended  bool       // one lane for all rows has nothing more to do

	// Of the run under way, with several workers.
	workers, times int
	shares         func(id int) // share, made once
}

// phase is what units do without waiting, after what is done once.
type phase[T backend.Float] struct {
	once []decision
	ops  []op[T]
}

// decision is a part of an op that is done once.
type decision struct {
	before beforer
	after  afterer
}

func (d decision) do(lo, hi int) {
	if d.before != nil {
		d.before.before(lo, hi)
	} else {
		d.after.after(lo, hi)
	}
}

// reset makes p the program of ops, which must be on the same rows.
func (p *program[T]) reset(b *Backend[T], ops []op[T]) error {
	p.b, p.ops, p.on, p.ends = b, ops, on[T]{rows: -1}, nil
	for _, o := range ops {
		t := o.target()
		if p.on.rows < 0 {
			p.on.rows = t.rows // which may say nothing, too
		}
		if p.on.clk == nil {
			p.on.clk = t.clk
		}
		if t.rows >= 0 && p.on.rows != t.rows || t.clk != nil && t.clk != p.on.clk {
			return errors.New("cpu: verbs on different rows or clocks cannot be recorded together")
		}
		p.on.work += t.work
		p.on.sums, p.on.block = max(p.on.sums, t.sums), max(p.on.block, t.block)
		if a, ok := o.(advancer); ok {
			p.ends = a
		}
	}
	p.on.rows = max(p.on.rows, 0)
	p.size = unitSize(p.on.rows, p.on.block, p.on.sums)
	p.units = max((p.on.rows+p.size-1)/p.size, 1)
	p.phases = p.phases[:0]
	if !p.joint() {
		return nil
	}
	ph := p.next()
	for _, o := range ops {
		if x, ok := o.(beforer); ok {
			ph = p.wait(ph)
			ph.once = append(ph.once, decision{before: x})
		}
		ph.ops = append(ph.ops, o)
		if x, ok := o.(afterer); ok {
			ph = p.wait(ph)
			ph.once = append(ph.once, decision{after: x})
		}
	}
	return nil
}

// wait returns the phase in which something can be done once, after ph.
func (p *program[T]) wait(ph *phase[T]) *phase[T] {
	if len(ph.ops) == 0 {
		return ph
	}
	return p.next()
}

// next adds a phase, in the memory of one from before if there is any.
func (p *program[T]) next() *phase[T] {
	n := len(p.phases)
	if n < cap(p.phases) {
		p.phases = p.phases[:n+1]
	} else {
		p.phases = append(p.phases, phase[T]{})
	}
	ph := &p.phases[n]
	ph.once, ph.ops = ph.once[:0], ph.ops[:0]
	return ph
}

// joint reports whether one lane decides for all rows.
func (p *program[T]) joint() bool { return p.on.clk == nil || len(p.on.clk.lanes) == 1 }

func (p *program[T]) unit(i int) unit {
	return unit{i: i, lo: i * p.size, hi: min((i+1)*p.size, p.on.rows)}
}

// It pays to have more workers where so many operations are done between waits, and
// in all: waking a goroutine takes microseconds.
const (
	worthWaiting = 200_000
	worthWaking  = 1_000_000
)

// run runs the program so many times, or until there is nothing left to do.
func (p *program[T]) run(times int) {
	n := p.b.Threads()
	if work := p.on.work * p.on.rows; work < worthWaiting && p.joint() || work*times < worthWaking {
		n = 1
	}
	n = min(n, p.units)
	for len(p.b.workers) < n {
		p.b.workers = append(p.b.workers, &worker[T]{id: len(p.b.workers)})
	}
	for _, o := range p.ops {
		if x, ok := o.(preparer); ok {
			x.prepare(n, p.units)
		}
	}
	p.ended = false
	switch {
	case n > 1:
		p.workers, p.times = n, times
		if p.shares == nil {
			p.shares = p.share
		}
		p.b.crew.run(n, p.shares)
	case p.joint():
		p.jointly(p.b.workers[0], 1, nil, times)
	default:
		for i := range p.units {
			p.alone(p.b.workers[0], p.unit(i), times)
		}
	}
	if p.ended { // and nobody works on its last step any more
		p.ends.before(0, 1)
	}
}

// share is what worker id of several does.
func (p *program[T]) share(id int) {
	c := &p.b.crew
	if p.joint() {
		p.jointly(p.b.workers[id], p.workers, c, p.times)
		return
	}
	for i := c.next(); i < p.units; i = c.next() {
		p.alone(p.b.workers[id], p.unit(i), p.times)
	}
}

// alone takes a unit whose rows have lanes of their own through the program.
func (p *program[T]) alone(w *worker[T], u unit, times int) {
	for range times {
		if p.ends != nil && !p.ends.alive(u.lo, u.hi) {
			p.ends.before(u.lo, u.hi)
			return
		}
		for _, o := range p.ops {
			if x, ok := o.(beforer); ok {
				x.before(u.lo, u.hi)
			}
			o.unit(w, u)
			if x, ok := o.(afterer); ok {
				x.after(u.lo, u.hi)
			}
		}
	}
}

// jointly takes the share of one of n workers through the program, with one lane.
func (p *program[T]) jointly(w *worker[T], n int, c *crew, times int) {
	from, to := w.id*p.units/n, (w.id+1)*p.units/n
	for range times {
		if p.ends != nil && !p.ends.alive(0, 1) {
			if w.id == 0 {
				p.ended = true
			}
			return
		}
		for i := range p.phases {
			ph := &p.phases[i]
			if len(ph.once) > 0 && c.arrive(n) {
				for _, d := range ph.once {
					d.do(0, 1)
				}
				c.release()
			}
			for u := from; u < to; u++ {
				for _, o := range ph.ops {
					o.unit(w, p.unit(u))
				}
			}
		}
	}
}

// do runs o, or records it.
func (b *Backend[T]) do(o op[T]) {
	if b.recording != nil {
		b.recording.ops = append(b.recording.ops, o)
		return
	}
	b.one[0] = o
	_ = b.eager.reset(b, b.one[:]) // one op agrees with itself
	b.eager.ends = nil
	b.eager.run(1)
}

// keep is where the operands of an op belong: in the memory of the last of its kind,
// unless it is recorded.
func keep[T backend.Float, O any](b *Backend[T], last *O) *O {
	if b.recording != nil {
		return new(O)
	}
	return last
}

// recording is a program that is kept.
type recording[T backend.Float] struct {
	b       *Backend[T]
	ops     []op[T]
	bad     error
	program program[T]
	uses    []interface{ released() bool }
}

var (
	_ backend.Recorder = (*Backend[float32])(nil)
	_ backend.Recorder = (*Backend[float64])(nil)
)

// Record records the verbs that enqueue calls: all on the same rows and the same
// clock.
func (b *Backend[T]) Record(enqueue func()) (backend.Recording, error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if b.recording != nil {
		return nil, errors.New("cpu: Record inside of Record: record the outer sequence alone")
	}
	r := &recording[T]{b: b}
	b.recording = r
	func() {
		defer func() { b.recording = nil }()
		enqueue()
	}()
	if r.bad == nil {
		r.bad = r.program.reset(b, r.ops)
	}
	if r.bad != nil {
		return nil, fmt.Errorf("cpu: Record: %w", r.bad)
	}
	return r, nil
}

// uses notes memory that the verbs being recorded work on.
func (b *Backend[T]) uses(m interface{ released() bool }) {
	if r := b.recording; r != nil && !slices.Contains(r.uses, m) {
		r.uses = append(r.uses, m)
	}
}

// unrecorded notes that a verb which is not an op was called.
func (b *Backend[T]) unrecorded(verb string) {
	if b.recording != nil && b.recording.bad == nil {
		b.recording.bad = fmt.Errorf("%s cannot be recorded", verb)
	}
}

func (r *recording[T]) Replay(times int) bool {
	if r.ops == nil || !r.b.live() {
		return false
	}
	for _, u := range r.uses {
		if u.released() {
			return false
		}
	}
	r.program.run(times)
	return true
}

func (r *recording[T]) Close() { r.ops, r.program = nil, program[T]{} }

// SetThreads limits the goroutines that a call may use; 0, the beginning, is
// runtime.GOMAXPROCS(0) at the time of the call. No result depends on it.
func (b *Backend[T]) SetThreads(n int) {
	if n < 0 {
		panic("cpu: SetThreads of a negative number")
	}
	b.threads = n
}

// Threads is the limit that SetThreads set.
func (b *Backend[T]) Threads() int {
	if b.threads > 0 {
		return b.threads
	}
	return runtime.GOMAXPROCS(0)
}
