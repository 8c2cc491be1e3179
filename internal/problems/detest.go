package problems

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/field"
)

// detest lists the problems of Hull, Enright, Fellen & Sedgwick 1972, Comparing
// numerical methods for ordinary differential equations, SIAM J. Numer. Anal.
// 9(4), 603-637, in the form of Enright & Pryce 1987, ACM TOMS 13(1), 1-27; all
// over 0 ≤ t ≤ 20. Of its class C only the problems with exact solutions are here.
func detest() []*Problem {
	list := []*Problem{
		{
			Name: "A1", Z0: []float64{1},
			f32: a1[float32], f64: a1[float64], dual: a1[field.Dual],
			Exact: func(t float64, z []float64) { z[0] = math.Exp(-t) },
		},
		{
			Name: "A2", Z0: []float64{1},
			f32: a2[float32], f64: a2[float64], dual: a2[field.Dual],
			Exact: func(t float64, z []float64) { z[0] = 1 / math.Sqrt(1+t) },
		},
		{
			Name: "A3", Z0: []float64{1},
			f32: a3[float32], f64: a3[float64], dual: a3[field.Dual],
			Exact: func(t float64, z []float64) { z[0] = math.Exp(math.Sin(t)) },
		},
		{
			Name: "A4", Z0: []float64{1},
			f32: a4[float32], f64: a4[float64], dual: a4[field.Dual],
			Exact: func(t float64, z []float64) { z[0] = 20 / (1 + 19*math.Exp(-t/4)) },
		},
		{
			Name: "A5", Z0: []float64{4}, End: []float64{-0.78878266889640142},
			f32: a5[float32], f64: a5[float64], dual: a5[field.Dual],
		},
		{
			Name: "B1", Z0: []float64{1, 3}, End: []float64{0.67618760085766066, 0.18608160996400298},
			f32: b1[float32], f64: b1[float64], dual: b1[field.Dual],
		},
		{
			Name: "B2", Z0: []float64{2, 0, 1},
			f32: b2[float32], f64: b2[float64], dual: b2[field.Dual],
			// By the eigenvectors (1,1,1), (1,0,-1), (1,-2,1) of 0, -1, -3.
			Exact: func(t float64, z []float64) {
				p, q := math.Exp(-t)/2, math.Exp(-3*t)/2
				z[0], z[1], z[2] = 1+p+q, 1-2*q, 1-p+q
			},
		},
		{
			Name: "B3", Z0: []float64{1, 0, 0},
			End: []float64{2.0611536224385578e-9, 0.052572280220485125, 0.94742771771836125},
			f32: b3[float32], f64: b3[float64], dual: b3[field.Dual],
		},
		{
			Name: "B4", Z0: []float64{3, 0, 0},
			End: []float64{0.98269509280065305, 2.1984470816949297, 0.91294525072762765},
			f32: b4[float32], f64: b4[float64], dual: b4[field.Dual],
		},
		{
			Name: "B5", Z0: []float64{0, 1, 1},
			End: []float64{-0.9396570798729204, -0.34211777540007491, 0.7414126596199953},
			f32: b5[float32], f64: b5[float64], dual: b5[field.Dual],
		},
		{
			Name: "C1", Z0: unit(10),
			f32: c1[float32], f64: c1[float64], dual: c1[field.Dual],
			// A Poisson process: z_i = e^(-t)·t^i/i!, the last what is left of 1.
			Exact: func(t float64, z []float64) {
				p, sum := math.Exp(-t), 0.0
				for i := range 9 {
					z[i] = p
					sum += p
					p *= t / float64(i+1)
				}
				z[9] = 1 - sum
			},
		},
		{
			Name: "C2", Z0: unit(10),
			f32: c2[float32], f64: c2[float64], dual: c2[field.Dual],
			// A Yule process: z_i = e^(-t)·(1-e^(-t))^i, the last what is left of 1.
			Exact: func(t float64, z []float64) {
				p, q := math.Exp(-t), -math.Expm1(-t)
				for i := range 9 {
					z[i] = p
					p *= q
				}
				z[9] = math.Pow(q, 9)
			},
		},
		{
			Name: "C3", Z0: unit(10),
			f32: c3[float32], f64: c3[float64], dual: c3[field.Dual],
			// By the sine transform, which diagonalises the second difference.
			Exact: func(t float64, z []float64) {
				clear(z)
				for k := 1; k <= 10; k++ {
					w := float64(k) * math.Pi / 11
					s := math.Sin(w / 2)
					p := math.Exp(-4*s*s*t) * math.Sin(w) * 2 / 11
					for i := range z {
						z[i] += p * math.Sin(w*float64(i+1))
					}
				}
			},
		},
		{
			Name: "E1", Z0: []float64{0.6713967071418030, 0.09540051444747446},
			f32: e1[float32], f64: e1[float64], dual: e1[field.Dual],
			// The Bessel function J_½(1+t) and its derivative.
			Exact: func(t float64, z []float64) {
				x := 1 + t
				s, c := math.Sincos(x)
				r := math.Sqrt(2 / (math.Pi * x))
				z[0], z[1] = r*s, r*(c-s/(2*x))
			},
		},
		{
			Name: "E2", Z0: []float64{2, 0}, End: []float64{2.0081497621749486, -0.042508875273202147},
			f32: e2[float32], f64: e2[float64], dual: e2[field.Dual],
		},
		{
			Name: "E3", Z0: []float64{0, 0}, End: []float64{-0.10041788586472407, 0.24114001320959556},
			f32: e3[float32], f64: e3[float64], dual: e3[field.Dual],
		},
		{
			Name: "E5", Z0: []float64{0, 0},
			f32: e5[float32], f64: e5[float64], dual: e5[field.Dual],
			// A pursuit: with r = 25-t, z1 = sinh(ln(25/r)).
			Exact: func(t float64, z []float64) {
				r := 25 - t
				z[0] = 12.5*math.Log(25/r) - (625-r*r)/100
				z[1] = (25/r - r/25) / 2
			},
		},
	}
	for i, e := range []float64{0.1, 0.3, 0.5, 0.7, 0.9} {
		list = append(list, &Problem{
			Name: "D" + string(rune('1'+i)), Z0: []float64{1 - e, 0, 0, math.Sqrt((1 + e) / (1 - e))},
			f32: kepler[float32], f64: kepler[float64], dual: kepler[field.Dual],
			Exact: func(t float64, z []float64) { orbit(e, t, z) },
		})
	}
	for _, p := range list {
		p.Source, p.T1 = "Hull, Enright, Fellen & Sedgwick 1972, problem "+p.Name, 20
		if p.Exact != nil {
			exactly(p)
		}
	}
	return list
}

func unit(n int) []float64 {
	z := make([]float64, n)
	z[0] = 1
	return z
}

// orbit is the two-body orbit of eccentricity e, from the pericentre at t = 0, by
// Newton's method on Kepler's equation E - e·sin E = t.
func orbit(e, t float64, z []float64) {
	E := t + e*math.Sin(t)
	for range 50 {
		s, c := math.Sincos(E)
		E -= (E - e*s - t) / (1 - e*c)
	}
	s, c := math.Sincos(E)
	b, r := math.Sqrt(1-e*e), 1-e*c
	z[0], z[1], z[2], z[3] = c-e, b*s, -s/r, b*c/r
}

func a1[T field.Number](_ T, z, _, dz []T) { dz[0] = -z[0] }

func a2[T field.Number](_ T, z, _, dz []T) { dz[0] = -z[0] * z[0] * z[0] / 2 }

func a3[T field.Number](t T, z, _, dz []T) { dz[0] = z[0] * field.Cos(t) }

func a4[T field.Number](_ T, z, _, dz []T) { dz[0] = z[0] / 4 * (1 - z[0]/20) }

func a5[T field.Number](t T, z, _, dz []T) { dz[0] = (z[0] - t) / (z[0] + t) }

func b1[T field.Number](_ T, z, _, dz []T) {
	dz[0] = 2 * (z[0] - z[0]*z[1])
	dz[1] = z[0]*z[1] - z[1]
}

func b2[T field.Number](_ T, z, _, dz []T) {
	dz[0] = z[1] - z[0]
	dz[1] = z[0] - 2*z[1] + z[2]
	dz[2] = z[1] - z[2]
}

func b3[T field.Number](_ T, z, _, dz []T) {
	dz[0] = -z[0]
	dz[1] = z[0] - z[1]*z[1]
	dz[2] = z[1] * z[1]
}

func b4[T field.Number](_ T, z, _, dz []T) {
	r := field.Sqrt(z[0]*z[0] + z[1]*z[1])
	dz[0] = -z[1] - z[0]*z[2]/r
	dz[1] = z[0] - z[1]*z[2]/r
	dz[2] = z[0] / r
}

func b5[T field.Number](_ T, z, _, dz []T) {
	dz[0] = z[1] * z[2]
	dz[1] = -z[0] * z[2]
	dz[2] = -0.51 * z[0] * z[1]
}

func c1[T field.Number](_ T, z, _, dz []T) {
	dz[0] = -z[0]
	for i := 1; i < 9; i++ {
		dz[i] = z[i-1] - z[i]
	}
	dz[9] = z[8]
}

func c2[T field.Number](_ T, z, _, dz []T) {
	dz[0] = -z[0]
	// The rates 1…9 are counted in T, which a conversion from int cannot make.
	var rate T = 1
	for i := 1; i < 9; i++ {
		dz[i] = rate*z[i-1] - (rate+1)*z[i]
		rate++
	}
	dz[9] = rate * z[8]
}

func c3[T field.Number](_ T, z, _, dz []T) {
	for i := range z {
		dz[i] = -2 * z[i]
		if i > 0 {
			dz[i] += z[i-1]
		}
		if i+1 < len(z) {
			dz[i] += z[i+1]
		}
	}
}

func kepler[T field.Number](_ T, z, _, dz []T) {
	r2 := z[0]*z[0] + z[1]*z[1]
	r3 := r2 * field.Sqrt(r2)
	dz[0], dz[1] = z[2], z[3]
	dz[2], dz[3] = -z[0]/r3, -z[1]/r3
}

func e1[T field.Number](t T, z, _, dz []T) {
	x := t + 1
	dz[0] = z[1]
	dz[1] = -(z[1]/x + (1-0.25/(x*x))*z[0])
}

func e2[T field.Number](_ T, z, _, dz []T) {
	dz[0] = z[1]
	dz[1] = (1-z[0]*z[0])*z[1] - z[0]
}

func e3[T field.Number](t T, z, _, dz []T) {
	dz[0] = z[1]
	dz[1] = z[0]*z[0]*z[0]/6 - z[0] + 2*field.Sin(2.78535*t)
}

func e5[T field.Number](t T, z, _, dz []T) {
	dz[0] = z[1]
	dz[1] = field.Sqrt(1+z[1]*z[1]) / (25 - t)
}
