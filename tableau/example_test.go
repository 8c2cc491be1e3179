package tableau_test

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/tableau"
)

// One step of y' = y, y(0) = 1, its error estimate, and the solution in its middle.
func ExampleTableau() {
	m := tableau.Dopri5()
	f := func(_, y float64) float64 { return y }
	t0, y0, h := 0.0, 1.0, 0.5

	k := make([]float64, m.Stages())
	for i, row := range m.A {
		y := y0
		for j, a := range row {
			y += h * a * k[j]
		}
		k[i] = f(t0+m.C[i]*h, y)
	}
	y1, estimate := y0, 0.0
	for j := range k {
		y1 += h * m.B[j] * k[j]
		estimate += h * m.E[j] * k[j]
	}
	fmt.Printf("y(0.5)  = %.6f, exactly %.6f, estimated error %.0e\n", y1, math.Exp(h), math.Abs(estimate))

	w := make([]float64, len(m.Dense.P))
	m.Weights(w, 0.5)
	y := y0
	for j := range k {
		y += h * w[j] * k[j]
	}
	fmt.Printf("y(0.25) = %.6f, exactly %.6f\n", y, math.Exp(h/2))
	// Output:
	// y(0.5)  = 1.648724, exactly 1.648721, estimated error 2e-05
	// y(0.25) = 1.284028, exactly 1.284025
}

// A user's own method, with an interpolant, checked. Here a digit is wrong.
func ExampleTableau_Check() {
	m := &tableau.Tableau{
		Name:  "kutta3",
		Order: 3,
		C:     []float64{0, 1.0 / 2, 1},
		A:     [][]float64{{}, {1.0 / 2}, {-1, 2}},
		B:     []float64{1.0 / 6, 2.0 / 3, 1.0 / 6},
	}
	m.Dense = m.Hermite()
	fmt.Println(m.Check())

	m.A[2] = []float64{-1, 1.9}
	fmt.Println(m.Check())
	// Output:
	// <nil>
	// tableau: kutta3: A[2] sums to 0.9, but its c is 1, off by 0.1
	// tableau: kutta3: Order is 3, but the condition of order 2 for tree [τ] fails: Σ B_j·Φ_j = 0.483333333333, want 1/2, off by 0.017
	// tableau: kutta3: Dense.Order is 3, but the condition of order 2 for tree [τ] fails: Σ b_j(x)·Φ_j has 0.45·x^2, want 0.5, off by 0.05
}

func ExampleByName() {
	m, err := tableau.ByName("tsit5")
	fmt.Println(m.Order, m.ErrorOrder, m.Stages(), m.FSAL, err)
	_, err = tableau.ByName("dopri7")
	fmt.Println(err)
	// Output:
	// 5 4 7 true <nil>
	// tableau: method "dopri7" unknown; use one of euler, midpoint, heun2, ralston2, heun3, ssprk3, rk4, rk4_38, heun_euler21, fehlberg12, bosh3, dopri5, dopri5_shampine, tsit5, vern7, dopri8
}
