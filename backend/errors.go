package backend

import (
	"errors"
	"fmt"
)

var (
	// ErrUnavailable: the device or its driver is not there.
	ErrUnavailable = errors.New("device unavailable")
	// ErrUnsupported: the backend cannot run this system or this call.
	ErrUnsupported = errors.New("not supported by this backend")
	// ErrOutOfMemory: an allocation failed; the backend stays usable.
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrClosed: the backend was closed before the call.
	ErrClosed = errors.New("backend is closed")
)

// DeviceError is a failure that the device or its driver reported.
type DeviceError struct {
	Op     string // the driver's call
	Kernel string // the kernel it was about, if any
	Code   int    // the driver's number
	Name   string // the driver's name for it
	Text   string // what it means and what to do
	Err    error  // ErrUnavailable, ErrOutOfMemory or nil, for errors.Is
}

func (e *DeviceError) Error() string {
	op := e.Op
	if e.Kernel != "" {
		op += " of " + e.Kernel
	}
	return fmt.Sprintf("backend: %s failed: %s (%d): %s", op, e.Name, e.Code, e.Text)
}

func (e *DeviceError) Unwrap() error { return e.Err }
