package expr

import (
	"math"
	"sync"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// evaluate is an operation on numbers, those of package field.
func evaluate[T backend.Float](o op, x, y, z, w T) T {
	switch o {
	case opAdd:
		return x + y
	case opSub:
		return x - y
	case opMul:
		return x * y
	case opDiv:
		return x / y
	case opNeg:
		return -x
	case opScale:
		if x == 0 {
			return 0
		}
		return x * y
	case opSelect:
		if x < y {
			return z
		}
		return w
	case opAbs:
		return T(math.Abs(float64(x)))
	case opMax:
		if x > y || x != x {
			return x
		}
		return y
	case opMin:
		if x < y || x != x {
			return x
		}
		return y
	}
	return T(function(o, float64(x), float64(y)))
}

func function(o op, x, y float64) float64 {
	switch o {
	case opExp:
		return math.Exp(x)
	case opExpm1:
		return math.Expm1(x)
	case opLog:
		return math.Log(x)
	case opLog1p:
		return math.Log1p(x)
	case opSqrt:
		return math.Sqrt(x)
	case opSin:
		return math.Sin(x)
	case opCos:
		return math.Cos(x)
	case opTan:
		return math.Tan(x)
	case opAsin:
		return math.Asin(x)
	case opAcos:
		return math.Acos(x)
	case opAtan:
		return math.Atan(x)
	case opSinh:
		return math.Sinh(x)
	case opCosh:
		return math.Cosh(x)
	case opTanh:
		return math.Tanh(x)
	case opAtan2:
		return math.Atan2(x, y)
	case opPow:
		return math.Pow(x, y)
	case opHypot:
		return math.Hypot(x, y)
	}
	panic("expr: unreachable")
}

// program computes some nodes of a graph, one operation after another. Its memory is
// the inputs, the constants, and a place for each result.
type program[T backend.Float] struct {
	code []instruction
	outs []int32   // where the results are
	pool sync.Pool // of *[]T, memory with the constants in place
}

type instruction struct {
	op        op
	a, b, dst int32
	c, d      int32 // of opSelect
}

// used marks what outs depend on.
func (g *graph) used(outs []id) []bool {
	used := make([]bool, len(g.nodes))
	for _, n := range outs {
		used[n] = true
	}
	for n := len(g.nodes) - 1; n >= 0; n-- {
		if used[n] {
			for _, x := range g.nodes[n].args[:g.nodes[n].op.arity()] {
				used[x] = true
			}
		}
	}
	return used
}

// compile makes the program that computes outs from so many inputs.
func compile[T backend.Float](g *graph, inputs int, outs []id) *program[T] {
	p := &program[T]{}
	place := make([]int32, len(g.nodes))
	memory := make([]T, inputs)
	used := g.used(outs)
	for n, y := range g.nodes {
		switch {
		case !used[n]:
		case y.op == opInput:
			place[n] = y.args[0]
		case y.op == opConst:
			place[n] = int32(len(memory))
			memory = append(memory, T(y.value()))
		}
	}
	for n, y := range g.nodes {
		if !used[n] || y.op <= opInput {
			continue
		}
		place[n] = int32(len(memory))
		memory = append(memory, 0)
		at := func(i int) int32 { return place[y.args[min(i, y.op.arity()-1)]] }
		p.code = append(p.code, instruction{op: y.op, a: at(0), b: at(1), c: at(2), d: at(3), dst: place[n]})
	}
	p.outs = pick(place, outs)
	p.pool.New = func() any {
		m := append([]T(nil), memory...)
		return &m
	}
	return p
}

// run computes all results in memory m.
func (p *program[T]) run(m []T) {
	for i := range p.code {
		c := &p.code[i]
		switch x, y := m[c.a], m[c.b]; c.op {
		case opAdd:
			m[c.dst] = x + y
		case opSub:
			m[c.dst] = x - y
		case opMul:
			m[c.dst] = x * y
		default:
			m[c.dst] = evaluate(c.op, x, y, m[c.c], m[c.d])
		}
	}
}
