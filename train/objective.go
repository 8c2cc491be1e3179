package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

// Objective is what [Fit] and [LBFGS] minimise: a loss of parameters θ over samples.
// It is used from one goroutine at a time. batch lists distinct samples, from 0 to
// below NumSamples; an Objective changes and keeps neither batch nor theta.
//
// The same arguments must give the same bits, whatever was evaluated before: that
// is what makes a resumed run equal to one never stopped.
type Objective[T backend.Float] interface {
	NumParams() int
	NumSamples() int
	// Gradient returns the loss of the batch and sets grad, length NumParams, to
	// its derivative with respect to theta. A NaN or infinite result is not an
	// error: the caller finds it and says where.
	Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error)
	// Loss returns the loss alone.
	Loss(ctx context.Context, theta []T, batch []int) (float64, error)
}

// Identifier is an Objective that tells what it computes, as short texts by name. A
// checkpoint keeps them and is refused to an objective whose texts differ. Without
// it, only the numbers of parameters and samples are compared.
type Identifier interface {
	Identity() (map[string]string, error)
}

// Split divides n samples at random, reproducibly: validation gets the fraction
// held of them, rounded to the nearest number. Both lists ascend.
func Split(n int, held float64, seed uint64) (training, validation []int) {
	if n < 0 || !(held >= 0 && held <= 1) {
		panic("train: Split needs a number of samples and a fraction from 0 to 1")
	}
	order := make([]int, n)
	shuffle(order, seed, 0)
	out := make([]bool, n)
	for _, i := range order[:int(math.Round(held*float64(n)))] {
		out[i] = true
	}
	for i, held := range out {
		if held {
			validation = append(validation, i)
		} else {
			training = append(training, i)
		}
	}
	return training, validation
}

// shuffle sets order to a permutation that depends on its length, seed and epoch
// alone, so that an interrupted run needs no generator's state to continue.
func shuffle(order []int, seed uint64, epoch int) {
	for i := range order {
		order[i] = i
	}
	r := rand.New(rand.NewPCG(seed, uint64(epoch)))
	for i := len(order) - 1; i > 0; i-- { // Fisher & Yates
		j := r.Uint64N(uint64(i) + 1)
		order[i], order[j] = order[j], order[i]
	}
}

// checkStart validates what Fit and LBFGS begin with.
func checkStart[T backend.Float](obj, validation Objective[T], theta []T) error {
	if obj == nil {
		return fmt.Errorf("train: the objective is nil; NewTrajectories makes one")
	}
	if n := obj.NumSamples(); n < 1 {
		return fmt.Errorf("train: the objective has %d samples; give at least one", n)
	}
	if p := obj.NumParams(); len(theta) != p || p == 0 {
		return fmt.Errorf("train: theta has %d parameters, and the objective %d; they must be equal and not 0", len(theta), p)
	}
	if i := learn.FirstNonFinite(theta); i >= 0 {
		return fmt.Errorf("train: parameter %d is %g; start from finite ones", i, float64(theta[i]))
	}
	if validation != nil {
		if n := validation.NumSamples(); n < 1 {
			return fmt.Errorf("train: Settings.Validation has %d samples; give at least one, or nil", n)
		}
		if p := validation.NumParams(); p > len(theta) {
			return fmt.Errorf("train: Settings.Validation has %d parameters, more than the %d that are trained", p, len(theta))
		}
	}
	return nil
}

// count returns 0, 1, … n-1.
func count(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
