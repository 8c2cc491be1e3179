package cpu

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/internal/stepsize"
)

// worker is the memory of one goroutine.
type worker[T backend.Float] struct {
	id      int
	h       []T // see sizes
	h64     []float64
	k       [maxStages][]T
	squares []float64
	rows    rows
	weight  []T
}

// resize returns s with length n, whatever it holds.
func resize[E any](s []E, n int) []E { return slices.Grow(s[:0], n)[:n] }

// Combine sets dst = y + h·Σ coef[j]·k[j].
func (b *Backend[T]) Combine(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	b.combine(dst, y, at, true, coef, k)
}

// Sum sets dst = y + Σ coef[j]·k[j].
func (b *Backend[T]) Sum(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	b.combine(dst, y, at, false, coef, k)
}

func (b *Backend[T]) combine(dst, y backend.Vec[T], at backend.At, timesH bool, coef []float64, k []backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(coef) > len(k) {
		panic("cpu: more coefficients than stages")
	}
	o := keep(b, &b.last.combine)
	o.dst, o.y, o.sel, o.timesH = b.out(dst), b.vec(y), at.Rows, timesH
	o.coef, o.k = o.coef[:0], o.k[:0]
	sameShape(o.dst, o.y)
	for j, a := range coef {
		if a != 0 {
			x := b.vec(k[j])
			sameShape(o.dst, x)
			o.coef, o.k = append(o.coef, T(a)), append(o.k, x)
		}
	}
	if len(o.k) > maxStages {
		panic("cpu: a method of more than 32 stages")
	}
	c := b.clock(at.Clock)
	c.rangeOf(o.dst, 0)
	o.on = on[T]{clk: c, rows: o.dst.rows, work: o.dst.blocks * o.dst.cols * (len(o.k) + 1)}
	b.do(o)
}

// combine is the op of Combine and Sum.
type combine[T backend.Float] struct {
	on[T]
	dst, y *vec[T]
	sel    backend.Rows
	timesH bool
	coef   []T
	k      []*vec[T]
}

func (o *combine[T]) unit(w *worker[T], u unit) {
	for from, to := o.clk.run(o.sel, u.lo, u.hi); from < to; from, to = o.clk.run(o.sel, to, u.hi) {
		h := w.sizes(o.clk, o.sel, o.timesH, from, to, o.dst.cols)
		for blk := range o.dst.blocks {
			for j, k := range o.k {
				w.k[j] = k.part(blk, from, to)
			}
			simd.Combine(o.dst.part(blk, from, to), o.y.part(blk, from, to), h, o.coef, w.k[:len(o.k)])
		}
	}
}

// sizes are the factors of rows from to below to: one, or one for each element.
func (w *worker[T]) sizes(c *clock[T], sel backend.Rows, timesH bool, from, to, cols int) []T {
	if !timesH || c.single() || to-from == 1 {
		w.h = append(w.h[:0], 1)
		if timesH {
			w.h[0] = T(c.lanes[c.lane(from)].size(sel))
		}
		return w.h
	}
	w.h = resize(w.h, (to-from)*cols)
	for i := from; i < to; i++ {
		fillWith(w.h[(i-from)*cols:(i-from+1)*cols], T(c.lanes[i].size(sel)))
	}
	return w.h
}

func fillWith[E any](s []E, v E) {
	for i := range s {
		s[i] = v
	}
}

// maxStages bounds the stages of a method, so that gathering them needs no memory.
const maxStages = 32

// ErrorRatio sets the error of every running lane.
func (b *Backend[T]) ErrorRatio(clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
	if !b.live() {
		return
	}
	if len(e) > maxStages || len(e2) > maxStages {
		panic("cpu: a method of more than 32 stages")
	}
	o := keep(b, &b.last.norm)
	o.tol, o.parts = tol, o.parts[:0]
	o.e, o.e2 = append(o.e[:0], e...), append(o.e2[:0], e2...)
	o.second = e2 != nil
	c := b.clock(clk)
	o.on = on[T]{clk: c, rows: -1}
	o.k = o.k[:0]
	for _, p := range parts {
		part := normed[T]{y0: b.vec(p.Y0), y1: b.vec(p.Y1), k: len(o.k)}
		sameShape(part.y0, part.y1)
		c.rangeOf(part.y0, 0)
		for j := range max(len(e), len(e2)) {
			var x *vec[T]
			if j < len(e) && e[j] != 0 || j < len(e2) && e2[j] != 0 {
				x = b.vec(p.K[j])
				sameShape(part.y0, x)
			}
			o.k = append(o.k, x)
		}
		o.parts = append(o.parts, part)
		o.rows = max(o.rows, part.y0.rows)
		o.work += part.y0.blocks * part.y0.cols * (len(e) + 5)
	}
	for _, p := range o.parts {
		if p.y0.rows != o.rows {
			b.unrecorded("ErrorRatio with parts of different numbers of rows")
		}
	}
	b.do(o)
}

// errorRatio is the op of ErrorRatio.
type errorRatio[T backend.Float] struct {
	on[T]
	tol    backend.Tolerance
	e, e2  []float64
	second bool // there is a second estimate
	parts  []normed[T]
	k      []*vec[T] // stages of the parts, nil where they do not enter
	sums   []norm    // of every block of every part of every few rows, with one lane
	blocks int       // in all parts
}

// normed is a part of the state, whose stages begin at index k.
type normed[T backend.Float] struct {
	y0, y1 *vec[T]
	k      int
}

// norm is what the norm of a block is made of.
type norm struct {
	sum, sum2 float64 // of squares
	n         int
	// The largest component, at row and col: of the first that is not finite worst is
	// NaN.
	worst    float64
	row, col int
}

// parts is the number of parts of so many rows that norms over all of them are added up
// from, whatever the size of units.
func parts(rows int) int { return max((rows+unitRows-1)/unitRows, 1) }

func (o *errorRatio[T]) prepare(int, int) {
	o.blocks = 0
	for _, p := range o.parts {
		o.blocks += p.y0.blocks
	}
	if o.clk.single() {
		o.sums = resize(o.sums, parts(o.rows)*o.blocks)
		clear(o.sums)
	}
}

func (o *errorRatio[T]) unit(w *worker[T], u unit) {
	if o.clk.single() && o.clk.lanes[0].status != backend.StatusRunning {
		return
	}
	if o.clk.single() {
		l, tol := &o.clk.lanes[0], toleranceOf(o.clk.span(0), o.tol)
		for lo := u.lo; lo < u.hi; lo += unitRows {
			n := lo / unitRows * o.blocks
			for p := range o.parts {
				y0, from, to := o.parts[p].y0, lo, min(lo+unitRows, u.hi)
				if y0.rows != o.rows { // all of it belongs to the first rows
					from, to = 0, 0
					if lo == 0 {
						to = y0.rows
					}
				}
				for blk := range y0.blocks {
					o.sums[n] = o.norm(w, tol, l.h, p, blk, from, to)
					n++
				}
			}
		}
		return
	}
	for i := u.lo; i < u.hi; i++ {
		l := &o.clk.lanes[i]
		if l.status != backend.StatusRunning {
			continue
		}
		l.ratio, l.worst, l.row, l.col = 0, -1, 0, 0
		tol := toleranceOf(o.clk.span(i), o.tol)
		for p := range o.parts {
			for blk := range o.parts[p].y0.blocks {
				l.raise(o.norm(w, tol, l.h, p, blk, i, i+1), o.second)
			}
		}
	}
}

// after decides the ratio of all rows' one lane.
func (o *errorRatio[T]) after(int, int) {
	l := &o.clk.lanes[0]
	if !o.clk.single() || l.status != backend.StatusRunning {
		return
	}
	l.ratio, l.worst, l.row, l.col = 0, -1, 0, 0
	for blk := range o.blocks {
		s := o.sums[blk]
		for i := blk + o.blocks; i < len(o.sums); i += o.blocks {
			x := o.sums[i]
			s.sum, s.sum2, s.n = s.sum+x.sum, s.sum2+x.sum2, s.n+x.n
			if !math.IsNaN(s.worst) && !(x.worst <= s.worst) {
				s.worst, s.row, s.col = x.worst, x.row, x.col
			}
		}
		l.raise(s, o.second)
	}
}

// raise raises the lane's ratio to the norm of a block.
func (l *lane) raise(s norm, second bool) {
	l.ratio = max(l.ratio, s.ratio(second)) // NaN if either is
	if !math.IsNaN(l.worst) && !(s.worst <= l.worst) {
		l.worst, l.row, l.col = s.worst, s.row, s.col
	}
}

// ratio is the norm.
func (s *norm) ratio(second bool) float64 {
	if math.IsNaN(s.worst) {
		return math.NaN()
	}
	return stepsize.Ratio(s.sum, s.sum2, s.n, second)
}

// norm adds up rows lo to hi of a block of part p.
func (o *errorRatio[T]) norm(w *worker[T], tol backend.Tolerance, h float64, p, blk, lo, hi int) (s norm) {
	y0, y1 := o.parts[p].y0.part(blk, lo, hi), o.parts[p].y1.part(blk, lo, hi)
	k := o.k[o.parts[p].k:]
	for j := range max(len(o.e), len(o.e2)) {
		w.k[j] = nil
		if k[j] != nil {
			w.k[j] = k[j].part(blk, lo, hi)
		}
	}
	w.squares, w.h64 = resize(w.squares, len(y1)), append(w.h64[:0], h)
	var sum2 float64
	if o.second {
		simd.ErrorSquares(w.squares, y0, y1, w.h64, o.e2, w.k[:len(o.e2)], tol.Abs, tol.Rel)
		sum2, _ = simd.SumMax(w.squares)
	}
	simd.ErrorSquares(w.squares, y0, y1, w.h64, o.e, w.k[:len(o.e)], tol.Abs, tol.Rel)
	sum, most := simd.SumMax(w.squares)
	at := 0
	if x := sum + sum2; x-x == 0 {
		s = norm{sum: sum, sum2: sum2, n: len(y1), worst: math.Sqrt(most)}
		if len(y1) > 0 {
			at = slices.Index(w.squares, most)
		} else {
			s.worst = -1
		}
	} else {
		e := stepsize.Estimate[T]{Tol: tol, H: h, E: o.e, Y0: y0, Y1: y1, K: w.k[:]}
		if o.second {
			e.E2 = o.e2
		}
		s, at = careful(e)
	}
	cols := max(o.parts[p].y0.cols, 1)
	s.row, s.col = lo+at/cols, at%cols
	return s
}

// careful is norm where something is not finite, and the index of its largest
// component.
func careful[T backend.Float](e stepsize.Estimate[T]) (s norm, at int) {
	s.n = len(e.Y1)
	for i := range e.Y1 {
		_, x, x2 := e.At(i)
		r := math.Abs(x)
		if math.IsNaN(r) {
			s.worst = r
			return s, i
		}
		s.sum += x * x
		s.sum2 += x2 * x2
		if r > s.worst {
			s.worst, at = r, i
		}
	}
	return s, at
}

// Commit sets dst = src in the selected rows.
func (b *Backend[T]) Commit(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.commit)
	o.on, o.sel, o.dst, o.src = on[T]{clk: b.clock(clk), rows: -1}, rows, o.dst[:0], o.src[:0]
	for _, m := range moves {
		dst, src := b.out(m.Dst), b.vec(m.Src)
		sameShape(dst, src)
		o.clk.rangeOf(dst, 0)
		if o.rows >= 0 && o.rows != dst.rows {
			panic("cpu: moves of different numbers of rows")
		}
		o.dst, o.src, o.rows = append(o.dst, dst), append(o.src, src), dst.rows
		o.work += dst.blocks * dst.cols
	}
	b.do(o)
}

// commit is the op of Commit.
type commit[T backend.Float] struct {
	on[T]
	sel      backend.Rows
	dst, src []*vec[T]
}

func (o *commit[T]) unit(_ *worker[T], u unit) {
	for from, to := o.clk.run(o.sel, u.lo, u.hi); from < to; from, to = o.clk.run(o.sel, to, u.hi) {
		for i, dst := range o.dst {
			for blk := range dst.blocks {
				copy(dst.part(blk, from, to), o.src[i].part(blk, from, to))
			}
		}
	}
}

// AtStop acts on the rows of lanes that have just reached a stop.
func (b *Backend[T]) AtStop(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.atStop)
	o.op = op
	if op == backend.Store {
		o.y, o.table = b.vec(y), b.out(table)
	} else {
		o.y, o.table = b.out(y), b.vec(table)
	}
	c := b.clock(clk)
	c.checkTable(o.table, o.y)
	o.on = on[T]{clk: c, rows: o.y.rows}
	b.do(o)
}

// atStop is the op of AtStop.
type atStop[T backend.Float] struct {
	on[T]
	op       backend.StopOp
	y, table *vec[T]
}

func (o *atStop[T]) unit(_ *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		R := o.cells(i, lo, hi)
		if R == nil {
			continue
		}
		Y := o.y.part(0, lo, hi)
		switch o.op {
		case backend.Store:
			copy(R, Y)
		case backend.Load:
			copy(Y, R)
		case backend.Add:
			for j, v := range R {
				Y[j] += v
			}
		}
	}
}

// cells are those that belong to the stop that lane i has reached, nil if it has not.
func (o *atStop[T]) cells(i, lo, hi int) []T {
	if hit := o.clk.lanes[i].hit; hit >= 0 {
		return o.clk.cells(o.table, i, hit, lo, hi)
	}
	return nil
}

// after marks the first stage of what has changed.
func (o *atStop[T]) after(lo, hi int) {
	if o.op == backend.Store {
		return
	}
	for i := lo; i < hi; i++ {
		if l := &o.clk.lanes[i]; o.cells(i, 0, 0) != nil {
			l.stale, l.fresh = true, true
		}
	}
}
