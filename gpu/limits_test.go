//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/faults"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

const childVar = "NEURALODE_GPU_CHILD"

// TestChild is the body of the processes that child starts.
func TestChild(t *testing.T) {
	if os.Getenv(childVar) == "" {
		t.Skip("for other tests")
	}
	dev, err := gpu.Open[float32](gpu.Options{})
	fmt.Printf("error: %v\nunavailable: %v\n", err, errors.Is(err, backend.ErrUnavailable))
	if err == nil {
		dev.Close()
	}
	auto := solver.Auto[float32]()
	defer auto.Close()
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 1, 2, 1), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(auto, m, solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), []float32{1}, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("solved on: %s\nwarnings: %q\n", sol.Backend, sol.Warnings)
}

// child opens device 0 in a process of its own, with other environment, and returns
// what it says.
func child(t *testing.T, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), append(env, childVar+"=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the process with %v ended with %v:\n%s", env, err, out)
	}
	return string(out)
}

func wants(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%q is not in:\n%s", p, got)
		}
	}
}

// Without the driver's library the program starts all the same, and computes on the
// CPU.
func TestOpen_NoLibrary(t *testing.T) {
	out := child(t, "LD_LIBRARY_PATH=")
	if strings.Contains(out, "error: <nil>") {
		t.Skip("the driver's library is where the system finds it")
	}
	wants(t, out, "unavailable: true", "use the CPU backend", "solved on: cpu", "computed on the CPU: ")
}

func TestOpen_NoDevice(t *testing.T) {
	open[float32](t)
	out := child(t, "CUDASIM_DEVICES=0", "CUDA_VISIBLE_DEVICES=")
	wants(t, out, "unavailable: true", "CUDA_ERROR_NO_DEVICE", "CUDA_VISIBLE_DEVICES", "solved on: cpu", "computed on the CPU: ")
}

func TestOpen_NoSuchDevice(t *testing.T) {
	open[float32](t)
	for _, opt := range []gpu.Options{{Device: 1000}, {Device: -1}, {UUID: "GPU-00000000-0000-0000-0000-000000000000"}} {
		dev, err := gpu.Open[float32](opt)
		if err == nil {
			dev.Close()
		}
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	if _, err := gpu.Open[float32](gpu.Options{MemoryLimit: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
}

func TestOpen_ByUUID(t *testing.T) {
	open[float32](t)
	list, err := gpu.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		dev, err := gpu.Open[float32](gpu.Options{UUID: "GPU-" + strings.ToUpper(d.UUID), Device: -1})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("cuda:%d %s", d.Index, d.Name); dev.Name() != want {
			t.Errorf("%s opened %q, want %q", d.UUID, dev.Name(), want)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}

// On a stream of the caller's the results are the same; none is made, and the caller's
// lives on.
func TestOpen_Stream(t *testing.T) {
	want, err := workload(open[float32](t))
	if err != nil {
		t.Fatal(err)
	}
	lender, err := driver.Open(0, driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer lender.Close()
	made := calls(func() {
		for range 2 {
			dev, err := gpu.Open[float32](gpu.Options{Stream: lender.Stream()})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := workload(dev); err != nil || !got.equal(want) {
				t.Errorf("%v, equal: %v", err, got.equal(want))
			}
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	if made["cuGraphLaunch"] == 0 || made["cuStreamCreate"] != 0 || made["cuStreamDestroy_v2"] != 0 {
		t.Errorf("calls: %v", made)
	}
	if err := lender.Sync(); err != nil {
		t.Errorf("the stream after it: %v", err)
	}
	faults.Fail("cuStreamGetCtx", 1, 999)
	_, err = gpu.Open[float32](gpu.Options{Stream: lender.Stream()})
	faults.Off()
	checkFailure(t, "cuStreamGetCtx", 1, err, 999)
}

// A call that is not made, and answers success, leaves 0 for the compute capability.
func TestOpen_TooOldADevice(t *testing.T) {
	open[float32](t)
	faults.Fail("cuDeviceGetAttribute", 1, 0)
	dev, err := gpu.Open[float32](gpu.Options{})
	faults.Off()
	if err == nil {
		dev.Close()
	}
	if !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	wants(t, fmt.Sprint(err), "compute capability 0.", "below 6.0", "use a newer device")
}

func TestOpen_TooOldADriver(t *testing.T) {
	for _, code := range []int{209, 222} { // no binary for this device; unknown PTX version
		dev := open[float32](t)
		faults.Fail("cuModuleLoadDataEx", 1, code)
		_, err := workload(dev)
		faults.Off()
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("code %d: %v", code, err)
		}
		wants(t, fmt.Sprint(err), "update NVIDIA's driver")
	}
}

// Whatever does not fit is an error that says how much is missing, and the backend
// goes on to solve what does.
func TestMemory_TooLittle(t *testing.T) {
	const limit = 1 << 20
	dev, err := gpu.Open[float32](gpu.Options{MemoryLimit: limit})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer dev.Close()
	want, err := workload(dev)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	solve := func(spec mlp.Spec, batch int, set solver.Settings) error {
		m, err := mlp.New[float32](spec, mlp.Init{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		s, err := solver.New(dev, m, set)
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Solve(ctx, make([]float32, batch*m.Dim()), []float64{0, 1})
		return err
	}
	small := mlp.Dense(mlp.Tanh, 2, 8, 2)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"θ", func() error { return solve(mlp.Dense(mlp.Tanh, 2, 600, 600, 2), 1, solver.Settings{}) }},
		{"the batch", func() error { return solve(small, 100_000, solver.Settings{}) }},
		{"the tape", func() error { return solve(small, 100, solver.Settings{Dense: true, Step: 1e-4, MaxAttempts: 20_000}) }},
		{"the scratch memory of a wide net", func() error { return solve(mlp.Dense(mlp.Tanh, 2, 300, 2), 1500, solver.Settings{}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.do()
			if !errors.Is(err, backend.ErrOutOfMemory) {
				t.Fatalf("got %v", err)
			}
			var short *backend.MemoryError
			if !errors.As(err, &short) || short.Wanted <= short.Free || short.Free+short.InUse != limit || short.Limit != limit {
				t.Errorf("got %+v", short)
			}
			wants(t, err.Error(), "limit of 1.0 MiB", "in use", "smaller batch")
			if n := dev.MemoryUsed(); n != 0 {
				t.Errorf("%d bytes are in use after it", n)
			}
			if got, err := workload(dev); err != nil || !got.equal(want) {
				t.Errorf("the next solve: %v, equal: %v", err, got.equal(want))
			}
		})
	}
	if p := dev.MemoryPeak(); p <= 0 || p > limit {
		t.Errorf("a peak of %d bytes", p)
	}
}

// Without a limit of its own it is the device that has no room.
func TestMemory_DeviceFull(t *testing.T) {
	dev := open[float32](t)
	_, err := dev.NewVec(1<<10, 1<<20, 1<<10)
	if !errors.Is(err, backend.ErrOutOfMemory) {
		t.Fatalf("4 TiB: %v", err)
	}
	var short *backend.MemoryError
	if !errors.As(err, &short) || short.Wanted != 4<<40 || short.Free <= 0 || short.Free >= short.Wanted || short.InUse != 0 {
		t.Errorf("got %+v", short)
	}
	wants(t, err.Error(), "4096.00 GiB are wanted", "free on the device", "cuMemAlloc", "smaller batch")
	if _, err := workload(dev); err != nil {
		t.Errorf("the next solve: %v", err)
	}
}

// Close releases what nobody freed.
func TestClose_ReleasesEverything(t *testing.T) {
	witness, err := driver.Open(0, driver.Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer witness.Close()
	before, _, err := witness.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	dev := open[float32](t)
	if _, err := dev.NewVec(1, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	clk, err := dev.NewClock(1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	clk.Close()
	if n := dev.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes in use after Close", n)
	}
	if after, _, err := witness.MemInfo(); err != nil || after != before {
		t.Errorf("%d bytes stay on the device (%v)", before-after, err)
	}
}

func TestClose_ThenUse(t *testing.T) {
	dev := open[float32](t)
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 1, 2, 1), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, m, solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := dev.NewVec(1, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Solve(context.Background(), []float32{1}, []float64{0, 1}); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Solve: %v", err)
	}
	dev.Zero(v)
	if err := dev.Download(make([]float32, 2), v); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Download: %v", err)
	}
	if err := dev.Sync(); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
	if _, err := dev.Bind(m); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Bind: %v", err)
	}
	dev.Free(v)
	if err := s.Close(); err != nil {
		t.Errorf("Solver.Close: %v", err)
	}
}

// Backends of several goroutines, on as many threads, on every device there is.
func TestBackends_SideBySide(t *testing.T) {
	list, err := gpu.Devices()
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	want, err := lifetime()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range max(3, len(list)) {
		wg.Go(func() {
			dev, err := gpu.Open[float32](gpu.Options{Device: list[i%len(list)].Index})
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				got, err := workload(dev)
				if err != nil {
					t.Error(err)
				} else if !got.equal(want) {
					t.Error("another result side by side than alone")
				}
				runtime.Gosched()
			}
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
