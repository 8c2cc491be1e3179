package tableau

import "sync"

// dormandPrince is what the two variants of Dormand and Prince's 5(4) share.
func dormandPrince() Tableau {
	return Tableau{
		Order:      5,
		ErrorOrder: 4,
		C:          []float64{0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1},
		A: [][]float64{
			{},
			{1.0 / 5},
			{3.0 / 40, 9.0 / 40},
			{44.0 / 45, -56.0 / 15, 32.0 / 9},
			{19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
			{9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
			{35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
		},
		B:    []float64{35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84, 0},
		FSAL: true,
		Dense: Dense{
			// The same polynomial in both: that of DOPRI5's CONTD5, whose parameter
			// Shampine chose, takes at x = 1/2 the value that he gives weights for.
			Source: "Shampine 1986, Math. Comp. 46, 135-150; HNW II.6 and the code DOPRI5, function CONTD5",
			Order:  4,
			C1:     true,
			P: [][]float64{
				{1, -8048581381.0 / 2820520608, 8663915743.0 / 2820520608, -12715105075.0 / 11282082432},
				{0, 0, 0, 0},
				{0, 131558114200.0 / 32700410799, -68118460800.0 / 10900136933, 87487479700.0 / 32700410799},
				{0, -1754552775.0 / 470086768, 14199869525.0 / 1410260304, -10690763975.0 / 1880347072},
				{0, 127303824393.0 / 49829197408, -318862633887.0 / 49829197408, 701980252875.0 / 199316789632},
				{0, -282668133.0 / 205662961, 2019193451.0 / 616988883, -1453857185.0 / 822651844},
				{0, 40617522.0 / 29380423, -110615467.0 / 29380423, 69997945.0 / 29380423},
			},
		},
	}
}

var dopri5 = sync.OnceValue(func() *Tableau {
	t := dormandPrince()
	t.Name = "dopri5"
	t.Source = "Dormand & Prince 1980, J. Comput. Appl. Math. 6(1), 19-26, Table 2, RK5(4)7M; HNW Table II.5.2"
	t.E = []float64{71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525, -1.0 / 40}
	return &t
})

// Dopri5 returns Dormand and Prince's pair of orders 5(4), FSAL, with their own
// error weights, which Hairer's DOPRI5, MATLAB's ode45 and SciPy's RK45 use, and
// an interpolant of order 4 without extra stages. See [Dopri5Shampine] for the
// other error weights in use.
func Dopri5() *Tableau { return dopri5() }

var dopri5Shampine = sync.OnceValue(func() *Tableau {
	t := dormandPrince()
	t.Name = "dopri5_shampine"
	t.Source = "Dormand & Prince 1980, J. Comput. Appl. Math. 6(1), 19-26, Table 2, RK5(4)7M, with the embedded weights of Shampine 1986, Math. Comp. 46, 135-150"
	t.E = []float64{
		35.0/384 - 1951.0/21600,
		0,
		500.0/1113 - 22642.0/50085,
		125.0/192 - 451.0/720,
		-2187.0/6784 + 12231.0/42400,
		11.0/84 - 649.0/6300,
		-1.0 / 60,
	}
	return &t
})

// Dopri5Shampine returns Dormand and Prince's pair with the embedded weights of
// Shampine 1986, which torchdiffeq and diffrax use. Solution and interpolant are
// those of [Dopri5]. The error weights are exactly 2/3 of Dormand and Prince's, so
// that at equal tolerances steps are (3/2)^(1/5) = 1.084 times as long.
func Dopri5Shampine() *Tableau { return dopri5Shampine() }
