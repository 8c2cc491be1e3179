package adjoint

import (
	"context"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// reversal goes back over the steps of a loop, one at a time: see discrete for the
// equations.
type reversal[T backend.Float] struct {
	dev   backend.Reverser[T]
	field backend.Field[T]
	loop  *step.Loop[T]
	tab   *tableau.Tableau
	again bool // stages are evaluated again
	end   int  // the stage that may be the first of the next step, -1 for none
	dense [][]float64

	costate[T]             // the derivatives of the loss
	tangent    *costate[T] // their own derivatives in a direction, or nil

	z, v, zero backend.Vec[T] // Y_j and its tangent
	w          backend.Vec[T] // the direction of θ, or nil
	ones       []float64
	coef       [][]float64 // of κ_i: b_i, then a_ji
	extraA     [][]float64
	owned      []backend.Vec[T]
	recorded   step.Recorded
	sequence   func()                  // stepBack, made once
	fuser      backend.ReverseFuser[T] // nil: steps go back one by one
	walk       backend.Walk[T]         // of all steps
	walked     bool                    // at once, the last time
}

// costate is what goes backwards: every operation on it is linear, but for the
// products of f.
type costate[T backend.Float] struct {
	lambda, carry, out, kappa backend.Vec[T] // λ, κ_0 of the step behind, π, and κ_j
	pi, m                     []backend.Vec[T]
	theta, cotangents         backend.Vec[T] // nil without parameters, or without outputs

	terms, extra [][]backend.Vec[T] // of κ_i: λ and m_j; and m_j of stages for interpolation
	sum, behind  []backend.Vec[T]   // of λ; carry
	first, clear []backend.Move[T]
}

func (m *reversal[T]) free(dev backend.Backend[T]) {
	if m == nil {
		return
	}
	m.recorded.Close()
	for _, v := range m.owned {
		dev.Free(v)
	}
	m.owned = nil
}

// newReversal allocates what goes back over the steps of a loop whose state has one
// block, or two where the second is a tangent of the first.
func newReversal[T backend.Float](d *solver.Device[T], loop *step.Loop[T], again bool) (*reversal[T], error) {
	tab := loop.Tableau
	m := &reversal[T]{
		dev: d.Backend.(backend.Reverser[T]), field: d.Field, loop: loop, tab: tab,
		again: again, end: -1,
	}
	if loop.Saves > 0 {
		m.dense = tab.Dense.P
	}
	switch s := tab.Stages(); {
	case tab.FSAL:
		m.end = s - 1
	case len(loop.K) > s && tab.EndStage():
		m.end = s
	}
	m.sequence = m.stepBack
	m.ones = slices.Repeat([]float64{1}, len(loop.K)+1)
	var err error
	m.allocate(func(blocks, rows, cols int) (v backend.Vec[T]) {
		if err == nil {
			if v, err = m.dev.NewVec(blocks, rows, cols); err == nil {
				m.owned = append(m.owned, v)
			}
		}
		return v
	})
	if err != nil {
		m.free(d.Backend)
		return nil, err
	}
	m.costate.link(m)
	if m.tangent != nil {
		m.tangent.link(m)
	}
	for i := range loop.K {
		var coef, extra []float64
		if b := tab.B; i < len(b) && b[i] != 0 {
			coef = append(coef, b[i])
		}
		for j := i + 1; j < len(loop.K); j++ {
			switch a := m.row(j)[i]; {
			case a == 0:
			case j < tab.Stages():
				coef = append(coef, a)
			default:
				extra = append(extra, a)
			}
		}
		m.coef, m.extraA = append(m.coef, coef), append(m.extraA, extra)
	}
	if m.tangent == nil && loop.Hook == nil && loop.Fusion != backend.FuseNever {
		m.fuser, _ = m.dev.(backend.ReverseFuser[T])
		m.walk = backend.Walk[T]{
			Clock: loop.Clock, Field: m.field, Formula: backend.Formula{B: tab.B, Dense: m.dense}, End: m.end, Stages: !again,
			Lambda: m.lambda, Carry: m.carry, Theta: m.theta, Cotangents: m.cotangents,
		}
		for j := range loop.K {
			m.walk.A, m.walk.C = append(m.walk.A, m.row(j)), append(m.walk.C, m.at(j).C)
		}
	}
	return m, nil
}

// fused goes back over all steps on the tape at once, if the device can; begin says that
// nothing was gone back over before.
func (m *reversal[T]) fused(begin bool, skip []bool) bool {
	if m.fuser == nil {
		return false
	}
	w := m.walk
	w.Tape, w.Begin, w.Skip = m.loop.Tape, begin, skip
	m.walked = m.fuser.WalkBack(&w)
	return m.walked
}

func (m *reversal[T]) allocate(vec func(blocks, rows, cols int) backend.Vec[T]) {
	loop := m.loop
	m.z, m.zero = vec(1, loop.Rows, loop.Cols), vec(1, loop.Rows, loop.Cols)
	m.costate.allocate(m, vec)
	if loop.Blocks == 2 {
		m.v, m.tangent = vec(1, loop.Rows, loop.Cols), &costate[T]{}
		m.tangent.allocate(m, vec)
	}
}

// reversalSize is about the number of bytes that newReversal allocates.
func reversalSize[T backend.Float](d *solver.Device[T], loop *step.Loop[T]) (n int64) {
	m := &reversal[T]{field: d.Field, loop: loop}
	if loop.Saves > 0 {
		m.dense = loop.Tableau.Dense.P
	}
	m.allocate(func(blocks, rows, cols int) backend.Vec[T] {
		n += step.VecSize[T](blocks, rows, cols)
		return nil
	})
	return n
}

func (c *costate[T]) allocate(m *reversal[T], vec func(blocks, rows, cols int) backend.Vec[T]) {
	loop := m.loop
	state := func() backend.Vec[T] { return vec(1, loop.Rows, loop.Cols) }
	c.lambda, c.carry, c.out, c.kappa = state(), state(), state(), state()
	for range loop.K {
		c.m = append(c.m, state())
	}
	for range m.dense {
		c.pi = append(c.pi, state())
	}
	if p := m.field.NumParams(); p > 0 {
		c.theta = vec(1, 1, p)
	}
	if loop.Table != nil {
		c.cotangents = vec(loop.Table.Shape())
	}
}

// link lists operands, in the order of the coefficients.
func (c *costate[T]) link(m *reversal[T]) {
	s := m.tab.Stages()
	for i := range m.loop.K {
		var terms, extra []backend.Vec[T]
		if i < s && m.tab.B[i] != 0 {
			terms = append(terms, c.lambda)
		}
		for j := i + 1; j < len(m.loop.K); j++ {
			switch {
			case m.row(j)[i] == 0:
			case j < s:
				terms = append(terms, c.m[j])
			default:
				extra = append(extra, c.m[j])
			}
		}
		c.terms, c.extra = append(c.terms, terms), append(c.extra, extra)
	}
	c.sum = append(slices.Clone(c.m[:s]), c.out)
	c.behind = []backend.Vec[T]{c.carry}
	c.first = []backend.Move[T]{{Dst: c.carry, Src: c.kappa}}
	c.clear = []backend.Move[T]{{Dst: c.carry, Src: m.zero}}
}

// cotangentsAt sets the cotangents of the outputs that jumps lists to those of dLdz,
// which has a block for t0 too, and the others to zero.
func (m *reversal[T]) cotangentsAt(jumps []int, dLdz backend.Vec[T]) {
	m.dev.Zero(m.cotangents)
	for _, i := range jumps {
		m.dev.Copy(m.cotangents.Block(i-1), dLdz.Block(i))
	}
}

// start clears what steps add to.
func (m *reversal[T]) start() {
	m.each(func(c *costate[T]) {
		m.dev.Zero(c.lambda)
		m.dev.Zero(c.carry)
		if c.theta != nil {
			m.dev.Zero(c.theta)
		}
	})
}

// row is the row of stage j in the tableau, stages for interpolation last.
func (m *reversal[T]) row(j int) []float64 {
	if s := m.tab.Stages(); j >= s {
		return m.tab.Dense.ExtraA[j-s]
	}
	return m.tab.A[j]
}

// at is the instant of stage j of the steps being reversed.
func (m *reversal[T]) at(j int) backend.At {
	at := backend.At{Clock: m.loop.Clock, Rows: backend.Accepted}
	if s := m.tab.Stages(); j >= s {
		at.C, at.Rows = m.tab.Dense.ExtraC[j-s], m.loop.ExtraRows()
	} else {
		at.C = m.tab.C[j]
	}
	return at
}

// state is Y_j, or with block 1 its tangent.
func (m *reversal[T]) state(j, block int, at backend.At) backend.Vec[T] {
	y := m.loop.Y.Of[block]
	if j == 0 {
		return y
	}
	dst := m.z
	if block == 1 {
		dst = m.v
	}
	m.dev.Combine(dst, y, at, m.row(j), m.loop.StagesOf(block))
	return dst
}

// back goes back by the attempts on the tape, which are those from `from` down to the one
// after `to`, at once if the device can. begin says that they are the last of the solve.
func (m *reversal[T]) back(ctx context.Context, begin bool, from, to int, skip []bool, through *jumps[T]) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if m.fused(begin, skip) {
		return nil
	}
	if begin {
		m.start()
	}
	m.dev.Rewind(m.loop.Clock, m.loop.Tape, int64(from), skip)
	return m.steps(ctx, from, to, through)
}

// steps goes back by the attempts from `from` down to the one after `to`.
func (m *reversal[T]) steps(ctx context.Context, from, to int, through *jumps[T]) error {
	if through == nil {
		recorder, _ := m.dev.(backend.Recorder)
		return m.recorded.Repeat(ctx, recorder, from-to, m.sequence)
	}
	for n := from; n > to; n-- {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := m.step(n, through); err != nil {
			return err
		}
	}
	return nil
}

// stepBack goes back by an attempt, to be recorded. There are no events.
func (m *reversal[T]) stepBack() { _ = m.step(0, nil) } // which cannot fail

// step goes back by attempt n.
func (m *reversal[T]) step(n int, through *jumps[T]) error {
	dev, loop := m.dev, m.loop
	dev.Back(loop.Clock, loop.Tape, loop.Kept())
	if m.again {
		for j := range loop.K {
			at := m.at(j)
			m.field.Eval(loop.K[j].Vec, at, m.state(j, 0, at))
		}
	}
	if err := through.before(m, n); err != nil {
		return err
	}
	m.each(func(c *costate[T]) {
		if c.cotangents != nil {
			dev.SaveVJP(loop.Clock, m.dense, c.cotangents, c.out, c.lambda, c.pi)
		}
	})
	if err := through.inside(m, n); err != nil {
		return err
	}
	for j := len(loop.K) - 1; j >= 0; j-- {
		m.stage(j)
	}
	m.each(func(c *costate[T]) {
		all := backend.At{Clock: loop.Clock, Rows: backend.Accepted}
		dev.Sum(c.lambda, c.lambda, all, m.ones[:len(c.sum)], c.sum)
		if s := m.tab.Stages(); len(loop.K) > s {
			inside := backend.At{Clock: loop.Clock, Rows: loop.ExtraRows()}
			dev.Sum(c.lambda, c.lambda, inside, m.ones[:len(loop.K)-s], c.m[s:])
		}
	})
	return nil
}

func (m *reversal[T]) each(do func(c *costate[T])) {
	do(&m.costate)
	if m.tangent != nil {
		do(m.tangent)
	}
}

// stage takes stage j back.
func (m *reversal[T]) stage(j int) {
	at := m.at(j)
	m.each(func(c *costate[T]) { m.gather(c, j, at) })
	if j == 0 {
		at.Rows = backend.Fresh // the others' belongs to the step before
	}
	z := m.state(j, 0, at)
	m.field.VJP(at, backend.VJP[T]{Z: z, A: m.kappa, AZ: m.m[j], Alpha: 1, G: m.theta, W: 1})
	if t := m.tangent; t != nil {
		m.field.(backend.SecondOrder[T]).VJPTangent(at, backend.VJPTangent[T]{
			Z: z, V: m.state(j, 1, at), A: m.kappa, B: t.kappa, W: m.w, BZ: t.m[j], Alpha: 1, G: t.theta, Weight: 1,
		})
	}
}

// gather sets κ_j.
func (m *reversal[T]) gather(c *costate[T], j int, at backend.At) {
	dev, clk := m.dev, m.loop.Clock
	base := m.zero
	if j < len(c.pi) {
		base = c.pi[j]
	}
	dev.Combine(c.kappa, base, at, m.coef[j], c.terms[j])
	if len(c.extra[j]) > 0 {
		dev.Combine(c.kappa, c.kappa, backend.At{Clock: clk, Rows: m.loop.ExtraRows()}, m.extraA[j], c.extra[j])
	}
	if j == m.end {
		dev.Sum(c.kappa, c.kappa, at, m.ones[:1], c.behind)
	}
	if j == 0 {
		dev.Commit(clk, backend.Accepted, c.first)
		dev.Commit(clk, backend.Fresh, c.clear)
		dev.Zero(c.m[0])
	}
}
