//go:build cuda && cgo && linux && amd64

package driver

import (
	"sync"
	"sync/atomic"

	"gorgonia.org/cu"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// primary is a device's primary context, of which a process has one: all that is open
// on the device shares it, and a failure that loses it loses it for all.
type primary struct {
	index int
	dev   cu.Device
	ctx   cu.CUContext
	users int // guarded by primaries
	lost  atomic.Pointer[backend.DeviceError]
	// alive is held by readers while they make calls, and by abandon.
	alive sync.RWMutex
}

// primaries are the contexts in use, by index of the device. It is the driver's state
// more than ours.
var primaries = struct {
	sync.Mutex
	of map[int]*primary
}{of: map[int]*primary{}}

// retain returns the context of a device for one more user. A lost one makes room for
// a new one, though its users may not be closed yet.
func retain(index int, dev cu.Device) (*primary, error) {
	primaries.Lock()
	defer primaries.Unlock()
	if p := primaries.of[index]; p != nil {
		if p.lost.Load() == nil {
			p.users++
			return p, nil
		}
		p.abandon()
	}
	ctx, err := dev.RetainPrimaryCtx()
	if err != nil {
		return nil, newError("cuDevicePrimaryCtxRetain", "", code(err))
	}
	p := &primary{index: index, dev: dev, ctx: ctx, users: 1}
	primaries.of[index] = p
	return p, nil
}

// release takes one user away, and with the last the context.
func (p *primary) release() error {
	primaries.Lock()
	defer primaries.Unlock()
	p.users--
	switch {
	case primaries.of[p.index] != p: // abandoned
	case p.lost.Load() != nil:
		p.abandon()
	case p.users == 0:
		delete(primaries.of, p.index)
		if c := code(p.dev.ReleasePrimaryCtx()); c != 0 {
			return newError("cuDevicePrimaryCtxRelease", "", c)
		}
	}
	return nil
}

// abandon destroys a lost context with everything in it. No user makes a call in it
// any more.
func (p *primary) abandon() {
	p.alive.Lock()
	defer p.alive.Unlock()
	delete(primaries.of, p.index)
	// What fails here concerns a context that is lost anyway, and whether a reset takes
	// our reference away too is not documented.
	p.dev.ResetPrimaryCtx()
	p.dev.ReleasePrimaryCtx()
}
