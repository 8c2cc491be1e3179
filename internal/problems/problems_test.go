package problems_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// near compares got and want to rtol·|want| + atol.
func near(t *testing.T, what string, got, want []float64, rtol, atol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= rtol*math.Abs(want[i])+atol) {
			t.Errorf("%s[%d] = %.17g, want %.17g", what, i, got[i], want[i])
		}
	}
}

// solve returns the states at ts with parameters theta, as exactly as float64 allows.
func solve(t *testing.T, p *problems.Problem, theta, z0, ts []float64) []float64 {
	t.Helper()
	sys := problems.System[float64](p)
	copy(sys.Params(), theta)
	s, err := solver.New(cpu.New[float64](), sys, solver.Settings{Method: solver.Dopri8, RTol: 1e-13, ATol: 1e-14, MaxAttempts: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), z0, ts)
	if err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	return sol.Y
}

func TestEnd_MatchesTightSolve(t *testing.T) {
	for _, p := range problems.All() {
		y := solve(t, p, p.Theta, p.Z0, []float64{p.T0, p.T1})
		// 10 digits of the stiff problems are known, and their solves err by 1e-13 a step.
		near(t, p.Name, y[p.Dim():], p.End, 1e-9, 1e-12)
	}
}

func TestExact_SolvesTheEquation(t *testing.T) {
	for _, p := range problems.All() {
		if p.Exact == nil {
			continue
		}
		n := p.Dim()
		z, dz := make([]float64, n), make([]float64, n)
		p.Exact(p.T0, z)
		near(t, p.Name+" at t0", z, p.Z0, 1e-15, 1e-15)
		sys := problems.System[float64](p)
		for i := 1; i < 8; i++ {
			at := p.T0 + (p.T1-p.T0)*float64(i)/8
			p.Exact(at, z)
			sys.Eval(at, z, p.Theta, dz)
			slope := derivative(2e-4, func(s float64) []float64 {
				z := make([]float64, n)
				p.Exact(at+s, z)
				return z
			})
			near(t, p.Name+" slope", slope, dz, 1e-8, 1e-9)
		}
	}
}

func TestLosses_MatchFiniteDifferences(t *testing.T) {
	for _, p := range problems.All() {
		for li := range p.Losses {
			l := &p.Losses[li]
			d := p.Dim()
			y := solve(t, p, p.Theta, p.Z0, l.Times)
			a := problems.Cotangents(l, y)

			// dL in a direction is the cotangent times the change of the outputs.
			along := func(dtheta, dz0 []float64) float64 {
				slope := derivative(1e-4, func(s float64) []float64 {
					theta, z0 := slices.Clone(p.Theta), slices.Clone(p.Z0)
					for i := range dtheta {
						theta[i] += s * dtheta[i]
					}
					for i := range dz0 {
						z0[i] += s * dz0[i]
					}
					return solve(t, p, theta, z0, l.Times)
				})
				sum := 0.0
				for i := range a {
					sum += a[i] * slope[i]
				}
				return sum
			}
			var dtheta, dz0, dtimes []float64
			for i := range p.Theta {
				dtheta = append(dtheta, along(unit(len(p.Theta), i), nil))
			}
			for i := range p.Z0 {
				dz0 = append(dz0, along(nil, unit(d, i)))
			}
			sys, f := problems.System[float64](p), make([]float64, d)
			for i, ti := range l.Times {
				sys.Eval(ti, y[i*d:(i+1)*d], p.Theta, f)
				sum := 0.0
				for j := range f {
					if i == 0 {
						sum -= (l.DZ0[j] - a[j]) * f[j]
					} else {
						sum += a[i*d+j] * f[j]
					}
				}
				dtimes = append(dtimes, sum)
			}
			near(t, p.Name+" dL/dtheta", dtheta, l.DTheta, 1e-7, 1e-7)
			near(t, p.Name+" dL/dz0", dz0, l.DZ0, 1e-7, 1e-7)
			near(t, p.Name+" dL/dt", dtimes, l.DTimes, 1e-9, 1e-10)
		}
	}
}

func TestLosses_HaveTheirValue(t *testing.T) {
	sum := func(y []float64) (s float64) {
		for _, v := range y {
			s += v
		}
		return s
	}
	squares := func(y []float64, c float64) (s float64) {
		for _, v := range y {
			s += (v - c) * (v - c) / 2
		}
		return s
	}
	value := map[string]func(y []float64) float64{
		"lotka_volterra":        func(y []float64) float64 { return squares(y[2:], 1) },
		"forced_lotka_volterra": func(y []float64) float64 { return squares(y, 2) },
		"cubic_spiral":          sum,
		"linear":                func(y []float64) float64 { return sum(y[2:]) },
	}
	for _, p := range problems.All() {
		for i := range p.Losses {
			l := &p.Losses[i]
			y := solve(t, p, p.Theta, p.Z0, l.Times)
			near(t, p.Name+" loss", []float64{value[p.Name](y)}, []float64{l.Value}, 1e-10, 1e-11)
		}
	}
}

// TestSystem_AllTypesAgree compares float32 and dual numbers with float64.
func TestSystem_AllTypesAgree(t *testing.T) {
	for _, p := range problems.All() {
		f64, f32 := problems.System[float64](p), problems.System[float32](p)
		d := p.Dim()
		z, at := make([]float64, d), p.T0+0.75
		for i := range z {
			z[i] = p.Z0[i] + 0.25 // exact in float32 but for z0 itself
		}
		want, got := make([]float64, d), make([]float32, d)
		f64.Eval(at, z, p.Theta, want)
		f32.Eval(at, problems.Convert[float32](z), problems.Convert[float32](p.Theta), got)
		scale := 0.0
		for _, v := range want {
			scale = max(scale, math.Abs(v))
		}
		near(t, p.Name+" in float32", problems.Convert[float64](got), want, 1e-5, 1e-5*scale)

		v, w, jv := make([]float64, d), make([]float64, len(p.Theta)), make([]float64, d)
		for i := range v {
			v[i] = 1 - 0.25*float64(i)
		}
		for i := range w {
			w[i] = p.Theta[i] * (0.5 + 0.25*float64(i))
		}
		f64.JVP(at, z, p.Theta, v, w, jv)
		slope := derivative(1e-4, func(s float64) []float64 {
			z, theta, dz := slices.Clone(z), slices.Clone(p.Theta), make([]float64, d)
			for i := range z {
				z[i] += s * v[i]
			}
			for i := range theta {
				theta[i] += s * w[i]
			}
			f64.Eval(at, z, theta, dz)
			return dz
		})
		near(t, p.Name+" JVP", slope, jv, 1e-8, 1e-9*scale)
	}
}

// derivative is f'(0) by the central difference of order 4.
func derivative(h float64, f func(s float64) []float64) []float64 {
	a, b, c, d := f(h), f(-h), f(2*h), f(-2*h)
	for i := range a {
		a[i] = (8*(a[i]-b[i]) - (c[i] - d[i])) / (12 * h)
	}
	return a
}

func TestGet(t *testing.T) {
	for _, p := range problems.All() {
		if got := problems.Get(p.Name); got.Name != p.Name || got.Dim() != p.Dim() {
			t.Errorf("Get(%q) returned %q", p.Name, got.Name)
		}
	}
	for _, p := range problems.NonStiff() {
		if p.Stiff {
			t.Errorf("%s is stiff", p.Name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Get of an unknown name did not panic")
		}
	}()
	problems.Get("nothing")
}

func unit(n, i int) []float64 {
	e := make([]float64, n)
	e[i] = 1
	return e
}
