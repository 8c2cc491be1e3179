package adjoint_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// quartic is L = Σ w·y⁴/12 + y, with what HessianVector asks of it.
func quartic(w []float64) func(y, dy, dLdy, d2Ldy []float64) {
	return func(y, dy, dLdy, d2Ldy []float64) {
		for i, v := range y {
			dLdy[i] = w[i]*v*v*v/3 + 1
			d2Ldy[i] = w[i] * v * v * dy[i]
		}
	}
}

// The product is the derivative of the discrete gradient along the direction: fixed
// steps, outputs between them, several methods, both kinds of stepping.
func TestHessianVector_MatchesDifferencesOfTheGradient(t *testing.T) {
	ts := []float64{0.1, 0.4, 0.55, 1.1}
	for _, method := range []solver.Method{solver.Tsit5, solver.RK4, solver.Dopri8, solver.HeunEuler21} {
		for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
			m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputCube)
			r := rand.New(rand.NewPCG(2, 9))
			z0, w := noise(r, 2*3, 0.7), noise(r, len(ts)*2*3, 1)
			dir := adjoint.Tangent[float64]{Z0: noise(r, 6, 1), Theta: noise(r, len(m.Theta), 1)}
			s := newSolver(t, m, solver.Settings{Method: method, Step: 0.2, Stepping: stepping})
			h, err := adjoint.HessianVector(ctx, s, z0, ts, dir, quartic(w))
			if err != nil {
				t.Fatal(err)
			}
			gradient := func(e float64) *adjoint.Gradient[float64] {
				theta, z := append([]float64{}, m.Theta...), append([]float64{}, z0...)
				for i := range theta {
					theta[i] += e * dir.Theta[i]
				}
				for i := range z {
					z[i] += e * dir.Z0[i]
				}
				if err := s.SetParams(theta); err != nil {
					t.Fatal(err)
				}
				sol := solve(t, s, z, ts)
				a := make([]float64, len(sol.Y))
				quartic(w)(sol.Y, a, a, make([]float64, len(a)))
				return gradients(t, s, adjoint.Settings{NoTimes: true}, sol, a)
			}
			g := gradient(0)
			closeTo(t, "dL/dz0", h.GradZ0, g.Z0, 1e-14)
			closeTo(t, "dL/dθ", h.GradTheta, g.Theta, 1e-14)
			const e = 1e-5
			up, down := gradient(e), gradient(-e)
			diff := func(a, b []float64) []float64 {
				d := make([]float64, len(a))
				for i := range a {
					d[i] = (a[i] - b[i]) / (2 * e)
				}
				return d
			}
			name := method.String() + " " + stepping.String()
			closeTo(t, name+" H·v, z0", h.Z0, diff(up.Z0, down.Z0), 1e-7)
			closeTo(t, name+" H·v, θ", h.Theta, diff(up.Theta, down.Theta), 1e-7)
		}
	}
}

// The Hessian is symmetric, in adaptive steps too.
func TestHessianVector_IsSymmetric(t *testing.T) {
	m := model(t, mlp.Softplus, mlp.TimeInput, mlp.InputIdentity)
	r := rand.New(rand.NewPCG(3, 3))
	z0, ts := noise(r, 6, 1), []float64{0, 0.7, 2}
	w := noise(r, 18, 1)
	s := newSolver(t, m, solver.Settings{})
	u := adjoint.Tangent[float64]{Z0: noise(r, 6, 1), Theta: noise(r, len(m.Theta), 1)}
	v := adjoint.Tangent[float64]{Z0: noise(r, 6, 1)}
	product := func(d adjoint.Tangent[float64]) *adjoint.HessianProduct[float64] {
		h, err := adjoint.HessianVector(ctx, s, z0, ts, d, quartic(w))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	hu, hv := product(u), product(v)
	uhv, vhu := 0.0, 0.0
	for i := range z0 {
		uhv += u.Z0[i] * hv.Z0[i]
		vhu += v.Z0[i] * hu.Z0[i]
	}
	for i := range m.Theta {
		uhv += u.Theta[i] * hv.Theta[i]
	}
	closeTo(t, "uᵀHv", []float64{uhv}, []float64{vhu}, 1e-12)
}

func TestHessianVector_Errors(t *testing.T) {
	s := newSolver(t, problems.System[float64](problems.LotkaVolterra()), solver.Settings{})
	dir := adjoint.Tangent[float64]{Z0: []float64{1, 0}}
	_, err := adjoint.HessianVector(ctx, s, []float64{1, 1}, []float64{0, 1}, dir, func(y, dy, a, b []float64) {})
	if err != nil && !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("a right-hand side by dual numbers: %v", err)
	}
	m := model(t, mlp.Tanh, mlp.TimeNone, mlp.InputIdentity)
	s = newSolver(t, m, solver.Settings{})
	_, err = adjoint.HessianVector(ctx, s, []float64{1, 1}, []float64{0, 1}, dir, func(y, dy, a, b []float64) {})
	wants(t, err, "multiple of the dimension")
	_, err = adjoint.HessianVector(ctx, s, []float64{1, 1, 1}, []float64{0, 1}, dir, func(y, dy, a, b []float64) {})
	wants(t, err, "Z0 has 2 elements")
	_, err = adjoint.HessianVector(ctx, s, []float64{1, 1, 1}, []float64{0, 1}, adjoint.Tangent[float64]{Z0: []float64{1, 0, 0}}, nil)
	wants(t, err, "a loss")
}
