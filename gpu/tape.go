//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"sort"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// maxKeep is KEEP in kernels/tape.cuh.
const maxKeep = 40

// tapeView is TapeView in kernels/tape.cuh.
type tapeView struct {
	chunks, counts, longest driver.Ptr
	data                    int64
	per, keep, lanes, _     int32
}

// tape keeps accepted steps in device memory, in chunks of steps of all lanes. A
// chunk is added when the longest lane might need it, which the host knows without
// asking: a Push adds at most one step to a lane. Lanes that take fewer steps than
// the longest leave room unused.
type tape[T backend.Float] struct {
	owner             *Backend[T]
	lanes, rows, cols int
	view              tapeView
	longest           driver.Ptr
	mem               driver.Ptr // chunks, longest, counts
	size              int64
	chunk             int64 // bytes of one
	bound             int   // no lane has more steps

	chunks []driver.Ptr
	tables []driver.Ptr // of chunks, on the device; the last is in use

	// first[i] is the number of steps on lanes before i; nil if not read since the
	// last Push. Steps are numbered lane by lane.
	first  []int
	window window[T]
}

// window holds the steps that ReadTape fetched last.
type window[T backend.Float] struct {
	first, count int // by number
	data         []T
	times        []float64
	list         []int32    // lane and step of each
	mem          driver.Ptr // times, data, list
	size         int64
}

// record is the number of elements that a step has on one lane.
func (t *tape[T]) record() int { return int(t.view.keep) * t.rows / t.lanes * t.cols }

// NewTape makes an empty tape.
func (b *Backend[T]) NewTape(lanes, rows, cols, keep int) (backend.Tape[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if lanes != 1 && lanes != rows || lanes < 1 || rows < 0 || cols < 0 || keep < 0 {
		panic("gpu: a tape needs one lane or as many as rows")
	}
	if keep > maxKeep {
		return nil, fmt.Errorf("gpu: a tape that keeps %d vectors a step: %w: at most %d fit", keep, backend.ErrUnsupported, maxKeep)
	}
	const header = 16
	t := &tape[T]{owner: b, lanes: lanes, rows: rows, cols: cols, size: header + 12*int64(lanes)}
	var err error
	if t.mem, err = b.zeroed(t.size); err != nil {
		return nil, err
	}
	t.longest = t.mem + 8
	t.view = tapeView{
		chunks: t.mem, longest: t.longest, counts: t.mem + header,
		keep: int32(keep), lanes: int32(lanes),
	}
	t.divide(min(max(b.tapeChunk/max(t.step(), 1), 1), 1024))
	return t, nil
}

// stepBytes is what a step has on a lane beside the kept Vecs: kernels/tape.cuh.
const stepBytes = 5*8 + 5*4

// step is the number of bytes of a step of all lanes.
func (t *tape[T]) step() int64 {
	return stepBytes*int64(t.lanes) + sizeOf[T]()*int64(t.view.keep)*int64(t.rows)*int64(t.cols)
}

// divide sets the number of steps of a chunk.
func (t *tape[T]) divide(per int64) {
	t.view.per = int32(per)
	t.view.data = (stepBytes*per*int64(t.lanes) + 255) &^ 255
	t.chunk = t.view.data + per*sizeOf[T]()*int64(t.view.keep)*int64(t.rows)*int64(t.cols)
}

// freeChunks releases the memory of steps.
func (t *tape[T]) freeChunks() {
	b := t.owner
	for _, p := range t.chunks {
		b.release(p, t.chunk)
	}
	for i, p := range t.tables {
		b.release(p, 8*int64(tableCap(i)))
	}
	t.chunks, t.tables = nil, nil
}

// Close releases the tape.
func (t *tape[T]) Close() {
	b := t.owner
	t.freeChunks()
	b.release(t.window.mem, t.window.size)
	b.release(t.mem, t.size)
	*t = tape[T]{owner: b}
}

func (b *Backend[T]) tape(tp backend.Tape[T]) *tape[T] {
	t, ok := tp.(*tape[T])
	if !ok || t.owner != b {
		panic("gpu: tape of another backend")
	}
	b.pool.use(t.mem)
	return t
}

// setArgs is SetArgs in kernels/tape.cu.
type setArgs struct{ address, value driver.Ptr }

// tableCap is the number of chunks that the i-th table holds.
func tableCap(i int) int {
	if i < 0 {
		return 0
	}
	return 64 << i
}

// reserve makes room for so many more steps on every lane. It does not wait.
func (t *tape[T]) reserve(steps int) error {
	t.bound += steps
	t.first, t.window.count = nil, 0
	return t.grow(t.bound)
}

// grow makes room for so many steps.
func (t *tape[T]) grow(steps int) error {
	b := t.owner
	set := func(address, value driver.Ptr) { launch(b, "tape", "tape_set", 1, 0, &setArgs{address, value}) }
	for len(t.chunks)*int(t.view.per) < steps {
		n := len(t.chunks)
		if n == tableCap(len(t.tables)-1) {
			table, err := b.alloc(8 * int64(tableCap(len(t.tables))))
			if err != nil {
				return fmt.Errorf("gpu: step %d on the tape: %w", steps, err)
			}
			if n > 0 {
				b.d.CopyDD(table, t.tables[len(t.tables)-1], 8*int64(n))
			}
			t.tables = append(t.tables, table)
			set(t.view.chunks, table)
		}
		p, err := b.alloc(t.chunk)
		if err != nil {
			return fmt.Errorf("gpu: step %d on the tape: %w", steps, err)
		}
		set(t.tables[len(t.tables)-1]+driver.Ptr(8*n), p)
		t.chunks = append(t.chunks, p)
	}
	return nil
}

// pushArgs is PushArgs in kernels/tape.cu.
type pushArgs struct {
	clk  clockView
	tape tapeView
	x    flat
	src  [maxKeep]driver.Ptr
}

// tallyArgs is CountArgs in kernels/tape.cu.
type tallyArgs struct {
	clk  clockView
	tape tapeView
}

// Push appends the accepted steps to the tape.
func (b *Backend[T]) Push(clk backend.Clock, tp backend.Tape[T], keep []backend.Vec[T]) {
	if !b.live() {
		return
	}
	c, t := b.clock(clk), b.tape(tp)
	if len(keep) != int(t.view.keep) || c.lanes != t.lanes {
		panic("gpu: Push of another shape than the tape's")
	}
	b.hosted(func(times int) {
		c.tape = t
		if b.d.Failed() {
			return
		}
		if err := t.reserve(times); err != nil {
			b.fail(err)
		}
	})
	t.move(c, names{"tape_push", "tape_push_1"}, keep)
	launch(b, "tape", "tape_count", ceilDiv(int64(c.lanes), blockSize), 0, &tallyArgs{c.view, t.view})
}

// move copies keep to the tape or from it.
func (t *tape[T]) move(c *clock[T], kernel names, keep []backend.Vec[T]) {
	b := t.owner
	a := pushArgs{clk: c.view, tape: t.view}
	var addresses driver.Ptr
	for m, v := range keep {
		x := b.vec(v)
		if x.blocks != 1 || x.rows != t.rows || x.cols != t.cols {
			panic("gpu: a tape of another shape")
		}
		a.src[m] = x.ptr
		addresses |= x.ptr
	}
	if len(keep) > 0 {
		var width int64
		a.x, width = flatten(c, b.vec(keep[0]), addresses)
		elementwise(b, "tape", kernel, a.x, width, &a)
	}
}

// read fetches the counts, if a Push came since the last time.
func (t *tape[T]) read() error {
	if t.first != nil {
		return nil
	}
	counts := make([]int32, t.lanes)
	if err := t.owner.d.CopyDH(unsafe.Pointer(&counts[0]), t.view.counts, 4*int64(t.lanes)); err != nil {
		return err
	}
	t.first = make([]int, t.lanes+1)
	for i, n := range counts {
		t.first[i+1] = t.first[i] + int(n)
	}
	return nil
}

// Len is the number of steps that lane has on the tape, 0 if the device failed: the
// failure is reported by the next call that can.
func (t *tape[T]) Len(lane int) int {
	if err := t.read(); err != nil {
		t.owner.fail(err)
		return 0
	}
	return t.first[lane+1] - t.first[lane]
}

// ReadTape copies step i of a lane. Of many lanes it fetches many steps at once,
// those before or after this one, as if they were read in order.
func (b *Backend[T]) ReadTape(tp backend.Tape[T], lane, i int, dst []T) (start, h float64, err error) {
	if err := b.takeErr(); err != nil {
		return 0, 0, err
	}
	t := b.tape(tp)
	if err := t.read(); err != nil {
		return 0, 0, err
	}
	n := t.record()
	if len(dst) != n {
		panic("gpu: ReadTape to a slice of another length")
	}
	if i < 0 || i >= t.first[lane+1]-t.first[lane] {
		panic("gpu: ReadTape of a step that is not on the tape")
	}
	if t.lanes == 1 {
		return t.copy(i, dst)
	}
	w, number := &t.window, t.first[lane]+i
	if number < w.first || number >= w.first+w.count {
		if err := t.fetch(number); err != nil {
			return 0, 0, err
		}
	}
	at := number - w.first
	copy(dst, w.data[at*n:(at+1)*n])
	return w.times[2*at], w.times[2*at+1], nil
}

// copy reads step i of the only lane, which lies in one piece.
func (t *tape[T]) copy(i int, dst []T) (start, h float64, err error) {
	d, per := t.owner.d, int(t.view.per)
	chunk, slot := t.chunks[i/per], i%per
	if len(dst) > 0 {
		from := chunk + driver.Ptr(t.view.data+int64(slot)*int64(len(dst))*sizeOf[T]())
		if err = d.CopyDH(unsafe.Pointer(&dst[0]), from, int64(len(dst))*sizeOf[T]()); err != nil {
			return 0, 0, err
		}
	}
	if err = d.CopyDH(unsafe.Pointer(&start), chunk+driver.Ptr(8*slot), 8); err != nil {
		return 0, 0, err
	}
	err = d.CopyDH(unsafe.Pointer(&h), chunk+driver.Ptr(8*(per+slot)), 8)
	return start, h, err
}

// gatherArgs is GatherArgs in kernels/tape.cu.
type gatherArgs struct {
	tape             tapeView
	list, dst, times driver.Ptr
	total, n         int64
	count, _         int32
}

// fetch fills the window with steps around that of the given number.
func (t *tape[T]) fetch(number int) error {
	const windowSize = 4 << 20
	b, w, n := t.owner, &t.window, int64(t.record())
	step := 16 + n*sizeOf[T]() + 8
	total := t.first[t.lanes]
	count := min(total, int(max(windowSize/step, 1)))
	first := number // read upwards
	if number < w.first {
		first = number + 1 - count
	}
	first = min(max(first, 0), total-count)

	if size := (int64(count)*step + 7) &^ 7; size > w.size {
		b.release(w.mem, w.size)
		*w = window[T]{}
		var err error
		if w.mem, err = b.alloc(size); err != nil {
			return err
		}
		w.size = size
	}
	w.count = 0
	w.list = w.list[:0]
	lane := sort.SearchInts(t.first, first+1) - 1
	for i := first; i < first+count; i++ {
		for i >= t.first[lane+1] {
			lane++
		}
		w.list = append(w.list, int32(lane), int32(i-t.first[lane]))
	}
	data := w.mem + driver.Ptr(16*count)
	list := w.mem + driver.Ptr(w.size) - driver.Ptr(8*count)
	b.d.CopyHD(list, unsafe.Pointer(&w.list[0]), 8*int64(count))
	launch(b, "tape", "tape_gather", ceilDiv(int64(count)*(n+1), blockSize), 0, &gatherArgs{
		tape: t.view, list: list, dst: data, times: w.mem,
		total: int64(t.rows) * int64(t.cols), n: int64(t.cols), count: int32(count),
	})
	w.times = make([]float64, 2*count)
	if err := b.d.CopyDH(unsafe.Pointer(&w.times[0]), w.mem, 16*int64(count)); err != nil {
		return err
	}
	w.data = make([]T, int64(count)*n)
	if n > 0 {
		if err := b.d.CopyDH(unsafe.Pointer(&w.data[0]), data, int64(len(w.data))*sizeOf[T]()); err != nil {
			return err
		}
	}
	w.first, w.count = first, count
	return nil
}
