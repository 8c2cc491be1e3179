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

// outcome is what the workload computes.
type outcome struct{ y, z0, theta []float32 }

func (r outcome) equal(o outcome) bool {
	return slices.Equal(r.y, o.y) && slices.Equal(r.z0, o.z0) && slices.Equal(r.theta, o.theta)
}

// workload makes every kind of call that a solve and a gradient make, in few steps:
// joint, and per sample with steps kept on a tape.
func workload(dev backend.Backend[float32]) (r outcome, err error) {
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 1, 2, 1), mlp.Init{}, 1)
	if err != nil {
		return r, err
	}
	ctx := context.Background()
	z0, ts := []float32{1, -1}, []float64{0, 0.2, 0.5}
	for _, set := range []solver.Settings{{Stepping: solver.PerSample, Dense: true}, {}} {
		set.Method, set.RTol, set.ATol, set.FirstStep = solver.Bosh3, 1e-2, 1e-2, 0.2
		s, err := solver.New(dev, m, set)
		if err != nil {
			return r, err
		}
		defer s.Close()
		sol, err := s.Solve(ctx, z0, ts)
		if err != nil {
			return r, err
		}
		r.y = append(r.y, sol.Y...)
		if set.Dense {
			continue
		}
		g, err := adjoint.Gradients(ctx, s, sol, []float32{0, 0, 0, 0, 1, 2})
		if err != nil {
			return r, err
		}
		r.z0, r.theta = g.Z0, g.Theta
	}
	return r, nil
}

// lifetime opens a backend, runs the workload, and closes it.
func lifetime() (r outcome, err error) {
	dev, err := gpu.Open[float32](gpu.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	r, err = workload(dev)
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

// With the backend open, fail every call of the driver in turn: the error names it,
// or the result is as if nothing had happened, and the next solve has the same bits.
func TestFaults_InASolve(t *testing.T) {
	dev, err := gpu.Open[float32](gpu.Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer dev.Close()
	faults.Calls()
	want, err := workload(dev) // loads the kernels
	if err != nil {
		t.Fatal(err)
	}
	made := calls(func() { _, err = workload(dev) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("calls of a solve and a gradient: %v", made)
	failed := 0
	for name, count := range made {
		for n := 1; n <= count; n++ {
			if testing.Short() && !some(n, count) {
				continue
			}
			const unknown = 999
			faults.Fail(name, n, unknown)
			got, err := workload(dev)
			err = errors.Join(err, dev.Sync())
			if !faults.Off() {
				t.Fatalf("call %d of %s did not come", n, name)
			}
			failed++
			if err != nil {
				checkFailure(t, name, n, err, unknown)
			} else if !got.equal(want) {
				t.Errorf("call %d of %s failed: no error, and another result", n, name)
			}
			if used := dev.MemoryUsed(); used != 0 {
				t.Fatalf("call %d of %s failed: %d bytes are in use after the solver was closed", n, name, used)
			}
			if !some(n, count) { // else the next failure shows whether it works up to there
				continue
			}
			if got, err = workload(dev); err != nil || !got.equal(want) {
				t.Fatalf("call %d of %s failed: the next solve: %v, equal: %v", n, name, err, got.equal(want))
			}
		}
	}
	t.Logf("%d calls failed", failed)
}

// Fail every call that only the life of a backend makes, from Open to Close: the error
// names it, nothing stays on the device, and the next Open works.
func TestFaults_FromOpenToClose(t *testing.T) {
	witness, err := driver.Open(0, driver.Options{}) // keeps the context, and with it what leaks
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer witness.Close()
	var want outcome
	made := calls(func() { want, err = lifetime() })
	if err != nil {
		t.Fatal(err)
	}
	warm := calls(warmWorkload(t))
	t.Logf("calls of a backend's life: %v", made)
	free, _, err := witness.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range made {
		if warm[name] > 0 || strings.HasPrefix(name, "cuGetError") {
			continue // see TestFaults_InASolve; and a failure without a name is still one
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
			_, err := lifetime()
			if !faults.Off() {
				t.Fatalf("call %d of %s did not come", n, name)
			}
			checkFailure(t, name, n, err, code)
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
			if got, err := lifetime(); err != nil || !got.equal(want) {
				t.Fatalf("call %d of %s failed: the next backend: %v, equal: %v", n, name, err, got.equal(want))
			}
		}
	}
}

// warmWorkload returns a workload on a backend that has loaded its kernels.
func warmWorkload(t *testing.T) func() {
	t.Helper()
	dev := open[float32](t)
	run := func() {
		if _, err := workload(dev); err != nil {
			t.Fatal(err)
		}
	}
	run()
	return run
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
