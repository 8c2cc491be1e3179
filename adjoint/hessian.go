package adjoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// HessianProduct is a product of the Hessian of a loss with a direction. The caller owns
// its memory.
type HessianProduct[T backend.Float] struct {
	Solution *solver.Solution[T]
	S        []T // derivative of the states along the direction, laid out as Solution.Y
	// Z0 and Theta are the derivatives of dL/dz0, [B, D], and of dL/dθ, [P], along the
	// direction (v, w): ∂²L/∂z0²·v + ∂²L/∂z0∂θ·w, and ∂²L/∂θ∂z0·v + ∂²L/∂θ²·w.
	Z0, Theta []T
	// GradZ0 and GradTheta are dL/dz0 and dL/dθ themselves.
	GradZ0, GradTheta []T
}

// HessianVector computes the product of the Hessian of a loss with a direction, forward
// mode over [Discrete]: the derivative of the computed solution's gradient, to rounding,
// with the step sizes held. loss is given the states y, laid out as Solution.Y, and
// their derivative dy along the direction; it sets dLdy to ∂L/∂y and d2Ldy to
// (∂²L/∂y²)·dy. The right-hand side needs second derivatives (backend.SecondOrder).
//
// It costs about as much as three gradients, whatever the number of parameters.
func HessianVector[T backend.Float](ctx context.Context, s *solver.Solver[T], z0 []T, ts []float64, dir Tangent[T], loss func(y, dy, dLdy, d2Ldy []T)) (*HessianProduct[T], error) {
	if ctx == nil || loss == nil {
		return nil, errors.New("adjoint: HessianVector needs a context and a loss, and got nil")
	}
	v, err := NewSensitivity(s, SensitivitySettings{NoErrorControl: true})
	if err != nil {
		return nil, err
	}
	v.keep = step.KeepStages
	var h *HessianProduct[T]
	err = s.OnDevice(func(d *solver.Device[T]) (err error) {
		defer v.free()
		if _, ok := d.Field.(backend.SecondOrder[T]); !ok {
			return fmt.Errorf("adjoint: Hessian-vector products on %s: %w: use a cpu backend, and a right-hand side with second derivatives", d.Backend.Name(), backend.ErrUnsupported)
		}
		if _, ok := d.Backend.(backend.Reverser[T]); !ok {
			return fmt.Errorf("adjoint: Hessian-vector products on %s: %w: use a cpu backend", d.Backend.Name(), backend.ErrUnsupported)
		}
		if len(solver.EventsOf(d)) > 0 {
			return fmt.Errorf("adjoint: Hessian-vector products of a solver with events: %w: use a solver without", backend.ErrUnsupported)
		}
		p, err := d.Problem(z0, ts, nil)
		if err != nil {
			return err
		}
		if err := checkDirections([]Tangent[T]{dir}, len(z0), d); err != nil {
			return fmt.Errorf("adjoint: %w", err)
		}
		tan, err := v.integrate(ctx, d, p, []Tangent[T]{dir})
		if err != nil {
			return err
		}
		h = &HessianProduct[T]{Solution: tan.Solution, S: tan.S[0]}
		return h.reverse(ctx, d, v, loss)
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// reverse goes back over the steps that v has recorded.
func (h *HessianProduct[T]) reverse(ctx context.Context, d *solver.Device[T], v *Sensitivity[T], loss func(y, dy, dLdy, d2Ldy []T)) error {
	sol, n := h.Solution, h.Solution.Batch*h.Solution.Dim
	dLdy, d2Ldy := make([]T, len(sol.Y)), make([]T, len(sol.Y))
	loss(sol.Y, h.S, dLdy, d2Ldy)
	for i := range dLdy {
		if dLdy[i]-dLdy[i] != 0 || d2Ldy[i]-d2Ldy[i] != 0 {
			return fmt.Errorf("adjoint: HessianVector: a derivative of the loss at time %g is not finite; check the loss", sol.Times[i/n])
		}
	}
	h.GradZ0, h.Z0 = make([]T, n), make([]T, n)
	h.GradTheta, h.Theta = make([]T, d.Field.NumParams()), make([]T, d.Field.NumParams())
	if v.loop == nil { // all times are t0
		for i := range len(sol.Times) {
			addTo(h.GradZ0, dLdy[i*n:(i+1)*n])
			addTo(h.Z0, d2Ldy[i*n:(i+1)*n])
		}
		return nil
	}
	m, err := newReversal(d, v.loop, false)
	if err != nil {
		return fmt.Errorf("adjoint: %w", err)
	}
	defer m.free(d.Backend)
	m.w = v.sys.w[0]
	m.start()
	d.Backend.Upload(m.cotangents, dLdy[n:])
	d.Backend.Upload(m.tangent.cotangents, d2Ldy[n:])
	m.dev.Rewind(v.loop.Clock, v.loop.Tape, int64(v.loop.Attempts), nil)
	if err := m.steps(ctx, v.loop.Attempts, 0, nil); err != nil {
		return fmt.Errorf("adjoint: %w", err)
	}
	for _, x := range []struct {
		dst []T
		src backend.Vec[T]
	}{{h.GradZ0, m.lambda}, {h.Z0, m.tangent.lambda}, {h.GradTheta, m.theta}, {h.Theta, m.tangent.theta}} {
		if x.src == nil {
			continue
		}
		if err := d.Backend.Download(x.dst, x.src); err != nil {
			return fmt.Errorf("adjoint: %w", err)
		}
	}
	addTo(h.GradZ0, dLdy[:n])
	addTo(h.Z0, d2Ldy[:n])
	return nil
}
