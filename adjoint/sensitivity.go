package adjoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Sensitivity integrates derivatives of a solution forwards in time, along with it: for
// a direction (v, w) of (z0, θ),
//
//	dS/dt = (∂f/∂z)·S + (∂f/∂θ)·w,   S(t0) = v
//
// is the derivative of z(t) along it (the variational equation; Hairer, Nørsett & Wanner,
// Solving ODEs I, section I.14), a Jacobian-vector product of the solve. Each costs
// about as much as another solve, whatever the number of outputs and losses: it is the
// way to go for few directions, an [Adjoint] for one loss and many parameters.
//
// S is integrated by the steps that z takes, so that it is the exact
// derivative of the computed solution with its step sizes held fixed, to rounding, and
// S at an output inside a step is exact for the interpolant.
//
// A Sensitivity keeps the memory of a solve for the next of the same shape. Its methods
// may be called from any goroutine; they and the solver's run one at a time.
type Sensitivity[T backend.Float] struct {
	s    *solver.Solver[T]
	set  SensitivitySettings
	keep step.Keep

	loop    *step.Loop[T]
	sys     *variational[T]
	carried *carried[T]      // nil if the solver has no events
	shape   sensitivityShape // what loop was made for
	lost    bool             // a device failed: what the memory holds is not known
}

// SensitivitySettings says how derivatives are integrated. Its zero value is the default.
type SensitivitySettings struct {
	// NoErrorControl lets z alone choose the steps, which are then those of the solve
	// without directions. By default the error of every S counts as that of z does, by
	// the same tolerances, and the largest norm decides (as with CVODES's errconS): z
	// may rest where S does not, and steps that are right for z would be too long for S
	// without a sign of it. The tolerances are meant for numbers of the size of z:
	// scale a direction so that its S is about that.
	NoErrorControl bool
}

// Tangent is a direction of differentiation: a change of z0 and one of θ.
type Tangent[T backend.Float] struct {
	Z0     []T   // v, row-major [B, D]; nil is zero
	Theta  []T   // w, [P]; nil is zero
	Events [][]T // of the parameters of the solver's events, [event][parameter]; nil is zero
}

// StateTangents are the D unit vectors of a state, each in all samples of the batch at
// once: as no sample depends on another, their derivatives are all of ∂z/∂z0.
func StateTangents[T backend.Float](batch, dim int) []Tangent[T] {
	all := make([]Tangent[T], dim)
	for j := range all {
		all[j].Z0 = make([]T, batch*dim)
		for b := range batch {
			all[j].Z0[b*dim+j] = 1
		}
	}
	return all
}

// ParamTangents are the P unit vectors of θ.
func ParamTangents[T backend.Float](params int) []Tangent[T] {
	all := make([]Tangent[T], params)
	for i := range all {
		all[i].Theta = make([]T, params)
		all[i].Theta[i] = 1
	}
	return all
}

// TangentSolution is a solution with its derivatives. The caller owns all of it.
type TangentSolution[T backend.Float] struct {
	*solver.Solution[T]
	// S[m] is the derivative along direction m, laid out as Y, t0 included. It is NaN
	// where Y is.
	S [][]T
	// Events[m] is the derivative of Solution.Events along direction m; nil if the
	// solver has none.
	Events [][][]EventTangent[T]
}

// Derivatives is the derivative of a loss along every direction, Σ dLdz·S, given the
// loss's cotangents dLdz = ∂L/∂z, laid out as Y.
func (t *TangentSolution[T]) Derivatives(dLdz []T) ([]float64, error) {
	if len(dLdz) != len(t.Y) {
		return nil, fmt.Errorf("adjoint: dLdz has %d elements and the solution %d; lay the cotangents out as Solution.Y, zero where the loss does not depend on it", len(dLdz), len(t.Y))
	}
	along := make([]float64, len(t.S))
	for m, s := range t.S {
		for i, a := range dLdz {
			if a != 0 { // what was not reached is NaN
				along[m] += float64(a) * float64(s[i])
			}
		}
	}
	return along, nil
}

// sensitivityShape tells loops apart. theta has one byte a direction, which says
// whether it moves θ.
type sensitivityShape struct {
	problem any
	theta   string
}

// NewSensitivity prepares derivatives of s's solutions. The caller closes it before s.
func NewSensitivity[T backend.Float](s *solver.Solver[T], set SensitivitySettings) (*Sensitivity[T], error) {
	if s == nil {
		return nil, errors.New("adjoint: NewSensitivity needs a solver, and got nil; solver.New makes one")
	}
	return &Sensitivity[T]{s: s, set: set}, nil
}

// Close frees what the Sensitivity holds on the device.
func (v *Sensitivity[T]) Close() error {
	return v.s.OnDevice(func(*solver.Device[T]) error {
		v.free()
		return nil
	})
}

func (v *Sensitivity[T]) free() {
	if v.loop != nil {
		v.loop.Free()
		v.sys.free()
	}
	v.carried.free()
	v.carried = nil
	v.loop, v.sys, v.lost = nil, nil, false
}

// Solve is [solver.Solver.Solve] with the derivatives along directions, of which there
// is at least one. The right-hand side needs Jacobian-vector products. Stats count an
// evaluation for every direction. Settings.Dense is ignored.
//
// Errors are those of [solver.Solver.Solve], with what was computed beside them; and one
// that says so if a derivative is not finite where z is.
func (v *Sensitivity[T]) Solve(ctx context.Context, z0 []T, ts []float64, directions []Tangent[T]) (*TangentSolution[T], error) {
	return v.solve(ctx, z0, ts, nil, directions)
}

// SolveEach is [solver.Solver.SolveEach] in the way of Solve.
func (v *Sensitivity[T]) SolveEach(ctx context.Context, z0 []T, samples []solver.Sample, directions []Tangent[T]) (*TangentSolution[T], error) {
	if samples == nil {
		samples = []solver.Sample{}
	}
	return v.solve(ctx, z0, nil, samples, directions)
}

func (v *Sensitivity[T]) solve(ctx context.Context, z0 []T, ts []float64, samples []solver.Sample, directions []Tangent[T]) (tan *TangentSolution[T], err error) {
	if ctx == nil {
		return nil, errNoContext
	}
	err = v.s.OnDevice(func(d *solver.Device[T]) error {
		p, err := d.Problem(z0, ts, samples)
		if err != nil {
			return err
		}
		if err := checkDirections(directions, len(z0), d); err != nil {
			return fmt.Errorf("adjoint: %w", err)
		}
		tan, err = v.integrate(ctx, d, p, directions)
		return err
	})
	return tan, err
}

func checkDirections[T backend.Float](directions []Tangent[T], states int, d *solver.Device[T]) error {
	params, events := d.Field.NumParams(), solver.EventsOf(d)
	if len(directions) == 0 {
		return errors.New("there are no directions; give at least one, or use Solver.Solve")
	}
	for m, dir := range directions {
		if dir.Z0 != nil && len(dir.Z0) != states {
			return fmt.Errorf("directions[%d].Z0 has %d elements and z0 %d; lay it out as z0, or leave it nil", m, len(dir.Z0), states)
		}
		if dir.Theta != nil && len(dir.Theta) != params {
			return fmt.Errorf("directions[%d].Theta has %d elements and the right-hand side %d parameters; give one for each, or leave it nil", m, len(dir.Theta), params)
		}
		type named struct {
			name string
			of   []T
		}
		all := []named{{"Z0", dir.Z0}, {"Theta", dir.Theta}}
		if dir.Events != nil && len(dir.Events) != len(events) {
			return fmt.Errorf("directions[%d].Events has %d entries and the solver %d events; give one for each, or leave it nil", m, len(dir.Events), len(events))
		}
		for i, q := range dir.Events {
			if q != nil && len(q) != len(events[i].Theta) {
				return fmt.Errorf("directions[%d].Events[%d] has %d elements and the event %d parameters; give one for each, or leave it nil", m, i, len(q), len(events[i].Theta))
			}
			all = append(all, named{fmt.Sprintf("Events[%d]", i), q})
		}
		for _, x := range all {
			for i, v := range x.of {
				if v-v != 0 {
					return fmt.Errorf("directions[%d].%s[%d] is %g; give finite numbers", m, x.name, i, float64(v))
				}
			}
		}
	}
	return nil
}

func (v *Sensitivity[T]) integrate(ctx context.Context, d *solver.Device[T], p *solver.Problem[T], directions []Tangent[T]) (*TangentSolution[T], error) {
	var loop *step.Loop[T]
	if !p.Empty() {
		if err := v.prepare(d, p, directions); err != nil {
			return nil, err
		}
		loop = v.loop
	}
	sol, failure := p.Run(ctx, loop, func(spans []backend.Span) error {
		for m, dir := range directions {
			if dir.Z0 == nil {
				d.Backend.Zero(loop.Y.Of[1+m])
			} else {
				d.Backend.Upload(loop.Y.Of[1+m], dir.Z0)
			}
			if w := v.sys.w[m]; w != nil {
				d.Backend.Upload(w, dir.Theta)
			}
		}
		if v.carried != nil {
			v.carried.along = directions
		}
		_, err := loop.Run(ctx, spans...)
		v.lost = err != nil
		return err
	})
	if sol == nil {
		return nil, failure
	}
	tan := &TangentSolution[T]{Solution: sol, S: make([][]T, len(directions))}
	if v.carried != nil {
		tan.Events = v.carried.moved
	}
	for m, dir := range directions {
		tan.S[m] = make([]T, len(sol.Y))
		if loop != nil {
			if err := d.Fetch(sol, tan.S[m], loop.Tables[1+m]); err != nil {
				return nil, fmt.Errorf("adjoint: %w", err)
			}
		}
		if err := tan.finish(m, dir.Z0); failure == nil {
			failure = err
		}
	}
	return tan, failure
}

// finish completes S[m], which begins with v, nil for zero, and reports what is not
// finite in it.
func (t *TangentSolution[T]) finish(m int, v []T) (err error) {
	dim := t.Dim
	for b := range t.Batch {
		ts := t.SampleTimes(b)
		for i := range ts {
			s := t.S[m][t.Row(i, b)*dim:][:dim]
			if v != nil && ts[i] == ts[0] {
				copy(s, v[b*dim:])
			}
			for j, y := range t.Sample(i, b) {
				switch {
				case y != y || !t.Reached(i, b):
					s[j] = T(math.NaN())
				case s[j]-s[j] != 0 && err == nil:
					err = fmt.Errorf("adjoint: the derivative along direction %d of sample %d, component %d at t = %g is %g where the state is finite: scale the direction down, end the span earlier, or use float64",
						m, b, j, ts[i], float64(s[j]))
				}
			}
		}
	}
	return err
}

// prepare makes the loop for p, unless there is one that fits.
func (v *Sensitivity[T]) prepare(d *solver.Device[T], p *solver.Problem[T], directions []Tangent[T]) error {
	var moved strings.Builder
	for _, dir := range directions {
		if len(dir.Theta) > 0 {
			moved.WriteByte('w')
		} else {
			moved.WriteByte('-')
		}
	}
	want := sensitivityShape{p.Shape(), moved.String()}
	if v.loop != nil && v.shape == want && !v.lost {
		return nil
	}
	v.free()
	sys := &variational[T]{dev: d.Backend, field: d.Field, w: make([]backend.Vec[T], len(directions))}
	var err error
	for m, c := range want.theta {
		if c == 'w' && err == nil {
			sys.w[m], err = d.Backend.NewVec(1, 1, d.Field.NumParams())
		}
	}
	if err == nil {
		v.loop, err = p.NewLoop(v.keep, func(c *step.Config[T]) {
			c.Blocks, c.System, c.FirstBlock = 1+len(directions), sys, v.set.NoErrorControl
			if c.Hook != nil {
				v.carried = &carried[T]{inner: c.Hook, events: solver.EventsOf(d)}
				v.carried.found = c.Hook.(interface {
					Found() [][]solver.Occurrence[T]
				}).Found
				c.Hook = v.carried
			}
		})
	}
	if err == nil && v.carried != nil {
		v.carried.slopes, err = newSlopes(d, v.loop.Rows)
	}
	if err != nil {
		if v.loop != nil {
			v.loop.Free()
		}
		v.loop, v.carried = nil, nil
		sys.free()
		return fmt.Errorf("adjoint: %d directions: %w", len(directions), err)
	}
	v.sys, v.shape = sys, want
	return nil
}

// variational is the system [z, S_1, …, S_m] for the stepping loop.
type variational[T backend.Float] struct {
	dev   backend.Backend[T]
	field backend.Field[T]
	w     []backend.Vec[T] // of every direction, nil for zero
}

// Stage sets dst = [f, (∂f/∂z)·S_m + (∂f/∂θ)·w_m].
func (s *variational[T]) Stage(_ int, dst, y step.Block[T], at backend.At) {
	for m, w := range s.w {
		j := backend.JVP[T]{Z: y.Of[0], V: y.Of[1+m], W: w, JV: dst.Of[1+m]}
		if m == 0 {
			j.DZ = dst.Of[0]
		}
		s.field.JVP(at, j)
	}
}

func (s *variational[T]) Advanced() {}
func (s *variational[T]) Moved()    {}

func (s *variational[T]) free() {
	for _, w := range s.w {
		if w != nil {
			s.dev.Free(w)
		}
	}
}
