package backend_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func TestDeviceError_Error(t *testing.T) {
	for _, c := range []struct {
		err  backend.DeviceError
		want string
	}{
		{
			backend.DeviceError{
				Op: "cuLaunchKernel", Kernel: "rk_combine_f32", Code: 700, Name: "CUDA_ERROR_ILLEGAL_ADDRESS",
				Text: "a kernel accessed memory that is not its own; the context is lost: open the device again",
			},
			"backend: cuLaunchKernel of rk_combine_f32 failed: CUDA_ERROR_ILLEGAL_ADDRESS (700): " +
				"a kernel accessed memory that is not its own; the context is lost: open the device again",
		},
		{
			backend.DeviceError{
				Op: "cuMemAlloc", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY", Text: "no room for 4096 bytes; use a smaller batch",
				Err: backend.ErrOutOfMemory,
			},
			"backend: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (2): no room for 4096 bytes; use a smaller batch",
		},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestDeviceError_Is(t *testing.T) {
	sentinels := []error{backend.ErrUnavailable, backend.ErrUnsupported, backend.ErrOutOfMemory, backend.ErrClosed}
	for _, cause := range append(sentinels, nil) {
		original := &backend.DeviceError{Op: "cuMemAlloc", Code: 2, Err: cause}
		err := fmt.Errorf("solver: %w", original)
		for _, s := range sentinels {
			if got := errors.Is(err, s); got != (s == cause) {
				t.Errorf("a DeviceError caused by %v: errors.Is(err, %v) is %v", cause, s, got)
			}
		}
		var found *backend.DeviceError
		if !errors.As(err, &found) || found != original {
			t.Errorf("errors.As finds %v", found)
		}
	}
}

func TestMemoryError(t *testing.T) {
	driver := &backend.DeviceError{Op: "cuMemAlloc", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY", Text: "no room", Err: backend.ErrOutOfMemory}
	for _, c := range []struct {
		err  backend.MemoryError
		want string
	}{
		{
			backend.MemoryError{Wanted: 3 << 30, Free: 5 << 19, InUse: 1000, Limit: 1 << 31},
			"backend: out of device memory: 3.00 GiB are wanted, and 2.5 MiB are left of the limit of 2.00 GiB, " +
				"with 1000 bytes in use by this backend: use a smaller batch, fewer output times, or a higher limit",
		},
		{
			backend.MemoryError{Wanted: 4096, Err: driver},
			"backend: out of device memory: 4096 bytes are wanted, and 0 bytes are free on the device, " +
				"with 0 bytes in use by this backend: backend: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (2): no room",
		},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		err := fmt.Errorf("solver: %w", &c.err)
		var found *backend.DeviceError
		if !errors.Is(err, backend.ErrOutOfMemory) || errors.Is(err, backend.ErrClosed) || errors.As(err, &found) != (c.err.Err != nil) {
			t.Errorf("%v is not what it is", err)
		}
	}
}

func TestMemoryError_Fits(t *testing.T) {
	e := &backend.MemoryError{Free: 600, InUse: 500}
	for _, c := range []struct {
		n           int
		bytes, used int64
		want        int
	}{
		{100, 2000, 76, 44}, // of 1024, 896 serve
		{100, 897, 76, 99},
		{100, 896, 76, 0}, // all fit
		{100, 1 << 40, 76, 0},
		{100, 2000, 1100, 0}, // no room at all
		{100, 2000, 5000, 0},
		{1, 2000, 76, 0},
		{100, 0, 76, 0},
		{math.MaxInt, math.MaxInt64, 76, 896},
	} {
		if got := e.Fits(c.n, c.bytes, c.used); got != c.want {
			t.Errorf("%+v: %d fit", c, got)
		}
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[backend.Status]string{
		backend.StatusRunning:   "running",
		backend.Done:            "done",
		backend.TooManyAttempts: "too many attempted steps",
		backend.StepTooSmall:    "step size too small",
		backend.NotFinite:       "not finite",
		backend.Cancelled:       "cancelled",
		200:                     "Status(200)",
	} {
		if status.String() != want || status.Error() != want {
			t.Errorf("%d is %q and %q, want %q", uint8(status), status.String(), status.Error(), want)
		}
	}
	err := fmt.Errorf("solver: sample 3: %w", backend.NotFinite)
	if !errors.Is(err, backend.NotFinite) || errors.Is(err, backend.Done) {
		t.Error("errors.Is does not tell statuses apart")
	}
}

func TestSpan_Valid(t *testing.T) {
	for _, s := range []backend.Span{
		{Stops: []float64{1}},
		{Stops: []float64{-1}, H0: -0.5},
		{T0: 3, Stops: []float64{3}},
		{T0: 1, Saves: []float64{2, 2.5, 4}, Stops: []float64{3, 4}, Blocks: []int{-1, 0}, Breaks: []float64{4, 1}, MaxStep: 1},
		{T0: 1, Saves: []float64{0, -1, -2}, Stops: []float64{0.5, -2}},
	} {
		if !s.Valid() {
			t.Errorf("%+v is not valid", s)
		}
	}
	// The invalid ones are in the conformance suite, where Start must panic.
}
