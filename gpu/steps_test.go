//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// open returns a backend, or skips the test where there is no device.
func openOrSkip[T backend.Float](t testing.TB) *Backend[T] {
	t.Helper()
	b, err := Open[T](Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// stepper drives the verbs of a step with stages that a generator makes instead of
// a field, so that every lane goes its own way: some steps are rejected, some
// stages are not finite.
type stepper[T backend.Float] struct {
	t            testing.TB
	b            backend.Backend[T]
	c            shape
	tab          *tableau.Tableau
	clk          backend.Clock
	y, trial     backend.Vec[T]
	k            []backend.Vec[T]
	table, stops backend.Vec[T]
	tape         backend.Tape[T]
	calls        uint64 // of noise
}

// shape is one case.
type shape struct {
	lanes, blocks, rows, cols int
	tab                       *tableau.Tableau
	back, fixed               bool
	nan                       bool // the first lane meets a stage that is not finite
	first                     int  // the number of row 0, from which its noise follows
	attempts                  int
}

func (c shape) String() string {
	return fmt.Sprintf("%s/lanes=%d/%dx%dx%d/back=%v/fixed=%v/nan=%v", c.tab.Name, c.lanes, c.blocks, c.rows, c.cols, c.back, c.fixed, c.nan)
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func newStepper[T backend.Float](t testing.TB, b backend.Backend[T], c shape) *stepper[T] {
	s := &stepper[T]{t: t, b: b, c: c, tab: c.tab}
	s.clk = must(b.NewClock(c.lanes))
	vec := func(blocks int) backend.Vec[T] { return must(b.NewVec(blocks, c.rows, c.cols)) }
	s.y, s.trial = vec(c.blocks), vec(c.blocks)
	for range len(c.tab.Dense.P) {
		s.k = append(s.k, vec(c.blocks))
	}
	s.table, s.stops = vec(5), vec(3)
	s.tape = must(b.NewTape(c.lanes, c.rows, c.cols, 3))
	return s
}

func (s *stepper[T]) close() {
	for _, v := range append([]backend.Vec[T]{s.y, s.trial, s.table, s.stops}, s.k...) {
		s.b.Free(v)
	}
	s.clk.Close()
	s.tape.Close()
}

// noise uploads normal numbers, scaled row by row.
func (s *stepper[T]) noise(v backend.Vec[T], scale float64) {
	s.calls++
	blocks, rows, cols := v.Shape()
	x := make([]T, 0, blocks*rows*cols)
	for blk := range blocks {
		for r := range rows {
			row := uint64(s.c.first + r)
			f := scale * math.Exp(rand.New(rand.NewPCG(1, row)).NormFloat64())
			rng := rand.New(rand.NewPCG(s.calls<<8|uint64(blk), row))
			for range cols {
				x = append(x, T(f*rng.NormFloat64()))
			}
		}
	}
	s.b.Upload(v, x)
}

func (s *stepper[T]) span() backend.Span {
	sp := backend.Span{
		T0: 0.25, Saves: []float64{0.26, 0.3, 0.7, 1.3, 2}, Stops: []float64{0.5, 0.9, 1, 2}, Blocks: []int{1, -1, 0, 2},
		Breaks: []float64{0.25, 0.9}, MaxStep: 0.4,
	}
	if s.c.fixed {
		sp.H0 = 0.11
	}
	if s.c.back {
		sp.T0 = -sp.T0
		for _, l := range [][]float64{sp.Saves, sp.Stops, sp.Breaks} {
			for i := range l {
				l[i] = -l[i]
			}
		}
	}
	return sp
}

var tol = backend.Tolerance{Rel: 1e-2, Abs: 1e-2}

func (s *stepper[T]) at(c float64, r backend.Rows) backend.At {
	return backend.At{Clock: s.clk, C: c, Rows: r}
}

// start begins a solve.
func (s *stepper[T]) start() {
	b := s.b
	s.noise(s.y, 1)
	s.noise(s.stops, 1)
	b.Zero(s.table)
	b.Start(s.clk, s.span())
	s.noise(s.k[0], 1)
	if !s.c.fixed {
		b.ProposeStep(s.clk, s.y, s.k[0], nil, s.tab.Order, tol)
		b.Combine(s.trial, s.y, s.at(1, backend.Running), []float64{1}, s.k)
		s.noise(s.k[1], 3)
		b.ProposeStep(s.clk, s.y, s.k[0], s.k[1], s.tab.Order, tol)
	}
}

// attempt is the loop of internal/step with noise for stages.
func (s *stepper[T]) attempt(i int) {
	b, tab := s.b, s.tab
	n := tab.Stages()
	scale := 0.2
	if i%4 == 2 {
		scale = 6 // a rejection
	}
	for j, k := range s.k {
		s.noise(k, scale)
		if s.c.nan && i == 3 && j == n-1 {
			blocks, rows, cols := k.Shape()
			x := make([]T, blocks*rows*cols)
			x[len(x)/blocks-1], x[len(x)/2/blocks] = T(math.NaN()), T(math.Inf(1))
			b.Upload(k, x)
		}
		if j > 0 && j < n {
			b.Combine(s.trial, s.y, s.at(tab.C[j], backend.Running), tab.A[j], s.k)
		}
	}
	b.Combine(s.trial, s.y, s.at(1, backend.Running), tab.B, s.k)
	e, e2 := tab.E, tab.E2
	if s.c.fixed {
		e, e2 = nil, nil
	}
	parts := []backend.Part[T]{{Y0: s.y, Y1: s.trial, K: s.k}}
	if s.c.lanes == 1 {
		one := backend.Part[T]{Y0: s.y.Block(0), Y1: s.trial.Block(0)}
		for _, k := range s.k {
			one.K = append(one.K, k.Block(0))
		}
		parts = append(parts, one, parts[0])
	}
	b.ErrorRatio(s.clk, tol, e, e2, parts)
	b.Advance(s.clk, backend.Control{
		Fixed: s.c.fixed, Order: 4, Beta: [3]float64{0.2, -0.05, 0.02}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 5,
		MinStep: 1e-9, MaxAttempts: 60, Handover: backend.HandSaving,
	})
	views := func(v []backend.Vec[T]) (w []backend.Vec[T]) {
		for _, x := range v {
			w = append(w, x.Block(0))
		}
		return w
	}
	y, trial := s.y.Block(0), s.trial.Block(0)
	b.Save(s.clk, tab.Dense.P, y, trial, views(s.k), s.table)
	b.Push(s.clk, s.tape, []backend.Vec[T]{y, trial, s.k[0].Block(0)})
	b.AtStop(s.clk, backend.Store, trial, s.stops)
	b.Commit(s.clk, backend.Accepted, []backend.Move[T]{{Dst: s.y, Src: s.trial}, {Dst: s.k[0], Src: s.k[n-1]}, {Dst: y, Src: s.k[0].Block(0)}})
	b.Commit(s.clk, backend.Saving, []backend.Move[T]{{Dst: s.k[0], Src: s.k[1]}})
	b.AtStop(s.clk, backend.Add, y, s.stops)
	if i%3 == 0 {
		b.AtStop(s.clk, backend.Load, y, s.stops)
	}
	b.Commit(s.clk, backend.Stale, []backend.Move[T]{{Dst: s.k[0], Src: s.y}})
}

// record is all that can be seen of a stepper.
type record struct {
	progress backend.Progress
	lanes    []backend.Lane
	vecs     [][]float64
}

func (s *stepper[T]) record() (r record) {
	s.t.Helper()
	r.progress = must(s.b.Poll(s.clk))
	r.lanes = make([]backend.Lane, s.c.lanes)
	if err := s.b.Lanes(s.clk, r.lanes); err != nil {
		s.t.Fatal(err)
	}
	for _, v := range []backend.Vec[T]{s.y, s.trial, s.k[0], s.table, s.stops} {
		r.vecs = append(r.vecs, download(s.t, s.b, v))
	}
	return r
}

func download[T backend.Float](t testing.TB, b backend.Backend[T], v backend.Vec[T]) []float64 {
	t.Helper()
	blocks, rows, cols := v.Shape()
	x := make([]T, blocks*rows*cols)
	if err := b.Download(x, v); err != nil {
		t.Fatal(err)
	}
	y := make([]float64, len(x))
	for i, a := range x {
		y[i] = float64(a)
	}
	return y
}

// steps reads the tape, backwards if asked to.
func (s *stepper[T]) steps(back bool) [][]float64 {
	var all [][]float64
	buf := make([]T, 3*s.c.rows/s.c.lanes*s.c.cols)
	for lane := range s.c.lanes {
		for i := range s.tape.Len(lane) {
			all = append(all, []float64{float64(lane), float64(i)})
		}
	}
	for j := range all {
		if back {
			j = len(all) - 1 - j
		}
		t, h, err := s.b.ReadTape(s.tape, int(all[j][0]), int(all[j][1]), buf)
		if err != nil {
			s.t.Fatal(err)
		}
		all[j] = append(all[j], t, h)
		for _, v := range buf {
			all[j] = append(all[j], float64(v))
		}
	}
	return all
}

func (s *stepper[T]) run() (r record, tape [][]float64) {
	s.start()
	for i := range s.c.attempts {
		s.attempt(i)
	}
	return s.record(), s.steps(false)
}

// near is equal, or within rel·(1+|want|), or both not finite.
func near(got, want, rel float64) bool {
	if math.IsNaN(want) || math.IsInf(want, 0) {
		return math.IsNaN(got) == math.IsNaN(want) && (math.IsNaN(got) || got == want)
	}
	return math.Abs(got-want) <= rel*(1+math.Abs(want))
}

func (r record) compare(t testing.TB, want record, rel float64) {
	t.Helper()
	g, w := r.progress, want.progress
	if g.Running != w.Running || g.Failed != w.Failed || g.Accepted != w.Accepted || g.Rejected != w.Rejected || !near(g.T, w.T, rel) {
		t.Errorf("Poll: %+v, want %+v", g, w)
	}
	for i, g := range r.lanes {
		w := want.lanes[i]
		// The ratio is a sum over elements that went through the precision of the stages.
		same := g.Status == w.Status && g.Evaluations == w.Evaluations && g.Accepted == w.Accepted && g.Rejected == w.Rejected &&
			near(g.T, w.T, rel) && near(g.H, w.H, rel) && near(g.SmallestH, w.SmallestH, rel) && near(g.LastH, w.LastH, rel) &&
			near(g.Next, w.Next, rel) && near(g.Ratio, w.Ratio, rel) && g.Row == w.Row && g.Col == w.Col
		if !same {
			t.Fatalf("lane %d:\n got %+v\nwant %+v", i, g, w)
		}
	}
	for n, name := range []string{"y", "trial", "k", "table", "stops"} {
		compareSlices(t, name, r.vecs[n], want.vecs[n], rel)
	}
}

func compareSlices(t testing.TB, name string, got, want []float64, rel float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		if !near(got[i], w, rel) {
			t.Fatalf("%s[%d] = %.17g, want %.17g", name, i, got[i], w)
		}
	}
}

// shapes covers each way of summing a lane, at its limits, and both widths of the
// elementwise kernels.
func shapes() (all []shape) {
	dopri, dop853, bosh := tableau.Dopri5(), tableau.Dopri8(), tableau.Bosh3()
	for i, c := range []shape{
		{lanes: 1, rows: 1, cols: 1}, {lanes: 1, rows: 3, cols: 5}, {lanes: 1, rows: 64, cols: 2},
		{lanes: 1, rows: 43, cols: 3}, {lanes: 1, rows: 32, cols: 64}, {lanes: 1, rows: 683, cols: 3},
		{lanes: 1, rows: 1, cols: 5000}, {lanes: 1, rows: 1030, cols: 128, attempts: 5},
		{lanes: 5, rows: 5, cols: 1}, {lanes: 300, rows: 300, cols: 2}, {lanes: 33, rows: 33, cols: 3}, {lanes: 7, rows: 7, cols: 4},
		{lanes: 70, rows: 70, cols: 31}, {lanes: 9, rows: 9, cols: 64}, {lanes: 10, rows: 10, cols: 128},
		{lanes: 4, rows: 4, cols: 129}, {lanes: 3, rows: 3, cols: 2048}, {lanes: 3, rows: 3, cols: 4099},
	} {
		c.tab, c.blocks = dopri, 1+i%2
		if c.attempts == 0 {
			c.attempts = 12
		}
		switch i % 5 {
		case 1:
			c.back = true
		case 2:
			c.tab = dop853
		case 3:
			c.tab, c.nan = bosh, true
		case 4:
			c.fixed, c.nan = true, true
		}
		all = append(all, c)
	}
	return all
}

func eachShape(t *testing.T, check func(t *testing.T, c shape)) {
	for _, c := range shapes() {
		t.Run(c.String(), func(t *testing.T) { check(t, c) })
	}
}

// A solve by every verb equals the CPU's to rounding: that of some ten steps in T,
// and of the step sizes, whose logarithms and powers the device rounds its own way.
func TestVerbs_MatchCPU(t *testing.T) {
	t.Run("f32", func(t *testing.T) { testVerbs[float32](t, 3e-5) })
	t.Run("f64", func(t *testing.T) { testVerbs[float64](t, 1e-12) })
}

func testVerbs[T backend.Float](t *testing.T, rel float64) {
	dev, ref := openOrSkip[T](t), cpu.New[T]()
	eachShape(t, func(t *testing.T, c shape) {
		g, r := newStepper[T](t, dev, c), newStepper[T](t, ref, c)
		defer g.close()
		got, gotTape := g.run()
		want, wantTape := r.run()
		got.compare(t, want, rel)
		if len(gotTape) != len(wantTape) {
			t.Fatalf("%d steps on the tape, want %d", len(gotTape), len(wantTape))
		}
		for i, w := range wantTape {
			compareSlices(t, fmt.Sprintf("tape step %d", i), gotTape[i], w, rel)
		}
		if want.progress.Accepted == 0 || want.progress.Rejected == 0 && !c.fixed {
			t.Errorf("%+v: the case exercises too little", want.progress)
		}
		for i, w := range g.steps(true) {
			compareSlices(t, "tape read backwards", w, gotTape[i], 0)
		}
	})
}

// A second run has the same bits.
func TestVerbs_RerunIsBitEqual(t *testing.T) {
	dev := openOrSkip[float32](t)
	eachShape(t, func(t *testing.T, c shape) {
		c.attempts = 4
		a, b := newStepper[float32](t, dev, c), newStepper[float32](t, dev, c)
		defer a.close()
		defer b.close()
		ra, ta := a.run()
		rb, tb := b.run()
		ra.compare(t, rb, 0)
		for i := range ta {
			compareSlices(t, "tape", ta[i], tb[i], 0)
		}
	})
}

// A lane's result does not depend on its batch: it is the same to the last bit alone.
func TestVerbs_LaneAloneIsBitEqual(t *testing.T) {
	t.Run("f32", testAlone[float32])
	t.Run("f64", testAlone[float64])
}

func testAlone[T backend.Float](t *testing.T) {
	dev := openOrSkip[T](t)
	for _, cols := range []int{1, 2, 3, 32, 128, 129, 2048, 2050} {
		batch := shape{lanes: 5, rows: 5, blocks: 2, cols: cols, tab: tableau.Bosh3(), attempts: 6}
		all := newStepper[T](t, dev, batch)
		want, wantTape := all.run()
		all.close()
		for lane := range batch.lanes {
			one := batch
			one.lanes, one.rows, one.first = 1, 1, lane
			s := newStepper[T](t, dev, one)
			got, gotTape := s.run()
			s.close()
			g, w := got.lanes[0], want.lanes[lane]
			g.Row = lane
			if g != w {
				t.Fatalf("%d columns, lane %d: alone\n%+v, in a batch\n%+v", cols, lane, g, w)
			}
			for n, v := range want.vecs {
				for blk := range len(v) / (5 * cols) {
					compareSlices(t, fmt.Sprintf("%d columns, lane %d", cols, lane),
						got.vecs[n][blk*cols:(blk+1)*cols], v[(blk*5+lane)*cols:(blk*5+lane+1)*cols], 0)
				}
			}
			for _, step := range wantTape {
				if int(step[0]) == lane {
					compareSlices(t, "tape", gotTape[int(step[1])][1:], step[1:], 0)
				}
			}
		}
	}
}

// Every layout that kernels and Go share.
func TestArgs_SizesMatchKernels(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"ClockView", unsafe.Sizeof(clockView{}), 40}, {"SpanView", unsafe.Sizeof(spanView{}), 104},
		{"Progress", unsafe.Sizeof(progress{}), 56}, {"TapeView", unsafe.Sizeof(tapeView{}), 48},
	} {
		if c.got != c.want {
			t.Errorf("%s has %d bytes, and %d on the device", c.what, c.got, c.want)
		}
	}
}

// In steady state the verbs of a step allocate nothing.
func TestVerbs_DoNotAllocate(t *testing.T) {
	dev := openOrSkip[float32](t)
	for _, c := range []shape{
		{lanes: 1, rows: 900, cols: 3}, {lanes: 40, rows: 40, cols: 4},
	} {
		c.tab, c.blocks = tableau.Dopri8(), 1
		s := newStepper[float32](t, dev, c)
		s.start()
		s.attempt(0)
		at, n := s.at(1, backend.Running), s.tab.Stages()
		parts := []backend.Part[float32]{{Y0: s.y, Y1: s.trial, K: s.k}}
		moves := []backend.Move[float32]{{Dst: s.y, Src: s.trial}, {Dst: s.k[0], Src: s.k[n-1]}}
		allocs := testing.AllocsPerRun(5, func() {
			dev.ProposeStep(s.clk, s.y, s.k[0], s.k[1], 8, tol)
			dev.Combine(s.trial, s.y, at, s.tab.B, s.k)
			dev.ErrorRatio(s.clk, tol, s.tab.E, s.tab.E2, parts)
			dev.Advance(s.clk, backend.Control{Order: 8, Safety: 0.9, MinFactor: 0.2, MaxFactor: 5})
			dev.Save(s.clk, s.tab.Dense.P, s.y, s.trial, s.k, s.table)
			dev.Commit(s.clk, backend.Accepted, moves)
			dev.AtStop(s.clk, backend.Add, s.y, s.stops)
			if _, err := dev.Poll(s.clk); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%v: %g allocations a step", c, allocs)
		}
		s.close()
	}
}

// An interpolant of many stages for many lanes needs more shared memory than there is
// for the usual team.
func TestSave_ManyStages(t *testing.T) {
	const lanes, stages = 300, 32
	dev, ref := openOrSkip[float64](t), cpu.New[float64]()
	var out [2][]float64
	for i, b := range []backend.Backend[float64]{dev, ref} {
		s := newStepper(t, b, shape{lanes: lanes, rows: lanes, cols: 1, blocks: 1, tab: tableau.Bosh3()})
		defer s.close()
		var k []backend.Vec[float64]
		dense := make([][]float64, stages)
		for j := range dense {
			dense[j] = []float64{1, float64(j) / 10, -0.5}
			v := must(b.NewVec(1, lanes, 1))
			defer b.Free(v)
			s.noise(v, 1)
			k = append(k, v)
		}
		s.noise(s.y, 1)
		s.noise(s.trial, 1)
		b.Start(s.clk, backend.Span{T0: 0, Saves: []float64{0.1, 0.35}, Stops: []float64{1}, H0: 0.4})
		b.ErrorRatio(s.clk, tol, nil, nil, nil)
		b.Advance(s.clk, backend.Control{Fixed: true})
		b.Save(s.clk, dense, s.y, s.trial, k, s.table)
		out[i] = download(t, b, s.table)
	}
	compareSlices(t, "table", out[0], out[1], 1e-14)
}
