package train

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Collocation is the [Objective] that fits f itself to derivatives, without solving:
//
//	L(θ) = loss of f(z_i, t_i; θ) against dz_i
//
// over points of smoothed series (Varah 1982; Roesch, Rackauckas & Stumpf 2021,
// Collocation based training of neural ordinary differential equations). It is
// cheap and has none of the local minima that long solves have; what it finds is biased by
// the smoothing, and a good start for [Trajectories], [Ragged] or [Shooting]. Its
// parameters are θ, its samples the points.
//
//	z, dz, err := train.Smooth(series, 0)
//	c, err := train.NewCollocation(dev, f, series.Times, z, dz, train.Loss{})
//	res, err := train.Fit(ctx, c, model.Params(), train.Settings[float64]{})
type Collocation[T backend.Float] struct {
	*Ragged[T]
	s *solver.Solver[T]
}

// NewCollocation prepares the fit of f on dev to n points: times, states and derivatives,
// the latter [n, D]. f must not tell samples apart, and the loss is MSE, MAE or Huber. The
// caller closes it, then dev.
func NewCollocation[T backend.Float](dev backend.Backend[T], f backend.System[T], times []float64, z, dz []T, loss Loss) (*Collocation[T], error) {
	// A step of Euler's method of size 1 is z + f(z, t), so that the solver and the
	// adjoint evaluate f and its products.
	s, err := solver.New(dev, f, solver.Settings{Method: solver.Euler, Step: 1, Stepping: solver.PerSample})
	if err != nil {
		return nil, err
	}
	n, d := len(times), s.Dim()
	if n == 0 || len(z) != n*d || len(dz) != n*d {
		return nil, errors.Join(fmt.Errorf("train: NewCollocation of %d times, %d states and %d derivatives; give at least one point, the latter as [n, %d]", n, len(z), len(dz), d), s.Close())
	}
	points := make([]Series[T], n)
	for i, t := range times {
		p := Series[T]{Times: []float64{t, t + 1}, Z0: z[i*d : (i+1)*d], Values: make([]T, 2*d)}
		for j := range d {
			p.Values[j], p.Values[d+j] = T(math.NaN()), p.Z0[j]+dz[i*d+j]
		}
		points[i] = p
	}
	r, err := NewRagged(s, points, TrajectorySettings{Loss: loss})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Collocation[T]{r, s}, nil
}

// Close frees what the objective holds on the device.
func (c *Collocation[T]) Close() error { return errors.Join(c.Ragged.Close(), c.s.Close()) }
