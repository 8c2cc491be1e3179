//go:build cuda && cgo && linux && amd64

package driver

import (
	"errors"
	"unsafe"

	"gorgonia.org/cu"
)

// Ptr is an address on the device.
type Ptr uint64

// Alloc allocates n bytes, which hold anything and live until Close at the latest. It
// waits for nothing.
func (d *Device) Alloc(n int64) (Ptr, error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return 0, d.take()
	}
	p, err := cu.MemAlloc(n)
	if c := code(err); c != 0 {
		return 0, d.failure("cuMemAlloc", "", c)
	}
	d.memory[Ptr(p)] = struct{}{}
	return Ptr(p), nil
}

// Free returns memory. It waits for the device where the driver does.
func (d *Device) Free(p Ptr) {
	ok := d.enter()
	defer d.exit()
	if ok || !d.lost() && !d.closed {
		delete(d.memory, p)
		d.check("cuMemFree", "", code(cu.MemFree(cu.DevicePtr(p))))
	}
}

// AllocAsync allocates n bytes from the driver's pool, in order of the stream: what was
// freed by FreeAsync before it is there to be used again. They hold anything, and live
// until Close at the latest. A driver without pools answers backend.ErrUnsupported.
func (d *Device) AllocAsync(n int64) (Ptr, error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return 0, d.take()
	}
	p, c := allocAsync(n, d.stream)
	if c != 0 {
		return 0, d.failure("cuMemAllocAsync", "", c)
	}
	d.memory[p] = struct{}{}
	return p, nil
}

// FreeAsync gives memory back once everything enqueued so far is done. It enqueues.
func (d *Device) FreeAsync(p Ptr) {
	if d.enter() && d.check("cuMemFreeAsync", "", freeAsync(p, d.stream)) {
		delete(d.memory, p)
	}
	d.exit()
}

// MemInfo is the free and the total memory of the device, in bytes.
func (d *Device) MemInfo() (free, total int64, err error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return 0, 0, d.take()
	}
	free, total, err = cu.MemInfo()
	if c := code(err); c != 0 {
		return 0, 0, d.failure("cuMemGetInfo", "", c)
	}
	return free, total, nil
}

// Memset sets n bytes to b; it enqueues.
func (d *Device) Memset(p Ptr, b byte, n int64) {
	if n == 0 {
		return
	}
	if d.enter() {
		d.check("cuMemsetD8Async", "", code(cu.MemsetD8Async(cu.DevicePtr(p), b, n, d.stream)))
	}
	d.exit()
}

// CopyDD copies n bytes on the device; it enqueues.
func (d *Device) CopyDD(dst, src Ptr, n int64) {
	if n == 0 {
		return
	}
	if d.enter() {
		d.check("cuMemcpyDtoDAsync", "", code(cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), n, d.stream)))
	}
	d.exit()
}

// CopyHD copies n bytes to the device. src may be used again when it returns.
func (d *Device) CopyHD(dst Ptr, src unsafe.Pointer, n int64) {
	if n == 0 {
		return
	}
	// A recorded copy would read the host's memory again when it is replayed.
	if d.enter() && !d.capturing {
		d.counts.ToDevice += n
		d.stage(dst, src, n)
	} else if d.err == nil && d.capturing {
		d.err = errRecorded
	}
	d.exit()
}

var errRecorded = errors.New("gpu: a copy from the host cannot be recorded")

// CopyDH waits for everything enqueued, copies n bytes from the device, and reports
// the first failure.
func (d *Device) CopyDH(dst unsafe.Pointer, src Ptr, n int64) error {
	ok := d.enter()
	defer d.exit()
	if ok && n > 0 {
		d.counts.ToHost += n
		ok = d.check("cuMemcpyDtoHAsync", "", code(cu.MemcpyDtoHAsync(dst, cu.DevicePtr(src), n, d.stream)))
	}
	if ok {
		d.wait()
	}
	return d.take()
}

// Pinned is page-locked host memory, which the device copies to without a wait.
type Pinned struct {
	ptr unsafe.Pointer
	n   int
}

// Pinned allocates n bytes of page-locked host memory, which live until Close.
func (d *Device) Pinned(n int) (*Pinned, error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return nil, d.take()
	}
	ptr, c := hostAlloc(n)
	if c != 0 {
		d.check("cuMemHostAlloc", "", c)
		return nil, d.take()
	}
	p := &Pinned{ptr: ptr, n: n}
	d.pinned[p] = struct{}{}
	return p, nil
}

// Bytes is the memory. It may be read after a Sync.
func (p *Pinned) Bytes() []byte { return unsafe.Slice((*byte)(p.ptr), p.n) }

// FetchPinned copies n bytes to p; it enqueues.
func (d *Device) FetchPinned(p *Pinned, src Ptr, n int64) {
	if int(n) > p.n {
		panic("gpu: copy beyond the end of pinned memory")
	}
	if d.enter() {
		d.check("cuMemcpyDtoHAsync", "", code(cu.MemcpyDtoHAsync(p.ptr, cu.DevicePtr(src), n, d.stream)))
	}
	d.exit()
}
