package train

import (
	"fmt"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func TestEvalLoss_MatchesPyTorch(t *testing.T) {
	// Sums of a few terms: some units in the last place. float32 rounds inputs and
	// gradients, each to 6e-8; residuals of rounded inputs lose up to 10 times that.
	t.Run("float64", func(t *testing.T) { lossMatchesPyTorch[float64](t, 1e-14) })
	t.Run("float32", func(t *testing.T) { lossMatchesPyTorch[float32](t, 1e-6) })
}

func lossMatchesPyTorch[T backend.Float](t *testing.T, tol float64) {
	for _, c := range readTorch(t).Losses {
		l := Loss{Kind: kind[LossKind](t, lossNames, c.Kind), Reduction: kind[Reduction](t, reductionNames, c.Reduction)}
		if l.Kind == Huber {
			l.Delta = 0.7
		}
		y := Target[T]{Values: narrow[T](c.Target), Labels: c.Labels, Weights: narrow[T](c.Weights)}
		pred, grad := narrow[T](c.Pred), make([]T, len(c.Pred))
		loss, err := EvalLoss(l, pred, y, grad)
		if err != nil {
			t.Errorf("%+v: %v", l, err)
			continue
		}
		if !near(loss, c.Loss, tol, tol) {
			t.Errorf("%+v: loss %v, want %v", l, loss, c.Loss)
		}
		for i, g := range grad {
			if !near(float64(g), c.Grad[i], tol, tol) {
				t.Errorf("%+v: gradient %d is %v, want %v", l, i, g, c.Grad[i])
			}
		}
		if alone, err := EvalLoss(l, pred, y, nil); err != nil || alone != loss {
			t.Errorf("%+v: loss without gradient %v, %v, want %v", l, alone, err, loss)
		}
		// Without a reduction: the same sum.
		each := make([]float64, max(len(c.Target), len(c.Labels)))
		if err := ElementLosses(each, l, pred, y); err != nil {
			t.Error(err)
		}
		sum, weight := 0.0, 0.0
		for i, v := range each {
			sum += v
			weight += y.weight(i)
		}
		if l.Reduction == Mean {
			sum /= weight
		}
		if !near(sum, loss, 1e-14, 0) {
			t.Errorf("%+v: the element losses sum to %v, want %v", l, sum, loss)
		}
	}
}

func TestEvalLoss_HandValues(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		l    Loss
		pred []float64
		y    Target[float64]
		loss float64
		grad []float64
	}{
		{Loss{}, []float64{1, 5}, Target[float64]{Values: []float64{3, 4}}, 2.5, []float64{-2, 1}},
		{Loss{Kind: MAE, Reduction: Sum}, []float64{1, 5, 2}, Target[float64]{Values: []float64{3, 4, 2}}, 3, []float64{-1, 1, 0}},
		{Loss{Kind: Huber}, []float64{0.5, -3}, Target[float64]{Values: []float64{0, 0}}, (0.125 + 2.5) / 2, []float64{0.25, -0.5}},
		{Loss{Kind: Huber, Delta: 2}, []float64{2}, Target[float64]{Values: []float64{0}}, 2, []float64{2}},
		// What is masked does not count, NaN or not.
		{Loss{}, []float64{1, nan, 7}, Target[float64]{Values: []float64{3, 4, nan}, Weights: []float64{1, 0, 0}}, 4, []float64{-4, 0, 0}},
		{Loss{}, []float64{1, 5}, Target[float64]{Values: []float64{3, 4}, Weights: []float64{1, 3}}, (4 + 3) / 4.0, []float64{-1, 1.5}},
		{Loss{Kind: CrossEntropy}, []float64{0, 0, nan, 1}, Target[float64]{Labels: []int32{1, -1}}, math.Ln2, []float64{0.5, -0.5, 0, 0}},
		{Loss{Kind: CrossEntropy}, []float64{0, 0, 3, nan}, Target[float64]{Labels: []int32{1, 0}, Weights: []float64{2, 0}}, math.Ln2, []float64{0.5, -0.5, 0, 0}},
		// A class that is certain keeps the digits of a loss far below one ulp of its
		// logits, and a wrong one does not overflow.
		{Loss{Kind: CrossEntropy}, []float64{50, 0}, Target[float64]{Labels: []int32{0}}, math.Exp(-50), []float64{-math.Exp(-50), math.Exp(-50)}},
		{Loss{Kind: CrossEntropy}, []float64{1e4, -1e4}, Target[float64]{Labels: []int32{1}}, 2e4, []float64{1, -1}},
		{Loss{Kind: CrossEntropy}, []float64{3, math.Inf(-1)}, Target[float64]{Labels: []int32{0}}, 0, []float64{0, 0}},
	} {
		grad := []float64{9, 9, 9, 9}[:len(c.pred)]
		loss, err := EvalLoss(c.l, c.pred, c.y, grad)
		if err != nil || !near(loss, c.loss, 1e-15, 0) {
			t.Errorf("%+v of %v: loss %v, %v, want %v", c.l, c.pred, loss, err, c.loss)
		}
		for i := range grad {
			if !near(grad[i], c.grad[i], 1e-15, 0) {
				t.Errorf("%+v of %v: gradient %v, want %v", c.l, c.pred, grad, c.grad)
				break
			}
		}
	}
}

func TestEvalLoss_GradientMatchesFiniteDifference(t *testing.T) {
	pred := []float64{0.3, -1.2, 2.1, 0.4, 0.9, -0.7}
	y := Target[float64]{Values: []float64{0.1, 1.0, 2.0, math.NaN(), -1.3, 0}, Weights: []float64{1, 2, 0.5, 0, 1, 1}}
	labels := Target[float64]{Labels: []int32{2, 0}, Weights: []float64{1, 3}}
	for _, red := range []Reduction{Mean, Sum} {
		for _, k := range []LossKind{MSE, MAE, Huber, CrossEntropy} {
			l, y := Loss{Kind: k, Reduction: red}, y
			if k == CrossEntropy {
				y = labels
			}
			grad := make([]float64, len(pred))
			if _, err := EvalLoss(l, pred, y, grad); err != nil {
				t.Fatal(err)
			}
			for i := range pred {
				// Central differences: truncation h²/6·f''' ≈ 1e-10, rounding 1e-16/h = 1e-11.
				const h = 1e-5
				var f [2]float64
				for s := range f {
					p := append([]float64(nil), pred...)
					p[i] += h * float64(2*s-1)
					f[s], _ = EvalLoss(l, p, y, nil)
				}
				if fd := (f[1] - f[0]) / (2 * h); !near(grad[i], fd, 1e-9, 1e-9) {
					t.Errorf("%+v: gradient %d is %v, by differences %v", l, i, grad[i], fd)
				}
			}
		}
	}
}

func TestEvalLoss_Errors(t *testing.T) {
	one := []float64{1}
	for _, c := range []struct {
		l    Loss
		pred []float64
		y    Target[float64]
		want string
	}{
		{Loss{Kind: 9}, one, Target[float64]{Values: one}, "Loss.Kind is 9; use MSE"},
		{Loss{Reduction: 9}, one, Target[float64]{Values: one}, "Loss.Reduction is 9; use Mean or Sum"},
		{Loss{Kind: Huber, Delta: -1}, one, Target[float64]{Values: one}, "Loss.Delta is -1"},
		{Loss{Delta: 1}, one, Target[float64]{Values: one}, "mse has no δ"},
		{Loss{}, one, Target[float64]{}, "1 predictions for 0 targets"},
		{Loss{}, nil, Target[float64]{}, "0 predictions for 0 targets"},
		{Loss{}, one, Target[float64]{Labels: []int32{0}}, "mse compares with Values"},
		{Loss{Kind: CrossEntropy}, one, Target[float64]{Values: one}, "CrossEntropy compares with Labels"},
		{Loss{Kind: CrossEntropy}, []float64{1, 2, 3}, Target[float64]{Labels: []int32{0, 0}}, "3 logits for 2 labels"},
		{Loss{Kind: CrossEntropy}, []float64{1, 2}, Target[float64]{Labels: []int32{2}}, "label 0 is 2, but there are 2 classes"},
		{Loss{}, one, Target[float64]{Values: one, Weights: []float64{1, 1}}, "2 weights for 1 targets"},
		{Loss{}, one, Target[float64]{Values: one, Weights: []float64{-1}}, "weight 0 is -1"},
		{Loss{}, one, Target[float64]{Values: one, Weights: []float64{math.NaN()}}, "weight 0 is NaN"},
		{Loss{}, one, Target[float64]{Values: []float64{math.NaN()}}, "target 0 is NaN; give it weight 0"},
		{Loss{}, one, Target[float64]{Values: []float64{math.Inf(1)}}, "target 0 is +Inf"},
		{Loss{}, one, Target[float64]{Values: one, Weights: []float64{0}}, "the mask leaves nothing to compare"},
		{Loss{Kind: CrossEntropy}, one, Target[float64]{Labels: []int32{-1}}, "the mask leaves nothing to compare"},
	} {
		_, err := EvalLoss(c.l, c.pred, c.y, nil)
		wantError(t, err, "train: ", c.want)
	}
	_, err := EvalLoss(Loss{}, one, Target[float64]{Values: one}, make([]float64, 2))
	wantError(t, err, "grad has 2 elements, but there are 1 predictions")
	wantError(t, ElementLosses(make([]float64, 2), Loss{}, one, Target[float64]{Values: one}), "dst has 2 elements, want 1")
	if s := fmt.Sprint(CrossEntropy, Sum, LossKind(77)); s != "cross_entropy sum LossKind(77)" {
		t.Error(s)
	}
}

func TestEvalLoss_DoesNotAllocate(t *testing.T) {
	pred, grad := make([]float32, 600), make([]float32, 600)
	values := Target[float32]{Values: make([]float32, 600), Weights: Observed(make([]float32, 600))}
	labels := Target[float32]{Labels: make([]int32, 200)}
	if n := testing.AllocsPerRun(10, func() {
		EvalLoss(Loss{}, pred, values, grad)
		EvalLoss(Loss{Kind: CrossEntropy}, pred, labels, grad)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
