package cpu

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/stepsize"
)

// clock is the stepping state of every lane.
type clock[T backend.Float] struct {
	owner *Backend[T]
	lanes []lane
	spans []backend.Span // one for all lanes, or one each
}

// each reports whether every lane has a span of its own.
func (c *clock[T]) each() bool { return len(c.spans) > 1 }

// span is the span of lane i.
func (c *clock[T]) span(i int) *backend.Span {
	if c.each() {
		return &c.spans[i]
	}
	return &c.spans[0]
}

// lane is the stepping state of one lane.
type lane struct {
	status backend.Status
	t, h   float64 // the step being attempted
	want   float64 // |h| before it was cut to end on a stop
	// landing: the step ends on the next stop; cut: it is shorter than want for it.
	landing, cut bool
	// f is evaluated no earlier than from and no later than until: the ends of the
	// step, or just inside them where f jumps.
	from, until float64
	stretch     float64 // see aim
	single      bool    // f sees its time as a float32
	stop        int     // the next of the span's stops

	ratio    float64    // of the attempt
	worst    float64    // its largest component's error over its tolerance
	row, col int        // of that component
	history  [2]float64 // ratios of the last accepted steps, the latest first
	// rejected: the attempt before this one was.
	rejected bool

	accepted bool // by the last Advance
	took
	stale bool // the first stage has to be evaluated
	fresh bool // it has to be, or was, for this step

	evals, nAccepted, nRejected int64
	smallest, last              float64
}

// took is the step that the last Advance accepted, if it did.
type took struct {
	taken, hTook        float64 // its start and size
	end                 float64 // t after it
	tookFrom, tookUntil float64 // from and until of it
	freshTook           bool    // its first stage was evaluated for it
	hit                 int     // block of the stop it ended on, or -1
	saveFrom, save      int     // outputs saveFrom to below save lie in it
	inside              bool    // at least one of them before its end
}

// nothing says that no step was accepted.
func (l *lane) nothing() { l.accepted, l.inside, l.hit = false, false, -1 }

func (c *clock[T]) Lanes() int { return len(c.lanes) }

func (c *clock[T]) Close() {
	if !c.owner.closed {
		c.owner.bytes.Add(-int64(len(c.lanes)) * sizeOf[lane]())
	}
	c.lanes = nil
}

// NewClock allocates a clock.
func (b *Backend[T]) NewClock(lanes int) (backend.Clock, error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if lanes < 1 {
		panic("cpu: a clock needs at least one lane")
	}
	b.bytes.Add(int64(lanes) * sizeOf[lane]())
	return &clock[T]{owner: b, lanes: make([]lane, lanes)}, nil
}

// clock is the host memory behind c.
func (b *Backend[T]) clock(c backend.Clock) *clock[T] {
	x, ok := c.(*clock[T])
	if !ok || x.owner != b {
		panic("cpu: clock of another backend")
	}
	b.uses(x)
	return x
}

func (c *clock[T]) released() bool { return c.lanes == nil }

// selected reports whether rows selects l.
func (l *lane) selected(rows backend.Rows) bool {
	switch rows {
	case backend.Running:
		return l.status == backend.StatusRunning
	case backend.Stale:
		return l.status == backend.StatusRunning && l.stale
	case backend.Accepted:
		return l.accepted
	case backend.Saving:
		return l.accepted && l.inside
	case backend.Fresh:
		return l.accepted && l.freshTook
	}
	panic("cpu: unknown selection of rows")
}

// size is the size of the step that rows speaks of.
func (l *lane) size(rows backend.Rows) float64 {
	if rows >= backend.Accepted {
		return l.hTook
	}
	return l.h
}

// instant is the time c of the way through the step that rows speaks of.
func (l *lane) instant(rows backend.Rows, c float64) float64 {
	t, h, from, until := l.t, l.h, l.from, l.until
	if rows >= backend.Accepted {
		t, h, from, until = l.taken, l.hTook, l.tookFrom, l.tookUntil
	}
	if c == 1 && !math.IsInf(until, 0) {
		return until
	}
	t += c * h
	if math.Signbit(h) { // -0 too: before the first step was chosen
		return max(min(t, from), until)
	}
	return min(max(t, from), until)
}

// Start sets every lane to the beginning of its span.
func (b *Backend[T]) Start(clk backend.Clock, spans ...backend.Span) {
	if !b.live() {
		return
	}
	b.unrecorded("Start")
	c := b.clock(clk)
	if len(spans) != 1 && len(spans) != len(c.lanes) {
		panic("cpu: Start needs one span, or one for each lane")
	}
	for i := range spans {
		if !spans[i].Valid() {
			panic("cpu: Start with a span that is not valid")
		}
	}
	c.spans = slices.Grow(c.spans[:0], len(spans))[:len(spans)]
	for i := range spans {
		copySpan(&c.spans[i], &spans[i])
	}
	for i := range c.lanes {
		l, s := &c.lanes[i], c.span(i)
		*l = lane{t: s.T0, stale: true, fresh: true, took: took{hit: -1}, history: [2]float64{1, 1}, smallest: math.Inf(1), single: sizeOf[T]() == 4}
		l.begin(s)
		if s.T0 == end(s) {
			l.status = backend.Done
			continue
		}
		l.want = math.Abs(s.H0)
		l.aim(s, stepsize.StretchFixed)
	}
}

// copySpan sets dst to a deep copy of s, in the memory that dst has.
func copySpan(dst, s *backend.Span) {
	stops, saves, blocks, breaks := dst.Stops[:0], dst.Saves[:0], dst.Blocks[:0], dst.Breaks[:0]
	*dst = *s
	dst.Stops, dst.Saves = append(stops, s.Stops...), append(saves, s.Saves...)
	dst.Blocks, dst.Breaks = append(blocks, s.Blocks...), append(breaks, s.Breaks...)
}

// ProposeStep chooses the first step: Hairer, Nørsett & Wanner, Solving ODEs I,
// II.4, p. 169.
func (b *Backend[T]) ProposeStep(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	o := keep(b, &b.last.propose)
	o.y, o.k0, o.k1, o.order, o.tol = b.vec(y0), b.vec(f0), nil, order, tol
	sameShape(o.y, o.k0)
	if f1 != nil {
		o.k1 = b.vec(f1)
		sameShape(o.y, o.k1)
	}
	c.rangeOf(o.y, 0)
	o.on = on[T]{clk: c, rows: o.y.rows, work: 10 * o.y.cols}
	b.do(o)
}

// proposeStep is the op of ProposeStep.
type proposeStep[T backend.Float] struct {
	on[T]
	y, k0, k1 *vec[T] // k1 is nil at the first call
	order     int
	tol       backend.Tolerance
	squares   [][3]float64 // of every block of every few rows, with one lane
}

func (o *proposeStep[T]) prepare(int, int) {
	if o.clk.single() {
		o.squares = resize(o.squares, parts(o.rows)*o.y.blocks)
		clear(o.squares)
	}
}

// picks reports whether lane i is given a first step.
func (o *proposeStep[T]) picks(i int) bool {
	return o.clk.lanes[i].status == backend.StatusRunning && !(o.clk.each() && o.clk.span(i).H0 != 0)
}

func (o *proposeStep[T]) unit(_ *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		if !o.picks(i) {
			continue
		}
		tol := toleranceOf(o.clk.span(i), o.tol)
		if o.clk.single() {
			for from := lo; from < hi; from += unitRows {
				for blk := range o.y.blocks {
					o.squares[from/unitRows*o.y.blocks+blk] = o.sum(tol, blk, from, min(from+unitRows, hi))
				}
			}
			continue
		}
		var d [3]float64
		for blk := range o.y.blocks {
			raise(&d, o.sum(tol, blk, lo, hi), hi-lo, o.y.cols)
		}
		o.choose(i, d)
	}
}

// after chooses the step of all rows' one lane.
func (o *proposeStep[T]) after(int, int) {
	if !o.clk.single() || !o.picks(0) {
		return
	}
	var d [3]float64
	for blk := range o.y.blocks {
		var s [3]float64
		for i := blk; i < len(o.squares); i += o.y.blocks {
			for j := range s {
				s[j] += o.squares[i][j]
			}
		}
		raise(&d, s, o.y.rows, o.y.cols)
	}
	o.choose(0, d)
}

// sum adds up the squares of y, k0 and k1-k0 in some rows of a block.
func (o *proposeStep[T]) sum(tol backend.Tolerance, blk, lo, hi int) (s [3]float64) {
	K0 := o.k0.part(blk, lo, hi)
	K1 := K0
	if o.k1 != nil {
		K1 = o.k1.part(blk, lo, hi)
	}
	for j, v := range o.y.part(blk, lo, hi) {
		scale := tol.Abs + tol.Rel*math.Abs(float64(v))
		s[0] += square(float64(v), scale)
		s[1] += square(float64(K0[j]), scale)
		s[2] += square(float64(K1[j])-float64(K0[j]), scale)
	}
	return s
}

// square is (x/scale)².
func square(x, scale float64) float64 {
	x = stepsize.Over(x, scale)
	return x * x
}

// raise raises d to the norms of a block.
func raise(d *[3]float64, squares [3]float64, rows, cols int) {
	for j, s := range squares {
		d[j] = max(d[j], math.Sqrt(s/float64(max(rows*cols, 1))))
	}
}

// choose sets the step of lane i from the largest norms over blocks.
func (o *proposeStep[T]) choose(i int, d [3]float64) {
	l, s := &o.clk.lanes[i], o.clk.span(i)
	length := math.Abs(end(s) - l.t)
	first := stepsize.Trial(d[0], d[1], length)
	if o.k1 != nil {
		first = stepsize.First(d[1], d[2], math.Abs(l.h), length, o.order)
	}
	l.want = first.Want
	l.stale = false // f0 is the first stage
	l.aim(s, stepsize.StretchAdaptive)
}

// toleranceOf is the tolerance of a lane with span s.
func toleranceOf(s *backend.Span, tol backend.Tolerance) backend.Tolerance {
	if s.Tol != (backend.Tolerance{}) {
		return s.Tol
	}
	return tol
}

// rangeOf is the range of elements that lane i owns in every block of v.
func (c *clock[T]) rangeOf(v *vec[T], i int) (lo, hi int) {
	if len(c.lanes) == 1 {
		return 0, v.rows * v.cols
	}
	if len(c.lanes) != v.rows {
		panic("cpu: as many rows as lanes are needed")
	}
	return i * v.cols, (i + 1) * v.cols
}

// single reports whether one lane has all rows.
func (c *clock[T]) single() bool { return len(c.lanes) == 1 }

// first is the first lane of a unit, with its rows there, and after is the one after
// lane i, -1 if there is none.
func (c *clock[T]) first(u unit) (i, lo, hi int) {
	switch {
	case u.lo == u.hi:
		return -1, 0, 0
	case c.single():
		return 0, u.lo, u.hi
	}
	return u.lo, u.lo, u.lo + 1
}

func (c *clock[T]) after(u unit, i int) (next, lo, hi int) {
	if c.single() || i+1 == u.hi {
		return -1, 0, 0
	}
	return i + 1, i + 1, i + 2
}

// run is the next range of selected rows, from row lo on: empty and at hi if there is
// none before.
func (c *clock[T]) run(rows backend.Rows, lo, hi int) (from, to int) {
	if c.single() {
		if c.lanes[0].selected(rows) {
			return lo, hi
		}
		return hi, hi
	}
	for lo < hi && !c.lanes[lo].selected(rows) {
		lo++
	}
	to = lo
	for to < hi && c.lanes[to].selected(rows) {
		to++
	}
	return lo, to
}

// lane is the index of the lane that has a row.
func (c *clock[T]) lane(row int) int {
	if c.single() {
		return 0
	}
	return row
}

// aim sets the step to attempt: want, or what is left to the next stop.
func (l *lane) aim(s *backend.Span, stretch float64) {
	stop := s.Stops[l.stop]
	left := stop - l.t
	a := stepsize.Aim(l.t, l.want, stop, s.MaxStep, stretch)
	l.h, l.want, l.landing = a.H, a.Want, a.Landing
	l.cut = l.want > math.Abs(left)
	if !l.landing {
		l.until = math.Copysign(math.Inf(1), left)
		return
	}
	l.until = stop
	if slices.Contains(s.Breaks, l.until) {
		l.until = l.beside(l.until, math.Copysign(math.Inf(1), -left))
	}
}

// beside is the time next to t towards an infinity, of those that f can tell apart.
func (l *lane) beside(t, infinity float64) float64 {
	if !l.single {
		return math.Nextafter(t, infinity)
	}
	x := float32(t)
	if d := float64(x) - t; d != 0 && d > 0 == (infinity > 0) {
		return float64(x) // rounding has moved it there
	}
	return float64(math.Nextafter32(x, float32(infinity)))
}

// begin notes whether the next step begins where f jumps.
func (l *lane) begin(s *backend.Span) {
	onward := math.Copysign(math.Inf(1), end(s)-s.T0)
	l.from = -onward
	if slices.Contains(s.Breaks, l.t) {
		l.from = l.beside(l.t, onward)
		l.stale = true
	}
}

// Advance decides about every running lane's attempt.
func (b *Backend[T]) Advance(clk backend.Clock, ctl backend.Control) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.advance)
	c := b.clock(clk)
	*o = advance[T]{on: on[T]{clk: c, rows: -1}, ctl: ctl}
	if !c.single() {
		o.rows = len(c.lanes)
	}
	b.do(o)
}

// advance is the op of Advance.
type advance[T backend.Float] struct {
	on[T]
	ctl backend.Control
}

func (o *advance[T]) unit(*worker[T], unit) {}

func (o *advance[T]) before(lo, hi int) {
	for i := lo; i < hi; i++ {
		l := &o.clk.lanes[i]
		l.nothing()
		if l.status == backend.StatusRunning {
			l.advance(o.clk.span(i), &o.ctl)
		}
	}
}

func (o *advance[T]) alive(lo, hi int) bool {
	for i := lo; i < hi; i++ {
		if o.clk.lanes[i].status == backend.StatusRunning {
			return true
		}
	}
	return false
}

func (l *lane) advance(s *backend.Span, c *backend.Control) {
	stretch := stepsize.StretchAdaptive
	if c.Fixed {
		stretch = stepsize.StretchFixed
	}
	if l.ratio <= 1 || c.Fixed && !math.IsNaN(l.ratio) {
		l.accept(s, c)
	} else {
		l.reject(c)
	}
	if l.status == backend.StatusRunning && c.MaxAttempts > 0 && l.nAccepted+l.nRejected >= c.MaxAttempts {
		l.status = backend.TooManyAttempts
	}
	l.stretch = stretch
	if l.status == backend.StatusRunning {
		l.aim(s, stretch)
	}
}

func (l *lane) reject(c *backend.Control) {
	l.nRejected++
	l.rejected = true
	l.stale = false // the state did not move
	failure := backend.StepTooSmall
	if math.IsNaN(l.ratio) {
		failure = backend.NotFinite
		if c.Fixed {
			l.status = failure
			return
		}
	}
	l.want = stepsize.Rejected(c, math.Abs(l.h), l.ratio).Want
	if l.want < stepsize.Smallest(c, l.t) {
		l.status = failure
	}
}

func (l *lane) accept(s *backend.Span, c *backend.Control) {
	l.accepted = true
	l.nAccepted++
	l.taken, l.hTook, l.last = l.t, l.h, l.h
	l.tookFrom, l.tookUntil = l.from, l.until
	l.freshTook = l.fresh
	l.smallest = min(l.smallest, math.Abs(l.h))
	if l.landing {
		l.t = s.Stops[l.stop]
		l.hit = l.stop
		if len(s.Blocks) > 0 {
			l.hit = s.Blocks[l.stop]
		}
		l.stop++
	} else {
		l.t += l.h
	}

	l.end = l.t
	l.saveFrom = l.save
	for l.save < len(s.Saves) && between(l.taken, s.Saves[l.save], l.t) {
		l.inside = l.inside || s.Saves[l.save] != l.t
		l.save++
	}
	l.stale = c.Handover == backend.HandNothing || c.Handover == backend.HandSaving && !l.inside
	l.begin(s)
	l.fresh = l.stale
	switch {
	case !c.Fixed:
		l.want = stepsize.Accepted(c, l.t, math.Abs(l.h), l.ratio, l.history, l.rejected, l.want, l.cut).Want
		if !l.cut { // else it says little of the size that the solution allows
			l.history[1] = l.history[0]
			l.history[0], _ = stepsize.Remembered(l.ratio)
		}
	case l.landing:
		l.want = math.Abs(s.H0)
	default:
		l.want = math.Abs(s.H0) + (l.want - math.Abs(l.h)) // what rounding has lost
	}
	l.rejected = false
	if l.stop == len(s.Stops) {
		l.status = backend.Done
	}
}

// Cut ends the accepted steps of lanes early.
func (b *Backend[T]) Cut(clk backend.Clock, times []float64, status []backend.Status) {
	if !b.live() {
		return
	}
	b.unrecorded("Cut")
	c := b.clock(clk)
	if len(times) != len(c.lanes) || len(status) != len(c.lanes) {
		panic("cpu: Cut needs one time and one status a lane")
	}
	for i, t := range times {
		if l := &c.lanes[i]; t == t && l.accepted {
			l.cutAt(t, status[i], c.span(i))
		}
	}
}

func (l *lane) cutAt(t float64, status backend.Status, s *backend.Span) {
	if t != l.end {
		if !between(l.taken, t, l.end) {
			panic("cpu: Cut at a time outside the step")
		}
		if l.stop > 0 && l.end == s.Stops[l.stop-1] {
			l.stop--
		}
		l.hit, l.inside = -1, false
		l.t, l.end = t, t
		l.save = l.saveFrom
		for l.save < len(s.Saves) && between(l.taken, s.Saves[l.save], t) {
			l.inside = l.inside || s.Saves[l.save] != t
			l.save++
		}
		if l.status == backend.Done {
			l.status = backend.StatusRunning
		}
		l.begin(s)
	}
	l.stale, l.fresh = true, true
	if status != backend.StatusRunning {
		l.status = status
	} else if l.status == backend.StatusRunning {
		l.aim(s, l.stretch)
	}
}

// between reports whether x lies after a, up to and including b, in the
// direction from a to b.
func between(a, x, b float64) bool {
	if b >= a {
		return a < x && x <= b
	}
	return b <= x && x < a
}

// Poll tells how far the solve is.
func (b *Backend[T]) Poll(clk backend.Clock) (backend.Progress, error) {
	var p backend.Progress
	if err := b.takeErr(); err != nil {
		return p, err
	}
	c := b.clock(clk)
	behind := -1.0
	if len(c.spans) > 0 {
		p.T = end(c.span(0))
	}
	for i := range c.lanes {
		l := &c.lanes[i]
		p.Accepted += l.nAccepted
		p.Rejected += l.nRejected
		p.Attempts = max(p.Attempts, l.nAccepted+l.nRejected)
		switch l.status {
		case backend.StatusRunning:
			p.Running++
			if left := math.Abs(end(c.span(i)) - l.t); left > behind {
				behind, p.T = left, l.t
			}
		case backend.Done, backend.Stopped:
		default:
			p.Failed++
		}
	}
	return p, nil
}

// end is the last stop of s.
func end(s *backend.Span) float64 { return s.Stops[len(s.Stops)-1] }

// Lanes fills dst with what each lane did.
func (b *Backend[T]) Lanes(clk backend.Clock, dst []backend.Lane) error {
	if err := b.takeErr(); err != nil {
		return err
	}
	c := b.clock(clk)
	if len(dst) != len(c.lanes) {
		panic("cpu: one entry a lane is needed")
	}
	for i := range c.lanes {
		l := &c.lanes[i]
		dst[i] = backend.Lane{
			Status: l.status, T: l.t, H: l.h, Evaluations: l.evals,
			Accepted: l.nAccepted, Rejected: l.nRejected,
			SmallestH: l.smallest, LastH: l.last, Next: l.want,
			Row: l.row, Col: l.col, Ratio: max(l.worst, 0),
		}
		if l.nAccepted == 0 {
			dst[i].SmallestH = 0
		}
	}
	return nil
}
