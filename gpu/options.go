package gpu

import "fmt"

// Options says which device to open and how. Its zero value is device 0 with all of
// its memory.
type Options struct {
	// Device is the index of the device, UUID its name as nvidia-smi -L writes it, with
	// or without GPU- in front; UUID wins if it is set.
	Device int
	UUID   string
	// MemoryLimit is the most memory to hold on the device, in bytes; 0 means what
	// the device has.
	MemoryLimit int64
	// Stream is a stream of the caller's to run on, a CUstream or cudaStream_t of the
	// device's primary context; 0 means one of the backend's own. What the caller has
	// enqueued in it is done before the backend's work, and what he enqueues behind a
	// call comes after that. It stays the caller's: it has to live until Close, which
	// waits for it and leaves it alone. As steps are recorded in it, nothing else may be
	// enqueued while a call of the backend, a solve or a gradient runs.
	Stream uintptr
	// Precision is how products with the weights of an MLP are computed in float32.
	Precision Precision
	// Debug waits after every launch, so that a failure names its kernel. It is slow.
	Debug bool
}

// Precision says how the products with the weights of an MLP are computed by a
// Backend[float32]: W·x, Wᵀ·δ and δ·xᵀ, of all its fields and verbs alike, so that
// gradients are those of the steps taken. Everything else is float32 in any case.
//
// The others than Float32 run on tensor cores, of a device of compute capability 8.0 or
// later. They apply to layers from 32 units to 32 units and more. A network that has
// such a layer goes layer by layer through device memory, where Float32 keeps networks
// of up to 128 units on chip, and its solves are not made in one launch: [Precision]
// can be slower for those, above all with small batches.
type Precision int

const (
	// Float32 computes with float32 operands. It is the default.
	Float32 Precision = iota
	// TF32x3 splits each operand into two TF32 numbers and adds three of their four
	// products. Errors are about those of Float32; but an infinite operand gives NaN.
	TF32x3
	// TF32 rounds operands to 11 significant bits, of float32's range.
	TF32
	// BF16 rounds operands to 8 significant bits, of float32's range.
	BF16
)

func (p Precision) String() string {
	if p < Float32 || p > BF16 {
		return fmt.Sprintf("Precision(%d)", int(p))
	}
	return [...]string{"Float32", "TF32x3", "TF32", "BF16"}[p]
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	Index  int    `json:"index"`
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	Major  int    `json:"major"` // compute capability
	Minor  int    `json:"minor"`
	Memory int64  `json:"memory"` // bytes
	SMs    int    `json:"sms"`    // multiprocessors
}

// Counts says what a device was asked to do.
type Counts struct {
	Launches         int64 // of kernels, those in a recording counted at every replay
	Recorded         int64 // of these, those in recordings
	Graphs           int64 // replays of a recording
	Waits            int64 // of the host for the device
	ToDevice, ToHost int64 // bytes copied
}
