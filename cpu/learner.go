package cpu

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

var (
	_ backend.Trainer[float32] = (*Backend[float32])(nil)
	_ backend.Trainer[float64] = (*Backend[float64])(nil)
)

// learner makes training steps by the arithmetic of package learn, as package train
// does: with the same bits.
type learner[T backend.Float] struct {
	b        *Backend[T]
	prepared bool
	rows     []int
	update   backend.Optimizer
	out      backend.Outcome
}

// NewLearner makes a Learner. Its verbs run at once, and Record refuses them.
func (b *Backend[T]) NewLearner() (backend.Learner[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	return &learner[T]{b: b, out: backend.Outcome{BadParam: -1}}, nil
}

// Close has nothing to release.
func (l *learner[T]) Close() {}

// Prepare sets the rows and the next update.
func (l *learner[T]) Prepare(rows []int, o backend.Optimizer) {
	if !l.b.live() {
		return
	}
	for _, r := range rows {
		if r < 0 {
			panic("cpu: Prepare with a negative row")
		}
	}
	l.prepared, l.rows, l.update = true, append(l.rows[:0], rows...), o
}

// runs says whether a verb may run.
func (l *learner[T]) runs(verb string, prepared bool) bool {
	if !l.b.live() {
		return false
	}
	if l.b.recording != nil {
		l.b.unrecorded(verb)
		return false
	}
	if !prepared {
		panic("cpu: Prepare comes before Gather and Update")
	}
	return true
}

// Gather copies rows by their numbers.
func (l *learner[T]) Gather(moves []backend.Move[T]) {
	if !l.runs("Gather", l.prepared) {
		return
	}
	for _, m := range moves {
		dst, src := l.b.out(m.Dst), l.b.vec(m.Src)
		if dst.blocks != src.blocks || dst.cols != src.cols {
			panic("cpu: shapes differ")
		}
		if len(l.rows) != dst.rows {
			panic("cpu: Gather of another number of rows than Dst has")
		}
		for i := range dst.blocks {
			for to, from := range l.rows {
				if from >= src.rows {
					panic("cpu: Gather of rows that are not there")
				}
				copy(dst.part(i, to, to+1), src.part(i, from, from+1))
			}
		}
	}
}

// Loss computes a loss and its derivative.
func (l *learner[T]) Loss(loss backend.Loss, solve backend.Clock, pred, y, w, grad backend.Vec[T]) {
	if !l.runs("Loss", true) {
		return
	}
	p, target, g := l.b.vec(pred), l.b.vec(y), l.b.out(grad)
	sameShape(p, g)
	t := learn.Target[T, T]{Values: target.d}
	if loss.Kind == backend.CrossEntropy {
		if target.blocks != p.blocks || target.rows != p.rows || target.cols != 1 {
			panic("cpu: a label a row of logits is needed")
		}
		t = learn.Target[T, T]{Labels: target.d}
	} else {
		sameShape(p, target)
	}
	if w != nil {
		x := l.b.vec(w)
		sameShape(x, target)
		t.Weights = x.d
	}
	l.out.Weight = t.Total()
	l.out.Loss = learn.Eval(loss, p.d, &t, l.out.Weight, g.d)
	if solve != nil && !l.b.clock(solve).done() {
		l.out.Loss = math.NaN()
	}
}

// done reports whether all lanes have reached their ends.
func (c *clock[T]) done() bool {
	for i := range c.lanes {
		if c.lanes[i].status != backend.Done {
			return false
		}
	}
	return true
}

// Update makes one update of theta. After a failure, which Outcome reports, grad is not to
// be trusted.
func (l *learner[T]) Update(theta, grad, m, v, a backend.Vec[T]) {
	if !l.runs("Update", l.prepared) || l.b.err != nil {
		return
	}
	p, g := l.b.out(theta), l.b.vec(grad)
	sameShape(p, g)
	memory := func(x backend.Vec[T]) []T {
		if x == nil {
			return nil
		}
		d := l.b.out(x)
		sameShape(p, d)
		return d.d
	}
	s := learn.Memory[T]{M: memory(m), V: memory(v), A: memory(a)}
	l.out.Norm, l.out.BadParam = learn.Norm(g.d), -1
	if l.out.Loss-l.out.Loss != 0 || l.out.Norm-l.out.Norm != 0 {
		return
	}
	learn.Update(&l.update, learn.Clip(l.out.Norm, l.update.Clip), p.d, g.d, s)
	l.out.BadParam = learn.FirstNonFinite(p.d)
}

// Outcome tells what the last training step did.
func (l *learner[T]) Outcome() (backend.Outcome, error) { return l.out, l.b.takeErr() }
