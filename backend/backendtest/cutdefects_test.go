package backendtest

import (
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// cutDefects are about a backend.Cutter.
func cutDefects[T backend.Float]() []defect[T] {
	cut := func(name, cases, says string, change func(times []float64, status []backend.Status)) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			h.cut = func(clk backend.Clock, times []float64, status []backend.Status) {
				times, status = slices.Clone(times), slices.Clone(status)
				change(times, status)
				h.Backend.Cut(clk, times, status)
			}
		}}
	}
	return []defect[T]{
		{"Cut does nothing", "Cut/worked out", "Cut", func(h *broken[T]) {
			h.cut = func(backend.Clock, []float64, []backend.Status) {}
		}},
		cut("Cut leaves out the last lane", "Cut/random", "Cut", func(times []float64, _ []backend.Status) { times[len(times)-1] = math.NaN() }),
		cut("Cut lets all lanes go on", "Cut/worked out", "Cut", func(_ []float64, status []backend.Status) { clear(status) }),
		cut("Cut of the first status", "Cut/random", "Cut", func(_ []float64, status []backend.Status) {
			for i := range status {
				status[i] = status[0]
			}
		}),
		{"Cut changes the size of the step", "Cut/random", "then Save", func(h *broken[T]) {
			var shorter bool
			h.cut = func(clk backend.Clock, times []float64, status []backend.Status) {
				shorter = true
				h.Backend.Cut(clk, times, status)
			}
			h.save = func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
				if shorter {
					dense = [][]float64{{0.5}}
				}
				h.Backend.Save(clk, dense, y0, y1, k, table)
			}
		}},
		{"the first stage survives a Cut", "Cut/random", "Eval at Rows", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				if at.Rows != backend.Stale {
					f.Eval(dz, at, z)
				}
			}
		}},
		{"Cut takes one status for all lanes", "panics/cutter", "does not panic", func(h *broken[T]) {
			h.cut = func(clk backend.Clock, times []float64, status []backend.Status) {
				if len(status) == 1 {
					status = slices.Repeat(status, len(times))
				}
				h.Backend.Cut(clk, times, status)
			}
		}},
	}
}
