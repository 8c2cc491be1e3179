package train

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

// LossKind is the formula of a loss, with prediction p and target y of one element.
type LossKind uint8

const (
	// MSE is the squared error, (p-y)².
	MSE = LossKind(backend.MSE)
	// MAE is the absolute error, |p-y|; its derivative at 0 is taken to be 0.
	MAE = LossKind(backend.MAE)
	// Huber is ½(p-y)² where |p-y| ≤ δ and δ(|p-y|-½δ) beyond (Huber 1964, Robust
	// estimation of a location parameter).
	Huber = LossKind(backend.Huber)
	// CrossEntropy is log Σ_j exp(p_j) - p_c for a row of C logits p and its class c.
	CrossEntropy = LossKind(backend.CrossEntropy)
)

var lossNames = []string{"mse", "mae", "huber", "cross_entropy"}

func (k LossKind) String() string { return enumString("LossKind", lossNames, k) }

// Reduction says how the losses ℓ_i of elements with weights w_i become one number.
type Reduction uint8

const (
	// Mean is Σ w_i ℓ_i / Σ w_i.
	Mean Reduction = iota
	// Sum is Σ w_i ℓ_i.
	Sum
)

var reductionNames = []string{"mean", "sum"}

func (r Reduction) String() string { return enumString("Reduction", reductionNames, r) }

// Loss says how predictions are compared with targets. Its zero value is the mean
// squared error. The formulas are PyTorch's.
type Loss struct {
	Kind      LossKind
	Reduction Reduction
	Delta     float64 // δ of Huber, in the targets' unit; 0 means 1
}

// Target is what predictions are compared with.
type Target[T backend.Float] struct {
	// Values has one entry for every prediction: MSE, MAE and Huber.
	Values []T
	// Labels has the class of every row of C logits, from 0: CrossEntropy. A
	// negative label leaves its row out. C is the number of predictions over that
	// of labels.
	Labels []int32
	// Weights w_i ≥ 0 are the mask: an element, or a row of logits, counts w_i
	// times, and not at all if w_i is 0, whatever its prediction and target, NaN
	// included. Nil means all 1.
	Weights []T
}

// Validate returns what is wrong with l, if anything.
func (l Loss) Validate() error {
	if int(l.Kind) >= len(lossNames) {
		return fmt.Errorf("train: Loss.Kind is %d; use MSE, MAE, Huber or CrossEntropy", l.Kind)
	}
	if int(l.Reduction) >= len(reductionNames) {
		return fmt.Errorf("train: Loss.Reduction is %d; use Mean or Sum", l.Reduction)
	}
	if !(l.Delta >= 0) || math.IsInf(l.Delta, 0) {
		return fmt.Errorf("train: Loss.Delta is %g; give a positive number, or 0 for 1", l.Delta)
	}
	if l.Delta != 0 && l.Kind != Huber {
		return fmt.Errorf("train: Loss.Delta is %g, but %v has no δ; leave it 0, or use Huber", l.Delta, l.Kind)
	}
	return nil
}

// EvalLoss returns the loss of the predictions pred and, unless grad is nil, sets
// grad, of the same length, to its derivative with respect to them. It is computed
// in float64, in ascending order of elements. pred may make it NaN or infinite; an
// error says that the target does not fit, that an element that counts has no
// finite target, or that none counts.
func EvalLoss[T backend.Float](l Loss, pred []T, y Target[T], grad []T) (float64, error) {
	total, err := checkTarget(l, len(pred), y)
	if err != nil {
		return 0, err
	}
	if grad != nil && len(grad) != len(pred) {
		return 0, fmt.Errorf("train: grad has %d elements, but there are %d predictions; give it one for each, or nil", len(grad), len(pred))
	}
	if total == 0 {
		return 0, errors.New("train: the mask leaves nothing to compare: all weights are 0; take out samples without targets")
	}
	target := y.plain()
	return learn.Eval(l.plain(), pred, &target, total, grad), nil
}

// ElementLosses sets dst to the weighted loss w_i ℓ_i of every element, or of every
// row of logits: the loss without a reduction.
func ElementLosses[T backend.Float](dst []float64, l Loss, pred []T, y Target[T]) error {
	if _, err := checkTarget(l, len(pred), y); err != nil {
		return err
	}
	if n := max(len(y.Values), len(y.Labels)); len(dst) != n {
		return fmt.Errorf("train: dst has %d elements, want %d, one for each target", len(dst), n)
	}
	clear(dst)
	target := y.plain()
	learn.Each(l.plain(), pred, &target, nil, 1, func(i int, loss float64) { dst[i] = loss })
	return nil
}

// plain is l for those that compute.
func (l Loss) plain() backend.Loss {
	p := backend.Loss{Kind: backend.LossKind(l.Kind), Mean: l.Reduction == Mean, Delta: l.Delta}
	if p.Delta == 0 {
		p.Delta = 1
	}
	return p
}

func (y Target[T]) plain() learn.Target[T, int32] { return learn.Target[T, int32](y) }

// weight is w_i; a negative label counts as 0.
func (y Target[T]) weight(i int) float64 {
	p := y.plain()
	return p.Weight(i)
}

// checkTarget returns Σ w_i.
func checkTarget[T backend.Float](l Loss, preds int, y Target[T]) (total float64, err error) {
	if err := l.Validate(); err != nil {
		return 0, err
	}
	n, classes := len(y.Values), 1
	if l.Kind == CrossEntropy {
		n = len(y.Labels)
		if y.Values != nil {
			return 0, errors.New("train: CrossEntropy compares with Labels, but Values are given; leave them nil")
		}
		if n == 0 || preds == 0 || preds%n != 0 {
			return 0, fmt.Errorf("train: %d logits for %d labels; give every label a row with one logit for each class", preds, n)
		}
		classes = preds / n
	} else {
		if y.Labels != nil {
			return 0, fmt.Errorf("train: %v compares with Values, but Labels are given; leave them nil, or use CrossEntropy", l.Kind)
		}
		if n == 0 || preds != n {
			return 0, fmt.Errorf("train: %d predictions for %d targets; give every prediction its target", preds, n)
		}
	}
	if y.Weights != nil && len(y.Weights) != n {
		return 0, fmt.Errorf("train: %d weights for %d targets; give every target a weight, or leave Weights nil", len(y.Weights), n)
	}
	for i := range n {
		w := y.weight(i)
		if !(w >= 0) || math.IsInf(w, 0) {
			return 0, fmt.Errorf("train: weight %d is %g; give finite weights that are not negative", i, w)
		}
		if w == 0 {
			continue
		}
		total += w
		if l.Kind == CrossEntropy {
			if int(y.Labels[i]) >= classes {
				return 0, fmt.Errorf("train: label %d is %d, but there are %d classes, counted from 0", i, y.Labels[i], classes)
			}
		} else if v := float64(y.Values[i]); math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("train: target %d is %g; give it weight 0 if it is missing", i, v)
		}
	}
	return total, nil
}
