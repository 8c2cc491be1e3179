package train

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

// NonFiniteError says what became NaN or infinite, and where.
type NonFiniteError struct {
	What   string // "loss", "validation loss", "gradient" or "update"
	Value  float64
	Step   int // updates made before
	Epoch  int // epochs finished before
	Param  int // the first parameter it is about; -1: none
	Sample int // the first sample that makes it so by itself; -1: none, or not known
}

func (e *NonFiniteError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "train: step %d of epoch %d: the %s", e.Step, e.Epoch, e.What)
	if e.Param >= 0 {
		fmt.Fprintf(&b, " of parameter %d", e.Param)
	}
	fmt.Fprintf(&b, " is %g", e.Value)
	if e.Sample >= 0 {
		fmt.Fprintf(&b, ", first for sample %d", e.Sample)
	}
	b.WriteString("; lower the learning rate, set ClipNorm, or check the data; the last good parameters are kept")
	return b.String()
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// culprit finds a sample of batch for which bad is true by itself, by halving, or
// returns -1.
func culprit(batch []int, bad func(batch []int) bool) int {
	for len(batch) > 1 {
		half := len(batch) / 2
		switch {
		case bad(batch[:half]):
			batch = batch[:half]
		case bad(batch[half:]):
			batch = batch[half:]
		default:
			return -1 // only their sum overflows
		}
	}
	if len(batch) == 1 && bad(batch) {
		return batch[0]
	}
	return -1
}

// blame finds the sample that makes the loss or, if grad is not nil, the gradient
// not finite. It overwrites grad.
func blame[T backend.Float](ctx context.Context, obj Objective[T], theta []T, batch []int, grad []T) int {
	return culprit(batch, func(part []int) bool {
		if grad == nil {
			loss, err := obj.Loss(ctx, theta, part)
			return err == nil && !finite(loss)
		}
		_, err := obj.Gradient(ctx, theta, part, grad)
		return err == nil && learn.FirstNonFinite(grad) >= 0
	})
}
