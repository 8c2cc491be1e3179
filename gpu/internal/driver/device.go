//go:build cuda && cgo && linux && amd64

package driver

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Info describes a device.
type Info struct {
	Index        int
	Name         string
	UUID         string // as nvidia-smi writes it, without the GPU- in front
	Major, Minor int    // compute capability
	TotalMem     int64  // bytes
	SMs          int    // multiprocessors
	MaxShared    int    // bytes of shared memory that a block may opt in to
	CUDA         int    // version of CUDA that the driver is of, as in 12 for 12.8
}

// Capability is the compute capability as in sm_80.
func (i Info) Capability() int { return 10*i.Major + i.Minor }

// Devices lists what the driver offers, none without an error if it offers none.
func Devices() ([]Info, error) {
	if err := available(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, newError("cuDeviceGetCount", "", code(err))
	}
	list := make([]Info, n)
	for i := range list {
		if list[i], err = describe(i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func describe(index int) (Info, error) {
	in := Info{Index: index}
	dev, err := cu.GetDevice(index)
	if err != nil {
		return in, newError("cuDeviceGet", "", code(err))
	}
	if in.Name, err = dev.Name(); err != nil {
		return in, newError("cuDeviceGetName", "", code(err))
	}
	id, err := dev.UUID()
	if err != nil {
		return in, newError("cuDeviceGetUuid", "", code(err))
	}
	in.UUID = id.String()
	if in.TotalMem, err = dev.TotalMem(); err != nil {
		return in, newError("cuDeviceTotalMem", "", code(err))
	}
	for _, a := range []struct {
		dst *int
		key cu.DeviceAttribute
	}{
		{&in.Major, cu.ComputeCapabilityMajor}, {&in.Minor, cu.ComputeCapabilityMinor},
		{&in.SMs, cu.MultiprocessorCount}, {&in.MaxShared, maxSharedOptin},
	} {
		if *a.dst, err = dev.Attribute(a.key); err != nil {
			return in, newError("cuDeviceGetAttribute", "", code(err))
		}
	}
	v, c := driverVersion()
	if c != 0 {
		return in, newError("cuDriverGetVersion", "", c)
	}
	in.CUDA = v / 1000
	return in, nil
}

// maxSharedOptin is CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.
const maxSharedOptin cu.DeviceAttribute = 97

// Options says how to open a device.
type Options struct {
	// Debug waits after every launch and names the kernel that failed.
	Debug bool
	// Stream is the handle of a stream of the caller's to run on, which has to live
	// until Close; 0 makes one.
	Stream uintptr
}

// Device is an opened device with a stream to run on.
type Device struct {
	info  Info
	debug bool
	ctx   *primary

	mu     sync.Mutex
	stream cu.Stream
	lent   bool  // the stream is the caller's
	err    error // latched
	closed bool
	// capturing: between BeginCapture and EndCapture.
	capturing bool
	captured  int64 // launches since BeginCapture
	counts    Counts
	modules   []*Module
	memory    map[Ptr]struct{}
	staging   staging
	pinned    map[*Pinned]struct{}
	graphs    map[*Graph]struct{}
}

// Counts says what a device was asked to do.
type Counts struct {
	Launches         int64 // kernels, those of graphs counted at every replay
	Recorded         int64 // of these, those of graphs
	Graphs           int64 // replays
	Waits            int64 // for everything enqueued
	ToDevice, ToHost int64 // bytes copied
}

// Counts returns what d was asked to do so far.
func (d *Device) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// wait waits for everything enqueued.
func (d *Device) wait() bool {
	d.counts.Waits++
	return d.check("cuStreamSynchronize", "", code(d.stream.Synchronize()))
}

// oldest is the compute capability of the oldest device that the kernels run on.
const oldest = 60

// Open opens device index.
func Open(index int, opt Options) (*Device, error) {
	if err := available(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, newError("cuDeviceGetCount", "", code(err))
	}
	if n == 0 {
		return nil, fmt.Errorf("gpu: the driver offers no device: %w: check CUDA_VISIBLE_DEVICES, or use the CPU backend", backend.ErrUnavailable)
	}
	if index < 0 || index >= n {
		return nil, fmt.Errorf("gpu: there is no device %d, only 0 to %d: %w", index, n-1, backend.ErrUnavailable)
	}
	d := &Device{debug: opt.Debug, memory: map[Ptr]struct{}{}, pinned: map[*Pinned]struct{}{}, graphs: map[*Graph]struct{}{}}
	if d.info, err = describe(index); err != nil {
		return nil, err
	}
	if d.info.Capability() < oldest {
		return nil, fmt.Errorf("gpu: device %d, %s, has compute capability %d.%d, below 6.0: %w: use a newer device, or the CPU backend",
			index, d.info.Name, d.info.Major, d.info.Minor, backend.ErrUnavailable)
	}
	dev, err := cu.GetDevice(index)
	if err != nil {
		return nil, newError("cuDeviceGet", "", code(err))
	}
	if d.ctx, err = retain(index, dev); err != nil {
		return nil, err
	}
	if err = d.openStream(opt.Stream); err != nil {
		d.ctx.release()
		return nil, err
	}
	return d, nil
}

func (d *Device) openStream(handle uintptr) error {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return d.take()
	}
	if handle != 0 {
		return d.borrow(handle)
	}
	const nonBlocking cu.StreamFlags = 1
	stream, err := cu.MakeStream(nonBlocking)
	if err != nil {
		return d.failure("cuStreamCreate", "", code(err))
	}
	d.stream = stream
	return nil
}

// borrow runs on the caller's stream. The device is entered.
func (d *Device) borrow(handle uintptr) error {
	const remedy = "give a stream made in the device's primary context, as cudaStreamCreate makes them, or 0 for one of the backend's own"
	const perThread = 2 // and 1 is the legacy default stream: handles of no stream in particular
	if handle <= perThread {
		return fmt.Errorf("gpu: stream %d is a default stream, in which steps cannot be recorded: %s", handle, remedy)
	}
	s, inContext, c := streamOf(handle, d.ctx.ctx)
	if c != 0 && c != codeInvalidHandle {
		return d.failure("cuStreamGetCtx", "", c)
	}
	if c != 0 || !inContext {
		return fmt.Errorf("gpu: stream %#x is not one of device %d: %s", handle, d.info.Index, remedy)
	}
	d.stream, d.lent = s, true
	return nil
}

// Stream is the handle of the stream that d runs on.
func (d *Device) Stream() uintptr { return uintptr(unsafe.Pointer(cStream(d.stream))) }

// Info describes the device.
func (d *Device) Info() Info { return d.info }

// enter takes the device for this goroutine and its thread; exit lets go. It reports
// whether calls may be made.
func (d *Device) enter() bool {
	d.mu.Lock()
	d.ctx.alive.RLock()
	runtime.LockOSThread()
	if d.closed || d.lost() {
		return false
	}
	d.check("cuCtxSetCurrent", "", code(cu.SetCurrentContext(d.ctx.ctx)))
	return d.err == nil
}

func (d *Device) exit() {
	runtime.UnlockOSThread()
	d.ctx.alive.RUnlock()
	d.mu.Unlock()
}

// lost reports whether no call can succeed any more.
func (d *Device) lost() bool { return d.ctx.lost.Load() != nil }

// check latches a failure and reports whether there is none.
func (d *Device) check(op, kernel string, code int) bool {
	if code == 0 {
		return true
	}
	err := d.failure(op, kernel, code)
	if d.err == nil {
		d.err = err
	}
	return false
}

// failure describes a failed call, and notes if the context is lost with it.
func (d *Device) failure(op, kernel string, code int) *backend.DeviceError {
	err := newError(op, kernel, code)
	if losesContext(code) {
		d.ctx.lost.CompareAndSwap(nil, err)
	}
	return err
}

// take returns the latched failure and clears it, unless the context is lost.
func (d *Device) take() error {
	switch {
	case d.closed:
		return fmt.Errorf("gpu: %w: open a new one", backend.ErrClosed)
	case d.lost():
		return d.ctx.lost.Load()
	}
	err := d.err
	d.err = nil
	return err
}

// TakeErr returns the first failure since the last call that could report one. It
// does not wait.
func (d *Device) TakeErr() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.take()
}

// Failed reports whether a failure is latched: what enqueues has no effect then.
func (d *Device) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err != nil
}

// Latch makes err the failure that the next waiting call reports, unless there is one.
func (d *Device) Latch(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
}

// Sync waits for everything enqueued.
func (d *Device) Sync() error {
	ok := d.enter()
	defer d.exit()
	if ok {
		d.wait()
	}
	return d.take()
}

// Close waits, and releases everything. It is safe to call twice.
func (d *Device) Close() error {
	done, err := d.free()
	if done {
		return nil
	}
	if e := d.ctx.release(); err == nil {
		err = e
	}
	return err
}

// free releases what d holds in its context, which takes all of that with it when it
// is lost. done: it was closed before.
func (d *Device) free() (done bool, err error) {
	d.enter()
	defer d.exit()
	if d.closed {
		return true, nil
	}
	if !d.lost() {
		d.wait()
		for g := range d.graphs {
			d.check("cuGraphExecDestroy", "", destroyGraph(g.exec))
		}
		for p := range d.memory {
			d.check("cuMemFree", "", code(cu.MemFree(cu.DevicePtr(p))))
		}
		d.closeStaging()
		for p := range d.pinned {
			d.check("cuMemFreeHost", "", code(cu.MemFreeHost(p.ptr)))
		}
		for _, m := range d.modules {
			d.check("cuModuleUnload", m.family, code(m.mod.Unload()))
		}
		if !d.lent {
			d.check("cuStreamDestroy", "", code(d.stream.Destroy()))
		}
	}
	if !d.lost() { // else it was reported then
		err = d.err
	}
	d.closed, d.err = true, nil
	d.graphs, d.memory, d.pinned, d.modules = nil, nil, nil, nil
	return false, err
}
