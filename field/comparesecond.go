package field

import (
	"math"
	"slices"
)

// vjpTangent compares VJPTangent column by column with differences of VJP, for a random
// cotangent.
func (c *checker[T]) vjpTangent(p Point[T]) error {
	d, n := len(p.Z), len(p.Z)+len(p.Theta)
	a := make([]T, d)
	c.random(a)
	vjp := mapping[T](func(t float64, z, theta, out []T) {
		c.back.VJP(t, z, theta, slices.Clone(a), out[:d:d], out[d:])
	})
	f0 := make([]T, n)
	vjp(p.T, slices.Clone(p.Z), slices.Clone(p.Theta), f0)
	if !finite(f0...) {
		return nil // found already
	}
	J, err := c.differences(p, vjp, f0, a)
	if err != nil {
		return err
	}
	columns, total := make([]float64, n*n), make([]float64, n)
	tangent, b, out := make([]T, n), make([]T, d), make([]T, n)
	for col := range n {
		tangent[col] = 1
		clear(out)
		c.callVJPTangent(p, a, tangent, b, out[:d:d], out[d:])
		tangent[col] = 0
		for i, v := range out {
			columns[col*n+i] = float64(v)
			c.report.VJPTangent.add(J.entry(i, col, float64(v)))
		}
	}
	if !finite(columns...) {
		return nil // found already
	}
	// For b it is the VJP of b, and it is linear.
	c.random(tangent)
	c.random(b)
	clear(out)
	c.callVJP(p, b, out[:d:d], out[d:])
	slack := make([]float64, n)
	for i := range n {
		total[i] = float64(out[i])
		slack[i] = c.tol*math.Abs(total[i]) + 1e3*eps[T]()*math.Abs(total[i])
		for col := range n {
			x := columns[col*n+i]
			total[i] += float64(tangent[col]) * x
			slack[i] += math.Abs(float64(tangent[col])) * c.slack(J, i, col, x)
		}
	}
	// bz held NaN, and btheta something far above what rounding does.
	bz, btheta, held := filled[T](d, math.NaN()), make([]T, n-d), make([]T, n-d)
	for j := range held {
		held[j] = T(1 + math.Abs(total[d+j]))
	}
	copy(btheta, held)
	c.callVJPTangent(p, a, tangent, b, bz, btheta)
	for i, got := range bz {
		if !near(float64(got), total[i], slack[i]) {
			c.fault("VJPTangent does not add up", "for v = %v, b = %v and w = %v, bz[%d] is %v, but its parts, and the VJP of b, add up to %v; set every component whatever bz held",
				tangent[:d], b, tangent[d:], i, got, total[i])
			break
		}
	}
	for j, got := range btheta {
		wide := 1e-3*float64(held[j]) + slack[d+j]
		switch {
		case math.Abs(float64(got)-float64(held[j])-total[d+j]) <= wide:
		case math.Abs(float64(got)-total[d+j]) <= wide:
			c.fault("VJPTangent overwrites btheta", "add to what it holds, btheta[j] += …")
		default:
			c.fault("VJPTangent does not add to btheta", "btheta[%d] held %v and then %v, where the parts add up to %v", j, held[j], got, total[d+j])
		}
	}
	defer func() {
		if r := recover(); r != nil {
			c.fault("VJPTangent panics where btheta is nil", "nil says that it is not wanted, skip it then (%v)", r)
		}
	}()
	c.callVJPTangent(p, a, tangent, b, bz, nil)
	return nil
}

// callVJPTangent calls VJPTangent with the tangent of z and θ and sees that it leaves its
// inputs alone.
func (c *checker[T]) callVJPTangent(p Point[T], a, tangent, b, bz, btheta []T) {
	d := len(p.Z)
	v, w := tangent[:d:d], tangent[d:]
	c.pure("VJPTangent", func() { c.second.VJPTangent(p.T, p.Z, p.Theta, a, v, b, w, bz, btheta) },
		input[T]{"z", p.Z}, input[T]{"θ", p.Theta}, input[T]{"a", a}, input[T]{"v", v}, input[T]{"b", b}, input[T]{"w", w})
}
