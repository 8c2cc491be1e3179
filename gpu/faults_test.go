//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/faults"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// outcome is what a piece of work computes.
type outcome struct{ y, z0, theta []float32 }

func (r outcome) equal(o outcome) bool {
	return slices.Equal(r.y, o.y) && slices.Equal(r.z0, o.z0) && slices.Equal(r.theta, o.theta)
}

// work makes few calls of the driver, of many kinds.
type work func(dev backend.Backend[float32]) (outcome, error)

// solving is a solve and a gradient of the smallest network, in few steps: the less it
// does, the sooner every one of its calls has failed once.
func solving(set solver.Settings, how *adjoint.Settings, samples []solver.Sample, events ...solver.Event[float32]) work {
	return func(dev backend.Backend[float32]) (r outcome, err error) {
		m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 1, 2, 1), mlp.Init{}, 1)
		if err != nil {
			return r, err
		}
		s, err := solver.New(dev, m, set, events...)
		if err != nil {
			return r, err
		}
		defer s.Close()
		solve, each := s.Solve, s.SolveEach
		var a *adjoint.Adjoint[float32]
		if how != nil {
			if a, err = adjoint.New(s, *how); err != nil {
				return r, err
			}
			defer a.Close()
			solve, each = a.Solve, a.SolveEach
		}
		ctx, z0 := context.Background(), []float32{1, -1}
		var sol *solver.Solution[float32]
		if samples != nil {
			sol, err = each(ctx, z0, samples)
		} else {
			sol, err = solve(ctx, z0, []float64{0, 0.2, 0.5})
		}
		if err != nil {
			return r, err
		}
		r.y = sol.Y
		if a == nil {
			return r, nil
		}
		g, err := a.Gradients(ctx, sol, sol.Y)
		if err != nil {
			return r, err
		}
		r.z0, r.theta = g.Z0, g.Theta
		return r, nil
	}
}

var (
	chosen = solver.Settings{Method: solver.HeunEuler21, RTol: 1e-1, ATol: 1e-1, FirstStep: 0.2}
	fixed  = solver.Settings{Method: solver.Euler, Step: 0.25}
	alone  = solver.Settings{Method: solver.Euler, Step: 0.25, Stepping: solver.PerSample}
)

// with returns s, changed.
func with(s solver.Settings, change func(*solver.Settings)) solver.Settings {
	change(&s)
	return s
}

// works are kinds of work by name.
func works() map[string]work {
	own := []solver.Sample{{Times: []float64{0, 0.5}}, {Times: []float64{1, 0.75, 0.6}}}
	falls := solver.Event[float32]{
		G:         func(t float64, z, _ []float32) float64 { return 0.3 - t },
		Reset:     func(_ float64, z, _, out []float32) { out[0] = z[0] / 2 },
		BackG:     func(_ float64, _, _ []float32, a float64, az, _ []float32) float64 { az[0] = 0; return -a },
		BackReset: func(_ float64, _, _, a, az, _ []float32) float64 { az[0] = a[0] / 2; return 0 },
	}
	return map[string]work{
		"a solve":                      solving(chosen, nil, nil),
		"a dense solve":                solving(with(alone, func(s *solver.Settings) { s.Dense = true }), nil, nil),
		"a gradient":                   solving(chosen, &adjoint.Settings{}, nil),
		"a continuous gradient":        solving(fixed, &adjoint.Settings{Method: adjoint.Continuous}, nil),
		"a gradient of its steps":      solving(chosen, &adjoint.Settings{StepSizes: true}, nil),
		"a gradient on a budget":       solving(fixed, &adjoint.Settings{Budget: 10 << 10, NoTimes: true}, nil),
		"spans and events on a budget": solving(alone, &adjoint.Settings{Budget: 12 << 10, NoTimes: true}, own, falls),
	}
}

// workload makes every kind of call that a solve and a gradient make.
func workload(dev backend.Backend[float32]) (r outcome, err error) {
	all := works()
	for _, name := range []string{"a dense solve", "a solve", "a gradient"} {
		one, err := all[name](dev)
		if err != nil {
			return r, err
		}
		r = outcome{append(r.y, one.y...), one.z0, one.theta}
	}
	return r, nil
}

// lifetime opens a backend, runs the workload, and closes it.
func lifetime() (outcome, error) { return lifetimeOf(workload) }

func lifetimeOf(do work) (r outcome, err error) {
	dev, err := gpu.Open[float32](gpu.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	r, err = do(dev)
	if err == nil {
		err = dev.Sync()
	}
	if n := dev.MemoryUsed(); n != 0 {
		err = errors.Join(err, errors.New("memory in use after the solver was closed"))
	}
	return r, err
}

// calls is the number of calls of each function that do makes.
func calls(do func()) map[string]int {
	before := faults.Calls()
	do()
	made := faults.Calls()
	for name, n := range before {
		if made[name] -= n; made[name] == 0 {
			delete(made, name)
		}
	}
	return made
}

// some picks the first, the last, and a few of count calls between.
func some(n, count int) bool { return n == count || n&(n-1) == 0 }

// checkFailure fails unless err names the call of the driver that failed, and its code.
func checkFailure(t *testing.T, name string, n int, err error, code int) {
	t.Helper()
	var e *backend.DeviceError
	if !errors.As(err, &e) || e.Op != faults.Public(name) || e.Code != code || !strings.Contains(err.Error(), e.Op) {
		t.Errorf("call %d of %s failed with %d, and the error is: %v", n, name, code, err)
	}
}

// Fail every call of the driver that a piece of work makes, one after the other: the
// error names it, or the result is as if nothing had happened; nothing stays in use, and
// the next run has the same bits.
func TestFaults_EveryCall(t *testing.T) {
	for name, do := range works() {
		t.Run(name, func(t *testing.T) {
			dev := open[float32](t)
			sweep(t, dev, outcome.equal, func() (outcome, error) { return do(dev) })
		})
	}
}

// sweep fails every call of the driver that do makes; where tests shall be short, some.
func sweep[T backend.Float, R any](t *testing.T, dev *gpu.Backend[T], equal func(got, want R) bool, do func() (R, error)) {
	faults.Calls()
	want, err := do() // loads the kernels
	for range 2 {     // what it holds from one time to the next
		if err != nil {
			t.Fatal(err)
		}
		_, err = do()
	}
	used := dev.MemoryUsed()
	made := calls(func() { _, err = do() })
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for name, count := range made {
		code := 999
		if strings.Contains(name, "Alloc") {
			code = 2
		}
		for n := 1; n <= count; n++ {
			if testing.Short() && !some(n, count) {
				continue
			}
			faults.Fail(name, n, code)
			got, err := do()
			err = errors.Join(err, dev.Sync())
			if !faults.Off() {
				t.Fatalf("call %d of %s did not come", n, name)
			}
			failed++
			if err != nil {
				checkFailure(t, name, n, err, code)
			} else if !equal(got, want) {
				t.Errorf("call %d of %s failed: no error, and another result", n, name)
			}
			if some(n, count) { // else the next failure shows whether it works up to there
				if got, err = do(); err != nil || !equal(got, want) {
					t.Fatalf("call %d of %s failed: the next time: %v, equal: %v", n, name, err, equal(got, want))
				}
			}
			if now := dev.MemoryUsed(); now > used || now < used && some(n, count) {
				t.Fatalf("call %d of %s failed: %d bytes are in use, and %d before", n, name, now, used)
			}
		}
	}
	t.Logf("%d calls failed: %v", failed, made)
}

// Fail every call that only the life of a backend makes, from Open to Close: the error
// names it, nothing stays on the device, and the next Open works.
func TestFaults_FromOpenToClose(t *testing.T) {
	witness, err := driver.Open(0, driver.Options{}) // keeps the context, and with it what leaks
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer witness.Close()
	do := works()["a gradient"]
	var want outcome
	made := calls(func() { want, err = lifetimeOf(do) })
	if err != nil {
		t.Fatal(err)
	}
	dev := open[float32](t)
	if _, err = do(dev); err != nil { // loads the kernels
		t.Fatal(err)
	}
	warm := calls(func() { _, err = do(dev) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("calls of a backend's life: %v", made)
	free, _, err := witness.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range made {
		if warm[name] > 0 || strings.HasPrefix(name, "cuGetError") {
			continue // see TestFaults_EveryCall; and a failure without a name is still one
		}
		for n := 1; n <= count; n++ {
			if testing.Short() && n > 1 && n < count {
				continue
			}
			code := 999
			if strings.Contains(name, "Alloc") {
				code = 2
			}
			faults.Fail(name, n, code)
			got, err := lifetimeOf(do)
			if !faults.Off() {
				t.Fatalf("call %d of %s did not come", n, name)
			}
			if again := name == "cuMemAlloc_v2" && err == nil; !again || !got.equal(want) { // once spare memory was given back
				checkFailure(t, name, n, err, code)
			}
			left, _, err := witness.MemInfo()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "cuMemFree") || name == "cuModuleUnload" {
				free = left // what was not released is lost
			}
			if left != free {
				t.Errorf("call %d of %s failed: %d bytes stay on the device", n, name, free-left)
				free = left
			}
			if n < count {
				continue
			}
			if got, err = lifetimeOf(do); err != nil || !got.equal(want) {
				t.Fatalf("call %d of %s failed: the next backend: %v, equal: %v", n, name, err, got.equal(want))
			}
		}
	}
}

// A failure that costs the context is reported by everything from there on, and a new
// Open works.
func TestFaults_LostContext(t *testing.T) {
	want, err := lifetime()
	if errors.Is(err, backend.ErrUnavailable) {
		t.Skipf("no CUDA device: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cuLaunchKernel", "cuGraphLaunch", "cuStreamSynchronize", "cuMemcpyDtoHAsync_v2", "cuMemAlloc_v2"} {
		for _, n := range []int{1, 3} {
			dev, err := gpu.Open[float32](gpu.Options{})
			if err != nil {
				t.Fatal(err)
			}
			const illegalAddress = 700
			faults.Fail(name, n, illegalAddress)
			_, err = workload(dev)
			if !faults.Off() {
				t.Fatalf("call %d of %s did not come", n, name)
			}
			checkFailure(t, name, n, err, illegalAddress)
			if err == nil || !strings.Contains(err.Error(), "open a new one") {
				t.Errorf("call %d of %s: the remedy is not in: %v", n, name, err)
			}
			if _, err := workload(dev); err == nil || !strings.Contains(err.Error(), "context is lost") {
				t.Errorf("call %d of %s: the next solve says: %v", n, name, err)
			}
			if err := dev.Close(); err != nil {
				t.Errorf("call %d of %s: Close: %v", n, name, err)
			}
			if got, err := lifetime(); err != nil || !got.equal(want) {
				t.Fatalf("call %d of %s: the next backend: %v, equal: %v", n, name, err, got.equal(want))
			}
		}
	}
}

// Backends on one device share its context, and lose it together. What is opened
// after it does not depend on when the others are closed.
func TestFaults_LostContextIsShared(t *testing.T) {
	one, two := open[float32](t), open[float32](t)
	want, err := workload(two)
	if err != nil {
		t.Fatal(err)
	}
	const launchFailed = 719
	faults.Fail("cuLaunchKernel", 5, launchFailed)
	_, err = workload(one)
	faults.Off()
	checkFailure(t, "cuLaunchKernel", 5, err, launchFailed)
	if _, err := workload(two); err == nil || !strings.Contains(err.Error(), "context is lost") {
		t.Errorf("the other backend says: %v", err)
	}
	three := open[float32](t)
	for _, before := range []*gpu.Backend[float32]{one, two} {
		if got, err := workload(three); err != nil || !got.equal(want) {
			t.Errorf("a new backend: %v, equal: %v", err, got.equal(want))
		}
		if err := before.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, err := workload(three); err != nil || !got.equal(want) {
		t.Errorf("after the others were closed: %v, equal: %v", err, got.equal(want))
	}
}

func TestFaults_PrimaryContext(t *testing.T) {
	_, err := lifetime()
	if errors.Is(err, backend.ErrUnavailable) {
		t.Skipf("no CUDA device: %v", err)
	}
	for _, name := range []string{"cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"} {
		faults.Fail(name, 1, 999)
		_, err := lifetime()
		if !faults.Off() {
			t.Fatalf("%s was not called", name)
		}
		checkFailure(t, name, 1, err, 999)
		if _, err := lifetime(); err != nil {
			t.Errorf("after %s failed: %v", name, err)
		}
	}
}
