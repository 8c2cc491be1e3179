package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Backend runs solves on the host. Its zero value is not usable; call [New].
type Backend[T backend.Float] struct {
	blas   blas[T]
	bytes  int64 // held by vecs, clocks, tapes and fields
	closed bool
	err    error // latched by verbs that enqueue
}

var (
	_ backend.Backend[float32] = (*Backend[float32])(nil)
	_ backend.Backend[float64] = (*Backend[float64])(nil)
)

// New returns a backend on the host. It holds no goroutines and no memory until
// it is used.
func New[T backend.Float]() *Backend[T] {
	return &Backend[T]{blas: newBLAS[T]()}
}

// Name is "cpu".
func (b *Backend[T]) Name() string { return "cpu" }

// MemoryUsed is the number of bytes that Vecs, clocks, tapes and fields hold.
func (b *Backend[T]) MemoryUsed() int64 { return b.bytes }

// Sync returns the first failure since the last call that could report one.
func (b *Backend[T]) Sync() error { return b.takeErr() }

// Close makes every later call answer backend.ErrClosed. Memory goes with the
// last reference to it.
func (b *Backend[T]) Close() error {
	b.closed = true
	b.bytes = 0
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
}

// memory is what all views of one allocation share.
type memory[T backend.Float] struct {
	owner *Backend[T] // nil once it was freed
	whole *vec[T]     // what NewVec returned
	// version counts writes, so that a field sees when θ has changed.
	version uint64
}

func (v *vec[T]) Shape() (blocks, rows, cols int) { return v.blocks, v.rows, v.cols }

func (v *vec[T]) Block(i int) backend.Vec[T] {
	if i < 0 || i >= v.blocks {
		panic("cpu: block index out of range")
	}
	n := v.rows * v.cols
	return &vec[T]{blocks: 1, rows: v.rows, cols: v.cols, d: v.d[i*n : (i+1)*n : (i+1)*n], mem: v.mem}
}

// block returns the elements of block i.
func (v *vec[T]) block(i int) []T {
	n := v.rows * v.cols
	return v.d[i*n : (i+1)*n]
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
	b.bytes += int64(len(d)) * sizeOf[T]()
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
	b.bytes -= int64(len(x.d)) * sizeOf[T]()
	x.mem.owner, x.mem.whole, x.d = nil, nil, nil
}

// vec is the host memory behind v.
func (b *Backend[T]) vec(v backend.Vec[T]) *vec[T] {
	x, ok := v.(*vec[T])
	if !ok || x.mem.owner != b {
		panic("cpu: vector of another backend, or freed")
	}
	return x
}

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
	copy(x.d, y.d)
}

// Zero clears dst.
func (b *Backend[T]) Zero(dst backend.Vec[T]) {
	if !b.live() {
		return
	}
	clear(b.out(dst).d)
}
