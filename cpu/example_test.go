package cpu_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// No bit of a result depends on the number of goroutines.
func ExampleBackend_SetThreads() {
	model, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 32, 2), mlp.Init{}, 1)
	if err != nil {
		panic(err)
	}
	z0 := make([]float32, 2*500) // 500 samples
	for i := range z0 {
		z0[i] = float32(i%7) / 7
	}
	var results [2][]float32
	for i, threads := range []int{1, 4} {
		dev := cpu.New[float32]()
		dev.SetThreads(threads)
		s, err := solver.New(dev, model, solver.Settings{})
		if err != nil {
			panic(err)
		}
		sol, err := s.Solve(context.Background(), z0, []float64{0, 1})
		if err != nil {
			panic(err)
		}
		results[i] = sol.Final()
		s.Close()
		dev.Close()
	}
	fmt.Println("the same bits:", slices.Equal(results[0], results[1]))
	// Output:
	// the same bits: true
}
