//go:build cuda && cgo && linux && amd64

package faults

import (
	"errors"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

func TestFail_FailsThatCallOnly(t *testing.T) {
	before := Calls()["cuMemAlloc_v2"]
	d, err := driver.Open(0, driver.Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer d.Close()
	Fail("cuMemAlloc_v2", 2, 2)
	var ptrs []driver.Ptr
	for i := range 3 {
		p, err := d.Alloc(16)
		var e *backend.DeviceError
		if failed := errors.As(err, &e) && e.Code == 2 && e.Op == "cuMemAlloc"; failed != (i == 1) {
			t.Errorf("call %d: %v", i+1, err)
		}
		if err == nil {
			ptrs = append(ptrs, p)
		}
	}
	if !Off() {
		t.Error("Off says that nothing failed")
	}
	for _, p := range ptrs {
		d.Free(p)
	}
	if n := Calls()["cuMemAlloc_v2"] - before; n != 3 {
		t.Errorf("%d calls counted, want 3", n)
	}
}

func TestUnsupported_SaysSo(t *testing.T) {
	d, err := driver.Open(0, driver.Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer d.Close()
	for _, code := range []int{500, 801} { // an older driver; one whose device cannot
		Fail("cuMemAllocAsync", 1, code)
		_, err := d.AllocAsync(16)
		if !Off() || !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("code %d: %v", code, err)
		}
	}
}
