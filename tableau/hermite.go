package tableau

import "slices"

// Hermite returns the cubic Hermite interpolant of a method, to be set as its
// Dense: the cubic with the values y0, y1 and the derivatives f(t0, y0), f(t1, y1)
// at the ends of the step (HNW II.6, eq. 6.7),
//
//	y(t0+x·h) = y0 + h·[(3x²-2x³)·Σ_j b_j·k_j + (x-2x²+x³)·k_0 + (x³-x²)·f(t1,y1)].
//
// Its order is 3, or the method's if that is less. An FSAL method has f(t1, y1) as
// its last stage; to any other method the interpolant adds it as one extra stage.
func (t *Tableau) Hermite() Dense {
	d := Dense{Source: "cubic Hermite interpolation, HNW II.6", Order: min(3, t.Order), C1: true}
	n, end := t.Stages(), t.Stages()-1
	if !t.FSAL {
		d.ExtraC = []float64{1}
		d.ExtraA = [][]float64{slices.Clone(t.B)}
		n, end = n+1, n
	}
	d.P = make([][]float64, n)
	for j := range d.P {
		b := 0.0
		if j < len(t.B) {
			b = t.B[j]
		}
		d.P[j] = []float64{0, 3 * b, -2 * b}
	}
	d.P[0][0]++
	d.P[0][1] -= 2
	d.P[0][2]++
	d.P[end][1]--
	d.P[end][2]++
	return d
}

// withHermite returns t with its cubic Hermite interpolant.
func withHermite(t Tableau) *Tableau {
	t.Dense = t.Hermite()
	return &t
}
