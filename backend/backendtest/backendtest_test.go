package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
)

// onlooker takes the place of a testing.T and keeps what was said.
type onlooker struct{ messages []string }

func (o *onlooker) Helper() {}
func (o *onlooker) Errorf(format string, args ...any) {
	o.messages = append(o.messages, fmt.Sprintf(format, args...))
}
func (o *onlooker) FailNow() { runtime.Goexit() }

// complaints runs the cases whose names begin with prefix on backends that open
// makes, and returns what the suite said about them.
func complaints[T backend.Float](prefix string, open func() backend.Backend[T]) (all []string) {
	for _, c := range cases[T]() {
		if !strings.HasPrefix(c.name, prefix) {
			continue
		}
		var o onlooker
		done := make(chan struct{})
		go func() { // FailNow and a panic end it
			defer close(done)
			defer func() {
				if p := recover(); p != nil {
					o.Errorf("panic: %v", p)
				}
			}()
			c.check(&o, open(), open)
		}()
		<-done
		all = append(all, o.messages...)
	}
	return all
}

func TestSuite_AcceptsCPU(t *testing.T) {
	for _, m := range complaints("", func() backend.Backend[float64] { return cpu.New[float64]() }) {
		t.Error(m)
	}
}

func TestSuite_CatchesDefects(t *testing.T) {
	t.Run("float32", catchesDefects[float32])
	t.Run("float64", catchesDefects[float64])
}

func catchesDefects[T backend.Float](t *testing.T) {
	for _, d := range defects[T]() {
		t.Run(d.name, func(t *testing.T) {
			got := complaints(d.cases, func() backend.Backend[T] {
				h := &broken[T]{Backend: cpu.New[T]()}
				d.plant(h)
				return h
			})
			if len(got) == 0 {
				t.Fatalf("the cases %q do not notice", d.cases)
			}
			for _, m := range got {
				if strings.Contains(m, d.says) && !strings.HasPrefix(m, "panic") {
					return
				}
			}
			t.Errorf("no message contains %q; the first: %s", d.says, got[0])
		})
	}
}

// recorder keeps verbs as a closure, the cheap way to be a backend.Recorder.
type recorder[T backend.Float] struct {
	*cpu.Backend[T]
	replays int // that a recording is good for; 0: any number
}

type replay struct {
	enqueue func()
	left    int
}

func (r recorder[T]) Record(enqueue func()) (backend.Recording, error) {
	return &replay{enqueue, r.replays}, nil
}

func (r *replay) Replay() bool {
	if r.left != 1 {
		r.enqueue()
	}
	if r.left > 1 {
		r.left--
	}
	return true
}

func (r *replay) Close() {}

func TestSuite_Recorder(t *testing.T) {
	with := func(replays int) []string {
		return complaints("solve/recorded", func() backend.Backend[float64] { return recorder[float64]{cpu.New[float64](), replays} })
	}
	for _, m := range with(0) {
		t.Error(m)
	}
	if len(with(5)) == 0 {
		t.Error("a recording that stops working is not noticed")
	}
}

func TestNumber_SumIsWithinItsBound(t *testing.T) {
	// Sums of float32 products in both orders, against float64.
	rng := rand.New(rand.NewPCG(1, 2))
	a := arith{unit[float32]()}
	worst := 0.0
	for n := 1; n < 300; n++ {
		x, y := make([]float32, n), make([]float32, n)
		var want sum
		for i := range x {
			x[i], y[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
			want.add(a.mul(exact(x[i]), exact(y[i])))
		}
		var up, down float32
		for i := range x {
			up += x[i] * y[i]
			down += x[n-1-i] * y[n-1-i]
		}
		total := want.total(a)
		for _, got := range []float32{up, down} {
			if !near(got, total) {
				t.Fatalf("a sum of %d products is %g, want %g ± %g", n, got, total.v, total.e)
			}
			worst = max(worst, math.Abs(float64(got)-total.v)/total.e)
		}
	}
	if worst < 0.01 {
		t.Errorf("the bound is more than 100 times too wide: worst error is %g of it", worst)
	}
}

func TestPerceptron_MatchesModel(t *testing.T) {
	s := &suite[float64]{reporter: t, arith: arith{unit[float64]()}, rng: rand.New(rand.NewPCG(1, 2))}
	for _, n := range nets() {
		m := s.model(n.spec)
		p := perceptron[float64]{s.arith, m.Spec, m.Theta}
		d, time := m.Dim(), 0.37
		z, a, v, w := s.random(d), s.random(d), s.random(d), s.random(m.NumParams())
		compare := func(what string, got []num, want []float64) {
			t.Helper()
			for i := range want {
				if !near(want[i], got[i]) {
					t.Errorf("%v: %s[%d] is %g ± %g, and %g by mlp.Model", n, what, i, got[i].v, got[i].e, want[i])
				}
				if got[i].e > 1e-9*(1+math.Abs(got[i].v)) {
					t.Errorf("%v: %s[%d] = %g has a bound of %g", n, what, i, got[i].v, got[i].e)
				}
			}
		}
		dz, az, atheta, jv := make([]float64, d), make([]float64, d), make([]float64, len(w)), make([]float64, d)
		m.Eval(time, z, dz)
		at := m.VJP(time, z, a, az, atheta)
		m.JVP(time, z, v, w, jv)
		gotAZ, gotAT, gotTheta := p.vjp(time, z, a)
		compare("f", p.eval(time, z), dz)
		compare("aᵀ∂f/∂z", gotAZ, az)
		compare("aᵀ∂f/∂t", []num{gotAT}, []float64{at})
		compare("aᵀ∂f/∂θ", gotTheta, atheta)
		compare("(∂f/∂z)v + (∂f/∂θ)w", p.jvp(time, z, v, w), jv)
	}
}

// defect is something a backend may get wrong.
type defect[T backend.Float] struct {
	name  string
	cases string // prefix of the cases that must notice
	says  string // in one of their messages
	plant func(h *broken[T])
}

// broken is a backend with a hook in place of some verbs.
type broken[T backend.Float] struct {
	backend.Backend[T]
	newVec      func(blocks, rows, cols int) (backend.Vec[T], error)
	bind        func(sys backend.System[T]) (backend.Field[T], error)
	free        func(v backend.Vec[T])
	upload      func(dst backend.Vec[T], src []T)
	download    func(dst []T, src backend.Vec[T]) error
	copy        func(dst, src backend.Vec[T])
	zero        func(dst backend.Vec[T])
	start       func(clk backend.Clock, s ...backend.Span)
	proposeStep func(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance)
	combine     func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T])
	errorRatio  func(clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T])
	advance     func(clk backend.Clock, c backend.Control)
	save        func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T])
	commit      func(clk backend.Clock, rows backend.Rows, moves []backend.Move[T])
	atStop      func(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T])
	push        func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T])
	poll        func(clk backend.Clock) (backend.Progress, error)
	lanes       func(clk backend.Clock, dst []backend.Lane) error
	readTape    func(tape backend.Tape[T], lane, i int, dst []T) (t, h float64, err error)
	// of fields
	eval func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T])
	vjp  func(f backend.Field[T], at backend.At, v backend.VJP[T])
	jvp  func(f backend.Field[T], at backend.At, j backend.JVP[T])
}

func (h *broken[T]) NewVec(blocks, rows, cols int) (backend.Vec[T], error) {
	if h.newVec != nil {
		return h.newVec(blocks, rows, cols)
	}
	return h.Backend.NewVec(blocks, rows, cols)
}

func (h *broken[T]) Bind(sys backend.System[T]) (backend.Field[T], error) {
	bind := h.Backend.Bind
	if h.bind != nil {
		bind = h.bind
	}
	f, err := bind(sys)
	if err != nil {
		return nil, err
	}
	return &brokenField[T]{f, h}, nil
}

func (h *broken[T]) Free(v backend.Vec[T]) {
	if h.free != nil {
		h.free(v)
		return
	}
	h.Backend.Free(v)
}

func (h *broken[T]) Upload(dst backend.Vec[T], src []T) {
	if h.upload != nil {
		h.upload(dst, src)
		return
	}
	h.Backend.Upload(dst, src)
}

func (h *broken[T]) Download(dst []T, src backend.Vec[T]) error {
	if h.download != nil {
		return h.download(dst, src)
	}
	return h.Backend.Download(dst, src)
}

func (h *broken[T]) Copy(dst, src backend.Vec[T]) {
	if h.copy != nil {
		h.copy(dst, src)
		return
	}
	h.Backend.Copy(dst, src)
}

func (h *broken[T]) Zero(dst backend.Vec[T]) {
	if h.zero != nil {
		h.zero(dst)
		return
	}
	h.Backend.Zero(dst)
}

func (h *broken[T]) Start(clk backend.Clock, spans ...backend.Span) {
	if h.start != nil {
		h.start(clk, spans...)
		return
	}
	h.Backend.Start(clk, spans...)
}

func (h *broken[T]) ProposeStep(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
	if h.proposeStep != nil {
		h.proposeStep(clk, y0, f0, f1, order, tol)
		return
	}
	h.Backend.ProposeStep(clk, y0, f0, f1, order, tol)
}

func (h *broken[T]) Combine(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	if h.combine != nil {
		h.combine(dst, y, at, coef, k)
		return
	}
	h.Backend.Combine(dst, y, at, coef, k)
}

func (h *broken[T]) ErrorRatio(clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
	if h.errorRatio != nil {
		h.errorRatio(clk, tol, e, e2, parts)
		return
	}
	h.Backend.ErrorRatio(clk, tol, e, e2, parts)
}

func (h *broken[T]) Advance(clk backend.Clock, c backend.Control) {
	if h.advance != nil {
		h.advance(clk, c)
		return
	}
	h.Backend.Advance(clk, c)
}

func (h *broken[T]) Save(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
	if h.save != nil {
		h.save(clk, dense, y0, y1, k, table)
		return
	}
	h.Backend.Save(clk, dense, y0, y1, k, table)
}

func (h *broken[T]) Commit(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
	if h.commit != nil {
		h.commit(clk, rows, moves)
		return
	}
	h.Backend.Commit(clk, rows, moves)
}

func (h *broken[T]) AtStop(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
	if h.atStop != nil {
		h.atStop(clk, op, y, table)
		return
	}
	h.Backend.AtStop(clk, op, y, table)
}

func (h *broken[T]) Push(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
	if h.push != nil {
		h.push(clk, tape, keep)
		return
	}
	h.Backend.Push(clk, tape, keep)
}

func (h *broken[T]) Poll(clk backend.Clock) (backend.Progress, error) {
	if h.poll != nil {
		return h.poll(clk)
	}
	return h.Backend.Poll(clk)
}

func (h *broken[T]) Lanes(clk backend.Clock, dst []backend.Lane) error {
	if h.lanes != nil {
		return h.lanes(clk, dst)
	}
	return h.Backend.Lanes(clk, dst)
}

func (h *broken[T]) ReadTape(tape backend.Tape[T], lane, i int, dst []T) (t, hh float64, err error) {
	if h.readTape != nil {
		return h.readTape(tape, lane, i, dst)
	}
	return h.Backend.ReadTape(tape, lane, i, dst)
}

type brokenField[T backend.Float] struct {
	backend.Field[T]
	h *broken[T]
}

func (f *brokenField[T]) Eval(dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
	if f.h.eval != nil {
		f.h.eval(f.Field, dz, at, z)
		return
	}
	f.Field.Eval(dz, at, z)
}

func (f *brokenField[T]) VJP(at backend.At, v backend.VJP[T]) {
	if f.h.vjp != nil {
		f.h.vjp(f.Field, at, v)
		return
	}
	f.Field.VJP(at, v)
}

func (f *brokenField[T]) JVP(at backend.At, j backend.JVP[T]) {
	if f.h.jvp != nil {
		f.h.jvp(f.Field, at, j)
		return
	}
	f.Field.JVP(at, j)
}

// change rewrites what v holds, behind the hooks' back.
func (h *broken[T]) change(v backend.Vec[T], do func(x []T)) {
	b, r, c := v.Shape()
	x := make([]T, b*r*c)
	if h.Backend.Download(x, v) != nil || len(x) == 0 {
		return
	}
	do(x)
	h.Backend.Upload(v, x)
}

// keeping runs do and then puts back elements lo to hi of v, negative ones from the
// end, as if do had not written them.
func (h *broken[T]) keeping(v backend.Vec[T], lo, hi int, do func()) {
	var old []T
	h.change(v, func(x []T) { old = append(old, x...) })
	do()
	h.change(v, func(x []T) {
		n := len(x)
		if lo < 0 {
			lo, hi = n+lo, n+hi
		}
		copy(x[max(lo, 0):hi], old[max(lo, 0):hi])
	})
}

func cols[T backend.Float](v backend.Vec[T]) int {
	_, _, c := v.Shape()
	return c
}

// ulp is the next number away from 0.
func ulp[T backend.Float](x T) T {
	if isSingle[T]() {
		return T(math.Float32frombits(math.Float32bits(float32(x)) + 1))
	}
	return T(math.Float64frombits(math.Float64bits(float64(x)) + 1))
}
