//go:build cuda && cgo && linux && amd64

package driver

import (
	"unsafe"

	"gorgonia.org/cu"
)

// staging is page-locked memory through which everything from the host goes to the
// device: Go's memory may be written again, or moved, when a call returns, and the
// driver may read it later. Its two halves are filled in turn, one while the device
// reads the other.
type staging struct {
	mem  unsafe.Pointer
	in   int   // the current half
	used int64 // bytes of it
	read [2]cu.Event
	busy [2]bool // read was recorded: the device may still be reading this half
}

// stagingHalf is the size of a half in bytes.
const stagingHalf = 256 << 10

// stage copies n bytes of the host's memory to dst, through d's staging memory. It
// waits only if both halves are still being read. The device is entered.
func (d *Device) stage(dst Ptr, src unsafe.Pointer, n int64) {
	s := &d.staging
	if s.mem == nil && !d.openStaging() {
		return
	}
	from := unsafe.Slice((*byte)(src), n)
	for len(from) > 0 {
		if s.used == stagingHalf && !d.turn() {
			return
		}
		to := unsafe.Slice((*byte)(unsafe.Add(s.mem, int64(s.in)*stagingHalf+s.used)), stagingHalf-s.used)
		k := int64(copy(to, from))
		if !d.check("cuMemcpyHtoDAsync", "", code(cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&to[0]), k, d.stream))) {
			return
		}
		from, dst = from[k:], dst+Ptr(k)
		s.used = min((s.used+k+15)&^15, stagingHalf)
	}
}

// turn marks the current half as being read and goes to the other, once the device has
// read that.
func (d *Device) turn() bool {
	s := &d.staging
	if !d.check("cuEventRecord", "", code(s.read[s.in].Record(d.stream))) {
		return false
	}
	s.busy[s.in] = true
	next := 1 - s.in
	if s.busy[next] && !d.check("cuEventSynchronize", "", code(s.read[next].Synchronize())) {
		return false
	}
	s.in, s.used, s.busy[next] = next, 0, false
	return true
}

func (d *Device) openStaging() bool {
	s := &d.staging
	const withoutTiming cu.EventFlags = 2
	for i := range s.read {
		if s.read[i] != (cu.Event{}) {
			continue
		}
		ev, err := cu.MakeEvent(withoutTiming)
		if !d.check("cuEventCreate", "", code(err)) {
			return false
		}
		s.read[i] = ev
	}
	mem, c := hostAlloc(2 * stagingHalf)
	if !d.check("cuMemHostAlloc", "", c) {
		return false
	}
	s.mem = mem
	return true
}

// closeStaging releases it. The device has read everything.
func (d *Device) closeStaging() {
	s := &d.staging
	for i := range s.read {
		if s.read[i] != (cu.Event{}) {
			d.check("cuEventDestroy", "", code(cu.DestroyEvent(&s.read[i])))
		}
	}
	if s.mem != nil {
		d.check("cuMemFreeHost", "", code(cu.MemFreeHost(s.mem)))
	}
}
