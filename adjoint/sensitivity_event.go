package adjoint

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// EventTangent is the derivative of an occurrence of an event along a direction: of its
// time, and of the states before and after it, which move with it.
type EventTangent[T backend.Float] struct {
	T             float64
	Before, After []T
}

// carried takes the derivatives S of a solve through its events. At an event with
// g(t*, z⁻; p) = 0 and z⁺ = r(t*, z⁻; p), in a direction that changes p by q,
//
//	δt* = -(∂g/∂z·S⁻ + ∂g/∂p·q)/ġ,   ġ = ∂g/∂t + ∂g/∂z·f⁻
//	S⁺  = ∂r/∂z·S⁻ + ∂r/∂p·q + (∂r/∂t + ∂r/∂z·f⁻ - f⁺)·δt*
//
// (Hiskens & Pai 2000, eqs. 20-24). S⁻ is the derivative of the interpolant at the time
// of the event, as outputs are.
type carried[T backend.Float] struct {
	inner  step.Hook[T] // finds the events
	found  func() [][]solver.Occurrence[T]
	events []solver.Event[T]
	along  []Tangent[T]
	slopes *slopes[T]

	seen    []int                 // events of each sample that were treated
	moved   [][][]EventTangent[T] // [direction][sample][event]
	weights []float64
	after   []map[int][]T // of each direction, S⁺ of the samples that this attempt reset
	y, y1   []T
	k       [][]T
}

// Inner is the hook that finds the events.
func (c *carried[T]) Inner() step.Hook[T] { return c.inner }

func (c *carried[T]) Begin(l *step.Loop[T]) error {
	c.seen = make([]int, l.Rows)
	c.moved = make([][][]EventTangent[T], len(c.along))
	c.after = make([]map[int][]T, len(c.along))
	for m := range c.moved {
		c.moved[m] = make([][]EventTangent[T], l.Rows)
	}
	n := l.Rows * l.Cols
	c.y, c.y1, c.k = make([]T, n), make([]T, n), make([][]T, len(l.Tableau.Dense.P))
	for j := range c.k {
		c.k[j] = make([]T, n)
	}
	c.weights = make([]float64, len(c.k))
	return c.inner.Begin(l)
}

func (c *carried[T]) Decided(l *step.Loop[T]) error {
	if err := c.inner.Decided(l); err != nil {
		return err
	}
	for m := range c.after {
		c.after[m] = nil
	}
	// Those of one attempt, the first of each sample, then the second, and so on.
	for {
		var places []place
		for b, found := range c.found() {
			if i := c.seen[b]; i < len(found) {
				places = append(places, place{b, i})
				c.seen[b]++
			}
		}
		if places == nil {
			return nil
		}
		if err := c.through(l, places); err != nil {
			return err
		}
	}
}

// through treats events of different samples.
func (c *carried[T]) through(l *step.Loop[T], places []place) error {
	for _, p := range places {
		o := &c.found()[p.sample][p.index]
		if err := differentiable(c.events, o.Event); err != nil {
			return err
		}
		c.slopes.set(p.sample, o.T, o.Before)
	}
	before, err := c.slopes.eval()
	if err != nil {
		return err
	}
	for _, p := range places {
		o := &c.found()[p.sample][p.index]
		c.slopes.set(p.sample, o.T, o.After)
	}
	after, err := c.slopes.eval()
	if err != nil {
		return err
	}
	dev, d := l.Backend, l.Cols
	for m := range c.along {
		if err := c.read(l, 1+m); err != nil {
			return err
		}
		cut := false
		for _, p := range places {
			o := &c.found()[p.sample][p.index]
			lo, hi := p.sample*d, (p.sample+1)*d
			s := c.at(l, o, lo, hi)
			tan, plus, err := c.jump(o, p, m, s, before[lo:hi], after[lo:hi])
			if err != nil {
				return err
			}
			c.moved[m][p.sample] = append(c.moved[m][p.sample], tan)
			if o.Cut {
				cut = true
				copy(c.y1[lo:hi], s)
			}
			if plus != nil {
				if c.after[m] == nil {
					c.after[m] = map[int][]T{}
				}
				c.after[m][p.sample] = plus
			}
		}
		if cut {
			dev.Upload(l.Trial.Of[1+m], c.y1)
		}
	}
	return nil
}

// read fetches a block of the step.
func (c *carried[T]) read(l *step.Loop[T], block int) error {
	if err := l.Backend.Download(c.y, l.Y.Of[block]); err != nil {
		return err
	}
	if err := l.Backend.Download(c.y1, l.Trial.Of[block]); err != nil {
		return err
	}
	for j := range c.k {
		if err := l.Backend.Download(c.k[j], l.StagesOf(block)[j]); err != nil {
			return err
		}
	}
	return nil
}

// at is S⁻, on the interpolant.
func (c *carried[T]) at(l *step.Loop[T], o *solver.Occurrence[T], lo, hi int) []T {
	s := make([]T, hi-lo)
	if o.X == 1 {
		copy(s, c.y1[lo:hi])
		return s
	}
	l.Tableau.Weights(c.weights, o.X)
	for i := range s {
		sum := 0.0
		for j, w := range c.weights {
			if w != 0 {
				sum += w * float64(c.k[j][lo+i])
			}
		}
		s[i] = T(float64(c.y[lo+i]) + o.H*sum)
	}
	return s
}

// jump derives an event along direction m; plus is S⁺, nil without a reset.
func (c *carried[T]) jump(o *solver.Occurrence[T], p place, m int, s, before, after []T) (tan EventTangent[T], plus []T, err error) {
	e, d := &c.events[o.Event], len(s)
	var q []T
	if all := c.along[m].Events; all != nil {
		q = all[o.Event]
	}
	gz, gp := make([]T, d), make([]T, len(e.Theta))
	rate := e.BackG(o.T, o.Before, e.Theta, 1, gz, gp)
	rate += dot(gz, before)
	change := dot(gz, s) + dot(q, gp)
	if change != 0 {
		if rate == 0 || math.IsNaN(rate) {
			return tan, nil, fmt.Errorf("event %d of sample %d at t = %g is grazed: g does not change there to first order, and the time of the event has no derivative", o.Event, p.sample, o.T)
		}
		tan.T = -change / rate
	}
	tan.Before, tan.After = make([]T, d), make([]T, d)
	for i := range s {
		tan.Before[i] = T(float64(s[i]) + float64(before[i])*tan.T)
	}
	copy(tan.After, tan.Before)
	if e.Reset == nil {
		return tan, nil, nil
	}
	plus = make([]T, d)
	unit, rz := make([]T, d), make([]T, d)
	for i := range d {
		unit[i] = 1
		rp := make([]T, len(e.Theta))
		rt := e.BackReset(o.T, o.Before, e.Theta, unit, rz, rp)
		unit[i] = 0
		whole := dot(rz, s) + dot(q, rp) + (rt+dot(rz, before))*tan.T
		tan.After[i] = T(whole)
		plus[i] = T(whole - float64(after[i])*tan.T)
	}
	return tan, plus, nil
}

func (c *carried[T]) Moved(l *step.Loop[T]) error {
	if err := c.inner.Moved(l); err != nil {
		return err
	}
	for m, reset := range c.after {
		if reset == nil {
			continue
		}
		if err := l.Backend.Download(c.y, l.Y.Of[1+m]); err != nil {
			return err
		}
		for b, s := range reset {
			copy(c.y[b*len(s):], s)
		}
		l.Backend.Upload(l.Y.Of[1+m], c.y)
	}
	return nil
}

func (c *carried[T]) free() {
	if c != nil {
		c.slopes.free()
	}
}
