package solver_test

import (
	"errors"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// FuzzSolve tries times, tolerances and steps, legal and not: never a panic, always
// an end, and an answer that is consistent in itself.
func FuzzSolve(f *testing.F) {
	f.Add(uint8(0), uint8(0), 0.0, 1.0, 2.0, 1e-6, 1e-8, 0.0, 0.0, 0.0, 0.0, 1.5, 1.0)
	f.Add(uint8(9), uint8(1), 5.0, 4.0, -3.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 4.5, 2.0)
	f.Add(uint8(3), uint8(3), 0.0, 1.0, 1.0, 1e-3, 1e-3, 0.0, 1e-9, 0.5, 1e-3, 0.0, -1.0)
	f.Add(uint8(2), uint8(2), 1e300, 1.1e300, 1.2e300, 1e-9, 0.0, 0.0, 1e280, 0.0, 0.0, 1.15e300, 1e30)
	f.Add(uint8(6), uint8(1), 0.0, 5e-324, 1e-323, 1e-6, 1e-6, 0.0, 0.0, 0.0, 0.0, 5e-324, 1.0)
	f.Add(uint8(1), uint8(0), 1.0, math.Nextafter(1, 2), 1.5, 1e-300, 1e-300, 0.0, 0.0, 0.0, 0.0, 1.25, 1.0)
	f.Add(uint8(200), uint8(255), math.NaN(), math.Inf(1), math.Copysign(0, -1), -1.0, math.NaN(), math.Inf(-1), -1.0, 1.0, 0.5, math.NaN(), math.NaN())
	f.Add(uint8(8), uint8(0x35), -78.7, -57.0, 81.0, 0.0, 0.0, 75.1, 0.0, 0.0, 88.0, 17.6, 8.0)
	f.Add(uint8(11), uint8(0), -1e308, 0.0, 1e308, 1e-6, 1e-6, 1e308, 0.0, 0.0, 0.0, 0.0, 0.0)
	f.Fuzz(func(t *testing.T, method, bits uint8, t0, t1, t2, rtol, atol, step, first, maxStep, minStep, brk, z float64) {
		set := solver.Settings{
			Method: solver.Method(method), RTol: rtol, ATol: atol, Step: step, FirstStep: first, MaxStep: maxStep, MinStep: minStep,
			Stepping: solver.Stepping(bits & 1), Controller: solver.Controller(bits >> 1 & 3), Dense: bits>>3&1 == 1,
			MaxAttempts: 200, Breakpoints: []float64{brk},
		}
		if bits>>4&1 == 1 {
			fuzzOne[float32](t, set, []float64{t0, t1, t2}, float32(z))
		} else {
			fuzzOne(t, set, []float64{t0, t1, t2}, z)
		}
	})
}

func fuzzOne[T backend.Float](t *testing.T, set solver.Settings, ts []float64, z T) {
	dev := cpu.New[T]()
	defer dev.Close()
	// Smooth, jumping with the time, and blowing up, by sample.
	sys := custom(1, func(at float64, z, _, dz []T) {
		switch {
		case z[0] > 1e3:
			dz[0] = z[0] * z[0]
		case at > set.Breakpoints[0]:
			dz[0] = -z[0]
		default:
			dz[0] = z[0] + T(math.Sin(at))
		}
	})
	s, err := solver.New(dev, sys, set)
	if err != nil {
		if s != nil {
			t.Errorf("a solver and an error: %v", err)
		}
		return
	}
	defer s.Close()
	sol, err := s.Solve(background, []T{z, 1, 1e4}, ts)
	var failed *solver.Error
	switch {
	case sol == nil:
		if err == nil || errors.As(err, &failed) {
			t.Errorf("no solution, error %v", err)
		}
		return
	case err != nil && !errors.As(err, &failed):
		t.Errorf("a solution with another error than *Error: %v", err)
	}
	for i := 1; i < len(ts); i++ {
		if sol.Times[i] != ts[i] || ts[i] == ts[i-1] || ts[i] > ts[i-1] != (ts[1] > ts[0]) {
			t.Fatalf("times %v were accepted, the solution has %v", ts, sol.Times)
		}
	}
	end := ts[len(ts)-1]
	unfinished := 0
	for b, status := range sol.Status {
		st := sol.Stats[b]
		switch status {
		case solver.Done:
			if st.T != end {
				t.Errorf("sample %d is done at %g, not %g", b, st.T, end)
			}
		case solver.TooManyAttempts, solver.StepTooSmall, solver.NotFinite:
			unfinished++
		default:
			t.Errorf("sample %d has status %v", b, status)
		}
		if st.Accepted+st.Rejected > 200 || st.Accepted < 0 || st.Rejected < 0 || st.Evaluations < st.Accepted {
			t.Errorf("sample %d: %+v", b, st)
		}
		for i, ti := range ts {
			reached := math.Abs(ti-ts[0]) <= math.Abs(st.T-ts[0])
			v := float64(sol.Sample(i, b)[0])
			if math.IsInf(v, 0) || math.IsNaN(v) && status == solver.Done || !math.IsNaN(v) && !reached {
				t.Errorf("sample %d got to %g and is %g at %g", b, st.T, v, ti)
			}
		}
	}
	if (unfinished > 0) != (err != nil) {
		t.Errorf("%d samples are not done, error %v", unfinished, err)
	}
	if set.Dense {
		for _, at := range []float64{ts[0], (ts[0] + end) / 2, end} {
			if x, err := sol.At(at); x == nil || err != nil && unfinished == 0 {
				t.Errorf("At(%g) of the span %v: %v, %v", at, ts, x, err)
			}
		}
		if x, err := sol.At(end + (end - ts[0])); x != nil || err == nil {
			t.Errorf("extrapolated to %v", x)
		}
	}
}
