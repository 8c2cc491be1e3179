package train

import (
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func TestAugment_Shapes(t *testing.T) {
	x := []float64{1, 2, 3, 4, 5, 6}
	if got := Augment(x, 2, 1); !slices.Equal(got, []float64{1, 2, 0, 3, 4, 0, 5, 6, 0}) {
		t.Errorf("Augment: %v", got)
	}
	if got := CutAugmented(x, 2, 1); !slices.Equal(got, []float64{1, 2, 4, 5}) {
		t.Errorf("CutAugmented: %v", got)
	}
	if got := CutAugmented(Augment(x, 3, 4), 3, 4); !slices.Equal(got, x) {
		t.Errorf("there and back: %v", got)
	}
}

// Solutions of an ODE in one component cannot pass each other: of the maps that they
// allow, x → 0 is the one nearest to x → -x at ±1, with the mean squared error 1. One more
// component lets them (Dupont et al. 2019, proposition 1).
func TestAugment_LearnsAReflection(t *testing.T) {
	data := Data[float64]{Times: []float64{0, 1}, Z0: []float64{-1, 1}, Targets: []float64{-1, 1, 1, -1}}
	fit := func(dim int, data Data[float64]) float64 {
		dev := cpu.New[float64]()
		defer dev.Close()
		m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, dim, 8, dim), mlp.Init{}, 2)
		if err != nil {
			t.Fatal(err)
		}
		s, err := solver.New(dev, m, solver.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		o, err := NewTrajectories(s, data, TrajectorySettings{})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		res, err := LBFGS(t.Context(), o, m.Theta, LBFGSSettings[float64]{Iterations: 200})
		if err != nil {
			t.Fatal(err)
		}
		return 2 * res.BestLoss // the outputs at t = 0 count as half of the mean, and are exact
	}
	if loss := fit(1, data); loss < 1-1e-6 {
		t.Errorf("one component: loss %g, which no ODE reaches", loss)
	}
	if loss := fit(2, data.Augment(1, 1)); loss > 1e-5 {
		t.Errorf("augmented: loss %g", loss)
	}
	weighted := data
	weighted.Weights = []float64{0, 0, 1, math.Pi}
	if got := weighted.Augment(1, 2).Weights; !slices.Equal(got, Augment(weighted.Weights, 1, 2)) {
		t.Errorf("weights become %v", got)
	}
}
