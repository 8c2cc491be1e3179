package control

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// ErrOutside: a signal was read at a time outside its knots.
var ErrOutside = errors.New("outside the knots")

// Series is the signal of one sample: Times are its n knots, strictly increasing, in
// units of time, and Values what it is there, row-major [n, C].
type Series[T backend.Float] struct {
	Times  []float64
	Values []T
}

// Signal is an exogenous signal u(t) of C channels: one series for all samples, or
// one for each. Reading it is safe from several goroutines.
type Signal[T backend.Float] struct {
	kind     Kind
	channels int
	series   []series
	values   []T
	slopes   []float64 // parallel to values, of the cubic kinds
}

type series struct {
	*knots
	first int // index of its first knot among those of all series
}

// NewSignal makes a signal from one series, which all samples read, or from one for
// each row of the batch; they may have different knots. It keeps copies; series that
// are given the same slice of times share one.
func NewSignal[T backend.Float](kind Kind, channels int, all ...Series[T]) (*Signal[T], error) {
	if kind > NaturalCubic {
		return nil, fmt.Errorf("control: the kind of a signal is %d; use Constant, Linear, Hermite or NaturalCubic", kind)
	}
	if channels < 1 || len(all) == 0 {
		return nil, fmt.Errorf("control: a signal of %d channels and %d series; give at least one of each", channels, len(all))
	}
	s := &Signal[T]{kind: kind, channels: channels}
	n := 0
	for i, in := range all {
		fail := func(err error) error { return fmt.Errorf("control: series %d %w", i, err) }
		var k *knots
		if i > 0 && len(in.Times) > 0 && len(in.Times) == len(all[i-1].Times) && &in.Times[0] == &all[i-1].Times[0] {
			k = s.series[i-1].knots
		} else {
			var err error
			if k, err = newKnots[T](kind, in.Times); err != nil {
				return nil, fail(err)
			}
		}
		if got, want := len(in.Values), len(in.Times)*channels; got != want {
			return nil, fail(fmt.Errorf("has %d values for %d knots of %d channels; give %d, row-major [n, C]", got, len(in.Times), channels, want))
		}
		for j, v := range in.Values {
			if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, fail(fmt.Errorf("has the value %g at knot %d, channel %d; fill in what is missing, or leave the knot out", x, j/channels, j%channels))
			}
		}
		s.series = append(s.series, series{k, n})
		s.values = append(s.values, in.Values...)
		n += len(in.Times)
	}
	if kind == Hermite || kind == NaturalCubic {
		s.slopes = make([]float64, len(s.values))
		s.setSlopes()
	}
	if !s.fits() {
		return nil, fmt.Errorf("control: between two knots the signal, or a derivative, is beyond float%d; rescale the values or the time", 8*unsafe.Sizeof(s.values[0]))
	}
	return s, nil
}

// fits reports whether u and its derivatives are certainly in the range of T.
func (s *Signal[T]) fits() bool {
	if s.kind == Constant {
		return true // it has the values alone
	}
	limit := math.MaxFloat64
	if unsafe.Sizeof(s.values[0]) == 4 {
		limit = math.MaxFloat32
	}
	for _, x := range s.series {
		for i := range len(x.times) - 1 {
			h := x.step(i)
			for j := (x.first + i) * s.channels; j < (x.first+i+1)*s.channels; j++ {
				v0, v1, m := float64(s.values[j]), float64(s.values[j+s.channels]), 0.0
				if s.slopes != nil {
					m = math.Abs(s.slopes[j]) + math.Abs(s.slopes[j+s.channels])
				}
				d := math.Abs(v1-v0) / h
				// What the weights of basis are at most.
				for _, bound := range [...]float64{math.Abs(v0) + 4./27*h*m, math.Abs(v1) + 4./27*h*m, 1.5*d + m, (6*d + 4*m) / h} {
					if !(bound <= limit) {
						return false
					}
				}
			}
		}
	}
	return true
}

func (s *Signal[T]) setSlopes() {
	if s.slopes == nil {
		return
	}
	for i := range s.series {
		lo, hi := s.span(i)
		slopes(s.kind, s.series[i].knots, s.slopes[lo:hi], s.values[lo:hi], s.channels)
	}
}

// span is where the values of series i lie among all.
func (s *Signal[T]) span(i int) (lo, hi int) {
	x := s.series[i]
	return x.first * s.channels, (x.first + len(x.times)) * s.channels
}

// Kind is how the signal goes from knot to knot.
func (s *Signal[T]) Kind() Kind { return s.kind }

// Channels is the number of components of u, C.
func (s *Signal[T]) Channels() int { return s.channels }

// NumSeries is the number of series, 1 if all samples share it.
func (s *Signal[T]) NumSeries() int { return len(s.series) }

// NumValues is the number of values at the knots of all series together.
func (s *Signal[T]) NumValues() int { return len(s.values) }

// Bytes is the memory that the signal holds, without what clones share.
func (s *Signal[T]) Bytes() int64 {
	var one T
	return int64(len(s.values))*int64(unsafe.Sizeof(one)) + int64(len(s.slopes))*8
}

// Clone returns a signal that shares nothing with s that can change.
func (s *Signal[T]) Clone() *Signal[T] {
	c := *s
	c.values, c.slopes = slices.Clone(s.values), slices.Clone(s.slopes)
	return &c
}

// Values returns a copy of the values at all knots, series after series, each
// row-major [n, C].
func (s *Signal[T]) Values() []T { return slices.Clone(s.values) }

// SetValues replaces the values at all knots, laid out as Values has them. As u is
// linear in them, a signal with the values w is the tangent of u along w. It must not
// run beside readers.
func (s *Signal[T]) SetValues(values []T) {
	if len(values) != len(s.values) {
		panic("control: SetValues with the wrong number of values")
	}
	copy(s.values, values)
	s.setSlopes()
}

// SampleValues is the part of values, laid out as Values has them, that a sample
// reads: row-major [n, C], not copied.
func (s *Signal[T]) SampleValues(values []T, sample int) []T {
	if len(values) != len(s.values) {
		panic("control: SampleValues of the wrong number of values")
	}
	lo, hi := s.span(s.index(sample))
	return values[lo:hi:hi]
}

// index is the series that a sample reads.
func (s *Signal[T]) index(sample int) int {
	if len(s.series) == 1 {
		return 0
	}
	return sample
}

// Knots returns a copy of the times of the knots that a sample reads.
func (s *Signal[T]) Knots(sample int) []float64 {
	return slices.Clone(s.series[s.index(sample)].times)
}

// Breakpoints returns the times at which u or u' jumps for any sample, for
// solver.Settings.Breakpoints: all knots of a Constant or Linear signal, none of the
// cubic kinds. Where f does not read u', a Linear signal gives it kinks alone; if knots
// lie closer than the steps that the tolerance needs, a solve without these breakpoints
// may cost less. Where it does, a Hermite one gives it kinks too: at tight tolerances
// its [Signal.Knots] are worth ending steps on.
func (s *Signal[T]) Breakpoints() []float64 {
	var all []float64
	for i := range s.series {
		if i == 0 || s.series[i].knots != s.series[i-1].knots {
			all = append(all, s.SampleBreakpoints(i)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// SampleBreakpoints is Breakpoints of one sample, for solver.Sample.Breakpoints.
func (s *Signal[T]) SampleBreakpoints(sample int) []float64 {
	if s.slopes != nil {
		return nil
	}
	return s.Knots(sample)
}

// place is where a time lies among the knots: between those whose values begin at v0
// and v1.
type place struct {
	series int
	i      int // the interval
	v0, v1 int
	h, x   float64
}

// locate finds the place of t for a sample.
func (s *Signal[T]) locate(sample int, t float64) (p place, err error) {
	p.series = s.index(sample)
	if p.series >= len(s.series) {
		return p, fmt.Errorf("control: sample %d reads a signal of %d series; give one for each row of the batch, or one for all", sample, len(s.series))
	}
	k := s.series[p.series]
	first, last := k.times[0], k.times[len(k.times)-1]
	if !(t >= first-k.slack && t <= last+k.slack) {
		return p, fmt.Errorf("control: sample %d reads the signal at t = %g, %w, which are from %g to %g, and a signal is not extrapolated; end the span there, or give more knots", sample, t, ErrOutside, first, last)
	}
	t = min(max(t, first), last)
	p.i, p.h, p.x = k.find(t)
	p.v0 = (k.first + p.i) * s.channels
	p.v1 = p.v0 + s.channels
	if s.kind == Constant {
		if t == last {
			p.v0 = p.v1
		}
		p.v1 = p.v0
	}
	return p, nil
}

// At reads the signal of a sample: u(t) and its first and second derivative, each of
// length C; nil is skipped. At a knot u is the knot's value, and a derivative that
// jumps is that after the knot, at the last one that before. Outside the knots, by
// more than rounding explains, the error wraps [ErrOutside] and the results are NaN.
func (s *Signal[T]) At(sample int, t float64, u, du, ddu []T) error {
	p, err := s.locate(sample, t)
	for n, out := range [...][]T{u, du, ddu} {
		switch {
		case out == nil:
		case len(out) != s.channels:
			panic("control: At with slices of the wrong length")
		case err != nil:
			for c := range out {
				out[c] = T(math.NaN())
			}
		default:
			s.read(out, p, n)
		}
	}
	return err
}

// read sets out to derivative n of u.
func (s *Signal[T]) read(out []T, p place, n int) {
	b := s.kind.basis(n, p.h, p.x)
	for c := range out {
		v0, v1 := float64(s.values[p.v0+c]), float64(s.values[p.v1+c])
		y := b.v1 * (v1 - v0)
		if n == 0 { // exact at both ends
			y = b.v0*v0 + b.v1*v1
		}
		if s.slopes != nil {
			y += b.m0*s.slopes[p.v0+c] + b.m1*s.slopes[p.v1+c]
		}
		out[c] = T(y)
	}
}
