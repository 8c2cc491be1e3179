package train

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Smooth estimates the course of a series and its derivative, both row-major [n, D], at
// each of its times: by local polynomials, of degree 1 for z and 2 for dz/dt, fitted by
// weighted least squares with the kernel K((t_i - t)/h) of Epanechnikov, K(u) = ¾(1-u²) in
// |u| < 1 (Roesch, Rackauckas & Stumpf 2021, Collocation based training of neural ordinary
// differential equations). Missing values are left out, and filled in by the
// result.
//
// h is the bandwidth, in units of time; 0 means the time of 5 steps between the series'
// times on average, at most all of it. Noise wants a longer one and curvature a shorter
// one: the estimates are of what is left when both are averaged over 2h. Where fewer than
// four values are nearer than h, h is enlarged until four are.
func Smooth[T backend.Float](s Series[T], h float64) (z, dz []T, err error) {
	n := len(s.Times)
	if n < 4 || len(s.Values)%n != 0 || len(s.Values) == 0 {
		return nil, nil, fmt.Errorf("train: Smooth of %d times and %d values; give 4 times at least, and values as [n, D]", n, len(s.Values))
	}
	if !(h >= 0) || math.IsInf(h, 0) {
		return nil, nil, fmt.Errorf("train: Smooth with the bandwidth %g; give a finite number that is not negative", h)
	}
	for i, t := range s.Times {
		if t-t != 0 || i > 0 && !(t > s.Times[i-1]) {
			return nil, nil, fmt.Errorf("train: Smooth: time %d is %g; times have to be finite and increase strictly", i, t)
		}
	}
	span := s.Times[n-1] - s.Times[0]
	if h == 0 {
		h = min(5*span/float64(n-1), span)
	}
	d := len(s.Values) / n
	z, dz = make([]T, n*d), make([]T, n*d)
	for j := range d {
		var times, values []float64
		for i, t := range s.Times {
			v := float64(s.Values[i*d+j])
			if math.IsInf(v, 0) {
				return nil, nil, fmt.Errorf("train: Smooth: value %d of time %d is %g; write NaN where there is none", j, i, v)
			}
			if v == v {
				times, values = append(times, t), append(values, v)
			}
		}
		if len(times) < 4 {
			return nil, nil, fmt.Errorf("train: Smooth: component %d has %d values; it takes 4 at least", j, len(times))
		}
		for i, t := range s.Times {
			value, err := local(times, values, t, h, 1)
			if err != nil {
				return nil, nil, err
			}
			slope, err := local(times, values, t, h, 2)
			if err != nil {
				return nil, nil, err
			}
			z[i*d+j], dz[i*d+j] = T(value[0]), T(slope[1])
		}
	}
	return z, dz, nil
}

// local is the polynomial Σ_k c_k (x-t)^k of that degree that fits values around t best.
func local(times, values []float64, t, h float64, degree int) ([]float64, error) {
	lo, hi := within(times, t, h)
	for hi-lo < 4 {
		h *= 1.25
		lo, hi = within(times, t, h)
	}
	a, y := mat.NewDense(hi-lo, degree+1, nil), mat.NewVecDense(hi-lo, nil)
	for row, x := range times[lo:hi] {
		u := (x - t) / h
		w := math.Sqrt(max(1-u*u, 0)) // of the squares' factor, which the ¾ does not change
		for k := range degree + 1 {
			a.Set(row, k, w*math.Pow(u, float64(k)))
		}
		y.SetVec(row, w*values[lo+row])
	}
	var c mat.VecDense
	if err := c.SolveVec(a, y); err != nil {
		return nil, fmt.Errorf("train: Smooth: the values near t = %g do not determine a polynomial of degree %d (%w); give a larger bandwidth than %g", t, degree, err, h)
	}
	out := c.RawVector().Data
	scale := 1.0
	for k := range out {
		out[k] *= scale
		scale /= h
	}
	return out, nil
}

// within says that times[lo:hi] are those nearer to t than h.
func within(times []float64, t, h float64) (lo, hi int) {
	lo, at := slices.BinarySearch(times, t-h)
	if at {
		lo++
	}
	hi, _ = slices.BinarySearch(times, t+h)
	return lo, hi
}
