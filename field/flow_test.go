package field

import (
	"math"
	"testing"
)

// The components have mean 0, variance 1 and are uncorrelated, from one to the next and
// from sample to sample; ±1 have a fourth moment of 1, normal ones of 3.
func TestFlow_Noise(t *testing.T) {
	const d, n = 67, 3000
	inner := &Custom[float64]{N: d, F: func(float64, []float64, []float64, []float64) {}}
	for trace, fourth := range map[Trace]float64{Rademacher: 1, Gaussian: 3} {
		f, err := NewFlow[float64](inner, FlowSettings{Trace: trace, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		eps, before := make([]float64, d), make([]float64, d)
		var mean, square, power, along, across float64
		for s := range n {
			f.Probe(0, s, eps)
			for i, v := range eps {
				mean += v
				square += v * v
				power += v * v * v * v
				along += v * eps[(i+1)%d]
				across += v * before[i]
			}
			eps, before = before, eps
		}
		// Four standard deviations of a mean of d·n terms.
		for name, x := range map[string][3]float64{ // got, want, variance of a term
			"mean": {mean, 0, 1}, "variance": {square, 1, fourth - 1}, "fourth moment": {power, fourth, 96},
			"correlation of components": {along, 0, 1}, "correlation of samples": {across, 0, 1},
		} {
			if got := x[0] / (d * n); math.Abs(got-x[1]) > 4*math.Sqrt(x[2]/(d*n)) {
				t.Errorf("%v: %s is %g, want %g", trace, name, got, x[1])
			}
		}
		other, err := NewFlow[float64](inner, FlowSettings{Trace: trace, Seed: 2})
		if err != nil {
			t.Fatal(err)
		}
		f.Probe(0, 5, eps)
		other.Probe(0, 5, before)
		same := 0
		for i := range eps {
			if eps[i] == before[i] {
				same++
			}
		}
		if same == d {
			t.Errorf("%v: two seeds give the same noise", trace)
		}
	}
}
