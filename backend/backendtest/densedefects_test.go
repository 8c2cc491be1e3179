package backendtest

import "github.com/seed-5f5774c8/neuralode/backend"

// denseDefects are about Sum and the interpolant.
func denseDefects[T backend.Float]() []defect[T] {
	sum := func(name, cases string, do func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T])) defect[T] {
		return defect[T]{name, cases, "Sum", func(h *broken[T]) {
			h.sum = func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
				do(h, dst, y, at, coef, k)
			}
		}}
	}
	type operands struct {
		clk                backend.Clock
		cotangents, y0, y1 backend.Vec[T]
		k                  []backend.Vec[T]
	}
	vjp := func(name, cases, says string, do func(h *broken[T], o operands, dense [][]float64)) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			h.saveVJP = func(clk backend.Clock, dense [][]float64, cotangents, y0, y1 backend.Vec[T], k []backend.Vec[T]) {
				do(h, operands{clk, cotangents, y0, y1, k}, dense)
			}
		}}
	}
	right := func(h *broken[T], o operands, dense [][]float64) {
		h.Backend.SaveVJP(o.clk, dense, o.cotangents, o.y0, o.y1, o.k)
	}
	shortened := func(dense [][]float64) (short [][]float64) {
		for _, p := range dense {
			short = append(short, p[:len(p)-1])
		}
		return short
	}
	interpolate := func(name, cases string, do func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64)) defect[T] {
		return defect[T]{name, cases, "Interpolate", func(h *broken[T]) {
			h.interpolate = func(dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
				do(h, dst, at, tape, dense)
			}
		}}
	}
	return []defect[T]{
		sum("Sum with the step size", "Sum/5x3", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.Backend.Combine(dst, y, at, coef, k)
		}),
		sum("Sum without the last term", "Sum/5x3", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.Backend.Sum(dst, y, at, coef[:max(len(coef)-1, 0)], k)
		}),
		sum("Sum of all accepted rows", "Sum/every state", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			if at.Rows == backend.Saving {
				at.Rows = backend.Accepted
			}
			h.Backend.Sum(dst, y, at, coef, k)
		}),
		sum("Sum misses the last row", "Sum/5x3", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.keeping(dst, -cols(dst), 0, func() { h.Backend.Sum(dst, y, at, coef, k) })
		}),

		vjp("SaveVJP without the last power", "SaveVJP/5x3", "k", func(h *broken[T], o operands, dense [][]float64) {
			right(h, o, shortened(dense))
		}),
		vjp("SaveVJP without h", "SaveVJP/own spans/5x3", "k", func(h *broken[T], o operands, dense [][]float64) {
			right(h, o, dense)
			for _, k := range o.k { // backwards h is negative
				h.change(k, func(x []T) {
					for i := range x {
						x[i] = max(x[i], -x[i])
					}
				})
			}
		}),
		vjp("SaveVJP overwrites y1", "SaveVJP/5x3", "y1", func(h *broken[T], o operands, dense [][]float64) {
			h.Backend.Zero(o.y1)
			right(h, o, dense)
		}),
		vjp("SaveVJP without the step's end", "SaveVJP/5x3", "y1", func(h *broken[T], o operands, dense [][]float64) {
			_, rows, cols := o.y1.Shape()
			h.keeping(o.y1, 0, rows*cols, func() { right(h, o, dense) })
		}),
		vjp("SaveVJP adds to y0", "SaveVJP/5x3", "y0", func(h *broken[T], o operands, dense [][]float64) {
			var old []T
			h.change(o.y0, func(x []T) { old = append(old, x...) })
			right(h, o, dense)
			h.change(o.y0, func(x []T) {
				for i := range x {
					x[i] += old[i]
				}
			})
		}),
		vjp("SaveVJP without y0", "SaveVJP/5x3", "y0", func(h *broken[T], o operands, dense [][]float64) {
			right(h, o, dense)
			h.Backend.Zero(o.y0)
		}),
		vjp("SaveVJP clears rows that were not accepted", "SaveVJP/every state", "not to be written", func(h *broken[T], o operands, dense [][]float64) {
			h.Backend.Zero(o.y0)
			right(h, o, dense)
		}),
		vjp("SaveVJP leaves steps without outputs", "SaveVJP/every state", "y0", func(h *broken[T], o operands, dense [][]float64) {
			_, rows, cols := o.y0.Shape()
			saving := h.selects(o.clk, backend.Saving)
			do := func() { right(h, o, dense) }
			for row := range rows {
				if inner := do; !saving[row*len(saving)/rows] {
					do = func() { h.keeping(o.y0, row*cols, (row+1)*cols, inner) }
				}
			}
			do()
		}),
		vjp("SaveVJP clears stages beyond the interpolant", "SaveVJP/5x3", "beyond", func(h *broken[T], o operands, dense [][]float64) {
			right(h, o, dense)
			for _, k := range o.k[len(dense):] {
				h.Backend.Zero(k)
			}
		}),
		vjp("SaveVJP leaves stages without weight", "SaveVJP/5x3", "k2", func(h *broken[T], o operands, dense [][]float64) {
			if len(o.k) < 3 {
				right(h, o, dense)
				return
			}
			_, rows, cols := o.y0.Shape()
			h.keeping(o.k[2], 0, rows*cols, func() { right(h, o, dense) })
		}),
		vjp("SaveVJP reads all cotangents", "SaveVJP/cotangents", "SaveVJP", func(h *broken[T], o operands, dense [][]float64) {
			right(h, o, dense)
			var sum T
			h.change(o.cotangents, func(x []T) {
				for _, c := range x {
					sum += 0 * c
				}
			})
			h.change(o.y0, func(x []T) {
				for i := range x {
					x[i] += sum
				}
			})
		}),
		vjp("SaveVJP of the block before", "SaveVJP/5x3", "SaveVJP", func(h *broken[T], o operands, dense [][]float64) {
			h.change(o.cotangents, func(x []T) {
				_, rows, cols := o.cotangents.Shape()
				n := rows * cols
				o.cotangents, _ = h.Backend.NewVec(len(x)/n, rows, cols)
				h.Backend.Upload(o.cotangents, append(append([]T(nil), x[len(x)-min(n, len(x)):]...), x[:max(len(x)-n, 0)]...))
			})
			right(h, o, dense)
		}),

		interpolate("Interpolate without the last power", "Interpolate/5x3", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			h.Backend.Interpolate(dst, at, tape, shortened(dense))
		}),
		interpolate("Interpolate without the last stage", "Interpolate/5x3", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			h.Backend.Interpolate(dst, at, tape, dense[:len(dense)-1])
		}),
		interpolate("Interpolate in the next step at the end of one", "Interpolate/5x3", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			if at.C == 0 {
				at.C = 1e-14
			}
			h.Backend.Interpolate(dst, at, tape, dense)
		}),
		interpolate("Interpolate of all accepted rows", "Interpolate/every state", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			if at.Rows == backend.Fresh {
				at.Rows = backend.Accepted
			}
			h.Backend.Interpolate(dst, at, tape, dense)
		}),
		interpolate("Interpolate at the beginning of the step", "Interpolate/every state", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			at.C = 0
			h.Backend.Interpolate(dst, at, tape, dense)
		}),
		interpolate("Interpolate misses the last element", "Interpolate/2x130", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			h.keeping(dst, -1, 0, func() { h.Backend.Interpolate(dst, at, tape, dense) })
		}),
		interpolate("Interpolate counts what was on the tape before", "Interpolate/after Reset", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			h.reset = func(backend.Tape[T]) {}
			h.Backend.Interpolate(dst, at, tape, dense)
		}),
		interpolate("Interpolate loses NaN", "Interpolate/not finite", func(h *broken[T], dst backend.Vec[T], at backend.At, tape backend.Tape[T], dense [][]float64) {
			h.Backend.Interpolate(dst, at, tape, dense)
			h.change(dst, func(x []T) {
				for i, v := range x {
					if v != v {
						x[i] = 0
					}
				}
			})
		}),
	}
}
