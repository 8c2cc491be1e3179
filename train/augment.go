package train

import (
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Augment appends extra zeros to every state of states, row-major [n, d]: the initial states
// of an augmented Neural ODE, [n, d+extra], whose solutions may do what those of an ODE in d
// components cannot, such as pass each other (Dupont et al. 2019, Augmented neural ODEs,
// arXiv 1904.01681, eq. 2). It also takes cotangents of d components to those of d+extra,
// for package adjoint.
func Augment[T backend.Float](states []T, d, extra int) []T {
	if d < 1 || extra < 0 || len(states)%d != 0 {
		panic(fmt.Sprintf("train: Augment of %d numbers as states of %d components, by %d", len(states), d, extra))
	}
	out := make([]T, 0, len(states)/d*(d+extra))
	for ; len(states) > 0; states = states[d:] {
		out = append(out, states[:d]...)
		out = append(out, make([]T, extra)...)
	}
	return out
}

// CutAugmented is the transpose of Augment: it returns the first d components of every
// state, [n, d], of states, [n, d+extra]. It takes solutions to what is compared with
// data, and dL/dz0 to the derivative with respect to what was augmented.
func CutAugmented[T backend.Float](states []T, d, extra int) []T {
	if d < 1 || extra < 0 || len(states)%(d+extra) != 0 {
		panic(fmt.Sprintf("train: CutAugmented of %d numbers to states of %d components, by %d", len(states), d, extra))
	}
	out := make([]T, 0, len(states)/(d+extra)*d)
	for ; len(states) > 0; states = states[d+extra:] {
		out = append(out, states[:d]...)
	}
	return out
}

// Augment returns data of states of d components for an augmented Neural ODE: Z0 with
// extra zeros, and Targets with extra values that do not count. With labels, whose logits
// are the components, there is nothing to augment.
func (data Data[T]) Augment(d, extra int) Data[T] {
	if data.Labels != nil {
		panic("train: Augment of data with Labels, whose logits are all components of a state")
	}
	weights := data.Weights
	if weights == nil {
		weights = slices.Repeat([]T{1}, len(data.Targets))
	}
	data.Z0, data.Targets, data.Weights = Augment(data.Z0, d, extra), Augment(data.Targets, d, extra), Augment(weights, d, extra)
	return data
}
