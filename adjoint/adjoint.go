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

// Settings says how to compute gradients. Its zero value is the default.
type Settings struct {
	// Method is how; the zero value is Discrete wherever the backend can do it.
	Method Method

	// Store says what Discrete keeps of every step.
	Store Store
	// Budget, if not 0, limits the bytes that Discrete keeps of the steps. Where it
	// is not enough for the state of every step, states are kept at some of them,
	// and the steps between are made again. The gradient is the same to the last bit,
	// except that a device which goes back over all steps on a tape at once then sums
	// dL/dθ in another order. A budget that is too small for that is refused with the
	// smallest one.
	// HostBudget is for more of such states, in the host's memory, once the device's
	// is used up; it needs a Budget.
	Budget, HostBudget int64

	// StepSizes differentiates the sizes of the steps too, which Discrete otherwise holds:
	// the gradient is then that of the adaptive solve as a program, as finite differences
	// of it see it where no decision changes, with rejected attempts, the error norm, the
	// controller, the choice of the first step and the times of all stages; and
	// Gradient.Times is what moves when the times do. What limits a size has derivative
	// zero. The gradients with and without differ by about the error of either: this one is
	// for the analysis of solves at loose tolerances, and no better to train by. It keeps
	// all attempts in host memory, waits for the device at every stage, and does not go
	// together with Store, Budget or events. Steps of a fixed size have nothing to
	// differentiate.
	StepSizes bool

	// Solver says how the reverse solve of Continuous and Interpolating steps: its
	// method, tolerances, stepping and so on. Nil means as the forward solve, with a
	// first step of its own. Its Breakpoints, if nil, are the forward solve's; Dense
	// is ignored.
	Solver *solver.Settings
	// FullNorm lets the error of a_θ choose the step size of Continuous too, as Chen
	// et al. did. It keeps one copy of a_θ a stage and makes no fewer steps. It needs
	// joint stepping.
	FullNorm bool

	// Coupling is λ of Reversible, above 0 and up to 1; 0 means 0.99. On the way back
	// rounding errors grow by 1/λ a step from one output time to the one before, 2·10⁴
	// times in 1000 steps: Gradient.Drift says how far they came. On the way forward what
	// the two copies of the state differ by is damped by λ, and where the solution
	// contracts too strongly for that it grows: Gradient.Gap says how far. More output
	// times help against the first, shorter steps or a smaller λ against the second.
	Coupling float64

	// NoTimes leaves Gradient.Times nil and saves one evaluation of f for every
	// output time that has a cotangent.
	NoTimes bool
}

// Gradient is the derivative of a loss L. The caller owns its memory.
type Gradient[T backend.Float] struct {
	Z0    []T // dL/dz0, row-major [B, D]
	Theta []T // dL/dθ, [P], summed over the batch
	// Times is dL/dt for each of the solution's times, t0 first, summed over the
	// batch, in float64; where samples have their own times, sample after sample.
	// At a breakpoint of f it belongs to f just after the time. It comes from f at the
	// times, as that of the exact solution does, but with Settings.StepSizes.
	Times []float64
	// Events is dL/dθ of the solver's events, [event][parameter], summed over the batch;
	// nil if the solver has none.
	Events [][]T
	// Masked says which samples the gradient leaves out, because their solve failed:
	// their dL/dz0 is 0 and they have no part in dL/dθ. It is nil if there are none.
	Masked []bool
	Method Method // the one used
	// Memory is the peak of bytes kept of the forward solve's steps on the device,
	// HostMemory that on the host's side.
	Memory, HostMemory int64
	// Drift is how far the reverse solve's z is from the forward solve's, where
	// Method is Continuous or Reversible.
	Drift Drift
	// Gap is how far the two copies of the state are from each other in the forward
	// solve, where Method is Reversible: where it is many tolerances, the error of the
	// solution is too, whatever the steps' own errors are.
	Gap Drift
	// Stats count the work after the forward solve, one entry a sample; under joint
	// stepping all samples share them. An evaluation is one of f or of f with its
	// products. Accepted and rejected steps are those of the reverse solve.
	Stats []solver.Stats
}

// Adjoint computes gradients of one solver's solutions. It keeps the memory of a
// gradient for the next of the same shape. Its methods may be called from any
// goroutine; they and the solver's run one at a time.
type Adjoint[T backend.Float] struct {
	s       *solver.Solver[T]
	set     Settings
	reverse reverser[T]
}

// reverser is a method at work on a device. Its methods are called one at a time.
type reverser[T backend.Float] interface {
	// solve is Solver.Solve or SolveEach, and keeps what gradient needs.
	solve(ctx context.Context, d *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error)
	// gradient fills g from cotangents laid out as sol.Y, except for Times, which it may
	// leave to the caller; those of masked samples are zero. It leaves out of g.Z0 the cotangents at t0.
	gradient(ctx context.Context, d *solver.Device[T], sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T], g *Gradient[T]) error
	// solveOnDevice and thetaOnDevice are [Adjoint.SolveOnDevice] and [Adjoint.OnDevice].
	solveOnDevice(ctx context.Context, d *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error)
	thetaOnDevice(ctx context.Context, d *solver.Device[T], ts []float64, jumps []int, states, dLdz backend.Vec[T]) (backend.Vec[T], error)
	// deviceStep is [Adjoint.StepOnDevice].
	deviceStep(ctx context.Context, d *solver.Device[T], s *DeviceStep[T]) error
	free(dev backend.Backend[T])
}

// New prepares gradients of s's solutions. The caller closes it before s.
func New[T backend.Float](s *solver.Solver[T], set Settings) (*Adjoint[T], error) {
	if s == nil {
		return nil, errors.New("adjoint: New needs a solver, and got nil; solver.New makes one")
	}
	a := &Adjoint[T]{s: s, set: set}
	err := s.OnDevice(func(d *solver.Device[T]) (err error) {
		_, can := d.Backend.(backend.Reverser[T])
		if a.set.Method == Auto {
			a.set.Method = Continuous
			if can {
				a.set.Method = Discrete
			}
		}
		if a.set.Method > Reversible {
			return fmt.Errorf("adjoint: Settings.Method is %d; use Auto, Discrete, Continuous, Interpolating or Reversible", set.Method)
		}
		if !can && a.set.Method != Continuous {
			return fmt.Errorf("adjoint: method %v on %s: %w; use Continuous", a.set.Method, d.Backend.Name(), backend.ErrUnsupported)
		}
		switch discrete, exact := a.set.Method == Discrete, a.set.Method == Discrete || a.set.Method == Reversible; {
		case exact && (set.Solver != nil || set.FullNorm):
			return fmt.Errorf("adjoint: Settings.Solver and FullNorm are about a reverse solve, and method %v makes none; leave them out, or set Method to Continuous", a.set.Method)
		case set.StepSizes && !discrete:
			return fmt.Errorf("adjoint: Settings.StepSizes is about Discrete; leave it out for method %v", a.set.Method)
		case set.Coupling != 0 && a.set.Method != Reversible:
			return fmt.Errorf("adjoint: Settings.Coupling is about Reversible; leave it out for method %v", a.set.Method)
		case !discrete && (set.Store != 0 || set.Budget != 0 || set.HostBudget != 0):
			return fmt.Errorf("adjoint: Settings.Store and Budget are about Discrete; leave them out for method %v", a.set.Method)
		case set.FullNorm && a.set.Method != Continuous:
			return fmt.Errorf("adjoint: Settings.FullNorm is about Continuous; leave it out for method %v", a.set.Method)
		}
		a.set.StepSizes = set.StepSizes && d.Settings().Step == 0
		switch {
		case a.set.StepSizes:
			a.reverse, err = newStepSizes(d, &a.set)
		case a.set.Method == Discrete:
			a.reverse, err = newDiscrete(d, &a.set)
		case a.set.Method == Reversible:
			a.reverse, err = newReversible(d, &a.set)
		default:
			a.reverse, err = newContinuous(d, &a.set)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
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

// Method is the method in use.
func (a *Adjoint[T]) Method() Method { return a.set.Method }

// Close frees what the Adjoint holds on the device.
func (a *Adjoint[T]) Close() error {
	return a.s.OnDevice(func(d *solver.Device[T]) error {
		a.reverse.free(d.Backend)
		return nil
	})
}

// Solve is [solver.Solver.Solve], and keeps what the gradient of this solution needs:
// Gradients does not have to solve again. The next Solve of a replaces it.
func (a *Adjoint[T]) Solve(ctx context.Context, z0 []T, ts []float64) (*solver.Solution[T], error) {
	return a.solve(ctx, z0, ts, nil)
}

// SolveEach is [solver.Solver.SolveEach] in the way of Solve.
func (a *Adjoint[T]) SolveEach(ctx context.Context, z0 []T, samples []solver.Sample) (*solver.Solution[T], error) {
	if samples == nil {
		samples = []solver.Sample{}
	}
	return a.solve(ctx, z0, nil, samples)
}

func (a *Adjoint[T]) solve(ctx context.Context, z0 []T, ts []float64, samples []solver.Sample) (sol *solver.Solution[T], err error) {
	if ctx == nil {
		return nil, errNoContext
	}
	err = a.s.OnDevice(func(d *solver.Device[T]) error {
		p, err := d.Problem(z0, ts, samples)
		if err != nil {
			return err
		}
		sol, err = a.reverse.solve(ctx, d, p)
		if err != nil && !isFailure(err) {
			return fmt.Errorf("adjoint: %w", err)
		}
		return err
	})
	return sol, err
}

var errNoContext = errors.New("adjoint: got a nil context; give context.Background() if nothing shall cancel it")

// Gradients computes the gradient of a loss whose cotangents are dLdz = ∂L/∂z,
// laid out as sol.Y. Times whose cotangents are all zero cost nothing, not even a
// shorter step. sol must be this solver's, solved with the parameters it has now. A
// method that needs the forward solve's steps makes them once more, if sol is not
// from the last Solve of a.
//
// Samples that failed are left out, see Gradient.Masked; where samples step jointly,
// or none is left, that is an error. If the reverse solve fails the error wraps a
// *[solver.Error] that says for which sample, where and what to do, and the Gradient
// holds what was computed until then: of use for finding out why, not for a descent
// step.
func (a *Adjoint[T]) Gradients(ctx context.Context, sol *solver.Solution[T], dLdz []T) (*Gradient[T], error) {
	return a.gradients(ctx, sol, dLdz, nil)
}

func (a *Adjoint[T]) gradients(ctx context.Context, sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T]) (*Gradient[T], error) {
	if sol == nil {
		return nil, errors.New("adjoint: Gradients needs a solution, and got nil")
	}
	if ctx == nil {
		return nil, errNoContext
	}
	var g *Gradient[T]
	err := a.s.OnDevice(func(d *solver.Device[T]) (err error) {
		masked, err := a.check(d, sol, dLdz)
		if err != nil {
			return err
		}
		if err := a.checkEvents(sol, dLdz, events); err != nil {
			return err
		}
		g, err = a.gradient(ctx, d, sol, dLdz, events, masked)
		return err
	})
	if err != nil {
		err = fmt.Errorf("adjoint: %w", err)
	}
	return g, err
}

// check validates the arguments of Gradients and finds the samples that failed.
func (a *Adjoint[T]) check(d *solver.Device[T], sol *solver.Solution[T], dLdz []T) (masked []bool, err error) {
	if sol.Dim != d.Field.Dim() || sol.Version() != d.Version() {
		return nil, errors.New("the solution was not computed by this solver with the parameters it has now; call Solve again after SetParams")
	}
	if len(dLdz) != len(sol.Y) {
		return nil, fmt.Errorf("dLdz has %d elements and the solution %d; lay the cotangents out as Solution.Y, zero where the loss does not depend on it",
			len(dLdz), len(sol.Y))
	}
	failed := 0
	for b, status := range sol.Status {
		if status == solver.Done || status == solver.Stopped {
			continue
		}
		if d.Settings().Stepping == solver.Joint {
			return nil, fmt.Errorf("the solve ended early (%v), and the batch with it, because it stepped jointly; a gradient needs all of it: solve again with other settings or PerSample stepping", status)
		}
		if masked == nil {
			masked = make([]bool, sol.Batch)
		}
		masked[b] = true
		failed++
	}
	if failed == sol.Batch {
		return nil, fmt.Errorf("every sample of the solution ended early (sample 0: %v); solve again with other settings", sol.Status[0])
	}
	for b := range sol.Batch {
		if masked != nil && masked[b] {
			continue
		}
		for i, t := range sol.SampleTimes(b) {
			row := sol.Row(i, b) * sol.Dim
			for j, v := range dLdz[row : row+sol.Dim] {
				if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
					return nil, fmt.Errorf("dLdz at time %g, sample %d, component %d is %g; check the loss", t, b, j, x)
				}
			}
		}
	}
	return masked, nil
}

func (a *Adjoint[T]) gradient(ctx context.Context, d *solver.Device[T], sol *solver.Solution[T], dLdz []T, events [][]EventCotangent[T], masked []bool) (*Gradient[T], error) {
	g := &Gradient[T]{
		Z0: make([]T, sol.Batch*sol.Dim), Theta: make([]T, d.Field.NumParams()), Stats: make([]solver.Stats, sol.Batch),
		Masked: masked, Method: a.set.Method,
	}
	if masked != nil {
		dLdz = slices.Clone(dLdz)
		for b, out := range masked {
			for i := range sol.SampleTimes(b) {
				if row := sol.Row(i, b) * sol.Dim; out {
					clear(dLdz[row : row+sol.Dim])
				}
			}
		}
	}
	failure := a.reverse.gradient(ctx, d, sol, dLdz, events, g)
	if failure != nil && !isFailure(failure) {
		return nil, failure
	}
	if !a.set.NoTimes && g.Times == nil {
		var err error
		if g.Times, err = timeGradients(d, sol, dLdz, g); err != nil {
			return nil, err
		}
	}
	for b := range sol.Batch { // a cotangent at t0 belongs to z0 alone
		for j, v := range dLdz[sol.Row(0, b)*sol.Dim:][:sol.Dim] {
			g.Z0[b*sol.Dim+j] += v
		}
	}
	if failure == nil {
		failure = checkFinite(g)
	}
	return g, failure
}

// isFailure reports whether err is about samples, beside a gradient of the others.
func isFailure(err error) bool {
	var failed *solver.Error
	return errors.As(err, &failed)
}

// checkFinite finds what no error norm has seen.
func checkFinite[T backend.Float](g *Gradient[T]) error {
	for _, x := range []struct {
		name string
		of   []T
	}{{"z0 of element", g.Z0}, {"θ of parameter", g.Theta}} {
		for i, v := range x.of {
			if v := float64(v); math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("dL/d%s %d is %g: the gradient overflowed; scale the loss down, or use float64", x.name, i, v)
			}
		}
	}
	return nil
}
