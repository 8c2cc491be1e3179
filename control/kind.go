package control

import "fmt"

// Kind says how a signal goes from knot to knot; the package comment has the formulas.
type Kind uint8

const (
	Constant     Kind = iota // piecewise constant: u jumps at knots, and u' is 0
	Linear                   // u is continuous, u' jumps at knots
	Hermite                  // causal cubic: u' is continuous, u'' jumps at knots
	NaturalCubic             // natural cubic spline: u'' is continuous
)

var kindNames = [...]string{"constant", "linear", "hermite", "natural cubic"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// basis are the weights of a derivative of u within an interval: of the values at its
// ends and of the slopes there.
type basis struct{ v0, v1, m0, m1 float64 }

// basis returns those of derivative n = 0, 1, 2 at a fraction x of an interval of
// length h. For n > 0 it is v0 = -v1.
func (k Kind) basis(n int, h, x float64) basis {
	switch {
	case k == Constant && n == 0:
		return basis{v0: 1}
	case k == Constant || k == Linear && n == 2:
		return basis{}
	case k == Linear && n == 0:
		return basis{v0: 1 - x, v1: x}
	case k == Linear:
		return basis{v0: -1 / h, v1: 1 / h}
	case n == 0:
		y := 1 - x
		return basis{v0: (1 + 2*x) * y * y, v1: x * x * (3 - 2*x), m0: h * x * y * y, m1: -h * x * x * y}
	case n == 1:
		d := 6 * x * (1 - x) / h
		return basis{v0: -d, v1: d, m0: (1 - x) * (1 - 3*x), m1: x * (3*x - 2)}
	}
	d := (6 - 12*x) / (h * h)
	return basis{v0: -d, v1: d, m0: (6*x - 4) / h, m1: (6*x - 2) / h}
}
