package cpu

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Backend runs solves on the host. Its zero value is not usable; call [New].
type Backend[T backend.Float] struct {
	bytes  atomic.Int64 // held by vecs, clocks, tapes and fields
	closed bool
	mu     sync.Mutex
	err    error // latched by verbs that enqueue

	threads int
	workers []*worker[T]
	crew    crew

	recording *recording[T] // being made, or nil
	eager     program[T]    // of one op
	one       [1]op[T]
	last      operands[T]
}

// operands are those of the last op of each kind, for their memory.
type operands[T backend.Float] struct {
	combine combine[T]
	norm    errorRatio[T]
	advance advance[T]
	propose proposeStep[T]
	save    save[T]
	saveVJP saveVJP[T]
	commit  commit[T]
	atStop  atStop[T]
	push    push[T]
	back    back[T]
	between interpolate[T]
}

var (
	_ backend.Backend[float32] = (*Backend[float32])(nil)
	_ backend.Backend[float64] = (*Backend[float64])(nil)
)

// New returns a backend on the host. It holds no goroutines and no memory until
// it is used.
func New[T backend.Float]() *Backend[T] {
	return &Backend[T]{}
}

// Name is "cpu".
func (b *Backend[T]) Name() string { return "cpu" }

// MemoryUsed is the number of bytes that Vecs, clocks, tapes and fields hold.
func (b *Backend[T]) MemoryUsed() int64 { return b.bytes.Load() }

// Sync returns the first failure since the last call that could report one.
func (b *Backend[T]) Sync() error { return b.takeErr() }

// Close makes every later call answer backend.ErrClosed. Memory goes with the
// last reference to it.
func (b *Backend[T]) Close() error {
	b.closed = true
	b.bytes.Store(0)
	return nil
}

// live says whether a verb may run, and latches ErrClosed if not.
func (b *Backend[T]) live() bool {
	if b.closed {
		b.latch(fmt.Errorf("cpu: %w: open a new one", backend.ErrClosed))
	}
	return !b.closed
}

// latch keeps the first failure for the next call that can report one.
func (b *Backend[T]) latch(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
}

func (b *Backend[T]) takeErr() error {
	b.live()
	err := b.err
	b.err = nil
	return err
}

// vec is a row-major block of host memory.
type vec[T backend.Float] struct {
	blocks, rows, cols int
	d                  []T
	mem                *memory[T]
	views              []vec[T] // its blocks, made when the first is asked for
}

// memory is what all views of one allocation share.
type memory[T backend.Float] struct {
	owner *Backend[T] // nil once it was freed
	whole *vec[T]     // what NewVec returned
	// version counts writes, so that a field sees when θ has changed.
	version uint64
	sums    *sums[T] // not yet added to it, or nil
}

func (v *vec[T]) Shape() (blocks, rows, cols int) { return v.blocks, v.rows, v.cols }

func (v *vec[T]) Block(i int) backend.Vec[T] {
	if i < 0 || i >= v.blocks {
		panic("cpu: block index out of range")
	}
	if v.views == nil {
		v.views = make([]vec[T], v.blocks)
		n := v.rows * v.cols
		for j := range v.views {
			v.views[j] = vec[T]{blocks: 1, rows: v.rows, cols: v.cols, d: v.d[j*n : (j+1)*n : (j+1)*n], mem: v.mem}
		}
	}
	return &v.views[i]
}

// part returns rows lo to hi of block i.
func (v *vec[T]) part(i, lo, hi int) []T {
	n := i * v.rows * v.cols
	return v.d[n+lo*v.cols : n+hi*v.cols]
}

func sizeOf[T any]() int64 {
	var x T
	return int64(unsafe.Sizeof(x))
}

// NewVec allocates a zeroed Vec.
func (b *Backend[T]) NewVec(blocks, rows, cols int) (backend.Vec[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if blocks < 0 || rows < 0 || cols < 0 {
		panic("cpu: negative shape")
	}
	d, ok := allocate[T](blocks, rows, cols)
	if !ok {
		return nil, fmt.Errorf("cpu: a vector of %d×%d×%d elements: %w: use a smaller batch, fewer output times or narrower layers",
			blocks, rows, cols, backend.ErrOutOfMemory)
	}
	b.bytes.Add(int64(len(d)) * sizeOf[T]())
	v := &vec[T]{blocks: blocks, rows: rows, cols: cols, d: d, mem: &memory[T]{owner: b}}
	v.mem.whole = v
	return v, nil
}

// allocate makes a slice of as many elements as the product of factors, unless
// Go refuses a slice of that length. (If the machine has not so much memory the
// process ends, as with any allocation.)
func allocate[E any](factors ...int) (d []E, ok bool) {
	n := 1
	for _, f := range factors {
		if f != 0 && n > math.MaxInt/f {
			return nil, false
		}
		n *= f
	}
	defer func() { ok = recover() == nil }()
	return make([]E, n), true
}

// Free releases v.
func (b *Backend[T]) Free(v backend.Vec[T]) {
	if b.closed || v == nil {
		return
	}
	x := b.vec(v)
	if x.mem.whole != x {
		panic("cpu: Free of a vector that NewVec did not return")
	}
	b.bytes.Add(-int64(len(x.d))*sizeOf[T]() - x.mem.sums.bytes())
	x.mem.owner, x.mem.whole, x.d = nil, nil, nil
}

// vec is the host memory behind v.
func (b *Backend[T]) vec(v backend.Vec[T]) *vec[T] {
	x := b.raw(v)
	x.mem.sums.flush()
	return x
}

// raw is vec without what is still to be added to it.
func (b *Backend[T]) raw(v backend.Vec[T]) *vec[T] {
	x, ok := v.(*vec[T])
	if !ok || x.mem.owner != b {
		panic("cpu: vector of another backend, or freed")
	}
	b.uses(x.mem)
	return x
}

func (m *memory[T]) released() bool { return m.owner == nil }

// out is vec for a vector about to be written.
func (b *Backend[T]) out(v backend.Vec[T]) *vec[T] {
	x := b.vec(v)
	x.mem.version++
	return x
}

func sameShape[T backend.Float](x, y *vec[T]) {
	if x.blocks != y.blocks || x.rows != y.rows || x.cols != y.cols {
		panic("cpu: shapes differ")
	}
}

// Upload copies src to dst.
func (b *Backend[T]) Upload(dst backend.Vec[T], src []T) {
	if !b.live() {
		return
	}
	b.unrecorded("Upload")
	x := b.out(dst)
	if len(x.d) != len(src) {
		panic("cpu: Upload of a slice of another length")
	}
	copy(x.d, src)
}

// Download copies src to dst.
func (b *Backend[T]) Download(dst []T, src backend.Vec[T]) error {
	if err := b.takeErr(); err != nil {
		return err
	}
	x := b.vec(src)
	if len(x.d) != len(dst) {
		panic("cpu: Download to a slice of another length")
	}
	copy(dst, x.d)
	return nil
}

// Copy sets dst = src.
func (b *Backend[T]) Copy(dst, src backend.Vec[T]) {
	if !b.live() {
		return
	}
	x, y := b.out(dst), b.vec(src)
	sameShape(x, y)
	b.fill(x, y)
}

// Zero clears dst.
func (b *Backend[T]) Zero(dst backend.Vec[T]) {
	if b.live() {
		b.fill(b.out(dst), nil)
	}
}

// fill is Copy and, without src, Zero.
type fill[T backend.Float] struct {
	on[T]
	dst, src *vec[T]
}

func (b *Backend[T]) fill(dst, src *vec[T]) {
	if b.recording == nil {
		if src == nil {
			clear(dst.d)
		} else {
			copy(dst.d, src.d)
		}
		return
	}
	b.do(&fill[T]{on: on[T]{rows: dst.rows, work: dst.cols}, dst: dst, src: src})
}

func (o *fill[T]) unit(_ *worker[T], u unit) {
	for i := range o.dst.blocks {
		if o.src == nil {
			clear(o.dst.part(i, u.lo, u.hi))
		} else {
			copy(o.dst.part(i, u.lo, u.hi), o.src.part(i, u.lo, u.hi))
		}
	}
}
