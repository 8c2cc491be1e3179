package solver

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
)

// Auto opens the fastest device that answers: a GPU if the program was built for one
// and there is one, else the CPU. A right-hand side that the GPU cannot run, one
// written in Go, is solved on the CPU all the same. Solution.Backend says which device
// computed, Solution.Warnings why it was not the GPU that the program was built for.
// The caller closes the backend.
func Auto[T backend.Float]() backend.Backend[T] {
	host := cpu.New[T]()
	if !gpu.Built {
		return host
	}
	dev, err := gpu.Open[T](gpu.Options{})
	if err != nil {
		return &auto[T]{Backend: host, host: host, why: err.Error()}
	}
	return &auto[T]{Backend: dev, host: host}
}

// auto is the device that Auto chose, with the CPU beside it.
type auto[T backend.Float] struct {
	backend.Backend[T]
	host *cpu.Backend[T]
	why  string // it is the CPU
}

// Close closes both.
func (a *auto[T]) Close() error { return errors.Join(a.Backend.Close(), a.host.Close()) }

// bind binds sys to dev, or to the CPU beside it. It returns the backend that has it,
// and a remark if that is not what was to be expected.
func bind[T backend.Float](dev backend.Backend[T], sys backend.System[T]) (backend.Backend[T], backend.Field[T], string, error) {
	a, ok := dev.(*auto[T])
	if !ok {
		f, err := dev.Bind(sys)
		return dev, f, "", err
	}
	f, err := a.Backend.Bind(sys)
	why := a.why
	dev = a.Backend
	if errors.Is(err, backend.ErrUnsupported) && why == "" {
		why = err.Error()
		dev = a.host
		f, err = a.host.Bind(sys)
	}
	if why != "" {
		why = fmt.Sprintf("computed on the CPU: %s", why)
	}
	return dev, f, why, err
}
