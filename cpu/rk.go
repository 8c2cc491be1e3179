package cpu

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

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
	c := b.clock(at.Clock)
	d, s := b.out(dst), b.vec(y)
	sameShape(d, s)
	for j, a := range coef {
		if a != 0 {
			sameShape(d, b.vec(k[j]))
		}
	}
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.selected(at.Rows) {
			continue
		}
		h := 1.0
		if timesH {
			h = l.size(at.Rows)
		}
		lo, hi := c.rangeOf(d, i)
		for blk := 0; blk < d.blocks; blk++ {
			D := d.block(blk)[lo:hi]
			copy(D, s.block(blk)[lo:hi])
			for j, a := range coef {
				if a != 0 {
					b.blas.addScaled(T(h*a), b.vec(k[j]).block(blk)[lo:hi], D)
				}
			}
		}
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
	c := b.clock(clk)
	for i := range c.lanes {
		l := &c.lanes[i]
		if l.status != backend.StatusRunning {
			continue
		}
		tol := toleranceOf(c.span(i), tol)
		l.ratio, l.worst, l.row, l.col = 0, -1, 0, 0
		for p := range parts {
			y0, y1 := b.vec(parts[p].Y0), b.vec(parts[p].Y1)
			sameShape(y0, y1)
			lo, hi := c.rangeOf(y0, i)
			for blk := 0; blk < y0.blocks; blk++ {
				var k [maxStages][]T
				for j := range max(len(e), len(e2)) {
					if j < len(e) && e[j] != 0 || j < len(e2) && e2[j] != 0 {
						x := b.vec(parts[p].K[j])
						sameShape(y0, x)
						k[j] = x.block(blk)[lo:hi]
					}
				}
				ratio, worst, at := blockNorm(tol, l.h, e, e2, &k, y0.block(blk)[lo:hi], y1.block(blk)[lo:hi])
				l.ratio = max(l.ratio, ratio) // NaN if either is
				if !math.IsNaN(l.worst) && !(worst <= l.worst) {
					l.worst = worst
					l.row, l.col = (lo+at)/max(y0.cols, 1), (lo+at)%max(y0.cols, 1)
				}
			}
		}
	}
}

// blockNorm is the error ratio of one block and its largest component, at index at:
// of the first that is not finite worst is NaN.
func blockNorm[T backend.Float](tol backend.Tolerance, h float64, e, e2 []float64, k *[maxStages][]T, y0, y1 []T) (ratio, worst float64, at int) {
	var sum, sum2 float64
	for i, v1 := range y1 {
		est, est2 := estimate(e, k, i), estimate(e2, k, i)
		a1 := math.Abs(float64(v1))
		scale := tol.Abs + tol.Rel*max(math.Abs(float64(y0[i])), a1)
		r := math.Abs(scaled(h*est, scale))
		if !(a1 <= math.MaxFloat64) || math.IsNaN(est-est) || math.IsNaN(est2-est2) || math.IsNaN(r) {
			return math.NaN(), math.NaN(), i
		}
		sum += r * r
		sum2 += square(scaled(h*est2, scale))
		if r > worst {
			worst, at = r, i
		}
	}
	n := float64(max(len(y1), 1))
	switch {
	case math.IsInf(sum, 1) || math.IsInf(sum2, 1):
		return math.Inf(1), worst, at
	case e2 == nil || sum == 0:
		return math.Sqrt(sum / n), worst, at
	}
	// Hairer's DOP853: |h|·ERR/√(n·(ERR + 0.01·ERR2)), ERR and ERR2 the sums of squares.
	return sum / math.Sqrt(n*(sum+0.01*sum2)), worst, at
}

// estimate is Σ e[j]·k[j][i].
func estimate[T backend.Float](e []float64, k *[maxStages][]T, i int) (sum float64) {
	for j, a := range e {
		if a != 0 {
			sum += a * float64(k[j][i])
		}
	}
	return sum
}

// outputCells are the elements of Save's table that belong to output j of lane i, or
// nil if the table has none.
func (c *clock[T]) outputCells(table *vec[T], i, j int) []T {
	if c.each() {
		j += c.spans[i].Row
	}
	return c.cells(table, i, j)
}

// cells are the elements of a table that belong to lane i: those of its rows in
// block j, or where lanes have spans of their own row j. It is nil beyond the table.
func (c *clock[T]) cells(table *vec[T], i, j int) []T {
	if c.each() {
		if j >= table.rows {
			return nil
		}
		return table.d[j*table.cols : (j+1)*table.cols]
	}
	if j >= table.blocks {
		return nil
	}
	lo, hi := c.rangeOf(table, i)
	return table.block(j)[lo:hi]
}

// checkTable panics unless table is one for states like y, with rows for c.
func (c *clock[T]) checkTable(table, y *vec[T]) {
	c.rangeOf(y, 0)
	if table.cols != y.cols || y.blocks != 1 || c.each() && table.blocks != 1 || !c.each() && table.rows != y.rows {
		panic("cpu: shapes differ")
	}
}

// place is where output time t lies in the step that lane l took, as a fraction,
// and whether it is the step's end.
func (l *lane) place(t float64) (x float64, end bool) {
	return (t - l.taken) / l.hTook, t == l.end
}

// horner is Σ_m poly[m]·x^(m+1).
func horner(poly []float64, x float64) (w float64) {
	for m := len(poly) - 1; m >= 0; m-- {
		w = (w + poly[m]) * x
	}
	return w
}

// Save writes the outputs that the accepted step has reached.
func (b *Backend[T]) Save(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(dense) > len(k) || len(dense) > maxStages {
		panic("cpu: more interpolation weights than stages")
	}
	c := b.clock(clk)
	s0, s1, out := b.vec(y0), b.vec(y1), b.out(table)
	sameShape(s0, s1)
	c.checkTable(out, s0)
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.accepted {
			continue
		}
		lo, hi := c.rangeOf(s0, i)
		for j := l.saveFrom; j < l.save; j++ {
			D := c.outputCells(out, i, j)
			if D == nil {
				break
			}
			x, end := l.place(c.span(i).Saves[j])
			if end {
				copy(D, s1.d[lo:hi])
				continue
			}
			copy(D, s0.d[lo:hi])
			for st, poly := range dense {
				if w := horner(poly, x); w != 0 {
					stage := b.vec(k[st])
					sameShape(s0, stage)
					b.blas.addScaled(T(l.hTook*w), stage.d[lo:hi], D)
				}
			}
		}
	}
}

// Commit sets dst = src in the selected rows.
func (b *Backend[T]) Commit(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	for _, m := range moves {
		dst, src := b.out(m.Dst), b.vec(m.Src)
		sameShape(dst, src)
		for i := range c.lanes {
			if !c.lanes[i].selected(rows) {
				continue
			}
			lo, hi := c.rangeOf(dst, i)
			for blk := 0; blk < dst.blocks; blk++ {
				copy(dst.block(blk)[lo:hi], src.block(blk)[lo:hi])
			}
		}
	}
}

// AtStop acts on the rows of lanes that have just reached a stop.
func (b *Backend[T]) AtStop(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	var state, tab *vec[T]
	if op == backend.Store {
		state, tab = b.vec(y), b.out(table)
	} else {
		state, tab = b.out(y), b.vec(table)
	}
	c.checkTable(tab, state)
	for i := range c.lanes {
		l := &c.lanes[i]
		if l.hit < 0 {
			continue
		}
		R := c.cells(tab, i, l.hit)
		if R == nil {
			continue
		}
		lo, hi := c.rangeOf(state, i)
		Y := state.d[lo:hi]
		switch op {
		case backend.Store:
			copy(R, Y)
		case backend.Load:
			copy(Y, R)
			l.stale, l.fresh = true, true
		case backend.Add:
			for j, v := range R {
				Y[j] += v
			}
			l.stale, l.fresh = true, true
		}
	}
}
