package simd

import "github.com/seed-5f5774c8/neuralode/mlp"

// Activate sets y = σ(x), element by element; y may be x. NaN gives NaN, and the limits
// at ±Inf are those of package mlp. The assembly's error is below 5 units in the last
// place of the result, 6 for GELU; but for GELUTanh, whose tail for negative x loses what the
// exponential makes of the rounding of its argument u, |u| units, and for SiLU where σ(x)
// is denormal, |x| of the smallest numbers. Plain Go rounds what package mlp computes in
// float64, whose GELU loses x² units in the tail.
func Activate[T Float](act mlp.Activation, y, x []T) {
	y = y[:len(x)]
	if act == mlp.Identity {
		copy(y, x)
		return
	}
	if len(x) > 0 && !activateAsm(act, y, x) {
		activateGo(act, y, x)
	}
}

func activateGo[T Float](act mlp.Activation, y, x []T) {
	for i, v := range x {
		y[i] = T(act.Value(float64(v)))
	}
}

// TimesSlope multiplies d by σ'(x), element by element, where y = σ(x). For Tanh,
// Sigmoid and ELU it is made of y, 1 - y², y - y² and min(y, 0) + 1: its absolute error
// is below 2 units in the last place of 1.
func TimesSlope[T Float](act mlp.Activation, d, x, y []T) {
	d, y = d[:len(x)], y[:len(x)]
	if act == mlp.Identity || len(x) == 0 || slopeAsm(act, d, x, y) {
		return
	}
	slopeGo(act, d, x, y)
}

func slopeGo[T Float](act mlp.Activation, d, x, y []T) {
	if act == mlp.Tanh {
		for i, v := range y {
			d[i] *= 1 - v*v
		}
		return
	}
	for i, v := range x {
		d[i] *= T(act.Deriv(float64(v)))
	}
}
