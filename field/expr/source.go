package expr

import (
	"fmt"
	"strings"

	"github.com/seed-5f5774c8/neuralode/field"
)

// source writes the equations and their products as CUDA C++.
func source(g *graph, n inputs, f, back, forward []id) field.Source {
	name := func(i int) string {
		for _, v := range []struct {
			first int
			name  string
		}{{n.w(), "w"}, {n.v(), "v"}, {n.a(), "a"}, {n.theta(), "theta"}, {n.z(), "z"}} {
			if i >= v.first {
				return fmt.Sprintf("%s[%d]", v.name, i-v.first)
			}
		}
		return "t"
	}
	return field.Source{
		Eval: g.body(name, f, func(i int) string { return fmt.Sprintf("dz[%d]", i) }),
		VJP: g.body(name, back, func(i int) string {
			switch {
			case i < n.d:
				return fmt.Sprintf("az[%d]", i)
			case i == n.d:
				return "at"
			}
			return fmt.Sprintf("atheta[%d]", i-n.d-1)
		}),
		JVP: g.body(name, forward, func(i int) string { return fmt.Sprintf("jv[%d]", i) }),
	}
}

var calls = map[op]string{
	opExp: "exp", opExpm1: "expm1", opLog: "log", opLog1p: "log1p", opSqrt: "sqrt",
	opSin: "sin", opCos: "cos", opTan: "tan", opAsin: "asin", opAcos: "acos", opAtan: "atan",
	opSinh: "sinh", opCosh: "cosh", opTanh: "tanh", opAbs: "fabs",
	opAtan2: "atan2", opPow: "pow", opHypot: "hypot",
}

// body is statements that set the outputs.
func (g *graph) body(input func(int) string, outs []id, output func(int) string) string {
	var s strings.Builder
	used := g.used(outs)
	text := make([]string, len(g.nodes))
	for n, y := range g.nodes {
		if !used[n] {
			continue
		}
		switch y.op {
		case opInput:
			text[n] = input(int(y.args[0]))
			continue
		case opConst:
			text[n] = fmt.Sprintf("real(%.17g)", y.value())
			continue
		}
		a, b := text[y.args[0]], text[y.args[1]]
		var e string
		switch y.op {
		case opAdd:
			e = a + " + " + b
		case opSub:
			e = a + " - " + b
		case opMul:
			e = a + " * " + b
		case opDiv:
			e = a + " / " + b
		case opNeg:
			e = "-" + a
		case opScale:
			e = fmt.Sprintf("%s == 0 ? real(0) : %s * %s", a, a, b)
		case opSelect:
			e = fmt.Sprintf("%s < %s ? %s : %s", a, b, text[y.args[2]], text[y.args[3]])
		case opMax:
			e = fmt.Sprintf("%s > %s || %s != %s ? %s : %s", a, b, a, a, a, b)
		case opMin:
			e = fmt.Sprintf("%s < %s || %s != %s ? %s : %s", a, b, a, a, a, b)
		default:
			e = fmt.Sprintf("%s(%s)", calls[y.op], a)
			if y.op.arity() == 2 {
				e = fmt.Sprintf("%s(%s, %s)", calls[y.op], a, b)
			}
		}
		text[n] = fmt.Sprintf("x%d", n)
		fmt.Fprintf(&s, "const real x%d = %s;\n", n, e)
	}
	for i, n := range outs {
		fmt.Fprintf(&s, "%s = %s;\n", output(i), text[n])
	}
	return s.String()
}
