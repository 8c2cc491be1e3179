package backendtest

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// num is a reference value, computed in float64, and a bound on how far arithmetic
// in T may be from it, to first order in the unit roundoff u: running error analysis
// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.3), in a form
// that holds for any order of summation and with or without fused multiply-adds.
type num struct{ v, e float64 }

// exact is a number that arithmetic in T has exactly.
func exact[N ~float32 | ~float64](x N) num { return num{v: float64(x)} }

// unit is the unit roundoff of T, half the distance from 1 to the next number.
func unit[T backend.Float]() float64 {
	if isSingle[T]() {
		return 0x1p-24
	}
	return 0x1p-53
}

func isSingle[T backend.Float]() bool {
	var x T
	_, ok := any(x).(float32)
	return ok
}

// arith computes with nums for a type whose unit roundoff is u.
type arith struct{ u float64 }

// round is x rounded to T.
func (a arith) round(x float64) num { return num{x, a.u * math.Abs(x)} }

func (a arith) mul(x, y num) num {
	v := x.v * y.v
	return num{v, x.e*math.Abs(y.v) + math.Abs(x.v)*y.e + x.e*y.e + a.u*math.Abs(v)}
}

// sum adds numbers: n-1 additions, each with an error of at most u times the sum of
// absolute values.
type sum struct {
	v, abs, e float64
	n         int
}

func (s *sum) add(x num) {
	s.v += x.v
	s.abs += math.Abs(x.v)
	s.e += x.e
	s.n++
}

func (s *sum) total(a arith) num { return num{s.v, s.e + float64(s.n)*a.u*s.abs} }

// activate is act(x) and act'(x). An implementation may be off by 8u for |x| ≤ 1, and
// in proportion beyond; no |act″| exceeds 2.
func (a arith) activate(act mlp.Activation, x num) (y, dy num) {
	y.v, dy.v = act.Both(x.v)
	if act == mlp.Identity {
		return x, dy
	}
	if !finite(x.v) { // the limit, if there is one
		y.e, dy.e = a.u*math.Abs(y.v), a.u*math.Abs(dy.v)
		return y, dy
	}
	own := 8 * a.u * (1 + math.Abs(x.v))
	y.e = math.Abs(dy.v)*x.e + x.e*x.e + own
	dy.e = 2*x.e + own
	return y, dy
}

// near reports whether got is within the bound, twice, for the reference's own
// rounding. What is not finite in the reference must not be finite in got, and the
// reverse.
func near[T backend.Float](got T, want num) bool {
	g := float64(got)
	if !finite(want.v) || !finite(float64(T(want.v))) {
		return !finite(g)
	}
	const tiny = 0x1p-120 // what underflow may lose in float32
	return math.Abs(g-want.v) <= 2*want.e+tiny
}

// closeTo reports whether float64 results, which clocks hold whatever T is, agree to
// rel.
func closeTo(got, want, rel float64) bool {
	if math.IsNaN(want) || math.IsInf(want, 0) {
		return got == want || math.IsNaN(got) && math.IsNaN(want)
	}
	return math.Abs(got-want) <= rel*math.Abs(want)
}

func finite(x float64) bool { return x-x == 0 }
