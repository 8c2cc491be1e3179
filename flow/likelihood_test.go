package flow_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/flow"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Against five-point differences, with fixed steps: the gradient is that of the
// computed loss.
func TestLikelihood_GradientMatchesFiniteDifference(t *testing.T) {
	const n, d = 6, 2
	x, batch := normal[float64](n*d, 5), []int{4, 0, 2}
	for _, trace := range []field.Trace{field.ExactTrace, field.Rademacher, field.Gaussian} {
		for _, reg := range []struct{ k, j float64 }{{}, {0.1, 0}, {0, 0.2}, {0.3, 0.1}} {
			t.Run(fmt.Sprintf("%v/%v", trace, reg), func(t *testing.T) {
				net := network[float64](d, 9)
				l := flow.NewLikelihood(newFlow(t, net, flow.Settings{
					Trace: trace, Kinetic: reg.k, Jacobian: reg.j, FixedNoise: true, Solver: solver.Settings{Step: 0.25},
				}), x)
				grad := make([]float64, l.NumParams())
				loss := must(l.Gradient(ctx, net.Theta, batch, grad))
				if again := must(l.Loss(ctx, net.Theta, batch)); again != loss {
					t.Errorf("Loss is %g, and %g with its gradient", again, loss)
				}
				at := func(i int, e float64) float64 {
					theta := slices.Clone(net.Theta)
					theta[i] += e
					return must(l.Loss(ctx, theta, batch))
				}
				const h = 1e-3
				for i := 0; i < len(grad); i += 5 {
					want := (8*(at(i, h)-at(i, -h)) - (at(i, 2*h) - at(i, -2*h))) / (12 * h)
					if math.Abs(grad[i]-want) > 1e-8*(1+math.Abs(want)) {
						t.Errorf("parameter %d: got %.10g, want %.10g", i, grad[i], want)
					}
				}
			})
		}
	}
}

// The noise differs from θ to θ, and is the same for the same θ.
func TestLikelihood_Noise(t *testing.T) {
	const n, d = 3, 2
	net, x, batch := network[float64](d, 9), normal[float64](n*d, 5), []int{0, 1, 2}
	for _, fixed := range []bool{false, true} {
		l := flow.NewLikelihood(newFlow(t, net, flow.Settings{Trace: field.Gaussian, FixedNoise: fixed}), x)
		first := must(l.Loss(ctx, net.Theta, batch))
		theta := slices.Clone(net.Theta)
		theta[0] += 1e-9
		moved := must(l.Loss(ctx, theta, batch))
		if again := must(l.Loss(ctx, net.Theta, batch)); again != first {
			t.Errorf("fixed %v: the loss is %g, and %g at the same θ", fixed, first, again)
		}
		if same := math.Abs(moved-first) < 1e-6; same != fixed {
			t.Errorf("fixed %v: the loss goes from %g to %g where θ hardly changes", fixed, first, moved)
		}
	}
}
