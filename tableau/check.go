package tableau

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Check verifies that the tableau is what it claims to be:
//
//   - the slices have the lengths that the types document, all entries are finite;
//   - every row of A and ExtraA sums to its c;
//   - B fulfils the order conditions of all rooted trees up to Order;
//   - B-E does so up to ErrorOrder, B-E2 up to E2Order, and neither E nor E2 is zero;
//   - FSAL is set if and only if the last row of A equals B and the last c is 1;
//   - the interpolant is y1 at x = 1, and fulfils the continuous order conditions
//     Σ_j b_j(x)·Φ_j(t) = x^ρ(t)/γ(t) (HNW Theorem II.6.1) for every x up to
//     Dense.Order, and is continuously differentiable if Dense.C1 is set.
//
// A sum passes if it is off by at most 64 units of roundoff (2.2e-16) times the
// sum of its terms' magnitudes. Coefficients must therefore be given to full
// precision, 16 digits or as fractions.
//
// The error names each kind of condition that fails, the first tree that fails
// it, and by how much. Orders above 10 are an error: Check does not know their
// conditions. Check does not verify that an order is not higher than claimed.
func (t *Tableau) Check() error {
	errs := t.checkShapes()
	if errs == nil {
		errs = t.checkConditions()
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("tableau: %s: %w", t.Name, err)
	}
	return errors.Join(errs...)
}

// checkShapes verifies what checkConditions needs to run.
func (t *Tableau) checkShapes() (errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := len(t.B)
	if t.Name == "" {
		fail("Name is empty; errors and solutions report methods by it")
	}
	if s == 0 {
		fail("B is empty; a method has one weight a stage")
		return errs
	}
	if len(t.C) != s || len(t.A) != s {
		fail("C has %d entries and A %d rows for %d weights in B; each has one a stage", len(t.C), len(t.A), s)
	}
	for i, row := range t.A {
		if len(row) != i {
			fail("A[%d] has %d entries, want %d: the method is explicit and row i is what stage i needs of the stages before", i, len(row), i)
		}
	}
	if t.E != nil && len(t.E) != s || t.E2 != nil && len(t.E2) != s {
		fail("E has %d and E2 %d entries, want %d each, or nil", len(t.E), len(t.E2), s)
	}
	if t.Order < 1 || t.Order > maxOrder {
		fail("Order is %d, want 1 to %d", t.Order, maxOrder)
	}
	switch {
	case t.E == nil && (t.ErrorOrder != 0 || t.E2 != nil):
		fail("E is nil, but ErrorOrder is %d and E2 has %d entries; set E, or clear them", t.ErrorOrder, len(t.E2))
	case t.E != nil && (t.ErrorOrder < 1 || t.ErrorOrder > maxOrder):
		fail("ErrorOrder is %d, want 1 to %d as E is set", t.ErrorOrder, maxOrder)
	case (t.E2 == nil) != (t.E2Order == 0) || t.E2Order < 0:
		fail("E2Order is %d and E2 has %d entries; set both or neither", t.E2Order, len(t.E2))
	case t.E2 != nil && ((t.ErrorOrder+t.E2Order)%2 != 0 || t.embedded() <= t.E2Order || t.embedded() > maxOrder):
		fail("ErrorOrder %d and E2Order %d do not belong together; ErrorOrder is 2p - E2Order with p > E2Order the order of y1 - h·Σ E_j·k_j", t.ErrorOrder, t.E2Order)
	}

	d := &t.Dense
	extra := len(d.ExtraA)
	if len(d.ExtraC) != extra {
		fail("Dense.ExtraC has %d entries for %d rows in ExtraA", len(d.ExtraC), extra)
	}
	for i, row := range d.ExtraA {
		if len(row) != s+i {
			fail("Dense.ExtraA[%d] has %d entries, want %d", i, len(row), s+i)
		}
	}
	if len(d.P) == 0 {
		fail("Dense.P is empty; set Dense = t.Hermite() if the method has no interpolant of its own")
		return errs
	}
	if len(d.P) != s+extra {
		fail("Dense.P has %d rows, want %d: one a stage, extra stages last", len(d.P), s+extra)
	}
	for j, p := range d.P {
		if len(p) == 0 || len(p) != len(d.P[0]) {
			fail("Dense.P[%d] has %d entries and P[0] %d; rows have one length, at least 1", j, len(p), len(d.P[0]))
		}
	}
	if d.Order < 1 || d.Order > maxOrder {
		fail("Dense.Order is %d, want 1 to %d", d.Order, maxOrder)
	}

	finite := func(name string, v []float64) {
		for i, x := range v {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				fail("%s[%d] is %g", name, i, x)
			}
		}
	}
	finite("C", t.C)
	finite("B", t.B)
	finite("E", t.E)
	finite("E2", t.E2)
	finite("Dense.ExtraC", d.ExtraC)
	for i, row := range t.A {
		finite(fmt.Sprintf("A[%d]", i), row)
	}
	for i, row := range d.ExtraA {
		finite(fmt.Sprintf("Dense.ExtraA[%d]", i), row)
	}
	for i, row := range d.P {
		finite(fmt.Sprintf("Dense.P[%d]", i), row)
	}
	return errs
}

func (t *Tableau) checkConditions() (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	rows := append(append([][]float64{}, t.A...), t.Dense.ExtraA...)
	c := append(append([]float64{}, t.C...), t.Dense.ExtraC...)
	add(t.checkRowSums(rows, c))

	cond := newConditions(rows, max(t.Order, t.embedded(), t.Dense.Order))
	add(cond.check("Order", "B", t.B, t.Order))
	if t.E != nil {
		add(t.checkEstimate(cond, "ErrorOrder", "E", t.E, t.embedded()))
	}
	if t.E2 != nil {
		add(t.checkEstimate(cond, "E2Order", "E2", t.E2, t.E2Order))
	}
	add(t.checkFSAL())
	add(t.checkEnds())
	add(t.checkDense(cond))
	if t.Dense.C1 {
		add(t.checkC1())
	}
	return errs
}

func (t *Tableau) checkRowSums(rows [][]float64, c []float64) error {
	for i, row := range rows {
		sum, size := 0.0, math.Abs(c[i])
		for _, a := range row {
			sum += a
			size += math.Abs(a)
		}
		if off := math.Abs(sum - c[i]); off > roundoff*size {
			name := fmt.Sprintf("A[%d]", i)
			if i >= len(t.A) {
				name = fmt.Sprintf("Dense.ExtraA[%d]", i-len(t.A))
			}
			return fmt.Errorf("%s sums to %.12g, but its c is %.12g, off by %.2g", name, sum, c[i], off)
		}
	}
	return nil
}

// check verifies the order conditions of weights up to an order.
func (c *conditions) check(field, name string, w []float64, order int) error {
	for i, tr := range c.trees {
		if tr.order > order {
			break
		}
		sum, tol := c.sum(i, w)
		want := 1 / tr.gamma
		if off := math.Abs(sum - want); off > tol {
			return fmt.Errorf("%s is %d, but the condition of order %d for tree %s fails: Σ %s_j·Φ_j = %.12g, want 1/%g, off by %.2g",
				field, order, tr.order, tr.name, name, sum, tr.gamma, off)
		}
	}
	return nil
}

// checkEstimate verifies that B-E is of an order. B is known to fulfil the
// conditions, or was reported; so E itself has to give zero, which loses no digits
// to the subtraction. Above the order of B the two are taken together.
func (t *Tableau) checkEstimate(c *conditions, field, name string, e []float64, order int) error {
	zero := true
	for _, x := range e {
		zero = zero && x == 0
	}
	if zero {
		return fmt.Errorf("%s is zero and estimates no error; set it to b - b̂, or to nil for fixed steps", name)
	}
	for i, tr := range c.trees {
		if tr.order > order {
			break
		}
		sum, tol := c.sum(i, e)
		if tr.order > t.Order {
			b, tolB := c.sum(i, t.B)
			sum, tol = sum-b+1/tr.gamma, tol+tolB
		}
		if off := math.Abs(sum); off > tol {
			return fmt.Errorf("%s is %d, but y1 - h·Σ %s_j·k_j is not of order %d: for tree %s, Σ %s_j·Φ_j is off by %.2g from where Σ (B_j-%s_j)·Φ_j = 1/%g",
				field, t.orderField(field), name, order, tr.name, name, off, name, tr.gamma)
		}
	}
	return nil
}

func (t *Tableau) orderField(name string) int {
	if name == "E2Order" {
		return t.E2Order
	}
	return t.ErrorOrder
}

func (t *Tableau) checkFSAL() error {
	s := t.Stages()
	last := s > 1 && t.C[s-1] == 1 && t.B[s-1] == 0 && slices.Equal(t.A[s-1], t.B[:s-1])
	switch {
	case t.FSAL && !last:
		return errors.New("FSAL is set, but the last stage is not f(t1, y1): the last row of A must equal B to the bit, the last B be 0 and the last C be 1")
	case !t.FSAL && last:
		return errors.New("the last stage is f(t1, y1); set FSAL, or an evaluation a step is wasted")
	}
	return nil
}

// checkEnds verifies b_j(1) = b_j.
func (t *Tableau) checkEnds() error {
	for j, p := range t.Dense.P {
		b := 0.0
		if j < len(t.B) {
			b = t.B[j]
		}
		sum, size := 0.0, math.Abs(b)
		for _, v := range p {
			sum += v
			size += math.Abs(v)
		}
		if off := math.Abs(sum - b); off > roundoff*size {
			return fmt.Errorf("the interpolant is not y1 at x = 1: Dense.P[%d] sums to %.12g, want the weight %.12g, off by %.2g", j, sum, b, off)
		}
	}
	return nil
}

// checkDense verifies the continuous order conditions as equalities between
// polynomials, power by power, which is for all x at once.
func (t *Tableau) checkDense(c *conditions) error {
	d := &t.Dense
	powers := max(len(d.P[0]), d.Order)
	w := make([]float64, len(d.P))
	for i, tr := range c.trees {
		if tr.order > d.Order {
			break
		}
		for m := 0; m < powers; m++ {
			for j, p := range d.P {
				w[j] = 0
				if m < len(p) {
					w[j] = p[m]
				}
			}
			want := 0.0
			if m+1 == tr.order {
				want = 1 / tr.gamma
			}
			sum, tol := c.sum(i, w)
			if off := math.Abs(sum - want); off > tol {
				return fmt.Errorf("Dense.Order is %d, but the condition of order %d for tree %s fails: Σ b_j(x)·Φ_j has %.12g·x^%d, want %.12g, off by %.2g",
					d.Order, tr.order, tr.name, sum, m+1, want, off)
			}
		}
	}
	return nil
}

// checkC1 verifies b_j'(0) = 1 for the first stage, b_j'(1) = 1 for the stage
// f(t1, y1), and 0 for all others.
func (t *Tableau) checkC1() error {
	end := t.endStage()
	if end < 0 {
		return errors.New("Dense.C1 is set, but no stage is f(t1, y1); make it the first of ExtraA, with row B and c = 1, or clear C1")
	}
	for j, p := range t.Dense.P {
		want0, want1 := 0.0, 0.0
		if j == 0 {
			want0 = 1
		}
		if j == end {
			want1 = 1
		}
		sum, size := 0.0, 1.0
		for m, v := range p {
			sum += float64(m+1) * v
			size += float64(m+1) * math.Abs(v)
		}
		if off := math.Abs(p[0] - want0); off > roundoff {
			return fmt.Errorf("Dense.C1 is set, but at x = 0 the interpolant's derivative is not f(t0, y0): stage %d has weight %.12g, want %g, off by %.2g", j, p[0], want0, off)
		}
		if off := math.Abs(sum - want1); off > roundoff*size {
			return fmt.Errorf("Dense.C1 is set, but at x = 1 the interpolant's derivative is not f(t1, y1): stage %d has weight %.12g, want %g, off by %.2g", j, sum, want1, off)
		}
	}
	return nil
}
