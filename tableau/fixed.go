package tableau

import "sync"

// The methods of this file have no error estimate. Their interpolant is the cubic
// Hermite one.

var euler = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "euler",
		Source: "Euler 1768; HNW eq. I.7.3",
		Order:  1,
		C:      []float64{0},
		A:      [][]float64{{}},
		B:      []float64{1},
	})
})

// Euler returns Euler's method, of order 1.
func Euler() *Tableau { return euler() }

var midpoint = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "midpoint",
		Source: "Runge 1895, Math. Ann. 46, 167-178; HNW eq. II.1.4",
		Order:  2,
		C:      []float64{0, 1.0 / 2},
		A:      [][]float64{{}, {1.0 / 2}},
		B:      []float64{0, 1},
	})
})

// Midpoint returns Runge's explicit midpoint rule, of order 2.
func Midpoint() *Tableau { return midpoint() }

var heun2 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "heun2",
		Source: "Heun 1900, Z. Math. Phys. 45, 23-38; the explicit trapezoidal rule",
		Order:  2,
		C:      []float64{0, 1},
		A:      [][]float64{{}, {1}},
		B:      []float64{1.0 / 2, 1.0 / 2},
	})
})

// Heun2 returns Heun's method of order 2, the explicit trapezoidal rule. It is
// also the strong stability preserving method SSPRK(2,2).
func Heun2() *Tableau { return heun2() }

var ralston2 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "ralston2",
		Source: "Ralston 1962, Math. Comp. 16, 431-437: the second-order method with the least error bound",
		Order:  2,
		C:      []float64{0, 2.0 / 3},
		A:      [][]float64{{}, {2.0 / 3}},
		B:      []float64{1.0 / 4, 3.0 / 4},
	})
})

// Ralston2 returns Ralston's method of order 2, with the least error bound of all
// methods of order 2 with two stages.
func Ralston2() *Tableau { return ralston2() }

var heun3 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "heun3",
		Source: "Heun 1900, Z. Math. Phys. 45, 23-38; HNW Table II.1.1",
		Order:  3,
		C:      []float64{0, 1.0 / 3, 2.0 / 3},
		A:      [][]float64{{}, {1.0 / 3}, {0, 2.0 / 3}},
		B:      []float64{1.0 / 4, 0, 3.0 / 4},
	})
})

// Heun3 returns Heun's method of order 3.
func Heun3() *Tableau { return heun3() }

var ssprk3 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "ssprk3",
		Source: "Shu & Osher 1988, J. Comput. Phys. 77, 439-471: the third-order TVD method",
		Order:  3,
		C:      []float64{0, 1, 1.0 / 2},
		A:      [][]float64{{}, {1}, {1.0 / 4, 1.0 / 4}},
		B:      []float64{1.0 / 6, 1.0 / 6, 2.0 / 3},
	})
})

// SSPRK3 returns Shu and Osher's strong stability preserving method of order 3.
func SSPRK3() *Tableau { return ssprk3() }

var rk4 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "rk4",
		Source: "Kutta 1901, Z. Math. Phys. 46, 435-453; HNW Table II.1.2, left",
		Order:  4,
		C:      []float64{0, 1.0 / 2, 1.0 / 2, 1},
		A:      [][]float64{{}, {1.0 / 2}, {0, 1.0 / 2}, {0, 0, 1}},
		B:      []float64{1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6},
	})
})

// RK4 returns the classical Runge-Kutta method of order 4.
func RK4() *Tableau { return rk4() }

var rk4ThreeEighths = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:   "rk4_38",
		Source: "Kutta 1901, Z. Math. Phys. 46, 435-453; HNW Table II.1.2, right",
		Order:  4,
		C:      []float64{0, 1.0 / 3, 2.0 / 3, 1},
		A:      [][]float64{{}, {1.0 / 3}, {-1.0 / 3, 1}, {1, -1, 1}},
		B:      []float64{1.0 / 8, 3.0 / 8, 3.0 / 8, 1.0 / 8},
	})
})

// RK4ThreeEighths returns Kutta's 3/8 rule, of order 4. It is what torchdiffeq
// calls rk4.
func RK4ThreeEighths() *Tableau { return rk4ThreeEighths() }
