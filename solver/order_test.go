package solver_test

import (
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
	"gonum.org/v1/gonum/mat"
)

// orderProblems are non-linear and non-autonomous, and linear in 10 dimensions.
var orderProblems = []string{"riccati", "C3"}

// span of the order tests: 9·15/64, so that the steps below have few bits and time
// is exact.
const span = 135. / 64

// steps are numbers of equal steps over the span at which methods of an order show
// it: not so few that higher terms rule, not so many that rounding does.
func steps(order int) []int {
	switch {
	case order <= 4:
		return []int{60, 80, 96, 120, 160, 192}
	case order <= 6:
		return []int{40, 48, 60, 80, 96, 120}
	case order == 7:
		return []int{24, 30, 40, 48, 60}
	}
	return []int{12, 15, 20, 24, 30}
}

// fitOrder fits log e = c + p·log h + a·h, the leading term of the error and the
// first correction to it, and returns p.
func fitOrder(h, e []float64) float64 {
	a, b := mat.NewDense(len(h), 3, nil), mat.NewVecDense(len(h), nil)
	for i := range h {
		a.SetRow(i, []float64{1, math.Log(h[i]), h[i]})
		b.SetVec(i, math.Log(e[i]))
	}
	var x mat.VecDense
	if err := x.SolveVec(a, b); err != nil {
		return math.NaN()
	}
	return x.AtVec(1)
}

// checkOrder fails unless the measured order is within 0.2 of want; above it only
// if it may be.
func checkOrder(t *testing.T, what string, want int, mayBeMore bool, h, e []float64) {
	t.Helper()
	p := fitOrder(h, e)
	t.Logf("%s: %.2f", what, p)
	if off := p - float64(want); !(off > -0.2) || off >= 0.2 && !mayBeMore {
		t.Errorf("%s: measured order %.2f, want %d; errors %.2g at h = %.3g", what, p, want, e, h)
	}
}

func TestMethods_HaveTheirOrder(t *testing.T) {
	for _, name := range orderProblems {
		p := problems.Get(name)
		for _, m := range solver.Methods() {
			tab := m.Tableau()
			var h, e []float64
			for _, n := range steps(tab.Order) {
				ts := grid(0, span, n)
				h = append(h, span/float64(n))
				y := solve[float64](t, p, solver.Settings{Method: m, Step: span / float64(n)}, ts...).Y
				e = append(e, distance(y, reference(t, p, ts...)))
			}
			checkOrder(t, m.String()+" on "+name, tab.Order, false, h, e)
		}
	}
}

// TestInterpolants_KeepTheOrder measures outputs inside of steps. An interpolant's
// error is one order better than its order says, because a step is short.
func TestInterpolants_KeepTheOrder(t *testing.T) {
	for _, name := range orderProblems {
		p := problems.Get(name)
		for _, m := range solver.Methods() {
			tab := m.Tableau()
			sizes := steps(tab.Order)
			if tab.Order == 8 {
				sizes = []int{20, 24, 30, 40, 48} // the errors are larger here
			}
			var h, e []float64
			for _, n := range sizes {
				ts := grid(0, span, 4*n)
				h = append(h, span/float64(n))
				y := solve[float64](t, p, solver.Settings{Method: m, Step: span / float64(n)}, ts...).Y
				e = append(e, distance(y, reference(t, p, ts...)))
			}
			checkOrder(t, m.String()+" inside of steps on "+name, min(tab.Order, tab.Dense.Order+1), false, h, e)
		}
	}
}

// TestInterpolants_HaveTheirOrder measures them in one step that starts exact.
func TestInterpolants_HaveTheirOrder(t *testing.T) {
	const t0 = 0.25 // 0 is special: terms of the error vanish there
	for _, name := range orderProblems {
		p := *problems.Get(name)
		p.Z0 = reference(t, &p, 0, t0)[p.Dim():]
		for _, m := range solver.Methods() {
			tab := m.Tableau()
			// The leading coefficient of Vern7's is so small that rounding covers it
			// where it would rule: what shows at larger steps is a higher order.
			scale := 1.0
			if m == solver.Vern7 {
				scale = 2
			}
			var hs, e []float64
			for _, n := range steps(tab.Dense.Order + 1) {
				h := scale * span / float64(n)
				ts := []float64{t0, t0 + h/4, t0 + h/2, t0 + 3*h/4}
				hs = append(hs, h)
				y := solve[float64](t, &p, solver.Settings{Method: m, Step: h}, append(ts, t0+h)...).Y
				e = append(e, distance(y[:4*p.Dim()], reference(t, &p, ts...)))
			}
			checkOrder(t, m.String()+"'s interpolant on "+name, tab.Dense.Order+1, m == solver.Vern7, hs, e)
		}
	}
}
