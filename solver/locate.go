package solver

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// locator finds the events in the steps that a loop accepts, from the first block of its
// state.
type locator[T backend.Float] struct {
	events  []Event[T]
	lanes   []tracked
	found   [][]Occurrence[T] // per sample
	tab     *tableau.Tableau
	weights []float64
	changes []change

	read     []backend.Lane
	y, y1    []T
	k        [][]T
	z        []T
	cuts     []float64
	status   []backend.Status
	reset    bool // a state was reset in this attempt
	accepted []bool
}

// tracked is what is known of a lane.
type tracked struct {
	t        float64
	accepted int64
	count    []int  // of each event
	sign     []int8 // of each g, 0 where it is not known yet
	// from is, where a reset has left g at the zero that it came to, the sign that it had
	// before.
	from  []int8
	fault string // what went wrong, if that has ended it
}

func newLocator[T backend.Float](events []Event[T]) *locator[T] { return &locator[T]{events: events} }

// Found are the events so far, of each sample.
func (c *locator[T]) Found() [][]Occurrence[T] { return c.found }

// Begin notes the signs at the start.
func (c *locator[T]) Begin(l *step.Loop[T]) error {
	n := l.Rows * l.Cols
	c.lanes, c.found = make([]tracked, l.Lanes), make([][]Occurrence[T], l.Lanes)
	c.read, c.accepted = make([]backend.Lane, l.Lanes), make([]bool, l.Lanes)
	c.cuts, c.status = make([]float64, l.Lanes), make([]backend.Status, l.Lanes)
	c.y, c.y1, c.z = make([]T, n), make([]T, n), make([]T, l.Cols)
	c.tab, c.weights = l.Tableau, make([]float64, len(l.Tableau.Dense.P))
	c.k = make([][]T, len(c.weights))
	for j := range c.k {
		c.k[j] = make([]T, n)
	}
	if err := l.Backend.Lanes(l.Clock, c.read); err != nil {
		return err
	}
	if err := l.Backend.Download(c.y, l.Y.Of[0]); err != nil {
		return err
	}
	for b := range c.lanes {
		n := len(c.events)
		c.lanes[b] = tracked{t: c.read[b].T, count: make([]int, n), sign: make([]int8, n), from: make([]int8, n)}
		z := c.y[b*l.Cols : (b+1)*l.Cols]
		for i := range c.events {
			c.lanes[b].sign[i] = signOf(c.events[i].value(c.read[b].T, z))
		}
	}
	return nil
}

func (e *Event[T]) value(t float64, z []T) float64 { return e.G(t, z, e.Theta) }

func signOf(g float64) int8 {
	switch {
	case g > 0:
		return 1
	case g < 0:
		return -1
	}
	return 0
}

// Decided looks for events in the steps just accepted, and ends those that one cuts.
func (c *locator[T]) Decided(l *step.Loop[T]) error {
	dev := l.Backend
	c.reset = false
	if err := dev.Lanes(l.Clock, c.read); err != nil {
		return err
	}
	any := false
	for b := range c.lanes {
		c.cuts[b], c.accepted[b] = math.NaN(), c.read[b].Accepted > c.lanes[b].accepted
		any = any || c.accepted[b]
	}
	if !any {
		return nil
	}
	if err := dev.Download(c.y, l.Y.Of[0]); err != nil {
		return err
	}
	if err := dev.Download(c.y1, l.Trial.Of[0]); err != nil {
		return err
	}
	for j := range c.k {
		if err := dev.Download(c.k[j], l.StagesOf(0)[j]); err != nil {
			return err
		}
	}
	cut := false
	for b, ok := range c.accepted {
		if ok {
			cut = c.search(l, b) || cut
		}
	}
	if cut {
		dev.(backend.Cutter[T]).Cut(l.Clock, c.cuts, c.status)
		dev.Upload(l.Trial.Of[0], c.y1)
	}
	return nil
}

// Moved puts the states that were reset in place.
func (c *locator[T]) Moved(l *step.Loop[T]) error {
	if !c.reset {
		return nil
	}
	d := l.Cols
	for b, ok := range c.accepted {
		if !ok {
			continue
		}
		row := c.y1[b*d : (b+1)*d]
		if n := len(c.found[b]); n > 0 && c.found[b][n-1].Attempt == l.Attempts+1 {
			row = c.found[b][n-1].after(row)
		}
		copy(c.y[b*d:], row)
	}
	l.Backend.Upload(l.Y.Of[0], c.y)
	return nil
}

// after is the state that the solve goes on from, z where nothing was cut.
func (o *Occurrence[T]) after(z []T) []T {
	if o.Cut {
		return o.After
	}
	return z
}

// curve is the interpolant of a lane's step.
type curve[T backend.Float] struct {
	c      *locator[T]
	lo, hi int // of the lane's elements in a state
	t, h   float64
	end    float64
	point  []T
}

// start is the state at the beginning.
func (s *curve[T]) start() []T { return s.c.y[s.lo:s.hi] }

// at evaluates the interpolant, into memory that the next call reuses; t is after the
// step's start and no later than its end, also where rounding says otherwise.
func (s *curve[T]) at(x float64) (t float64, z []T) {
	if x == 1 {
		return s.end, s.c.y1[s.lo:s.hi]
	}
	s.c.tab.Weights(s.c.weights, x)
	y := s.start()
	for i := range s.point {
		sum := 0.0
		for j, w := range s.c.weights {
			if w != 0 {
				sum += w * float64(s.c.k[j][s.lo+i])
			}
		}
		s.point[i] = T(float64(y[i]) + s.h*sum)
	}
	t = s.t + x*s.h
	if s.h < 0 {
		return max(min(t, s.next()), s.end), s.point
	}
	return min(max(t, s.next()), s.end), s.point
}

// next is the first time after the step's start.
func (s *curve[T]) next() float64 { return math.Nextafter(s.t, s.end) }

// onward is the sign of what g does from the step's start, where it is g0, along the
// tangent there; 0 if no digit of g says. On the tangent, unlike on the solution, a
// bounce that is over long before the first probe still rises.
func (s *curve[T]) onward(e *Event[T], g0 float64) int8 {
	y, f := s.start(), s.c.k[0][s.lo:s.hi]
	for x := math.Sqrt(roundoff[T]()); x <= 1; x *= 8 {
		for i := range s.point {
			s.point[i] = T(float64(y[i]) + x*s.h*float64(f[i]))
		}
		if g := e.value(s.t+x*s.h, s.point); g != g0 {
			return signOf(g - g0)
		}
	}
	return 0
}

// roundoff is the distance of T's numbers next to 1.
func roundoff[T backend.Float]() float64 {
	if unsafe.Sizeof(T(0)) == 4 {
		return 0x1p-23
	}
	return 0x1p-52
}

// probes are where in a step the signs are looked at.
var probes = [...]float64{0.25, 0.5, 0.75, 1}

// change is where the sign of a g changes in a step, or is seen for the first time.
type change struct {
	event   int
	x       float64
	sign    int8    // behind it; 0 where g is NaN
	size    float64 // the largest |g| seen in the step until then
	happens bool    // it is an event
}

// watches reports whether a change of sign is an event.
func (e *Event[T]) watches(from, to int8) bool {
	return from*to < 0 && (e.Direction == Either || (to > 0) == (e.Direction == Rising))
}

// cuts reports whether the event ends the step that it is in.
func (e *Event[T]) cuts() bool { return e.Terminal || e.Reset != nil }

// watch appends to c.changes those of event i in a step. At the end of the sample a g
// that has come to 0 is taken to go on.
func (c *locator[T]) watch(lane *tracked, s *curve[T], i int, final bool) {
	e := &c.events[i]
	last, lastG := 0.0, e.value(s.t, s.start())
	if math.IsNaN(lastG) {
		c.changes = append(c.changes, change{event: i})
		return
	}
	if lane.sign[i] == 0 {
		lane.sign[i], lane.from[i] = cmp.Or(s.onward(e, lastG), lane.from[i]), 0
	}
	sign, zeroAt, size := lane.sign[i], 0.0, math.Abs(lastG)
	if signOf(lastG) != sign { // the start is the zero that g had come to, but for rounding
		zeroAt, lastG = lastG, 0
	}
	g := func(x float64) float64 { return e.value(s.at(x)) - zeroAt }
	tol := max(roundoff[float64]()*math.Abs(s.t/s.h), 0x1p-100)
	for _, x := range probes {
		gx := g(x)
		next := signOf(gx)
		if gx == 0 && zeroAt == 0 && x == 1 && final {
			next = -sign
		}
		size = max(size, math.Abs(gx))
		p := change{event: i, x: x, sign: next, size: size}
		switch {
		case math.IsNaN(gx):
			c.changes = append(c.changes, p)
			return
		case next == 0:
			continue
		case e.watches(sign, next):
			p.x, p.happens = zero(last, x, lastG, gx, tol, g), true
			fallthrough
		case next != sign:
			c.changes = append(c.changes, p)
		}
		sign, last, lastG = next, x, gx
	}
}

// search notes the events of sample b in its step, up to the one that cuts it, and
// reports whether one does.
func (c *locator[T]) search(l *step.Loop[T], b int) (cut bool) {
	lane, now := &c.lanes[b], &c.read[b]
	s := curve[T]{c: c, lo: b * l.Cols, hi: (b + 1) * l.Cols, t: lane.t, h: now.LastH, end: now.T, point: c.z}
	lane.accepted, lane.t = now.Accepted, now.T
	if s.t == s.end { // a fixed step too short to move t
		return false
	}
	c.changes = c.changes[:0]
	for i := range c.events {
		c.watch(lane, &s, i, now.Status == Done)
	}
	slices.SortStableFunc(c.changes, func(p, q change) int {
		if p.x == q.x && c.events[p.event].cuts() != c.events[q.event].cuts() {
			if c.events[q.event].cuts() { // what is only noted comes before
				return -1
			}
			return 1
		}
		return cmp.Compare(p.x, q.x)
	})
	for _, p := range c.changes {
		lane.sign[p.event] = p.sign
		switch {
		case p.sign == 0:
			c.end(b, &s, p.x, NotFinite, fmt.Sprintf("g of %s is NaN", c.events[p.event].label(p.event)))
			return true
		case p.happens && c.note(l, b, &s, p):
			return true
		}
	}
	return false
}

// note records an event and reports whether it cuts the step.
func (c *locator[T]) note(l *step.Loop[T], b int, s *curve[T], p change) (cut bool) {
	e, lane := &c.events[p.event], &c.lanes[b]
	most := cmp.Or(e.Max, 10_000)
	if lane.count[p.event] == most {
		c.end(b, s, p.x, TooManyEvents, fmt.Sprintf("%s happened more than %d times", e.label(p.event), most))
		return true
	}
	p.x = min(max(p.x, (s.next()-s.t)/s.h), 1)
	t, z := s.at(p.x)
	o := Occurrence[T]{
		Event: p.event, T: t, Before: slices.Clone(z), Cut: e.cuts(),
		Attempt: l.Attempts + 1, X: p.x, H: s.h,
	}
	if i := notFinite(o.Before); i >= 0 { // as a state at the end of a step is not
		c.end(b, s, p.x, NotFinite, fmt.Sprintf("component %d is %g at %s", i, float64(z[i]), e.label(p.event)))
		return true
	}
	if math.IsNaN(e.value(t, o.Before)) {
		c.end(b, s, p.x, NotFinite, fmt.Sprintf("g of %s is NaN", e.label(p.event)))
		return true
	}
	lane.count[p.event]++
	o.After = o.Before
	if e.Reset != nil {
		o.After = slices.Clone(z)
		e.Reset(t, o.Before, e.Theta, o.After)
	}
	c.found[b] = append(c.found[b], o)
	if !o.Cut {
		return false
	}
	if i := notFinite(o.After); i >= 0 {
		c.end(b, s, p.x, NotFinite, fmt.Sprintf("the reset of %s set component %d to %g", e.label(p.event), i, float64(o.After[i])))
		return true
	}
	status := backend.StatusRunning
	if e.Terminal {
		status = Stopped
	}
	c.end(b, s, p.x, status, "")
	lane.t = t
	if e.Reset != nil {
		c.reset = true
		c.resign(lane, &o, p)
	}
	return true
}

// notFinite is the first component of z that is NaN or infinite, or -1.
func notFinite[T backend.Float](z []T) int {
	return slices.IndexFunc(z, func(v T) bool { return v-v != 0 })
}

// resign finds the signs after a reset.
func (c *locator[T]) resign(lane *tracked, o *Occurrence[T], p change) {
	for i := range c.events {
		e := &c.events[i]
		before, after := e.value(o.T, o.Before), e.value(o.T, o.After)
		next := signOf(after)
		switch {
		case i == p.event:
			// 16 bounds the rounding of a reset that moves the state along the zeros of g.
			if math.Abs(after) <= 16*(math.Abs(before)+roundoff[T]()*p.size) {
				next, lane.from[i] = 0, -p.sign
			}
		case after == before && (next == 0 || e.watches(lane.sign[i], next)):
			continue // if it happens now too, it is found in the next step
		}
		lane.sign[i] = next
	}
}

// end ends the step of sample b early, and the sample unless status is StatusRunning.
func (c *locator[T]) end(b int, s *curve[T], x float64, status backend.Status, fault string) {
	t, z := s.at(x)
	c.cuts[b], c.status[b], c.lanes[b].fault = t, status, fault
	copy(c.y1[s.lo:s.hi], z)
}

// blame adds to the failures that err reports what went wrong with events.
func (c *locator[T]) blame(err error) {
	var failed *Error
	if errors.As(err, &failed) {
		for i := range failed.Failures {
			f := &failed.Failures[i]
			f.Event = c.lanes[f.Sample].fault
		}
	}
}
