package problems

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/field"
)

func withGradients() []*Problem {
	return []*Problem{LotkaVolterra(), ForcedLotkaVolterra(), CubicSpiral(), Linear()}
}

// LotkaVolterra is the predator-prey system, θ = (birth and predation of the
// prey, death and growth of the predator).
func LotkaVolterra() *Problem {
	return &Problem{
		Name: "lotka_volterra", Source: "Lotka 1925, Volterra 1926; parameters and loss of the SciMLSensitivity documentation",
		Theta: []float64{1.5, 1, 3, 1}, Z0: []float64{1, 1}, T1: 10,
		End: []float64{1.02634476757508932, 0.909691078136041618},
		f32: lotkaVolterra[float32], f64: lotkaVolterra[float64], dual: lotkaVolterra[field.Dual],
		Losses: []Loss{{ // L = ½·‖1 - z(10)‖²
			Times: []float64{0, 10},
			Cotangent: func(i int, z, a []float64) {
				for j := range a {
					a[j] = float64(min(i, 1)) * (z[j] - 1)
				}
			},
			Value:  0.00442487407340800896,
			DZ0:    []float64{0.2995995083036823, -0.014151816344853506},
			DTheta: []float64{0.62196158555128088, 0.068001404150874337, 0.16917646399589282, 0.27256069395000751},
			DTimes: []float64{-0.17810338684154816, 0.17810338684154816},
		}},
	}
}

func lotkaVolterra[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

// ForcedLotkaVolterra is the predator-prey system with an interaction that grows
// in proportion to the time.
func ForcedLotkaVolterra() *Problem {
	times := make([]float64, 21)
	for i := range times {
		times[i] = 0.5 * float64(i)
	}
	return &Problem{
		Name: "forced_lotka_volterra", Source: "the non-autonomous Lotka-Volterra system of the SciMLSensitivity tests",
		Theta: []float64{1.5, 1, 3, 1}, Z0: []float64{1, 1}, T1: 10,
		End: []float64{0.0874241782261015016, 0.647905374054426878},
		f32: forcedLotkaVolterra[float32], f64: forcedLotkaVolterra[float64], dual: forcedLotkaVolterra[field.Dual],
		Losses: []Loss{{ // L = ½·Σ_i ‖z(t_i) - 2‖², t0 included
			Times: times,
			Cotangent: func(_ int, z, a []float64) {
				for j := range a {
					a[j] = z[j] - 2
				}
			},
			Value:  64.9120895046476236,
			DZ0:    []float64{0.21196566979224945, -17.191005070736326},
			DTheta: []float64{13.156719526766282, -16.810514043534893, 7.7027081314143658, -25.639475859684281},
			DTimes: []float64{
				-50.390963716897352, 0.96346523539458348, 9.7832668365749912, -14.353367354428218, -10.047979006461405,
				2.9624009112455445, 1.1867446577826247, 0.024076240866919724, -0.58251701883710507, -1.1615785650534188,
				-1.4751803036756149, -4.0071622073147831, 3.7126094871488236, 1.6028086000146526, 0.36455522243432295,
				-0.10022076091671001, -0.41852294240235076, -0.84384467247362763, -1.3687344224115344,
				-2.4606301670119333, 2.6947511620857958,
			},
		}},
	}
}

func forcedLotkaVolterra[T field.Number](t T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]*t
	dz[1] = t*theta[3]*z[0]*z[1] - theta[2]*z[1]
}

// CubicSpiral is dz/dt = z³·A, the cube element-wise and z a row; θ is A, row-major.
func CubicSpiral() *Problem {
	times := make([]float64, 10)
	for i := range times {
		times[i] = 25 * float64(i) / 9
	}
	return &Problem{
		Name: "cubic_spiral", Source: "Chen et al. 2018, arXiv 1806.07366; torchdiffeq's examples/ode_demo.py",
		Theta: []float64{-0.1, 2, -2, -0.1}, Z0: []float64{2, 0}, T1: 25,
		End: []float64{-0.443623486698634945, 0.279440641618938998},
		f32: cubicSpiral[float32], f64: cubicSpiral[float64], dual: cubicSpiral[field.Dual],
		Losses: []Loss{{ // the sum of all components at all times, t0 included
			Times:     times,
			Cotangent: ones,
			Value:     0.474521175150848512,
			DZ0:       []float64{-5.9665654771903224, 0.66129958671822605},
			DTheta:    []float64{-66.007352500910757, -5.6475940457372637, 4.0229773456336031, -65.365814678849113},
			DTimes: []float64{
				-0.15404576924387472, 1.4455508066980269, -1.5797367213302007, 0.94059911502113104, -0.63533229931170023,
				-0.19209221959622215, 0.40126278521719789, 0.22568824598139104, -0.24018926056004191, -0.21170468287570722,
			},
		}},
	}
}

func cubicSpiral[T field.Number](_ T, z, theta, dz []T) {
	x, y := z[0]*z[0]*z[0], z[1]*z[1]*z[1]
	dz[0] = x*theta[0] + y*theta[2]
	dz[1] = x*theta[1] + y*theta[3]
}

func ones(_ int, _, a []float64) {
	for j := range a {
		a[j] = 1
	}
}

func onesButFirst(i int, _, a []float64) {
	for j := range a {
		a[j] = float64(min(i, 1))
	}
}

// Linear is dz/dt = [θ0 θ1; θ2 θ3]·z, a spiral of constant radius.
func Linear() *Problem {
	p := &Problem{
		Name: "linear", Source: "elementary",
		Theta: []float64{0.1, -1, 1, -0.1}, Z0: []float64{0.9, 5.4}, T0: 0.3, T1: 9.5,
		f32: linear[float32], f64: linear[float64], dual: linear[field.Dual],
		// M² = -ω²·1 with ω² = 0.99, so exp(M·s) = cos(ωs) + M·sin(ωs)/ω.
		Exact: func(t float64, z []float64) {
			w := math.Sqrt(0.99)
			s, c := math.Sincos(w * (t - 0.3))
			z[0] = 0.9*c + (0.1*0.9-5.4)*s/w
			z[1] = 5.4*c + (0.9-0.1*5.4)*s/w
		},
		Losses: []Loss{{ // the sum of the components at all times but t0
			Times:     []float64{0.3, 9.5},
			Cotangent: onesButFirst,
			Value:     -7.40150857827890329,
			DZ0:       []float64{-0.6676975398005155, -1.2593668134182295},
			DTheta:    []float64{-36.156025115875489, -13.587414406137057, 15.281740053315056, -31.937853804290421},
			DTimes:    []float64{-3.0921018835101747, 3.0921018835101747},
		}, {
			Times:     []float64{0.3, 1, 7},
			Cotangent: onesButFirst,
			Value:     5.62393112495690106,
			DZ0:       []float64{2.8171801521914426, 0.57193870147863014},
			DTheta:    []float64{13.988364366639979, 29.190046690187944, -22.760491626783072, 13.845103799046705},
			DTimes:    []float64{14.753328675604253, -7.8185149777228014, -6.9348136978814518},
		}},
	}
	return exactly(p)
}

func linear[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] + theta[1]*z[1]
	dz[1] = theta[2]*z[0] + theta[3]*z[1]
}
