package solver

import (
	"cmp"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
)

// locator finds the events in the steps that a loop accepts.
type locator[T backend.Float] struct {
	events  []Event[T]
	lanes   []tracked
	found   [][]Occurrence[T] // per sample
	weights []float64

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
	sign     []int8 // of each g, 0 where it is not known yet
	count    []int
}

func newLocator[T backend.Float](events []Event[T]) *locator[T] { return &locator[T]{events: events} }

// Begin notes the signs at the start.
func (c *locator[T]) Begin(l *step.Loop[T]) error {
	n := l.Rows * l.Cols
	c.lanes, c.found = make([]tracked, l.Lanes), make([][]Occurrence[T], l.Lanes)
	c.read, c.accepted = make([]backend.Lane, l.Lanes), make([]bool, l.Lanes)
	c.cuts, c.status = make([]float64, l.Lanes), make([]backend.Status, l.Lanes)
	c.y, c.y1, c.z = make([]T, n), make([]T, n), make([]T, l.Cols)
	c.weights = make([]float64, len(l.Tableau.Dense.P))
	c.k = make([][]T, len(c.weights))
	for j := range c.k {
		c.k[j] = make([]T, n)
	}
	if err := l.Backend.Lanes(l.Clock, c.read); err != nil {
		return err
	}
	if err := l.Backend.Download(c.y, l.Y.Vec); err != nil {
		return err
	}
	for b := range c.lanes {
		c.lanes[b] = tracked{t: c.read[b].T, sign: make([]int8, len(c.events)), count: make([]int, len(c.events))}
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
	if err := dev.Download(c.y, l.Y.Vec); err != nil {
		return err
	}
	if err := dev.Download(c.y1, l.Trial.Vec); err != nil {
		return err
	}
	for j := range c.k {
		if err := dev.Download(c.k[j], l.Stages()[j]); err != nil {
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
		dev.Upload(l.Trial.Vec, c.y1)
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
	l.Backend.Upload(l.Y.Vec, c.y)
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
	c     *locator[T]
	l     *step.Loop[T]
	b     int
	t, h  float64
	end   float64
	point []T
}

// at evaluates the interpolant, into memory that the next call reuses.
func (s *curve[T]) at(x float64) (t float64, z []T) {
	d := s.l.Cols
	lo := s.b * d
	if x == 1 {
		return s.end, s.c.y1[lo : lo+d]
	}
	s.l.Tableau.Weights(s.c.weights, x)
	for i := range d {
		sum := 0.0
		for j, w := range s.c.weights {
			if w != 0 {
				sum += w * float64(s.c.k[j][lo+i])
			}
		}
		s.point[i] = T(float64(s.c.y[lo+i]) + s.h*sum)
	}
	return s.t + x*s.h, s.point
}

// probes are where in a step the signs are looked at: the first is for what happens
// right after a reset.
var probes = [...]float64{1e-3, 0.25, 0.5, 0.75, 1}

// crossing is an event in a step.
type crossing struct {
	event int
	x     float64
}

// search notes the events of sample b in its step, up to the one that cuts it, and
// reports whether one does.
func (c *locator[T]) search(l *step.Loop[T], b int) (cut bool) {
	lane, now := &c.lanes[b], &c.read[b]
	s := curve[T]{c: c, l: l, b: b, t: lane.t, h: now.LastH, end: now.T, point: c.z}
	lane.accepted, lane.t = now.Accepted, now.T
	var all []crossing
	for i := range c.events {
		e := &c.events[i]
		g := func(x float64) float64 { return e.value(s.at(x)) }
		last, lastG := 0.0, e.value(s.t, c.y[b*l.Cols:(b+1)*l.Cols])
		sign := lane.sign[i]
		for _, x := range probes {
			gx := g(x)
			if math.IsNaN(gx) {
				c.end(l, b, &s, x, NotFinite)
				return true
			}
			next := signOf(gx)
			if next == 0 {
				continue
			}
			if sign != 0 && next != sign && (e.Direction == Either || (next > 0) == (e.Direction == Rising)) {
				// Where g was 0, its sign is the one it had before.
				if lastG*gx > 0 {
					lastG = 0
				}
				all = append(all, crossing{i, zero(last, x, lastG, gx, 4*epsilon*max(1, math.Abs(s.t/s.h)), g)})
			}
			sign, last, lastG = next, x, gx
		}
		lane.sign[i] = sign
	}
	slices.SortStableFunc(all, func(p, q crossing) int { return cmp.Compare(p.x, q.x) })
	for _, p := range all {
		if c.note(l, b, &s, p) {
			return true
		}
	}
	return false
}

const epsilon = 0x1p-52

// note records a crossing and reports whether it cuts the step.
func (c *locator[T]) note(l *step.Loop[T], b int, s *curve[T], p crossing) (cut bool) {
	e, lane := &c.events[p.event], &c.lanes[b]
	if p.x == 0 { // t is not after the step's start
		p.x = epsilon
	}
	t, z := s.at(p.x)
	if t == s.t {
		t = math.Nextafter(s.t, s.end)
	}
	if most := e.Max; lane.count[p.event] == most && most > 0 || lane.count[p.event] == 10_000 && most == 0 {
		c.end(l, b, s, p.x, TooManyEvents)
		return true
	}
	lane.count[p.event]++
	o := Occurrence[T]{
		Event: p.event, T: t, Before: slices.Clone(z), Cut: e.Terminal || e.Reset != nil,
		Attempt: l.Attempts + 1, X: p.x, H: s.h,
	}
	o.After = o.Before
	if e.Reset != nil {
		o.After = slices.Clone(z)
		e.Reset(t, o.Before, e.Theta, o.After)
	}
	c.found[b] = append(c.found[b], o)
	if !o.Cut {
		return false
	}
	for i, v := range o.After {
		if v-v != 0 {
			c.read[b].Row, c.read[b].Col = b, i
			c.end(l, b, s, p.x, NotFinite)
			return true
		}
	}
	c.cuts[b], c.status[b], lane.t = t, backend.StatusRunning, t
	if e.Terminal {
		c.status[b] = Stopped
	}
	copy(c.y1[b*l.Cols:], o.Before)
	if e.Reset != nil {
		c.reset = true
		for i := range c.events {
			lane.sign[i] = 0
			if i != p.event {
				lane.sign[i] = signOf(c.events[i].value(t, o.After))
			}
		}
	}
	return true
}

// end ends sample b within its step.
func (c *locator[T]) end(l *step.Loop[T], b int, s *curve[T], x float64, status backend.Status) {
	t, z := s.at(x)
	if t == s.t {
		t = math.Nextafter(s.t, s.end)
	}
	c.cuts[b], c.status[b] = t, status
	copy(c.y1[b*l.Cols:], z)
}
