package gpu_test

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
)

// A device if there is one, with at most 2 GiB of its memory; else the CPU.
func ExampleOpen() {
	var dev backend.Backend[float32]
	device, err := gpu.Open[float32](gpu.Options{MemoryLimit: 2 << 30})
	switch {
	case err == nil:
		dev = device
	case errors.Is(err, backend.ErrUnavailable):
		fmt.Println("no device:", err) // not built with -tags cuda, no driver, or no device
		dev = cpu.New[float32]()
	default:
		panic(err)
	}
	defer dev.Close()
	fmt.Println("on the", dev.Name())
}
