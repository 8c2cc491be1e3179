package adjoint

import (
	"context"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
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
	rec    recording[T]
	again  *repetition[T] // rec's hook, where it makes attempts again and there are events
	mem    *reversal[T]   // made for rec's loop
	replay replay[T]
}

func newDiscrete[T backend.Float](dev *solver.Device[T], set *Settings) (*discrete[T], error) {
	d := &discrete[T]{rec: recording[T]{keep: step.KeepStages}}
	switch {
	case set.Store > States:
		return nil, fmt.Errorf("adjoint: Settings.Store is %d; use Stages or States", set.Store)
	case set.Budget < 0 || set.HostBudget < 0 || set.HostBudget > 0 && set.Budget == 0:
		return nil, fmt.Errorf("adjoint: Settings.Budget is %d bytes and HostBudget %d; give positive numbers, 0 for no limit, and no HostBudget without a Budget", set.Budget, set.HostBudget)
	case set.Budget > 0:
		d.rec.limit = &checkpoints[T]{budget: set.Budget, host: set.HostBudget}
		d.rec.keep = step.KeepStates
		if events := solver.EventsOf(dev); len(events) > 0 {
			d.again = &repetition[T]{events: events}
			d.rec.with = func(c *step.Config[T]) { d.again.inner, c.Hook = c.Hook, d.again }
		}
	case set.Store == States:
		d.rec.keep = step.KeepStates
	}
	return d, nil
}

func (d *discrete[T]) free(dev backend.Backend[T]) {
	d.replay.close()
	d.mem.free(dev)
	d.mem = nil
	d.rec.free()
}

func (d *discrete[T]) solve(ctx context.Context, dev *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error) {
	sol, err := d.rec.solve(ctx, p)
	return sol, d.short(dev, err)
}

func (d *discrete[T]) gradient(ctx context.Context, dev *solver.Device[T], sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T], g *Gradient[T]) (err error) {
	defer func() { err = d.short(dev, err) }()
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
		d.again.of(sol)
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

// memory returns the memory to reverse rec's loop.
func (d *discrete[T]) memory(dev *solver.Device[T]) (*reversal[T], error) {
	if d.mem != nil && d.mem.loop == d.rec.loop {
		return d.mem, nil
	}
	d.mem.free(dev.Backend)
	var err error
	d.mem, err = newReversal(dev, d.rec.loop, d.rec.keep == step.KeepStates)
	return d.mem, err
}

// reverse goes back over all steps, from the cotangents in the table. stats, one entry
// a sample, count the evaluations.
func (d *discrete[T]) reverse(ctx context.Context, skip []bool, stats []solver.Stats, through *jumps[T]) (err error) {
	defer func() { d.rec.lost = d.rec.lost || err != nil }()
	loop, m := d.rec.loop, d.mem
	dev := m.dev
	before := dev.MemoryUsed()
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
		if err := m.back(ctx, q == last, attempts, first, skip, through); err != nil {
			return err
		}
		if err := count(1); err != nil {
			return err
		}
	}
	d.rec.bytes += dev.MemoryUsed() - before
	return nil
}
