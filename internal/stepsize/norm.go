package stepsize

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Estimate is what the error ratio of an attempt is made of: the components of one lane.
type Estimate[T backend.Float] struct {
	Tol    backend.Tolerance
	H      float64
	E, E2  []float64 // weights; a nil E2 is left out
	Y0, Y1 []T       // state at both ends
	K      [][]T     // stages
}

// At is component i: its scale, and its two estimates over that. They are NaN if y1 or an
// estimate is not finite.
func (e *Estimate[T]) At(i int) (scale, x, x2 float64) {
	var est, est2 float64
	for j, w := range e.E {
		if w != 0 {
			est += w * float64(e.K[j][i])
		}
	}
	for j, w := range e.E2 {
		if w != 0 {
			est2 += w * float64(e.K[j][i])
		}
	}
	y0, y1 := math.Abs(float64(e.Y0[i])), math.Abs(float64(e.Y1[i]))
	scale = e.Tol.Abs + e.Tol.Rel*max(y0, y1)
	if !(y1 <= math.MaxFloat64) || est-est != 0 || est2-est2 != 0 {
		return scale, math.NaN(), math.NaN()
	}
	return scale, Over(e.H*est, scale), Over(e.H*est2, scale)
}

// Over is x/scale, with nothing over nothing being nothing.
func Over(x, scale float64) float64 {
	if x == 0 {
		return 0
	}
	return x / scale
}

// sums are Σ x² and Σ x2².
func (e *Estimate[T]) sums() (sum, sum2 float64) {
	for i := range e.Y1 {
		_, x, x2 := e.At(i)
		sum += x * x
		sum2 += x2 * x2
	}
	return sum, sum2
}

// Ratio is the error ratio.
func (e *Estimate[T]) Ratio() float64 {
	sum, sum2 := e.sums()
	return Ratio(sum, sum2, len(e.Y1), e.E2 != nil)
}

// Ratio is the error ratio from the sums of squares over n components, of the second
// estimate too if there is one.
func Ratio(sum, sum2 float64, n int, second bool) float64 {
	components := float64(max(n, 1))
	switch {
	case math.IsInf(sum, 1) || math.IsInf(sum2, 1):
		return math.Inf(1)
	case !second || sum == 0:
		return math.Sqrt(sum / components)
	}
	// Hairer's DOP853: |h|·ERR/√(n·(ERR + 0.01·ERR2)), ERR and ERR2 the sums of squares.
	return sum / math.Sqrt(components*(sum+0.01*sum2))
}

// VJP adds the cotangent a of the ratio, pulled back, to y0, y1 and k, and returns that
// of H. Where the ratio is 0, or one of the two states' components is as large as the
// other, it takes one of the one-sided derivatives.
func (e *Estimate[T]) VJP(a float64, y0, y1 []float64, k [][]float64) (h float64) {
	sum, sum2 := e.sums()
	if a == 0 || sum == 0 {
		return 0
	}
	// r = sum/√(n·all), or √(sum/n), which is the same without a second estimate.
	all := sum
	if e.E2 != nil {
		all += 0.01 * sum2
	}
	r := sum / math.Sqrt(float64(len(e.Y1))*all)
	bySum, bySum2 := a*r*(1/sum-0.5/all), -a*r*0.005/all
	for i := range e.Y1 {
		scale, x, x2 := e.At(i)
		if x == 0 && x2 == 0 && scale == 0 {
			continue
		}
		g, g2 := 2*bySum*x, 2*bySum2*x2
		for j, w := range e.E {
			k[j][i] += g * w * e.H / scale
		}
		for j, w := range e.E2 {
			k[j][i] += g2 * w * e.H / scale
		}
		by := g * x
		if e.E2 != nil {
			by += g2 * x2
		}
		h += by / e.H
		v0, v1 := float64(e.Y0[i]), float64(e.Y1[i])
		if by *= -e.Tol.Rel / scale; math.Abs(v1) > math.Abs(v0) {
			y1[i] += math.Copysign(by, by*v1)
		} else if v0 != 0 {
			y0[i] += math.Copysign(by, by*v0)
		}
	}
	return h
}

// Norm is √(1/n·Σ (v_i/(Abs + Rel·|y_i|))²).
func Norm[T backend.Float](tol backend.Tolerance, v []float64, y []T) float64 {
	sum := 0.0
	for i, x := range v {
		x = Over(x, tol.Abs+tol.Rel*math.Abs(float64(y[i])))
		sum += x * x
	}
	return math.Sqrt(sum / float64(max(len(v), 1)))
}

// NormVJP adds the cotangent a of a Norm, pulled back, to dv and dy.
func NormVJP[T backend.Float](a float64, tol backend.Tolerance, v []float64, y []T, dv, dy []float64) {
	norm := Norm(tol, v, y)
	if a == 0 || norm == 0 {
		return
	}
	for i, x := range v {
		if x == 0 {
			continue
		}
		value := float64(y[i])
		scale := tol.Abs + tol.Rel*math.Abs(value)
		g := a * x / (scale * scale * float64(len(v)) * norm)
		dv[i] += g
		if value != 0 {
			dy[i] -= math.Copysign(g*x*tol.Rel/scale, g*x*value)
		}
	}
}
