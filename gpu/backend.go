//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
	"github.com/seed-5f5774c8/neuralode/kernels"
)

// Built says whether this binary can drive a device.
const Built = true

// Backend runs solves on one device, on one stream. Its zero value is not
// usable; call [Open].
type Backend[T backend.Float] struct {
	d    *driver.Device
	name string
	pool pool

	functions map[string]*driver.Function
	modules   map[string]*driver.Module
	args      driver.Args
	status    *driver.Pinned // what Poll reads
	capture   *recording[T]  // being recorded, or nil
	sms       int            // multiprocessors of the device
	precision Precision
	tapeChunk int64 // bytes of a tape's steps to allocate at a time
	closed    bool
}

var (
	_ backend.Backend[float32] = (*Backend[float32])(nil)
	_ backend.Backend[float64] = (*Backend[float64])(nil)
)

// Devices lists the devices that the driver offers. It answers
// backend.ErrUnavailable, with the reason, if there is no driver or no device.
func Devices() ([]DeviceInfo, error) {
	list, err := driver.Devices()
	if err != nil {
		return nil, err
	}
	infos := make([]DeviceInfo, len(list))
	for i, d := range list {
		infos[i] = DeviceInfo{Index: d.Index, Name: d.Name, UUID: d.UUID, Major: d.Major, Minor: d.Minor, Memory: d.TotalMem, SMs: d.SMs}
	}
	return infos, nil
}

// DriverVersion is the CUDA version that the driver supports, "12.4". It answers
// backend.ErrUnavailable, with the reason, if there is no driver.
func DriverVersion() (string, error) {
	v, err := driver.Version()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%d", v/1000, v%1000/10), nil
}

// Open opens a device. It answers backend.ErrUnavailable, with the reason, if there is
// none that the kernels run on. The caller closes the backend.
func Open[T backend.Float](opt Options) (*Backend[T], error) {
	if opt.MemoryLimit < 0 {
		return nil, fmt.Errorf("gpu: Options.MemoryLimit is %d; give a number of bytes, or 0 for all", opt.MemoryLimit)
	}
	switch {
	case opt.Precision < Float32 || opt.Precision > BF16:
		return nil, fmt.Errorf("gpu: Options.Precision is %d; give Float32, TF32x3, TF32 or BF16", int(opt.Precision))
	case opt.Precision != Float32 && sizeOf[T]() != 4:
		return nil, fmt.Errorf("gpu: Options.Precision is %v, which is for float32: %w: leave it out in float64", opt.Precision, backend.ErrUnsupported)
	}
	index := opt.Device
	if opt.UUID != "" {
		list, err := driver.Devices()
		if err != nil {
			return nil, err
		}
		index = -1
		for _, d := range list {
			if strings.EqualFold(d.UUID, strings.TrimPrefix(opt.UUID, "GPU-")) {
				index = d.Index
			}
		}
		if index < 0 {
			return nil, fmt.Errorf("gpu: no device has the UUID %q: %w: nvidia-smi -L lists them", opt.UUID, backend.ErrUnavailable)
		}
	}
	d, err := driver.Open(index, driver.Options{Debug: opt.Debug, Stream: opt.Stream})
	if err != nil {
		return nil, err
	}
	if c := d.Info().Capability(); opt.Precision != Float32 && c < tensorCapability {
		err := fmt.Errorf("gpu: Options.Precision is %v, which takes compute capability 8.0, but %s has %d.%d: %w: leave Precision out, or take another device",
			opt.Precision, d.Info().Name, c/10, c%10, backend.ErrUnsupported)
		return nil, errors.Join(err, d.Close())
	}
	b := &Backend[T]{
		d: d, precision: opt.Precision, name: fmt.Sprintf("cuda:%d %s", index, d.Info().Name), sms: d.Info().SMs,
		tapeChunk: 4 << 20, // few to allocate, little to waste
		functions: map[string]*driver.Function{}, modules: map[string]*driver.Module{},
	}
	b.pool = pool{d: d, limit: opt.MemoryLimit, free: map[int64][]driver.Ptr{}, recorded: map[*footprint]struct{}{}}
	return b, nil
}

// Name is "cuda:", the device's index and its name.
func (b *Backend[T]) Name() string { return b.name }

// MemoryUsed is the number of bytes that Vecs, clocks, tapes and fields hold.
func (b *Backend[T]) MemoryUsed() int64 { return b.pool.used }

// MemoryPeak is the largest MemoryUsed so far.
func (b *Backend[T]) MemoryPeak() int64 { return b.pool.peak }

// Counts returns what the device was asked to do so far.
func (b *Backend[T]) Counts() Counts { return Counts(b.d.Counts()) }

// Sync waits for everything enqueued.
func (b *Backend[T]) Sync() error { return b.d.Sync() }

// Close waits, and releases everything. It is safe to call twice.
func (b *Backend[T]) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	b.pool.close()
	return b.d.Close()
}

// live says whether a verb may run, and latches ErrClosed if not.
func (b *Backend[T]) live() bool { return !b.closed }

func (b *Backend[T]) takeErr() error { return b.d.TakeErr() }

func (b *Backend[T]) fail(err error) { b.d.Latch(err) }

func (b *Backend[T]) alloc(n int64) (driver.Ptr, error) { return b.pool.alloc(n) }

// room is alloc for a verb, which has no effect after a failure and latches its own.
func (b *Backend[T]) room(n int64) (p driver.Ptr, ok bool) {
	if b.d.Failed() {
		return 0, false
	}
	p, err := b.alloc(n)
	if err != nil {
		b.fail(err)
	}
	return p, err == nil
}

// zeroed allocates n bytes of zeros. It returns a failure that is latched, too: what
// the failure keeps from running would leave the memory as it was.
func (b *Backend[T]) zeroed(n int64) (driver.Ptr, error) {
	p, err := b.alloc(n)
	if err != nil {
		return 0, err
	}
	b.d.Memset(p, 0, n)
	if err := b.takeErr(); err != nil {
		b.release(p, n)
		return 0, err
	}
	return p, nil
}

func (b *Backend[T]) release(p driver.Ptr, n int64) {
	if !b.closed { // else it went with the device
		b.pool.release(p, n)
	}
}

// function finds a kernel: name for this precision, or name itself where the
// precision does not matter.
func (b *Backend[T]) function(family, name string) (*driver.Function, error) {
	if f := b.functions[name]; f != nil {
		return f, nil
	}
	m := b.modules[family]
	if m == nil {
		ptx, err := kernels.PTX(family, b.d.Info().Capability())
		if err != nil {
			return nil, err
		}
		if m, err = b.d.Load(family, ptx); err != nil {
			return nil, err
		}
		b.modules[family] = m
	}
	suffix := "_f64"
	if sizeOf[T]() == 4 {
		suffix = "_f32"
	}
	f, err := m.Function(name + suffix)
	const notFound = 500
	var e *backend.DeviceError
	if errors.As(err, &e) && e.Code == notFound {
		f, err = m.Function(name)
	}
	if err != nil {
		return nil, err
	}
	b.functions[name] = f
	return f, nil
}

// launch enqueues blocks of blockSize threads. args is the struct that the kernel
// takes by value; it may be used again when launch returns.
func launch[T backend.Float, A any](b *Backend[T], family, name string, blocks, shared int64, args *A) {
	if blocks > math.MaxInt32 {
		b.fail(fmt.Errorf("gpu: %s needs %d blocks of threads: %w: use a smaller batch", name, blocks, backend.ErrUnsupported))
		return
	}
	f, err := b.function(family, name)
	if err != nil {
		b.fail(err)
		return
	}
	launchFunction(b, f, blocks, blockSize, shared, args)
}

// launchFunction is launch of a kernel that is at hand, of at most MaxInt32 blocks of so
// many threads.
func launchFunction[T backend.Float, A any](b *Backend[T], f *driver.Function, blocks int64, threads int, shared int64, args *A) {
	if blocks == 0 {
		return
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	b.args.Reset().Bytes(raw, 16)
	b.d.Launch(f, driver.Dim{X: int(blocks)}, driver.Dim{X: threads}, int(shared), &b.args)
}

func sizeOf[T any]() int64 {
	var x T
	return int64(unsafe.Sizeof(x))
}

// pool hands out device memory and keeps what is returned for the next of that size,
// so that a solve uses the memory of the one before. Freed memory may still be read
// by what was enqueued before; what is enqueued later comes after it in the stream.
type pool struct {
	d                 *driver.Device
	limit             int64
	used, peak, spare int64
	free              map[int64][]driver.Ptr
	recorded          map[*footprint]struct{}
	capture           *footprint // of the verbs that are being recorded, or nil
}

// footprint is the memory that recorded verbs use, by address. What only memory of theirs
// points to, as the chunks of a tape, is not among it.
type footprint struct {
	used  map[driver.Ptr]struct{}
	moved bool // some of it was released
}

// use notes that a verb uses memory.
func (p *pool) use(ptr driver.Ptr) {
	if p.capture != nil {
		p.capture.used[ptr] = struct{}{}
	}
}

// moved says that what was recorded with this memory cannot be replayed.
func (p *pool) moved(ptr driver.Ptr) {
	for o := range p.recorded {
		if _, ok := o.used[ptr]; ok {
			o.moved = true
		}
	}
}

// rounded is the size that is allocated for n bytes.
func rounded(n int64) int64 { return max(256, (n+255)&^255) }

func (p *pool) alloc(n int64) (driver.Ptr, error) {
	n = rounded(n)
	if list := p.free[n]; len(list) > 0 {
		ptr := list[len(list)-1]
		p.free[n] = list[:len(list)-1]
		p.spare -= n
		p.take(n)
		return ptr, nil
	}
	if p.limit > 0 && p.used+p.spare+n > p.limit {
		p.trim()
		if p.used+n > p.limit {
			return 0, &backend.MemoryError{Wanted: n, Free: p.limit - p.used, InUse: p.used, Limit: p.limit}
		}
	}
	full := func(err error) bool { // not a failure latched before
		e, ok := err.(*backend.DeviceError)
		return ok && e.Err == backend.ErrOutOfMemory
	}
	ptr, err := p.d.Alloc(n)
	if full(err) && p.spare > 0 {
		p.trim()
		ptr, err = p.d.Alloc(n)
	}
	if full(err) {
		free, _, e := p.d.MemInfo()
		if e != nil {
			return 0, err
		}
		return 0, &backend.MemoryError{Wanted: n, Free: free, InUse: p.used, Err: err}
	}
	if err != nil {
		return 0, err
	}
	p.take(n)
	return ptr, nil
}

func (p *pool) take(n int64) {
	p.used += n
	p.peak = max(p.peak, p.used)
}

func (p *pool) release(ptr driver.Ptr, n int64) {
	if ptr == 0 {
		return
	}
	n = rounded(n)
	p.free[n] = append(p.free[n], ptr)
	p.used -= n
	p.spare += n
	p.moved(ptr)
}

// trim gives spare memory back to the device.
func (p *pool) trim() {
	for n, list := range p.free {
		for _, ptr := range list {
			p.d.Free(ptr)
		}
		delete(p.free, n)
	}
	p.spare = 0
}

func (p *pool) close() {
	p.trim()
	p.used = 0
}
