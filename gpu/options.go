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
	// Precision is how products with the weights of an MLP are computed in float32; the
	// default is in full precision, without tensor cores.
	Precision Precision
	// Debug waits after every launch, so that a failure names its kernel. It is slow.
	Debug bool
}

// Precision says how a Backend[float32] multiplies with the weights of an MLP: W·x, Wᵀ·δ
// and δ·xᵀ. It is the backend's, of all its fields and verbs alike, so that gradients are
// those of the steps taken. All else is float32 in any case, sums too.
//
// All but Float32 run on tensor cores and need a device of compute capability 8.0 or
// later. They are for layers of at least 32 inputs and 32 outputs; other layers stay in
// float32. A network that has one such layer runs layer by layer, through device memory,
// and its solves are not made in one launch. With Float32, networks of up to 128 units a
// layer stay on chip, which can be faster for them, the more so the smaller the batch.
//
// Relative errors, in the Euclidean norm, of f, aᵀ∂f/∂z and aᵀ∂f/∂θ of two tanh layers of
// equal width, against the CPU in float64, under a simulator of the device, which rounds
// sums to nearest (go test -tags cuda -run Precision_Errors -v ./gpu):
//
//	width   Float32            TF32x3             TF32               BF16
//	   64   1.8 2.3 1.7 e-7    1.4 1.8 1.5 e-7    4.1 4.9 4.2 e-4    3.3 3.8 3.5 e-3
//	  256   3.7 4.4 3.1 e-7    1.9 2.4 1.9 e-7    4.2 4.7 4.5 e-4    3.4 3.8 3.7 e-3
//	  512   5.2 6.5 4.4 e-7    2.3 2.8 2.1 e-7    4.3 4.7 4.6 e-4    3.3 3.9 3.6 e-3
type Precision int

const (
	// Float32 computes with float32 operands. It is the default.
	Float32 Precision = iota
	// TF32x3 takes each operand for a sum of two TF32 numbers, and adds three of their four
	// products. Errors are like Float32's, but an infinite operand gives NaN.
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
