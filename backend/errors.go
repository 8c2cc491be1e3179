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

// MemoryError is an allocation that a device had no room for. It is [ErrOutOfMemory].
type MemoryError struct {
	Wanted int64 // bytes of the allocation
	Free   int64 // bytes that there were for it: of Limit, or on the device
	InUse  int64 // bytes that the backend held, see [Backend.MemoryUsed]
	Limit  int64 // the most that the backend may hold, by its user's wish; 0 for no limit
	Err    error // the driver's, nil where the limit was in the way
}

func (e *MemoryError) Error() string {
	free, why := "free on the device", "use a smaller batch, fewer output times, or a higher limit"
	if e.Limit > 0 {
		free = "left of the limit of " + size(e.Limit)
	}
	if e.Err != nil {
		why = e.Err.Error()
	}
	return fmt.Sprintf("backend: %v: %s are wanted, and %s are %s, with %s in use by this backend: %s",
		ErrOutOfMemory, size(e.Wanted), size(e.Free), free, size(e.InUse), why)
}

func (e *MemoryError) Unwrap() []error { return []error{ErrOutOfMemory, e.Err} }

// Fits is how many of n equal samples would have had room, where n need so many bytes
// and the backend holds `used` beside them. It is 0 for none, and if all would: then it
// is not for their number that memory was short.
func (e *MemoryError) Fits(n int, bytes, used int64) int {
	room := e.Free + e.InUse - used
	room -= room / 8 // for scratch memory, and what rounding takes
	if bytes <= 0 || room <= 0 || room >= bytes {
		return 0
	}
	return int(float64(n) * float64(room) / float64(bytes))
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

// DeviceError is a failure that the device or its driver reported.
type DeviceError struct {
	Op     string // the driver's call
	Kernel string // the kernel it was about, if any
	Code   int    // the driver's number
	Name   string // the driver's name for it
	Text   string // what it means and what to do
	Err    error  // ErrUnavailable, ErrUnsupported, ErrOutOfMemory or nil, for errors.Is
}

func (e *DeviceError) Error() string {
	op := e.Op
	if e.Kernel != "" {
		op += " of " + e.Kernel
	}
	return fmt.Sprintf("backend: %s failed: %s (%d): %s", op, e.Name, e.Code, e.Text)
}

func (e *DeviceError) Unwrap() error { return e.Err }
