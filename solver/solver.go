package solver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
)

// Solver solves one right-hand side on one backend. It keeps the memory of a
// solve for the next of the same shape. Its methods may be called from any
// goroutine; they run one at a time.
type Solver[T backend.Float] struct {
	dev      backend.Backend[T]
	field    backend.Field[T]
	dim      int
	params   int
	set      Settings
	events   []Event[T]
	warnings []string

	mu      sync.Mutex
	version *Version // nil: a new one that nobody has asked for
	loop    *step.Loop[T]
	shape   shape // what loop was made for
	closed  bool
	device  Device[T]
}

type shape struct {
	batch, saves int
	ragged       bool
	keep         step.Keep
}

// Version stands for one solver with one θ: every change of θ makes a new one.
type Version struct{ _ byte }

// New binds sys to dev. sys is an *mlp.Model, a field.Func or whatever else dev
// can run; its parameters are copied. events, if there are any, are looked for in all
// solves. The caller closes the solver, then dev.
func New[T backend.Float](dev backend.Backend[T], sys backend.System[T], set Settings, events ...Event[T]) (*Solver[T], error) {
	if isNil(dev) || isNil(sys) {
		return nil, errors.New("solver: New needs a backend and a right-hand side, and got nil; solver.Auto opens a backend")
	}
	set, warnings, err := Resolve[T](set)
	if err != nil {
		return nil, err
	}
	if err := checkFinite("parameter", sys.Params(), 0); err != nil {
		return nil, err
	}
	dev, f, remark, err := bind(dev, sys)
	if err != nil {
		return nil, err
	}
	if remark != "" {
		warnings = append(warnings, remark)
	}
	if err := checkEvents(events, &set, dev); err != nil {
		f.Close()
		return nil, err
	}
	s := &Solver[T]{
		dev: dev, field: f, dim: f.Dim(), params: f.NumParams(), set: set,
		events: slices.Clone(events), warnings: warnings,
	}
	s.device = Device[T]{Backend: dev, Field: f, s: s}
	return s, nil
}

// isNil reports whether x is nil or holds a nil pointer, as of a model whose error
// was not looked at.
func isNil(x any) bool {
	v := reflect.ValueOf(x)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// Dim is the number of components of the state, D.
func (s *Solver[T]) Dim() int { return s.dim }

// NumParams is the length of θ, P.
func (s *Solver[T]) NumParams() int { return s.params }

// Settings returns the settings with all defaults filled in.
func (s *Solver[T]) Settings() Settings { return s.set }

// Close frees what the solver holds on the device. The backend stays open.
func (s *Solver[T]) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.freeLoop()
		s.field.Close()
	}
	return nil
}

func (s *Solver[T]) freeLoop() {
	if s.loop != nil {
		s.loop.Free()
		s.loop = nil
	}
}

// SetParams replaces θ, which is copied.
func (s *Solver[T]) SetParams(theta []T) error {
	if len(theta) != s.params {
		return fmt.Errorf("solver: SetParams got %d parameters, but the right-hand side has %d", len(theta), s.params)
	}
	if err := checkFinite("parameter", theta, 0); err != nil {
		return err
	}
	return s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], _ *Version) error {
		s.version = nil
		dev.Upload(f.Params(), theta)
		return dev.Sync()
	})
}

// Params copies θ from the device.
func (s *Solver[T]) Params() ([]T, error) {
	theta := make([]T, s.params)
	err := s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], _ *Version) error {
		return dev.Download(theta, f.Params())
	})
	if err != nil {
		return nil, err
	}
	return theta, nil
}

// Exclusive calls do with the backend and the field, while no other method of
// the solver runs. It is how package adjoint works on the same device. version
// changes with θ; a Solution has the one it was computed with.
func (s *Solver[T]) Exclusive(do func(dev backend.Backend[T], f backend.Field[T], version *Version) error) error {
	return s.OnDevice(func(d *Device[T]) error { return do(d.Backend, d.Field, d.Version()) })
}

// Solve integrates the batch z0, row-major [B, D], from ts[0] and returns the
// states at all of ts, the first included. ts is strictly increasing or strictly
// decreasing; one time, or the same time twice, is a span of length zero.
//
// If samples fail the error is an *[Error] that says which, where and what to do,
// and the Solution holds everything that was computed. If ctx ends, the samples
// still under way have status Cancelled and the error wraps the cause.
func (s *Solver[T]) Solve(ctx context.Context, z0 []T, ts []float64) (*Solution[T], error) {
	if ctx == nil {
		return nil, errNoContext
	}
	batch, err := checkInput(s.dim, z0, ts)
	if err != nil {
		return nil, err
	}
	return s.solve(ctx, z0, grid{batch: batch, times: ts})
}

// SolveEach integrates the batch z0, row-major [B, D], each sample over times of its
// own; samples has one entry for each. It needs PerSample stepping. The solution's
// memory is in proportion to the number of all times together.
//
// Errors are those of [Solver.Solve].
func (s *Solver[T]) SolveEach(ctx context.Context, z0 []T, samples []Sample) (*Solution[T], error) {
	if ctx == nil {
		return nil, errNoContext
	}
	if err := s.checkSamples(z0, samples); err != nil {
		return nil, err
	}
	return s.solve(ctx, z0, grid{batch: len(samples), samples: cloneSamples(samples)})
}

var errNoContext = errors.New("solver: a solve got a nil context; give context.Background() if nothing shall cancel it")

func (s *Solver[T]) solve(ctx context.Context, z0 []T, g grid) (sol *Solution[T], err error) {
	err = s.OnDevice(func(d *Device[T]) (err error) {
		sol, err = d.solve(ctx, z0, g)
		return err
	})
	return sol, err
}

func (d *Device[T]) solve(ctx context.Context, z0 []T, g grid) (*Solution[T], error) {
	s, keep := d.s, step.KeepNothing
	if s.set.Dense {
		keep = step.KeepDense
	}
	if g.empty() {
		return d.run(ctx, nil, z0, g, nil)
	}
	loop, err := s.loopFor(g.shape(keep))
	if err != nil {
		return nil, err
	}
	sol, err := d.run(ctx, loop, z0, g, func(spans []backend.Span) error {
		if _, err := loop.Run(ctx, spans...); err != nil {
			return fmt.Errorf("solver: %w", err)
		}
		return nil
	})
	if sol == nil || !s.set.Dense {
		return sol, err
	}
	dense, fail := readDense(s.dev, loop, sol.reached)
	if fail != nil {
		return nil, fmt.Errorf("solver: %w", fail)
	}
	sol.dense = dense
	return sol, err
}

// run solves with a loop that was made for g, nil if there is nothing to integrate;
// drive runs it.
func (d *Device[T]) run(ctx context.Context, loop *step.Loop[T], z0 []T, g grid, drive func([]backend.Span) error) (*Solution[T], error) {
	s := d.s
	sol := s.newSolution(g, z0)
	if loop == nil {
		for b := range sol.Status {
			sol.Status[b] = Done
			sol.Stats[b].T = sol.SampleTimes(b)[0]
		}
		return sol, nil
	}
	s.dev.Upload(loop.Y.Of[0], z0)
	if err := drive(g.spans(&s.set)); err != nil {
		return nil, err
	}
	sol.Fused = loop.Fused()
	if loop.Table != nil {
		if err := d.Fetch(sol, sol.Y, loop.Table); err != nil {
			return nil, fmt.Errorf("solver: %w", err)
		}
	}
	sol.reached = make([]backend.Lane, loop.Lanes)
	if err := s.dev.Lanes(loop.Clock, sol.reached); err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	err := s.finish(ctx, sol, sol.reached)
	hook := loop.Hook
	if outer, ok := hook.(interface{ Inner() step.Hook[T] }); ok {
		hook = outer.Inner()
	}
	if c, ok := hook.(*locator[T]); ok {
		sol.Events, c.found = c.found, nil
		c.blame(err)
	}
	return sol, err
}

// loopFor returns a loop of that shape, the last one if it fits.
func (s *Solver[T]) loopFor(want shape) (*step.Loop[T], error) {
	if s.loop != nil && s.shape == want {
		return s.loop, nil
	}
	s.freeLoop()
	loop, err := s.newLoop(want, nil)
	if err != nil {
		return nil, err
	}
	s.loop, s.shape = loop, want
	return loop, nil
}

// newLoop allocates a loop; with, if not nil, changes what it is made of.
func (s *Solver[T]) newLoop(want shape, with func(*step.Config[T])) (*step.Loop[T], error) {
	var hook step.Hook[T]
	if len(s.events) > 0 {
		hook = newLocator(s.events)
	}
	cfg := step.Config[T]{
		Hook: hook, Backend: s.dev, Tableau: s.set.Tableau, System: step.Forward[T]{Field: s.field},
		Tol:     s.set.Tolerance(),
		Control: s.set.Control(),
		Lanes:   s.set.Stepping.Lanes(want.batch), Blocks: 1, Rows: want.batch, Cols: s.dim,
		Saves: want.saves, Ragged: want.ragged, Keep: want.keep, Poll: s.set.Progress, Fusion: s.set.Fusion,
	}
	if with != nil {
		with(&cfg)
	}
	loop, err := step.New(cfg)
	if err != nil {
		err = step.TooLarge(err, s.dev, want.batch, step.Size(cfg), 0)
		return nil, fmt.Errorf("solver: a batch of %d with %d outputs: %w", want.batch, want.saves, err)
	}
	return loop, nil
}

// Lanes is the number of lanes for a batch.
func (s Stepping) Lanes(batch int) int {
	if s == PerSample {
		return batch
	}
	return 1
}

// finish turns lanes into statuses, statistics and one error.
func (s *Solver[T]) finish(ctx context.Context, sol *Solution[T], lanes []backend.Lane) error {
	for b := range sol.Status {
		l := &lanes[min(b, len(lanes)-1)]
		sol.Stats[b] = StatsOf(*l)
		if j := blank(sol, b); j >= 0 && (l.Status == Done || l.Status == Stopped) {
			l.Status, l.Row, l.Col = NotFinite, b, j
		}
	}
	for b := range sol.Status {
		l := lanes[min(b, len(lanes)-1)]
		if l.Status == backend.StatusRunning {
			l.Status = Cancelled
		}
		sol.Status[b] = l.Status
	}
	return Failed(lanes, sol.Batch, context.Cause(ctx))
}

// blank sets the outputs of a sample that were not reached to NaN, and what is not
// finite in the others: a state is checked before its step is accepted, but f at the
// end of the last step, which an interpolant may need, can overflow after that. It
// returns the first such component, or -1.
func blank[T backend.Float](sol *Solution[T], b int) (bad int) {
	bad = -1
	for i := range sol.SampleTimes(b) {
		reached := sol.Reached(i, b)
		for j, v := range sol.Sample(i, b) {
			if reached && v-v == 0 {
				continue
			}
			if reached && bad < 0 {
				bad = j
			}
			sol.Sample(i, b)[j] = T(math.NaN())
		}
	}
	return bad
}
