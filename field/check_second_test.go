package field

import (
	"math"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// lotkaVolterraSecond is lotkaVolterraByHand with second derivatives.
func lotkaVolterraSecond[T backend.Float]() *Custom[T] {
	f := lotkaVolterraByHand[T]()
	f.SecondF = func(_ float64, z, th, a, v, b, w, bz, bth []T) {
		bz[0] = b[0]*(th[0]-th[1]*z[1]) + b[1]*th[3]*z[1] + a[0]*(w[0]-w[1]*z[1]-th[1]*v[1]) + a[1]*(w[3]*z[1]+th[3]*v[1])
		bz[1] = -b[0]*th[1]*z[0] + b[1]*(th[3]*z[0]-th[2]) - a[0]*(w[1]*z[0]+th[1]*v[0]) + a[1]*(w[3]*z[0]+th[3]*v[0]-w[2])
		if bth != nil {
			both := v[0]*z[1] + z[0]*v[1]
			bth[0] += b[0]*z[0] + a[0]*v[0]
			bth[1] -= b[0]*z[0]*z[1] + a[0]*both
			bth[2] -= b[1]*z[1] + a[1]*v[1]
			bth[3] += b[1]*z[0]*z[1] + a[1]*both
		}
	}
	return f
}

func TestCheck_SecondDerivatives(t *testing.T) {
	t.Run("float32", checksSecond[float32])
	t.Run("float64", checksSecond[float64])
}

func checksSecond[T backend.Float](t *testing.T) {
	for seed := range uint64(20) {
		r, err := Check(lotkaVolterraSecond[T](), CheckSettings[T]{Seed: seed})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.VJPTangent.Entries != 5*6*6 || !strings.Contains(r.String(), "VJPTangent agrees with differences in 180 derivatives") {
			t.Errorf("the report is\n%v", r)
		}
	}
	if r, err := Check(lotkaVolterraByHand[T](), CheckSettings[T]{}); err != nil || r.VJPTangent != nil {
		t.Errorf("%v, error %v where there is no VJPTangent", r, err)
	}
	type second = func(t float64, z, th, a, v, b, w, bz, bth []T)
	for _, c := range []struct {
		name  string
		wrong func(right second) second
		want  []string
	}{
		{"no part of w in bz", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, b, w, bz, bth)
				bz[0] -= a[0] * w[0]
			}
		}, []string{"VJPTangent is wrong in 5 of 180 derivatives", "∂(aᵀ∂f/∂z[0])/∂θ[0]"}},
		{"sign of a part of v in btheta", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, b, w, bz, bth)
				if bth != nil {
					bth[2] += 2 * a[1] * v[1]
				}
			}
		}, []string{"VJPTangent is wrong in 5 of 180 derivatives", "∂(aᵀ∂f/∂θ[2])/∂z[1]"}},
		{"NaN", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, b, w, bz, bth)
				bz[1] = T(math.NaN())
			}
		}, []string{"VJPTangent is wrong", "∂(aᵀ∂f/∂z[1])"}},
		{"no part of b in bz", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, make([]T, 2), w, bz, bth)
				if bth != nil {
					bth[0], bth[1], bth[2], bth[3] = bth[0]+b[0]*z[0], bth[1]-b[0]*z[0]*z[1], bth[2]-b[1]*z[1], bth[3]+b[1]*z[0]*z[1]
				}
			}
		}, []string{"VJPTangent does not add up", "the VJP of b"}},
		{"twice the part of b in btheta", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, b, w, bz, bth)
				if bth != nil {
					bth[0] += b[0] * z[0]
				}
			}
		}, []string{"VJPTangent does not add to btheta"}},
		{"bz accumulated", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				held := [2]T{bz[0], bz[1]}
				right(t, z, th, a, v, b, w, bz, bth)
				bz[0], bz[1] = bz[0]+held[0], bz[1]+held[1]
			}
		}, []string{"VJPTangent does not add up", "whatever bz held"}},
		{"btheta overwritten", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				clear(bth)
				right(t, z, th, a, v, b, w, bz, bth)
			}
		}, []string{"VJPTangent overwrites btheta"}},
		{"nil btheta", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				bth[0] += 0
				right(t, z, th, a, v, b, w, bz, bth)
			}
		}, []string{"VJPTangent panics where btheta is nil"}},
		{"input changed", func(right second) second {
			return func(t float64, z, th, a, v, b, w, bz, bth []T) {
				right(t, z, th, a, v, b, w, bz, bth)
				w[1]++
			}
		}, []string{"VJPTangent changes its input w"}},
	} {
		f := lotkaVolterraSecond[T]()
		f.SecondF = c.wrong(f.SecondF)
		_, err := Check(f, CheckSettings[T]{})
		if err == nil {
			t.Errorf("%s: nothing is said", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in: %v", c.name, want, err)
			}
		}
		if n := strings.Count(err.Error(), "\n"); n > 0 {
			t.Errorf("%s: %d more lines: %v", c.name, n, err)
		}
	}
}
