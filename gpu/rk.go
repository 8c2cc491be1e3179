//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"math/bits"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// blockSize is BLOCK in kernels/flat.cuh, the threads of every block.
const blockSize = 256

// Limits of kernels/rk.cu.
const (
	maxStages = 32
	maxMoves  = 8
	maxTerms  = 320
)

func ceilDiv(n, d int64) int64 { return (n + d - 1) / d }

// flat is Flat in kernels/flat.cuh.
type flat struct {
	total      int64
	rows, cols int32
}

// flatten describes v's elements and says how many of them a thread takes: 16
// bytes' worth where the addresses, or-ed together, and the rows of a lane allow
// it, else one.
func flatten[T backend.Float](c *clock[T], v *vec[T], addresses driver.Ptr) (f flat, width int64) {
	c.fits(v)
	f = flat{total: int64(v.blocks) * int64(v.rows) * int64(v.cols), rows: int32(v.rows), cols: int32(v.cols)}
	width = 16 / sizeOf[T]()
	whole := f.total
	if c.lanes > 1 {
		whole = int64(v.cols)
	}
	if whole%width != 0 || addresses%16 != 0 {
		width = 1
	}
	return f, width
}

// names are those of an elementwise kernel for threads that take 16
// bytes and for those that take one element.
type names struct{ wide, narrow string }

// elementwise launches a kernel that sees its Vecs as a flat.
func elementwise[T backend.Float, A any](b *Backend[T], family string, kernel names, x flat, width int64, args *A) {
	name := kernel.wide
	if width == 1 {
		name = kernel.narrow
	}
	launch(b, family, name, ceilDiv(x.total, width*blockSize), 0, args)
}

// combineArgs is CombineArgs in kernels/rk.cu.
type combineArgs struct {
	clk         clockView
	x           flat
	dst, y      driver.Ptr
	k           [maxStages]driver.Ptr
	coef        [maxStages]float64
	count, rows int32
	plain, _    int32
}

// Combine sets dst = y + h·Σ coef[j]·k[j].
func (b *Backend[T]) Combine(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	b.combine(dst, y, at, 0, coef, k)
}

// Sum sets dst = y + Σ coef[j]·k[j].
func (b *Backend[T]) Sum(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	b.combine(dst, y, at, 1, coef, k)
}

func (b *Backend[T]) combine(dst, y backend.Vec[T], at backend.At, plain int32, coef []float64, k []backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(coef) > len(k) {
		panic("gpu: more coefficients than stages")
	}
	c := b.clock(at.Clock)
	d, s := b.vec(dst), b.vec(y)
	sameShape(d, s)
	a := combineArgs{clk: c.view, dst: d.ptr, y: s.ptr, rows: selection(at.Rows), plain: plain}
	addresses := d.ptr | s.ptr
	for j, w := range coef {
		if w == 0 {
			continue
		}
		if a.count == maxStages {
			panic("gpu: a method of more than 32 stages")
		}
		x := b.vec(k[j])
		sameShape(d, x)
		a.k[a.count], a.coef[a.count] = x.ptr, w
		a.count++
		addresses |= x.ptr
	}
	var width int64
	a.x, width = flatten(c, d, addresses)
	elementwise(b, "rk", names{"rk_combine", "rk_combine_1"}, a.x, width, &a)
}

// extent is Extent in kernels/reduce.cuh.
type extent struct {
	block, n     int64
	blocks, cols int32
}

func (c *clock[T]) extent(v *vec[T]) extent {
	c.fits(v)
	x := extent{block: int64(v.rows) * int64(v.cols), blocks: int32(v.blocks), cols: int32(v.cols)}
	x.n = x.block / int64(c.lanes)
	return x
}

// plan says how the lanes of a Vec are summed. It depends on nothing but the number
// of elements of a lane, on which the order of a sum may depend.
type plan struct {
	team   int32 // threads of a lane, if chunks is 1
	chunk  int32 // elements
	chunks int32 // of a lane in each block of the Vec
}

func planFor(n int64) plan {
	const small, single, large = 128, 2048, 1 << 17
	switch {
	case n <= small:
		return plan{team: teamOf(n), chunks: 1}
	case n <= single:
		return plan{team: blockSize, chunks: 1}
	case n <= large:
		return plan{chunk: single, chunks: int32(ceilDiv(n, single))}
	}
	const chunk = 4 * single // fewer, so that less is left to add
	return plan{chunk: chunk, chunks: int32(ceilDiv(n, chunk))}
}

// teamOf is the least power of two that covers n elements, up to a warp.
func teamOf(n int64) int32 {
	if n <= 1 {
		return 1
	}
	return int32(1) << min(bits.Len64(uint64(n-1)), 5)
}

// norm is the names of a norm's kernels in kernels/reduce.cuh, and the size of its
// Sum in bytes.
type norm struct {
	family, lanes, chunks, finish string
	sum                           int64
}

var errorNorm = norm{"rk", "rk_error", "rk_error_chunks", "rk_error_finish", 32}

// reduceLanes launches a norm as p says. partial points to where args say that the
// sums of chunks are.
func reduceLanes[T backend.Float, A any](b *Backend[T], c *clock[T], kernels norm, x extent, p plan, partial *driver.Ptr, args *A) {
	if p.chunks == 1 {
		launch(b, kernels.family, kernels.lanes, ceilDiv(int64(c.lanes)*int64(p.team), blockSize), 0, args)
		return
	}
	blocks := int64(c.lanes) * int64(x.blocks) * int64(p.chunks)
	var ok bool
	if *partial, ok = c.scratch(blocks * kernels.sum); !ok {
		return
	}
	launch(b, kernels.family, kernels.chunks, blocks, 0, args)
	launch(b, kernels.family, kernels.finish, int64(c.lanes), 0, args)
}

// errorArgs is ErrorArgs in kernels/rk.cu.
type errorArgs struct {
	clk                  clockView
	x                    extent
	y0, y1               driver.Ptr
	k                    [maxStages]driver.Ptr
	e, e2                [maxStages]float64
	rel, abs             float64
	partial              driver.Ptr
	count, second, first int32
	plan
	_ int32
}

// ErrorRatio sets the error of every running lane.
func (b *Backend[T]) ErrorRatio(clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
	if !b.live() {
		return
	}
	if len(e) > maxStages || len(e2) > maxStages {
		panic("gpu: a method of more than 32 stages")
	}
	c := b.clock(clk)
	if len(parts) == 0 { // nothing errs
		a := errorArgs{clk: c.view, first: 1, plan: planFor(0)}
		reduceLanes(b, c, errorNorm, a.x, a.plan, &a.partial, &a)
	}
	for i := range parts {
		y0, y1 := b.vec(parts[i].Y0), b.vec(parts[i].Y1)
		sameShape(y0, y1)
		a := errorArgs{clk: c.view, x: c.extent(y0), y0: y0.ptr, y1: y1.ptr, rel: tol.Rel, abs: tol.Abs}
		for j := range max(len(e), len(e2)) {
			var w, w2 float64
			if j < len(e) {
				w = e[j]
			}
			if j < len(e2) {
				w2 = e2[j]
			}
			if w == 0 && w2 == 0 {
				continue
			}
			x := b.vec(parts[i].K[j])
			sameShape(y0, x)
			a.k[a.count], a.e[a.count], a.e2[a.count] = x.ptr, w, w2
			a.count++
		}
		if e2 != nil {
			a.second = 1
		}
		if i == 0 {
			a.first = 1
		}
		a.plan = planFor(a.x.n)
		reduceLanes(b, c, errorNorm, a.x, a.plan, &a.partial, &a)
	}
}

// saveArgs is SaveArgs in kernels/rk.cu.
type saveArgs struct {
	clk                    clockView
	x                      extent
	y0, y1                 driver.Ptr
	k                      [maxStages]driver.Ptr
	table                  driver.Ptr
	blocks, stages, powers int32
	team, chunks           int32
	_                      int32
	dense                  [maxTerms]float64
}

// Save writes the outputs that the accepted step has reached.
func (b *Backend[T]) Save(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
	if !b.live() {
		return
	}
	if len(dense) > len(k) || len(dense) > maxStages {
		panic("gpu: more interpolation weights than stages")
	}
	b.save("rk_save", false, clk, dense, y0, y1, k, table)
}

// outputs is the number of blocks of a table for states like y, or of its rows where
// lanes have spans of their own.
func (c *clock[T]) outputs(table, y *vec[T]) int32 {
	if table.cols != y.cols || y.blocks != 1 || c.own && table.blocks != 1 || !c.own && table.rows != y.rows {
		panic("gpu: shapes differ")
	}
	if c.own {
		return int32(table.rows)
	}
	return int32(table.blocks)
}

// save launches a kernel that takes SaveArgs. Stages whose weights are all 0 are left
// out, unless all are wanted.
func (b *Backend[T]) save(kernel string, all bool, clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
	c := b.clock(clk)
	s0, s1, out := b.vec(y0), b.vec(y1), b.vec(table)
	sameShape(s0, s1)
	a := saveArgs{clk: c.view, x: c.extent(s0), y0: s0.ptr, y1: s1.ptr, table: out.ptr, blocks: c.outputs(out, s0)}
	for _, p := range dense {
		a.powers = max(a.powers, int32(len(p)))
	}
	if int(a.powers)*len(dense) > maxTerms {
		b.fail(fmt.Errorf("gpu: an interpolant of %d stages and degree %d: %w: at most %d weights fit; use the CPU backend",
			len(dense), a.powers, backend.ErrUnsupported, maxTerms))
		return
	}
	for j, p := range dense {
		if !all && allZero(p) {
			continue
		}
		x := b.vec(k[j])
		sameShape(s0, x)
		a.k[a.stages] = x.ptr
		copy(a.dense[a.stages*a.powers:], p)
		a.stages++
	}

	var teams, grid int64
	if c.lanes > 1 && a.x.n <= 128 {
		const shared = 48 << 10 // of a block, on any device
		a.team = teamOf(a.x.n)
		for int64(blockSize/a.team)*int64(a.stages)*sizeOf[T]() > shared {
			a.team *= 2
		}
		teams = int64(blockSize / a.team)
		grid = ceilDiv(int64(c.lanes), teams)
	} else {
		// Enough blocks to fill a device, not one more: most steps have no output.
		const elements, most = 8 * blockSize, 2048
		a.team, teams = blockSize, 1
		a.chunks = int32(min(ceilDiv(a.x.n, elements), max(1, most/int64(c.lanes))))
		grid = int64(c.lanes) * int64(a.chunks)
	}
	launch(b, "rk", kernel, grid, teams*int64(a.stages)*sizeOf[T](), &a)
}

func allZero(x []float64) bool {
	for _, v := range x {
		if v != 0 {
			return false
		}
	}
	return true
}

// commitArgs is CommitArgs in kernels/rk.cu.
type commitArgs struct {
	clk         clockView
	x           flat
	dst, src    [maxMoves]driver.Ptr
	count, rows int32
}

// Commit sets dst = src in the selected rows.
func (b *Backend[T]) Commit(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	for len(moves) > 0 {
		a := commitArgs{clk: c.view, rows: selection(rows)}
		shape := b.vec(moves[0].Dst)
		var addresses driver.Ptr
		n := 0
		for n < len(moves) && n < maxMoves {
			dst, src := b.vec(moves[n].Dst), b.vec(moves[n].Src)
			sameShape(dst, src)
			if !alike(shape, dst) || depends(b, moves[:n], dst, src) {
				break
			}
			a.dst[n], a.src[n] = dst.ptr, src.ptr
			addresses |= dst.ptr | src.ptr
			n++
		}
		a.count = int32(n)
		var width int64
		a.x, width = flatten(c, shape, addresses)
		elementwise(b, "rk", names{"rk_commit", "rk_commit_1"}, a.x, width, &a)
		moves = moves[n:]
	}
}

// depends reports whether dst = src must wait until all rows of earlier moves are
// done: where elements meet that different threads own.
func depends[T backend.Float](b *Backend[T], earlier []backend.Move[T], dst, src *vec[T]) bool {
	for _, m := range earlier {
		d, s := b.vec(m.Dst), b.vec(m.Src)
		if crosses(d, src) || crosses(d, dst) || crosses(s, dst) {
			return true
		}
	}
	return false
}

// crosses reports whether x and y, of one shape, overlap without being the same.
func crosses[T backend.Float](x, y *vec[T]) bool {
	n := driver.Ptr(int64(x.blocks) * int64(x.rows) * int64(x.cols) * sizeOf[T]())
	return x.ptr != y.ptr && x.ptr < y.ptr+n && y.ptr < x.ptr+n
}

// stopArgs is StopArgs in kernels/rk.cu.
type stopArgs struct {
	clk        clockView
	x          flat
	y, table   driver.Ptr
	blocks, op int32
}

// AtStop acts on the rows of lanes that have just reached a stop.
func (b *Backend[T]) AtStop(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
	if !b.live() {
		return
	}
	c := b.clock(clk)
	state, tab := b.vec(y), b.vec(table)
	a := stopArgs{clk: c.view, y: state.ptr, table: tab.ptr, blocks: c.outputs(tab, state), op: int32(op)}
	var width int64
	a.x, width = flatten(c, state, state.ptr|tab.ptr)
	elementwise(b, "rk", names{"rk_stop", "rk_stop_1"}, a.x, width, &a)
}
