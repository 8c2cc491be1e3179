package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func errorCases[T backend.Float]() []testCase[T] {
	return append(elementwise("ErrorRatio", errorRatio[T]),
		testCase[T]{"ErrorRatio/parts of other shapes", errorParts[T]},
		testCase[T]{"ErrorRatio/no estimate", errorNone[T]},
		testCase[T]{"ErrorRatio/not finite", errorNotFinite[T]},
		testCase[T]{"ErrorRatio/a stage that counts for nothing", errorUnread[T]},
		testCase[T]{"ErrorRatio/tolerance 0", errorZeroTolerance[T]},
		testCase[T]{"ErrorRatio/overflow", errorOverflow[T]},
		testCase[T]{"ErrorRatio/ties", errorTies[T]},
	)
}

// part is backend.Part with what is in it.
type part[T backend.Float] struct {
	y0, y1 *operand[T]
	k      []*operand[T]
	v      []backend.Vec[T]
}

func (s *suite[T]) part(stages, blocks, rows, cols int) part[T] {
	s.Helper()
	p := part[T]{y0: s.operand("y0", blocks, rows, cols), y1: s.operand("y1", blocks, rows, cols)}
	p.k, p.v = s.stages(stages, blocks, rows, cols)
	return p
}

// worst is the component with the largest error over its tolerance.
type worst struct {
	ratio    float64
	row, col int
}

// estimate is Σ e[j]·k[j] at element i.
func (p *part[T]) estimate(e []float64, i int) (sum float64) {
	for j, c := range e {
		if c != 0 {
			sum += c * float64(p.k[j].host[i])
		}
	}
	return sum
}

// blockError is the error ratio of a lane in one block, and its worst component.
func (p *part[T]) blockError(tol backend.Tolerance, h float64, e, e2 []float64, block int, mine func(row int) bool) (ratio float64, w worst) {
	w.ratio = -1
	var n, sum, sum2 float64
	size := p.y0.rows * p.y0.cols
	for i := block * size; i < (block+1)*size; i++ {
		row := p.y0.row(i)
		if !mine(row) {
			continue
		}
		y0, y1 := float64(p.y0.host[i]), float64(p.y1.host[i])
		est, est2 := p.estimate(e, i), p.estimate(e2, i)
		if !finite(y1) || !finite(est) || !finite(est2) {
			return math.NaN(), worst{math.NaN(), row, i % p.y0.cols}
		}
		scale := tol.Abs + tol.Rel*math.Max(math.Abs(y0), math.Abs(y1))
		over := func(x float64) float64 {
			if x == 0 {
				return 0
			}
			return math.Abs(x) / scale
		}
		r, r2 := over(h*est), over(h*est2)
		n++
		sum += r * r
		sum2 += r2 * r2
		if r > w.ratio {
			w = worst{r, row, i % p.y0.cols}
		}
	}
	switch {
	case sum == 0:
		return 0, w
	case !finite(sum) || !finite(sum2):
		return math.Inf(1), w
	case e2 == nil:
		return math.Sqrt(sum / n), w
	}
	return sum / n / math.Sqrt(sum/n+0.01*sum2/n), w
}

// checkError takes the error ratio of both clocks, checks the worst component, and
// whether the norm leads to the right step.
func checkError[T backend.Float](s *suite[T], tm *timer[T], tol backend.Tolerance, e, e2 []float64, parts ...part[T]) {
	s.Helper()
	verb := fmt.Sprintf("ErrorRatio of %d×%d×%d %T, %d parts, %d lanes", parts[0].y0.blocks, parts[0].y0.rows, parts[0].y0.cols,
		T(0), len(parts), len(tm.ref.lanes))
	if e2 != nil {
		verb += ", two estimates"
	}
	worsts := make([]worst, len(tm.ref.lanes))
	for l := range tm.ref.lanes {
		lane := &tm.ref.lanes[l]
		if lane.status != backend.StatusRunning {
			continue
		}
		lane.ratio = 0
		worsts[l].ratio = -1
		for _, p := range parts {
			for block := range p.y0.blocks {
				r, w := p.blockError(lane.tolerance(tol), lane.step.h, e, e2, block, func(row int) bool { return tm.ref.laneOf(row) == lane })
				if math.IsNaN(r) || r > lane.ratio {
					if !math.IsNaN(lane.ratio) {
						lane.ratio = r
					}
				}
				if old := worsts[l].ratio; !math.IsNaN(old) && (math.IsNaN(w.ratio) || w.ratio > old) {
					worsts[l] = w
				}
			}
		}
	}
	var all []backend.Part[T]
	for _, p := range parts {
		all = append(all, backend.Part[T]{Y0: p.y0.v, Y1: p.y1.v, K: p.v})
	}
	s.ErrorRatio(tm.clk, tol, e, e2, all)
	for l, got := range tm.lanes() {
		if tm.ref.lanes[l].status != backend.StatusRunning {
			continue
		}
		if w := worsts[l]; got.Row != w.row || got.Col != w.col || !closeTo(got.Ratio, w.ratio, 1e-12) {
			s.Errorf("%s: lane %d: the worst component is (%d, %d) with ratio %.15g, want (%d, %d) with %.15g",
				verb, l, got.Row, got.Col, got.Ratio, w.row, w.col, w.ratio)
		}
	}
	ctl := stock
	ctl.MinFactor, ctl.MaxFactor = 1e-30, 1e30 // so that every norm shows in the step it leads to
	tm.advance(ctl)
	tm.verify(verb + ", then Advance")
	for _, p := range parts {
		unchanged(verb, append(p.k, p.y0, p.y1)...)
	}
}

var (
	errorTol = backend.Tolerance{Abs: 0.05, Rel: 0.3}
	errorE   = []float64{0.7, 0, -0.4, 0.1}
	errorE2  = []float64{-0.3, 0.9, 0, 0.2}
)

func errorRatio[T backend.Float](s *suite[T], rows, cols int, all bool) {
	for _, blocks := range []int{1, 3} {
		p := s.part(4, blocks, rows, cols)
		for _, e2 := range [][]float64{nil, errorE2} {
			if all {
				for kind := range kinds {
					checkError(s, s.scene(1, kind), errorTol, errorE, e2, p)
				}
				checkError(s, s.scene(rows, 0), errorTol, errorE, e2, p)
				continue
			}
			checkError(s, s.fresh(1), errorTol, errorE, e2, p)
			checkError(s, s.fresh(rows), errorTol, errorE, e2, p)
		}
	}
}

// errorParts has parts of different shapes, one of them without elements, in which
// either may have the larger norm.
func errorParts[T backend.Float](s *suite[T]) {
	p, q, none := s.part(4, 2, 5, 3), s.part(4, 1, 1, 17), s.part(4, 1, 1, 0)
	checkError(s, s.fresh(1), errorTol, errorE, errorE2, p, q, none)
	for i := range q.k[0].host {
		q.k[0].host[i] *= 20
	}
	q.k[0].set(q.k[0].host)
	checkError(s, s.fresh(1), errorTol, errorE, errorE2, p, q, none)
	checkError(s, s.fresh(1), errorTol, errorE, errorE2, q, p)
	r := s.part(4, 2, 5, 1)
	checkError(s, s.fresh(5), errorTol, errorE, nil, p, r)
}

func errorNone[T backend.Float](s *suite[T]) {
	p := s.part(2, 1, 7, 3)
	p.k[0].set(fill[T](21, math.NaN()))
	for _, lanes := range []int{1, 7} {
		checkError(s, s.fresh(lanes), errorTol, nil, nil, p)
	}
	p.y1.host[10] = T(math.Inf(1))
	p.y1.set(p.y1.host)
	for _, lanes := range []int{1, 7} {
		checkError(s, s.fresh(lanes), errorTol, nil, nil, p)
	}
}

// errorNotFinite has another defect in every row.
func errorNotFinite[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, e2 := range [][]float64{nil, errorE2} {
			for lone := range rows { // with one lane, one defect at a time
				p := s.part(4, 2, rows, cols)
				spoil := func(row int) {
					o := []*operand[T]{p.y1, p.k[0], p.k[2], p.k[3], p.y1, p.k[0]}
					if row < len(o) { // the last row has none
						block := row % 2
						o[row].host[(block*rows+row)*cols+row%cols] = T(bad)
						o[row].set(o[row].host)
					}
				}
				spoil(lone)
				checkError(s, s.fresh(1), errorTol, errorE, e2, p)
				if lone > 0 {
					continue
				}
				for row := range rows {
					spoil(row)
				}
				checkError(s, s.fresh(rows), errorTol, errorE, e2, p)
				checkError(s, s.fresh(1), errorTol, errorE, e2, p)
			}
		}
	}
}

// errorUnread has NaN in a stage that neither estimate uses, then in one that the
// second alone uses.
func errorUnread[T backend.Float](s *suite[T]) {
	p := s.part(5, 1, 5, 3)
	p.k[4].set(fill[T](15, math.NaN()))
	for _, lanes := range []int{1, 5} {
		checkError(s, s.fresh(lanes), errorTol, []float64{0.7, 0, -0.4, 0.1, 0}, errorE2, p)
	}
	p.k[1].host[7] = T(math.NaN())
	p.k[1].set(p.k[1].host)
	for _, lanes := range []int{1, 5} {
		checkError(s, s.fresh(lanes), errorTol, errorE, nil, p)
		checkError(s, s.fresh(lanes), errorTol, errorE, errorE2, p)
	}
}

// errorZeroTolerance has components at 0 without a tolerance, with and without error.
func errorZeroTolerance[T backend.Float](s *suite[T]) {
	p := s.part(1, 1, 4, 1)
	p.y0.set([]T{0, 0, 1, 1})
	p.y1.set([]T{0, 0, 0, 1})
	p.k[0].set([]T{0, 1, 0, 1})
	for _, lanes := range []int{1, 4} {
		checkError(s, s.fresh(lanes), backend.Tolerance{Rel: 0.5}, []float64{1}, nil, p)
		checkError(s, s.fresh(lanes), backend.Tolerance{Rel: 0.5}, []float64{1}, []float64{0.5}, p)
	}
}

// errorOverflow has sums of squares beyond float64.
func errorOverflow[T backend.Float](s *suite[T]) {
	p := s.part(2, 1, 3, 2)
	for _, lanes := range []int{1, 3} {
		tol := backend.Tolerance{Abs: 1e-200}
		checkError(s, s.fresh(lanes), tol, []float64{1, 0}, nil, p)
		checkError(s, s.fresh(lanes), tol, []float64{1, 0}, []float64{0, 1}, p)
		// Only the second estimate is that large.
		checkError(s, s.fresh(lanes), backend.Tolerance{Abs: 1e-100}, []float64{1e-100, 0}, []float64{0, 1e100}, p)
	}
}

// errorTies: of equal components the first is named.
func errorTies[T backend.Float](s *suite[T]) {
	p := s.part(1, 2, 67, 5)
	n := 2 * 67 * 5
	p.y0.set(fill[T](n, 1))
	p.y1.set(fill[T](n, 1))
	for _, v := range []float64{0.5, 0} {
		p.k[0].set(fill[T](n, v))
		checkError(s, s.fresh(1), errorTol, []float64{1}, nil, p)
		checkError(s, s.fresh(67), errorTol, []float64{1}, nil, p)
	}
}

func proposeCases[T backend.Float]() (all []testCase[T]) {
	for _, sh := range shapes {
		all = append(all, testCase[T]{fmt.Sprintf("ProposeStep/%dx%d", sh[0], sh[1]), func(s *suite[T]) { proposeShape(s, sh[0], sh[1]) }})
	}
	return append(all,
		testCase[T]{"ProposeStep/every branch", proposeBranches[T]},
		testCase[T]{"ProposeStep/lanes in every state", proposeStates[T]},
	)
}

// norm is the RMS of x over the tolerance of a lane's rows of y, largest over blocks.
func (y *operand[T]) norm(tol backend.Tolerance, mine func(row int) bool, x func(i int) float64) (largest float64) {
	size := y.rows * y.cols
	for block := range y.blocks {
		var n, sum float64
		for i := block * size; i < (block+1)*size; i++ {
			if !mine(y.row(i)) {
				continue
			}
			n++
			if v := x(i); v != 0 {
				r := v / (tol.Abs + tol.Rel*math.Abs(float64(y.host[i])))
				sum += r * r
			}
		}
		if d := math.Sqrt(sum / n); math.IsNaN(d) || d > largest {
			largest = d
			if math.IsNaN(d) {
				return d
			}
		}
	}
	return largest
}

// checkPropose makes both calls of ProposeStep. f1 is a function of the trial step
// only in name: what matters is what is computed from it.
func checkPropose[T backend.Float](s *suite[T], what string, tm *timer[T], tol backend.Tolerance, y0, f0, f1 *operand[T]) {
	s.Helper()
	const order = 4
	verb := fmt.Sprintf("ProposeStep of %d×%d×%d %T, %d lanes, %s", y0.blocks, y0.rows, y0.cols, T(0), len(tm.ref.lanes), what)
	norm := func(l *refLane, x func(i int) float64) float64 {
		return y0.norm(l.tolerance(tol), func(row int) bool { return tm.ref.laneOf(row) == l }, x)
	}
	each := func(size func(l *refLane, d0, d1 float64) float64) {
		for i := range tm.ref.lanes {
			l := &tm.ref.lanes[i]
			if l.status == backend.StatusRunning && !(tm.ref.own() && l.span.H0 != 0) {
				d0 := norm(l, func(i int) float64 { return float64(y0.host[i]) })
				d1 := norm(l, func(i int) float64 { return float64(f0.host[i]) })
				tm.ref.propose(l, size(l, d0, d1))
			}
		}
	}
	s.ProposeStep(tm.clk, y0.v, f0.v, nil, order, tol)
	each(func(l *refLane, d0, d1 float64) float64 {
		if d0 < 1e-5 || d1 < 1e-5 {
			return 1e-6
		}
		return 0.01 * d0 / d1
	})
	tm.verify(verb + ", first call")
	s.ProposeStep(tm.clk, y0.v, f0.v, f1.v, order, tol)
	each(func(l *refLane, d0, d1 float64) float64 {
		h0 := math.Abs(l.step.h)
		d2 := norm(l, func(i int) float64 { return float64(f1.host[i]) - float64(f0.host[i]) }) / h0
		if math.IsNaN(d1) || math.IsNaN(d2) {
			return math.NaN()
		}
		h1 := math.Pow(0.01/math.Max(d1, d2), 1./(order+1))
		if math.Max(d1, d2) <= 1e-15 {
			h1 = math.Max(1e-6, h0*1e-3)
		}
		return math.Min(100*h0, h1)
	})
	tm.verify(verb + ", second call")
	unchanged(verb, y0, f0, f1)
}

func proposeShape[T backend.Float](s *suite[T], rows, cols int) {
	for _, blocks := range []int{1, 2} {
		y0, f0, f1 := s.operand("y0", blocks, rows, cols), s.operand("f0", blocks, rows, cols), s.operand("f1", blocks, rows, cols)
		span := backend.Span{T0: 0.5, Stops: []float64{9}}
		checkPropose(s, "random", s.timer(1, span), errorTol, y0, f0, f1)
		checkPropose(s, "random", s.timer(rows, span), errorTol, y0, f0, f1)
	}
}

// proposeBranches has one branch of the algorithm in every row.
func proposeBranches[T backend.Float](s *suite[T]) {
	const rows, cols = 11, 3
	nan, inf := math.NaN(), math.Inf(1)
	y0, f0, f1 := s.operand("y0", 1, rows, cols), s.operand("f0", 1, rows, cols), s.operand("f1", 1, rows, cols)
	table := [rows][3]float64{ // factors of y0, f0 and f1
		{1, 1, 1},
		{1e-8, 1, 1},     // d0 small
		{1, 1e-8, 1},     // d1 small
		{1, 0, 0},        // both derivatives zero
		{1e-8, 1e-3, 0},  // 100·h0 limits
		{1, 1e-3, 1e-3},  // a long step
		{1, 1, 1e6},      // a stiff one
		{1, nan, 1},      // f0 not finite
		{1, 1, inf},      // f1 not finite
		{nan, 1, 1},      // y0 not finite
		{1e-8, 1, -1e-8}, // and an ordinary one
	}
	for r, factor := range table {
		for i, o := range []*operand[T]{y0, f0, f1} {
			for c := range cols {
				o.host[r*cols+c] *= T(factor[i])
			}
		}
	}
	for _, o := range []*operand[T]{y0, f0, f1} {
		o.set(o.host)
	}
	for name, span := range map[string]backend.Span{
		"forwards":         {T0: 0.5, Stops: []float64{9}},
		"backwards":        {T0: 0.5, Stops: []float64{-9}},
		"MaxStep":          {T0: 0.5, Stops: []float64{9}, MaxStep: 1e-4},
		"a stop close by":  {T0: 0.5, Stops: []float64{0.50001, 9}},
		"a short span":     {T0: 0.5, Stops: []float64{0.50000001}},
		"a break close by": {T0: 0.5, Stops: []float64{0.50001, 9}, Breaks: []float64{0.5, 0.50001}},
	} {
		checkPropose(s, name, s.timer(rows, span), errorTol, y0, f0, f1)
	}
	// One lane for each row on its own, and a tolerance of 0 where the state is 0.
	zero := s.input("y0", 1, 2, 1, []T{0, 1})
	f := s.input("f0", 1, 2, 1, []T{1, 0})
	checkPropose(s, "tolerance 0", s.timer(2, backend.Span{Stops: []float64{2}}), backend.Tolerance{Rel: 0.1}, zero, f, f)
}

// proposeStates: lanes that have ended keep what they have, and no first stage is
// stale afterwards.
func proposeStates[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	y0, f0, f1 := s.operand("y0", 1, rows, cols), s.operand("f0", 1, rows, cols), s.operand("f1", 1, rows, cols)
	tm := s.scene(rows, 0)
	checkPropose(s, "every state", tm, errorTol, y0, f0, f1)
	f := s.timeField()
	out := s.output("dz", 1, rows, 1, func(int) bool { return false })
	f.Eval(out.v, tm.at(0, backend.Stale), tm.y)
	out.unchanged("Eval at Stale after ProposeStep")
	tm.verify("Eval at Stale after ProposeStep")
}
