//go:build cuda && cgo && linux && amd64

package gpu

import (
	"math"
	"slices"
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

	list    []int32 // of rows to gather
	rows    driver.Ptr
	rowsCap int64
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
	l.owner.release(l.rows, l.rowsCap)
	l.outcome, l.rows, l.size, l.rowsCap = 0, 0, 0, 0
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
	return l.outcome + driver.Ptr(outcomeSize), nil
}

// rowsArgs is RowsArgs in kernels/loss.cu.
type rowsArgs struct {
	src, dst, rows         driver.Ptr
	total                  int64
	count, source, cols, _ int32
}

// Gather copies rows by their numbers.
func (l *learner[T]) Gather(rows []int, moves []backend.Move[T]) {
	b := l.owner
	if !b.live() {
		return
	}
	n := int64(len(rows))
	l.list = l.list[:0]
	for _, r := range rows {
		l.list = append(l.list, int32(r))
	}
	if size := 4 * n; size > l.rowsCap {
		p, ok := b.room(size)
		if !ok {
			return
		}
		b.release(l.rows, l.rowsCap)
		l.rows, l.rowsCap = p, size
	}
	b.d.CopyHD(l.rows, unsafe.Pointer(unsafe.SliceData(l.list)), 4*n)
	for _, m := range moves {
		dst, src := b.vec(m.Dst), b.vec(m.Src)
		if dst.blocks != src.blocks || dst.cols != src.cols || dst.rows != len(rows) {
			panic("gpu: shapes differ")
		}
		if len(rows) > 0 && (slices.Min(rows) < 0 || slices.Max(rows) >= src.rows) {
			panic("gpu: Gather of a row that is not there")
		}
		a := rowsArgs{
			src: src.ptr, dst: dst.ptr, rows: l.rows, total: int64(dst.len()),
			count: int32(dst.rows), source: int32(src.rows), cols: int32(src.cols),
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
}

// Loss computes a loss and its derivative.
func (l *learner[T]) Loss(loss backend.Loss, pred, y, w, grad backend.Vec[T]) {
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
	grad, partial, out driver.Ptr
	limit              float64
	n                  int64
	blocks, _          int32
}

// updateArgs is UpdateArgs in kernels/optim.cu.
type updateArgs[T backend.Float] struct {
	theta, m, v, a, grad, out                    driver.Ptr
	n                                            int64
	kind, nesterov                               int32
	step, decay, keep, b1, c1, b2, c2, eps, root T
}

// Update makes one update of theta.
func (l *learner[T]) Update(o backend.Optimizer, theta, grad, m, v, mean backend.Vec[T]) {
	b := l.owner
	if !b.live() {
		return
	}
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
	norm := normArgs{grad: g.ptr, partial: sums, out: l.outcome, limit: o.Clip, n: n, blocks: int32(chunks)}
	launch(b, "optim", "optim_norm", chunks, 0, &norm)
	launch(b, "optim", "optim_finish", 1, 0, &norm)
	if sizeOf[T]() == 8 { // squares of a float32 neither overflow nor vanish
		launch(b, "optim", "optim_norm_scaled", chunks, 0, &norm)
		launch(b, "optim", "optim_finish_scaled", 1, 0, &norm)
	}

	a := updateArgs[T]{
		theta: p.ptr, m: memory(m), v: memory(v), a: memory(mean), grad: g.ptr, out: l.outcome, n: n, kind: int32(o.Kind),
		step: T(o.LR), decay: T(o.WeightDecay), keep: 1, eps: T(o.Eps),
	}
	switch o.Kind {
	case backend.Adam, backend.AdamW:
		t := float64(o.Step)
		a.b1, a.c1, a.b2, a.c2 = T(o.Beta1), T(1-o.Beta1), T(o.Beta2), T(1-o.Beta2)
		a.step = T(o.LR / (1 - math.Pow(o.Beta1, t)))
		a.root = T(1 / math.Sqrt(1-math.Pow(o.Beta2, t)))
		if o.Kind == backend.AdamW {
			a.decay, a.keep = 0, T(1-o.LR*o.WeightDecay)
		}
	case backend.RMSprop:
		a.b1, a.b2, a.c2 = T(o.Momentum), T(o.Alpha), T(1-o.Alpha)
	case backend.SGD:
		a.b1, a.c1 = T(o.Momentum), T(1-o.Dampening)
		if o.Step == 1 {
			a.c1 = 1
		}
		if o.Nesterov {
			a.nesterov = 1
		}
	}
	launch(b, "optim", "optim_update", ceilDiv(n, blockSize), 0, &a)
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
