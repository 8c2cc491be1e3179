package field

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// jacobian is ∂f_i/∂x_j at one point by finite differences, row-major, where x is
// z, then θ, then t. f is the right-hand side, or its VJP with the cotangent a, az before
// atheta, which is not derived by t.
type jacobian struct {
	at     Point[float64]
	d, p   int // of x
	rows   int
	a      []float64 // nil for the right-hand side
	value  []float64
	uncert []float64 // estimated error of value
	tol    []float64 // error that a product may have
}

func (J *jacobian) cols() int {
	if J.a != nil {
		return J.d + J.p
	}
	return J.d + J.p + 1
}

// entry is one derivative with what a product says of it.
func (J *jacobian) entry(i, col int, product float64) Entry {
	k := i*J.cols() + col
	e := Entry{I: i, At: J.at, A: J.a, Product: product, Difference: J.value[k], Uncertainty: J.uncert[k], Tol: J.tol[k]}
	switch {
	case col < J.d:
		e.Of, e.J = State, col
	case col < J.d+J.p:
		e.Of, e.J = Param, col-J.d
	default:
		e.Of = Time
	}
	return e
}

// mapping is f, or f's VJP in its place.
type mapping[T backend.Float] func(t float64, z, theta, out []T)

// differences derives f, which is f0 at p, by every variable. a is the cotangent if it is
// a VJP.
func (c *checker[T]) differences(p Point[T], f mapping[T], f0, a []T) (*jacobian, error) {
	J := &jacobian{at: wide(p), d: len(p.Z), p: len(p.Theta), rows: len(f0)}
	for _, v := range a {
		J.a = append(J.a, float64(v))
	}
	n := J.rows * J.cols()
	J.value, J.uncert, J.tol = make([]float64, n), make([]float64, n), make([]float64, n)
	terms := c.terms(p, f, J, f0)
	for col := range J.cols() {
		if err := c.column(p, f, J, col, terms); err != nil {
			return nil, err
		}
	}
	return J, nil
}

// terms estimates how large the terms are that each f_i adds up, by x_j·∂f_i/∂x_j.
// Where they cancel, rounding is that of the terms and not that of f_i.
func (c *checker[T]) terms(p Point[T], f mapping[T], J *jacobian, f0 []T) []float64 {
	terms := make([]float64, J.rows)
	for i, v := range f0 {
		terms[i] = math.Abs(float64(v))
	}
	up, down := make([]T, J.rows), make([]T, J.rows)
	for col := range J.cols() {
		const h = 1.0 / 64
		x := J.x(col)
		f.shifted(up, p, col, x*(1+h))
		f.shifted(down, p, col, x*(1-h))
		for i := range terms {
			if d := (float64(up[i]) - float64(down[i])) / (2 * h); finite(d) {
				terms[i] = math.Max(terms[i], math.Abs(d))
			}
		}
	}
	return terms
}

// x is the variable of a column.
func (J *jacobian) x(col int) float64 {
	switch {
	case col < J.d:
		return J.at.Z[col]
	case col < J.d+J.p:
		return J.at.Theta[col-J.d]
	}
	return J.at.T
}

// scale is max(1, |x|) down to a power of 2, so that x ± h is exact as a rule.
func scale(x float64) float64 {
	_, e := math.Frexp(math.Max(1, math.Abs(x)))
	return math.Ldexp(1, e-1)
}

// column derives every f_i by one x_j. Its tableau is Ridders': from central
// differences of steps h, h/2, h/4, … Richardson's extrapolation removes the
// errors h², h⁴, … one after another. Of all its entries that one is taken which
// differs least from the two that it was made of; that, with the rounding of f
// over h, is its uncertainty.
func (c *checker[T]) column(p Point[T], f mapping[T], J *jacobian, col int, terms []float64) error {
	x := J.x(col)
	unit := scale(x)
	up, down := make([]T, J.rows), make([]T, J.rows)
	tableau := make([][]float64, J.rows)
	for i := range J.rows {
		J.uncert[i*J.cols()+col] = math.Inf(1)
	}
	// Much smaller steps than √ε leave too few digits of any f.
	for h := unit / 8; h > unit*math.Sqrt(eps[T]())/64; h /= 2 {
		hi, lo := f.shifted(up, p, col, x+h), f.shifted(down, p, col, x-h)
		if !finite(up...) || !finite(down...) {
			clear(tableau) // the extrapolation begins anew
			continue
		}
		converged := true
		for i := range J.rows {
			k := i*J.cols() + col
			a := (float64(up[i]) - float64(down[i])) / (hi - lo)
			next, power := []float64{a}, 4.0
			size := max(terms[i], math.Abs(float64(up[i])), math.Abs(float64(down[i])))
			for _, old := range tableau[i] {
				better := (power*a - old) / (power - 1)
				u := math.Max(math.Abs(better-a), math.Abs(better-old)) + eps[T]()*size/h
				if u < J.uncert[k] {
					J.value[k], J.uncert[k] = better, u
					J.tol[k] = c.tol*math.Abs(better) + 1e3*eps[T]()*size/unit + smallest[T]()
				}
				a, power = better, 4*power
				next = append(next, a)
			}
			tableau[i] = next
			converged = converged && J.uncert[k] <= 1e-2*J.tol[k]
		}
		if converged {
			return nil
		}
	}
	for i := range J.rows {
		if e := J.entry(i, col, 0); math.IsInf(e.Uncertainty, 1) {
			return fmt.Errorf("f is not finite around %v in the direction of %s; give points inside the domain of f, by Points or by Low and High", J.at, e.x())
		}
	}
	return nil
}

// shifted evaluates f with x_col set to x and returns it as f saw it.
func (f mapping[T]) shifted(out []T, p Point[T], col int, x float64) float64 {
	t, z, theta := p.T, slices.Clone(p.Z), slices.Clone(p.Theta)
	v := T(x)
	switch {
	case col < len(z):
		z[col] = v
	case col < len(z)+len(theta):
		theta[col-len(z)] = v
	default:
		t = float64(v)
	}
	clear(out)
	f(t, z, theta, out)
	return float64(v)
}
