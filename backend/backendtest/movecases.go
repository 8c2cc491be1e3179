package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func moveCases[T backend.Float]() []testCase[T] {
	return append(elementwise("Commit", commit[T]),
		testCase[T]{"Commit/move after move", commitChain[T]},
		testCase[T]{"Commit/nothing", commitNothing[T]},
		testCase[T]{"AtStop/Store", func(s *suite[T]) { atStopOp(s, backend.Store) }},
		testCase[T]{"AtStop/Add", func(s *suite[T]) { atStopOp(s, backend.Add) }},
		testCase[T]{"AtStop/Load", func(s *suite[T]) { atStopOp(s, backend.Load) }},
		testCase[T]{"AtStop/stale", atStopStale[T]},
	)
}

// commit moves with and without rows selected, what is not finite included.
func commit[T backend.Float](s *suite[T], rows, cols int, all bool) {
	for _, blocks := range []int{1, 3} {
		src, src2 := s.operand("src", blocks, rows, cols), s.operand("src2", blocks, rows, cols)
		src.host[len(src.host)-1] = T(math.Inf(-1))
		src.set(src.host)
		s.clocks(rows, all, func(tm *timer[T], sel backend.Rows) {
			verb := fmt.Sprintf("Commit at Rows %d, %d lanes", sel, len(tm.ref.lanes))
			written := tm.ref.selected(sel)
			dst, dst2 := s.output("dst", blocks, rows, cols, written), s.output("dst2", blocks, rows, cols, written)
			s.Commit(tm.clk, sel, []backend.Move[T]{{Dst: dst.v, Src: src.v}, {Dst: dst2.v, Src: src2.v}})
			dst.expect(verb, written, func(i int) num { return exact(src.host[i]) })
			dst2.expect(verb, written, func(i int) num { return exact(src2.host[i]) })
			unchanged(verb, src, src2)
		})
	}
}

// commitChain moves b to a, then c to b, then a to c, of two shapes.
func commitChain[T backend.Float](s *suite[T]) {
	tm := s.fresh(5)
	a, b, c := s.operand("a", 1, 5, 3), s.operand("b", 1, 5, 3), s.operand("c", 1, 5, 3)
	x, y := s.operand("x", 2, 5, 1), s.operand("y", 2, 5, 1)
	was := [][]T{append([]T(nil), b.host...), append([]T(nil), c.host...)}
	s.Commit(tm.clk, backend.Running, []backend.Move[T]{{Dst: a.v, Src: b.v}, {Dst: x.v, Src: y.v}, {Dst: b.v, Src: c.v}, {Dst: c.v, Src: a.v}})
	a.expect("Commit, move 0", allRows, func(i int) num { return exact(was[0][i]) })
	x.expect("Commit, move 1", allRows, func(i int) num { return exact(y.host[i]) })
	b.expect("Commit, move 2", allRows, func(i int) num { return exact(was[1][i]) })
	c.expect("Commit, move 3", allRows, func(i int) num { return exact(was[0][i]) })
}

func commitNothing[T backend.Float](s *suite[T]) {
	s.Commit(s.fresh(1).clk, backend.Running, nil)
}

// atStopOp drives lanes at their own pace over stops, with every kind of table.
func atStopOp[T backend.Float](s *suite[T], op backend.StopOp) {
	const rows, cols, tableBlocks = 7, 3, 3
	for name, blocks := range map[string][]int{
		"every stop its block": nil,
		"blocks in any order":  {2, -1, 0, 1, 7},
	} {
		for _, lanes := range []int{1, rows} {
			verb := fmt.Sprintf("AtStop %d, %s, %d lanes", op, name, lanes)
			tm := s.timer(lanes, backend.Span{T0: 9, H0: 1, Stops: []float64{8, 7.5, 6, 4, 3}, Blocks: blocks})
			y, table := s.operand("y", 1, rows, cols), s.operand("table", tableBlocks, rows, cols)
			for range 6 {
				tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.05, 2, 0.3, 0, 0.9, math.NaN()}[lane] })
				// Twice: it acts on the stop until the next Advance.
				for range 2 {
					hit := func(row int) int {
						if b := tm.ref.laneOf(row).block; b < tableBlocks {
							return b
						}
						return -1
					}
					wasY, wasTable := append([]T(nil), y.host...), append([]T(nil), table.host...)
					s.AtStop(tm.clk, op, y.v, table.v)
					n := rows * cols
					y.expect(verb, func(row int) bool { return op != backend.Store && hit(row) >= 0 }, func(i int) num {
						entry := exact(wasTable[hit(y.row(i))*n+i])
						if op == backend.Load {
							return entry
						}
						return s.add(exact(wasY[i]), entry)
					})
					table.expect(verb, allRows, func(i int) num {
						if op == backend.Store && hit(table.row(i)) == i/n {
							return exact(wasY[i%n])
						}
						return exact(wasTable[i])
					})
				}
			}
			tm.verify(verb)
		}
	}
}

func (a arith) add(x, y num) num {
	var s sum
	s.add(x)
	s.add(y)
	return s.total(a)
}

// atStopStale checks that what changes the state makes the first stage stale, and
// nothing else does.
func atStopStale[T backend.Float](s *suite[T]) {
	f := s.timeField()
	for op, want := range map[backend.StopOp]bool{backend.Store: false, backend.Add: true, backend.Load: true} {
		for _, tableBlocks := range []int{1, 0} {
			tm := s.timer(2, backend.Span{H0: 1, Stops: []float64{1, 9}})
			y, table := s.operand("y", 1, 2, 1), s.operand("table", tableBlocks, 2, 1)
			tm.attempt(stock, func(lane int) float64 { return []float64{0.5, 2}[lane] })
			s.AtStop(tm.clk, op, y.v, table.v)
			stale := want && tableBlocks > 0
			tm.ref.lanes[0].stale = stale
			written := tm.ref.selected(backend.Stale)
			out := s.output("dz", 1, 2, 1, written)
			at := tm.at(0, backend.Stale)
			f.Eval(out.v, at, tm.y)
			out.expect(fmt.Sprintf("Eval at Stale after AtStop %d", op), written, func(row int) num { return s.round(tm.instant(row, at)) })
		}
	}
}

func tapeCases[T backend.Float]() (all []testCase[T]) {
	for _, sh := range [][2]int{{1, 1}, {7, 3}, {5, 1}, {2, 130}} {
		all = append(all, testCase[T]{fmt.Sprintf("Push/%dx%d", sh[0], sh[1]), func(s *suite[T]) { push(s, sh[0], sh[1]) }})
	}
	return append(all, testCase[T]{"Push/keeping nothing", pushNothing[T]})
}

// push records lanes that go at their own pace, and reads all back.
func push[T backend.Float](s *suite[T], rows, cols int) {
	type entry struct {
		t, h float64
		d    []T
	}
	for _, lanes := range []int{1, rows} {
		tm := s.timer(lanes, backend.Span{T0: -1, H0: 1, Stops: []float64{2, 8}})
		tape := s.newTape(lanes, rows, cols, 2)
		var want = make([][]entry, lanes)
		for n := range 12 {
			tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 2, 0.3, 1.5, 0.9}[(lane+n)%5] })
			a, b := s.operand("a", 1, rows, cols), s.operand("b", 1, rows, cols)
			s.Push(tm.clk, tape, []backend.Vec[T]{a.v, b.v})
			for l := range want {
				if lane := &tm.ref.lanes[l]; lane.accepted {
					size := len(a.host) / lanes
					want[l] = append(want[l], entry{lane.took.t, lane.took.h,
						append(append([]T(nil), a.host[l*size:(l+1)*size]...), b.host[l*size:(l+1)*size]...)})
				}
			}
			unchanged("Push", a, b)
		}
		tm.verify("Push")
		for l := range want {
			if got := tape.Len(l); got != len(want[l]) {
				s.fatalf("Tape.Len(%d) is %d, want %d", l, got, len(want[l]))
			}
			for i, w := range want[l] {
				got := make([]T, len(w.d))
				t, h, err := s.ReadTape(tape, l, i, got)
				s.noError("ReadTape", err)
				if math.Abs(t-w.t) > tm.slack() || !closeTo(h, w.h, 1e-10) {
					s.Errorf("ReadTape: lane %d, step %d is t = %g, h = %g, want %g, %g", l, i, t, h, w.t, w.h)
				}
				s.equalBits(fmt.Sprintf("ReadTape: lane %d, step %d", l, i), got, w.d, "was pushed")
			}
		}
	}
}

func pushNothing[T backend.Float](s *suite[T]) {
	tm := s.timer(2, backend.Span{H0: 1, Stops: []float64{9}})
	tape := s.newTape(2, 2, 3, 0)
	tm.attempt(stock, each(0.5))
	s.Push(tm.clk, tape, nil)
	tm.verify("Push")
	if tape.Len(1) != 1 {
		s.fatalf("Tape.Len is %d, want 1", tape.Len(1))
	}
	if t, h, err := s.ReadTape(tape, 1, 0, nil); t != 0 || h != 1 || err != nil {
		s.Errorf("ReadTape: %g, %g, %v; want 0, 1", t, h, err)
	}
}
