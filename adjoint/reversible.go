package adjoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// reversible is the method Reversible: two copies y and z of the state, from
// y_0 = z_0 = z(t0) on, take the steps
//
//	y_{n+1} = λ·y_n + (1-λ)·z_n + Ψ_h(t_n, z_n)
//	z_{n+1} = z_n - Ψ_{-h}(t_{n+1}, y_{n+1})
//
// with Ψ_h the increment of an explicit Runge-Kutta method over h, and y is the
// solution, of the order of that method. They are undone by
//
//	z_n = z_{n+1} + Ψ_{-h}(t_{n+1}, y_{n+1})
//	y_n = (y_{n+1} - (1-λ)·z_n - Ψ_h(t_n, z_n)) / λ
//
// (McCallum & Foster 2024, Efficient, accurate and stable gradients for neural ODEs,
// arXiv 2410.11648, Algorithm 1; λ = 0.99 is that of its experiments). Rounding errors
// of y grow by 1/λ a step on the way back, so at every output y and z are set to what
// they were there. The derivatives a_y and a_z of L with respect to y and z go from
// those at step n+1 to those at step n by
//
//	a_y -= a_zᵀ ∂Ψ_{-h}/∂y;   a_z += (1-λ)·a_y + a_yᵀ ∂Ψ_h/∂z;   a_y = λ·a_y
//
// Steps of one fixed size are retraced by a clock that runs backwards over the same
// stops, chosen steps by a tape of their times.
type reversible[T backend.Float] struct {
	rec    recording[T]
	field  backend.Field[T]
	lambda float64
	size   float64 // of fixed steps, 0 for chosen ones
	n      int     // stages of an increment that count
	// Increments along the clock and against it: along one that runs forwards Ψ_h, with
	// the stages that the error is estimated from, and Ψ_{-h} against it.
	along, against increment
	back           []float64   // -b of against
	couple         []float64   // of y_n and z_n in y_{n+1} - y_n
	mem            *retrace[T] // made for rec's loop
}

// increment is ±h·Σ b_i·k_i, k_i = f(t + c_i·h, x ± h·Σ a_ij·k_j), h the clock's.
type increment struct {
	c []float64
	a [][]float64 // with its sign
	b []float64
}

// newIncrement is Ψ_h at the step's start, or against the clock Ψ_{-h} at its end.
func newIncrement(tab *tableau.Tableau, n, all int, against bool) increment {
	f := increment{b: slices.Clone(tab.B[:n])}
	for i := range all {
		c, a := tab.C[i], slices.Clone(tab.A[i])
		if against {
			c = 1 - c
			negate(a)
		}
		f.c, f.a = append(f.c, c), append(f.a, a)
	}
	if against {
		negate(f.b)
	}
	return f
}

func negate(x []float64) {
	for i := range x {
		x[i] = -x[i]
	}
}

func newReversible[T backend.Float](d *solver.Device[T], set *Settings) (*reversible[T], error) {
	forward := d.Settings()
	r := &reversible[T]{field: d.Field, lambda: set.Coupling, size: forward.Step}
	switch {
	case len(solver.EventsOf(d)) > 0:
		return nil, fmt.Errorf("adjoint: method Reversible of a solver with events: %w: use Discrete", backend.ErrUnsupported)
	case !(r.lambda >= 0 && r.lambda <= 1):
		return nil, fmt.Errorf("adjoint: Settings.Coupling is %g; give a number above 0 and up to 1, or 0 for the default", r.lambda)
	case r.lambda == 0:
		r.lambda = 0.99
	}
	tab := forward.Tableau
	r.n = tab.Stages()
	if tab.FSAL { // the last stage is of weight 0
		r.n--
	}
	all := r.n
	r.rec = recording[T]{with: r.with, begin: r.begin}
	if r.size == 0 {
		r.rec.keep = step.KeepTimes
		all = tab.Stages()
	}
	r.along, r.against = newIncrement(tab, r.n, all, false), newIncrement(tab, r.n, r.n, true)
	r.back, r.couple = slices.Clone(r.against.b), []float64{r.lambda - 1, 1 - r.lambda}
	negate(r.back)
	return r, nil
}

func (r *reversible[T]) free(dev backend.Backend[T]) {
	r.mem.free(dev)
	r.mem = nil
	r.rec.free()
}

// with makes the loop one of [y, z]. The error is estimated from the stages of Ψ_h,
// over y.
func (r *reversible[T]) with(c *step.Config[T]) {
	c.Blocks, c.FirstBlock, c.Scheme = 2, true, r
	c.System = firstOf[T]{step.Forward[T]{Field: r.field}}
}

// firstOf is f of y alone, for the choice of the first step.
type firstOf[T backend.Float] struct{ step.Forward[T] }

func (s firstOf[T]) Stage(_ int, dst, y step.Block[T], at backend.At) {
	s.Field.Eval(dst.Of[0], at, y.Of[0])
}

// begin sets z and ends a step on every output time.
func (r *reversible[T]) begin(l *step.Loop[T], spans []backend.Span) {
	l.Backend.Copy(l.Y.Of[1], l.Y.Of[0])
	for i := range spans {
		stopAtOutputs(&spans[i], r.size)
	}
	if r.mem != nil {
		r.mem.saved = false
	}
}

// stopAtOutputs ends a step on every output time. With fixed steps of a size it also
// ends one before what is left of the way from one stop to the next, so that a clock
// which runs backwards over the same stops takes the same steps.
func stopAtOutputs(s *backend.Span, size float64) {
	end := s.Stops[len(s.Stops)-1]
	if end == s.T0 {
		return
	}
	sign := math.Copysign(1, end-s.T0)
	marks := slices.Concat(s.Saves, s.Stops)
	slices.Sort(marks)
	marks = slices.Compact(marks)
	if sign < 0 {
		slices.Reverse(marks)
	}
	s.Stops, s.Blocks = nil, nil
	at, save := s.T0, 0
	for _, t := range marks {
		if size > 0 {
			const slack = 5e-9 // below the clock's own, which a step may be stretched by
			way := math.Abs(t - at)
			whole := math.Floor(way/size+slack) * size
			if x := at + sign*whole; way-whole > slack*size && sign*(x-at) > 0 && sign*(t-x) > 0 {
				s.Stops, s.Blocks = append(s.Stops, x), append(s.Blocks, -1)
			}
		}
		block := -1
		if save < len(s.Saves) && s.Saves[save] == t {
			block = s.Row + save
			save++
		}
		s.Stops, s.Blocks = append(s.Stops, t), append(s.Blocks, block)
		at = t
	}
}

// reversed is the span of the way back.
func reversed(s *backend.Span) backend.Span {
	r := *s
	n := len(s.Stops) - 1
	r.T0, r.Saves = s.Stops[n], nil
	if n == 0 && r.T0 == s.T0 {
		return r
	}
	r.Stops, r.Blocks = slices.Clone(s.Stops[:n]), slices.Clone(s.Blocks[:n])
	slices.Reverse(r.Stops)
	slices.Reverse(r.Blocks)
	r.Stops, r.Blocks = append(r.Stops, s.T0), append(r.Blocks, -1)
	return r
}

// Step sets the trial state.
func (r *reversible[T]) Step(l *step.Loop[T]) {
	dev := l.Backend.(backend.Reverser[T])
	at := backend.At{Clock: l.Clock, Rows: backend.Running}
	y, z, y1, z1 := l.Y.Of[0], l.Y.Of[1], l.Trial.Of[0], l.Trial.Of[1]
	k, back := l.StagesOf(0), l.StagesOf(1)
	stages(dev, r.field, &r.along, at, z, z1, k)
	dev.Sum(y1, y, at, r.couple, l.Y.Of)
	dev.Combine(y1, y1, at, r.along.b, k)
	stages(dev, r.field, &r.against, at, y1, z1, back)
	dev.Combine(z1, z, at, r.back, back)
}

// stages evaluates the stages k of an increment from x.
func stages[T backend.Float](dev backend.Backend[T], field backend.Field[T], f *increment, at backend.At, x, work backend.Vec[T], k []backend.Vec[T]) {
	for i, c := range f.c {
		at.C = c
		state := x
		if i > 0 {
			dev.Combine(work, x, at, f.a[i], k)
			state = work
		}
		field.Eval(k[i], at, state)
	}
}

func (r *reversible[T]) solve(ctx context.Context, _ *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error) {
	return r.rec.solve(ctx, p)
}

func (r *reversible[T]) gradient(ctx context.Context, d *solver.Device[T], sol *solver.Solution[T], dLdz []T, _ [][]EventCotangent[T], g *Gradient[T]) error {
	if g.Masked != nil && sol.Samples == nil && r.size > 0 {
		// One clock for all lanes cannot leave some out on its way back: a tape can.
		defer r.keepTimes(step.KeepNothing)
		r.keepTimes(step.KeepTimes)
	}
	if err := r.rec.have(ctx, d, sol); errors.Is(err, errOther) {
		return fmt.Errorf("method Reversible makes steps of its own, and needs a solution from Adjoint.Solve: %w", err)
	} else if err != nil {
		return err
	}
	for b := range sol.Batch { // where all times are t0
		if ts := sol.SampleTimes(b); ts[0] == ts[len(ts)-1] {
			for i := range ts[1:] {
				addTo(g.Z0[b*sol.Dim:][:sol.Dim], dLdz[sol.Row(i+1, b)*sol.Dim:][:sol.Dim])
			}
		}
	}
	if r.rec.loop == nil || solveIsEmpty(sol) {
		return nil
	}
	m, err := r.memory(d)
	if err != nil {
		return err
	}
	last := make([]T, 0, sol.Batch*sol.Dim) // cotangents where every sample ends
	for b := range sol.Batch {
		ts := sol.SampleTimes(b)
		if ts[0] == ts[len(ts)-1] {
			last = append(last, make([]T, sol.Dim)...)
		} else {
			last = append(last, dLdz[sol.Row(len(ts)-1, b)*sol.Dim:][:sol.Dim]...)
		}
	}
	d.Backend.Upload(m.y.cot, last)
	d.Backend.Upload(m.cotangents, outputs(sol, dLdz))
	p, err := d.Problem(last, sol.Times, sol.Samples) // for its spans alone
	if err != nil {
		return err
	}
	if err := r.retrace(ctx, p.Spans(), g.Masked, g.Stats); err != nil {
		return err
	}
	g.Memory = r.rec.bytes
	return r.fetch(d, sol, g)
}

// keepTimes changes what is kept of the steps.
func (r *reversible[T]) keepTimes(keep step.Keep) {
	r.rec.free()
	r.rec.keep = keep
}

// outputs are the rows of dLdz that a loop's table has, in its order: without the first
// time, and without spans of length zero.
func outputs[T backend.Float](sol *solver.Solution[T], dLdz []T) []T {
	if sol.Samples == nil {
		return dLdz[sol.Batch*sol.Dim:]
	}
	var host []T
	for b := range sol.Batch {
		if ts := sol.SampleTimes(b); ts[0] != ts[len(ts)-1] {
			from := sol.Row(0, b) + 1
			host = append(host, dLdz[from*sol.Dim:(from+len(ts)-1)*sol.Dim]...)
		}
	}
	return host
}

func (r *reversible[T]) solveOnDevice(ctx context.Context, d *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	return r.rec.solveOnDevice(ctx, d, z0, ts)
}

func (r *reversible[T]) thetaOnDevice(ctx context.Context, d *solver.Device[T], ts []float64, jumps []int, _, dLdz backend.Vec[T]) (backend.Vec[T], error) {
	m, err := r.memory(d)
	if err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	d.Backend.Zero(m.cotangents)
	d.Backend.Zero(m.y.cot)
	for _, i := range jumps {
		d.Backend.Copy(m.cotangents.Block(i-1), dLdz.Block(i))
		if i == len(ts)-1 {
			d.Backend.Copy(m.y.cot, dLdz.Block(i))
		}
	}
	if err := r.retrace(ctx, []backend.Span{d.Settings().Span(ts)}, nil, nil); err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	return m.theta, nil
}
