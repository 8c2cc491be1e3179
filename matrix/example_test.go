package matrix_test

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/matrix"
	"github.com/seed-5f5774c8/neuralode/solver"

	"gonum.org/v1/gonum/mat"
)

// rotation turns a point by θ radians in a unit of time.
func rotation[T field.Number](_ T, z, theta, dz []T) {
	dz[0], dz[1] = -theta[0]*z[1], theta[0]*z[0]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A batch of two points given as the rows of a matrix, and what comes of them.
func Example() {
	dev := cpu.New[float64]()
	defer dev.Close()
	f := field.New(2, []float64{math.Pi / 6}, rotation[float64], rotation[field.Dual])
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-10, ATol: 1e-10})
	check(err)
	defer s.Close()

	points := mat.NewDense(2, 2, []float64{1, 0, 3, 1})
	sol, err := s.Solve(context.Background(), matrix.Slice[float64](points), []float64{0, 1, 2})
	check(err)
	fmt.Printf("after 1:\n%.3f\n", mat.Formatted(matrix.State(sol, 1)))
	fmt.Printf("the second point:\n%.3f\n", mat.Formatted(matrix.Trajectory(sol, 1)))
	// Output:
	// after 1:
	// ⎡0.866  0.500⎤
	// ⎣2.098  2.366⎦
	// the second point:
	// ⎡3.000  1.000⎤
	// ⎢2.098  2.366⎥
	// ⎣0.634  3.098⎦
}

// The derivative of the flow is a rotation too.
func ExampleJacobian() {
	dev := cpu.New[float64]()
	defer dev.Close()
	f := field.New(2, []float64{math.Pi / 6}, rotation[float64], rotation[field.Dual])
	s, err := solver.New(dev, f, solver.Settings{RTol: 1e-10, ATol: 1e-10})
	check(err)
	defer s.Close()
	v, err := adjoint.NewSensitivity(s, adjoint.SensitivitySettings{})
	check(err)
	defer v.Close()

	sol, err := v.Solve(context.Background(), []float64{1, 0}, []float64{0, 1}, adjoint.StateTangents[float64](1, 2))
	check(err)
	j := matrix.Jacobian(sol, 1, 0)
	fmt.Printf("%.4f\ndeterminant %.6f\n", mat.Formatted(j), mat.Det(j))
	// Output:
	// ⎡ 0.8660  -0.5000⎤
	// ⎣ 0.5000   0.8660⎦
	// determinant 1.000000
}
