package adjoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// CheckSettings says how [Check] compares. Its zero value is the default.
type CheckSettings[T backend.Float] struct {
	// Loss is L of the states, laid out as Solution.Y; it sets dLdy to ∂L/∂y. Nil
	// means the sum of all states.
	Loss func(y, dLdy []T) float64
	// Directions is the number of random directions for each of z0 and θ; 0 means 3.
	Directions int
	Seed       uint64
	// Tol is the relative error that passes; 0 means 1000 times the solver's RTol, but
	// no less than 1e-6, and 1e-2 in float32, whose differences are that coarse. With
	// Settings.StepSizes it means these least ones, whatever RTol is.
	Tol float64
}

// Report is what [Check] found.
type Report struct {
	Method, Second Method // Second is Auto if there is none
	StepSizes      bool   // their dependence on z0 and θ is in the gradient
	Directions     []Direction
	// Difference is how far the gradient is from the second method's, relative to the
	// larger one's norm.
	Difference struct{ Z0, Theta float64 }
	Tol        float64
	OK         bool // all errors pass
}

// Direction is the derivative along a random direction.
type Direction struct {
	Of          string  // "z0" or "θ"
	Gradient    float64 // by the method
	Difference  float64 // by finite differences of the loss
	Uncertainty float64 // estimated error of Difference
	Error       float64 // relative to the size that such a derivative has
}

// String is a table for people, with the verdict.
func (r *Report) String() string {
	var s strings.Builder
	steps := ""
	switch {
	case r.StepSizes:
		steps = ", with step sizes differentiated,"
	case r.Method == Discrete || r.Method == Reversible:
		steps = ", with step sizes held,"
	}
	fmt.Fprintf(&s, "%v gradient%s along random directions, beside finite differences\n", r.Method, steps)
	for _, d := range r.Directions {
		fmt.Fprintf(&s, "  %-2s  %15.8g  %15.8g ± %.1g   relative error %.1e\n", d.Of, d.Gradient, d.Difference, d.Uncertainty, d.Error)
	}
	if r.Second != Auto {
		fmt.Fprintf(&s, "beside the %v gradient: dL/dz0 differs by %.1e, dL/dθ by %.1e\n", r.Second, r.Difference.Z0, r.Difference.Theta)
	}
	verdict := "wrong"
	if r.OK {
		verdict = "right"
	}
	fmt.Fprintf(&s, "%s at a tolerance of %.1e", verdict, r.Tol)
	return s.String()
}

// Check compares the gradient that set chooses, of a loss of the solve of z0 at ts,
// with finite differences of the loss in random directions and with the gradient of a
// second method: Continuous if the first is Discrete, else Discrete. The error is nil
// if all agree; the report, if not nil, says how far.
//
// The differences are of solves that choose their steps anew for every argument. Without
// Settings.StepSizes the gradient holds the step sizes, or approximates that of the exact
// solution, and agrees with them and with the second method to the solver's tolerances
// and no better: check at tight ones, or with fixed steps. With it the gradient is the
// derivative of just these solves: the differences are then over shorter distances, so that
// decisions about attempts stay as they are, there is no second method, and loose
// tolerances do. It costs some 20 solves a direction. The solver has its parameters back
// afterwards, but takes solutions from before for those of others.
func Check[T backend.Float](ctx context.Context, s *solver.Solver[T], set Settings, z0 []T, ts []float64, c CheckSettings[T]) (*Report, error) {
	if s == nil || ctx == nil {
		return nil, errors.New("adjoint: Check needs a context and a solver, and got nil")
	}
	single, sizes := T(1)+T(1e-9) == 1, set.StepSizes && s.Settings().Step == 0
	switch {
	case c.Directions < 0 || !(c.Tol >= 0 && c.Tol < 1):
		return nil, fmt.Errorf("adjoint: CheckSettings.Directions is %d and Tol %g; give numbers that are not negative, Tol below 1, or 0 for the defaults", c.Directions, c.Tol)
	case c.Directions == 0:
		c.Directions = 3
	}
	if c.Tol == 0 {
		if c.Tol = 1e-6; !sizes {
			c.Tol = max(c.Tol, min(1000*s.Settings().RTol, 0.1))
		}
		if single {
			c.Tol = max(c.Tol, 1e-2)
		}
	}
	if c.Loss == nil {
		c.Loss = func(y, dLdy []T) (sum float64) {
			for i, v := range y {
				sum += float64(v)
				dLdy[i] = 1
			}
			return sum
		}
	}
	k := &checker[T]{ctx: ctx, s: s, set: c, z0: z0, ts: ts}
	theta, err := s.Params()
	if err != nil {
		return nil, err
	}
	g, method, err := k.gradient(set)
	if err != nil {
		return nil, err
	}
	r := &Report{Method: method, StepSizes: sizes, Tol: c.Tol, OK: true}
	second := Settings{Method: Discrete, NoTimes: true}
	if method == Discrete {
		second.Method = Continuous
	}
	if sizes {
		// No other method has this gradient.
	} else if h, _, err := k.gradient(second); err == nil {
		r.Second = second.Method
		r.Difference.Z0, r.Difference.Theta = distance(g.Z0, h.Z0), distance(g.Theta, h.Theta)
		r.OK = r.Difference.Z0 <= c.Tol && r.Difference.Theta <= c.Tol
	} else if !errors.Is(err, backend.ErrUnsupported) && g.Events == nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(c.Seed, 1))
	for range c.Directions {
		for _, of := range []string{"z0", "θ"} {
			x, grad, at := z0, g.Z0, func(x []T) (float64, error) { return k.loss(x, theta) }
			if of == "θ" {
				x, grad, at = theta, g.Theta, func(x []T) (float64, error) { return k.loss(z0, x) }
			}
			if len(x) == 0 {
				continue
			}
			d, err := direction(rng, x, grad, at, single, sizes && !single)
			if err != nil {
				return nil, errors.Join(err, s.SetParams(theta))
			}
			d.Of = of
			r.Directions = append(r.Directions, d)
			r.OK = r.OK && d.Error <= c.Tol
		}
	}
	if err := s.SetParams(theta); err != nil {
		return nil, err
	}
	if !r.OK {
		return r, fmt.Errorf("adjoint: Check: the gradient does not agree: %s", r)
	}
	return r, nil
}

type checker[T backend.Float] struct {
	ctx context.Context
	s   *solver.Solver[T]
	set CheckSettings[T]
	z0  []T
	ts  []float64
}

func (k *checker[T]) gradient(set Settings) (*Gradient[T], Method, error) {
	a, err := New(k.s, set)
	if err != nil {
		return nil, 0, err
	}
	defer a.Close()
	sol, err := a.Solve(k.ctx, k.z0, k.ts)
	if err != nil {
		return nil, 0, err
	}
	dLdy := make([]T, len(sol.Y))
	k.set.Loss(sol.Y, dLdy)
	g, err := a.Gradients(k.ctx, sol, dLdy)
	return g, a.Method(), err
}

func (k *checker[T]) loss(z0, theta []T) (float64, error) {
	if err := k.s.SetParams(theta); err != nil {
		return 0, err
	}
	sol, err := k.s.Solve(k.ctx, z0, k.ts)
	if err != nil {
		return 0, fmt.Errorf("adjoint: Check: a solve for the finite differences: %w", err)
	}
	return k.set.Loss(sol.Y, make([]T, len(sol.Y))), nil
}

// direction derives loss along a random unit vector, by central differences of
// falling steps, extrapolated (Ridders 1982, Advances in Engineering Software 4, 75).
func direction[T backend.Float](rng *rand.Rand, x, grad []T, loss func(x []T) (float64, error), single, small bool) (d Direction, err error) {
	u, norm, size, largest := make([]float64, len(x)), 0.0, 0.0, 0.0
	for i := range u {
		u[i] = rng.NormFloat64()
		norm += u[i] * u[i]
		size += float64(x[i]) * float64(x[i])
		largest += float64(grad[i]) * float64(grad[i])
	}
	norm = math.Sqrt(norm)
	for i := range u {
		u[i] /= norm
		d.Gradient += u[i] * float64(grad[i])
	}
	at := func(h float64) (float64, error) {
		y := make([]T, len(x))
		for i, v := range x {
			y[i] = T(float64(v) + h*u[i])
		}
		return loss(y)
	}
	d.Uncertainty = math.Inf(1)
	h, steps := 0.05*max(math.Sqrt(size), 0.1), 10
	if single {
		steps = 6
	}
	if small {
		h /= 500
	}
	var row []float64
	for range steps {
		up, err := at(h)
		if err != nil {
			return d, err
		}
		down, err := at(-h)
		if err != nil {
			return d, err
		}
		next, power := []float64{(up - down) / (2 * h)}, 4.0
		for _, old := range row {
			last := next[len(next)-1]
			better := (power*last - old) / (power - 1)
			if e := max(math.Abs(better-last), math.Abs(better-old)); e < d.Uncertainty {
				d.Difference, d.Uncertainty = better, e
			}
			next, power = append(next, better), power*4
		}
		row, h = next, h/2
	}
	// The derivative along a random direction has this size, as a rule.
	typical := math.Sqrt(largest / float64(len(x)))
	d.Error = math.Abs(d.Gradient-d.Difference) / max(typical, math.Abs(d.Difference), math.SmallestNonzeroFloat64)
	return d, nil
}

// distance is |x - y| over the larger norm.
func distance[T backend.Float](x, y []T) float64 {
	var diff, nx, ny float64
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		diff += (a - b) * (a - b)
		nx += a * a
		ny += b * b
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / max(nx, ny))
}
