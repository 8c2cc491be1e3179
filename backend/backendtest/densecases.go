package backendtest

import (
	"fmt"
	"math"
	"sort"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// denseCases are those of a [backend.Reverser] about its interpolant.
func denseCases[T backend.Float]() (all []testCase[T]) {
	all = append(elementwise("SaveVJP", saveVJP[T]),
		testCase[T]{"SaveVJP/without an interpolant", saveVJPNone[T]},
		testCase[T]{"SaveVJP/cotangents not in the step", saveVJPUnread[T]})
	for _, sh := range shapes {
		if sh[0] > 1 {
			all = append(all, testCase[T]{fmt.Sprintf("SaveVJP/own spans/%dx%d", sh[0], sh[1]), func(s *suite[T]) { saveVJPOwn(s, sh[0], sh[1]) }})
		}
	}
	for _, sh := range [][2]int{{1, 1}, {5, 3}, {7, 1}, {2, 130}} {
		all = append(all, testCase[T]{fmt.Sprintf("Interpolate/%dx%d", sh[0], sh[1]), func(s *suite[T]) { interpolate(s, sh[0], sh[1]) }})
	}
	return append(all,
		testCase[T]{"Interpolate/every state", interpolateStates[T]},
		testCase[T]{"Interpolate/after Reset", interpolateReset[T]},
		testCase[T]{"Interpolate/a lane without steps", interpolateEmpty[T]},
		testCase[T]{"Interpolate/not finite", interpolateNotFinite[T]},
	)
}

// weight is h·Σ_m poly[m]·x^(m+1), computed in float64 whatever T is and rounded to T.
func (s *suite[T]) weight(h, x float64, poly []float64) num {
	w, abs := 0.0, 0.0
	for m, c := range poly {
		w += c * math.Pow(x, float64(m+1))
		abs += math.Abs(c)
	}
	return num{h * w, s.u*math.Abs(h*w) + 32*0x1p-53*math.Abs(h)*abs}
}

// checkSaveVJP checks SaveVJP by its formula, and as the transpose of Save:
// ⟨Save(y0, y1, k), c⟩ = ⟨(y0, y1, k), SaveVJP(c)⟩ where SaveVJP adds to 0.
func checkSaveVJP[T backend.Float](s *suite[T], tm *timer[T], rows, cols int, cotangents *operand[T]) {
	s.Helper()
	verb := fmt.Sprintf("SaveVJP, %d lanes, %d spans", len(tm.ref.lanes), len(tm.ref.spans))
	written := tm.ref.selected(backend.Accepted)
	n := rows * cols
	y0, y1 := s.output("y0", 1, rows, cols, written), s.operand("y1", 1, rows, cols)
	var k []*operand[T]
	var v []backend.Vec[T]
	for j := range dense {
		o := s.output(fmt.Sprintf("k%d", j), 1, rows, cols, written)
		k, v = append(k, o), append(v, o.v)
	}
	beyond := s.operand("k beyond the interpolant", 1, rows, cols)
	v = append(v, beyond.v)

	sums0, sums := make([]sum, n), make([][]sum, len(dense))
	for j := range sums {
		sums[j] = make([]sum, n)
	}
	want1 := y1.nums()
	tm.outputs(cotangents, func(row int, l *refLane, time float64, at int) {
		for col := range cols {
			i, c := row*cols+col, exact(cotangents.host[at+col])
			if time == l.end {
				want1[i] = s.add(want1[i], c)
				continue
			}
			sums0[i].add(c)
			for j, poly := range dense {
				sums[j][i].add(s.mul(s.weight(l.took.h, (time-l.took.t)/l.took.h, poly), c))
			}
		}
	})
	s.reverser().SaveVJP(tm.clk, dense, cotangents.v, y0.v, y1.v, v)
	y0.expect(verb, written, func(i int) num { return sums0[i].total(s.arith) })
	y1.expect(verb, written, func(i int) num { return want1[i] })
	for j, o := range k {
		o.expect(verb, written, func(i int) num { return sums[j][i].total(s.arith) })
	}
	unchanged(verb, cotangents, beyond)

	// The transpose. Every number is within its bound of a number that is exact in
	// the sense of the formulas, for which both products are the same.
	y1.set(make([]T, n))
	s.reverser().SaveVJP(tm.clk, dense, cotangents.v, y0.v, y1.v, v)
	a0, a1 := y0.read(verb), y1.read(verb)
	x0, x1 := s.operand("x0", 1, rows, cols), s.operand("x1", 1, rows, cols)
	xk, xv := s.stages(len(dense), 1, rows, cols)
	table := s.operand("table", cotangents.blocks, cotangents.rows, cotangents.cols)
	s.Save(tm.clk, dense, x0.v, x1.v, xv, table.v)
	out := table.read("Save")
	var left, right sum
	tm.outputs(cotangents, func(_ int, _ *refLane, _ float64, at int) {
		for i := at; i < at+cols; i++ {
			left.add(exact(float64(out[i]) * float64(cotangents.host[i])))
		}
	})
	for i := range n {
		if !written(i / cols) {
			continue
		}
		right.add(exact(float64(x0.host[i]) * float64(a0[i])))
		right.add(exact(float64(x1.host[i]) * float64(a1[i])))
		for j := range k {
			right.add(exact(float64(xk[j].host[i]) * float64(k[j].read(verb)[i])))
		}
	}
	// Each term took at most 6 operations with a sum over the outputs of the step,
	// 4 at most; weights cancel by less than a factor of 10.
	if bound := 100 * s.u * (left.abs + right.abs); math.Abs(left.v-right.v) > bound {
		s.Errorf("%s: ⟨Save(x), c⟩ = %.17g, ⟨x, SaveVJP(c)⟩ = %.17g, more than %.2g apart", verb, left.v, right.v, bound)
	}
}

func saveVJP[T backend.Float](s *suite[T], rows, cols int, all bool) {
	s.reverser()
	if all {
		s.clocks(rows, true, func(tm *timer[T], sel backend.Rows) {
			if sel == backend.Saving {
				checkSaveVJP(s, tm, rows, cols, s.operand("c", 3, rows, cols))
			}
		})
		return
	}
	for _, lanes := range []int{1, rows} {
		for _, blocks := range []int{5, 2, 0} { // outputs beyond the table count for nothing
			// Two outputs inside the first step, one at its end, one inside the second.
			tm := s.timer(lanes, backend.Span{T0: 2, H0: 1, Saves: []float64{1.75, 1.125, 1, 0.5}, Stops: []float64{1, 0}})
			for range 2 {
				tm.attempt(stock, each(0.81))
				checkSaveVJP(s, tm, rows, cols, s.operand("c", blocks, rows, cols))
			}
		}
	}
}

func saveVJPOwn[T backend.Float](s *suite[T], rows, cols int) {
	s.reverser()
	spans, need := s.raggedSpans(rows)
	for _, tableRows := range []int{need + 1, need / 2, 0} {
		tm := s.timer(rows, spans...)
		for range 3 {
			tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.9, 2}[lane%3] })
			checkSaveVJP(s, tm, rows, cols, s.operand("c", 1, tableRows, cols))
		}
	}
}

// saveVJPNone has no weights, as where every output is at a step's end.
func saveVJPNone[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	const rows, cols = 3, 2
	for _, lanes := range []int{1, rows} {
		tm := s.timer(lanes, backend.Span{H0: 1, Saves: []float64{1}, Stops: []float64{1, 2}})
		tm.attempt(stock, each(0.81))
		y0, y1 := s.output("y0", 1, rows, cols, allRows), s.operand("y1", 1, rows, cols)
		c, want := s.operand("c", 1, rows, cols), y1.nums()
		rev.SaveVJP(tm.clk, nil, c.v, y0.v, y1.v, nil)
		y0.expect("SaveVJP without weights", allRows, func(int) num { return exact(0.) })
		y1.expect("SaveVJP without weights", allRows, func(i int) num { return s.add(want[i], exact(c.host[i])) })
	}
}

// saveVJPUnread has NaN as cotangent of every output that is not in the step.
func saveVJPUnread[T backend.Float](s *suite[T]) {
	s.reverser()
	const rows, cols = 5, 3
	span := backend.Span{H0: 1, Saves: []float64{0.25, 1, 1.5, 1.75, 2}, Stops: []float64{1, 2}}
	for _, lanes := range []int{1, rows} {
		tm := s.timer(lanes, span)
		for range 4 {
			tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 2, 0.5, 0.9, 0.81}[lane] })
			c := s.operand("c", len(span.Saves), rows, cols)
			host := fill[T](len(c.host), math.NaN())
			tm.outputs(c, func(_ int, _ *refLane, _ float64, at int) { copy(host[at:at+cols], s.random(cols)) })
			c.set(host)
			checkSaveVJP(s, tm, rows, cols, c)
		}
	}
}

// recorded is a solve on a tape that keeps y0, y1 and the stages of every step, and
// what is on it. Steps do not join: y0 is not the y1 before it.
type recorded[T backend.Float] struct {
	s          *suite[T]
	rows, cols int
	tape       backend.Tape[T]
	steps      [][]recordedStep[T] // by lane
}

type recordedStep[T backend.Float] struct {
	t, h, end float64
	y0, y1    []T
	k         []*operand[T] // their host is what the lane kept
}

// record makes attempts, and reads what the tape has of them. Its times are those of
// the backend, so that they can be hit to the last bit.
func (s *suite[T]) record(tm *timer[T], rows, cols, attempts int, tape backend.Tape[T]) *recorded[T] {
	s.Helper()
	lanes := len(tm.ref.lanes)
	r := &recorded[T]{s: s, rows: rows, cols: cols, tape: tape, steps: make([][]recordedStep[T], lanes)}
	n := rows * cols / lanes
	for a := range attempts {
		tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+a)%5] })
		_, keep := s.stages(2+len(dense), 1, rows, cols)
		s.Push(tm.clk, tape, keep)
	}
	ends := tm.lanes()
	for l := range lanes {
		for i := range tape.Len(l) {
			d := make([]T, n*(2+len(dense)))
			t, h, err := s.ReadTape(tape, l, i, d)
			s.noError("ReadTape", err)
			st := recordedStep[T]{t: t, h: h, end: ends[l].T, y0: d[:n], y1: d[n : 2*n]}
			for j := range dense {
				st.k = append(st.k, &operand[T]{host: d[(2+j)*n : (3+j)*n]})
			}
			if i > 0 {
				r.steps[l][i-1].end = t
			}
			r.steps[l] = append(r.steps[l], st)
		}
	}
	return r
}

// at is the solution of a lane at an instant, at element i of its rows.
func (r *recorded[T]) at(lane int, now float64, i int) num {
	steps := r.steps[lane]
	sign := math.Copysign(1, steps[0].h)
	n := sort.Search(len(steps), func(n int) bool { return sign*steps[n].end >= sign*now })
	if n == len(steps) {
		return exact(steps[n-1].y1[i])
	}
	st := &steps[n]
	switch {
	case now == st.end:
		return exact(st.y1[i])
	case sign*now <= sign*st.t:
		return exact(st.y0[i])
	}
	return r.s.saved(st.h, (now-st.t)/st.h, st.y0, st.k, i)
}

// check interpolates where a clock is and compares.
func (r *recorded[T]) check(verb string, tm *timer[T], at backend.At) {
	s := r.s
	s.Helper()
	written := tm.ref.selected(at.Rows)
	dst := s.output("dst", 1, r.rows, r.cols, written)
	s.reverser().Interpolate(dst.v, at, r.tape, dense)
	dst.expect(verb, written, func(i int) num {
		row, per := dst.row(i), r.rows/len(r.steps)
		return r.at(row/per, tm.instant(row, at), i%(per*r.cols))
	})
}

// when starts a clock at a time for each lane, where the instant is that time.
func (r *recorded[T]) when(verb string, tm *timer[T], time func(lane int) float64) {
	r.s.Helper()
	var spans []backend.Span
	for l := range tm.ref.lanes {
		t := time(l)
		spans = append(spans, backend.Span{T0: t, H0: 1, Stops: []float64{t + 1}})
	}
	tm.start(spans...)
	r.check(verb, tm, tm.at(0, backend.Running))
}

// interpolate asks at the ends of steps, between, before and after them, and at the
// outputs of Save, forwards and backwards, with spans of their own too.
func interpolate[T backend.Float](s *suite[T], rows, cols int) {
	s.reverser()
	for _, kind := range []string{"one lane", "a lane for each row", "own spans"} {
		for _, sign := range []float64{1, -1} {
			verb := fmt.Sprintf("Interpolate, %s, direction %g", kind, sign)
			lanes := rows
			if kind == "one lane" {
				lanes = 1
			}
			saves := []float64{sign * 0.25, sign * 0.5, sign * 1, sign * 1.75, sign * 2.5}
			spans := []backend.Span{{H0: 0.75, Saves: saves, Stops: []float64{sign, 4 * sign}}}
			if kind == "own spans" {
				if rows == 1 {
					continue
				}
				spans = nil
				for l := range rows {
					dir, t0 := float64(1-l%2*2), float64(l)
					sp := backend.Span{T0: t0, H0: 0.75, Stops: []float64{t0 + dir, t0 + 4*dir}, Row: l * len(saves)}
					for _, x := range saves {
						sp.Saves = append(sp.Saves, t0+dir*math.Abs(x))
					}
					spans = append(spans, sp)
				}
			}
			tm := s.timer(lanes, spans...)
			r := s.record(tm, rows, cols, 9, s.newTape(lanes, rows, cols, 2+len(dense)))
			query := s.timer(lanes, backend.Span{Stops: []float64{1}})
			step := func(l, n int) *recordedStep[T] { return &r.steps[l][min(n, len(r.steps[l])-1)] }
			for n := range 9 {
				r.when(verb+", at the end of a step", query, func(l int) float64 { return step(l, n).end })
				// Not so close that the fraction of the step is rounded to 1.
				r.when(verb+", just before it", query, func(l int) float64 { return step(l, n).end - 0x1p-40*step(l, n).h })
				r.when(verb+", just after it", query, func(l int) float64 { return step(l, n).end + 0x1p-40*step(l, n).h })
				r.when(verb+", inside a step", query, func(l int) float64 {
					return step(l, n).t + s.rng.Float64()*step(l, n).h
				})
			}
			for _, far := range []float64{0, 1e-9, 0.3, 1e6} {
				r.when(verb+", before the steps", query, func(l int) float64 { return r.steps[l][0].t - far*r.steps[l][0].h })
				r.when(verb+", after the steps", query, func(l int) float64 { return step(l, 99).end + far*step(l, 99).h })
			}
			compareWithSave(s, verb, rows, cols, lanes, spans, query)
		}
	}
}

// compareWithSave interpolates at the output times of a solve, where Save wrote what
// the solution is.
func compareWithSave[T backend.Float](s *suite[T], verb string, rows, cols, lanes int, spans []backend.Span, query *timer[T]) {
	s.Helper()
	tm := s.timer(lanes, spans...)
	tape := s.newTape(lanes, rows, cols, 2+len(dense))
	total := len(spans) * len(spans[0].Saves)
	table := s.operand("table", total, rows, cols)
	if len(spans) > 1 {
		table = s.operand("table", 1, total, cols)
	}
	type entry struct {
		row, at int
		time    float64
	}
	entries := make([][]entry, len(spans[0].Saves)) // by output
	for a := range 9 {
		tm.attempt(stock, func(lane int) float64 { return []float64{0.81, 0.9, 2, 0.7, 0.5}[(lane+a)%5] })
		_, keep := s.stages(2+len(dense), 1, rows, cols)
		s.Push(tm.clk, tape, keep)
		s.Save(tm.clk, dense, keep[0], keep[1], keep[2:], table.v)
		tm.outputs(table, func(row int, l *refLane, time float64, at int) {
			for j, t := range l.span.Saves {
				if t == time {
					entries[j] = append(entries[j], entry{row, at, time})
				}
			}
		})
	}
	saved := table.read("Save")
	for _, output := range entries {
		times := make([]float64, lanes)
		for _, e := range output {
			times[min(e.row, lanes-1)] = e.time
		}
		var starts []backend.Span
		for _, t := range times {
			starts = append(starts, backend.Span{T0: t, H0: 1, Stops: []float64{t + 1}})
		}
		query.start(starts...)
		dst := s.output("dst", 1, rows, cols, allRows)
		s.reverser().Interpolate(dst.v, query.at(0, backend.Running), tape, dense)
		got := dst.read(verb)
		for _, e := range output {
			for c := range cols {
				// Both are sums of 5 terms up to 1 times weights up to 3.
				g, w := float64(got[e.row*cols+c]), float64(saved[e.at+c])
				if math.Abs(g-w) > 100*s.u {
					s.fatalf("%s: at output time %g it is %.17g in row %d, and Save wrote %.17g", verb, e.time, g, e.row, w)
				}
			}
		}
	}
}

// interpolateStates asks where clocks in every state are.
func interpolateStates[T backend.Float](s *suite[T]) {
	s.reverser()
	rows, cols := thorough[0], thorough[1]
	for _, lanes := range []int{1, rows} {
		tm := s.timer(lanes, backend.Span{H0: 0.5, Stops: []float64{5}})
		r := s.record(tm, rows, cols, 12, s.newTape(lanes, rows, cols, 2+len(dense)))
		scenes := []*timer[T]{s.scene(rows, 0), s.scene(rows, 3)}
		if lanes == 1 {
			scenes = nil
			for kind := range kinds {
				scenes = append(scenes, s.scene(1, kind))
			}
		}
		for _, scene := range scenes {
			for sel := backend.Running; sel <= backend.Fresh; sel++ {
				for _, c := range []float64{0, 0.3, 1} {
					r.check(fmt.Sprintf("Interpolate at Rows %d, c = %g", sel, c), scene, scene.at(c, sel))
				}
			}
		}
		// Where f jumps, the instant is beside the break, and inside the step there.
		stop := r.steps[0][1].end
		for _, t0 := range []float64{stop - 0.5, stop + 0.5} {
			query := s.timer(lanes, backend.Span{T0: t0, H0: 1, Stops: []float64{stop}, Breaks: []float64{stop}})
			r.check("Interpolate just before a break", query, query.at(1, backend.Running))
		}
	}
}

// interpolateReset has another solve on the tape than it had before.
func interpolateReset[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	const rows, cols = 5, 3
	for _, lanes := range []int{1, rows} {
		tape := s.newTape(lanes, rows, cols, 2+len(dense))
		query := s.timer(lanes, backend.Span{Stops: []float64{1}})
		for _, end := range []float64{8, -2, 3} {
			rev.Reset(tape)
			r := s.record(s.timer(lanes, backend.Span{T0: 1, H0: 1, Stops: []float64{end}}), rows, cols, 6, tape)
			for _, t := range []float64{-3, 0.3, 0.9, 1, 1.1, 1.9, 2.7, 20} {
				r.when(fmt.Sprintf("Interpolate after Reset, solve to %g", end), query, func(l int) float64 { return t + 0.01*float64(l) })
			}
		}
	}
}

// interpolateEmpty has a lane that took no step, which the others do not notice.
func interpolateEmpty[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	tm := s.timer(2, backend.Span{H0: 1, Stops: []float64{9}})
	tape := s.newTape(2, 2, 3, 2)
	y0, y1 := s.operand("y0", 1, 2, 3), s.operand("y1", 1, 2, 3)
	tm.attempt(stock, func(lane int) float64 { return []float64{math.NaN(), 0.81}[lane] })
	s.Push(tm.clk, tape, []backend.Vec[T]{y0.v, y1.v})
	dst := s.output("dst", 1, 2, 3, allRows)
	rev.Interpolate(dst.v, tm.at(0, backend.Running), tape, nil)
	for c, got := range dst.read("Interpolate")[3:] {
		if got != y1.host[3+c] {
			s.Errorf("Interpolate: %g at the end of the step, want %g", got, y1.host[3+c])
		}
	}
}

// interpolateNotFinite has NaN where weights are 0, which is not read, and where they
// are not.
func interpolateNotFinite[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	const rows, cols = 4, 3
	tm := s.timer(rows, backend.Span{H0: 1, Stops: []float64{9}})
	tape := s.newTape(rows, rows, cols, 2+len(dense))
	k, keep := s.stages(2+len(dense), 1, rows, cols)
	k[2+2].set(fill[T](rows*cols, math.NaN())) // weights 0
	for i, o := range []*operand[T]{k[0], k[1], k[3]} {
		o.host[i*cols+i] = T(math.NaN())
		o.set(o.host)
	}
	tm.attempt(stock, each(0.81))
	s.Push(tm.clk, tape, keep)
	for _, x := range []float64{0, 0.5, 1} {
		dst := s.output("dst", 1, rows, cols, allRows)
		rev.Interpolate(dst.v, tm.at(x, backend.Accepted), tape, dense)
		dst.expect(fmt.Sprintf("Interpolate of what is not finite at %g", x), allRows, func(i int) num {
			switch x {
			case 0:
				return exact(k[0].host[i])
			case 1:
				return exact(k[1].host[i])
			}
			return s.saved(1, x, k[0].host, k[2:], i)
		})
	}
}
