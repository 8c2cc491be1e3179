package gpu

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
	// Debug waits after every launch, so that a failure names its kernel. It is slow.
	Debug bool
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
