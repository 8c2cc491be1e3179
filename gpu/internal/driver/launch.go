//go:build cuda && cgo && linux && amd64

package driver

import (
	"encoding/binary"
	"fmt"
	"math"

	"gorgonia.org/cu"
)

// Dim is the size of a grid in blocks or of a block in threads; 0 counts as 1.
type Dim struct{ X, Y, Z int }

func (d Dim) filled() Dim { return Dim{max(d.X, 1), max(d.Y, 1), max(d.Z, 1)} }

// Module is a compiled family of kernels. It lives until the device is closed.
type Module struct {
	d      *Device
	family string
	mod    cu.Module
}

// Load compiles PTX for the device.
func (d *Device) Load(family string, ptx []byte) (*Module, error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return nil, d.take()
	}
	mod, log, c := loadModule(string(ptx))
	if c != 0 {
		e := d.failure("cuModuleLoadDataEx", family, c)
		if log != "" {
			e.Text += "\n" + log
		}
		return nil, e
	}
	m := &Module{d: d, family: family, mod: mod}
	d.modules = append(d.modules, m)
	return m, nil
}

// Function is a kernel.
type Function struct {
	name string
	d    *Device
	f    cu.Function
}

// Function finds a kernel by name.
func (m *Module) Function(name string) (*Function, error) {
	ok := m.d.enter()
	defer m.d.exit()
	if !ok {
		return nil, m.d.take()
	}
	f, err := m.mod.Function(name)
	if c := code(err); c != 0 {
		return nil, m.d.failure("cuModuleGetFunction", name, c)
	}
	return &Function{name: name, d: m.d, f: f}, nil
}

// SetMaxDynamicShared lets the kernel use up to n bytes of dynamic shared memory.
func (f *Function) SetMaxDynamicShared(n int) error {
	ok := f.d.enter()
	defer f.d.exit()
	if !ok {
		return f.d.take()
	}
	if c := setDynamicShared(f.f, n); c != 0 {
		return f.d.failure("cuFuncSetAttribute", f.name, c)
	}
	return nil
}

// Launch enqueues a kernel. a may be used again when it returns.
func (d *Device) Launch(f *Function, grid, block Dim, sharedBytes int, a *Args) {
	d.launch("cuLaunchKernel", f, func() int {
		return launch(f.f, grid.filled(), block.filled(), sharedBytes, d.stream, a.b)
	})
}

// LaunchCooperative is Launch of blocks that may wait for each other: all of them run
// at once. Where they do not fit the device, or it cannot do that, the failure is
// backend.ErrUnsupported.
func (d *Device) LaunchCooperative(f *Function, grid, block Dim, sharedBytes int, a *Args) {
	d.launch("cuLaunchKernelEx", f, func() int {
		return launchCooperative(f.f, grid.filled(), block.filled(), sharedBytes, d.stream, a.b)
	})
}

func (d *Device) launch(op string, f *Function, call func() int) {
	if d.enter() {
		ok := d.check(op, f.name, call())
		if d.capturing {
			d.captured++
		} else {
			d.counts.Launches++
		}
		if ok && d.debug && !d.capturing {
			d.check("cuStreamSynchronize", f.name, code(d.stream.Synchronize()))
		}
	}
	d.exit()
}

// Args packs the parameters of a kernel, each aligned by its size as C does.
type Args struct{ b []byte }

// Reset empties a for the next kernel.
func (a *Args) Reset() *Args { a.b = a.b[:0]; return a }

func (a *Args) align(n int) {
	for len(a.b)%n != 0 {
		a.b = append(a.b, 0)
	}
}

// I32 appends an int.
func (a *Args) I32(v int32) *Args {
	a.align(4)
	a.b = binary.NativeEndian.AppendUint32(a.b, uint32(v))
	return a
}

// I64 appends a long long.
func (a *Args) I64(v int64) *Args {
	a.align(8)
	a.b = binary.NativeEndian.AppendUint64(a.b, uint64(v))
	return a
}

// Ptr appends a pointer.
func (a *Args) Ptr(p Ptr) *Args { return a.I64(int64(p)) }

// F32 appends a float.
func (a *Args) F32(v float32) *Args { return a.I32(int32(math.Float32bits(v))) }

// F64 appends a double.
func (a *Args) F64(v float64) *Args { return a.I64(int64(math.Float64bits(v))) }

// Bytes appends a struct passed by value, whose alignment is align.
func (a *Args) Bytes(b []byte, align int) *Args {
	a.align(align)
	a.b = append(a.b, b...)
	return a
}

// Graph is a recorded sequence of launches.
type Graph struct {
	d        *Device
	exec     graphExec
	launches int64
}

// BeginCapture records what is enqueued from here on, instead of running it, until
// EndCapture.
func (d *Device) BeginCapture() error {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return d.take()
	}
	if c := beginCapture(d.stream); c != 0 {
		return d.failure("cuStreamBeginCapture", "", c)
	}
	d.capturing, d.captured = true, 0
	return nil
}

// EndCapture returns what was recorded since BeginCapture.
func (d *Device) EndCapture() (*Graph, error) {
	d.enter() // capture has to end whatever failed in it
	defer d.exit()
	if d.closed || d.lost() {
		return nil, d.take()
	}
	d.capturing = false
	exec, op, c := endCapture(d.stream)
	if err := d.take(); err != nil {
		if c == 0 {
			destroyGraph(exec)
		}
		return nil, err
	}
	if c != 0 {
		return nil, d.failure(op, "", c)
	}
	g := &Graph{d: d, exec: exec, launches: d.captured}
	d.graphs[g] = struct{}{}
	return g, nil
}

// Launch enqueues what was recorded.
func (g *Graph) Launch() {
	if g.d.enter() {
		if g.exec == nil {
			panic("gpu: launch of a closed graph")
		}
		g.d.counts.Graphs++
		g.d.counts.Launches += g.launches
		g.d.counts.Recorded += g.launches
		g.d.check("cuGraphLaunch", "", launchGraph(g.exec, g.d.stream))
	}
	g.d.exit()
}

// Close releases the recording. It is safe to call twice.
func (g *Graph) Close() {
	ok := g.d.enter()
	defer g.d.exit()
	if _, open := g.d.graphs[g]; !open || !ok && g.d.lost() {
		return
	}
	delete(g.d.graphs, g)
	g.d.check("cuGraphExecDestroy", "", destroyGraph(g.exec))
	g.exec = nil
}

// Event is a mark in the stream, for timing.
type Event struct {
	d  *Device
	ev cu.Event
}

// Event makes a mark; Record sets it.
func (d *Device) Event() (*Event, error) {
	ok := d.enter()
	defer d.exit()
	if !ok {
		return nil, d.take()
	}
	ev, err := cu.MakeEvent(0)
	if c := code(err); c != 0 {
		return nil, d.failure("cuEventCreate", "", c)
	}
	return &Event{d: d, ev: ev}, nil
}

// Record sets the mark behind everything enqueued so far.
func (e *Event) Record() {
	if e.d.enter() {
		e.d.check("cuEventRecord", "", code(e.ev.Record(e.d.stream)))
	}
	e.d.exit()
}

// Since is the time in seconds on the device from mark a to e, both reached: call it
// after a Sync.
func (e *Event) Since(a *Event) (float64, error) {
	ok := e.d.enter()
	defer e.d.exit()
	if !ok {
		return 0, e.d.take()
	}
	ms, err := a.ev.Elapsed(e.ev)
	if c := code(err); c != 0 {
		return 0, e.d.failure("cuEventElapsedTime", "", c)
	}
	return ms / 1e3, nil
}

// Close releases the mark.
func (e *Event) Close() {
	if e.d.enter() {
		e.d.check("cuEventDestroy", "", code(cu.DestroyEvent(&e.ev)))
	}
	e.d.exit()
}

func (f *Function) String() string { return fmt.Sprintf("kernel %s", f.name) }
