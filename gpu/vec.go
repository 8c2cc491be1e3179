//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// vec is a dense row-major block of device memory.
type vec[T backend.Float] struct {
	mem                *memory[T]
	ptr                driver.Ptr
	blocks, rows, cols int
}

// memory is what all views of one allocation share; nil once it is freed.
type memory[T backend.Float] struct {
	owner *Backend[T]
	whole *vec[T] // what NewVec returned
}

func (v *vec[T]) Shape() (blocks, rows, cols int) { return v.blocks, v.rows, v.cols }

func (v *vec[T]) Block(i int) backend.Vec[T] {
	if i < 0 || i >= v.blocks {
		panic("gpu: block index out of range")
	}
	at := v.ptr + driver.Ptr(int64(i)*int64(v.rows)*int64(v.cols)*sizeOf[T]())
	return &vec[T]{mem: v.mem, ptr: at, blocks: 1, rows: v.rows, cols: v.cols}
}

// len is the number of elements.
func (v *vec[T]) len() int { return v.blocks * v.rows * v.cols }

// bytes is the size in memory.
func (v *vec[T]) bytes() int64 { return int64(v.len()) * sizeOf[T]() }

// vec is the device memory behind v.
func (b *Backend[T]) vec(v backend.Vec[T]) *vec[T] {
	x, ok := v.(*vec[T])
	if !ok || x.mem.owner != b {
		panic("gpu: vector of another backend, or freed")
	}
	b.pool.use(x.mem.whole.ptr)
	return x
}

// alike reports whether x and y have one shape.
func alike[T backend.Float](x, y *vec[T]) bool {
	return x.blocks == y.blocks && x.rows == y.rows && x.cols == y.cols
}

func sameShape[T backend.Float](x, y *vec[T]) {
	if !alike(x, y) {
		panic("gpu: shapes differ")
	}
}

// NewVec allocates a zeroed Vec.
func (b *Backend[T]) NewVec(blocks, rows, cols int) (backend.Vec[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if blocks < 0 || rows < 0 || cols < 0 {
		panic("gpu: negative shape")
	}
	v := &vec[T]{mem: &memory[T]{owner: b}, blocks: blocks, rows: rows, cols: cols}
	v.mem.whole = v
	n := int64(1)
	for _, f := range []int{blocks, rows, cols, int(sizeOf[T]())} {
		if f != 0 && n > math.MaxInt64/2/int64(f) {
			return nil, fmt.Errorf("gpu: a vector of %d×%d×%d elements: %w: use a smaller batch", blocks, rows, cols, backend.ErrOutOfMemory)
		}
		n *= int64(f)
	}
	var err error
	if v.ptr, err = b.zeroed(n); err != nil {
		return nil, err
	}
	return v, nil
}

// Free returns the memory of v.
func (b *Backend[T]) Free(v backend.Vec[T]) {
	if b.closed || v == nil {
		return
	}
	x := b.vec(v)
	if x.mem.whole != x {
		panic("gpu: Free of a vector that NewVec did not return")
	}
	b.release(x.ptr, x.bytes())
	x.mem.owner, x.mem.whole = nil, nil
}

// Upload copies src to dst. It does not wait.
func (b *Backend[T]) Upload(dst backend.Vec[T], src []T) {
	if !b.live() {
		return
	}
	x := b.vec(dst)
	if x.len() != len(src) {
		panic("gpu: Upload of a slice of another length")
	}
	if len(src) > 0 {
		b.d.CopyHD(x.ptr, unsafe.Pointer(&src[0]), x.bytes())
	}
}

// Download waits, and copies src to dst.
func (b *Backend[T]) Download(dst []T, src backend.Vec[T]) error {
	if !b.live() {
		return b.takeErr()
	}
	x := b.vec(src)
	if x.len() != len(dst) {
		panic("gpu: Download to a slice of another length")
	}
	return b.d.CopyDH(unsafe.Pointer(unsafe.SliceData(dst)), x.ptr, x.bytes())
}

// Copy sets dst = src.
func (b *Backend[T]) Copy(dst, src backend.Vec[T]) {
	if !b.live() {
		return
	}
	x, y := b.vec(dst), b.vec(src)
	sameShape(x, y)
	b.d.CopyDD(x.ptr, y.ptr, x.bytes())
}

// Zero clears dst.
func (b *Backend[T]) Zero(dst backend.Vec[T]) {
	if !b.live() {
		return
	}
	x := b.vec(dst)
	b.d.Memset(x.ptr, 0, x.bytes())
}
