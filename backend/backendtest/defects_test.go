package backendtest

import (
	"errors"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

func defects[T backend.Float]() (all []defect[T]) {
	for _, group := range [][]defect[T]{memoryDefects[T](), fieldDefects[T](), stateDefects[T](), clockDefects[T](), spanDefects[T](), reverseDefects[T](), cutDefects[T](), denseDefects[T](), learnerDefects[T]()} {
		all = append(all, group...)
	}
	return all
}

func memoryDefects[T backend.Float]() []defect[T] {
	return []defect[T]{
		{"Upload keeps the slice", "Upload/src", "Upload", func(h *broken[T]) {
			var later []func()
			h.upload = func(dst backend.Vec[T], src []T) { later = append(later, func() { h.Backend.Upload(dst, src) }) }
			h.download = func(dst []T, src backend.Vec[T]) error {
				for _, do := range later {
					do()
				}
				later = nil
				return h.Backend.Download(dst, src)
			}
		}},
		{"Upload flushes subnormals", "Upload/bits", "Upload", func(h *broken[T]) {
			h.upload = func(dst backend.Vec[T], src []T) {
				x := append([]T(nil), src...)
				for i, v := range x {
					if math.Abs(float64(v)) < 0x1p-126 {
						x[i] = 0
					}
				}
				h.Backend.Upload(dst, x)
			}
		}},
		{"Copy misses the last element", "Upload/", "Copy", func(h *broken[T]) {
			h.copy = func(dst, src backend.Vec[T]) { h.keeping(dst, -1, 0, func() { h.Backend.Copy(dst, src) }) }
		}},
		{"Zero clears the first block", "Upload/", "Zero", func(h *broken[T]) {
			h.zero = func(dst backend.Vec[T]) { h.Backend.Zero(dst.Block(0)) }
		}},
		{"NewVec does not zero", "NewVec/", "NewVec", func(h *broken[T]) {
			h.newVec = func(blocks, rows, cols int) (backend.Vec[T], error) {
				v, err := h.Backend.NewVec(blocks, rows, cols)
				if err == nil {
					h.change(v, func(x []T) { x[len(x)-1] = 1 })
				}
				return v, err
			}
		}},
		{"NewVec hides that memory is short", "NewVec/", "NewVec", func(h *broken[T]) {
			h.newVec = func(blocks, rows, cols int) (backend.Vec[T], error) {
				v, err := h.Backend.NewVec(blocks, rows, cols)
				if err != nil {
					err = backend.ErrUnsupported
				}
				return v, err
			}
		}},
		{"Free does nothing", "Combine/5x3", "MemoryUsed", func(h *broken[T]) { h.free = func(backend.Vec[T]) {} }},
		{"Poll works after Close", "Close/", "Poll", func(h *broken[T]) {
			h.poll = func(clk backend.Clock) (backend.Progress, error) {
				p, _ := h.Backend.Poll(clk)
				return p, nil
			}
		}},
		{"Bind of an unknown system", "Bind/", "ErrUnsupported", func(h *broken[T]) {
			h.bind = func(sys backend.System[T]) (backend.Field[T], error) {
				f, err := h.Backend.Bind(sys)
				if errors.Is(err, backend.ErrUnsupported) {
					err = backend.ErrUnavailable
				}
				return f, err
			}
		}},
		{"Bind takes what it gets", "Bind/", "Bind", func(h *broken[T]) {
			h.bind = func(sys backend.System[T]) (backend.Field[T], error) {
				if m, ok := sys.(*mlp.Model[T]); ok && m.Validate() != nil {
					spec := mlp.Dense(mlp.Tanh, 1, 1)
					return h.Backend.Bind(&mlp.Model[T]{Spec: spec, Theta: make([]T, spec.NumParams())})
				}
				return h.Backend.Bind(sys)
			}
		}},
	}
}

func fieldDefects[T backend.Float]() []defect[T] {
	eval := func(name, cases string, do func(h *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T])) defect[T] {
		return defect[T]{name, cases, "Eval", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) { do(h, f, dz, at, z) }
		}}
	}
	vjp := func(name, cases, says string, do func(h *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T])) defect[T] {
		return defect[T]{name, cases, says, func(h *broken[T]) {
			h.vjp = func(f backend.Field[T], at backend.At, v backend.VJP[T]) { do(h, f, at, v) }
		}}
	}
	return []defect[T]{
		eval("Eval misses the last row", "Eval/B=", func(h *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			h.keeping(dz, -cols(dz), 0, func() { f.Eval(dz, at, z) })
		}),
		eval("Eval at the beginning of the step", "Eval/B=", func(_ *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			at.C = 0
			f.Eval(dz, at, z)
		}),
		eval("Eval of all rows that run", "Eval/every state", func(_ *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			if at.Rows == backend.Stale {
				at.Rows = backend.Running
			}
			f.Eval(dz, at, z)
		}),
		eval("Eval changes its input", "Eval/B=", func(h *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			f.Eval(dz, at, z)
			h.change(z, func(x []T) { x[0] = ulp(x[0]) })
		}),
		eval("Eval counts twice", "Eval/B=", func(_ *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			f.Eval(dz, at, z)
			f.Eval(dz, at, z)
		}),
		eval("Eval loses NaN", "Eval/not finite", func(h *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			f.Eval(dz, at, z)
			h.change(dz, func(x []T) {
				for i, v := range x {
					if v != v {
						x[i] = 0
					}
				}
			})
		}),
		eval("Eval spreads NaN", "Eval/not finite", func(h *broken[T], f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
			f.Eval(dz, at, z)
			h.change(dz, func(x []T) {
				var sum T
				for _, v := range x {
					sum += v
				}
				for i := range x {
					x[i] += sum * 0
				}
			})
		}),
		{"an Eval in a batch rounds otherwise", "VJP/alone", "Eval", func(h *broken[T]) {
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				f.Eval(dz, at, z)
				if _, rows, _ := z.Shape(); rows > 1 {
					h.change(dz, func(x []T) { x[0] = ulp(x[0]) })
				}
			}
		}},
		{"Eval is not reproducible", "VJP/the same twice", "Eval", func(h *broken[T]) {
			n := 0
			h.eval = func(f backend.Field[T], dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
				f.Eval(dz, at, z)
				if n++; n%2 == 0 {
					h.change(dz, func(x []T) { x[0] = ulp(x[0]) })
				}
			}
		}},
		{"Params cannot be changed", "Eval/new parameters", "Upload", func(h *broken[T]) {
			var params []backend.Vec[T]
			h.bind = func(sys backend.System[T]) (backend.Field[T], error) {
				f, err := h.Backend.Bind(sys)
				params = append(params, f.Params())
				return f, err
			}
			h.upload = func(dst backend.Vec[T], src []T) {
				for _, p := range params {
					if p == dst {
						return
					}
				}
				h.Backend.Upload(dst, src)
			}
		}},
		vjp("VJP without Alpha", "VJP/B=", "AZ", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			v.Alpha = 1
			f.VJP(at, v)
		}),
		vjp("VJP without AT", "VJP/B=", "AT", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			v.AT = nil
			f.VJP(at, v)
		}),
		vjp("VJP without DZ", "VJP/B=", "DZ", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			v.DZ = nil
			f.VJP(at, v)
		}),
		vjp("VJP needs AZ for AT", "VJP/every combination", "AT", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			if v.AZ == nil {
				v.AT = nil
			}
			f.VJP(at, v)
		}),
		vjp("VJP without W", "VJP/B=", "G", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			v.W = 1
			f.VJP(at, v)
		}),
		vjp("VJP without h", "VJP/B=", "G", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			v.TimesH = false
			f.VJP(at, v)
		}),
		vjp("VJP overwrites G", "VJP/B=", "G", func(h *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			if v.G != nil {
				h.Backend.Zero(v.G)
			}
			f.VJP(at, v)
		}),
		vjp("VJP misses the last bias in G", "VJP/B=", "G", func(h *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			if v.G == nil {
				f.VJP(at, v)
				return
			}
			h.keeping(v.G, -1, 0, func() { f.VJP(at, v) })
		}),
		vjp("VJP of all accepted rows in G", "VJP/every state", "G", func(_ *broken[T], f backend.Field[T], at backend.At, v backend.VJP[T]) {
			if at.Rows != backend.Saving {
				f.VJP(at, v)
				return
			}
			g := v.G
			v.G = nil
			f.VJP(at, v)
			at.Rows = backend.Accepted
			f.VJP(at, backend.VJP[T]{Z: v.Z, A: v.A, G: g, W: v.W, TimesH: v.TimesH})
		}),
		{"JVP without w", "JVP/B=", "JV", func(h *broken[T]) {
			h.jvp = func(f backend.Field[T], at backend.At, j backend.JVP[T]) {
				j.W = nil
				f.JVP(at, j)
			}
		}},
		{"JVP without DZ", "JVP/B=", "DZ", func(h *broken[T]) {
			h.jvp = func(f backend.Field[T], at backend.At, j backend.JVP[T]) {
				j.DZ = nil
				f.JVP(at, j)
			}
		}},
	}
}

func stateDefects[T backend.Float]() []defect[T] {
	combine := func(name, cases string, do func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T])) defect[T] {
		return defect[T]{name, cases, "Combine", func(h *broken[T]) {
			h.combine = func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
				do(h, dst, y, at, coef, k)
			}
		}}
	}
	ratio := func(name, cases string, do func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T])) defect[T] {
		return defect[T]{name, cases, "ErrorRatio", func(h *broken[T]) {
			h.errorRatio = func(clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
				do(h, clk, tol, e, e2, parts)
			}
		}}
	}
	return []defect[T]{
		combine("Combine misses the last stage", "Combine/5x3", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.Backend.Combine(dst, y, at, coef[:max(len(coef)-1, 0)], k)
		}),
		combine("Combine misses the last row", "Combine/131x1", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.keeping(dst, -cols(dst), 0, func() { h.Backend.Combine(dst, y, at, coef, k) })
		}),
		combine("Combine misses columns beyond 256", "Combine/3x257", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			h.keeping(dst, 256, 257, func() { h.Backend.Combine(dst, y, at, coef, k) })
		}),
		combine("Combine with the next step's size", "Combine/every state", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			if at.Rows == backend.Accepted {
				at.Rows = backend.Running
			}
			h.Backend.Combine(dst, y, at, coef, k)
		}),
		combine("Combine reads what counts for nothing", "Combine/5x3", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			c := append([]float64(nil), coef...)
			for j := range c {
				if c[j] == 0 {
					c[j] = 1e-300
				}
			}
			h.Backend.Combine(dst, y, at, c, k)
		}),
		combine("Combine clears before it reads", "Combine/into y", func(h *broken[T], dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
			if dst == y {
				h.Backend.Zero(dst)
			}
			h.Backend.Combine(dst, y, at, coef, k)
		}),
		{"Combine writes before its operand", "Combine/5x3", "wrote outside", func(h *broken[T]) {
			var last backend.Vec[T]
			h.newVec = func(blocks, rows, cols int) (backend.Vec[T], error) {
				v, err := h.Backend.NewVec(blocks, rows, cols)
				if blocks == 3 {
					last = v
				}
				return v, err
			}
			h.combine = func(dst, y backend.Vec[T], at backend.At, coef []float64, k []backend.Vec[T]) {
				h.Backend.Combine(dst, y, at, coef, k)
				if b, _, _ := dst.Shape(); b == 1 {
					h.change(last.Block(0), func(x []T) { x[len(x)-1] = 0 })
				}
			}
		}},
		ratio("padding in the norm", "ErrorRatio/5x3", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
			_, rows, cols := parts[0].Y0.Shape()
			n := float64(rows * cols / clk.Lanes())
			scaled := append([]float64(nil), e...)
			for j := range scaled {
				scaled[j] *= math.Sqrt(n / (n + 1))
			}
			h.Backend.ErrorRatio(clk, tol, scaled, e2, parts)
		}),
		ratio("the first block's norm", "ErrorRatio/5x3", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
			p := parts[0]
			first := backend.Part[T]{Y0: p.Y0.Block(0), Y1: p.Y1.Block(0)}
			for _, k := range p.K {
				first.K = append(first.K, k.Block(0))
			}
			h.Backend.ErrorRatio(clk, tol, e, e2, []backend.Part[T]{first})
		}),
		ratio("the first part's norm", "ErrorRatio/parts", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
			h.Backend.ErrorRatio(clk, tol, e, e2, parts[:1])
		}),
		ratio("one estimate", "ErrorRatio/5x3", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, _ []float64, parts []backend.Part[T]) {
			h.Backend.ErrorRatio(clk, tol, e, nil, parts)
		}),
		ratio("the tolerance of y0 alone", "ErrorRatio/5x3", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
			p := append([]backend.Part[T](nil), parts...)
			for i := range p {
				p[i].Y1 = p[i].Y0
			}
			h.Backend.ErrorRatio(clk, tol, e, e2, p)
		}),
		ratio("NaN in y1 lost", "ErrorRatio/not finite", func(h *broken[T], clk backend.Clock, tol backend.Tolerance, e, e2 []float64, parts []backend.Part[T]) {
			h.change(parts[0].Y1, func(x []T) {
				for i, v := range x {
					if v-v != 0 {
						x[i] = 0
					}
				}
			})
			h.Backend.ErrorRatio(clk, tol, e, e2, parts)
		}),
		{"Save without the last power", "Save/5x3", "Save", func(h *broken[T]) {
			h.save = func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
				short := make([][]float64, len(dense))
				for j, p := range dense {
					short[j] = p[:len(p)-1]
				}
				h.Backend.Save(clk, short, y0, y1, k, table)
			}
		}},
		{"Save interpolates at the end", "Save/5x3", "Save", func(h *broken[T]) {
			h.save = func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
				h.Backend.Save(clk, dense, y0, y0, k, table)
			}
		}},
		{"Save misses the last element", "Save/3x257", "Save", func(h *broken[T]) {
			h.save = func(clk backend.Clock, dense [][]float64, y0, y1 backend.Vec[T], k []backend.Vec[T], table backend.Vec[T]) {
				n := cols(table)
				h.keeping(table, n-1, n, func() { h.Backend.Save(clk, dense, y0, y1, k, table) })
			}
		}},
		{"Commit makes the first move", "Commit/", "Commit", func(h *broken[T]) {
			h.commit = func(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
				h.Backend.Commit(clk, rows, moves[:min(len(moves), 1)])
			}
		}},
		{"Commit reads all before it writes", "Commit/move", "Commit", func(h *broken[T]) {
			h.commit = func(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
				for i := len(moves) - 1; i >= 0; i-- { // as good as, for the chain
					h.Backend.Commit(clk, rows, moves[i:i+1])
				}
			}
		}},
		{"Commit of all accepted rows", "Commit/every state", "Commit", func(h *broken[T]) {
			h.commit = func(clk backend.Clock, rows backend.Rows, moves []backend.Move[T]) {
				if rows == backend.Saving {
					rows = backend.Accepted
				}
				h.Backend.Commit(clk, rows, moves)
			}
		}},
		{"AtStop loads in place of adding", "AtStop/Add", "AtStop", func(h *broken[T]) {
			h.atStop = func(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
				if op == backend.Add {
					op = backend.Load
				}
				h.Backend.AtStop(clk, op, y, table)
			}
		}},
		{"Store makes the first stage stale", "AtStop/stale", "AtStop", func(h *broken[T]) {
			h.atStop = func(clk backend.Clock, op backend.StopOp, y, table backend.Vec[T]) {
				h.Backend.AtStop(clk, op, y, table)
				if op == backend.Store {
					h.Backend.AtStop(clk, backend.Load, y, table)
				}
			}
		}},
		{"Push in the wrong order", "Push/", "ReadTape", func(h *broken[T]) {
			h.push = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				if len(keep) == 2 {
					keep = []backend.Vec[T]{keep[1], keep[0]}
				}
				h.Backend.Push(clk, tape, keep)
			}
		}},
		{"Push twice", "Push/", "Tape.Len", func(h *broken[T]) {
			h.push = func(clk backend.Clock, tape backend.Tape[T], keep []backend.Vec[T]) {
				h.Backend.Push(clk, tape, keep)
				h.Backend.Push(clk, tape, keep)
			}
		}},
		{"ReadTape gives the end of the step", "Push/", "ReadTape", func(h *broken[T]) {
			h.readTape = func(tape backend.Tape[T], lane, i int, dst []T) (t, hh float64, err error) {
				t, hh, err = h.Backend.ReadTape(tape, lane, i, dst)
				return t + hh, hh, err
			}
		}},
	}
}
