package backendtest

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// spanDefects are about a span for each lane, and about At and Fresh.
func spanDefects[T backend.Float]() []defect[T] {
	start := func(name, cases, says string, change func(spans []backend.Span)) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				spans = slices.Clone(spans)
				if len(spans) > 1 {
					change(spans)
				}
				h.Backend.Start(clk, spans...)
			}
		}}
	}
	all := func(change func(s, first *backend.Span)) func(spans []backend.Span) {
		return func(spans []backend.Span) {
			for i := range spans {
				change(&spans[i], &spans[0])
			}
		}
	}
	return []defect[T]{
		{"one span for all lanes", "Start/a span for each", "Start", func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) { h.Backend.Start(clk, spans[0]) }
		}},
		start("MaxStep of the first lane", "Advance/random", "Start", all(func(s, first *backend.Span) { s.MaxStep = first.MaxStep })),
		start("first step of the first lane", "Start/a span for each", "Start", all(func(s, first *backend.Span) { s.H0 = first.H0 })),
		start("breaks of the first lane", "Advance/random", "Eval at Rows", all(func(s, first *backend.Span) { s.Breaks = first.Breaks })),
		start("tolerance of the first lane in the error", "ErrorRatio/tolerance", "ErrorRatio", all(func(s, first *backend.Span) { s.Tol = first.Tol })),
		start("tolerance of the first lane in the first step", "ProposeStep/tolerance", "ProposeStep", all(func(s, first *backend.Span) { s.Tol = first.Tol })),
		start("absolute tolerances only", "ErrorRatio/tolerance", "ErrorRatio", all(func(s, _ *backend.Span) { s.Tol.Rel = 0 })),
		start("rows from 0", "Save/own spans", "Save", all(func(s, _ *backend.Span) { s.Row = 0 })),
		start("rows in the order of lanes", "Save/own spans", "Save", func(spans []backend.Span) {
			row := 1
			for i := range spans {
				spans[i].Row = row
				row += len(spans[i].Saves)
			}
		}),
		start("AtStop counts blocks from Row", "AtStop/own spans", "AtStop", all(func(s, _ *backend.Span) {
			s.Blocks = slices.Clone(s.Blocks)
			for j, b := range s.Blocks {
				if b >= 0 {
					s.Blocks[j] = b + s.Row
				}
			}
		})),
		start("a span without length takes a step", "Start/a span for each", "Poll", all(func(s, _ *backend.Span) {
			if s.Stops[0] == s.T0 {
				s.Stops = []float64{s.T0 + 1e-9}
			}
		})),
		start("one direction for all lanes", "Start/a span for each", "Start", all(func(s, _ *backend.Span) {
			if s.Stops[0] < s.T0 {
				s.Stops, s.Saves = []float64{2*s.T0 - s.Stops[len(s.Stops)-1]}, nil
			}
		})),
		{"Start keeps the slices of each lane", "Start/keeps its own copy of each", "Spans changed", func(h *broken[T]) {
			var began []backend.Span
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				began = spans
				h.Backend.Start(clk, spans...)
			}
			h.advance = func(clk backend.Clock, c backend.Control) {
				if len(began) > 1 && began[0].Row == 99 { // what a backend sees that looks now
					c.Fixed = true
				}
				h.Backend.Advance(clk, c)
			}
		}},
		{"Start takes any number of spans", "panics/spans of lanes", "does not panic", func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				if len(spans) != clk.Lanes() {
					spans = spans[:1]
				}
				h.Backend.Start(clk, spans...)
			}
		}},
		{"Start checks the first span", "panics/spans of lanes", "does not panic", func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				if spans = slices.Clone(spans); len(spans) > 1 && len(spans) == clk.Lanes() {
					for i := range spans {
						if !spans[i].Valid() {
							spans[i] = spans[0]
						}
					}
				}
				h.Backend.Start(clk, spans...)
			}
		}},
		{"ProposeStep chooses in spite of H0", "ProposeStep/lanes with a first step", "ProposeStep", func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				spans = slices.Clone(spans)
				for i := range spans {
					spans[i].H0 = 0
				}
				h.Backend.Start(clk, spans...)
			}
		}},
		{"ProposeStep keeps the H0 of one span", "ProposeStep/lanes with a first step", "ProposeStep", func(h *broken[T]) {
			var h0 float64
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				if h0 = spans[0].H0; len(spans) > 1 {
					h0 = 0
				}
				h.Backend.Start(clk, spans...)
			}
			h.proposeStep = func(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
				if h0 == 0 {
					h.Backend.ProposeStep(clk, y0, f0, f1, order, tol)
				}
			}
		}},
		{"Poll takes the earliest time", "Start/a span for each", "Poll", func(h *broken[T]) {
			h.poll = func(clk backend.Clock) (backend.Progress, error) {
				p, err := h.Backend.Poll(clk)
				lanes := make([]backend.Lane, clk.Lanes())
				if err == nil && p.Running > 1 && h.Backend.Lanes(clk, lanes) == nil {
					p.T = math.Inf(1)
					for _, l := range lanes {
						if l.Status == backend.StatusRunning {
							p.T = min(p.T, l.T)
						}
					}
				}
				return p, err
			}
		}},
		{"the end of a step is t + h", "At/the end of a step", "Eval", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if at.C == 1 {
					at.C = math.Nextafter(1, 0)
				}
				f.Eval(dz, at, z)
			}
		}},
		{"the end of an accepted step is t + h", "At/the end of a step", "accepted", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if at.C == 1 && at.Rows == backend.Accepted {
					at.C = math.Nextafter(1, 0)
				}
				f.Eval(dz, at, z)
			}
		}},
		{"Fresh selects what was accepted", "Rows/Fresh", "Fresh", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if at.Rows == backend.Fresh {
					at.Rows = backend.Accepted
				}
				f.Eval(dz, at, z)
			}
		}},
		{"Fresh is Stale", "Rows/Fresh", "Fresh", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if at.Rows == backend.Fresh {
					at.Rows = backend.Stale
				}
				f.Eval(dz, at, z)
			}
		}},
		{"Commit of all accepted rows for Fresh", "Commit/every state", "Commit", func(h *broken[T]) {
			h.commit = func(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
				if rows == backend.Fresh {
					rows = backend.Accepted
				}
				h.Backend.Commit(clk, rows, moves)
			}
		}},
		{"G of all accepted rows for Fresh", "VJP/every state", "G", func(h *broken[T]) {
			h.vjp = func(f backend.Field[T], at backend.At, v backend.VJP[T]) {
				if at.Rows == backend.Fresh && v.G != nil {
					g := v.G
					v.G = nil
					f.VJP(at, v)
					at.Rows = backend.Accepted
					v = backend.VJP[T]{Z: v.Z, A: v.A, G: g, W: v.W, TimesH: v.TimesH}
				}
				f.VJP(at, v)
			}
		}},
		{"the first stage after Load is not fresh", "Rows/Fresh", "Fresh", func(h *broken[T]) {
			h.atStop = func(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
				// In a copy of the clock, which has no spans: one for all.
				twin, err := h.Backend.NewClock(clk.Lanes())
				if err != nil {
					return
				}
				defer twin.Close()
				h.Backend.CopyClock(twin, clk)
				h.Backend.AtStop(twin, op, y, table)
			}
		}},
		{"a first stage is fresh after a rejection", "Rows/Fresh", "Fresh", func(h *broken[T]) {
			// As good as: a lane that accepts after a rejection shows as fresh.
			rejected := map[backend.Clock]int64{}
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				lanes := make([]backend.Lane, at.Clock.Lanes())
				if at.Rows == backend.Fresh && len(lanes) == 1 && h.Backend.Lanes(at.Clock, lanes) == nil {
					if lanes[0].Rejected > rejected[at.Clock] && lanes[0].Accepted > 1 {
						at.Rows = backend.Accepted
					}
				}
				f.Eval(dz, at, z)
			}
		}},
	}
}
