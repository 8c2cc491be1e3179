package adjoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// EventCotangent is the derivative of a loss with respect to one occurrence of an
// event: its time and its states, length D; nil is zero.
type EventCotangent[T backend.Float] struct {
	T             float64
	Before, After []T
}

// GradientsEvents is Gradients for a loss that depends on the events of sol too:
// events is laid out as sol.Events, or nil. Method is Discrete.
//
// An event at t* with g(t*, z⁻; p) = 0 and z⁺ = r(t*, z⁻; p) moves with the state,
// δt* = -(∂g/∂z·δz⁻ + ∂g/∂p·δp)/ġ, ġ = ∂g/∂t + ∂g/∂z·f⁻, and so the adjoint jumps by
// the transpose of the saltation matrix,
//
//	λ⁻ = (∂r/∂z)ᵀλ⁺ - (∂g/∂z)ᵀ·q/ġ,   q = λ⁺·(∂r/∂t + ∂r/∂z·f⁻ - f⁺)
//
// (Hiskens & Pai 2000, Trajectory sensitivity analysis of hybrid systems, IEEE Trans.
// Circuits Syst. I 47(2), eqs. 20-24). f at both sides of the event is exact, and so is
// the event's place on the interpolant; that the steps behind it begin later with it is
// taken from the flow, which makes the gradient exact to the tolerance of the solve.
func (a *Adjoint[T]) GradientsEvents(ctx context.Context, sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T]) (*Gradient[T], error) {
	return a.gradients(ctx, sol, dLdz, events)
}

// checkEvents validates what Gradients is given about events.
func (a *Adjoint[T]) checkEvents(sol *solver.Solution[T], dLdz []T, cot [][]EventCotangent[T]) error {
	if cot != nil && len(cot) != sol.Batch {
		return fmt.Errorf("events has %d entries and the batch %d samples; lay it out as Solution.Events", len(cot), sol.Batch)
	}
	for b, found := range sol.Events {
		if cot != nil && len(cot[b]) != len(found) {
			return fmt.Errorf("events of sample %d has %d entries, and the sample had %d; lay it out as Solution.Events", b, len(cot[b]), len(found))
		}
		for _, o := range found {
			if a.set.Method != Discrete && (o.Cut || cot != nil) {
				return fmt.Errorf("method %v has no gradients through events; use Discrete", a.set.Method)
			}
		}
	}
	if sol.Events == nil && cot != nil {
		return errors.New("the solution has no events; give events to solver.New")
	}
	for b, cots := range cot {
		for i, c := range cots {
			for _, x := range [][]T{c.Before, c.After} {
				if x != nil && len(x) != sol.Dim {
					return fmt.Errorf("a cotangent of event %d of sample %d has %d components, and a state %d", i, b, len(x), sol.Dim)
				}
				for _, v := range x {
					if v-v != 0 {
						return fmt.Errorf("a cotangent of event %d of sample %d is %g; check the loss", i, b, float64(v))
					}
				}
			}
			if c.T-c.T != 0 {
				return fmt.Errorf("the cotangent of the time of event %d of sample %d is %g; check the loss", i, b, c.T)
			}
		}
	}
	for b, status := range sol.Status {
		if status != solver.Stopped {
			continue
		}
		ts, end := sol.SampleTimes(b), sol.Stats[b].T
		for i, t := range ts {
			if math.Abs(t-ts[0]) <= math.Abs(end-ts[0]) {
				continue
			}
			row := sol.Row(i, b) * sol.Dim
			if slices.ContainsFunc(dLdz[row:row+sol.Dim], func(v T) bool { return v != 0 }) {
				return fmt.Errorf("dLdz at time %g of sample %d is not zero, but an event ended it at %g: take the state there from Solution.Events, and its cotangent to GradientsEvents", t, b, end)
			}
		}
	}
	return nil
}

// jumps takes the adjoint through the events of a solve, on the host.
type jumps[T backend.Float] struct {
	events []solver.Event[T]
	sol    *solver.Solution[T]
	cot    [][]EventCotangent[T]
	at     map[int][]place // by attempt, in order
	theta  [][]T           // dL/dθ of the events

	slopes      *slopes[T]
	dev         backend.Backend[T]
	lambda, out []T
	pi          [][]T
	weights     []float64
}

// place is an occurrence.
type place struct{ sample, index int }

// newJumps returns nil if nothing of the solve depends on events.
func newJumps[T backend.Float](d *solver.Device[T], sol *solver.Solution[T], masked []bool, cot [][]EventCotangent[T], m *reversal[T]) (*jumps[T], error) {
	j := &jumps[T]{events: solver.EventsOf(d), sol: sol, cot: cot, at: map[int][]place{}, dev: d.Backend}
	for b, found := range sol.Events {
		for i, o := range found {
			if err := differentiable(j.events, o.Event); err != nil {
				return nil, err
			}
			if masked == nil || !masked[b] {
				j.at[o.Attempt] = append(j.at[o.Attempt], place{b, i})
			}
		}
	}
	for _, e := range j.events {
		j.theta = append(j.theta, make([]T, len(e.Theta)))
	}
	n := sol.Batch * sol.Dim
	j.lambda, j.out = make([]T, n), make([]T, n)
	for range m.pi {
		j.pi = append(j.pi, make([]T, n))
	}
	j.weights = make([]float64, len(m.tab.Dense.P))
	var err error
	j.slopes, err = newSlopes(d, sol.Batch)
	return j, err
}

// differentiable returns an error if an event lacks products.
func differentiable[T backend.Float](events []solver.Event[T], i int) error {
	if e := &events[i]; e.BackG == nil || e.Reset != nil && e.BackReset == nil {
		return fmt.Errorf("event %d has no BackG, or no BackReset; set them, or make it by solver.NewEvent", i)
	}
	return nil
}

func (j *jumps[T]) free() {
	if j != nil {
		j.slopes.free()
	}
}

// slopes evaluates f at times and states of single samples.
type slopes[T backend.Float] struct {
	field backend.Field[T]
	dev   backend.Backend[T]
	clk   backend.Clock
	z, dz backend.Vec[T]
	spans []backend.Span
	host  []T
}

func newSlopes[T backend.Float](d *solver.Device[T], batch int) (*slopes[T], error) {
	s := &slopes[T]{field: d.Field, dev: d.Backend, spans: make([]backend.Span, batch), host: make([]T, batch*d.Field.Dim())}
	var err error
	if s.clk, err = d.Backend.NewClock(batch); err != nil {
		return nil, err
	}
	if s.z, err = d.Backend.NewVec(1, batch, d.Field.Dim()); err == nil {
		s.dz, err = d.Backend.NewVec(1, batch, d.Field.Dim())
	}
	if err != nil {
		s.free()
		return nil, err
	}
	s.clear()
	return s, nil
}

func (s *slopes[T]) free() {
	if s != nil {
		s.clk.Close()
		s.dev.Free(s.z)
		s.dev.Free(s.dz)
	}
}

func (s *slopes[T]) clear() {
	for b := range s.spans {
		s.spans[b] = backend.Span{Stops: []float64{0}} // done at once
	}
	clear(s.host)
}

// set asks for f of a sample.
func (s *slopes[T]) set(sample int, t float64, z []T) {
	copy(s.host[sample*len(z):], z)
	s.spans[sample] = backend.Span{T0: t, Stops: []float64{math.Nextafter(t, math.Inf(1))}, H0: 1}
}

// eval returns f of the samples asked for, in their rows.
func (s *slopes[T]) eval() ([]T, error) {
	s.dev.Upload(s.z, s.host)
	s.dev.Start(s.clk, s.spans...)
	s.field.Eval(s.dz, backend.At{Clock: s.clk, Rows: backend.Running}, s.z)
	s.clear()
	f := make([]T, len(s.host))
	return f, s.dev.Download(f, s.dz)
}

func (j *jumps[T]) occurrence(p place) (*solver.Occurrence[T], *solver.Event[T], EventCotangent[T]) {
	o := &j.sol.Events[p.sample][p.index]
	var c EventCotangent[T]
	if j.cot != nil {
		c = j.cot[p.sample][p.index]
	}
	return o, &j.events[o.Event], c
}

// slopesAt evaluates f at the states of the occurrences, one a sample at most.
func (j *jumps[T]) slopesAt(places []place, state func(*solver.Occurrence[T]) []T) ([]T, error) {
	for _, p := range places {
		o, _, _ := j.occurrence(p)
		j.slopes.set(p.sample, o.T, state(o))
	}
	return j.slopes.eval()
}

func addTo[T backend.Float](dst, x []T) {
	for i, v := range x {
		dst[i] += v
	}
}

func dot[T backend.Float](x, y []T) (sum float64) {
	for i, v := range x {
		sum += float64(v) * float64(y[i])
	}
	return sum
}

// jump is the adjoint before an event: λ is the one behind it, of the flow alone.
func (j *jumps[T]) jump(p place, lambda, before, after []T) ([]T, error) {
	o, e, c := j.occurrence(p)
	dim := j.sol.Dim
	mu, gz, direct := make([]T, dim), make([]T, dim), make([]T, dim) // direct: of z⁻
	copy(direct, c.Before)
	q, theta := c.T, j.theta[o.Event]
	if e.Reset != nil {
		behind := slices.Clone(lambda)
		addTo(behind, c.After)
		q += e.BackReset(o.T, o.Before, e.Theta, behind, mu, theta)
		q += dot(mu, before) - dot(lambda, after)
	} else {
		addTo(direct, c.After) // the same state
	}
	q += dot(direct, before)
	gtheta := make([]T, len(theta))
	rate := e.BackG(o.T, o.Before, e.Theta, 1, gz, gtheta)
	rate += dot(gz, before)
	if q != 0 && (rate == 0 || math.IsNaN(rate)) {
		return nil, fmt.Errorf("event %d of sample %d at t = %g is grazed: g does not change there to first order, and the time of the event has no derivative", o.Event, p.sample, o.T)
	}
	if q != 0 {
		q /= rate
	}
	for i := range mu {
		mu[i] += direct[i] - T(q*float64(gz[i]))
	}
	for i := range theta {
		theta[i] -= T(q * float64(gtheta[i]))
	}
	return mu, nil
}

// before takes λ through the events that cut steps of attempt n.
func (j *jumps[T]) before(m *reversal[T], n int) error {
	if j == nil || len(j.at[n]) == 0 {
		return nil
	}
	var cut []place
	for _, p := range j.at[n] {
		if o, _, _ := j.occurrence(p); o.Cut {
			cut = append(cut, p)
		}
	}
	if cut == nil {
		return nil
	}
	before, err := j.slopesAt(cut, func(o *solver.Occurrence[T]) []T { return o.Before })
	if err != nil {
		return err
	}
	after, err := j.slopesAt(cut, func(o *solver.Occurrence[T]) []T { return o.After })
	if err != nil {
		return err
	}
	if err := j.dev.Download(j.lambda, m.lambda); err != nil {
		return err
	}
	dim := j.sol.Dim
	for _, p := range cut {
		lo, hi := p.sample*dim, (p.sample+1)*dim
		mu, err := j.jump(p, j.lambda[lo:hi], before[lo:hi], after[lo:hi])
		if err != nil {
			return err
		}
		copy(j.lambda[lo:hi], mu)
	}
	j.dev.Upload(m.lambda, j.lambda)
	return nil
}

// inside hands what arrives at the events of attempt n on to the steps that they lie
// in, by the interpolant.
func (j *jumps[T]) inside(m *reversal[T], n int) error {
	if j == nil || len(j.at[n]) == 0 {
		return nil
	}
	if err := j.dev.Download(j.lambda, m.lambda); err != nil {
		return err
	}
	if err := j.dev.Download(j.out, m.out); err != nil {
		return err
	}
	for i, v := range m.pi {
		if err := j.dev.Download(j.pi[i], v); err != nil {
			return err
		}
	}
	dim := j.sol.Dim
	for i := len(j.at[n]) - 1; i >= 0; i-- {
		p := j.at[n][i]
		o, _, c := j.occurrence(p)
		lo, hi := p.sample*dim, (p.sample+1)*dim
		var mu []T
		if o.Cut {
			mu = slices.Clone(j.lambda[lo:hi])
			clear(j.lambda[lo:hi])
		} else {
			if c.T == 0 && c.Before == nil && c.After == nil {
				continue
			}
			before, err := j.slopesAt([]place{p}, func(o *solver.Occurrence[T]) []T { return o.Before })
			if err != nil {
				return err
			}
			if mu, err = j.jump(p, make([]T, dim), before[lo:hi], before[lo:hi]); err != nil {
				return err
			}
		}
		if o.X == 1 {
			addTo(j.lambda[lo:hi], mu)
			continue
		}
		m.tab.Weights(j.weights, o.X)
		for k, v := range mu {
			j.out[lo+k] += v
			for s, w := range j.weights {
				j.pi[s][lo+k] += T(o.H * w * float64(v))
			}
		}
	}
	j.dev.Upload(m.lambda, j.lambda)
	j.dev.Upload(m.out, j.out)
	for i, v := range m.pi {
		j.dev.Upload(v, j.pi[i])
	}
	return nil
}
