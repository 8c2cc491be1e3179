package tableau

import "sync"

// Adaptive methods of orders 2 and 3.

var heunEuler21 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:       "heun_euler21",
		Source:     "Heun 1900 with Euler's method embedded",
		Order:      2,
		ErrorOrder: 1,
		C:          []float64{0, 1},
		A:          [][]float64{{}, {1}},
		B:          []float64{1.0 / 2, 1.0 / 2},
		E:          []float64{-1.0 / 2, 1.0 / 2},
	})
})

// HeunEuler21 returns Heun's method of order 2 with Euler's embedded, torchdiffeq's
// adaptive_heun. It is not FSAL: the second stage is at Euler's y1, not Heun's.
func HeunEuler21() *Tableau { return heunEuler21() }

var fehlberg12 = sync.OnceValue(func() *Tableau {
	return withHermite(Tableau{
		Name:       "fehlberg12",
		Source:     "Fehlberg 1969, NASA TR R-315, the formula RK1(2); continued with the solution of order 2",
		Order:      2,
		ErrorOrder: 1,
		C:          []float64{0, 1.0 / 2, 1},
		A:          [][]float64{{}, {1.0 / 2}, {1.0 / 256, 255.0 / 256}},
		B:          []float64{1.0 / 512, 255.0 / 256, 1.0 / 512},
		E:          []float64{1.0/512 - 1.0/256, 0, 1.0 / 512},
	})
})

// Fehlberg12 returns Fehlberg's RKF1(2), torchdiffeq's fehlberg2. It goes on with
// the solution of order 2, so it is not FSAL: the last stage is at the other one.
func Fehlberg12() *Tableau { return fehlberg12() }

var bosh3 = sync.OnceValue(func() *Tableau {
	t := withHermite(Tableau{
		Name:       "bosh3",
		Source:     "Bogacki & Shampine 1989, Appl. Math. Lett. 2(4), 321-325",
		Order:      3,
		ErrorOrder: 2,
		C:          []float64{0, 1.0 / 2, 3.0 / 4, 1},
		A:          [][]float64{{}, {1.0 / 2}, {0, 3.0 / 4}, {2.0 / 9, 1.0 / 3, 4.0 / 9}},
		B:          []float64{2.0 / 9, 1.0 / 3, 4.0 / 9, 0},
		E:          []float64{2.0/9 - 7.0/24, 1.0/3 - 1.0/4, 4.0/9 - 1.0/3, -1.0 / 8},
		FSAL:       true,
	})
	t.Dense.Source = "Bogacki & Shampine 1989: the cubic Hermite interpolant"
	return t
})

// Bosh3 returns Bogacki and Shampine's pair of orders 3(2), FSAL. The interpolant
// that its authors recommend is the cubic Hermite one.
func Bosh3() *Tableau { return bosh3() }
