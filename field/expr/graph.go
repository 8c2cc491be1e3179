package expr

import "math"

// op is an operation.
type op uint8

const (
	opConst op = iota
	opInput
	opAdd
	opSub
	opMul
	opDiv
	opNeg
	opScale  // x·y, 0 where x is: what does not move has no slope, however steep y is
	opSelect // x < y ? z : w
	opExp
	opExpm1
	opLog
	opLog1p
	opSqrt
	opSin
	opCos
	opTan
	opAsin
	opAcos
	opAtan
	opSinh
	opCosh
	opTanh
	opAbs
	opAtan2
	opPow
	opHypot
	opMin
	opMax
)

// functions are those that an equation may call, with the number of their arguments.
var functions = map[string]struct {
	op   op
	args int
}{
	"exp": {opExp, 1}, "expm1": {opExpm1, 1}, "log": {opLog, 1}, "log1p": {opLog1p, 1}, "sqrt": {opSqrt, 1},
	"sin": {opSin, 1}, "cos": {opCos, 1}, "tan": {opTan, 1}, "asin": {opAsin, 1}, "acos": {opAcos, 1}, "atan": {opAtan, 1},
	"sinh": {opSinh, 1}, "cosh": {opCosh, 1}, "tanh": {opTanh, 1}, "abs": {opAbs, 1},
	"atan2": {opAtan2, 2}, "pow": {opPow, 2}, "hypot": {opHypot, 2}, "min": {opMin, 2}, "max": {opMax, 2},
}

// arity is the number of operands.
func (o op) arity() int {
	switch {
	case o <= opInput:
		return 0
	case o == opSelect:
		return 4
	case o == opNeg || o >= opExp && o <= opAbs:
		return 1
	}
	return 2
}

// id names a node of a graph.
type id = int32

// node is an operation and its operands. The first operand of opInput is its number.
type node struct {
	op   op
	args [4]id
	bits uint64 // of opConst: the value's, which as map keys tell 0 from -0
}

func (n node) value() float64 { return math.Float64frombits(n.bits) }

// graph is expressions that share what is equal. Operands come before what uses them.
type graph struct {
	nodes []node
	known map[node]id
}

func (g *graph) add(n node) id {
	if i, ok := g.known[n]; ok {
		return i
	}
	i := id(len(g.nodes))
	g.nodes = append(g.nodes, n)
	g.known[n] = i
	return i
}

func (g *graph) number(x float64) id { return g.add(node{op: opConst, bits: math.Float64bits(x)}) }

func (g *graph) input(i int) id { return g.add(node{op: opInput, args: [4]id{id(i)}}) }

// constant is the value of a constant.
func (g *graph) constant(x id) (v float64, ok bool) {
	n := g.nodes[x]
	return n.value(), n.op == opConst
}

// is reports whether x is the constant v.
func (g *graph) is(x id, v float64) bool {
	c, ok := g.constant(x)
	return ok && c == v
}

// apply is an operation on x, simplified.
func (g *graph) apply(o op, x ...id) id {
	if y, ok := g.simplified(o, x); ok {
		return y
	}
	if (o == opAdd || o == opMul) && x[0] > x[1] { // one of the two orders
		x[0], x[1] = x[1], x[0]
	}
	n := node{op: o}
	copy(n.args[:], x)
	if v, ok := g.folded(n); ok {
		return g.number(v)
	}
	return g.add(n)
}

// folded is the value of an operation on constants, if it is a number.
func (g *graph) folded(n node) (v float64, ok bool) {
	var x [4]float64
	for i := range n.op.arity() {
		if x[i], ok = g.constant(n.args[i]); !ok {
			return 0, false
		}
	}
	v = evaluate(n.op, x[0], x[1], x[2], x[3])
	return v, !math.IsNaN(v) && !math.IsInf(v, 0)
}

func (g *graph) simplified(o op, x []id) (id, bool) {
	switch o {
	case opAdd:
		switch {
		case g.is(x[0], 0):
			return x[1], true
		case g.is(x[1], 0):
			return x[0], true
		case g.nodes[x[1]].op == opNeg:
			return g.apply(opSub, x[0], g.nodes[x[1]].args[0]), true
		case g.nodes[x[0]].op == opNeg:
			return g.apply(opSub, x[1], g.nodes[x[0]].args[0]), true
		}
	case opSub:
		switch {
		case g.is(x[1], 0):
			return x[0], true
		case g.is(x[0], 0):
			return g.apply(opNeg, x[1]), true
		case g.nodes[x[1]].op == opNeg:
			return g.apply(opAdd, x[0], g.nodes[x[1]].args[0]), true
		}
	case opNeg:
		if n := g.nodes[x[0]]; n.op == opNeg {
			return n.args[0], true
		}
	case opMul, opScale:
		for i, y := range x {
			switch other := x[1-i]; {
			case g.is(y, 0):
				return y, true
			case g.is(y, 1):
				return other, true
			case g.is(y, -1):
				return g.apply(opNeg, other), true
			}
		}
	case opDiv:
		switch {
		case g.is(x[0], 0):
			return x[0], true
		case g.is(x[1], 1):
			return x[0], true
		}
	case opSelect:
		if x[2] == x[3] {
			return x[2], true
		}
	case opPow:
		return g.power(x[0], x[1])
	}
	return 0, false
}

// power writes xʸ for some constants y by cheaper operations.
func (g *graph) power(x, y id) (id, bool) {
	const most = 16 // a product of few factors
	e, ok := g.constant(y)
	switch {
	case !ok:
		return 0, false
	case e == 0.5:
		return g.apply(opSqrt, x), true
	case e != math.Trunc(e) || math.Abs(e) > most:
		return 0, false
	case e < 0:
		p, _ := g.power(x, g.number(-e))
		return g.apply(opDiv, g.number(1), p), true
	}
	p := g.number(1)
	for n := int(e); n > 0; n /= 2 {
		if n%2 == 1 {
			p = g.apply(opMul, p, x)
		}
		if n > 1 {
			x = g.apply(opMul, x, x)
		}
	}
	return p, true
}
