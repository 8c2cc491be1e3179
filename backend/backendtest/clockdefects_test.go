package backendtest

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func clockDefects[T backend.Float]() []defect[T] {
	advance := func(name string, change func(c *backend.Control)) defect[T] {
		return defect[T]{name, "Advance/", "Advance", func(h *broken[T]) {
			h.advance = func(clk backend.Clock, c backend.Control) {
				change(&c)
				h.Backend.Advance(clk, c)
			}
		}}
	}
	start := func(name, cases string, change func(s *backend.Span)) defect[T] {
		return defect[T]{name, cases, "", func(h *broken[T]) {
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				spans = slices.Clone(spans)
				for i := range spans {
					change(&spans[i])
				}
				h.Backend.Start(clk, spans...)
			}
		}}
	}
	propose := func(name string, do func(h *broken[T], clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance)) defect[T] {
		return defect[T]{name, "ProposeStep/5x3", "ProposeStep", func(h *broken[T]) {
			h.proposeStep = func(clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
				do(h, clk, y0, f0, f1, order, tol)
			}
		}}
	}
	poll := func(name string, change func(p *backend.Progress)) defect[T] {
		return defect[T]{name, "Poll/", "Poll", func(h *broken[T]) {
			h.poll = func(clk backend.Clock) (backend.Progress, error) {
				p, err := h.Backend.Poll(clk)
				change(&p)
				return p, err
			}
		}}
	}
	lanes := func(name string, change func(l *backend.Lane)) defect[T] {
		return defect[T]{name, "Advance/random", "Lanes", func(h *broken[T]) {
			h.lanes = func(clk backend.Clock, dst []backend.Lane) error {
				err := h.Backend.Lanes(clk, dst)
				for i := range dst {
					change(&dst[i])
				}
				return err
			}
		}}
	}
	return []defect[T]{
		advance("Safety off by 1e-5", func(c *backend.Control) { c.Safety *= 1.00001 }),
		advance("no memory of the last step", func(c *backend.Control) { c.Beta[1] = 0 }),
		advance("no memory of the step before", func(c *backend.Control) { c.Beta[2] = 0 }),
		advance("no MinFactor", func(c *backend.Control) { c.MinFactor = 0 }),
		advance("no MaxFactor", func(c *backend.Control) { c.MaxFactor = math.MaxFloat64 }),
		advance("Order off by one", func(c *backend.Control) { c.Order++ }),
		advance("no MinStep", func(c *backend.Control) { c.MinStep = 0 }),
		advance("one attempt too many", func(c *backend.Control) {
			if c.MaxAttempts > 0 {
				c.MaxAttempts++
			}
		}),
		advance("fixed steps are controlled", func(c *backend.Control) { c.Fixed = false }),
		{"first stage always stale", "Rows/handover", "HandLast", func(h *broken[T]) {
			h.advance = func(clk backend.Clock, c backend.Control) {
				c.Handover = backend.HandNothing
				h.Backend.Advance(clk, c)
			}
		}},
		{"first stage handed on without an output", "Rows/handover", "HandSaving", func(h *broken[T]) {
			h.advance = func(clk backend.Clock, c backend.Control) {
				if c.Handover == backend.HandSaving {
					c.Handover = backend.HandLast
				}
				h.Backend.Advance(clk, c)
			}
		}},
		start("no breaks", "Rows/handover", func(s *backend.Span) { s.Breaks = nil }),
		start("no MaxStep", "Advance/", func(s *backend.Span) { s.MaxStep = 0 }),
		start("blocks in order", "AtStop/", func(s *backend.Span) { s.Blocks = nil }),
		start("an output missing", "Save/", func(s *backend.Span) { s.Saves = s.Saves[:max(len(s.Saves)-1, 0)] }),
		start("a stop missing", "Advance/", func(s *backend.Span) { s.Stops = s.Stops[len(s.Stops)-1:] }),
		{"Start keeps the slices", "Start/keeps its own copy", "Span", func(h *broken[T]) {
			var began *backend.Span
			h.start = func(clk backend.Clock, spans ...backend.Span) {
				s := spans[0]
				if clk.Lanes() == 1 && len(s.Blocks) == 2 {
					began = &s
				}
				h.Backend.Start(clk, spans...)
			}
			h.advance = func(clk backend.Clock, c backend.Control) {
				if began != nil && began.Stops[0] == 9 { // what a backend sees that looks now
					c.Fixed, began = true, nil
				}
				h.Backend.Advance(clk, c)
			}
		}},
		propose("ProposeStep with another order", func(h *broken[T], clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
			h.Backend.ProposeStep(clk, y0, f0, f1, order+1, tol)
		}),
		propose("ProposeStep ignores f1", func(h *broken[T], clk backend.Clock, y0, f0, _ backend.Vec[T], order int, tol backend.Tolerance) {
			h.Backend.ProposeStep(clk, y0, f0, nil, order, tol)
		}),
		propose("ProposeStep of the first block", func(h *broken[T], clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
			if f1 != nil {
				f1 = f1.Block(0)
			}
			h.Backend.ProposeStep(clk, y0.Block(0), f0.Block(0), f1, order, tol)
		}),
		propose("ProposeStep with another tolerance", func(h *broken[T], clk backend.Clock, y0, f0, f1 backend.Vec[T], order int, tol backend.Tolerance) {
			tol.Abs *= 1.0001
			h.Backend.ProposeStep(clk, y0, f0, f1, order, tol)
		}),
		poll("a lane too few", func(p *backend.Progress) { p.Running-- }),
		poll("failures uncounted", func(p *backend.Progress) { p.Failed = 0 }),
		poll("the time of another lane", func(p *backend.Progress) { p.T += 0.1 }),
		poll("rejections counted as accepted", func(p *backend.Progress) { p.Accepted, p.Rejected = p.Accepted+p.Rejected, 0 }),
		poll("attempts of all lanes", func(p *backend.Progress) { p.Attempts = p.Accepted + p.Rejected }),
		lanes("h without its sign", func(l *backend.Lane) { l.H = math.Abs(l.H) }),
		lanes("h in place of the proposal", func(l *backend.Lane) { l.Next = math.Abs(l.H) }),
		lanes("the last h as the smallest", func(l *backend.Lane) { l.SmallestH = math.Abs(l.LastH) }),
		lanes("running in place of failed", func(l *backend.Lane) {
			if l.Status > backend.Done {
				l.Status = backend.Done
			}
		}),
		{"the norm as the component's ratio", "ErrorRatio/5x3", "worst component", func(h *broken[T]) {
			h.lanes = func(clk backend.Clock, dst []backend.Lane) error {
				err := h.Backend.Lanes(clk, dst)
				for i := range dst {
					dst[i].Ratio *= 0.99
				}
				return err
			}
		}},
		{"the column counted from 1", "ErrorRatio/5x3", "worst component", func(h *broken[T]) {
			h.lanes = func(clk backend.Clock, dst []backend.Lane) error {
				err := h.Backend.Lanes(clk, dst)
				for i := range dst {
					dst[i].Col++
				}
				return err
			}
		}},
	}
}
