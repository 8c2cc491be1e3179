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

// continuous is the method Continuous and, with z from the forward solve's
// interpolant, Interpolating.
type continuous[T backend.Float] struct {
	set    solver.Settings // of the reverse solve
	full   bool
	record *recording[T] // of the forward solve; nil if z is solved for backwards

	mem   *memory[T]
	shape memoryShape // what mem was made for
}

type memoryShape struct {
	batch, jumps int
	ragged       bool
}

func newContinuous[T backend.Float](d *solver.Device[T], set *Settings) (*continuous[T], error) {
	forward := *d.Settings()
	own := forward
	own.FirstStep, own.Progress = 0, nil
	if set.Solver != nil {
		var err error
		if own, _, err = solver.Resolve[T](*set.Solver); err != nil {
			return nil, fmt.Errorf("adjoint: Settings.Solver: %w", err)
		}
		if own.Breakpoints == nil {
			own.Breakpoints = forward.Breakpoints
		}
	}
	own.Dense = false
	if set.FullNorm && own.Stepping == solver.PerSample {
		return nil, errors.New("adjoint: Settings.FullNorm needs one step size for the batch, because dL/dθ is a sum over it; use Joint stepping, or leave FullNorm out")
	}
	c := &continuous[T]{set: own, full: set.FullNorm}
	if set.Method == Interpolating {
		if own.Stepping != forward.Stepping {
			return nil, fmt.Errorf("adjoint: Settings.Solver steps %v and the forward solve %v; Interpolating reads the forward solve's steps and needs the same stepping", own.Stepping, forward.Stepping)
		}
		if len(forward.Tableau.Dense.P) == 0 {
			return nil, fmt.Errorf("adjoint: method %s has no interpolant for Interpolating; use Discrete", forward.Tableau.Name)
		}
		c.record = &recording[T]{keep: step.KeepDense}
	}
	return c, nil
}

func (c *continuous[T]) free(dev backend.Backend[T]) {
	if c.mem != nil {
		c.mem.free(dev)
		c.mem = nil
	}
	if c.record != nil {
		c.record.free()
	}
}

func (c *continuous[T]) solve(ctx context.Context, d *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error) {
	if c.record != nil {
		return c.record.solve(ctx, p)
	}
	return p.Solve(ctx)
}

// A plan says where cotangents enter the reverse solve. Lanes share one list of
// times, or each has its own.
type plan struct {
	ragged bool
	lanes  []route // one if they share it
	rows   int     // places in all routes
}

// route is the reverse solve of a lane: it begins at the first place and ends at the
// last, which is t0; the others are where a cotangent enters.
type route struct {
	row    int   // of tables, for the first place; the others follow
	at     []int // indices of the lane's output times, descending
	times  []float64
	masked bool
}

// planOf plans the gradient of sol. Times without a cotangent are not stopped at.
func planOf[T backend.Float](sol *solver.Solution[T], dLdz []T, masked []bool) plan {
	dim := sol.Dim
	nonzero := func(i, b int) bool {
		row := sol.Row(i, b) * dim
		return slices.ContainsFunc(dLdz[row:row+dim], func(v T) bool { return v != 0 })
	}
	if sol.Samples == nil && masked == nil {
		r := route{times: sol.Times}
		for i := len(sol.Times) - 1; i > 0; i-- {
			for b := range sol.Batch {
				if nonzero(i, b) {
					r.at = append(r.at, i)
					break
				}
			}
		}
		r.at = append(r.at, 0)
		return plan{lanes: []route{r}, rows: len(r.at)}
	}
	p := plan{ragged: true}
	for b := range sol.Batch {
		r := route{times: sol.SampleTimes(b), row: p.rows, masked: masked != nil && masked[b]}
		for i := len(r.times) - 1; i > 0 && !r.masked; i-- {
			if nonzero(i, b) {
				r.at = append(r.at, i)
			}
		}
		r.at = append(r.at, 0)
		p.rows += len(r.at)
		p.lanes = append(p.lanes, r)
	}
	return p
}

// start and end are the span of the reverse solve.
func (r *route) start() float64 { return r.times[r.at[0]] }
func (r *route) end() float64   { return r.times[0] }

// moves reports whether any lane has something to integrate.
func (p *plan) moves() bool {
	return slices.ContainsFunc(p.lanes, func(r route) bool { return r.start() != r.end() })
}

// span is the reverse solve of a lane: it ends a step on every time with a cotangent
// and on breakpoints.
func (r *route) span(set *solver.Settings, ragged bool) backend.Span {
	start, end := r.start(), r.end()
	sp := set.Between(start, end)
	if start == end {
		sp.Stops = []float64{end}
		return sp
	}
	block := map[float64]int{end: -1}
	for j, i := range r.at[1 : len(r.at)-1] {
		block[r.times[i]] = j + 1
		if ragged {
			block[r.times[i]] += r.row
		}
	}
	for _, t := range sp.Breaks {
		if _, taken := block[t]; !taken && t != start {
			block[t] = -1
		}
	}
	for t := range block {
		sp.Stops = append(sp.Stops, t)
	}
	slices.Sort(sp.Stops)
	if end < start {
		slices.Reverse(sp.Stops)
	}
	for _, t := range sp.Stops {
		sp.Blocks = append(sp.Blocks, block[t])
	}
	return sp
}

func (c *continuous[T]) spans(p *plan, samples []solver.Sample) []backend.Span {
	spans := make([]backend.Span, len(p.lanes))
	for b := range p.lanes {
		set := c.set
		if samples != nil {
			x := &samples[b]
			set.Breakpoints = slices.Concat(c.set.Breakpoints, x.Breakpoints)
			if x.MaxStep > 0 {
				set.MaxStep = x.MaxStep
			}
			spans[b] = p.lanes[b].span(&set, p.ragged)
			spans[b].Tol = backend.Tolerance{Rel: x.RTol, Abs: x.ATol}
			continue
		}
		spans[b] = p.lanes[b].span(&set, p.ragged)
	}
	return spans
}

func (c *continuous[T]) gradient(ctx context.Context, d *solver.Device[T], sol *solver.Solution[T], dLdz []T, _ [][]EventCotangent[T], g *Gradient[T]) error {
	p := planOf(sol, dLdz, g.Masked)
	if p.ragged && c.set.Stepping != solver.PerSample {
		return errors.New("samples with times of their own, or some that failed, need a reverse solve that steps each alone; set Settings.Solver.Stepping to PerSample")
	}
	if c.record != nil {
		if err := c.record.have(ctx, d, sol); err != nil {
			return err
		}
		g.Memory = c.record.bytes
	}
	if !p.moves() {
		// Nothing lies between the cotangents and t0.
		for b := range sol.Batch {
			for i := range sol.SampleTimes(b)[1:] {
				for j, v := range dLdz[sol.Row(i+1, b)*sol.Dim:][:sol.Dim] {
					g.Z0[b*sol.Dim+j] += v
				}
			}
		}
		return nil
	}
	mem, err := c.memory(d, memoryShape{sol.Batch, p.rows, p.ragged})
	if err != nil {
		return fmt.Errorf("a batch of %d with %d cotangents in time: %w", sol.Batch, p.rows, err)
	}
	mem.upload(d.Backend, sol, dLdz, &p)
	failure, err := c.reverse(ctx, d, mem, sol, &p, g)
	if err != nil {
		return err
	}
	return failure
}

// reverse runs the augmented solve and fills g. failure is about samples that did
// not reach t0.
func (c *continuous[T]) reverse(ctx context.Context, d *solver.Device[T], mem *memory[T], sol *solver.Solution[T], p *plan, g *Gradient[T]) (failure, err error) {
	dev, loop := d.Backend, mem.loop
	if _, err = loop.Run(ctx, c.spans(p, sol.Samples)...); err != nil {
		return nil, err
	}
	lanes := make([]backend.Lane, loop.Lanes)
	if err = dev.Lanes(loop.Clock, lanes); err != nil {
		return nil, err
	}
	for b := range g.Stats {
		g.Stats[b] = solver.StatsOf(lanes[min(b, len(lanes)-1)])
	}
	if failure = solver.Failed(lanes, loop.Rows, context.Cause(ctx)); failure != nil {
		failure = fmt.Errorf("reverse solve: %w", failure)
	}
	if err = dev.Download(g.Z0, mem.a()); err != nil {
		return failure, err
	}
	for b, out := range g.Masked {
		if out {
			clear(g.Z0[b*sol.Dim:][:sol.Dim])
		}
	}
	if len(g.Theta) > 0 {
		if err = dev.Download(g.Theta, mem.theta); err != nil {
			return failure, err
		}
	}
	if c.record == nil {
		g.Drift, err = mem.drift(dev, sol, p, c.set.Tolerance())
	}
	return failure, err
}

// memory returns the memory of a gradient, the last one's if it fits.
func (c *continuous[T]) memory(d *solver.Device[T], want memoryShape) (*memory[T], error) {
	if c.mem != nil && c.shape == want {
		return c.mem, nil
	}
	dev, f := d.Backend, d.Field
	if c.mem != nil {
		c.mem.free(dev)
		c.mem = nil
	}
	mem := &memory[T]{}
	sys := &augmented[T]{dev: dev, field: f, mem: mem, record: c.record}
	cfg := step.Config[T]{
		Backend: dev, Tableau: c.set.Tableau, System: sys,
		Tol: c.set.Tolerance(), Control: c.set.Control(),
		Lanes: c.set.Stepping.Lanes(want.batch), Blocks: 2, Rows: want.batch, Cols: f.Dim(),
		Poll: c.set.Progress,
	}
	if c.record != nil {
		cfg.Blocks = 1
	}
	if err := mem.allocate(dev, cfg, sys, want, c.full); err != nil {
		mem.free(dev)
		size := step.Size(cfg) + mem.size - mem.fixed + timesSize[T](want.batch, f.Dim(), want.jumps, want.ragged)
		return nil, step.TooLarge(err, dev, want.batch, size, mem.fixed)
	}
	c.mem, c.shape = mem, want
	return mem, nil
}
