package expr

// slope is d·∂n/∂x for operand i of n: the chain rule, whichever way it goes. Operands
// on whose comparison alone a value depends have no slope, and 0 is for none.
func (g *graph) slope(n id, i int, d id) id {
	y := g.nodes[n]
	a, b := y.args[0], y.args[1]
	one := g.number(1)
	switch y.op {
	case opAdd:
		return d
	case opSub:
		if i == 1 {
			return g.apply(opNeg, d)
		}
		return d
	case opNeg:
		return g.apply(opNeg, d)
	case opMul:
		return g.apply(opMul, d, y.args[1-i])
	case opScale:
		if i == 0 {
			return g.apply(opScale, d, b)
		}
		return g.apply(opMul, d, a)
	case opDiv:
		if i == 0 {
			return g.apply(opDiv, d, b)
		}
		return g.apply(opNeg, g.apply(opMul, g.apply(opDiv, d, b), n))
	case opSelect:
		zero := g.number(0)
		switch i {
		case 2:
			return g.apply(opSelect, a, b, d, zero)
		case 3:
			return g.apply(opSelect, a, b, zero, d)
		}
		return zero
	case opMax, opMin: // y where they are equal, as in package field
		less, more := b, a
		if y.op == opMin {
			less, more = a, b
		}
		if i == 0 {
			return g.apply(opSelect, less, more, d, g.number(0))
		}
		return g.apply(opSelect, less, more, g.number(0), d)
	case opAbs:
		zero := g.number(0)
		return g.apply(opSelect, zero, a, d, g.apply(opSelect, a, zero, g.apply(opNeg, d), zero))
	case opExp:
		return g.apply(opMul, d, n)
	case opExpm1:
		return g.apply(opMul, d, g.apply(opExp, a))
	case opLog:
		return g.apply(opScale, d, g.apply(opDiv, one, a))
	case opLog1p:
		return g.apply(opScale, d, g.apply(opDiv, one, g.apply(opAdd, one, a)))
	case opSqrt:
		return g.apply(opScale, d, g.apply(opDiv, g.number(0.5), n))
	case opSin:
		return g.apply(opMul, d, g.apply(opCos, a))
	case opCos:
		return g.apply(opNeg, g.apply(opMul, d, g.apply(opSin, a)))
	case opTan:
		return g.apply(opMul, d, g.apply(opAdd, one, g.apply(opMul, n, n)))
	case opAsin, opAcos:
		s := g.apply(opSqrt, g.apply(opMul, g.apply(opSub, one, a), g.apply(opAdd, one, a)))
		s = g.apply(opScale, d, g.apply(opDiv, one, s))
		if y.op == opAcos {
			return g.apply(opNeg, s)
		}
		return s
	case opAtan:
		return g.apply(opDiv, d, g.apply(opAdd, one, g.apply(opMul, a, a)))
	case opSinh:
		return g.apply(opMul, d, g.apply(opCosh, a))
	case opCosh:
		return g.apply(opMul, d, g.apply(opSinh, a))
	case opTanh:
		return g.apply(opMul, d, g.apply(opMul, g.apply(opSub, one, n), g.apply(opAdd, one, n)))
	case opAtan2:
		r := g.apply(opHypot, a, b)
		x := g.apply(opDiv, g.apply(opDiv, y.args[1-i], r), r)
		if i == 1 {
			x = g.apply(opNeg, x)
		}
		return g.apply(opMul, d, g.apply(opSelect, g.number(0), r, x, g.number(0)))
	case opHypot:
		return g.apply(opMul, d, g.apply(opSelect, g.number(0), n, g.apply(opDiv, y.args[i], n), g.number(0)))
	case opPow:
		if i == 0 {
			p := g.apply(opPow, a, g.apply(opSub, b, one))
			return g.apply(opScale, d, g.apply(opScale, b, p))
		}
		s, zero := g.apply(opMul, n, g.apply(opLog, a)), g.number(0)
		// 0 where x is 0, unless y < 0.
		s = g.apply(opSelect, zero, g.apply(opAbs, a), s, g.apply(opSelect, b, zero, s, zero))
		return g.apply(opScale, d, s)
	}
	panic("expr: unreachable")
}

// forward returns the tangents of outs, given those of some nodes; others have none.
func (g *graph) forward(outs []id, tangent map[id]id) []id {
	dot := make([]id, len(g.nodes))
	zero := g.number(0)
	for n := range dot {
		dot[n] = zero
		if d, ok := tangent[id(n)]; ok {
			dot[n] = d
			continue
		}
		y := g.nodes[n]
		for i := range y.op.arity() {
			if d := dot[y.args[i]]; d != zero {
				dot[n] = g.apply(opAdd, dot[n], g.slope(id(n), i, d))
			}
		}
	}
	return pick(dot, outs)
}

// reverse returns Σ_j a_j·∂outs_j/∂x for every node x of wrt.
func (g *graph) reverse(outs, a, wrt []id) []id {
	bar := make([]id, len(g.nodes))
	zero := g.number(0)
	for n := range bar {
		bar[n] = zero
	}
	for j, n := range outs {
		bar[n] = g.apply(opAdd, bar[n], a[j])
	}
	for n := len(bar) - 1; n >= 0; n-- {
		if bar[n] == zero {
			continue
		}
		y := g.nodes[n]
		for i := range y.op.arity() {
			x := y.args[i]
			if _, ok := g.constant(x); !ok {
				bar[x] = g.apply(opAdd, bar[x], g.slope(id(n), i, bar[n]))
			}
		}
	}
	return pick(bar, wrt)
}

func pick(x, at []id) []id {
	y := make([]id, len(at))
	for i, n := range at {
		y[i] = x[n]
	}
	return y
}
