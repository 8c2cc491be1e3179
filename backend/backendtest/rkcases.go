package backendtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// shapes are rows × cols of operands: single elements, rows and columns, primes, and
// wider and longer than the tiles that backends work in.
var shapes = [][2]int{{1, 1}, {1, 5}, {7, 1}, {5, 3}, {13, 2}, {2, 130}, {67, 3}, {3, 257}, {131, 1}}

// thorough is the shape that is run with clocks in every state.
var thorough = [2]int{7, 3}

// elementwise calls do for every shape with fresh clocks, and for one with clocks in
// every state.
func elementwise[T backend.Float](verb string, do func(s *suite[T], rows, cols int, all bool)) (cases []testCase[T]) {
	for _, sh := range shapes {
		cases = append(cases, testCase[T]{fmt.Sprintf("%s/%dx%d", verb, sh[0], sh[1]), func(s *suite[T]) { do(s, sh[0], sh[1], false) }})
	}
	return append(cases, testCase[T]{verb + "/every state", func(s *suite[T]) { do(s, thorough[0], thorough[1], true) }})
}

// stages makes operands of one shape, named k0 on.
func (s *suite[T]) stages(n, blocks, rows, cols int) (k []*operand[T], v []backend.Vec[T]) {
	s.Helper()
	for i := range n {
		k = append(k, s.operand(fmt.Sprintf("k%d", i), blocks, rows, cols))
		v = append(v, k[i].v)
	}
	return k, v
}

func unchanged[T backend.Float](verb string, ops ...*operand[T]) {
	for _, o := range ops {
		o.s.Helper()
		o.unchanged(verb)
	}
}

func combineCases[T backend.Float]() (all []testCase[T]) {
	for _, verb := range []string{"Combine", "Sum"} {
		with := func(do func(c *combiner[T])) func(s *suite[T]) {
			return func(s *suite[T]) { do(s.combiner(verb)) }
		}
		all = append(all, elementwise(verb, func(s *suite[T], rows, cols int, all bool) {
			combine(s.combiner(verb), rows, cols, all)
		})...)
		all = append(all,
			testCase[T]{verb + "/into y", with(combineInto[T])},
			testCase[T]{verb + "/long", with(combineLong[T])},
			testCase[T]{verb + "/not finite", with(combineNotFinite[T])},
			testCase[T]{verb + "/alone and in a batch", with(combineAlone[T])},
			testCase[T]{verb + "/before there is a step", with(combineStepless[T])},
		)
	}
	return all
}

// combiner is Combine, or Sum, which is Combine with a step of size 1.
type combiner[T backend.Float] struct {
	*suite[T]
	verb string
	do   func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T])
}

func (s *suite[T]) combiner(verb string) *combiner[T] {
	s.Helper()
	if verb == "Combine" {
		return &combiner[T]{s, verb, s.Combine}
	}
	return &combiner[T]{s, verb, s.reverser().Sum}
}

// step is the factor of the coefficients in a row.
func (c *combiner[T]) step(tm *timer[T], row int, at backend.At) float64 {
	if c.verb == "Sum" {
		return 1
	}
	return tm.size(row, at)
}

// combined is the reference of Combine at element i.
func (s *suite[T]) combined(h float64, y []T, coef []float64, k []*operand[T], i int) num {
	var sum sum
	sum.add(exact(y[i]))
	for j, c := range coef {
		if c != 0 {
			sum.add(s.mul(s.round(h*c), exact(k[j].host[i])))
		}
	}
	return sum.total(s.arith)
}

func combine[T backend.Float](s *combiner[T], rows, cols int, all bool) {
	for _, blocks := range []int{1, 2} {
		y := s.operand("y", blocks, rows, cols)
		k, v := s.stages(4, blocks, rows, cols)
		k[1].set(fill[T](blocks*rows*cols, math.NaN())) // coefficient 0: not read
		k[3].set(fill[T](blocks*rows*cols, math.NaN())) // beyond the coefficients
		coef := []float64{0.3, 0, -1.7}
		s.clocks(rows, all, func(tm *timer[T], sel backend.Rows) {
			verb := fmt.Sprintf("%s at Rows %d, %d lanes", s.verb, sel, len(tm.ref.lanes))
			at := tm.at(0.5, sel)
			dst := s.output("dst", blocks, rows, cols, tm.ref.selected(sel))
			s.do(dst.v, y.v, at, coef, v)
			dst.expect(verb, tm.ref.selected(sel), func(i int) num {
				return s.combined(s.step(tm, dst.row(i), at), y.host, coef, k, i)
			})
			unchanged(verb, append(k, y)...)
		})
	}
}

// combineInto writes over y, and without any stage.
func combineInto[T backend.Float](s *combiner[T]) {
	const rows, cols = 7, 3
	k, v := s.stages(2, 1, rows, cols)
	for _, coef := range [][]float64{{1, 2}, {0.5}, {}, nil} {
		y := s.operand("y", 1, rows, cols)
		tm := s.scene(rows, 0)
		at := tm.at(0, backend.Accepted)
		before := append([]T(nil), y.host...)
		s.do(y.v, y.v, at, coef, v)
		y.expect(fmt.Sprintf("%s into y, %d coefficients", s.verb, len(coef)), tm.ref.selected(at.Rows), func(i int) num {
			return s.combined(s.step(tm, y.row(i), at), before, coef, k, i)
		})
		unchanged(s.verb, k...)
	}
}

// combineLong has as many stages as DOP853 with its interpolant.
func combineLong[T backend.Float](s *combiner[T]) {
	const rows, cols, stages = 5, 3, 16
	k, v := s.stages(stages, 1, rows, cols)
	y := s.operand("y", 1, rows, cols)
	coef := make([]float64, stages)
	for j := range coef {
		coef[j] = s.rng.NormFloat64()
	}
	tm := s.fresh(rows)
	at := tm.at(1, backend.Running)
	dst := s.output("dst", 1, rows, cols, allRows)
	s.do(dst.v, y.v, at, coef, v)
	dst.expect(s.verb+" of 16 stages", allRows, func(i int) num {
		return s.combined(s.step(tm, 0, at), y.host, coef, k, i)
	})
}

func combineNotFinite[T backend.Float](s *combiner[T]) {
	const rows, cols = 7, 20 // 20: enough for a vector instruction and a rest
	tm := s.fresh(rows)
	at := tm.at(1, backend.Running)
	y := s.operand("y", 1, rows, cols)
	k, v := s.stages(2, 1, rows, cols)
	for i, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		y.host[i*cols+i] = T(bad)
		k[1].host[(i+3)*cols+19] = T(bad)
	}
	y.set(y.host)
	k[1].set(k[1].host)
	// The second coefficient vanishes in float32, which makes no NaN vanish.
	for _, c := range []float64{1, 1e-60} {
		coef := []float64{1, c}
		dst := s.output("dst", 1, rows, cols, allRows)
		s.do(dst.v, y.v, at, coef, v)
		dst.expect(s.verb+" of what is not finite", allRows, func(i int) num {
			return s.combined(s.step(tm, 0, at), y.host, coef, k, i)
		})
	}
}

func combineAlone[T backend.Float](s *combiner[T]) {
	const rows, cols = 7, 21
	coef := []float64{0.3, 1.1, -0.7}
	y := s.operand("y", 1, rows, cols)
	k, v := s.stages(3, 1, rows, cols)
	dst := s.output("dst", 1, rows, cols, allRows)
	s.do(dst.v, y.v, s.fresh(rows).at(1, backend.Running), coef, v)
	together := dst.read(s.verb)
	for r := range rows {
		row := func(x []T) []T { return x[r*cols : (r+1)*cols] }
		y1 := s.input("y", 1, 1, cols, row(y.host))
		var v1 []backend.Vec[T]
		for j := range k {
			v1 = append(v1, s.input("k", 1, 1, cols, row(k[j].host)).v)
		}
		dst1 := s.output("dst", 1, 1, cols, allRows)
		s.do(dst1.v, y1.v, s.fresh(1).at(1, backend.Running), coef, v1)
		s.equalBits(s.verb+" of one row", dst1.read(s.verb), row(together), "in a batch of 7")
	}
}

// combineStepless combines before a first step was chosen: h is 0.
func combineStepless[T backend.Float](s *combiner[T]) {
	const rows, cols = 3, 2
	y := s.operand("y", 1, rows, cols)
	k, v := s.stages(1, 1, rows, cols)
	for _, lanes := range []int{1, rows} {
		for _, stop := range []float64{1, -1} {
			tm := s.timer(lanes, backend.Span{Stops: []float64{stop}})
			at := tm.at(0, backend.Running)
			dst := s.output("dst", 1, rows, cols, allRows)
			s.do(dst.v, y.v, at, []float64{0.7}, v)
			dst.expect(s.verb+" without a step", allRows, func(i int) num {
				return s.combined(s.step(tm, 0, at), y.host, []float64{0.7}, k, i)
			})
		}
	}
}

func saveCases[T backend.Float]() []testCase[T] {
	return append(elementwise("Save", save[T]),
		testCase[T]{"Save/backwards", saveBackwards[T]},
		testCase[T]{"Save/a table too short", saveShort[T]},
		testCase[T]{"Save/not finite", saveNotFinite[T]},
	)
}

// dense is an interpolant of three stages and a fourth that it does not use.
var dense = [][]float64{{1, -1.5, 0.5}, {0, 2, -1}, {0, 0, 0}, {0, -0.5, 0.5}}

// saved is the reference of Save at element i of a row, for an output at x in (0, 1).
func (s *suite[T]) saved(h, x float64, y0 []T, k []*operand[T], i int) num {
	var sum sum
	sum.add(exact(y0[i]))
	for j, p := range dense {
		if slices.ContainsFunc(p, func(c float64) bool { return c != 0 }) {
			sum.add(s.mul(s.weight(h, x, p), exact(k[j].host[i])))
		}
	}
	return sum.total(s.arith)
}

// checkSave saves and checks all of the table.
func checkSave[T backend.Float](s *suite[T], tm *timer[T], y0, y1 *operand[T], k []*operand[T], v []backend.Vec[T], table *operand[T]) {
	s.Helper()
	verb := fmt.Sprintf("Save, %d lanes, %d spans", len(tm.ref.lanes), len(tm.ref.spans))
	want := table.nums()
	tm.outputs(table, func(row int, l *refLane, time float64, at int) {
		for c := range y0.cols {
			i := row*y0.cols + c
			if want[at+c] = exact(y1.host[i]); time != l.end {
				want[at+c] = s.saved(l.took.h, (time-l.took.t)/l.took.h, y0.host, k, i)
			}
			table.host[at+c] = T(math.NaN())
		}
	})
	table.set(table.host)
	s.Save(tm.clk, dense, y0.v, y1.v, v, table.v)
	table.expect(verb, allRows, func(i int) num { return want[i] })
	unchanged(verb, append(k, y0, y1)...)
}

func save[T backend.Float](s *suite[T], rows, cols int, all bool) {
	y0, y1 := s.operand("y0", 1, rows, cols), s.operand("y1", 1, rows, cols)
	k, v := s.stages(4, 1, rows, cols)
	k[2].set(fill[T](rows*cols, math.NaN())) // weights 0: not read
	if all {
		s.clocks(rows, true, func(tm *timer[T], sel backend.Rows) {
			if sel == backend.Saving {
				checkSave(s, tm, y0, y1, k, v, s.operand("table", 3, rows, cols))
			}
		})
		return
	}
	for _, lanes := range []int{1, rows} {
		// Two outputs inside the first step, one at its end, one inside the second.
		tm := s.timer(lanes, backend.Span{H0: 1, Saves: []float64{0.25, 0.875, 1, 1.5}, Stops: []float64{1, 2}})
		for range 2 {
			tm.attempt(stock, each(0.81))
			checkSave(s, tm, y0, y1, k, v, s.operand("table", 5, rows, cols))
		}
	}
}

func saveBackwards[T backend.Float](s *suite[T]) {
	const rows, cols = 5, 3
	y0, y1 := s.operand("y0", 1, rows, cols), s.operand("y1", 1, rows, cols)
	k, v := s.stages(4, 1, rows, cols)
	tm := s.timer(rows, backend.Span{T0: 3, H0: 1, Saves: []float64{2.75, 2, 1.75, 1}, Stops: []float64{1}})
	for range 3 {
		tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 2, 0.3, 0.01, 0}[lane] })
		checkSave(s, tm, y0, y1, k, v, s.operand("table", 4, rows, cols))
	}
}

func saveShort[T backend.Float](s *suite[T]) {
	const rows, cols = 2, 3
	y0, y1 := s.operand("y0", 1, rows, cols), s.operand("y1", 1, rows, cols)
	k, v := s.stages(4, 1, rows, cols)
	tm := s.timer(1, backend.Span{H0: 1, Saves: []float64{0.25, 0.5, 1}, Stops: []float64{1}})
	tm.attempt(stock, each(1))
	checkSave(s, tm, y0, y1, k, v, s.operand("table", 2, rows, cols))
	s.Save(tm.clk, dense, y0.v, y1.v, v, s.newVec(0, rows, cols))
}

func saveNotFinite[T backend.Float](s *suite[T]) {
	const rows, cols = 7, 3
	y0, y1 := s.operand("y0", 1, rows, cols), s.operand("y1", 1, rows, cols)
	k, v := s.stages(4, 1, rows, cols)
	y0.host[0], y1.host[4], k[3].host[8] = T(math.NaN()), T(math.Inf(1)), T(math.Inf(-1))
	y0.set(y0.host)
	y1.set(y1.host)
	k[3].set(k[3].host)
	tm := s.timer(rows, backend.Span{H0: 1, Saves: []float64{0.25, 1}, Stops: []float64{1}})
	tm.attempt(stock, each(1))
	checkSave(s, tm, y0, y1, k, v, s.operand("table", 2, rows, cols))
}
