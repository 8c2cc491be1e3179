package flow

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Settings says what a flow is and how it is solved. Its zero value is the default.
type Settings struct {
	// Trace says how the trace is computed; exactly by default, in D products with the
	// Jacobian. Seed selects the noise of the estimates.
	Trace field.Trace
	Seed  uint64
	// Time is T, above 0; 0 means 1.
	Time float64
	// Kinetic and Jacobian, not negative, are the weights of ∫‖f‖² dt and of
	// ∫‖∂f/∂z‖² dt in the loss of a [Likelihood].
	Kinetic, Jacobian float64
	// FixedNoise gives a sample of a Likelihood the same noise whatever θ is. By
	// default every θ comes with noise of its own, so that training averages over it.
	FixedNoise bool

	Solver  solver.Settings
	Adjoint adjoint.Settings // NoTimes is always set
}

// Flow is a continuous normalising flow on a device. Its methods may be called from one
// goroutine at a time.
type Flow[T backend.Float] struct {
	set   Settings
	dim   int               // D
	plain *solver.Solver[T] // of z
	full  *solver.Solver[T] // of z and what is integrated beside
	adj   *adjoint.Adjoint[T]
	cols  int // of the latter's state
	state []T
}

// New makes the flow of f on dev. The parameters of f are copied. The caller closes the
// flow, then dev.
func New[T backend.Float](dev backend.Backend[T], f backend.System[T], set Settings) (*Flow[T], error) {
	for _, v := range []struct {
		name  string
		value float64
	}{{"Time", set.Time}, {"Kinetic", set.Kinetic}, {"Jacobian", set.Jacobian}} {
		if !(v.value >= 0) || math.IsInf(v.value, 0) {
			return nil, fmt.Errorf("flow: Settings.%s is %g; give a finite number that is not negative", v.name, v.value)
		}
	}
	if set.Time == 0 {
		set.Time = 1
	}
	set.Adjoint.NoTimes = true
	sys, err := field.NewFlow(f, field.FlowSettings{
		Trace: set.Trace, Seed: set.Seed, Kinetic: set.Kinetic > 0, Jacobian: set.Jacobian > 0,
	})
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	m := &Flow[T]{set: set, dim: f.Dim(), cols: sys.Dim()}
	if m.plain, err = solver.New(dev, f, set.Solver); err == nil {
		if m.full, err = solver.New[T](dev, sys, set.Solver); err == nil {
			m.adj, err = adjoint.New(m.full, set.Adjoint)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flow: %w", err), m.Close())
	}
	return m, nil
}

// Close frees what the flow holds on the device.
func (m *Flow[T]) Close() error {
	var err error
	if m.adj != nil {
		err = m.adj.Close()
	}
	for _, s := range []*solver.Solver[T]{m.full, m.plain} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return err
}

// Dim is the number of components of x, D.
func (m *Flow[T]) Dim() int { return m.dim }

// NumParams is the length of θ.
func (m *Flow[T]) NumParams() int { return m.full.NumParams() }

// Params copies θ from the device.
func (m *Flow[T]) Params() ([]T, error) { return m.full.Params() }

// SetParams replaces θ, which is copied.
func (m *Flow[T]) SetParams(theta []T) error {
	if err := m.full.SetParams(theta); err != nil {
		return err
	}
	return m.plain.SetParams(theta)
}

// LogDensity is log p(x), in nats, of n points x, row-major [n, D]. Estimated traces take
// the noise of samples 0 … n-1: the same whenever it is called.
func (m *Flow[T]) LogDensity(ctx context.Context, x []T) ([]float64, error) {
	_, logp, err := m.ToBase(ctx, x)
	return logp, err
}

// ToBase carries n points x, row-major [n, D], to z(T), laid out alike, and returns
// log p(x) as LogDensity does.
func (m *Flow[T]) ToBase(ctx context.Context, x []T) (z []T, logp []float64, err error) {
	if err := m.check(x); err != nil {
		return nil, nil, err
	}
	if err := m.full.SetSamples(nil); err != nil {
		return nil, nil, fmt.Errorf("flow: %w", err)
	}
	sol, err := m.full.Solve(ctx, m.start(x), []float64{0, m.set.Time})
	if err != nil {
		return nil, nil, fmt.Errorf("flow: %w", err)
	}
	end := sol.Final()
	z, logp = make([]T, 0, len(x)), make([]float64, 0, sol.Batch)
	for ; len(end) > 0; end = end[m.cols:] {
		z = append(z, end[:m.dim]...)
		logp = append(logp, logNormal(end[:m.dim])+float64(end[m.dim]))
	}
	return z, logp, nil
}

// FromBase carries n points z(T), row-major [n, D], back to x = z(0), laid out alike.
func (m *Flow[T]) FromBase(ctx context.Context, z []T) ([]T, error) {
	if err := m.check(z); err != nil {
		return nil, err
	}
	sol, err := m.plain.Solve(ctx, z, []float64{m.set.Time, 0})
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	return sol.Final(), nil
}

// Sample draws n points x of the flow's density, row-major [n, D]. The same seed gives
// the same points.
func (m *Flow[T]) Sample(ctx context.Context, n int, seed uint64) ([]T, error) {
	if n < 1 {
		return nil, fmt.Errorf("flow: Sample of %d points; draw at least one", n)
	}
	r := rand.New(rand.NewPCG(seed, 0x666c6f77)) // any constant
	z := make([]T, n*m.dim)
	for i := range z {
		z[i] = T(r.NormFloat64())
	}
	return m.FromBase(ctx, z)
}

// check returns what is wrong with points, if anything.
func (m *Flow[T]) check(x []T) error {
	if len(x) == 0 || len(x)%m.dim != 0 {
		return fmt.Errorf("flow: points with %d numbers, not a positive multiple of the dimension %d; lay them out as [n, %d]", len(x), m.dim, m.dim)
	}
	for i, v := range x {
		if v-v != 0 {
			return fmt.Errorf("flow: point %d, component %d, is %g; give finite numbers", i/m.dim, i%m.dim, float64(v))
		}
	}
	return nil
}

// start is the state [x, 0, …] of points, valid until the next call.
func (m *Flow[T]) start(x []T) []T {
	m.state = m.state[:0]
	for ; len(x) > 0; x = x[m.dim:] {
		m.state = append(m.state, x[:m.dim]...)
		for range m.cols - m.dim {
			m.state = append(m.state, 0)
		}
	}
	return m.state
}

// logNormal is log N(z; 0, I).
func logNormal[T backend.Float](z []T) float64 {
	sum := float64(len(z)) * math.Log(2*math.Pi)
	for _, v := range z {
		sum += float64(v) * float64(v)
	}
	return -sum / 2
}
