package problems

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// Network is a Neural ODE of a size that people use, for benchmarks: tanh layers, their
// parameters as torch.nn.Linear draws them, normally distributed initial states.
type Network struct {
	Batch  int
	Widths []int // of the state, the hidden layers, and the state again
	Times  []float64
	// RTol is the relative tolerance; the absolute one is a hundredth of it.
	RTol float64
}

// Networks lists them by the work that they are.
func Networks() []Network {
	ends := []float64{0, 1}
	ten := make([]float64, 10)
	for i := range ten {
		ten[i] = float64(float32(i) / 9) // the same in both precisions
	}
	return []Network{
		{1, []int{2, 50, 2}, ends, 1e-5},
		{128, []int{2, 64, 64, 2}, ten, 1e-5},
		{512, []int{64, 64, 64, 64}, ends, 1e-5},
		{1024, []int{128, 128, 128, 128}, ends, 1e-5},
		{512, []int{512, 512, 512}, ends, 1e-5},
	}
}

// String is "128 × 2-64-64-2".
func (n *Network) String() string {
	return fmt.Sprintf("%d × %s", n.Batch, strings.Trim(strings.ReplaceAll(fmt.Sprint(n.Widths), " ", "-"), "[]"))
}

// Benchmark is the size as a benchmark's name has it: "B=128/D=2/W=64/layers=3".
func (n *Network) Benchmark() string {
	return fmt.Sprintf("B=%d/D=%d/W=%d/layers=%d", n.Batch, n.Widths[0], n.Widths[1], len(n.Widths)-1)
}

// Spec is that of f.
func (n *Network) Spec() mlp.Spec { return mlp.Dense(mlp.Tanh, n.Widths...) }

// ModelOf makes f, the same each time, and the initial states, row-major [B, D].
func ModelOf[T backend.Float](n *Network) (*mlp.Model[T], []T) {
	m, err := mlp.New[T](n.Spec(), mlp.Init{}, 1)
	if err != nil {
		panic(err) // one of the list
	}
	r := rand.New(rand.NewPCG(1, 2))
	z0 := make([]T, n.Batch*n.Widths[0])
	for i := range z0 {
		z0[i] = T(r.NormFloat64())
	}
	return m, z0
}
