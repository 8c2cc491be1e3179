package adjoint

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// memory is what a gradient holds on the device, whatever the number of steps.
type memory[T backend.Float] struct {
	loop  *step.Loop[T] // block 0 of the state is z, block 1 is a
	theta backend.Vec[T]

	// Tables with one block for every time in `at`, see Adjoint.gradients.
	saved   backend.Vec[T] // z of the forward solve
	jump    backend.Vec[T] // ∂L/∂z
	reached backend.Vec[T] // z of the reverse solve before it is reset
	slope   backend.Vec[T] // f
	clock   backend.Clock  // for slope

	host  []T // one table
	owned []backend.Vec[T]
}

func (m *memory[T]) allocate(dev backend.Backend[T], cfg step.Config[T], sys *augmented[T], jumps int, full bool) (err error) {
	vec := func(blocks, rows, cols int) (v backend.Vec[T]) {
		if err == nil {
			if v, err = dev.NewVec(blocks, rows, cols); err == nil {
				m.owned = append(m.owned, v)
			}
		}
		return v
	}
	m.saved, m.jump = vec(jumps, cfg.Rows, cfg.Cols), vec(jumps, cfg.Rows, cfg.Cols)
	m.reached, m.slope = vec(jumps, cfg.Rows, cfg.Cols), vec(jumps, cfg.Rows, cfg.Cols)
	if p := sys.field.NumParams(); p > 0 {
		m.theta = vec(1, 1, p)
		if cfg.Lanes == 1 {
			q := newJoint(sys, cfg.Tableau, full, func() backend.Vec[T] { return vec(1, 1, p) })
			cfg.ErrorParts = q.errorParts()
			sys.quad = q
		} else {
			work := vec(2, cfg.Rows, cfg.Cols)
			if err == nil {
				sys.quad = &replayed[T]{augmented: sys, work: step.BlockOf(work)}
			}
		}
	}
	if err != nil {
		return err
	}
	if m.clock, err = dev.NewClock(1); err != nil {
		return err
	}
	m.host = make([]T, jumps*cfg.Rows*cfg.Cols)
	m.loop, err = step.New(cfg)
	return err
}

func (m *memory[T]) free(dev backend.Backend[T]) {
	if m.loop != nil {
		m.loop.Free()
	}
	for _, v := range m.owned {
		dev.Free(v)
	}
	m.owned = nil
	if m.clock != nil {
		m.clock.Close()
		m.clock = nil
	}
}

// upload sets the tables, and the state at the start of the reverse solve.
func (m *memory[T]) upload(dev backend.Backend[T], sol *solver.Solution[T], dLdz []T, at []int) {
	n := sol.Batch * sol.Dim
	table := func(dst backend.Vec[T], src []T) {
		for j, i := range at {
			copy(m.host[j*n:(j+1)*n], src[i*n:(i+1)*n])
		}
		dev.Upload(dst, m.host)
	}
	table(m.saved, sol.Y)
	table(m.jump, dLdz)
	m.rewind(dev)
}

// rewind sets the state at the start of the reverse solve from the tables.
func (m *memory[T]) rewind(dev backend.Backend[T]) {
	dev.Copy(m.reached, m.saved)
	dev.Copy(m.loop.Y.Of[0], m.saved.Block(0))
	dev.Copy(m.loop.Y.Of[1], m.jump.Block(0))
	if m.theta != nil {
		dev.Zero(m.theta)
	}
}

// timeGradients computes dL/dt for all times; a0 is a(t0) without the cotangent at
// t0, which does not depend on t0.
func (m *memory[T]) timeGradients(dev backend.Backend[T], f backend.Field[T], sol *solver.Solution[T], dLdz []T, at []int, a0 []T) ([]float64, error) {
	n := sol.Batch * sol.Dim
	now := backend.At{Clock: m.clock, Rows: backend.Running}
	for j, i := range at {
		// A span is needed for the clock to show a time; nothing is solved over it.
		t := sol.Times[i]
		dev.Start(m.clock, backend.Span{T0: t, Stops: []float64{math.Nextafter(t, math.Inf(1))}})
		f.Eval(m.slope.Block(j), now, m.saved.Block(j))
	}
	if err := dev.Download(m.host, m.slope); err != nil {
		return nil, err
	}
	grad := make([]float64, len(sol.Times))
	for j, i := range at {
		slope := m.host[j*n : (j+1)*n]
		cot, sign := dLdz[i*n:(i+1)*n], 1.0
		if i == 0 {
			cot, sign = a0, -1
		}
		for k, v := range slope {
			grad[i] += sign * float64(cot[k]) * float64(v)
		}
	}
	return grad, nil
}

// Drift is the largest distance between the states of the forward solve and of the
// reverse solve, over the times with cotangents and t0, in units of the tolerance:
// |z - z_forward|/(ATol + RTol·|z_forward|). Some tens are usual. When the
// difference is no longer small against z itself the gradient is not to be
// trusted: tighten the tolerances or use more output times.
type Drift struct {
	Ratio     float64 // dimensionless
	Abs       float64 // the difference, in units of the component
	T         float64
	Sample    int
	Component int
}

func (d Drift) String() string {
	return fmt.Sprintf("drift %.3g (%.3g tolerances) at t = %g, sample %d, component %d", d.Abs, d.Ratio, d.T, d.Sample, d.Component)
}

// drift compares the two solves.
func (m *memory[T]) drift(dev backend.Backend[T], times []float64, at []int, tol backend.Tolerance) (Drift, error) {
	dev.Copy(m.reached.Block(len(at)-1), m.loop.Y.Of[0])
	var d Drift
	n := m.loop.Rows * m.loop.Cols
	forward := make([]T, len(m.host))
	if err := dev.Download(forward, m.saved); err != nil {
		return d, err
	}
	if err := dev.Download(m.host, m.reached); err != nil {
		return d, err
	}
	for i, v := range m.host {
		z := float64(forward[i])
		diff := math.Abs(float64(v) - z)
		ratio := diff / (tol.Abs + tol.Rel*math.Abs(z))
		if math.IsNaN(ratio) && diff != 0 {
			ratio, diff = math.Inf(1), math.Inf(1)
		}
		if ratio > d.Ratio {
			d = Drift{Ratio: ratio, Abs: diff, T: times[at[i/n]], Sample: i % n / m.loop.Cols, Component: i % m.loop.Cols}
		}
	}
	return d, nil
}
