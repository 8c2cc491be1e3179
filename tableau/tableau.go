package tableau

import (
	"fmt"
	"slices"
	"strings"
)

// Tableau is an explicit Runge-Kutta method [c | A | b], with an embedded error
// estimate if it is adaptive, and an interpolant. With s stages, len(C) = len(A) =
// len(B) = s.
//
// The methods of this package are built once and shared: do not modify them, but
// a [Tableau.Clone].
type Tableau struct {
	Name   string
	Source string // where the coefficients were published
	Order  int    // of y1: the error of one step is O(h^(Order+1))

	// ErrorOrder is the order q for which the error estimate is O(h^(q+1)), 0 for
	// a method without an estimate. It is the order of the embedded solution
	// y1 - h·Σ E_j·k_j. With two estimates, combined as E2 says, it is the order at
	// which the combination acts, 2·p - E2Order, p the order that belongs to E.
	ErrorOrder int
	// E2Order is the order of y1 - h·Σ E2_j·k_j, 0 if E2 is nil.
	E2Order int

	C []float64   // times, C[0] = 0; each the sum of its row of A
	A [][]float64 // row i has i entries
	B []float64   // weights of y1
	E []float64   // error weights b - b̂, nil for a method with fixed steps
	// E2 is a second set of error weights, nil but for DOP853, whose error norm is
	// ‖e‖²/√(‖e‖² + 0.01·‖e2‖²) with e = h·Σ E_j·k_j and e2 = h·Σ E2_j·k_j (HNW
	// II.10, as in the code DOP853).
	E2 []float64

	// FSAL (first same as last) says that the last stage is f(t1, y1), the first
	// stage of the next step: the last row of A equals B and the last C is 1.
	FSAL bool

	Dense Dense
}

// Dense is an interpolant: the continuous extension of a method to a whole step.
type Dense struct {
	Source string // where it was published
	Order  int    // q: the error inside a step that starts exact is O(h^(q+1))
	// C1 says that the interpolant's derivative is f(t0, y0) and f(t1, y1) at the
	// ends of the step, so that it is continuously differentiable over many steps.
	C1 bool
	// ExtraC and ExtraA are further stages, evaluated only if an output lies inside
	// the step. Row i of ExtraA has Stages()+i entries.
	ExtraC []float64
	ExtraA [][]float64
	// P[j][m] is the coefficient of x^(m+1) in the weight of stage j, extra stages
	// last; all rows have the same length. Evaluating the powers of x loses up to
	// eps·Σ_m |P[j][m]|·|h·k_j| near x = 1 (for Vern7 1e-13·|h·k_j| in float64):
	// take y1 itself at x = 1, and evaluate weights in float64.
	P [][]float64
}

// Stages returns the number of stages of an attempted step, those of the
// interpolant not counted.
func (t *Tableau) Stages() int { return len(t.B) }

// Adaptive reports whether the method estimates its error.
func (t *Tableau) Adaptive() bool { return t.E != nil }

// ErrorExponent returns the power of h that the error estimate is proportional
// to, min(Order, ErrorOrder)+1: after an error ratio r, a step controller proposes
// h·r^(-1/ErrorExponent). For a method without an estimate it is that of the
// error of one step, Order+1.
func (t *Tableau) ErrorExponent() float64 {
	if !t.Adaptive() {
		return float64(t.Order + 1)
	}
	return float64(min(t.Order, t.ErrorOrder) + 1)
}

// embedded returns the order of y1 - h·Σ E_j·k_j.
func (t *Tableau) embedded() int {
	if t.E2 == nil {
		return t.ErrorOrder
	}
	return (t.ErrorOrder + t.E2Order) / 2
}

// EndStage reports whether the first extra stage of the interpolant is f(t1, y1):
// its c is 1 and its row is B. A stepping loop that evaluated it for an output
// needs not evaluate the first stage of the next step. FSAL methods have f(t1, y1)
// as their last stage instead.
func (t *Tableau) EndStage() bool {
	d := &t.Dense
	return len(d.ExtraC) > 0 && d.ExtraC[0] == 1 && slices.Equal(d.ExtraA[0], t.B)
}

// endStage returns the index of the stage f(t1, y1), -1 if there is none.
func (t *Tableau) endStage() int {
	switch {
	case t.FSAL:
		return t.Stages() - 1
	case t.EndStage():
		return t.Stages()
	}
	return -1
}

// Weights sets dst[j] = b_j(x), the interpolant's weight of stage j at the point
// t0 + x·h, 0 ≤ x ≤ 1, by Horner's rule. It does not allocate. dst has
// len(t.Dense.P) entries, extra stages last; Weights panics if it has not.
func (t *Tableau) Weights(dst []float64, x float64) {
	if len(dst) != len(t.Dense.P) {
		panic("tableau: Weights needs as many entries as Dense.P has rows")
	}
	for j, p := range t.Dense.P {
		sum := 0.0
		for m := len(p) - 1; m >= 0; m-- {
			sum = (sum + p[m]) * x
		}
		dst[j] = sum
	}
}

// Clone returns a deep copy, the caller's to modify. Check it afterwards.
func (t *Tableau) Clone() *Tableau {
	c := *t
	c.C, c.B = slices.Clone(t.C), slices.Clone(t.B)
	c.E, c.E2 = slices.Clone(t.E), slices.Clone(t.E2)
	c.A = cloneRows(t.A)
	c.Dense.ExtraC = slices.Clone(t.Dense.ExtraC)
	c.Dense.ExtraA = cloneRows(t.Dense.ExtraA)
	c.Dense.P = cloneRows(t.Dense.P)
	return &c
}

func cloneRows(m [][]float64) [][]float64 {
	c := slices.Clone(m)
	for i := range c {
		c[i] = slices.Clone(c[i])
	}
	return c
}

// All returns the methods of this package, those with fixed steps first, each
// kind by increasing order.
func All() []*Tableau {
	return []*Tableau{
		Euler(), Midpoint(), Heun2(), Ralston2(), Heun3(), SSPRK3(), RK4(), RK4ThreeEighths(),
		HeunEuler21(), Fehlberg12(), Bosh3(), Dopri5(), Dopri5Shampine(), Tsit5(), Vern7(), Dopri8(),
	}
}

// ByName returns the method of that name, as its Name has it: euler, midpoint,
// heun2, ralston2, heun3, ssprk3, rk4, rk4_38, heun_euler21, fehlberg12, bosh3,
// dopri5, dopri5_shampine, tsit5, vern7, dopri8.
func ByName(name string) (*Tableau, error) {
	all := All()
	names := make([]string, len(all))
	for i, t := range all {
		if t.Name == name {
			return t, nil
		}
		names[i] = t.Name
	}
	return nil, fmt.Errorf("tableau: method %q unknown; use one of %s", name, strings.Join(names, ", "))
}
