package tableau

import (
	"math"
	"testing"
)

// problem is an initial value problem with a solution known to rounding.
type problem struct {
	name       string
	f          func(dy []float64, t float64, y []float64)
	exact      func(t float64) []float64 // t >= 0
	begin, end float64
	// Steps of the first run by order, and the largest step that local errors are
	// measured with by the power of h that they go with: sizes at which the leading
	// term of the error dominates; 0 where the problem does not serve.
	steps [9]int
	local [10]float64
}

var problems = []problem{
	{"y' = -2ty²+cos t", nonlinearField, nonlinear, 0, 2,
		[9]int{0, 128, 64, 32, 32, 40, 0, 0, 16}, [10]float64{0, 0, 0.02, 0.03, 0.03, 0.05, 0.05, 0, 0}},
	// For high orders only: on [0, 2] the term of order 8 in the error of Vern7
	// outweighs that of order 7 until both are below rounding.
	{"y' = -2ty²+cos t, t from 0.5", nonlinearField, nonlinear, 0.5, 1.5,
		[9]int{7: 8}, [10]float64{7: 0.12, 8: 0.12}},
	{"10-dimensional linear", func(dy []float64, _ float64, y []float64) {
		for i := range dy {
			dy[i] = 0
			for j, x := range y {
				dy[i] += linearMatrix(i, j) * x
			}
		}
	}, linear, 0, 2, [9]int{0, 128, 64, 32, 24, 20, 0, 10, 4}, [10]float64{0, 0, 0.02, 0.05, 0.05, 0.1, 0.1, 0.15, 0.2}},
}

func nonlinearField(dy []float64, t float64, y []float64) {
	dy[0] = -2*t*y[0]*y[0] + math.Cos(t)
}

// nonlinear solves y' = -2ty²+cos t, y(0) = 1, by Taylor series of order 30 over
// steps of 1/16, with the recurrences for the coefficients of y², ty² and cos t.
func nonlinear(t float64) []float64 {
	const order = 30
	y0, t0 := 1.0, 0.0
	for t0 < t {
		h := min(1.0/16, t-t0)
		var y, square, cos [order + 1]float64
		y[0] = y0
		sum, power := 0.0, 1.0
		derivative := [4]float64{math.Cos(t0), -math.Sin(t0), -math.Cos(t0), math.Sin(t0)}
		factorial := 1.0
		for n := 0; n < order; n++ {
			if n > 0 {
				factorial *= float64(n)
			}
			cos[n] = derivative[n%4] / factorial
			for i := 0; i <= n; i++ {
				square[n] += y[i] * y[n-i]
			}
			ty := t0 * square[n]
			if n > 0 {
				ty += square[n-1]
			}
			y[n+1] = (-2*ty + cos[n]) / float64(n+1)
			sum += y[n] * power
			power *= h
		}
		y0 = sum
		t0 += h
	}
	return []float64{y0}
}

// linearMatrix is a damped chain of coupled oscillations, not normal: its rows
// differ, so that no order condition is met by symmetry.
func linearMatrix(i, j int) float64 {
	switch j - i {
	case 0:
		return -0.1 * float64(i+1)
	case 1:
		return 1 + 0.1*float64(i)
	case -1:
		return -1
	case 3:
		return 0.3
	}
	return 0
}

// linear sums the Taylor series of exp(M·t)·y0 with y0 = (1, 1/2, ..., 1/10).
func linear(t float64) []float64 {
	term, sum := make([]float64, 10), make([]float64, 10)
	for i := range term {
		term[i] = 1 / float64(i+1)
		sum[i] = term[i]
	}
	for n := 1; n < 80; n++ {
		next := make([]float64, 10)
		for i := range next {
			for j := range term {
				next[i] += linearMatrix(i, j) * term[j] * t / float64(n)
			}
			sum[i] += next[i]
		}
		term = next
	}
	return sum
}

func TestReferenceSolution(t *testing.T) {
	// An arbitrary-precision Taylor integrator at 30 digits.
	for at, want := range map[float64]float64{1: 0.8007114292440104749501, 2: 0.1891909045263909521818} {
		if got := nonlinear(at)[0]; math.Abs(got-want) > 1e-15 {
			t.Errorf("y(%g) = %.17g, want %.17g", at, got, want)
		}
	}
}

// stages evaluates all stages of a step, extra ones too, and returns y1.
func stages(m *Tableau, p *problem, t, h float64, y []float64) (k [][]float64, y1 []float64) {
	rows := append(append([][]float64{}, m.A...), m.Dense.ExtraA...)
	c := append(append([]float64{}, m.C...), m.Dense.ExtraC...)
	for i, a := range rows {
		k = append(k, make([]float64, len(y)))
		p.f(k[i], t+c[i]*h, combine(y, h, a, k))
	}
	return k, combine(y, h, m.B, k)
}

// combine returns y + h·Σ w_j·k_j; y may be nil for 0.
func combine(y []float64, h float64, w []float64, k [][]float64) []float64 {
	z := make([]float64, len(k[0]))
	for i := range z {
		for j, b := range w {
			z[i] += b * k[j][i]
		}
		z[i] *= h
		if y != nil {
			z[i] += y[i]
		}
	}
	return z
}

func norm(v []float64) (n float64) {
	for _, x := range v {
		n = max(n, math.Abs(x))
	}
	return n
}

func distance(a, b []float64) (d float64) {
	for i := range a {
		d = max(d, math.Abs(a[i]-b[i]))
	}
	return d
}

// slope fits log err = slope·log h + const by least squares.
func slope(h, err []float64) float64 {
	var x, y, xx, xy float64
	for i := range h {
		a, b := math.Log(h[i]), math.Log(err[i])
		x, y, xx, xy = x+a, y+b, xx+a*a, xy+a*b
	}
	n := float64(len(h))
	return (n*xy - x*y) / (n*xx - x*x)
}

// The measured order is the slope of the error over the step size, within 0.2:
// what remains comes from terms of higher order at the larger steps, and, at the
// smaller, from rounding, which is kept out by errors above 1e-13.

func TestOrder_Solution(t *testing.T) {
	for _, m := range All() {
		for _, p := range problems {
			if p.steps[m.Order] == 0 {
				continue
			}
			var hs, errs []float64
			for i := range 5 {
				n := int(math.Round(float64(p.steps[m.Order]) * math.Pow(1.25, float64(i))))
				h, worst := (p.end-p.begin)/float64(n), 0.0
				y := p.exact(p.begin)
				for s := range n {
					_, y = stages(m, &p, p.begin+float64(s)*h, h, y)
					worst = max(worst, distance(y, p.exact(p.begin+float64(s+1)*h)))
				}
				hs, errs = append(hs, h), append(errs, worst)
			}
			report(t, m, p.name+": solution", slope(hs, errs), float64(m.Order), errs)
		}
	}
}

func report(t *testing.T, m *Tableau, what string, got, want float64, errs []float64) {
	t.Helper()
	t.Logf("%-16s %-40s %.2f", m.Name, what, got)
	if !(math.Abs(got-want) <= 0.2) {
		t.Errorf("%s: %s: order %.2f, want %g ± 0.2; errors %.2g", m.Name, what, got, want, errs)
	}
}

// local returns the slope of what is measured in single steps that start exact,
// the largest value of starts all over the problem: at one start an error can have
// a zero.
func local(p *problem, power int, measure func(h, t float64, y []float64) float64) (float64, []float64) {
	var hs, errs []float64
	for i := range 5 {
		h, worst := p.local[power]*math.Pow(0.8, float64(i)), 0.0
		for at := p.begin; at < p.end; at += 0.125 {
			worst = max(worst, measure(h, at, p.exact(at)))
		}
		hs, errs = append(hs, h), append(errs, worst)
	}
	return slope(hs, errs), errs
}

// The error of the interpolant inside one step that starts exact is
// O(h^(Dense.Order+1)).
func TestOrder_Interpolant(t *testing.T) {
	for _, m := range All() {
		want := m.Dense.Order + 1
		for _, p := range problems {
			if p.local[want] == 0 {
				continue
			}
			got, errs := local(&p, want, func(h, at float64, y []float64) (e float64) {
				k, _ := stages(m, &p, at, h, y)
				for _, x := range []float64{0.2, 0.4, 0.6, 0.8} {
					e = max(e, distance(combine(y, h, weights(m, x), k), p.exact(at+x*h)))
				}
				return e
			})
			power := float64(want)
			if m.Name == "vern7" {
				// The error's terms in h^7 are not zero but small (see the tableau),
				// and those in h^8 show: the order is a lower bound.
				power = max(power, got)
			}
			report(t, m, p.name+": interpolant", got, power, errs)
		}
	}
}

// Error estimates of one step go with the power of h that they claim. (Combined,
// those of DOP853 go with 2·6 - 4 = 8.)
func TestOrder_Estimates(t *testing.T) {
	for _, m := range All() {
		if !m.Adaptive() {
			continue
		}
		for _, p := range problems {
			estimate := func(e []float64) func(h, t float64, y []float64) float64 {
				return func(h, at float64, y []float64) float64 {
					k, _ := stages(m, &p, at, h, y)
					return norm(combine(nil, h, e, k))
				}
			}
			power := m.embedded() + 1
			if p.local[power] == 0 {
				continue
			}
			got, errs := local(&p, power, estimate(m.E))
			report(t, m, p.name+": estimate", got, float64(power), errs)
			if m.E2 == nil {
				continue
			}
			power = m.E2Order + 1
			got, errs = local(&p, power, estimate(m.E2))
			report(t, m, p.name+": second estimate", got, float64(power), errs)
		}
	}
}
