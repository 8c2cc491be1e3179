package expr_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/field/expr"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// The Lorenz system for two values of ρ, which is a component of the state: the gradient
// with respect to it is that of the initial state.
func ExampleParse() {
	f, err := expr.Parse([]string{"sigma*(y-x)", "x*(rho-z) - y", "x*y - beta*z", "0"}, expr.Settings[float64]{
		State:  []string{"x", "y", "z", "rho"},
		Params: []string{"sigma", "beta"},
		Theta:  []float64{10, 8. / 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample, RTol: 1e-8, ATol: 1e-8})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	sol, err := s.Solve(ctx, []float64{1, 0, 0, 10, 1, 0, 0, 21}, []float64{0, 1})
	if err != nil {
		log.Fatal(err)
	}
	g, err := adjoint.Gradients(ctx, s, sol, []float64{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}) // of x(1)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 2 {
		fmt.Printf("rho = %2.0f: x(1) = %.4f, dx(1)/drho = %.4f\n", sol.Final()[4*i+3], sol.Final()[4*i], g.Z0[4*i+3])
	}
	// Output:
	// rho = 10: x(1) = 3.4076, dx(1)/drho = -1.2178
	// rho = 21: x(1) = -6.4506, dx(1)/drho = -1.2392
}

func ExampleParse_errors() {
	_, err := expr.Parse([]string{"sigma*(z1-z0)", "2z0 - z1"}, expr.Settings[float64]{Params: []string{"sigma"}})
	fmt.Println(err)
	// Output: expr: Parse: equation 1, "2z0 - z1", column 2: 'z' is not expected here; write an operator before it, or leave it out
}
