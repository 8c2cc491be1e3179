//go:build cuda && cgo && linux && amd64

package gpu

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var (
	_ backend.Trainer[float32] = (*Backend[float32])(nil)
	_ backend.Trainer[float64] = (*Backend[float64])(nil)
)

// chunkSize is CHUNK in kernels/learn.cuh.
const chunkSize = 8 * blockSize

// outcome is Outcome in kernels/learn.cuh.
type outcome struct {
	loss, weight, norm float64
	bad                int64
	scale, shift, clip float64
}

// learner keeps the outcome of a step on the device and, in the same memory, which
// grows, sums of chunks.
type learner[T backend.Float] struct {
	owner   *Backend[T]
	outcome driver.Ptr
	size    int64

	// What Prepare set, on the device too: factors, and after them the rows.
	count, largest int // of rows
	sent           []byte
	inputs         driver.Ptr
	inputsSize     int64
}

const outcomeSize = int64(unsafe.Sizeof(outcome{}))

// NewLearner allocates the memory of training steps.
func (b *Backend[T]) NewLearner() (backend.Learner[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	p, err := b.zeroed(outcomeSize)
	if err != nil {
		return nil, err
	}
	return &learner[T]{owner: b, outcome: p, size: outcomeSize}, nil
}

// Close releases the Learner.
func (l *learner[T]) Close() {
	l.owner.release(l.outcome, l.size)
	l.owner.release(l.inputs, l.inputsSize)
	l.outcome, l.inputs, l.size, l.inputsSize = 0, 0, 0, 0
}

// sums returns memory for n sums of 16 bytes.
func (l *learner[T]) sums(n int64) (driver.Ptr, error) {
	b := l.owner
	if size := outcomeSize + 16*n; size > l.size {
		p, err := b.alloc(size)
		if err != nil {
			return 0, err
		}
		b.d.CopyDD(p, l.outcome, outcomeSize)
		b.release(l.outcome, l.size)
		l.outcome, l.size = p, size
	}
	b.pool.use(l.outcome)
	return l.outcome + driver.Ptr(outcomeSize), nil
}

// factors is Factors in kernels/optim.cu.
type factors[T backend.Float] struct {
	kind, nesterov                               int32
	limit                                        float64
	step, decay, keep, b1, c1, b2, c2, eps, root T
}

// Prepare sets the rows and the factors of the next update.
func (l *learner[T]) Prepare(rows []int, o backend.Optimizer) {
	b := l.owner
	if !b.live() {
		return
	}
	f := factorsOf[T](o)
	l.sent = append(l.sent[:0], bytesOf([]factors[T]{f})...)
	l.count, l.largest = len(rows), -1
	for _, r := range rows {
		if r < 0 {
			panic("gpu: Prepare with a negative row")
		}
		l.largest = max(l.largest, r)
		l.sent = binary.NativeEndian.AppendUint32(l.sent, uint32(int32(r)))
	}
	size := int64(len(l.sent))
	if size > l.inputsSize {
		p, ok := b.room(size)
		if !ok {
			return
		}
		b.release(l.inputs, l.inputsSize)
		l.inputs, l.inputsSize = p, size
	}
	b.d.CopyHD(l.inputs, unsafe.Pointer(&l.sent[0]), size)
}

// factorsOf are the factors of an update; package train has its formulas.
func factorsOf[T backend.Float](o backend.Optimizer) factors[T] {
	f := factors[T]{kind: int32(o.Kind), limit: o.Clip, step: T(o.LR), decay: T(o.WeightDecay), keep: 1, eps: T(o.Eps)}
	switch o.Kind {
	case backend.Adam, backend.AdamW:
		t := float64(o.Step)
		f.b1, f.c1, f.b2, f.c2 = T(o.Beta1), T(1-o.Beta1), T(o.Beta2), T(1-o.Beta2)
		f.step = T(o.LR / (1 - math.Pow(o.Beta1, t)))
		f.root = T(1 / math.Sqrt(1-math.Pow(o.Beta2, t)))
		if o.Kind == backend.AdamW {
			f.decay, f.keep = 0, T(1-o.LR*o.WeightDecay)
		}
	case backend.RMSprop:
		f.b1, f.b2, f.c2 = T(o.Momentum), T(o.Alpha), T(1-o.Alpha)
	case backend.SGD:
		f.b1, f.c1 = T(o.Momentum), T(1-o.Dampening)
		if o.Step == 1 {
			f.c1 = 1
		}
		if o.Nesterov {
			f.nesterov = 1
		}
	}
	return f
}

// prepared notes that a verb reads what Prepare sets.
func (l *learner[T]) prepared() {
	if l.inputs == 0 && !l.owner.d.Failed() {
		panic("gpu: Prepare comes before Gather and Update")
	}
	l.owner.pool.use(l.inputs)
}

// rowsArgs is RowsArgs in kernels/loss.cu.
type rowsArgs struct {
	src, dst, rows         driver.Ptr
	total                  int64
	count, source, cols, _ int32
}

// Gather copies rows by their numbers.
func (l *learner[T]) Gather(moves []backend.Move[T]) {
	b := l.owner
	if !b.live() {
		return
	}
	l.prepared()
	for _, m := range moves {
		dst, src := b.vec(m.Dst), b.vec(m.Src)
		if dst.blocks != src.blocks || dst.cols != src.cols {
			panic("gpu: shapes differ")
		}
		rows, source := dst.rows, src.rows
		b.hosted(func(int) {
			if l.count != rows || l.largest >= source {
				panic("gpu: Gather of rows that are not there, or of another number than Dst has")
			}
		})
		a := rowsArgs{
			src: src.ptr, dst: dst.ptr, rows: l.inputs + driver.Ptr(unsafe.Sizeof(factors[T]{})), total: int64(dst.len()),
			count: int32(rows), source: int32(source), cols: int32(src.cols),
		}
		launch(b, "loss", "loss_gather", ceilDiv(a.total, blockSize), 0, &a)
	}
}

// lossArgs is LossArgs in kernels/loss.cu.
type lossArgs struct {
	pred, y, w, grad, partial, out driver.Ptr
	delta                          float64
	n                              int64
	classes, team, kind, mean      int32
	blocks, _                      int32
	solve                          clockView
}

// Loss computes a loss and its derivative.
func (l *learner[T]) Loss(loss backend.Loss, solve backend.Clock, pred, y, w, grad backend.Vec[T]) {
	b := l.owner
	if !b.live() {
		return
	}
	p, target, g := b.vec(pred), b.vec(y), b.vec(grad)
	sameShape(p, g)
	a := lossArgs{pred: p.ptr, y: target.ptr, grad: g.ptr, delta: loss.Delta, n: int64(target.len()), kind: int32(loss.Kind), classes: 1, team: 1}
	if loss.Kind == backend.CrossEntropy {
		if target.blocks != p.blocks || target.rows != p.rows || target.cols != 1 {
			panic("gpu: a label a row of logits is needed")
		}
		a.classes, a.team = int32(p.cols), teamOf(int64(p.cols))
	} else {
		sameShape(p, target)
	}
	if w != nil {
		x := b.vec(w)
		sameShape(x, target)
		a.w = x.ptr
	}
	if loss.Mean {
		a.mean = 1
	}
	if solve != nil {
		a.solve = b.clock(solve).view
	}
	chunks := ceilDiv(a.n, chunkSize)
	var err error
	if a.partial, err = l.sums(chunks); err != nil {
		b.fail(err)
		return
	}
	a.out, a.blocks = l.outcome, int32(chunks)
	sum, derivative, threads := "loss_sum", "loss_grad", a.n
	if loss.Kind == backend.CrossEntropy {
		sum, derivative, threads = "loss_rows_sum", "loss_rows_grad", a.n*int64(a.team)
	}
	launch(b, "loss", sum, chunks, 0, &a)
	launch(b, "loss", "loss_finish", 1, 0, &a)
	launch(b, "loss", derivative, ceilDiv(threads, blockSize), 0, &a)
}

// normArgs is NormArgs in kernels/optim.cu.
type normArgs struct {
	grad, partial, out, factors driver.Ptr
	n                           int64
	blocks, _                   int32
}

// updateArgs is UpdateArgs in kernels/optim.cu.
type updateArgs struct {
	theta, m, v, a, grad, out, factors driver.Ptr
	n                                  int64
}

// Update makes one update of theta.
func (l *learner[T]) Update(theta, grad, m, v, mean backend.Vec[T]) {
	b := l.owner
	if !b.live() {
		return
	}
	l.prepared()
	p, g := b.vec(theta), b.vec(grad)
	sameShape(p, g)
	memory := func(x backend.Vec[T]) driver.Ptr {
		if x == nil {
			return 0
		}
		sameShape(p, b.vec(x))
		return b.vec(x).ptr
	}
	n := int64(p.len())
	chunks := ceilDiv(n, chunkSize)
	sums, err := l.sums(chunks)
	if err != nil {
		b.fail(err)
		return
	}
	norm := normArgs{grad: g.ptr, partial: sums, out: l.outcome, factors: l.inputs, n: n, blocks: int32(chunks)}
	launch(b, "optim", "optim_norm", chunks, 0, &norm)
	launch(b, "optim", "optim_finish", 1, 0, &norm)
	if sizeOf[T]() == 8 { // squares of a float32 neither overflow nor vanish
		launch(b, "optim", "optim_norm_scaled", chunks, 0, &norm)
		launch(b, "optim", "optim_finish_scaled", 1, 0, &norm)
	}
	launch(b, "optim", "optim_update", ceilDiv(n, blockSize), 0, &updateArgs{
		theta: p.ptr, m: memory(m), v: memory(v), a: memory(mean), grad: g.ptr, out: l.outcome, factors: l.inputs, n: n,
	})
}

// Outcome waits and tells what the last training step did.
func (l *learner[T]) Outcome() (backend.Outcome, error) {
	b := l.owner
	if !b.live() {
		return backend.Outcome{}, b.takeErr()
	}
	status, err := b.fetch(l.outcome, outcomeSize)
	if err != nil {
		return backend.Outcome{}, err
	}
	o := (*outcome)(unsafe.Pointer(status))
	bad := -1
	if o.bad != math.MaxInt64 {
		bad = int(o.bad)
	}
	return backend.Outcome{Loss: o.loss, Weight: o.weight, Norm: o.norm, BadParam: bad}, nil
}
