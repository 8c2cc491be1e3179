package solver

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

// Direction says which zero crossings of g are events.
type Direction uint8

const (
	Either  Direction = iota
	Rising            // from negative to positive along the solve
	Falling           // from positive to negative
)

func (d Direction) String() string {
	switch d {
	case Either:
		return "either"
	case Rising:
		return "rising"
	case Falling:
		return "falling"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// Event is a zero of g(t, z; θ) along the solution of a sample, θ being the event's
// own parameters. It is looked for in every accepted step by the signs of g at its
// end and at three points inside, on the interpolant: a g that is back at its sign
// between two of these is missed, unless [Settings].MaxStep makes steps shorter. It is
// located on the interpolant to the last digits of the time, where g has its new sign
// or is 0.
//
// A g that is 0 where the solve begins is no event there. The sign that it has next, by
// its slope or else where it is looked at next, counts as the one it begins with.
//
// A reset that jumps over a zero makes no event. One that leaves its own g at the zero
// goes on with the sign that g's slope there gives it: a ball that bounces is above the
// ground. Where no digit of g shows a slope the state is taken to be on the side that it
// came from, and the event happens again at once, up to Max.
//
// Events of one sample happen in the order of time; at the same time those that are
// only noted come first, then those in the order of the solver's list.
//
// The functions may be called from several goroutines at once and must not keep or
// change the slices they are given, but for the outputs.
type Event[T backend.Float] struct {
	Name      string // for messages
	Theta     []T    // θ, may be empty; live, owned by the caller
	G         func(t float64, z, theta []T) float64
	Direction Direction
	// Terminal ends the sample at the event, with status Stopped.
	Terminal bool
	// Reset, if not nil, sets out to the state z⁺ that the solve goes on from; z is z⁻
	// and out a copy of it. Without it the event is only noted.
	Reset func(t float64, z, theta, out []T)
	// Max is how often it may happen to a sample before that ends with
	// TooManyEvents, when it would happen once more; 0 means 10,000.
	Max int

	// BackG and BackReset are needed for gradients. For a cotangent a of g they set
	// az = a·∂g/∂z, add a·∂g/∂θ to atheta and return a·∂g/∂t; BackReset does so for a
	// cotangent a of z⁺, length D.
	BackG     func(t float64, z, theta []T, a float64, az, atheta []T) (at float64)
	BackReset func(t float64, z, theta, a, az, atheta []T) (at float64)
}

// NewEvent makes an event from generic functions, given at the element type and at
// [field.Dual], with its products derived. reset and its dual may be nil. In float32
// they see times as float32; G and Reset of an Event of your own see them in full.
func NewEvent[T backend.Float](theta []T,
	g func(t T, z, theta []T) T, dual func(t field.Dual, z, theta []field.Dual) field.Dual,
	reset func(t T, z, theta, out []T), dualReset func(t field.Dual, z, theta, out []field.Dual)) Event[T] {
	if g == nil || dual == nil || (reset == nil) != (dualReset == nil) {
		panic("solver: NewEvent needs its functions at both types")
	}
	e := Event[T]{Theta: theta, G: func(t float64, z, theta []T) float64 { return float64(g(T(t), z, theta)) }}
	back := func(t float64, z, theta []T, along func(t field.Dual, z, theta []field.Dual) float64, az, atheta []T) float64 {
		dz, dth := duals(z), duals(theta)
		for i, v := range z {
			dz[i] = field.MakeDual(float64(v), 1)
			az[i] = T(along(complex(t, 0), dz, dth))
			dz[i] = complex(float64(v), 0)
		}
		for i, v := range theta {
			dth[i] = field.MakeDual(float64(v), 1)
			atheta[i] += T(along(complex(t, 0), dz, dth))
			dth[i] = complex(float64(v), 0)
		}
		return along(field.MakeDual(t, 1), dz, dth)
	}
	e.BackG = func(t float64, z, theta []T, a float64, az, atheta []T) float64 {
		return back(t, z, theta, func(t field.Dual, z, theta []field.Dual) float64 {
			return a * field.Tangent(dual(t, z, theta))
		}, az, atheta)
	}
	if reset == nil {
		return e
	}
	e.Reset = func(t float64, z, theta, out []T) { reset(T(t), z, theta, out) }
	e.BackReset = func(t float64, z, theta, a, az, atheta []T) float64 {
		out := make([]field.Dual, len(z))
		return back(t, z, theta, func(t field.Dual, z, theta []field.Dual) (sum float64) {
			copy(out, z)
			dualReset(t, z, theta, out)
			for i, d := range out {
				sum += float64(a[i]) * field.Tangent(d)
			}
			return sum
		}, az, atheta)
	}
	return e
}

// duals is x without tangents.
func duals[T backend.Float](x []T) []field.Dual {
	d := make([]field.Dual, len(x))
	for i, v := range x {
		d[i] = complex(float64(v), 0)
	}
	return d
}

// Occurrence is an event that happened to a sample. The caller owns its memory.
type Occurrence[T backend.Float] struct {
	Event  int     // index among the solver's events
	T      float64 // when
	Before []T     // the state z⁻, length D
	After  []T     // the state z⁺ after a reset, else z⁻
	Cut    bool    // it ended a step: the event is terminal or has a reset

	// Where it is, for package adjoint: a fraction X of the step of size H that was
	// accepted in that attempt, counted from 1.
	Attempt int
	X, H    float64
}

// checkEvents validates events for a solver.
func checkEvents[T backend.Float](events []Event[T], set *Settings, dev backend.Backend[T]) error {
	if len(events) == 0 {
		return nil
	}
	if set.Stepping != PerSample {
		return fmt.Errorf("solver: events belong to single samples; set Settings.Stepping to PerSample")
	}
	if len(set.Tableau.Dense.P) == 0 {
		return fmt.Errorf("solver: method %s has no interpolant to locate events on; use another", set.Tableau.Name)
	}
	if _, ok := dev.(backend.Cutter[T]); !ok {
		return fmt.Errorf("solver: events on %s: %w; use a cpu backend", dev.Name(), backend.ErrUnsupported)
	}
	for i := range events {
		e := &events[i]
		name := e.label(i)
		switch {
		case e.G == nil:
			return fmt.Errorf("solver: %s has no G; set it to the function whose zeros are events", name)
		case e.Direction > Falling:
			return fmt.Errorf("solver: %s has Direction %d; use Either, Rising or Falling", name, e.Direction)
		case e.Terminal && e.Reset != nil:
			return fmt.Errorf("solver: %s is terminal and has a Reset; give one of the two", name)
		case e.Max < 0:
			return fmt.Errorf("solver: %s has Max %d; give a positive number, or 0 for 10,000", name, e.Max)
		}
		for j, v := range e.Theta {
			if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
				return fmt.Errorf("solver: parameter %d of %s is %g; give finite numbers", j, name, x)
			}
		}
	}
	return nil
}

// label is what messages call event i of a solver.
func (e *Event[T]) label(i int) string {
	if e.Name == "" {
		return fmt.Sprintf("event %d", i)
	}
	return fmt.Sprintf("event %d (%s)", i, e.Name)
}

// zero returns where g has its zero between a and b, at which its values ga and gb
// differ in sign, or ga is 0: the end, of an interval no longer than tol, that has gb's
// sign, or where g is 0, or NaN. It is the method ITP of Oliveira & Takahashi 2020, An
// enhancement of the bisection method average performance preserving minmax optimality,
// ACM TOMS 47(1), algorithm 1, with κ1 = 0.2/(b-a), κ2 = 2, n0 = 1; it bisects as long as
// ga is 0.
func zero(a, b, ga, gb, tol float64, g func(x float64) float64) float64 {
	if gb == 0 {
		return b
	}
	half := math.Ceil(math.Log2((b - a) / tol)) // bisections needed
	k1 := 0.2 / (b - a)
	for j := 0.0; b-a > tol && j < 200; j++ {
		mid := a + (b-a)/2
		r := tol/2*math.Exp2(half+1-j) - (b-a)/2
		delta := k1 * (b - a) * (b - a)
		falsi := (gb*a - ga*b) / (gb - ga)
		sigma := math.Copysign(1, mid-falsi)
		x := mid
		if delta <= math.Abs(mid-falsi) && ga != 0 {
			x = falsi + sigma*delta
		}
		if !(math.Abs(x-mid) <= r) {
			x = mid - sigma*math.Max(r, 0)
		}
		if !(x > a && x < b) {
			if x = mid; x == a || x == b { // no number is left between them
				break
			}
		}
		gx := g(x)
		switch {
		case gx == 0 || math.IsNaN(gx):
			return x
		case (gx > 0) == (gb > 0):
			b, gb = x, gx
		default:
			a, ga = x, gx
		}
	}
	return b
}
