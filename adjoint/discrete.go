package adjoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// discrete is the method Discrete: reverse-mode differentiation of the accepted steps.
// With k_i = f(t + c_i·h, Y_i), Y_i = y + h·Σ a_ij·k_j, y' = y + h·Σ b_i·k_i and λ the
// derivative of L with respect to y', the derivatives κ_i with respect to k_i and λ
// with respect to y are
//
//	κ_i = h·(b_i·λ + Σ_{j>i} a_ji·m_j) + π_i,   m_i = κ_iᵀ ∂f/∂z(t + c_i·h, Y_i)
//	dL/dθ += Σ_i κ_iᵀ ∂f/∂θ,                    λ += Σ_i m_i + π
//
// (Hairer, Nørsett & Wanner's notation; Sanz-Serna 2016, Symplectic Runge-Kutta schemes
// for adjoint equations, eqs. 25-27, without its division by b_i). π_i and π are what
// outputs inside the step add, by the interpolant's own derivatives. A step whose first
// stage is the last of the step before hands κ_0 to that stage, which so needs no
// evaluation of its own; nor do outputs that read it.
type discrete[T backend.Float] struct {
	rec recording[T]
	mem *reversal[T] // made for rec's loop
}

func newDiscrete[T backend.Float](dev *solver.Device[T], set *Settings) (*discrete[T], error) {
	d := &discrete[T]{rec: recording[T]{keep: step.KeepStages}}
	switch {
	case set.Store > States:
		return nil, fmt.Errorf("adjoint: Settings.Store is %d; use Stages or States", set.Store)
	case set.Budget < 0 || set.HostBudget < 0 || set.HostBudget > 0 && set.Budget == 0:
		return nil, fmt.Errorf("adjoint: Settings.Budget is %d bytes and HostBudget %d; give positive numbers, 0 for no limit, and no HostBudget without a Budget", set.Budget, set.HostBudget)
	case set.Budget > 0 && len(solver.EventsOf(dev)) > 0:
		return nil, errors.New("adjoint: Settings.Budget and events do not go together yet; leave the budget out, and set Store to States if memory is short")
	case set.Budget > 0:
		d.rec.limit = &checkpoints[T]{budget: set.Budget, host: set.HostBudget}
		d.rec.keep = step.KeepStates
	case set.Store == States:
		d.rec.keep = step.KeepStates
	}
	return d, nil
}

func (d *discrete[T]) free(dev backend.Backend[T]) {
	d.mem.free(dev)
	d.mem = nil
	d.rec.free()
}

func (d *discrete[T]) solve(ctx context.Context, _ *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error) {
	return d.rec.solve(ctx, p)
}

func (d *discrete[T]) gradient(ctx context.Context, dev *solver.Device[T], sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T], g *Gradient[T]) error {
	if err := d.rec.have(ctx, dev, sol); err != nil {
		return err
	}
	if d.rec.loop == nil || solveIsEmpty(sol) {
		for b := range sol.Batch { // all times are t0
			for i := range sol.SampleTimes(b)[1:] {
				for j, v := range dLdz[sol.Row(i+1, b)*sol.Dim:][:sol.Dim] {
					g.Z0[b*sol.Dim+j] += v
				}
			}
		}
		return nil
	}
	m, err := d.memory(dev)
	if err != nil {
		return err
	}
	// Outputs of a span of length zero are not in the table: they are z0 itself.
	host := make([]T, 0, len(sol.Y))
	if sol.Samples == nil {
		host = dLdz[sol.Batch*sol.Dim:]
	} else {
		for b := range sol.Batch {
			ts := sol.SampleTimes(b)
			from, to := sol.Row(0, b)+1, sol.Row(0, b)+len(ts)
			if ts[0] != ts[len(ts)-1] {
				host = append(host, dLdz[from*sol.Dim:to*sol.Dim]...)
			}
		}
	}
	if m.cotangents != nil {
		dev.Backend.Upload(m.cotangents, host)
	}
	var skip []bool
	if g.Masked != nil {
		skip = g.Masked
	}
	var through *jumps[T]
	if len(solver.EventsOf(dev)) > 0 {
		if through, err = newJumps(dev, sol, g.Masked, events, m); err != nil {
			return err
		}
		defer through.free()
		g.Events = through.theta
	}
	if err := d.reverse(ctx, skip, g.Stats, through); err != nil {
		return err
	}
	g.Memory = d.rec.bytes
	if c := d.rec.limit; c != nil {
		g.Memory = c.bytes()
		g.HostMemory = int64(c.hosted) * hostSize(d.rec.loop)
	}
	if err := dev.Backend.Download(g.Z0, m.lambda); err != nil {
		return err
	}
	if sol.Samples != nil {
		for b := range sol.Batch {
			if ts := sol.SampleTimes(b); len(ts) == 2 && ts[0] == ts[1] {
				for j, v := range dLdz[sol.Row(1, b)*sol.Dim:][:sol.Dim] {
					g.Z0[b*sol.Dim+j] += v
				}
			}
		}
	}
	if len(g.Theta) > 0 {
		return dev.Backend.Download(g.Theta, m.theta)
	}
	return nil
}

// solveIsEmpty reports whether no sample has anything to integrate.
func solveIsEmpty[T backend.Float](sol *solver.Solution[T]) bool {
	for b := range sol.Batch {
		if ts := sol.SampleTimes(b); ts[0] != ts[len(ts)-1] {
			return false
		}
	}
	return true
}

// reverse goes back over all steps, from the cotangents in the table. stats, one entry
// a sample, count the evaluations.
func (d *discrete[T]) reverse(ctx context.Context, skip []bool, stats []solver.Stats, through *jumps[T]) (err error) {
	defer func() { d.rec.lost = d.rec.lost || err != nil }()
	loop, m := d.rec.loop, d.mem
	dev := m.dev
	before := dev.MemoryUsed()
	dev.Zero(m.lambda)
	dev.Zero(m.carry)
	if m.theta != nil {
		dev.Zero(m.theta)
	}
	lanes := make([]backend.Lane, loop.Lanes)
	count := func(sign int64) error {
		if stats == nil {
			return nil
		}
		if err := dev.Lanes(loop.Clock, lanes); err != nil {
			return err
		}
		for b := range stats {
			stats[b].Evaluations += sign * lanes[min(b, len(lanes)-1)].Evaluations
		}
		return nil
	}
	c, last, attempts := d.rec.limit, 0, loop.Attempts
	if c != nil {
		last = c.last
		defer func() { d.rec.sol = nil }() // the tape has another segment now
	}
	for q := last; q >= 0; q-- {
		first := 0
		if c != nil {
			var err error
			if attempts, err = c.back(ctx, loop, q, count); err != nil {
				return err
			}
			first = q * c.length
		}
		if err := count(-1); err != nil {
			return err
		}
		dev.Rewind(loop.Clock, loop.Tape, int64(attempts), skip)
		for n := attempts; n > first; n-- {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := m.step(n, through); err != nil {
				return err
			}
		}
		if err := count(1); err != nil {
			return err
		}
	}
	d.rec.bytes += dev.MemoryUsed() - before
	return nil
}

// reversal is the memory of going back over one step.
type reversal[T backend.Float] struct {
	dev   backend.Reverser[T]
	field backend.Field[T]
	loop  *step.Loop[T]
	tab   *tableau.Tableau
	again bool // stages are evaluated again
	end   int  // the stage that may be the first of the next step, -1 for none
	dense [][]float64

	lambda, carry, out backend.Vec[T] // λ, κ_0 of the step behind, and π
	kappa, z, zero     backend.Vec[T]
	pi, m              []backend.Vec[T]
	theta, cotangents  backend.Vec[T]

	terms  [][]backend.Vec[T] // of κ_i: λ and m_j
	coef   [][]float64
	extra  [][]backend.Vec[T] // of κ_i, from stages for interpolation
	extraA [][]float64
	ones   []float64
	sum    []backend.Vec[T] // of λ
	behind []backend.Vec[T] // carry
	first  []backend.Move[T]
	clear  []backend.Move[T]
	owned  []backend.Vec[T]
}

func (m *reversal[T]) free(dev backend.Backend[T]) {
	if m == nil {
		return
	}
	for _, v := range m.owned {
		dev.Free(v)
	}
	m.owned = nil
}

// memory returns the memory to reverse rec's loop.
func (d *discrete[T]) memory(dev *solver.Device[T]) (*reversal[T], error) {
	loop := d.rec.loop
	if d.mem != nil && d.mem.loop == loop {
		return d.mem, nil
	}
	d.mem.free(dev.Backend)
	d.mem = nil
	m := &reversal[T]{
		dev: dev.Backend.(backend.Reverser[T]), field: dev.Field, loop: loop, tab: loop.Tableau,
		again: d.rec.keep == step.KeepStates, end: -1, dense: loop.Tableau.Dense.P,
	}
	var err error
	vec := func(blocks, rows, cols int) (v backend.Vec[T]) {
		if err == nil {
			if v, err = m.dev.NewVec(blocks, rows, cols); err == nil {
				m.owned = append(m.owned, v)
			}
		}
		return v
	}
	state := func() backend.Vec[T] { return vec(1, loop.Rows, loop.Cols) }
	m.lambda, m.carry, m.out = state(), state(), state()
	m.kappa, m.z, m.zero = state(), state(), state()
	tab, s := m.tab, m.tab.Stages()
	for range loop.K {
		m.m = append(m.m, state())
	}
	if loop.Saves == 0 {
		m.dense = nil
	}
	for range m.dense {
		m.pi = append(m.pi, state())
	}
	if p := m.field.NumParams(); p > 0 {
		m.theta = vec(1, 1, p)
	}
	if loop.Table != nil {
		blocks, rows, cols := loop.Table.Shape()
		m.cotangents = vec(blocks, rows, cols)
	}
	if err != nil {
		m.free(dev.Backend)
		return nil, err
	}
	switch {
	case tab.FSAL:
		m.end = s - 1
	case len(loop.K) > s && tab.EndStage():
		m.end = s
	}
	for i := range loop.K {
		var terms, extra []backend.Vec[T]
		var coef, extraA []float64
		if i < s && tab.B[i] != 0 {
			terms, coef = append(terms, m.lambda), append(coef, tab.B[i])
		}
		for j := i + 1; j < len(loop.K); j++ {
			if a := m.row(j)[i]; a != 0 {
				if j < s {
					terms, coef = append(terms, m.m[j]), append(coef, a)
				} else {
					extra, extraA = append(extra, m.m[j]), append(extraA, a)
				}
			}
		}
		m.terms, m.coef = append(m.terms, terms), append(m.coef, coef)
		m.extra, m.extraA = append(m.extra, extra), append(m.extraA, extraA)
	}
	m.sum = append(append(m.sum, m.m[:s]...), m.out)
	m.behind = []backend.Vec[T]{m.carry}
	m.ones = slices.Repeat([]float64{1}, max(len(m.sum), len(loop.K)))
	m.first = []backend.Move[T]{{Dst: m.carry, Src: m.kappa}}
	m.clear = []backend.Move[T]{{Dst: m.carry, Src: m.zero}}
	d.mem = m
	return m, nil
}

// row is the row of stage j in the tableau, stages for interpolation last.
func (m *reversal[T]) row(j int) []float64 {
	if s := m.tab.Stages(); j >= s {
		return m.tab.Dense.ExtraA[j-s]
	}
	return m.tab.A[j]
}

// at is the instant of stage j of the steps being reversed.
func (m *reversal[T]) at(j int) backend.At {
	at := backend.At{Clock: m.loop.Clock, Rows: backend.Accepted}
	if s := m.tab.Stages(); j >= s {
		at.C, at.Rows = m.tab.Dense.ExtraC[j-s], m.loop.ExtraRows()
	} else {
		at.C = m.tab.C[j]
	}
	return at
}

// state is Y_j.
func (m *reversal[T]) state(j int, at backend.At) backend.Vec[T] {
	if j == 0 {
		return m.loop.Y.Vec
	}
	m.dev.Combine(m.z, m.loop.Y.Vec, at, m.row(j), m.loop.Stages())
	return m.z
}

// step goes back by attempt n.
func (m *reversal[T]) step(n int, through *jumps[T]) error {
	dev, loop, s := m.dev, m.loop, m.tab.Stages()
	all := backend.At{Clock: loop.Clock, Rows: backend.Accepted}
	inside := backend.At{Clock: loop.Clock, Rows: loop.ExtraRows()}
	dev.Back(loop.Clock, loop.Tape, loop.Kept())
	if m.again {
		for j := range loop.K {
			at := m.at(j)
			m.field.Eval(loop.K[j].Vec, at, m.state(j, at))
		}
	}
	if err := through.before(m, n); err != nil {
		return err
	}
	if m.cotangents != nil {
		dev.SaveVJP(loop.Clock, m.dense, m.cotangents, m.out, m.lambda, m.pi)
	}
	if err := through.inside(m, n); err != nil {
		return err
	}
	for j := len(loop.K) - 1; j >= 0; j-- {
		at := m.at(j)
		base := m.zero
		if j < len(m.pi) {
			base = m.pi[j]
		}
		dev.Combine(m.kappa, base, at, m.coef[j], m.terms[j])
		if len(m.extra[j]) > 0 {
			dev.Combine(m.kappa, m.kappa, inside, m.extraA[j], m.extra[j])
		}
		if j == m.end {
			dev.Sum(m.kappa, m.kappa, at, m.ones[:1], m.behind)
		}
		if j == 0 {
			// Not the rows whose first stage belongs to the step before.
			dev.Commit(loop.Clock, backend.Accepted, m.first)
			dev.Commit(loop.Clock, backend.Fresh, m.clear)
			dev.Zero(m.m[0])
			at.Rows = backend.Fresh
		}
		m.field.VJP(at, backend.VJP[T]{Z: m.state(j, at), A: m.kappa, AZ: m.m[j], Alpha: 1, G: m.theta, W: 1})
	}
	dev.Sum(m.lambda, m.lambda, all, m.ones[:len(m.sum)], m.sum)
	if n := len(loop.K) - s; n > 0 {
		dev.Sum(m.lambda, m.lambda, inside, m.ones[:n], m.m[s:])
	}
	return nil
}
