package backendtest

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
)

// broken is a backend with a hook in place of some verbs.
type broken[T backend.Float] struct {
	*cpu.Backend[T]
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
	// of a backend.Reverser
	sum         func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T])
	reset       func(tape backend.Tape[T])
	rewind      func(clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool)
	back        func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T])
	saveVJP     func(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T])
	interpolate func(dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64)
	reserve     func(tape backend.Tape[T], steps int) error
	copyClock   func(dst, src backend.Clock)
	// of a backend.Cutter
	cut     func(clk backend.Clock, times []float64, status []backend.Status)
	learner *brokenLearner[T] // of a backend.Trainer
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

func (h *broken[T]) Sum(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
	if h.sum != nil {
		h.sum(dst, y, at, coef, k)
		return
	}
	h.Backend.Sum(dst, y, at, coef, k)
}

func (h *broken[T]) Reset(tape backend.Tape[T]) {
	if h.reset != nil {
		h.reset(tape)
		return
	}
	h.Backend.Reset(tape)
}

func (h *broken[T]) Rewind(clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
	if h.rewind != nil {
		h.rewind(clk, tape, attempts, skip)
		return
	}
	h.Backend.Rewind(clk, tape, attempts, skip)
}

func (h *broken[T]) Back(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
	if h.back != nil {
		h.back(clk, tape, keep)
		return
	}
	h.Backend.Back(clk, tape, keep)
}

func (h *broken[T]) SaveVJP(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
	if h.saveVJP != nil {
		h.saveVJP(clk, dense, cotangents, y0, y1, k)
		return
	}
	h.Backend.SaveVJP(clk, dense, cotangents, y0, y1, k)
}

func (h *broken[T]) Interpolate(dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
	if h.interpolate != nil {
		h.interpolate(dst, at, tape, dense)
		return
	}
	h.Backend.Interpolate(dst, at, tape, dense)
}

func (h *broken[T]) Reserve(tape backend.Tape[T], steps int) error {
	if h.reserve != nil {
		return h.reserve(tape, steps)
	}
	return h.Backend.Reserve(tape, steps)
}

func (h *broken[T]) CopyClock(dst, src backend.Clock) {
	if h.copyClock != nil {
		h.copyClock(dst, src)
		return
	}
	h.Backend.CopyClock(dst, src)
}

func (h *broken[T]) Cut(clk backend.Clock, times []float64, status []backend.Status) {
	if h.cut != nil {
		h.cut(clk, times, status)
		return
	}
	h.Backend.Cut(clk, times, status)
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
