package adjoint

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// memory is what a reverse solve holds on the device, whatever the number of steps.
type memory[T backend.Float] struct {
	loop  *step.Loop[T] // the last block of the state is a; before it is z, if it is solved for
	theta backend.Vec[T]

	// Tables with one block, or row, for every place of a plan.
	jump    backend.Vec[T] // ∂L/∂z
	saved   backend.Vec[T] // z of the forward solve; these two only where z is solved for
	reached backend.Vec[T] // z of the reverse solve before it is reset

	host  []T // one table
	state []T // one state
	owned []backend.Vec[T]
	size  int64 // about the bytes of these,
	fixed int64 // and those of them that do not grow with the batch
}

// a is the block of the state that holds the cotangent.
func (m *memory[T]) a() backend.Vec[T] { return m.loop.Y.Of[len(m.loop.Y.Of)-1] }

func (m *memory[T]) allocate(dev backend.Backend[T], cfg step.Config[T], sys *augmented[T], want memoryShape, full bool) (err error) {
	vec := func(blocks, rows, cols int) (v backend.Vec[T]) {
		m.size += step.VecSize[T](blocks, rows, cols)
		if err == nil {
			if v, err = dev.NewVec(blocks, rows, cols); err == nil {
				m.owned = append(m.owned, v)
			}
		}
		return v
	}
	blocks, rows := want.jumps, cfg.Rows
	if want.ragged && cfg.Lanes > 1 {
		blocks, rows = 1, want.jumps
	}
	m.jump = vec(blocks, rows, cfg.Cols)
	if sys.record == nil {
		m.saved, m.reached = vec(blocks, rows, cfg.Cols), vec(blocks, rows, cfg.Cols)
	} else {
		sys.z = vec(1, cfg.Rows, cfg.Cols)
	}
	if p := sys.field.NumParams(); p > 0 {
		params := func() backend.Vec[T] {
			m.fixed += step.VecSize[T](1, 1, p)
			return vec(1, 1, p)
		}
		m.theta = params()
		if cfg.Lanes == 1 {
			q := newJoint(sys, cfg.Tableau, full, params)
			cfg.ErrorParts = q.errorParts()
			sys.quad = q
		} else {
			work := vec(cfg.Blocks, cfg.Rows, cfg.Cols)
			if err == nil {
				sys.quad = &replayed[T]{augmented: sys, work: step.BlockOf(work)}
			}
		}
	}
	if err != nil {
		return err
	}
	m.host, m.state = make([]T, blocks*rows*cfg.Cols), make([]T, cfg.Rows*cfg.Cols)
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
}

// fill sets dst, one sample's row or one block of a table, from x, which is laid out
// as sol.Y: every place of the plan.
func (m *memory[T]) fill(sol *solver.Solution[T], x []T, p *plan) {
	dim := sol.Dim
	for b := range sol.Batch {
		r := &p.lanes[min(b, len(p.lanes)-1)]
		for j, i := range r.at {
			row := j*sol.Batch + b
			if p.ragged {
				row = r.row + j
			}
			copy(m.host[row*dim:(row+1)*dim], x[sol.Row(i, b)*dim:])
		}
	}
}

// first sets m.state to what every sample's route begins with in the table on the host.
func (m *memory[T]) first(p *plan) []T {
	dim := m.loop.Cols
	for b := range m.loop.Rows {
		row := b
		if p.ragged {
			row = p.lanes[b].row
		}
		copy(m.state[b*dim:(b+1)*dim], m.host[row*dim:])
	}
	return m.state
}

// upload sets the tables, and the state at the start of the reverse solve.
func (m *memory[T]) upload(dev backend.Backend[T], sol *solver.Solution[T], dLdz []T, p *plan) {
	m.fill(sol, dLdz, p)
	dev.Upload(m.jump, m.host)
	dev.Upload(m.a(), m.first(p))
	if m.saved != nil {
		m.fill(sol, sol.Y, p)
		dev.Upload(m.saved, m.host)
		dev.Upload(m.loop.Y.Of[0], m.first(p))
		dev.Copy(m.reached, m.saved)
	}
	if m.theta != nil {
		dev.Zero(m.theta)
	}
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
func (m *memory[T]) drift(dev backend.Backend[T], sol *solver.Solution[T], p *plan, tol backend.Tolerance) (Drift, error) {
	var d Drift
	dim := sol.Dim
	if err := dev.Download(m.host, m.reached); err != nil {
		return d, err
	}
	if err := dev.Download(m.state, m.loop.Y.Of[0]); err != nil {
		return d, err
	}
	for b := range sol.Batch {
		r := &p.lanes[min(b, len(p.lanes)-1)]
		for j, i := range r.at {
			row := j*sol.Batch + b
			if p.ragged {
				row = r.row + j
			}
			reached := m.host[row*dim : (row+1)*dim]
			if i == 0 {
				reached = m.state[b*dim : (b+1)*dim]
			}
			if !r.masked {
				compare(&d, b, r.times[i], reached, sol.Sample(i, b), tol)
			}
		}
	}
	return d, nil
}

// compare makes d the largest of itself and the distance between two states of a sample.
func compare[T backend.Float](d *Drift, sample int, t float64, reached, forward []T, tol backend.Tolerance) {
	for k, v := range forward {
		diff := math.Abs(float64(reached[k]) - float64(v))
		ratio := diff / (tol.Abs + tol.Rel*math.Abs(float64(v)))
		if math.IsNaN(ratio) && diff != 0 {
			ratio, diff = math.Inf(1), math.Inf(1)
		}
		if ratio > d.Ratio {
			*d = Drift{Ratio: ratio, Abs: diff, T: t, Sample: sample, Component: k}
		}
	}
}
