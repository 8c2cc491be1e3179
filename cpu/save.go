package cpu

import (
	"math"
	"sort"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
)

// outputCells are the elements of Save's table that belong to output j of lane i in
// rows lo to hi, or nil if the table has none.
func (c *clock[T]) outputCells(table *vec[T], i, j, lo, hi int) []T {
	if c.each() {
		j += c.spans[i].Row
	}
	return c.cells(table, i, j, lo, hi)
}

// cells are the elements of a table that belong to lane i in rows lo to hi: those of
// its rows in block j, or where lanes have spans of their own row j. It is nil beyond
// the table.
func (c *clock[T]) cells(table *vec[T], i, j, lo, hi int) []T {
	if c.each() {
		if j >= table.rows {
			return nil
		}
		return table.part(0, j, j+1)
	}
	if j >= table.blocks {
		return nil
	}
	return table.part(j, lo, hi)
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
	o := keep(b, &b.last.save)
	o.saving.set(b, clk, dense, table, y0, y1, k)
	o.table.mem.version++
	b.do(o)
}

// saving is what Save and SaveVJP work on.
type saving[T backend.Float] struct {
	on[T]
	dense         [][]float64
	table, y0, y1 *vec[T]
	k             []*vec[T]
}

func (o *saving[T]) set(b *Backend[T], clk backend.Clock, dense [][]float64, table, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
	if len(dense) > len(k) || len(dense) > maxStages {
		panic("cpu: more interpolation weights than stages")
	}
	c := b.clock(clk)
	o.dense, o.table, o.y0, o.y1, o.k = dense, b.vec(table), b.vec(y0), b.vec(y1), o.k[:0]
	sameShape(o.y0, o.y1)
	c.checkTable(o.table, o.y0)
	for j := range dense {
		x := b.vec(k[j])
		sameShape(o.y0, x)
		o.k = append(o.k, x)
	}
	o.on = on[T]{clk: c, rows: o.y0.rows, work: o.y0.cols * (len(dense) + 1)}
}

// save is the op of Save.
type save[T backend.Float] struct{ saving[T] }

func (o *save[T]) unit(w *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		l := &o.clk.lanes[i]
		if !l.accepted {
			continue
		}
		for j := l.saveFrom; j < l.save; j++ {
			D := o.clk.outputCells(o.table, i, j, lo, hi)
			if D == nil {
				break
			}
			x, end := l.place(o.clk.span(i).Saves[j])
			if end {
				copy(D, o.y1.part(0, lo, hi))
				continue
			}
			for st, k := range o.k {
				w.k[st] = k.part(0, lo, hi)
			}
			w.interpolate(D, o.y0.part(0, lo, hi), x, l.hTook, o.dense)
		}
	}
}

// interpolate sets dst to y + h·Σ_j k[j]·Σ_m dense[j][m]·x^(m+1), for the stages in w.k,
// which it uses up.
func (w *worker[T]) interpolate(dst, y []T, x, h float64, dense [][]float64) {
	w.weight = w.weight[:0]
	for j, poly := range dense {
		if a := horner(poly, x); a != 0 {
			w.k[len(w.weight)] = w.k[j]
			w.weight = append(w.weight, T(a))
		}
	}
	w.h = append(w.h[:0], T(h))
	simd.Combine(dst, y, w.h, w.weight, w.k[:len(w.weight)])
}

// SaveVJP is the vector-Jacobian product of Save.
func (b *Backend[T]) SaveVJP(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.saveVJP)
	o.saving.set(b, clk, dense, cotangents, y0, y1, k)
	o.y0.mem.version++
	o.y1.mem.version++
	for _, x := range o.k {
		x.mem.version++
	}
	b.do(o)
}

// saveVJP is the op of SaveVJP.
type saveVJP[T backend.Float] struct{ saving[T] }

func (o *saveVJP[T]) unit(_ *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		l := &o.clk.lanes[i]
		if !l.accepted {
			continue
		}
		clear(o.y0.part(0, lo, hi))
		for _, k := range o.k {
			clear(k.part(0, lo, hi))
		}
		for j := l.saveFrom; j < l.save; j++ {
			C := o.clk.outputCells(o.table, i, j, lo, hi)
			if C == nil {
				break
			}
			x, end := l.place(o.clk.span(i).Saves[j])
			if end {
				addTo(o.y1.part(0, lo, hi), 1, C)
				continue
			}
			addTo(o.y0.part(0, lo, hi), 1, C)
			for st, poly := range o.dense {
				if a := horner(poly, x); a != 0 {
					addTo(o.k[st].part(0, lo, hi), T(l.hTook*a), C)
				}
			}
		}
	}
}

// addTo computes dst += alpha·src.
func addTo[T backend.Float](dst []T, alpha T, src []T) {
	for i, v := range src {
		dst[i] += alpha * v
	}
}

// Interpolate sets dst to the solution on the tape at an instant.
func (b *Backend[T]) Interpolate(dst backend.Vec[T], at backend.At, tp backend.Tape[T], dense [][]float64) {
	if !b.live() {
		return
	}
	o := keep(b, &b.last.between)
	c := b.clock(at.Clock)
	*o = interpolate[T]{at: at, dst: b.out(dst), tape: b.tape(tp), dense: dense}
	if lo, hi := c.rangeOf(o.dst, 0); o.dst.blocks != 1 || hi-lo != o.tape.size || len(o.tape.lanes) != len(c.lanes) ||
		len(dense)+2 > o.tape.keep || len(dense) > maxStages {
		panic("cpu: a tape of another shape")
	}
	o.on = on[T]{clk: c, rows: o.dst.rows, work: o.dst.cols * (len(dense) + 1)}
	b.do(o)
}

// interpolate is the op of Interpolate.
type interpolate[T backend.Float] struct {
	on[T]
	at    backend.At
	dst   *vec[T]
	tape  *tape[T]
	dense [][]float64
}

func (o *interpolate[T]) unit(w *worker[T], u unit) {
	for i, lo, hi := o.clk.first(u); i >= 0; i, lo, hi = o.clk.after(u, i) {
		l, tl := &o.clk.lanes[i], &o.tape.lanes[i]
		if !l.selected(o.at.Rows) || len(tl.steps) == 0 {
			continue
		}
		D, now := o.dst.part(0, lo, hi), l.instant(o.at.Rows, o.at.C)
		sign := math.Copysign(1, tl.steps[0].hTook)
		// The first step that ends at or after now.
		n := sort.Search(len(tl.steps)-1, func(n int) bool { return sign*(tl.steps[n].end-now) >= 0 })
		st := &tl.steps[n]
		x := (now - st.taken) / st.hTook
		if now == st.end || x >= 1 {
			copy(D, o.tape.kept(i, n, 1, lo, hi))
			continue
		}
		for j := range o.dense {
			w.k[j] = o.tape.kept(i, n, 2+j, lo, hi)
		}
		w.interpolate(D, o.tape.kept(i, n, 0, lo, hi), max(x, 0), st.hTook, o.dense)
	}
}
