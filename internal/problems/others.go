package problems

import "github.com/seed-5f5774c8/neuralode/field"

// VanDerPol is one period of the limit cycle at μ = 2, from its largest amplitude.
func VanDerPol() *Problem {
	const amplitude = 2.01989138466713602
	return &Problem{
		Name: "van_der_pol", Source: "van der Pol 1926; period and amplitude by Newton's method on the return map",
		Theta: []float64{2}, Z0: []float64{amplitude, 0}, T1: 7.62987447967484163,
		End: []float64{amplitude, 0},
		f32: vanDerPol[float32], f64: vanDerPol[float64], dual: vanDerPol[field.Dual],
	}
}

func vanDerPol[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = theta[0]*(1-z[0]*z[0])*z[1] - z[0]
}

// Riccati is z' = -2tz² + cos t, neither linear nor autonomous: what orders of
// convergence are measured on.
func Riccati() *Problem {
	return &Problem{
		Name: "riccati", Source: "a Riccati equation without closed solution",
		Z0: []float64{1}, T1: 2, End: []float64{0.18919090452639095218},
		f32: riccati[float32], f64: riccati[float64], dual: riccati[field.Dual],
	}
}

func riccati[T field.Number](t T, z, _, dz []T) {
	dz[0] = field.Cos(t) - 2*t*z[0]*z[0]
}

// stiff lists problems that explicit methods solve only with very many steps.
func stiff() []*Problem {
	return []*Problem{
		{
			Name: "robertson", Source: "Robertson 1966, three chemical species; end by DOP853 at two tolerances",
			Theta: []float64{0.04, 3e7, 1e4}, Z0: []float64{1, 0, 0}, T1: 100, Stiff: true,
			End: []float64{0.6172348823961, 6.153591274640e-6, 0.3827589640126},
			f32: robertson[float32], f64: robertson[float64], dual: robertson[field.Dual],
		},
		{
			Name: "hires", Source: "Schäfer 1975, eight chemical species; Hairer & Wanner, Solving ODEs II, IV.10; end by DOP853 at two tolerances",
			Z0: []float64{1, 0, 0, 0, 0, 0, 0, 0.0057}, T1: 321.8122, Stiff: true,
			End: []float64{
				7.3713125733e-4, 1.4424857263e-4, 5.8887297410e-5, 1.1756513433e-3,
				2.3863561988e-3, 6.2389682527e-3, 2.8499983952e-3, 2.8500016048e-3,
			},
			f32: hires[float32], f64: hires[float64], dual: hires[field.Dual],
		},
		{
			Name: "orego", Source: "Field & Noyes 1974, the Oregonator; Hairer & Wanner, Solving ODEs II, IV.10; end by DOP853 at two tolerances",
			Z0: []float64{1, 2, 3}, T1: 30, Stiff: true,
			End: []float64{1.0006614672, 1512.7789373, 10358.543128},
			f32: orego[float32], f64: orego[float64], dual: orego[field.Dual],
		},
	}
}

func robertson[T field.Number](_ T, z, theta, dz []T) {
	a, b, c := theta[0]*z[0], theta[1]*z[1]*z[1], theta[2]*z[1]*z[2]
	dz[0] = c - a
	dz[1] = a - b - c
	dz[2] = b
}

func hires[T field.Number](_ T, z, _, dz []T) {
	r := 280 * z[5] * z[7]
	dz[0] = -1.71*z[0] + 0.43*z[1] + 8.32*z[2] + 0.0007
	dz[1] = 1.71*z[0] - 8.75*z[1]
	dz[2] = -10.03*z[2] + 0.43*z[3] + 0.035*z[4]
	dz[3] = 8.32*z[1] + 1.71*z[2] - 1.12*z[3]
	dz[4] = -1.745*z[4] + 0.43*z[5] + 0.43*z[6]
	dz[5] = -r + 0.69*z[3] + 1.71*z[4] - 0.43*z[5] + 0.69*z[6]
	dz[6] = r - 1.81*z[6]
	dz[7] = 1.81*z[6] - r
}

func orego[T field.Number](_ T, z, _, dz []T) {
	dz[0] = 77.27 * (z[1] + z[0]*(1-8.375e-6*z[0]-z[1]))
	dz[1] = (z[2] - (1+z[0])*z[1]) / 77.27
	dz[2] = 0.161 * (z[0] - z[2])
}
