package train

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Metrics say how good predictions are, for people: they have no gradient. A mean takes
// the weights of the target. The mean absolute error is [EvalLoss] with MAE, and the
// negative log-likelihood of classes, in nats, that with CrossEntropy.

// RMSE is the root of the mean squared error, in the targets' unit. Errors are those of
// EvalLoss.
func RMSE[T backend.Float](pred []T, y Target[T]) (float64, error) {
	mse, err := EvalLoss(Loss{Kind: MSE}, pred, y, nil)
	return math.Sqrt(mse), err
}

// R2 is the coefficient of determination, 1 - Σ w(p-y)²/Σ w(y-ȳ)² with the mean ȳ of the
// targets: 1 for exact predictions, 0 for ȳ itself. Errors are those of EvalLoss, and one
// for targets that are all the same.
func R2[T backend.Float](pred []T, y Target[T]) (float64, error) {
	mse, err := EvalLoss(Loss{Kind: MSE}, pred, y, nil)
	if err != nil {
		return 0, err
	}
	total, mean, spread := 0.0, 0.0, 0.0
	for i, v := range y.Values { // West 1979, Updating mean and variance estimates
		if w := y.weight(i); w > 0 {
			total += w
			d := float64(v) - mean
			mean += d * w / total
			spread += w * d * (float64(v) - mean)
		}
	}
	if spread == 0 {
		return 0, errors.New("train: R2 has no meaning where all targets are the same; use RMSE")
	}
	return 1 - mse*total/spread, nil
}

// Accuracy is the weighted fraction of the rows of logits whose largest is that of their
// class; of equal ones the first counts, and a row with NaN is wrong. Errors are those of EvalLoss with CrossEntropy.
func Accuracy[T backend.Float](logits []T, y Target[T]) (float64, error) {
	total, err := checkTarget(Loss{Kind: CrossEntropy}, len(logits), y)
	if err != nil {
		return 0, err
	}
	if total == 0 {
		return 0, errors.New("train: Accuracy of no rows: all labels are negative or have weight 0")
	}
	right, c := 0.0, len(logits)/len(y.Labels)
	for i, label := range y.Labels {
		top := 0
		for j, v := range logits[i*c : (i+1)*c] {
			if v > logits[i*c+top] || v != v { // nothing is above a NaN
				top = j
			}
		}
		if best := logits[i*c+top]; top == int(label) && best == best {
			right += y.weight(i)
		}
	}
	return right / total, nil
}

// NormalNLL is the mean of -log N(y; p, s²), in nats: predictions with normal errors of the
// standard deviation s, in the targets' unit. Errors are those of EvalLoss, and one for an
// s that is not above 0.
func NormalNLL[T backend.Float](pred []T, s float64, y Target[T]) (float64, error) {
	if !(s > 0) || math.IsInf(s, 0) {
		return 0, fmt.Errorf("train: NormalNLL with the standard deviation %g; give a number above 0", s)
	}
	mse, err := EvalLoss(Loss{Kind: MSE}, pred, y, nil)
	return mse/(2*s*s) + math.Log(s) + math.Log(2*math.Pi)/2, err
}
