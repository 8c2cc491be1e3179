package solver_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

var background = context.Background()

// open makes a solver that the test closes.
func open[T backend.Float](t testing.TB, sys backend.System[T], set solver.Settings, events ...solver.Event[T]) *solver.Solver[T] {
	t.Helper()
	dev := cpu.New[T]()
	s, err := solver.New(dev, sys, set, events...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if n := dev.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are still held after Close", n)
		}
		dev.Close()
	})
	return s
}

// solve solves problem p at ts from its z0.
func solve[T backend.Float](t testing.TB, p *problems.Problem, set solver.Settings, ts ...float64) *solver.Solution[T] {
	t.Helper()
	sol, err := open(t, problems.System[T](p), set).Solve(background, problems.Convert[T](p.Z0), ts)
	if err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	return sol
}

// reference solves p at ts as tightly as float64 allows.
func reference(t testing.TB, p *problems.Problem, ts ...float64) []float64 {
	t.Helper()
	set := solver.Settings{Method: solver.Dopri8, RTol: 1e-14, ATol: 1e-15}
	// Interpolation of tight solutions would lose a digit: stop at each time.
	set.Breakpoints = ts
	return solve[float64](t, p, set, ts...).Y
}

// distance is the largest difference of two slices, NaN if they hold one.
func distance[T, S backend.Float](x []T, y []S) (d float64) {
	if len(x) != len(y) {
		panic("distance between slices of different length")
	}
	for i := range x {
		d = max(d, math.Abs(float64(x[i])-float64(y[i])))
	}
	return d
}

// same reports whether x and y are equal to the last bit, NaN equal to NaN.
func same[T backend.Float](x, y []T) bool {
	for i := range x {
		if x[i] != y[i] && (x[i] == x[i] || y[i] == y[i]) {
			return false
		}
	}
	return len(x) == len(y)
}

func grid(t0, t1 float64, n int) []float64 {
	ts := make([]float64, n+1)
	for i := range ts {
		ts[i] = t0 + (t1-t0)*float64(i)/float64(n)
	}
	return ts
}

func adaptive() (list []solver.Method) {
	for _, m := range solver.Methods() {
		if m.Adaptive() {
			list = append(list, m)
		}
	}
	return list
}

// custom is a right-hand side without parameters.
func custom[T backend.Float](dim int, f func(t float64, z, theta, dz []T)) *field.Custom[T] {
	return &field.Custom[T]{N: dim, F: f}
}

// wantText fails unless err's text holds every part.
func wantText(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}
