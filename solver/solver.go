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
	warnings []string

	mu      sync.Mutex
	version *Version
	loop    *step.Loop[T]
	shape   shape // what loop was made for
	closed  bool
}

type shape struct{ batch, saves int }

// Version stands for one solver with one θ: every change of θ makes a new one.
type Version struct{ _ byte }

// New binds sys to dev. sys is an *mlp.Model, a field.Func or whatever else dev
// can run; its parameters are copied. The caller closes the solver, then dev.
func New[T backend.Float](dev backend.Backend[T], sys backend.System[T], set Settings) (*Solver[T], error) {
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
	return &Solver[T]{dev: dev, field: f, dim: f.Dim(), params: f.NumParams(), set: set, warnings: warnings, version: new(Version)}, nil
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
		s.version = new(Version)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("solver: %w: make a new Solver", backend.ErrClosed)
	}
	return do(s.dev, s.field, s.version)
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
		return nil, errors.New("solver: Solve got a nil context; give context.Background() if nothing shall cancel it")
	}
	batch, err := checkInput(s.dim, z0, ts)
	if err != nil {
		return nil, err
	}
	var sol *Solution[T]
	err = s.Exclusive(func(backend.Backend[T], backend.Field[T], *Version) (err error) {
		sol, err = s.solve(ctx, batch, z0, ts)
		return err
	})
	return sol, err
}

func (s *Solver[T]) solve(ctx context.Context, batch int, z0 []T, ts []float64) (*Solution[T], error) {
	sol := &Solution[T]{
		Times: slices.Clone(ts), Batch: batch, Dim: s.dim,
		Status:  make([]Status, batch),
		Stats:   make([]Stats, batch),
		Backend: s.dev.Name(), Method: s.set.name(), Warnings: s.warnings,
		version: s.version, tab: s.set.Tableau,
	}
	if length(ts) == 0 {
		for range ts {
			sol.Y = append(sol.Y, z0...)
		}
		for i := range sol.Status {
			sol.Status[i] = Done
			sol.Stats[i].T = ts[0]
		}
		return sol, nil
	}
	loop, err := s.loopFor(shape{batch: batch, saves: len(ts) - 1})
	if err != nil {
		return nil, err
	}
	s.dev.Upload(loop.Y.Vec, z0)
	if _, err = loop.Run(ctx, s.set.Span(ts)); err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	sol.Y = make([]T, len(ts)*len(z0))
	copy(sol.Y, z0)
	if err := s.dev.Download(sol.Y[len(z0):], loop.Table); err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	lanes := make([]backend.Lane, loop.Lanes)
	if err := s.dev.Lanes(loop.Clock, lanes); err != nil {
		return nil, fmt.Errorf("solver: %w", err)
	}
	if s.set.Dense {
		if sol.dense, err = readDense(s.dev, loop, lanes); err != nil {
			return nil, fmt.Errorf("solver: %w", err)
		}
	}
	return sol, s.finish(ctx, sol, lanes)
}

// loopFor returns a loop of that shape, the last one if it fits.
func (s *Solver[T]) loopFor(want shape) (*step.Loop[T], error) {
	if s.loop != nil && s.shape == want {
		return s.loop, nil
	}
	s.freeLoop()
	loop, err := step.New(step.Config[T]{
		Backend: s.dev, Tableau: s.set.Tableau, System: forward[T]{s.field},
		Tol:     s.set.Tolerance(),
		Control: s.set.Control(),
		Lanes:   s.set.Stepping.Lanes(want.batch), Blocks: 1, Rows: want.batch, Cols: s.dim,
		Saves: want.saves, Dense: s.set.Dense, Poll: s.set.Progress,
	})
	if err != nil {
		return nil, fmt.Errorf("solver: a batch of %d with %d output times: %w", want.batch, want.saves+1, err)
	}
	s.loop, s.shape = loop, want
	return loop, nil
}

// Lanes is the number of lanes for a batch.
func (s Stepping) Lanes(batch int) int {
	if s == PerSample {
		return batch
	}
	return 1
}

// forward is dz/dt = f(z, t; θ) for the stepping loop.
type forward[T backend.Float] struct{ f backend.Field[T] }

func (f forward[T]) Stage(_ int, dst, y step.Block[T], at backend.At) { f.f.Eval(dst.Vec, at, y.Vec) }
func (f forward[T]) Advanced()                                        {}
func (f forward[T]) Moved()                                           {}

// Span translates output times, the first of them t0, and the breakpoints between
// them for a backend.
func (s *Settings) Span(ts []float64) backend.Span {
	t0, t1 := ts[0], ts[len(ts)-1]
	sp := s.Between(t0, t1)
	sp.Saves = ts[1:]
	sp.Stops = append(sp.Breaks[:len(sp.Breaks):len(sp.Breaks)], t1)
	slices.Sort(sp.Stops)
	sp.Stops = slices.Compact(sp.Stops)
	if t1 < t0 {
		slices.Reverse(sp.Stops)
	}
	if sp.Stops[0] == t0 && len(sp.Stops) > 1 {
		sp.Stops = sp.Stops[1:]
	}
	return sp
}

// Between is a span from t0 to t1 with what the settings say of it, steps and
// breakpoints; it has no stops and no saves yet.
func (s *Settings) Between(t0, t1 float64) backend.Span {
	sp := backend.Span{T0: t0, H0: s.FirstStep, MaxStep: s.MaxStep}
	if s.Step > 0 {
		sp.H0 = s.Step
	}
	for _, t := range s.Breakpoints {
		if t >= min(t0, t1) && t <= max(t0, t1) {
			sp.Breaks = append(sp.Breaks, t)
		}
	}
	return sp
}

// finish turns lanes into statuses, statistics and one error.
func (s *Solver[T]) finish(ctx context.Context, sol *Solution[T], lanes []backend.Lane) error {
	for b := range sol.Status {
		l := &lanes[min(b, len(lanes)-1)]
		if j := blank(sol, b, l.T); j >= 0 && l.Status == Done {
			l.Status, l.Row, l.Col = NotFinite, b, j
		}
	}
	for b := range sol.Status {
		l := lanes[min(b, len(lanes)-1)]
		if l.Status == backend.StatusRunning {
			l.Status = Cancelled
		}
		sol.Status[b], sol.Stats[b] = l.Status, StatsOf(l)
	}
	return Failed(lanes, sol.Batch, context.Cause(ctx))
}

// blank sets the outputs of a sample that were not reached to NaN, and what is not
// finite in the others: a state is checked before its step is accepted, but f at the
// end of the last step, which an interpolant may need, can overflow after that. It
// returns the first such component, or -1.
func blank[T backend.Float](sol *Solution[T], b int, t float64) (bad int) {
	bad = -1
	for i, ti := range sol.Times {
		reached := math.Abs(ti-sol.Times[0]) <= math.Abs(t-sol.Times[0])
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

func length(ts []float64) float64 { return math.Abs(ts[len(ts)-1] - ts[0]) }

// checkInput validates a call's arguments and returns the batch's size.
func checkInput[T backend.Float](dim int, z0 []T, ts []float64) (batch int, err error) {
	if len(z0) == 0 {
		return 0, errors.New("solver: the batch is empty; give at least one initial state")
	}
	if len(z0)%dim != 0 {
		return 0, fmt.Errorf("solver: z0 has %d elements, not a multiple of the dimension %d; lay the batch out as [B, %d]", len(z0), dim, dim)
	}
	if len(ts) == 0 {
		return 0, errors.New("solver: no times; give t0 and at least one output time")
	}
	for i, t := range ts {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return 0, fmt.Errorf("solver: ts[%d] is %g; give finite times", i, t)
		}
	}
	if math.IsInf(length(ts), 0) {
		return 0, fmt.Errorf("solver: the span from %g to %g is longer than a float64 can say; rescale the time", ts[0], ts[len(ts)-1])
	}
	if len(ts) > 2 || len(ts) == 2 && ts[0] != ts[1] {
		for i := 1; i < len(ts); i++ {
			if ts[i] == ts[i-1] || (ts[i] > ts[i-1]) != (ts[1] > ts[0]) {
				return 0, fmt.Errorf("solver: ts is not monotone at index %d: %g after %g; sort the times and remove doubles (decreasing times integrate backwards)",
					i, ts[i], ts[i-1])
			}
		}
	}
	return len(z0) / dim, checkFinite("z0", z0, dim)
}

// checkFinite names the first element that is not finite.
func checkFinite[T backend.Float](what string, x []T, dim int) error {
	for i, v := range x {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			if dim > 0 {
				return fmt.Errorf("solver: %s of sample %d, component %d, is %g; give finite numbers", what, i/dim, i%dim, f)
			}
			return fmt.Errorf("solver: %s %d is %g; give finite numbers", what, i, f)
		}
	}
	return nil
}
