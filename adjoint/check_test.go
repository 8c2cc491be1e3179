package adjoint_test

import (
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func TestCheck_PassesWhatIsRight(t *testing.T) {
	m := model(t, mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity)
	s := newSolver(t, m, solver.Settings{RTol: 1e-9, ATol: 1e-10})
	for _, method := range []adjoint.Method{adjoint.Auto, adjoint.Continuous, adjoint.Interpolating} {
		set := adjoint.CheckSettings[float64]{Loss: func(y, dLdy []float64) (sum float64) {
			for i, v := range y {
				sum += v * v
				dLdy[i] = 2 * v
			}
			return sum
		}}
		r, err := adjoint.Check(ctx, s, adjoint.Settings{Method: method}, []float64{1, 2, 3, 0, -1, 1}, []float64{0, 0.5, 2}, set)
		if err != nil {
			t.Fatalf("%v: %v", method, err)
		}
		for _, want := range []string{"relative error", "right at a tolerance of 1.0e-06", "beside the"} {
			if !strings.Contains(r.String(), want) {
				t.Errorf("report lacks %q:\n%v", want, r)
			}
		}
		if len(r.Directions) != 6 {
			t.Errorf("%d directions", len(r.Directions))
		}
	}
	single := problems.System[float32](problems.LotkaVolterra())
	if r, err := adjoint.Check(ctx, newSolver(t, single, solver.Settings{}), adjoint.Settings{}, []float32{1, 1}, []float64{0, 2}, adjoint.CheckSettings[float32]{}); err != nil {
		t.Errorf("%v\n%v", err, r)
	}
	_, err := adjoint.Check(ctx, s, adjoint.Settings{}, []float64{1, 2, 3}, []float64{0, 1}, adjoint.CheckSettings[float64]{Tol: -1})
	wants(t, err, "Tol -1")
}

// A VJP that is wrong in one part of one entry is found, in z0 and in θ.
func TestCheck_FindsWhatIsWrong(t *testing.T) {
	for _, wrong := range []string{"z", "θ"} {
		f := &field.Custom[float64]{
			N: 2, Theta: []float64{-1, 0.5},
			F: func(_ float64, z, th, dz []float64) { dz[0], dz[1] = th[0]*z[0], th[1]*z[0]*z[1] },
			BackF: func(_ float64, z, th, a, az, ath []float64) float64 {
				az[0], az[1] = th[0]*a[0]+th[1]*z[1]*a[1], th[1]*z[0]*a[1]
				if wrong == "z" {
					az[1] *= 1.001
				}
				if ath != nil {
					ath[0] += a[0] * z[0]
					ath[1] += a[1] * z[0] * z[1]
					if wrong == "θ" {
						ath[1] += 0.001 * z[0]
					}
				}
				return 0
			},
		}
		s := newSolver(t, f, solver.Settings{RTol: 1e-10, ATol: 1e-10})
		r, err := adjoint.Check(ctx, s, adjoint.Settings{}, []float64{1, 2}, []float64{0, 1}, adjoint.CheckSettings[float64]{})
		wants(t, err, "does not agree", "wrong at a tolerance")
		if r == nil || r.OK {
			t.Errorf("%s: %v", wrong, r)
		}
		if theta, err := s.Params(); err != nil || theta[0] != -1 {
			t.Error("the parameters did not come back")
		}
	}
}

// With step sizes differentiated, loose tolerances do; with them held, the differences
// tell.
func TestCheck_StepSizes(t *testing.T) {
	s := newSolver(t, vanDerPol(), solver.Settings{Method: solver.Bosh3, RTol: 3e-3, ATol: 1e-3})
	z0, ts := []float64{2, 0.3}, []float64{0, 1.3, 3}
	r, err := adjoint.Check(ctx, s, adjoint.Settings{StepSizes: true}, z0, ts, adjoint.CheckSettings[float64]{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Tol != 1e-6 || r.Second != adjoint.Auto || !strings.Contains(r.String(), "discrete gradient, with step sizes differentiated") {
		t.Errorf("the report is\n%v", r)
	}
	r, err = adjoint.Check(ctx, s, adjoint.Settings{}, z0, ts, adjoint.CheckSettings[float64]{Tol: 1e-3})
	wants(t, err, "discrete gradient, with step sizes held", "wrong")
	if r == nil || r.Directions[0].Error < 1e-3 {
		t.Errorf("the report is\n%v", r)
	}
}
