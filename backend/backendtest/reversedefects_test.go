package backendtest

import (
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// selects says for each lane whether rows selects it.
func (h *broken[T]) selects(clk backend.Clock, rows backend.Rows) []bool {
	lanes := clk.Lanes()
	v, err := h.Backend.NewVec(2, lanes, 1)
	if err != nil {
		return make([]bool, lanes)
	}
	defer h.Backend.Free(v)
	h.Backend.Upload(v, append(make([]T, lanes), fill[T](lanes, 1)...))
	h.Backend.Commit(clk, rows, []backend.Move[T]{{Dst: v.Block(0), Src: v.Block(1)}})
	got := make([]bool, lanes)
	h.change(v.Block(0), func(x []T) {
		for i := range x {
			got[i] = x[i] == 1
		}
	})
	return got
}

// reverseDefects are about tapes and clocks of a backend.Reverser.
func reverseDefects[T backend.Float]() []defect[T] {
	// after plants what goes wrong once a clock has gone back.
	after := func(name, says string, plant func(h *broken[T], back *bool)) defect[T] {
		return defect[T]{name, "Back/random", says, func(h *broken[T]) {
			back := false
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				back = false
				h.Backend.Start(clk, spans...)
			}
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				back = true
				h.Backend.Back(clk, tape, keep)
			}
			plant(h, &back)
		}}
	}
	rows := func(name string, from, to backend.Rows) defect[T] {
		return after(name, "Combine at Rows", func(h *broken[T], back *bool) {
			h.combine = func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
				if *back && at.Rows == from {
					at.Rows = to
				}
				h.Backend.Combine(dst, y, at, coef, k)
			}
		})
	}
	rewind := func(name, cases, says string, do func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool)) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			h.rewind = func(clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
				do(h, clk, tape, attempts, skip)
			}
		}}
	}
	// later puts a Rewind off until Back.
	later := func(name, cases, says string, clone bool) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			var pending func()
			h.rewind = func(clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
				if clone {
					skip = slices.Clone(skip)
				} else {
					h.Backend.Rewind(clk, tape, attempts, skip)
				}
				pending = func() { h.Backend.Rewind(clk, tape, attempts, skip) }
			}
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				if pending != nil {
					pending()
					pending = nil
				}
				h.Backend.Back(clk, tape, keep)
			}
		}}
	}
	return []defect[T]{
		{"Reset does nothing", "Reset/", "Tape.Len", func(h *broken[T]) { h.reset = func(backend.Tape[T]) {} }},
		{"Reset gives memory back", "Reset/", "MemoryUsed", func(h *broken[T]) {
			h.reset = func(tape backend.Tape[T]) {
				h.Backend.Reset(tape)
				_ = h.Backend.Reserve(tape, 1)
			}
		}},
		{"Reserve does nothing", "Reserve/what", "Reserve", func(h *broken[T]) { h.reserve = func(backend.Tape[T], int) error { return nil } }},
		{"Reserve one step too few", "Reserve/then", "MemoryUsed", func(h *broken[T]) {
			h.reserve = func(tape backend.Tape[T], steps int) error { return h.Backend.Reserve(tape, steps-1) }
		}},
		{"Reserve never gives back", "Reserve/what", "Reserve", func(h *broken[T]) {
			most := map[backend.Tape[T]]int{}
			h.reserve = func(tape backend.Tape[T], steps int) error {
				if steps <= most[tape] {
					return nil
				}
				most[tape] = steps
				return h.Backend.Reserve(tape, steps)
			}
		}},
		{"Reserve adds to what there is", "Reserve/what", "Reserve", func(h *broken[T]) {
			sum := map[backend.Tape[T]]int{}
			h.reserve = func(tape backend.Tape[T], steps int) error {
				sum[tape] += steps
				return h.Backend.Reserve(tape, sum[tape])
			}
		}},
		{"Reserve hides that memory is short", "Reserve/too large", "ErrOutOfMemory", func(h *broken[T]) {
			h.reserve = func(tape backend.Tape[T], steps int) error {
				_ = h.Backend.Reserve(tape, steps)
				return nil
			}
		}},
		{"Reserve of a tape with steps", "Reserve/then", "does not panic", func(h *broken[T]) {
			h.reserve = func(tape backend.Tape[T], steps int) error {
				if tape.Len(0) > 0 {
					return nil
				}
				return h.Backend.Reserve(tape, steps)
			}
		}},

		rewind("Rewind one attempt short", "Back/random", "Back", func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
			h.Backend.Rewind(clk, tape, attempts-1, skip)
		}),
		rewind("Rewind to the last step on the tape", "Rewind/from any", "Back", func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
			h.Backend.Rewind(clk, tape, max(attempts, 9), skip)
		}),
		rewind("Rewind counts from 1 on every tape", "Rewind/one segment", "Back", func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
			h.Backend.Rewind(clk, tape, (attempts-1)%3+1, skip)
		}),
		rewind("Rewind leaves out none", "Rewind/lanes left out", "skip", func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, _ []bool) {
			h.Backend.Rewind(clk, tape, attempts, nil)
		}),
		rewind("Rewind leaves out those that are not to be", "Rewind/lanes left out", "skip", func(h *broken[T], clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
			skip = slices.Clone(skip)
			for i := range skip {
				skip[i] = !skip[i]
			}
			h.Backend.Rewind(clk, tape, attempts, skip)
		}),
		{"Rewind works once", "Back/random", "Back", func(h *broken[T]) {
			done := map[backend.Tape[T]]bool{}
			h.rewind = func(clk backend.Clock, tape backend.Tape[T], attempts int64, skip []bool) {
				if done[tape] {
					attempts = 0
				}
				done[tape] = true
				h.Backend.Rewind(clk, tape, attempts, skip)
			}
		}},
		later("Rewind leaves the last selection", "Back/random", "Rewind", true),
		later("Rewind keeps skip", "Rewind/lanes left out", "skip", false),

		{"Back sets all rows", "Back/random", "keep", func(h *broken[T]) {
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				for _, v := range keep {
					h.Backend.Zero(v)
				}
				h.Backend.Back(clk, tape, keep)
			}
		}},
		{"Back misses the last element", "Back/random", "keep", func(h *broken[T]) {
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				if len(keep) == 0 {
					h.Backend.Back(clk, tape, keep)
					return
				}
				h.keeping(keep[len(keep)-1], -1, 0, func() { h.Backend.Back(clk, tape, keep) })
			}
		}},
		{"Back in the wrong order", "Back/random", "keep", func(h *broken[T]) {
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				keep = slices.Clone(keep)
				slices.Reverse(keep)
				h.Backend.Back(clk, tape, keep)
			}
		}},
		{"Back by steps, not attempts", "Back/attempts that were not", "Back", func(h *broken[T]) {
			h.back = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				for range 3 { // until a lane has a step
					h.Backend.Back(clk, tape, keep)
					if slices.Contains(h.selects(clk, backend.Accepted), true) {
						return
					}
				}
			}
		}},
		{"Push needs all lanes to accept", "Back/worked out", "Back", func(h *broken[T]) {
			h.push = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				if !slices.Contains(h.selects(clk, backend.Accepted), false) {
					h.Backend.Push(clk, tape, keep)
				}
			}
		}},
		after("Back counts steps back", "Lanes says", func(h *broken[T], back *bool) {
			h.lanes = func(clk backend.Clock, dst []backend.Lane) error {
				err := h.Backend.Lanes(clk, dst)
				for i := range dst {
					if *back {
						dst[i].Accepted--
					}
				}
				return err
			}
		}),
		after("Back moves Poll", "Poll says", func(h *broken[T], back *bool) {
			h.poll = func(clk backend.Clock) (backend.Progress, error) {
				p, err := h.Backend.Poll(clk)
				if *back {
					p.Accepted--
				}
				return p, err
			}
		}),
		after("Back loses the instant", "Eval at Rows", func(h *broken[T], back *bool) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if *back {
					at.C = 0
				}
				f.Eval(dz, at, z)
			}
		}),
		after("Back loses the size", "Combine at Rows", func(h *broken[T], back *bool) {
			h.combine = func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
				if *back {
					h.Backend.Sum(dst, y, at, coef, k)
					return
				}
				h.Backend.Combine(dst, y, at, coef, k)
			}
		}),
		after("Back loses outputs", "Save", func(h *broken[T], back *bool) {
			h.save = func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
				if !*back {
					h.Backend.Save(clk, dense, y0, y1, k, table)
				}
			}
		}),
		after("Back loses the stop", "AtStop", func(h *broken[T], back *bool) {
			h.atStop = func(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
				if !*back {
					h.Backend.AtStop(clk, op, y, table)
				}
			}
		}),
		rows("Back loses what is fresh", backend.Fresh, backend.Accepted),
		rows("Back loses which steps have outputs", backend.Saving, backend.Accepted),

		{"CopyClock copies later", "CopyClock/goes on", "CopyClock", func(h *broken[T]) {
			alias := map[backend.Clock]backend.Clock{}
			started := map[backend.Clock]bool{}
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				started[clk] = true
				h.Backend.Start(clk, spans...)
			}
			h.copyClock = func(dst, src backend.Clock) {
				if a, ok := alias[src]; ok {
					src = a
				}
				if !started[dst] {
					alias[dst] = src
				}
				h.Backend.CopyClock(dst, src)
			}
		}},
		{"CopyClock to a clock never started does nothing", "CopyClock/goes on", "CopyClock", func(h *broken[T]) {
			started := map[backend.Clock]bool{}
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				started[clk] = true
				h.Backend.Start(clk, spans...)
			}
			h.copyClock = func(dst, src backend.Clock) {
				if started[dst] {
					h.Backend.CopyClock(dst, src)
				}
			}
		}},
		{"CopyClock copies spans", "CopyClock/keeps", "CopyClock", func(h *broken[T]) {
			began := map[backend.Clock][]backend.Span{}
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				began[clk] = spans
				h.Backend.Start(clk, spans...)
			}
			h.copyClock = func(dst, src backend.Clock) {
				if spans := began[src]; spans != nil {
					h.Backend.Start(dst, spans...)
				}
				h.Backend.CopyClock(dst, src)
			}
		}},
		{"CopyClock starts again", "CopyClock/goes on", "CopyClock", func(h *broken[T]) {
			began := map[backend.Clock][]backend.Span{}
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				began[clk] = slices.Clone(spans)
				h.Backend.Start(clk, spans...)
			}
			h.copyClock = func(dst, _ backend.Clock) {
				if spans := began[dst]; spans != nil {
					h.Backend.Start(dst, spans...)
				}
			}
		}},
		{"CopyClock loses what was accepted", "CopyClock/what was", "CopyClock", func(h *broken[T]) {
			h.copyClock = func(dst, src backend.Clock) {
				h.Backend.CopyClock(dst, src)
				if tape, err := h.Backend.NewTape(dst.Lanes(), dst.Lanes(), 1, 0); err == nil {
					h.Backend.Rewind(dst, tape, 0, nil)
					tape.Close()
				}
			}
		}},
	}
}
