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
)

// Settings says how to compute gradients. Its zero value is the default.
type Settings struct {
	// Solver says how the reverse solve steps: its method, tolerances, stepping and
	// so on. Nil means as the forward solve, with a first step of its own. Its
	// Breakpoints, if nil, are the forward solve's; Dense is ignored.
	Solver *solver.Settings
	// FullNorm lets the error of a_θ choose the step size too, as Chen et al. did.
	// It keeps one copy of a_θ a stage and makes no fewer steps. It needs joint
	// stepping.
	FullNorm bool
	// NoTimes leaves Gradient.Times nil and saves one evaluation of f for every
	// output time that has a cotangent.
	NoTimes bool
}

// Gradient is the derivative of a loss L. The caller owns its memory.
type Gradient[T backend.Float] struct {
	Z0    []T // dL/dz0, row-major [B, D]
	Theta []T // dL/dθ, [P], summed over the batch
	// Times is dL/dt for each of the solution's times, t0 first, summed over the
	// batch, in float64. At a breakpoint of f it belongs to f just after the time.
	Times []float64
	// Drift is how far the reverse solve's z is from the forward solve's.
	Drift Drift
	// Stats count the reverse solve, one entry a sample; under joint stepping all
	// samples share them. An evaluation is one of f with its products.
	Stats []solver.Stats
}

// Adjoint computes gradients of one solver's solutions. It keeps the memory of a
// gradient for the next of the same shape. Its methods may be called from any
// goroutine; they and the solver's run one at a time.
type Adjoint[T backend.Float] struct {
	s       *solver.Solver[T]
	set     solver.Settings
	full    bool
	noTimes bool

	batch int // what mem was made for
	jumps int
	mem   *memory[T]
}

// New prepares gradients of s's solutions. The caller closes it before s.
func New[T backend.Float](s *solver.Solver[T], set Settings) (*Adjoint[T], error) {
	if s == nil {
		return nil, errors.New("adjoint: New needs a solver, and got nil; solver.New makes one")
	}
	forward := s.Settings()
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
	return &Adjoint[T]{s: s, set: own, full: set.FullNorm, noTimes: set.NoTimes}, nil
}

// Gradients computes the gradient of a loss of sol, given its cotangents once:
// [New], [Adjoint.Gradients] and Close with the default settings.
func Gradients[T backend.Float](ctx context.Context, s *solver.Solver[T], sol *solver.Solution[T], dLdz []T) (*Gradient[T], error) {
	a, err := New(s, Settings{})
	if err != nil {
		return nil, err
	}
	g, err := a.Gradients(ctx, sol, dLdz)
	return g, errors.Join(err, a.Close())
}

// Close frees what the Adjoint holds on the device.
func (a *Adjoint[T]) Close() error {
	if a.mem == nil {
		return nil
	}
	return a.s.Exclusive(func(dev backend.Backend[T], _ backend.Field[T], _ *solver.Version) error {
		a.free(dev)
		return nil
	})
}

func (a *Adjoint[T]) free(dev backend.Backend[T]) {
	if a.mem != nil {
		a.mem.free(dev)
		a.mem = nil
	}
}

// Gradients computes the gradient of a loss whose cotangents are dLdz = ∂L/∂z,
// laid out as sol.Y, row-major [len(sol.Times), B, D]. Times whose cotangents are
// all zero cost nothing, not even a shorter step. sol must be this solver's, solved
// with the parameters it has now, and complete.
//
// If the reverse solve fails the error wraps a *[solver.Error] that says for which
// sample, where and what to do, and the Gradient holds what was computed until
// then: of use for finding out why, not for a descent step.
func (a *Adjoint[T]) Gradients(ctx context.Context, sol *solver.Solution[T], dLdz []T) (*Gradient[T], error) {
	if sol == nil {
		return nil, errors.New("adjoint: Gradients needs a solution, and got nil")
	}
	if ctx == nil {
		return nil, errors.New("adjoint: Gradients got a nil context; give context.Background() if nothing shall cancel it")
	}
	var g *Gradient[T]
	err := a.s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], version *solver.Version) (err error) {
		if err = a.check(sol, dLdz, f.Dim(), version); err != nil {
			return err
		}
		g, err = a.gradients(ctx, dev, f, sol, dLdz)
		return err
	})
	if err != nil {
		err = fmt.Errorf("adjoint: %w", err)
	}
	return g, err
}

// check validates the arguments of Gradients.
func (a *Adjoint[T]) check(sol *solver.Solution[T], dLdz []T, dim int, version *solver.Version) error {
	if sol.Dim != dim || sol.Version() != version {
		return errors.New("the solution was not computed by this solver with the parameters it has now; call Solve again after SetParams")
	}
	if len(dLdz) != len(sol.Y) {
		return fmt.Errorf("dLdz has %d elements and the solution %d; lay the cotangents out as the solution, [%d, %d, %d], zero where the loss does not depend on it",
			len(dLdz), len(sol.Y), len(sol.Times), sol.Batch, dim)
	}
	for b, status := range sol.Status {
		if status != solver.Done {
			return fmt.Errorf("sample %d of the solution ended early (%v); a gradient needs all of it: solve again with other settings, or without that sample", b, status)
		}
	}
	for i, v := range dLdz {
		if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
			n := sol.Batch * dim
			return fmt.Errorf("dLdz at time %g, sample %d, component %d is %g; check the loss", sol.Times[i/n], i%n/dim, i%dim, x)
		}
	}
	return nil
}

func (a *Adjoint[T]) gradients(ctx context.Context, dev backend.Backend[T], f backend.Field[T], sol *solver.Solution[T], dLdz []T) (*Gradient[T], error) {
	n := sol.Batch * sol.Dim
	times := sol.Times
	last := len(times) - 1
	g := &Gradient[T]{Z0: make([]T, n), Theta: make([]T, f.NumParams()), Stats: make([]solver.Stats, sol.Batch)}

	// at lists the times where z, f and the cotangent are needed: t0, and those with
	// a cotangent, in the direction of the reverse solve. at[0] is where it starts.
	var at []int
	for i := last; i > 0; i-- {
		if slices.ContainsFunc(dLdz[i*n:(i+1)*n], func(v T) bool { return v != 0 }) {
			at = append(at, i)
		}
	}
	at = append(at, 0)
	mem, err := a.memory(dev, f, sol.Batch, len(at))
	if err != nil {
		return nil, fmt.Errorf("a batch of %d with %d cotangents in time: %w", sol.Batch, len(at)-1, err)
	}
	mem.upload(dev, sol, dLdz, at)

	var failure error
	if times[at[0]] != times[0] {
		if failure, err = a.reverse(ctx, dev, mem, g, times, at); err != nil {
			return nil, err
		}
	} else {
		// Nothing lies between the cotangents and t0.
		for _, i := range at[:len(at)-1] {
			for j := range g.Z0 {
				g.Z0[j] += dLdz[i*n+j]
			}
		}
	}
	if !a.noTimes {
		if g.Times, err = mem.timeGradients(dev, f, sol, dLdz, at, g.Z0); err != nil {
			return nil, err
		}
	}
	for j := range g.Z0 { // a cotangent at t0 belongs to z0 alone
		g.Z0[j] += dLdz[j]
	}
	if failure == nil {
		failure = checkFinite(g)
	}
	return g, failure
}

// reverse runs the augmented solve and fills g. failure is about samples that did
// not reach t0.
func (a *Adjoint[T]) reverse(ctx context.Context, dev backend.Backend[T], mem *memory[T], g *Gradient[T], times []float64, at []int) (failure, err error) {
	loop := mem.loop
	if _, err = loop.Run(ctx, a.span(times, at)); err != nil {
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
	if err = dev.Download(g.Z0, loop.Y.Of[1]); err != nil {
		return failure, err
	}
	if len(g.Theta) > 0 {
		if err = dev.Download(g.Theta, mem.theta); err != nil {
			return failure, err
		}
	}
	g.Drift, err = mem.drift(dev, times, at, a.set.Tolerance())
	return failure, err
}

// span is the reverse solve's: it ends a step on every time with a cotangent and
// on breakpoints. Block j of the tables belongs to at[j].
func (a *Adjoint[T]) span(times []float64, at []int) backend.Span {
	start, end := times[at[0]], times[0]
	sp := a.set.Between(start, end)
	block := map[float64]int{end: -1}
	for j, i := range at[1 : len(at)-1] {
		block[times[i]] = j + 1
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

// checkFinite finds what the error norm does not see.
func checkFinite[T backend.Float](g *Gradient[T]) error {
	for i, v := range g.Theta {
		if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("dL/dθ of parameter %d is %g: the gradient overflowed; scale the loss down, or use float64", i, x)
		}
	}
	return nil
}

// memory returns the memory of a gradient, the last one's if it fits.
func (a *Adjoint[T]) memory(dev backend.Backend[T], f backend.Field[T], batch, jumps int) (*memory[T], error) {
	if a.mem != nil && a.batch == batch && a.jumps == jumps {
		return a.mem, nil
	}
	a.free(dev)
	mem := &memory[T]{}
	sys := &augmented[T]{dev: dev, field: f, mem: mem}
	cfg := step.Config[T]{
		Backend: dev, Tableau: a.set.Tableau, System: sys,
		Tol: a.set.Tolerance(), Control: a.set.Control(),
		Lanes: a.set.Stepping.Lanes(batch), Blocks: 2, Rows: batch, Cols: f.Dim(),
		Poll: a.set.Progress,
	}
	err := mem.allocate(dev, cfg, sys, jumps, a.full)
	if err != nil {
		mem.free(dev)
		return nil, err
	}
	a.mem, a.batch, a.jumps = mem, batch, jumps
	return mem, nil
}
