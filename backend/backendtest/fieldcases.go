package backendtest

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// net is a perceptron with a batch to run it on.
type net struct {
	rows int
	spec mlp.Spec
}

func (n net) String() string {
	act := make([]mlp.Activation, len(n.spec.Activations))
	copy(act, n.spec.Activations)
	return fmt.Sprintf("B=%d,%v,%v,time=%v,input=%v", n.rows, n.spec.Widths, act, n.spec.Time, n.spec.Input)
}

// nets are small and odd, deep, longer than a tile and wider than one; and every
// activation with every time conditioning and input map.
func nets() (all []net) {
	dense := func(rows int, time mlp.Time, act mlp.Activation, widths ...int) {
		s := mlp.Dense(act, widths...)
		s.Time = time
		all = append(all, net{rows, s})
	}
	dense(1, mlp.TimeNone, mlp.Identity, 1, 1)
	dense(1, mlp.TimeInput, mlp.Tanh, 5, 7, 5)
	dense(7, mlp.TimeEveryLayer, mlp.Tanh, 1, 3, 1)
	dense(131, mlp.TimeEveryLayer, mlp.Softplus, 2, 11, 2)
	dense(67, mlp.TimeInput, mlp.SiLU, 3, 17, 13, 3)
	dense(3, mlp.TimeEveryLayer, mlp.Tanh, 2, 257, 2)
	dense(2, mlp.TimeInput, mlp.Sin, 3, 130, 67, 3)
	dense(5, mlp.TimeNone, mlp.GELU, 130, 3, 130)
	dense(3, mlp.TimeNone, mlp.Tanh, 4, 3, 5, 2, 7, 4)
	for i, act := range mlp.Activations() {
		for time := mlp.TimeNone; time <= mlp.TimeEveryLayer; time++ {
			// Each activation in the last layer too, and the cube every other time.
			spec := mlp.Spec{Widths: []int{2, 5, 2}, Activations: []mlp.Activation{act, act}, Time: time, Input: mlp.Input((i + int(time)) % 2)}
			all = append(all, net{3, spec})
		}
	}
	return all
}

// model draws a model. Weights are of the size that keeps activations of order 1.
func (s *suite[T]) model(spec mlp.Spec) *mlp.Model[T] {
	s.Helper()
	m := &mlp.Model[T]{Spec: spec, Theta: s.random(spec.NumParams())}
	for _, l := range spec.Layers() {
		for i := range l.In * l.Out {
			m.Theta[l.W+i] *= T(1.5 / math.Sqrt(float64(l.In)))
		}
	}
	return m
}

// thoroughNet is the one that is run with clocks in every state.
var thoroughNet = net{7, mlp.Spec{
	Widths: []int{3, 6, 3}, Activations: []mlp.Activation{mlp.Tanh, mlp.Identity}, Time: mlp.TimeEveryLayer,
}}

// bench is a field under test with its reference.
type bench[T backend.Float] struct {
	perceptron[T]
	f          backend.Field[T]
	rows, d, p int
	z          *operand[T]
}

func (s *suite[T]) bench(n net) *bench[T] {
	s.Helper()
	m := s.model(n.spec)
	b := &bench[T]{
		perceptron: perceptron[T]{s.arith, m.Spec, m.Theta}, f: s.bind(m),
		rows: n.rows, d: m.Dim(), p: m.NumParams(),
	}
	b.z = s.operand("z", 1, n.rows, b.d)
	return b
}

// row is row r of an operand with as many columns as the state.
func (b *bench[T]) row(o *operand[T], r int) []T { return o.host[r*o.cols : (r+1)*o.cols] }

// perRow makes a reference that computes one row at a time, of the rows selected.
func perRow(rows, cols int, selected func(int) bool, compute func(row int) []num) func(i int) num {
	all := make([][]num, rows)
	for r := range all {
		if selected(r) {
			all[r] = compute(r)
		}
	}
	return func(i int) num { return all[i/cols][i%cols] }
}

// fieldTable makes cases of every net with fresh clocks, and of one in every state.
func fieldTable[T backend.Float](verb string, do func(s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows)) (cases []testCase[T]) {
	run := func(n net, all bool) func(s *suite[T]) {
		return func(s *suite[T]) {
			b := s.bench(n)
			s.clocks(n.rows, all, func(tm *timer[T], sel backend.Rows) { do(s, b, tm, sel) })
		}
	}
	for _, n := range nets() {
		cases = append(cases, testCase[T]{fmt.Sprintf("%s/%v", verb, n), run(n, false)})
	}
	return append(cases, testCase[T]{verb + "/every state", run(thoroughNet, true)})
}

func evalCases[T backend.Float]() []testCase[T] { return fieldTable("Eval", checkEval[T]) }

func checkEval[T backend.Float](s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows) {
	s.Helper()
	for _, c := range []float64{0, 0.4} {
		verb := fmt.Sprintf("Eval at Rows %d, C = %g, %d lanes", sel, c, len(tm.ref.lanes))
		at, written := tm.at(c, sel), tm.ref.selected(sel)
		dz := s.output("dz", 1, b.rows, b.d, written)
		b.f.Eval(dz.v, at, b.z.v)
		dz.expect(verb, written, perRow(b.rows, b.d, written, func(r int) []num {
			return b.eval(tm.instant(r, at), b.row(b.z, r))
		}))
		tm.ref.evaluated(sel)
		unchanged(verb, b.z)
	}
	tm.verify("Eval")
}

func vjpCases[T backend.Float]() []testCase[T] {
	return append(fieldTable("VJP", func(s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows) {
		checkVJP(s, b, tm, sel, vjpWant{dz: true, az: true, at: true, g: true, timesH: true})
	}),
		testCase[T]{"VJP/every combination of outputs", vjpCombinations[T]},
		testCase[T]{"VJP/accumulates", vjpAccumulates[T]},
	)
}

// vjpWant says which outputs a product has.
type vjpWant struct{ dz, az, at, g, timesH bool }

func (w vjpWant) String() string { return fmt.Sprintf("%+v", struct{ dz, az, at, g, timesH bool }(w)) }

func checkVJP[T backend.Float](s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows, want vjpWant) {
	s.Helper()
	verb := fmt.Sprintf("VJP at Rows %d, %d lanes, %v", sel, len(tm.ref.lanes), want)
	at, written := tm.at(0.4, sel), tm.ref.selected(sel)
	a := s.operand("a", 1, b.rows, b.d)
	dz, az := s.output("DZ", 1, b.rows, b.d, written), s.output("AZ", 1, b.rows, b.d, written)
	dt, g := s.output("AT", 1, b.rows, 1, written), s.operand("G", 1, 1, b.p)

	const alpha, w = -1.25, 0.75
	v := backend.VJP[T]{Z: b.z.v, A: a.v, Alpha: alpha, W: w, TimesH: want.timesH}
	if want.dz {
		v.DZ = dz.v
	}
	if want.az {
		v.AZ = az.v
	}
	if want.at {
		v.AT = dt.v
	}
	if want.g {
		v.G = g.v
	}
	b.f.VJP(at, v)
	tm.ref.evaluated(sel)

	sums := make([]sum, b.p)
	for i := range sums {
		sums[i].add(exact(g.host[i]))
	}
	slope := make([]num, b.rows)
	back := perRow(b.rows, b.d, written, func(r int) []num {
		rowZ, rowT, theta := b.vjp(tm.instant(r, at), b.row(b.z, r), b.row(a, r))
		weight := w
		if want.timesH {
			weight *= tm.size(r, at)
		}
		for i := range theta {
			sums[i].add(b.mul(b.round(weight), theta[i]))
		}
		for i := range rowZ {
			rowZ[i] = b.mul(exact(alpha), rowZ[i])
		}
		slope[r] = b.mul(exact(alpha), rowT)
		return rowZ
	})
	rowsOf := func(wanted bool) func(int) bool { return func(r int) bool { return wanted && written(r) } }
	dz.expect(verb, rowsOf(want.dz), perRow(b.rows, b.d, written, func(r int) []num {
		return b.eval(tm.instant(r, at), b.row(b.z, r))
	}))
	az.expect(verb, rowsOf(want.az), back)
	dt.expect(verb, rowsOf(want.at), func(r int) num { return slope[r] })
	g.expect(verb, func(int) bool { return want.g }, func(i int) num { return sums[i].total(b.arith) })
	unchanged(verb, b.z, a)
	tm.verify(verb)
}

func vjpCombinations[T backend.Float](s *suite[T]) {
	b := s.bench(thoroughNet)
	for i := range 32 {
		want := vjpWant{i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0, i&16 != 0}
		checkVJP(s, b, s.fresh(b.rows), backend.Running, want)
	}
}

// vjpAccumulates adds several products to one G, whose weights cancel in part.
func vjpAccumulates[T backend.Float](s *suite[T]) {
	b := s.bench(thoroughNet)
	tm := s.fresh(1)
	at := tm.at(0, backend.Running)
	a := s.operand("a", 1, b.rows, b.d)
	g := s.input("G", 1, 1, b.p, fill[T](b.p, 0))
	sums := make([]sum, b.p)
	for _, w := range []float64{1, -0.5, 0} {
		b.f.VJP(at, backend.VJP[T]{Z: b.z.v, A: a.v, G: g.v, W: w})
		for r := range b.rows {
			_, _, theta := b.vjp(tm.instant(r, at), b.row(b.z, r), b.row(a, r))
			for i := range theta {
				sums[i].add(b.mul(exact(w), theta[i]))
			}
		}
	}
	g.expect("VJP, three times into G", allRows, func(i int) num { return sums[i].total(b.arith) })
}

func jvpCases[T backend.Float]() []testCase[T] {
	return append(fieldTable("JVP", func(s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows) {
		checkJVP(s, b, tm, sel, true, true)
	}), testCase[T]{"JVP/every combination of operands", func(s *suite[T]) {
		b := s.bench(thoroughNet)
		for i := range 4 {
			checkJVP(s, b, s.fresh(b.rows), backend.Running, i&1 != 0, i&2 != 0)
		}
	}})
}

func checkJVP[T backend.Float](s *suite[T], b *bench[T], tm *timer[T], sel backend.Rows, wantDZ, withW bool) {
	s.Helper()
	verb := fmt.Sprintf("JVP at Rows %d, %d lanes, DZ %v, W %v", sel, len(tm.ref.lanes), wantDZ, withW)
	at, written := tm.at(0.4, sel), tm.ref.selected(sel)
	v, w := s.operand("v", 1, b.rows, b.d), s.operand("w", 1, 1, b.p)
	dz, jv := s.output("DZ", 1, b.rows, b.d, written), s.output("JV", 1, b.rows, b.d, written)
	j := backend.JVP[T]{Z: b.z.v, V: v.v, JV: jv.v}
	var tangent []T
	if withW {
		j.W, tangent = w.v, w.host
	}
	if wantDZ {
		j.DZ = dz.v
	}
	b.f.JVP(at, j)
	tm.ref.evaluated(sel)
	jv.expect(verb, written, perRow(b.rows, b.d, written, func(r int) []num {
		return b.jvp(tm.instant(r, at), b.row(b.z, r), b.row(v, r), tangent)
	}))
	dz.expect(verb, func(r int) bool { return wantDZ && written(r) }, perRow(b.rows, b.d, written, func(r int) []num {
		return b.eval(tm.instant(r, at), b.row(b.z, r))
	}))
	unchanged(verb, b.z, v, w)
	tm.verify(verb)
}

// fieldCases are about all verbs of a field.
func fieldCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"Eval/new parameters", newParams[T]},
		{"Eval/views as operands", evalViews[T]},
		{"VJP/alone and in a batch", fieldAlone[T]},
		{"VJP/the same twice", fieldTwice[T]},
		{"Eval/not finite, one row", notFiniteRow[T]},
		{"Eval/not finite, parameters", notFiniteParams[T]},
		{"VJP/not finite, cotangent and G", notFiniteCotangent[T]},
		{"Eval/two fields", twoFields[T]},
	}
}

// newParams changes θ by every verb that can.
func newParams[T backend.Float](s *suite[T]) {
	b := s.bench(thoroughNet)
	check := func(how string) {
		s.equalBits(how+", then Download of Params", s.download(b.f.Params()), b.theta, "was written")
		checkEval(s, b, s.fresh(1), backend.Running)
		checkVJP(s, b, s.fresh(1), backend.Running, vjpWant{az: true, g: true})
		checkJVP(s, b, s.fresh(1), backend.Running, false, true)
	}
	check("Bind")
	b.theta = s.random(b.p)
	s.Upload(b.f.Params(), b.theta)
	check("Upload")
	b.theta = s.random(b.p)
	s.Copy(b.f.Params(), s.input("theta", 1, 1, b.p, b.theta).v)
	check("Copy")
	tm := s.fresh(1)
	b.theta = s.random(b.p)
	s.Commit(tm.clk, backend.Running, []backend.Move[T]{{Dst: b.f.Params(), Src: s.input("theta", 1, 1, b.p, b.theta).v}})
	check("Commit")
	b.theta = s.random(b.p)
	s.Combine(b.f.Params().Block(0), s.input("theta", 1, 1, b.p, b.theta).v, tm.at(0, backend.Running), nil, nil)
	check("Combine into Params().Block(0)")
	b.theta = make([]T, b.p)
	s.Zero(b.f.Params())
	check("Zero")
}

// evalViews uses blocks of one Vec for all operands, as the adjoint does.
func evalViews[T backend.Float](s *suite[T]) {
	b := s.bench(thoroughNet)
	tm := s.fresh(b.rows)
	at := tm.at(0.4, backend.Running)
	n := b.rows * b.d
	all := s.operand("all", 5, b.rows, b.d)
	copy(all.host[3*n:4*n], b.z.host)
	all.set(all.host)
	a := all.host[n : 2*n]
	b.f.VJP(at, backend.VJP[T]{Z: all.v.Block(3), A: all.v.Block(1), DZ: all.v.Block(4), AZ: all.v.Block(0), Alpha: 1})
	was := append([]T(nil), all.host...)
	all.expect("VJP among blocks", allRows, func(i int) num {
		r, c := i%n/b.d, i%b.d
		switch i / n {
		case 4:
			return b.eval(tm.instant(r, at), b.row(b.z, r))[c]
		case 0:
			az, _, _ := b.vjp(tm.instant(r, at), b.row(b.z, r), a[r*b.d:(r+1)*b.d])
			return az[c]
		}
		return exact(was[i])
	})
}

// products computes everything that a field can, of rows lo to hi of z, a, v on their
// own lanes.
func (b *bench[T]) products(s *suite[T], z, a, v, w []T) (out map[string][]T) {
	rows := len(z) / b.d
	at := s.fresh(rows).at(0.4, backend.Running)
	in := func(name string, x []T) backend.Vec[T] { return s.input(name, 1, rows, b.d, x).v }
	res := map[string]*operand[T]{"AT": s.output("AT", 1, rows, 1, allRows)}
	for _, name := range []string{"Eval", "DZ", "AZ", "JV"} {
		res[name] = s.output(name, 1, rows, b.d, allRows)
	}
	g := s.input("G", 1, 1, b.p, make([]T, b.p))
	b.f.Eval(res["Eval"].v, at, in("z", z))
	b.f.VJP(at, backend.VJP[T]{Z: in("z", z), A: in("a", a), DZ: res["DZ"].v, AZ: res["AZ"].v, AT: res["AT"].v, Alpha: -1, G: g.v, W: 2, TimesH: true})
	b.f.JVP(at, backend.JVP[T]{Z: in("z", z), V: in("v", v), W: s.input("w", 1, 1, b.p, w).v, JV: res["JV"].v})
	out = map[string][]T{"G": g.read("VJP")}
	for name, o := range res {
		out[name] = o.read(name)
	}
	return out
}

// aloneNets have rows on both sides of the tiles' borders.
func aloneNets() []net {
	long, wide := mlp.Dense(mlp.Tanh, 2, 9, 2), mlp.Dense(mlp.Softplus, 3, 130, 3)
	long.Time, wide.Time = mlp.TimeInput, mlp.TimeEveryLayer
	return []net{{67, long}, {131, long}, {5, wide}, {5, mlp.Dense(mlp.ReLU, 2, 20, 20, 2)}}
}

func fieldAlone[T backend.Float](s *suite[T]) {
	for _, n := range aloneNets() {
		b := s.bench(n)
		z, a, v, w := b.z.host, s.random(b.rows*b.d), s.random(b.rows*b.d), s.random(b.p)
		together := b.products(s, z, a, v, w)
		for _, r := range []int{0, 1, b.rows / 2, b.rows - 2, b.rows - 1} {
			lo, hi := r*b.d, (r+1)*b.d
			for name, got := range b.products(s, z[lo:hi], a[lo:hi], v[lo:hi], w) {
				if cols := len(got); name != "G" {
					s.equalBits(fmt.Sprintf("%s of %v: row %d alone", name, n, r), got, together[name][r*cols:(r+1)*cols], "in the batch")
				}
			}
		}
	}
}

func fieldTwice[T backend.Float](s *suite[T]) {
	for _, n := range aloneNets() {
		b := s.bench(n)
		z, a, v, w := b.z.host, s.random(b.rows*b.d), s.random(b.rows*b.d), s.random(b.p)
		first := b.products(s, z, a, v, w)
		for name, got := range b.products(s, z, a, v, w) {
			s.equalBits(fmt.Sprintf("%s of %v", name, n), got, first[name], "the first time")
		}
	}
}

// notFiniteRow: what is not finite in one row of the state shows in its own results,
// as far as the activations let it, and in no other row's.
func notFiniteRow[T backend.Float](s *suite[T]) {
	for _, act := range mlp.Activations() {
		spec := mlp.Dense(act, 3, 5, 3)
		spec.Time = mlp.TimeInput
		b := s.bench(net{6, spec})
		for r, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			b.z.host[(2*r)*b.d+r] = T(bad)
		}
		b.z.set(b.z.host)
		verb := fmt.Sprintf("Eval with %v of what is not finite", act)
		tm := s.fresh(b.rows)
		at := tm.at(0, backend.Running)
		dz := s.output("dz", 1, b.rows, b.d, allRows)
		b.f.Eval(dz.v, at, b.z.v)
		dz.expect(verb, allRows, perRow(b.rows, b.d, allRows, func(r int) []num { return b.eval(0.3, b.row(b.z, r)) }))
		checkVJP(s, b, s.fresh(b.rows), backend.Running, vjpWant{dz: true, az: true, at: true})
		// Rows that are finite are the same in any company.
		clean := append([]T(nil), b.z.host...)
		for r := range 3 {
			clean[(2*r)*b.d+r] = 0.5
		}
		alone := s.output("dz", 1, b.rows, b.d, allRows)
		b.f.Eval(alone.v, at, s.input("z", 1, b.rows, b.d, clean).v)
		got := alone.read("Eval")
		for r := 1; r < b.rows; r += 2 {
			s.equalBits(verb+", another row", b.row(dz, r), got[r*b.d:(r+1)*b.d], "beside finite rows")
		}
	}
}

// notFiniteParams: a weight that is not finite shows in every row, even where what
// it multiplies is 0.
func notFiniteParams[T backend.Float](s *suite[T]) {
	spec := mlp.Dense(mlp.ReLU, 3, 5, 3)
	b := s.bench(net{4, spec})
	b.z.set(make([]T, len(b.z.host))) // all weights of the first layer are multiplied by 0
	hidden, last := spec.Layer(0), spec.Layer(1)
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		for _, i := range []int{hidden.W + 2*hidden.In + 1, hidden.B + 3, last.W + last.In - 1, last.B} {
			good := b.theta[i]
			b.theta[i] = T(bad)
			s.Upload(b.f.Params(), b.theta)
			checkEval(s, b, s.fresh(b.rows), backend.Running)
			checkVJP(s, b, s.fresh(b.rows), backend.Running, vjpWant{dz: true, az: true, at: true, g: true})
			checkJVP(s, b, s.fresh(1), backend.Running, true, true)
			b.theta[i] = good
		}
	}
	s.Upload(b.f.Params(), b.theta)
	checkEval(s, b, s.fresh(b.rows), backend.Running)
}

// notFiniteCotangent: what is not finite in one row of the cotangent shows in its
// results and in G, and what is not finite in z shows in G though the cotangent is 0.
func notFiniteCotangent[T backend.Float](s *suite[T]) {
	for _, act := range []mlp.Activation{mlp.Tanh, mlp.ReLU} {
		b := s.bench(net{5, mlp.Dense(act, 3, 6, 3)})
		for _, spoil := range []func(z, a *operand[T]){
			func(_, a *operand[T]) { a.host[4] = T(math.NaN()) },
			func(_, a *operand[T]) { a.host[7] = T(math.Inf(-1)) },
			func(z, a *operand[T]) {
				z.host[6] = T(math.Inf(1))
				for c := range b.d {
					a.host[6+c] = 0
				}
			},
		} {
			a := s.operand("a", 1, b.rows, b.d)
			spoil(b.z, a)
			a.set(a.host)
			b.z.set(b.z.host)
			tm := s.fresh(1)
			at := tm.at(0, backend.Running)
			az, g := s.output("AZ", 1, b.rows, b.d, allRows), s.operand("G", 1, 1, b.p)
			sums := make([]sum, b.p)
			for i, v := range g.host {
				sums[i].add(exact(v))
			}
			b.f.VJP(at, backend.VJP[T]{Z: b.z.v, A: a.v, AZ: az.v, Alpha: 1, G: g.v, W: 1})
			back := perRow(b.rows, b.d, allRows, func(r int) []num {
				rowZ, _, theta := b.vjp(tm.instant(r, at), b.row(b.z, r), b.row(a, r))
				for i := range theta {
					sums[i].add(theta[i])
				}
				return rowZ
			})
			verb := fmt.Sprintf("VJP with %v of what is not finite", act)
			az.expect(verb, allRows, back)
			g.expect(verb, allRows, func(i int) num { return sums[i].total(b.arith) })
		}
	}
}

// twoFields are bound at once, and one is closed.
func twoFields[T backend.Float](s *suite[T]) {
	b1, b2 := s.bench(thoroughNet), s.bench(net{3, mlp.Dense(mlp.Sin, 2, 40, 2)})
	for range 2 {
		checkEval(s, b1, s.fresh(b1.rows), backend.Running)
		checkEval(s, b2, s.fresh(b2.rows), backend.Running)
	}
	b1.f.Close()
	checkEval(s, b2, s.fresh(b2.rows), backend.Running)

	tm := s.fresh(b1.rows)
	dz := s.output("dz", 1, b1.rows, b1.d, func(int) bool { return false })
	b1.f.Eval(dz.v, tm.at(0, backend.Running), b1.z.v)
	if err := s.Sync(); !errors.Is(err, backend.ErrClosed) {
		s.Errorf("Sync after Eval of a field that was closed: %v, want ErrClosed", err)
	}
	dz.unchanged("Eval of a field that was closed")
	b1.f.Close()
}
