package expr

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// parser reads one equation into a graph.
type parser struct {
	g     *graph
	names map[string]id // of inputs and constants
	text  string
	at    int // in text, in bytes
	depth int
}

// syntaxError is a fault at a place of an equation.
type syntaxError struct {
	at   int
	what string
}

func (p *parser) fail(at int, format string, args ...any) {
	panic(syntaxError{at, fmt.Sprintf(format, args...)})
}

// equation reads all of the text.
func (p *parser) equation() (n id, err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case syntaxError:
			err = fmt.Errorf("%q, column %d: %s", p.text, 1+utf8.RuneCountInString(p.text[:e.at]), e.what)
		default:
			panic(e)
		}
	}()
	n = p.sum()
	if p.peek() != 0 {
		p.fail(p.at, "%q is not expected here; write an operator before it, or leave it out", p.peek())
	}
	return n, nil
}

// peek is the next character but for spaces, 0 at the end.
func (p *parser) peek() rune {
	for {
		c, size := utf8.DecodeRuneInString(p.text[p.at:])
		switch {
		case size == 0:
			return 0
		case !unicode.IsSpace(c):
			return c
		}
		p.at += size
	}
}

// take passes over one of some ASCII characters and returns it, or 0.
func (p *parser) take(chars string) rune {
	c := p.peek()
	if c == 0 || !strings.ContainsRune(chars, c) {
		return 0
	}
	p.at++
	return c
}

func (p *parser) expect(char, where string) {
	if p.take(char) == 0 {
		p.fail(p.at, "a %q is missing %s", char, where)
	}
}

// sum = product { ("+" | "-") product }.
func (p *parser) sum() id {
	const most = 1000
	if p.depth++; p.depth > most {
		p.fail(p.at, "nested more than %d deep; write it with less parentheses", most)
	}
	x := p.product()
	for {
		switch p.take("+-") {
		case '+':
			x = p.g.apply(opAdd, x, p.product())
		case '-':
			x = p.g.apply(opSub, x, p.product())
		default:
			p.depth--
			return x
		}
	}
}

// product = signed { ("*" | "/") signed }.
func (p *parser) product() id {
	x := p.signed()
	for {
		switch p.take("*/") {
		case '*':
			x = p.g.apply(opMul, x, p.signed())
		case '/':
			x = p.g.apply(opDiv, x, p.signed())
		default:
			return x
		}
	}
}

// signed = { "+" | "-" } power.
func (p *parser) signed() id {
	minus := false
	for c := p.take("+-"); c != 0; c = p.take("+-") {
		minus = minus != (c == '-')
	}
	x := p.power()
	if minus {
		return p.g.apply(opNeg, x)
	}
	return x
}

// power = primary [ "^" signed ].
func (p *parser) power() id {
	x := p.primary()
	if p.take("^") == 0 {
		return x
	}
	const most = 1000
	if p.depth++; p.depth > most {
		p.fail(p.at, "nested more than %d deep; write it with less powers", most)
	}
	y := p.signed()
	p.depth--
	return p.g.apply(opPow, x, y)
}

// primary = number | name | name "(" arguments ")" | "(" sum ")".
func (p *parser) primary() id {
	c, at := p.peek(), p.at
	switch {
	case c == '(':
		p.at++
		x := p.sum()
		p.expect(")", "to close the parenthesis")
		return x
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	case isLetter(c):
		name := p.name()
		if p.peek() == '(' {
			return p.call(name, at)
		}
		n, ok := p.names[name]
		if _, call := functions[name]; !ok && (call || name == "if") {
			p.fail(at, "%s is a function; give it its arguments in parentheses", name)
		}
		if !ok {
			p.fail(at, "%q is not known; the names are %s", name, strings.Join(slices.Sorted(maps.Keys(p.names)), ", "))
		}
		return n
	case c == 0:
		p.fail(at, "the equation ends where a value is expected")
	}
	p.fail(at, "%q is not expected here; a value is", c)
	return 0
}

func (p *parser) number() id {
	start := p.at
	digits := func() {
		for p.at < len(p.text) && (p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '.') {
			p.at++
		}
	}
	digits()
	if p.at < len(p.text) && (p.text[p.at] == 'e' || p.text[p.at] == 'E') {
		p.at++
		if p.at < len(p.text) && (p.text[p.at] == '+' || p.text[p.at] == '-') {
			p.at++
		}
		digits()
	}
	x, err := strconv.ParseFloat(p.text[start:p.at], 64)
	if err != nil || math.IsInf(x, 0) {
		p.fail(start, "%s is no number that a float64 holds", p.text[start:p.at])
	}
	return p.g.number(x)
}

func isLetter(c rune) bool { return unicode.IsLetter(c) || c == '_' }

func (p *parser) name() string {
	rest := p.text[p.at:]
	n := strings.IndexFunc(rest, func(c rune) bool { return !isLetter(c) && !unicode.IsDigit(c) })
	if n < 0 {
		n = len(rest)
	}
	p.at += n
	return rest[:n]
}

// call reads the arguments of a function, whose name began at a place.
func (p *parser) call(name string, at int) id {
	f, known := functions[name]
	if !known && name != "if" {
		p.fail(at, "there is no function %q; there are %s and if; write * between factors", name, strings.Join(slices.Sorted(maps.Keys(functions)), ", "))
	}
	p.at++
	if name == "if" {
		x, less := p.sum(), p.take("<>")
		if less == 0 {
			p.fail(p.at, "a < or > is missing; write if(x < y, value, otherwise)")
		}
		y := p.sum()
		if less == '>' {
			x, y = y, x
		}
		p.expect(",", "after the condition of if")
		value := p.sum()
		p.expect(",", "after the first value of if")
		otherwise := p.sum()
		p.expect(")", "to close if")
		return p.g.apply(opSelect, x, y, value, otherwise)
	}
	args := make([]id, f.args)
	for i := range args {
		if i > 0 {
			p.expect(",", fmt.Sprintf("in %s, which takes %d arguments", name, f.args))
		}
		args[i] = p.sum()
	}
	p.expect(")", fmt.Sprintf("to close %s, which takes %d", name, f.args))
	return p.g.apply(f.op, args...)
}
