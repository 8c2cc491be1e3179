package control

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// knots are the times of a series, and what follows from them alone.
type knots struct {
	times []float64
	slack float64 // by how much rounding may put a time outside
	// pivot are those of the matrix of a natural spline's slopes, nil otherwise.
	pivot []float64
}

// newKnots validates and copies times. T is what a backend may round times to.
func newKnots[T backend.Float](kind Kind, times []float64) (*knots, error) {
	if len(times) < 2 {
		return nil, fmt.Errorf("has %d knots; give at least 2", len(times))
	}
	for i, t := range times {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return nil, fmt.Errorf("has a knot at t = %g; give finite times", t)
		}
		if i == 0 {
			continue
		}
		h := t - times[i-1]
		if !(h > 0) {
			return nil, fmt.Errorf("has a knot at t = %g after one at %g; sort the knots by time and keep one of each", t, times[i-1])
		}
		// Second derivatives divide by h².
		if r := 1 / (h * h); r == 0 || math.IsInf(r, 0) || math.IsInf(h*h, 0) {
			return nil, fmt.Errorf("has knots at t = %g and %g, a distance whose square float64 cannot hold; rescale the time", times[i-1], t)
		}
	}
	k := &knots{times: slices.Clone(times)}
	var one T
	eps := 0x1p-52
	if unsafe.Sizeof(one) == 4 {
		eps = 0x1p-23
	}
	k.slack = 4 * eps * max(math.Abs(times[0]), math.Abs(times[len(times)-1]))
	if kind == NaturalCubic {
		k.factor()
	}
	return k, nil
}

// step is t_{i+1} - t_i.
func (k *knots) step(i int) float64 { return k.times[i+1] - k.times[i] }

// find returns the interval of t, which lies within the knots, and how far t is in it.
// The last knot belongs to the last interval, at x = 1.
func (k *knots) find(t float64) (i int, h, x float64) {
	i, found := slices.BinarySearch(k.times, t)
	if !found || i == len(k.times)-1 {
		i--
	}
	h = k.step(i)
	return i, h, (t - k.times[i]) / h
}

// The slopes m of a natural spline solve A·m = R·v, where row i says that u'' is the
// same on both sides of knot i, or 0 at the ends (de Boor, A Practical Guide to
// Splines, chapter IV):
//
//	m_{i-1}/h_{i-1} + 2m_i(1/h_{i-1} + 1/h_i) + m_{i+1}/h_i =
//	    3(v_i - v_{i-1})/h_{i-1}² + 3(v_{i+1} - v_i)/h_i²
//
// with the terms beyond the ends left out. A is symmetric and positive definite.

// factor computes the pivots D of A = L·D·Lᵀ.
func (k *knots) factor() {
	n := len(k.times)
	k.pivot = make([]float64, n)
	for i := range n - 1 {
		e := 1 / k.step(i)
		k.pivot[i] += 2 * e
		k.pivot[i+1] = 2*e - e*(e/k.pivot[i])
	}
}

// solve replaces r, [n, c], by A⁻¹·r.
func (k *knots) solve(r []float64, c int) {
	n := len(k.times)
	for i := range n - 1 {
		l := 1 / k.step(i) / k.pivot[i]
		for j := i * c; j < (i+1)*c; j++ {
			r[j+c] -= l * r[j]
		}
	}
	for i := n - 1; i >= 0; i-- {
		for j := i * c; j < (i+1)*c; j++ {
			if i < n-1 {
				r[j] -= r[j+c] / k.step(i)
			}
			r[j] /= k.pivot[i]
		}
	}
}

// slopes computes the slopes m, [n, c], from the values v, [n, c].
func slopes[T backend.Float](kind Kind, k *knots, m []float64, v []T, c int) {
	if kind == NaturalCubic {
		clear(m)
	}
	for i := range len(k.times) - 1 {
		h := k.step(i)
		for j := i * c; j < (i+1)*c; j++ {
			d := (float64(v[j+c]) - float64(v[j])) / h
			if kind == NaturalCubic {
				m[j] += 3 * d / h
				m[j+c] += 3 * d / h
				continue
			}
			if m[j+c] = d; i == 0 {
				m[j] = d
			}
		}
	}
	if kind == NaturalCubic {
		k.solve(m, c)
	}
}
