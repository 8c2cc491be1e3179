//go:build !(cuda && cgo && linux && amd64)

package gpu

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Built says whether this binary can drive a device.
const Built = false

// Backend runs solves on a device. In this binary there is none.
type Backend[T backend.Float] struct{ backend.Backend[T] }

func notBuilt() error {
	return fmt.Errorf("gpu: this program was built without CUDA: %w: build it with -tags cuda and cgo, on linux/amd64, or use the CPU backend", backend.ErrUnavailable)
}

// Open answers backend.ErrUnavailable: this binary was built without CUDA.
func Open[T backend.Float](Options) (*Backend[T], error) { return nil, notBuilt() }

// Devices answers backend.ErrUnavailable: this binary was built without CUDA.
func Devices() ([]DeviceInfo, error) { return nil, notBuilt() }

// DriverVersion answers backend.ErrUnavailable: this binary was built without CUDA.
func DriverVersion() (string, error) { return "", notBuilt() }

// Counts is zero: there is no device.
func (b *Backend[T]) Counts() Counts { return Counts{} }

// MemoryPeak is 0: there is no device.
func (b *Backend[T]) MemoryPeak() int64 { return 0 }

// Time answers backend.ErrUnavailable: there is no device.
func (b *Backend[T]) Time(func()) (seconds float64, err error) { return 0, notBuilt() }
