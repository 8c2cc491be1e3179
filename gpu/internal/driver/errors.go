//go:build cuda && cgo && linux && amd64

package driver

import (
	"reflect"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// code is the driver's number behind an error of gorgonia.org/cu, whose type is not
// exported; 999, unknown, for any other error.
func code(err error) int {
	if err == nil {
		return 0
	}
	if v := reflect.ValueOf(err); v.CanInt() {
		return int(v.Int())
	}
	return 999
}

// newError describes a failed call of the driver.
func newError(op, kernel string, code int) *backend.DeviceError {
	name, text := errorName(code)
	e := &backend.DeviceError{Op: op, Kernel: kernel, Code: code, Name: name, Text: text}
	switch {
	case code == codeOutOfMemory:
		e.Text += ": use a smaller batch, fewer output times, or another device"
		e.Err = backend.ErrOutOfMemory
	case code == codeNotInitialized || code == codeNoDevice:
		e.Text += ": check that NVIDIA's driver runs and that CUDA_VISIBLE_DEVICES names a device, or use the CPU backend"
		e.Err = backend.ErrUnavailable
	case code == codeNoBinary || code == codePTXTooNew:
		e.Text += ": the driver is older than the kernels; update NVIDIA's driver"
		e.Err = backend.ErrUnavailable
	case code == codeGridTooLarge || code == codeNotSupported:
		e.Err = backend.ErrUnsupported
	case code == codeNotFound && op != "cuModuleGetFunction":
		e.Text = "the driver does not know this call; update NVIDIA's driver"
		e.Err = backend.ErrUnsupported
	case losesContext(code):
		e.Text += ": the device's context is lost with all its memory; close the backend and open a new one"
	}
	return e
}

// losesContext reports whether no call succeeds after this failure.
func losesContext(code int) bool {
	switch code {
	case 214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719:
		return true
	}
	return false
}
