package backendtest

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// refClock is a clock as the documentation of package backend describes it.
type refClock struct {
	spans  []backend.Span // one for all lanes, or one each
	single bool           // the element type is float32
	lanes  []refLane
}

// own reports whether every lane has a span of its own.
func (c *refClock) own() bool { return len(c.spans) > 1 }

type refLane struct {
	span   *backend.Span
	status backend.Status
	t      float64
	step   refStep   // being attempted
	size   float64   // proposed
	past   []float64 // error ratios of accepted steps, the latest last
	ratio  float64   // of the attempt

	stale         bool
	evaluated     bool // the first stage was, or has to be, evaluated for this step
	afterReject   bool
	stopsBehind   int
	savesBehind   int
	lastJumped    bool // f jumps at t
	evals         int64
	numAccepted   int64
	numRejected   int64
	acceptedSizes []float64

	refTook
}

// refTook is what the last Advance accepted, if anything.
type refTook struct {
	accepted bool
	took     refStep
	end      float64
	outputs  []int // reached by it
	inside   bool  // one of them strictly inside
	block    int   // of AtStop's tables, or -1
	fresh    bool  // its first stage was evaluated for it
}

// nothing is what an Advance that accepts nothing leaves.
var nothing = refTook{block: -1}

// refStep is a step.
type refStep struct {
	t, h     float64
	lands    bool // on the next stop
	cut      bool // to land
	lo, hi   float64
	backward bool
}

// instant is where the step evaluates f at c.
func (st refStep) instant(c float64) float64 {
	if c == 1 && st.lands {
		if st.backward {
			return st.lo
		}
		return st.hi
	}
	return math.Max(st.lo, math.Min(st.t+c*st.h, st.hi))
}

func (c *refClock) start(spans ...backend.Span) {
	c.spans = spans
	for i := range c.lanes {
		l := &c.lanes[i]
		*l = refLane{span: &spans[0], refTook: nothing}
		if c.own() {
			l.span = &spans[i]
		}
		l.t = l.span.T0
		l.lastJumped = l.jumps(l.t)
		l.moved()
		if l.last() == l.t {
			l.status = backend.Done
		} else {
			c.aim(l, math.Abs(l.span.H0), 1+1e-8)
		}
	}
}

// moved notes that the first stage of the next step has to be evaluated.
func (l *refLane) moved() { l.stale, l.evaluated = true, true }

// last is where the solve of the lane ends.
func (l *refLane) last() float64 { return l.span.Stops[len(l.span.Stops)-1] }

func (l *refLane) jumps(t float64) bool { return slices.Contains(l.span.Breaks, t) }

// tolerance is that of the lane, where tol is given for all.
func (l *refLane) tolerance(tol backend.Tolerance) backend.Tolerance {
	if l.span.Tol.Abs != 0 || l.span.Tol.Rel != 0 {
		return l.span.Tol
	}
	return tol
}

// aim makes the next step out of a proposed size.
func (c *refClock) aim(l *refLane, size, stretch float64) {
	s := l.span
	if s.MaxStep > 0 && size > s.MaxStep {
		size = s.MaxStep
	}
	l.size = size
	stop := s.Stops[l.stopsBehind]
	left := math.Abs(stop - l.t)
	longest := size * stretch
	if s.MaxStep > 0 {
		longest = math.Min(longest, s.MaxStep*(1+1e-8))
	}
	backwards := l.last() < s.T0
	onward := math.Inf(1)
	if backwards {
		size, onward = -size, -onward
	}
	st := refStep{t: l.t, h: (l.t + size) - l.t, backward: backwards}
	first, last := -onward, onward // of the window that f is evaluated in
	if l.lastJumped {
		first = c.beyond(l.t, onward)
	}
	if longest >= left {
		st.lands, st.cut, st.h = true, l.size > left, stop-l.t
		last = stop
		if l.jumps(stop) {
			last = c.beyond(stop, -onward)
		}
	}
	st.lo, st.hi = math.Min(first, last), math.Max(first, last)
	l.step = st
}

// beyond is the number next to t, of the element type, towards an infinity.
func (c *refClock) beyond(t, infinity float64) float64 {
	if !c.single {
		return math.Nextafter(t, infinity)
	}
	x := float32(t)
	for float64(x) == t || float64(x) > t != (infinity > 0) {
		x = math.Nextafter32(x, float32(infinity))
	}
	return float64(x)
}

// propose chooses the first step from the trial's or the proposal's size.
func (c *refClock) propose(l *refLane, size float64) {
	length := math.Abs(l.last() - l.t)
	if !finite(size) || size <= 0 {
		size = 1e-6 * length
	}
	l.stale = false
	c.aim(l, math.Min(size, length), 1.01)
}

func (c *refClock) advance(ctl backend.Control) {
	for i := range c.lanes {
		l := &c.lanes[i]
		l.refTook = nothing
		if l.status == backend.StatusRunning {
			c.decide(l, ctl)
		}
	}
}

func (c *refClock) decide(l *refLane, ctl backend.Control) {
	var next float64
	if ok := l.ratio <= 1; ctl.Fixed && !math.IsNaN(l.ratio) || !ctl.Fixed && ok {
		next = c.accept(l, ctl)
	} else {
		next = c.reject(l, ctl)
	}
	if l.status != backend.StatusRunning {
		l.size = next
		return
	}
	if ctl.MaxAttempts > 0 && l.numAccepted+l.numRejected >= ctl.MaxAttempts {
		l.size, l.status = next, backend.TooManyAttempts
		return
	}
	if ctl.Fixed {
		c.aim(l, next, 1+1e-8)
	} else {
		c.aim(l, next, 1.01)
	}
}

// elementary is the controller without memory or limits.
func elementary(l *refLane, ctl backend.Control) float64 {
	if l.ratio == 0 {
		return math.Inf(1)
	}
	return ctl.Safety * math.Pow(l.ratio, -1/ctl.Order)
}

func (c *refClock) reject(l *refLane, ctl backend.Control) (next float64) {
	l.numRejected++
	l.afterReject, l.stale = true, false
	if math.IsNaN(l.ratio) {
		if ctl.Fixed {
			l.status = backend.NotFinite
			return l.size
		}
		next = ctl.MinFactor * math.Abs(l.step.h)
	} else {
		next = math.Max(ctl.MinFactor, elementary(l, ctl)) * math.Abs(l.step.h)
	}
	if next < smallestStep(l.t, ctl) {
		l.status = backend.StepTooSmall
		if math.IsNaN(l.ratio) {
			l.status = backend.NotFinite
		}
	}
	return next
}

func smallestStep(t float64, ctl backend.Control) float64 {
	if ctl.MinStep > 0 {
		return ctl.MinStep
	}
	return 16 * (math.Nextafter(math.Abs(t), math.Inf(1)) - math.Abs(t))
}

func (c *refClock) accept(l *refLane, ctl backend.Control) (next float64) {
	s := l.span
	l.numAccepted++
	l.accepted, l.took, l.fresh = true, l.step, l.evaluated
	l.acceptedSizes = append(l.acceptedSizes, l.step.h)
	if l.step.lands {
		l.t = s.Stops[l.stopsBehind]
		l.block = l.stopsBehind
		if s.Blocks != nil {
			l.block = s.Blocks[l.stopsBehind]
		}
		l.stopsBehind++
	} else {
		l.t += l.step.h
	}
	l.end = l.t
	for l.savesBehind < len(s.Saves) {
		x := s.Saves[l.savesBehind]
		if l.step.backward && x < l.t || !l.step.backward && x > l.t {
			break
		}
		l.outputs = append(l.outputs, l.savesBehind)
		l.inside = l.inside || x != l.t
		l.savesBehind++
	}
	l.lastJumped = l.jumps(l.t)
	switch ctl.Handover {
	case backend.HandNothing:
		l.stale = true
	case backend.HandLast:
		l.stale = l.lastJumped
	case backend.HandSaving:
		l.stale = !l.inside || l.lastJumped
	}
	l.evaluated = l.stale
	if ctl.Fixed {
		next = math.Abs(s.H0)
		if !l.took.lands { // make up for what rounding has lost
			next += l.size - math.Abs(l.took.h)
		}
	} else {
		next = math.Max(c.controlled(l, ctl), smallestStep(l.t, ctl))
	}
	l.afterReject = false
	if l.stopsBehind == len(s.Stops) {
		l.status = backend.Done
	}
	return next
}

// controlled is the size proposed after an accepted step.
func (c *refClock) controlled(l *refLane, ctl backend.Control) float64 {
	f := ctl.MaxFactor
	if l.ratio > 0 {
		f = ctl.Safety * math.Pow(l.ratio, -ctl.Beta[0])
		for i, beta := range ctl.Beta[1:] {
			if n := len(l.past) - 1 - i; n >= 0 {
				f *= math.Pow(math.Max(l.past[n], 1e-4), -beta)
			}
		}
		f = math.Min(math.Max(f, ctl.MinFactor), ctl.MaxFactor)
	}
	if l.afterReject {
		f = math.Min(f, 1)
	}
	h := math.Abs(l.step.h)
	if l.step.cut {
		return math.Max(f*h, math.Min(elementary(l, ctl)*h, l.size))
	}
	l.past = append(l.past, l.ratio)
	return f * h
}

// selects reports whether rows selects the lane.
func (l *refLane) selects(rows backend.Rows) bool {
	running := l.status == backend.StatusRunning
	return [...]bool{
		backend.Running:  running,
		backend.Stale:    running && l.stale,
		backend.Accepted: l.accepted,
		backend.Saving:   l.accepted && l.inside,
		backend.Fresh:    l.accepted && l.fresh,
	}[rows]
}

// stepOf is the step that rows speaks of.
func (l *refLane) stepOf(rows backend.Rows) refStep {
	if rows == backend.Accepted || rows == backend.Saving || rows == backend.Fresh {
		return l.took
	}
	return l.step
}

// laneOf is the lane of a row.
func (c *refClock) laneOf(row int) *refLane {
	if len(c.lanes) == 1 {
		row = 0
	}
	return &c.lanes[row]
}

// selected says for each row whether rows selects it.
func (c *refClock) selected(rows backend.Rows) func(row int) bool {
	return func(row int) bool { return c.laneOf(row).selects(rows) }
}

// evaluated counts an evaluation of the lanes that rows selects.
func (c *refClock) evaluated(rows backend.Rows) {
	for i := range c.lanes {
		if c.lanes[i].selects(rows) {
			c.lanes[i].evals++
		}
	}
}

// report is what Lanes should say, but for the worst component.
func (l *refLane) report() backend.Lane {
	r := backend.Lane{
		Status: l.status, T: l.t, H: l.step.h, Evaluations: l.evals,
		Accepted: l.numAccepted, Rejected: l.numRejected, Next: l.size,
	}
	for i, h := range l.acceptedSizes {
		if i == 0 || math.Abs(h) < r.SmallestH {
			r.SmallestH = math.Abs(h)
		}
		r.LastH = h
	}
	return r
}

// progress is what Poll should say.
func (c *refClock) progress() (p backend.Progress) {
	p.T = c.lanes[0].last()
	behind := -1.0
	for i := range c.lanes {
		l := &c.lanes[i]
		p.Accepted += l.numAccepted
		p.Rejected += l.numRejected
		p.Attempts = max(p.Attempts, l.numAccepted+l.numRejected)
		switch {
		case l.status == backend.StatusRunning:
			p.Running++
			if left := math.Abs(l.last() - l.t); left > behind {
				behind, p.T = left, l.t
			}
		case l.status != backend.Done && l.status != backend.Stopped:
			p.Failed++
		}
	}
	return p
}
