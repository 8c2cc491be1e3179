package field

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// vjp compares VJP row by row of J, for the unit cotangents.
func (c *checker[T]) vjp(p Point[T], J *jacobian) {
	n := J.cols()
	rows := make([]float64, J.d*n) // as VJP says
	a, az, atheta := make([]T, J.d), make([]T, J.d), make([]T, J.p)
	for i := range a {
		a[i] = 1
		clear(az)
		clear(atheta)
		at := c.callVJP(p, a, az, atheta)
		row := rows[i*n : (i+1)*n]
		join(row, az, atheta, at)
		for col, v := range row {
			c.report.VJP.add(J.entry(i, col, v))
		}
		if finite(row...) {
			c.accumulates(p, J, i, row, a)
			c.skipsTheta(p, J, i, row, a)
		}
		a[i] = 0
	}
	if !finite(rows...) {
		return // found already
	}
	c.random(a)
	clear(az)
	clear(atheta)
	got := make([]float64, n)
	at := c.callVJP(p, a, az, atheta)
	join(got, az, atheta, at)
	for col := range n {
		want, slack := 0.0, 0.0
		for i := range a {
			x := rows[i*n+col]
			want += float64(a[i]) * x
			slack += math.Abs(float64(a[i])) * c.slack(J, i, col, x)
		}
		if !near(got[col], want, slack) {
			c.fault("VJP is not linear in a", "for a = %v, aᵀ∂f/∂%s is %v, but the products of its components add up to %v",
				a, J.entry(0, col, 0).x(), got[col], want)
			break
		}
	}
}

// callVJP calls VJP and sees that it leaves its inputs alone.
func (c *checker[T]) callVJP(p Point[T], a, az, atheta []T) (at float64) {
	c.pure("VJP", func() { at = c.back.VJP(p.T, p.Z, p.Theta, a, az, atheta) },
		input[T]{"z", p.Z}, input[T]{"θ", p.Theta}, input[T]{"a", a})
	return at
}

// accumulates checks that VJP overwrites az and adds to atheta. row is what it
// gave for a where they held zeros.
func (c *checker[T]) accumulates(p Point[T], J *jacobian, i int, row []float64, a []T) {
	d := len(p.Z)
	az, atheta, held := filled[T](d, math.NaN()), make([]T, len(p.Theta)), make([]T, len(p.Theta))
	for j := range held {
		held[j] = T(1 + math.Abs(row[d+j]))
	}
	copy(atheta, held)
	at := c.callVJP(p, a, az, atheta)
	c.repeats("VJP gives two results for the same arguments", J, i, row, az, at)
	for j, got := range atheta {
		// Far above what rounding does and far below what overwriting loses.
		slack := 1e-3 * float64(held[j])
		switch {
		case math.Abs(float64(got)-float64(held[j])-row[d+j]) <= slack:
		case math.Abs(float64(got)-row[d+j]) <= slack:
			c.fault("VJP overwrites atheta", "add to what it holds, atheta[j] += …")
		default:
			c.fault("VJP does not add to atheta", "atheta[%d] held %v and then %v, where aᵀ∂f/∂θ is %v", j, held[j], got, row[d+j])
		}
	}
}

// skipsTheta checks that VJP takes a nil atheta.
func (c *checker[T]) skipsTheta(p Point[T], J *jacobian, i int, row []float64, a []T) {
	defer func() {
		if r := recover(); r != nil {
			c.fault("VJP panics where atheta is nil", "nil says that it is not wanted, skip it then (%v)", r)
		}
	}()
	az := make([]T, len(p.Z))
	at := c.callVJP(p, a, az, nil)
	c.repeats("VJP gives another result where atheta is nil", J, i, row, az, at)
}

// repeats checks that az and at are what they are in row i, up to rounding.
func (c *checker[T]) repeats(what string, J *jacobian, i int, row []float64, az []T, at float64) {
	const fix = "set every component whatever az held, and use nothing that changes from call to call"
	for j, v := range az {
		if !near(float64(v), row[j], c.slack(J, i, j, row[j])) {
			c.fault(what, "az[%d] = %v and then %v; "+fix, j, row[j], v)
		}
	}
	if col := len(row) - 1; !near(at, row[col], c.slack(J, i, col, row[col])) {
		c.fault(what, "at = %v and then %v; "+fix, row[col], at)
	}
}

// jvp compares JVP column by column of J, for the unit tangents of z and θ.
func (c *checker[T]) jvp(p Point[T], J *jacobian) {
	n := J.d + J.p
	columns := make([]float64, n*J.d) // as JVP says
	tangent, jv := make([]T, n), make([]T, J.d)
	for col := range n {
		tangent[col] = 1
		clear(jv)
		c.callJVP(p, tangent, jv)
		tangent[col] = 0
		for i, v := range jv {
			columns[col*J.d+i] = float64(v)
			c.report.JVP.add(J.entry(i, col, float64(v)))
		}
	}
	if !finite(columns...) {
		return // found already
	}
	c.random(tangent)
	clear(jv)
	c.callJVP(p, tangent, jv)
	again := filled[T](J.d, math.NaN())
	c.callJVP(p, tangent, again)
	for i, got := range jv {
		want, slack := 0.0, 0.0
		for col := range n {
			x := columns[col*J.d+i]
			want += float64(tangent[col]) * x
			slack += math.Abs(float64(tangent[col])) * c.slack(J, i, col, x)
		}
		if !near(float64(again[i]), float64(got), slack) {
			c.fault("JVP gives two results for the same arguments", "jv[%d] = %v and then %v; set every component whatever jv held, and use nothing that changes from call to call", i, got, again[i])
		}
		if !near(float64(got), want, slack) {
			c.fault("JVP is not linear in v and w", "for v = %v and w = %v, jv[%d] is %v, but the products of their components add up to %v",
				tangent[:J.d], tangent[J.d:], i, got, want)
		}
	}
}

// callJVP calls JVP with the tangent of z and θ and sees that it leaves its
// inputs alone.
func (c *checker[T]) callJVP(p Point[T], tangent, jv []T) {
	v, w := tangent[:len(p.Z):len(p.Z)], tangent[len(p.Z):]
	c.pure("JVP", func() { c.fwd.JVP(p.T, p.Z, p.Theta, v, w, jv) },
		input[T]{"z", p.Z}, input[T]{"θ", p.Theta}, input[T]{"v", v}, input[T]{"w", w})
}

// random fills x with numbers between -1 and 1.
func (c *checker[T]) random(x []T) {
	for i := range x {
		x[i] = T(2*c.rng.Float64() - 1)
	}
}

// slack is by how much two ways to the same derivative x may differ by rounding.
func (c *checker[T]) slack(J *jacobian, i, col int, x float64) float64 {
	return J.tol[i*J.cols()+col] + c.tol*math.Abs(x)
}

func near(got, want, slack float64) bool { return math.Abs(got-want) <= slack }

// join puts the results of a VJP into one row.
func join[T backend.Float](row []float64, az, atheta []T, at float64) {
	for j, v := range az {
		row[j] = float64(v)
	}
	for j, v := range atheta {
		row[len(az)+j] = float64(v)
	}
	row[len(row)-1] = at
}
