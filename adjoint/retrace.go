package adjoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// retrace is the memory of going back over the steps of a reversible solve.
type retrace[T backend.Float] struct {
	dev   backend.Reverser[T]
	field backend.Field[T]
	loop  *step.Loop[T]
	clk   backend.Clock // that runs backwards, nil with a tape

	y, z              copyOf[T]
	work, kappa, zero backend.Vec[T]
	m                 []backend.Vec[T]
	theta             backend.Vec[T]
	// Tables laid out as the loop's.
	cotangents, reached backend.Vec[T]
	final               backend.Vec[T] // [y, z] at the end of the solve,
	saved               bool           // if it was kept

	undo, over   []float64 // of y_{n+1} and z_n, and of k, in y_n - y_{n+1}
	ones         []float64
	shrink, into []float64 // of ∂L/∂y in itself, and with m in ∂L/∂z
	intoTerms    []backend.Vec[T]
	states, cot  []backend.Vec[T]
	move         []backend.Move[T]
	owned        []backend.Vec[T]
	recorded     step.Recorded
}

// copyOf is one of the two copies of the state, with the increment that starts from it
// and changes the other.
type copyOf[T backend.Float] struct {
	state backend.Vec[T]
	cot   backend.Vec[T] // ∂L of it
	f     *increment
	k     []backend.Vec[T] // stages of f
	// Of κ_i: the other's cotangent and m_j.
	coef  [][]float64
	terms [][]backend.Vec[T]
}

// pulled says what the cotangents of f's stages are made of, those of sign·f being of.
func (c *copyOf[T]) pulled(sign float64, of backend.Vec[T], m []backend.Vec[T]) {
	for i := range m {
		coef, terms := []float64{sign * c.f.b[i]}, []backend.Vec[T]{of}
		for j := i + 1; j < len(m); j++ {
			coef, terms = append(coef, c.f.a[j][i]), append(terms, m[j])
		}
		c.coef, c.terms = append(c.coef, coef), append(c.terms, terms)
	}
}

func (m *retrace[T]) free(dev backend.Backend[T]) {
	if m == nil {
		return
	}
	m.recorded.Close()
	for _, v := range m.owned {
		dev.Free(v)
	}
	if m.clk != nil {
		m.clk.Close()
	}
	m.owned, m.clk = nil, nil
}

// memory returns the memory to retrace rec's loop.
func (r *reversible[T]) memory(d *solver.Device[T]) (*retrace[T], error) {
	loop := r.rec.loop
	if r.mem != nil && r.mem.loop == loop {
		return r.mem, nil
	}
	r.mem.free(d.Backend)
	r.mem = nil
	m := &retrace[T]{dev: d.Backend.(backend.Reverser[T]), field: d.Field, loop: loop, work: loop.Trial.Of[0], states: loop.Y.Of}
	var err error
	size := step.Size(loop.Config) + step.ClockSize(loop.Lanes) + timesSize[T](loop.Rows, loop.Cols, loop.Saves, loop.Ragged)
	vec := func(blocks, rows, cols int) (v backend.Vec[T]) {
		size += step.VecSize[T](blocks, rows, cols)
		if err == nil {
			if v, err = m.dev.NewVec(blocks, rows, cols); err == nil {
				m.owned = append(m.owned, v)
			}
		}
		return v
	}
	state := func() backend.Vec[T] { return vec(1, loop.Rows, loop.Cols) }
	m.kappa, m.zero = state(), state()
	for range r.n {
		m.m = append(m.m, state())
	}
	m.y = copyOf[T]{state: loop.Y.Of[0], cot: state(), k: loop.StagesOf(1)}
	m.z = copyOf[T]{state: loop.Y.Of[1], cot: state(), k: loop.StagesOf(0)}
	m.final = vec(2, loop.Rows, loop.Cols)
	if p := m.field.NumParams(); p > 0 {
		m.theta = vec(1, 1, p)
	}
	blocks, rows, cols := loop.Table.Shape()
	m.cotangents, m.reached = vec(blocks, rows, cols), vec(blocks, rows, cols)
	if err == nil && loop.Tape == nil {
		m.clk, err = m.dev.NewClock(loop.Lanes)
	}
	if err != nil {
		m.free(d.Backend)
		r.rec.free()
		return nil, step.TooLarge(err, d.Backend, loop.Rows, size, 0)
	}
	// Without the stages that serve the error alone.
	along := &increment{r.along.c[:r.n], r.along.a[:r.n], r.along.b}
	m.z.f, m.y.f = along, &r.against
	if m.clk != nil { // Ψ_h goes against it
		m.z.f, m.y.f = m.y.f, m.z.f
	}
	// z_{n+1} = z_n - Ψ_{-h}(y_{n+1}), y_{n+1} = λ·y_n + (1-λ)·z_n + Ψ_h(z_n).
	m.y.pulled(-1, m.z.cot, m.m)
	m.z.pulled(1, m.y.cot, m.m)
	m.undo = []float64{1/r.lambda - 1, 1 - 1/r.lambda}
	for _, b := range m.z.f.b {
		m.over = append(m.over, -b/r.lambda)
	}
	m.ones = slices.Repeat([]float64{1}, r.n)
	m.shrink, m.into = []float64{r.lambda - 1}, append([]float64{1 - r.lambda}, m.ones...)
	m.cot = []backend.Vec[T]{m.y.cot}
	m.intoTerms = append([]backend.Vec[T]{m.y.cot}, m.m...)
	m.move = []backend.Move[T]{{Dst: m.y.cot, Src: m.work}}
	r.mem = m
	return m, nil
}

// retrace goes back over all steps of the solve over spans, from the cotangents in the
// table and those at the end in m.y.cot. stats, one entry a sample, count the
// evaluations.
func (r *reversible[T]) retrace(ctx context.Context, spans []backend.Span, skip []bool, stats []solver.Stats) (err error) {
	defer func() { r.rec.lost = r.rec.lost || err != nil }()
	m, loop := r.mem, r.rec.loop
	if m.saved {
		m.dev.Copy(loop.Y.Vec, m.final)
	} else {
		m.dev.Copy(m.final, loop.Y.Vec)
		m.saved = true
	}
	m.dev.Zero(m.z.cot)
	if m.theta != nil {
		m.dev.Zero(m.theta)
	}
	m.dev.Copy(m.reached, loop.Table)
	lanes := make([]backend.Lane, loop.Lanes)
	count := func(clk backend.Clock, sign int64) error {
		err := m.dev.Lanes(clk, lanes)
		for b := range stats {
			stats[b].Evaluations += sign * lanes[min(b, len(lanes)-1)].Evaluations
		}
		return err
	}
	if m.clk != nil {
		return errors.Join(m.backInTime(ctx, spans, skip, r.size), count(m.clk, 1))
	}
	m.dev.Zero(m.y.cot) // the tape's last steps end on outputs
	return errors.Join(count(loop.Clock, -1), m.backOnTape(ctx, skip), count(loop.Clock, 1))
}

// backOnTape goes back over the steps on the tape.
func (m *retrace[T]) backOnTape(ctx context.Context, skip []bool) error {
	loop := m.loop
	at := backend.At{Clock: loop.Clock, Rows: backend.Accepted}
	m.dev.Rewind(loop.Clock, loop.Tape, int64(loop.Attempts), skip)
	return m.repeat(ctx, func() {
		m.dev.Back(loop.Clock, loop.Tape, nil)
		m.atOutput(loop.Clock)
		m.step(at)
	})
}

// repeat enqueues what goes back by an attempt as often as there were attempts.
func (m *retrace[T]) repeat(ctx context.Context, sequence func()) error {
	recorder, _ := m.dev.(backend.Recorder)
	return m.recorded.Repeat(ctx, recorder, m.loop.Attempts, sequence)
}

// backInTime takes steps of the same fixed size in the other direction.
func (m *retrace[T]) backInTime(ctx context.Context, spans []backend.Span, skip []bool, size float64) error {
	for i := range spans {
		stopAtOutputs(&spans[i], size)
		spans[i] = reversed(&spans[i])
		if skip != nil && skip[i] {
			spans[i].Stops, spans[i].Blocks = []float64{spans[i].T0}, nil // done at once
		}
	}
	at := backend.At{Clock: m.clk, Rows: backend.Running}
	parts := []backend.Part[T]{{Y0: m.y.state, Y1: m.y.state}}
	m.dev.Start(m.clk, spans...)
	if err := m.repeat(ctx, func() {
		m.step(at)
		m.dev.ErrorRatio(m.clk, m.loop.Tol, nil, nil, parts)
		m.dev.Advance(m.clk, backend.Control{Fixed: true})
		m.atOutput(m.clk)
	}); err != nil {
		return err
	}
	p, err := m.dev.Poll(m.clk)
	if err == nil && (p.Running > 0 || p.Failed > 0) {
		err = fmt.Errorf("reversible steps could not be undone: %w: %d failed and %d still under way: rounding errors grow where the solution contracts; use Discrete, or more outputs", solver.ErrIncomplete, p.Failed, p.Running)
	}
	return err
}

// atOutput acts where the clock is at an output: it notes y there, sets y and z to what
// they were, and adds the cotangents.
func (m *retrace[T]) atOutput(clk backend.Clock) {
	m.dev.AtStop(clk, backend.Store, m.y.state, m.reached)
	m.dev.AtStop(clk, backend.Load, m.y.state, m.loop.Tables[0])
	m.dev.AtStop(clk, backend.Load, m.z.state, m.loop.Tables[1])
	m.dev.AtStop(clk, backend.Add, m.y.cot, m.cotangents)
}

// step goes back by one step.
func (m *retrace[T]) step(at backend.At) {
	dev, y, z := m.dev, &m.y, &m.z
	stages(dev, m.field, y.f, at, y.state, m.work, y.k)
	dev.Combine(z.state, z.state, at, y.f.b, y.k)
	m.pull(at, y)
	dev.Sum(y.cot, y.cot, at, m.ones, m.m)

	stages(dev, m.field, z.f, at, z.state, m.work, z.k)
	dev.Sum(m.work, y.state, at, m.undo, m.states)
	dev.Combine(y.state, m.work, at, m.over, z.k)
	m.pull(at, z)
	dev.Sum(z.cot, z.cot, at, m.into, m.intoTerms)
	dev.Sum(m.work, y.cot, at, m.shrink, m.cot)
	dev.Commit(at.Clock, at.Rows, m.move)
}

// pull sets m_i, whose sum is the cotangent of c's state in its increment, as [discrete]
// does, and adds to that of θ.
func (m *retrace[T]) pull(at backend.At, c *copyOf[T]) {
	for i := len(m.m) - 1; i >= 0; i-- {
		at.C = c.f.c[i]
		m.dev.Combine(m.kappa, m.zero, at, c.coef[i], c.terms[i])
		state := c.state
		if i > 0 {
			m.dev.Combine(m.work, c.state, at, c.f.a[i], c.k)
			state = m.work
		}
		m.field.VJP(at, backend.VJP[T]{Z: state, A: m.kappa, AZ: m.m[i], Alpha: 1, G: m.theta, W: 1})
	}
}

// fetch completes g.
func (r *reversible[T]) fetch(d *solver.Device[T], sol *solver.Solution[T], g *Gradient[T]) error {
	m, dim := r.mem, sol.Dim
	state := make([]T, len(g.Z0))
	for _, v := range []backend.Vec[T]{m.y.cot, m.z.cot} {
		if err := m.dev.Download(state, v); err != nil {
			return err
		}
		for b := range sol.Batch {
			if g.Masked == nil || !g.Masked[b] {
				addTo(g.Z0[b*dim:][:dim], state[b*dim:][:dim])
			}
		}
	}
	if len(g.Theta) > 0 {
		if err := m.dev.Download(g.Theta, m.theta); err != nil {
			return err
		}
	}
	reached, other := make([]T, len(sol.Y)), make([]T, len(sol.Y))
	if err := d.Fetch(sol, reached, m.reached); err != nil {
		return err
	}
	if err := d.Fetch(sol, other, m.loop.Tables[1]); err != nil {
		return err
	}
	if err := m.dev.Download(state, m.y.state); err != nil {
		return err
	}
	for b := range sol.Batch {
		ts := sol.SampleTimes(b)
		if g.Masked != nil && g.Masked[b] || ts[0] == ts[len(ts)-1] {
			continue
		}
		compare(&g.Drift, b, ts[0], state[b*dim:][:dim], sol.Sample(0, b), m.loop.Tol)
		for i := range ts[1:] {
			at := sol.Row(i+1, b) * dim
			compare(&g.Drift, b, ts[i+1], reached[at:at+dim], sol.Sample(i+1, b), m.loop.Tol)
			compare(&g.Gap, b, ts[i+1], other[at:at+dim], sol.Sample(i+1, b), m.loop.Tol)
		}
	}
	return nil
}
