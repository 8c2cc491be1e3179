package adjoint_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Steps on a device give the gradient that the others give, the first time and replayed,
// from other states with other cotangents and parameters, whatever else runs between.
func TestStepOnDevice_MatchesGradients(t *testing.T) {
	const batch, dim = 5, 3
	m := model(t, mlp.Tanh, mlp.TimeInput, mlp.InputIdentity)
	ts := []float64{0, 0.4, 1}
	for name, c := range map[string]struct {
		set solver.Settings
		how adjoint.Settings
	}{
		"few fixed":   {solver.Settings{Method: solver.RK4, Step: 0.07}, adjoint.Settings{}},
		"many fixed":  {solver.Settings{Method: solver.Bosh3, Step: 0.01}, adjoint.Settings{Store: adjoint.States}},
		"jointly":     {solver.Settings{}, adjoint.Settings{}},
		"alone":       {solver.Settings{Method: solver.Dopri5, Stepping: solver.PerSample}, adjoint.Settings{}},
		"on a budget": {solver.Settings{Method: solver.Bosh3}, adjoint.Settings{Budget: 8 << 10}},
		"continuous":  {solver.Settings{}, adjoint.Settings{Method: adjoint.Continuous}},
		"step sizes":  {solver.Settings{}, adjoint.Settings{StepSizes: true}},
		"reversible":  {solver.Settings{Step: 0.07}, adjoint.Settings{Method: adjoint.Reversible}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSolver(t, m, c.set)
			a, other := newAdjoint(t, s, c.how), newAdjoint(t, s, c.how)
			r := rand.New(rand.NewPCG(4, 5))
			var z, cot, theta backend.Vec[float64]
			var step *adjoint.DeviceStep[float64]
			err := s.OnDevice(func(d *solver.Device[float64]) (err error) {
				vec := func(blocks, rows, cols int) (v backend.Vec[float64]) {
					if err == nil {
						v, err = d.Backend.NewVec(blocks, rows, cols)
					}
					return v
				}
				z, cot, theta = vec(1, batch, dim), vec(3, batch, dim), vec(1, 1, len(m.Theta))
				step = &adjoint.DeviceStep[float64]{Times: ts, Jumps: []int{1, 2}, States: vec(3, batch, dim), DLdz: vec(3, batch, dim)}
				step.Before = func() { d.Backend.Copy(step.States.Block(0), z) }
				step.Loss = func(backend.Clock) { d.Backend.Copy(step.DLdz, cot) }
				step.After = func(grad backend.Vec[float64]) { d.Backend.Copy(theta, grad) }
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 4 {
				z0, dLdz := noise(r, batch*dim, 0.7), noise(r, 3*batch*dim, 1)
				if n == 2 {
					if err := s.SetParams(noise(r, len(m.Theta), 0.3)); err != nil {
						t.Fatal(err)
					}
				}
				sol := must[*solver.Solution[float64]](t)(other.Solve(ctx, z0, ts))
				want := must[*adjoint.Gradient[float64]](t)(other.Gradients(ctx, sol, dLdz))
				got, states := make([]float64, len(m.Theta)), make([]float64, len(dLdz))
				err := s.OnDevice(func(d *solver.Device[float64]) error {
					d.Backend.Upload(z, z0)
					d.Backend.Upload(cot, dLdz)
					if err := a.StepOnDevice(ctx, d, step); err != nil {
						return err
					}
					if err := d.Backend.Download(states, step.States); err != nil {
						return err
					}
					return d.Backend.Download(got, theta)
				})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want.Theta) || !slices.Equal(states, sol.Y) {
					t.Errorf("step %d: another dL/dθ, or other states", n)
				}
				if n == 1 { // on the same memory, over other times
					sol := must[*solver.Solution[float64]](t)(a.Solve(ctx, z0, []float64{1, 0.3, 0}))
					must[*adjoint.Gradient[float64]](t)(a.Gradients(ctx, sol, dLdz))
				}
			}
		})
	}
}
