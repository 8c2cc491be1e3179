package field

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Report is what [Check] found.
type Report struct {
	Points   int         // where f was looked at
	VJP, JVP *Comparison // each product with differences; nil if f does not have it
	// VJPTangent is that with differences of VJP; nil if f does not have both.
	VJPTangent *Comparison
	Faults     []error // contracts that f or a product breaks, and what ended the check early
}

// Comparison is how one product compares with finite differences over all points.
type Comparison struct {
	Entries int   // derivatives compared
	Wrong   int   // those that differ
	Unclear int   // those whose difference is too uncertain to tell
	Worst   Entry // a wrong one before an unclear one; the largest error in units of its Tol
}

// Variable is what f is derived by.
type Variable uint8

const (
	State Variable = iota // z
	Param                 // θ
	Time                  // t
)

func (v Variable) String() string {
	if names := [...]string{"z", "θ", "t"}; int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("Variable(%d)", uint8(v))
}

// Entry is one derivative ∂f_I/∂x_J of one point, where x is z, θ or t. Of VJPTangent it
// is one of component I of [aᵀ∂f/∂z, aᵀ∂f/∂θ].
type Entry struct {
	I           int
	Of          Variable
	J           int            // 0 for Time
	At          Point[float64] // with the θ used
	A           []float64      // the cotangent a of VJPTangent, else nil
	Product     float64        // by VJP, JVP or VJPTangent
	Difference  float64        // by finite differences of Eval, or of VJP
	Uncertainty float64        // estimated error of Difference
	Tol         float64        // what |Product - Difference| may be
}

// Err is |Product - Difference|.
func (e Entry) Err() float64 { return math.Abs(e.Product - e.Difference) }

func (e Entry) String() string {
	return fmt.Sprintf("∂%s/∂%s is %.8g, by differences %.8g ± %.1g: an error of %.2g, where %.2g passes, at %v",
		e.f(), e.x(), e.Product, e.Difference, e.Uncertainty, e.Err(), e.Tol, e.At)
}

// f names what is derived.
func (e Entry) f() string {
	switch d := len(e.At.Z); {
	case e.A == nil:
		return fmt.Sprintf("f[%d]", e.I)
	case e.I < d:
		return fmt.Sprintf("(aᵀ∂f/∂z[%d])", e.I)
	default:
		return fmt.Sprintf("(aᵀ∂f/∂θ[%d])", e.I-d)
	}
}

// x names what f is derived by.
func (e Entry) x() string {
	if e.Of == Time {
		return e.Of.String()
	}
	return fmt.Sprintf("%v[%d]", e.Of, e.J)
}

// verdict orders entries: those that agree, unclear ones, wrong ones.
type verdict uint8

const (
	agrees verdict = iota
	unclear
	wrong
)

func (e Entry) verdict() verdict {
	switch {
	case e.Uncertainty <= e.Tol && e.Err() <= e.Tol:
		return agrees
	case e.Uncertainty > e.Tol && e.Err() <= 10*e.Uncertainty:
		return unclear
	}
	return wrong // NaN too
}

// worse tells whether e is to be shown rather than o.
func (e Entry) worse(o Entry) bool {
	if v, w := e.verdict(), o.verdict(); v != w {
		return v > w
	}
	size := func(e Entry) float64 {
		x := max(e.Err(), e.Uncertainty) // NaN if one is
		if math.IsNaN(x) {
			return math.Inf(1)
		}
		return x / e.Tol
	}
	return size(e) > size(o)
}

// add counts e and keeps it if it is the worst so far.
func (c *Comparison) add(e Entry) {
	switch e.verdict() {
	case wrong:
		c.Wrong++
	case unclear:
		c.Unclear++
	}
	if c.Entries == 0 || e.worse(c.Worst) {
		c.Worst = e
	}
	c.Entries++
}

// String is one line without the product's name: "agrees with differences in …".
func (c *Comparison) String() string {
	switch {
	case c.Entries == 0:
		return "was not compared"
	case c.Wrong > 0:
		return fmt.Sprintf("is wrong in %d of %d derivatives; worst: %v", c.Wrong, c.Entries, c.Worst)
	case c.Unclear > 0:
		return fmt.Sprintf("cannot be judged in %d of %d derivatives, where differences are too uncertain; give points where f is smooth, check at float64, or raise Tol; worst: %v", c.Unclear, c.Entries, c.Worst)
	}
	return fmt.Sprintf("agrees with differences in %d derivatives; worst: %v", c.Entries, c.Worst)
}

// verdict is nil if everything agreed.
func (r *Report) verdict() error {
	errs := slices.Clone(r.Faults)
	add := func(name string, c *Comparison) {
		if c != nil && (c.Wrong > 0 || c.Unclear > 0) {
			errs = append(errs, fmt.Errorf("%s %v", name, c))
		}
	}
	add("VJP", r.VJP)
	add("JVP", r.JVP)
	add("VJPTangent", r.VJPTangent)
	return errors.Join(errs...)
}

// String is a line for each product and each fault.
func (r *Report) String() string {
	var lines []string
	add := func(name string, c *Comparison) {
		if c != nil {
			lines = append(lines, fmt.Sprintf("%s %v", name, c))
		}
	}
	add("VJP", r.VJP)
	add("JVP", r.JVP)
	add("VJPTangent", r.VJPTangent)
	for _, f := range r.Faults {
		lines = append(lines, f.Error())
	}
	return strings.Join(lines, "\n")
}

// String is the time and the state: "t = 0.5, z = [1 2]".
func (p Point[T]) String() string { return fmt.Sprintf("t = %.6g, z = %.6g", p.T, p.Z) }

// wide is p in float64.
func wide[T backend.Float](p Point[T]) Point[float64] {
	w := Point[float64]{T: p.T, Z: make([]float64, len(p.Z)), Theta: make([]float64, len(p.Theta))}
	for i, v := range p.Z {
		w.Z[i] = float64(v)
	}
	for i, v := range p.Theta {
		w.Theta[i] = float64(v)
	}
	return w
}
