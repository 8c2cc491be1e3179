package torchfile

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// The opcodes of pickle that torch.save writes for dicts of tensors.
const (
	opMark       = '('
	opStop       = '.'
	opInt4       = 'J'
	opInt1       = 'K'
	opInt2       = 'M'
	opLong1      = 0x8a
	opFloat      = 'G'
	opNone       = 'N'
	opTrue       = 0x88
	opFalse      = 0x89
	opText       = 'X'
	opPersID     = 'Q'
	opReduce     = 'R'
	opNewObj     = 0x81 // a class's __new__
	opBuild      = 'b'
	opGlobal     = 'c'
	opAppend     = 'a'
	opAppends    = 'e'
	opEmptyList  = ']'
	opEmptyDict  = '}'
	opSetItem    = 's'
	opSetItems   = 'u'
	opEmptyTuple = ')'
	opTuple      = 't'
	opTuple1     = 0x85
	opTuple2     = 0x86
	opTuple3     = 0x87
	opGet1       = 'h'
	opGet4       = 'j'
	opPut1       = 'q'
	opPut4       = 'r'
	opProto      = 0x80
)

// What a pickle builds, besides string, int64, float64, bool and nil.
type (
	dict  struct{ keys, values []any }
	list  struct{ items []any }
	tuple []any
	class string // module and name, with a space between
	mark  struct{}
)

// machine runs a pickle.
type machine struct {
	b     []byte
	at    int // the next byte
	stack []any
	memo  map[uint32]any
	// persistent finds the storage that a tuple names.
	persistent func(id tuple) (any, error)
	// call makes the result of a class or function.
	call func(f class, args tuple) (any, error)
}

// failure leaves run by a panic that run recovers; it is the only one.
type failure struct{ error }

func (m *machine) fail(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// run returns what the pickle builds. An error says at which byte.
func (m *machine) run() (result any, err error) {
	start := 0
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("the pickle at byte %d: %w", start, r.error)
		default:
			panic(r)
		}
	}()
	for {
		start = m.at
		op := m.take(1)[0]
		if op == opStop {
			result = m.pop()
			if len(m.stack) != 0 || m.at != len(m.b) {
				m.fail("something follows its end; the file is damaged")
			}
			return result, nil
		}
		m.step(op)
	}
}

func (m *machine) step(op byte) {
	switch op {
	case opProto:
		if v := m.take(1)[0]; v != 2 {
			m.fail("it has protocol %d, not 2; save without the argument pickle_protocol", v)
		}
	case opMark:
		m.push(mark{})
	case opNone:
		m.push(nil)
	case opTrue, opFalse:
		m.push(op == opTrue)
	case opInt1:
		m.push(int64(m.take(1)[0]))
	case opInt2:
		m.push(int64(binary.LittleEndian.Uint16(m.take(2))))
	case opInt4:
		m.push(int64(int32(binary.LittleEndian.Uint32(m.take(4)))))
	case opLong1:
		m.push(m.long())
	case opFloat:
		m.push(math.Float64frombits(binary.BigEndian.Uint64(m.take(8))))
	case opText:
		s := m.take(m.length())
		if !utf8.Valid(s) {
			m.fail("text that is not UTF-8; the file is damaged")
		}
		m.push(string(s))
	case opGlobal:
		m.push(class(m.line() + " " + m.line()))
	case opPersID:
		m.result(m.persistent(m.tuple()))
	case opReduce, opNewObj:
		args := m.tuple()
		f, ok := m.pop().(class)
		if !ok {
			m.fail("a call of what is no class; the file is damaged")
		}
		m.result(m.call(f, args))
	case opBuild: // a dict's attributes, as _metadata: of no meaning for tensors
		m.pop()
		m.dict()
	case opEmptyList:
		m.push(&list{})
	case opAppend:
		v := m.pop()
		m.list().items = append(m.list().items, v)
	case opAppends:
		v := m.marked()
		m.list().items = append(m.list().items, v...)
	case opEmptyDict:
		m.push(&dict{})
	case opSetItem:
		v := m.pop()
		k := m.pop()
		m.set([]any{k, v})
	case opSetItems:
		m.set(m.marked())
	case opEmptyTuple:
		m.push(tuple{})
	case opTuple:
		m.push(tuple(m.marked()))
	case opTuple1, opTuple2, opTuple3:
		n := int(op-opTuple1) + 1
		t := make(tuple, n)
		for i := range n {
			t[n-1-i] = m.pop()
		}
		m.push(t)
	case opGet1:
		m.recall(uint32(m.take(1)[0]))
	case opGet4:
		m.recall(binary.LittleEndian.Uint32(m.take(4)))
	case opPut1:
		m.memo[uint32(m.take(1)[0])] = m.top()
	case opPut4:
		m.memo[binary.LittleEndian.Uint32(m.take(4))] = m.top()
	default:
		m.fail("opcode %#02x is none that a dict of tensors needs; save model.state_dict() with torch.save", op)
	}
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

func (m *machine) top() any {
	if len(m.stack) == 0 {
		m.fail("it takes more than there is; the file is damaged")
	}
	return m.stack[len(m.stack)-1]
}

func (m *machine) pop() any {
	v := m.top()
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

func (m *machine) result(v any, err error) {
	if err != nil {
		panic(failure{err})
	}
	m.push(v)
}

// marked takes what lies above the last mark, and the mark.
func (m *machine) marked() []any {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			items := append([]any{}, m.stack[i+1:]...)
			m.stack = m.stack[:i]
			return items
		}
	}
	m.fail("a mark is missing; the file is damaged")
	return nil
}

func (m *machine) tuple() tuple {
	t, ok := m.pop().(tuple)
	if !ok {
		m.fail("it lacks a tuple; the file is damaged")
	}
	return t
}

func (m *machine) list() *list {
	l, ok := m.top().(*list)
	if !ok {
		m.fail("it lacks a list; the file is damaged")
	}
	return l
}

func (m *machine) dict() *dict {
	d, ok := m.top().(*dict)
	if !ok {
		m.fail("attributes or items of an object that is no dict; save model.state_dict() with torch.save")
	}
	return d
}

func (m *machine) set(items []any) {
	if len(items)%2 != 0 {
		m.fail("a key without a value; the file is damaged")
	}
	d := m.dict()
	for i := 0; i < len(items); i += 2 {
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
}

func (m *machine) recall(i uint32) {
	v, ok := m.memo[i]
	if !ok {
		m.fail("it refers to object %d, which is missing; the file is damaged", i)
	}
	m.push(v)
}

// take returns the next n bytes.
func (m *machine) take(n int) []byte {
	if n < 0 || n > len(m.b)-m.at {
		m.fail("it ends early; the file is damaged")
	}
	b := m.b[m.at : m.at+n]
	m.at += n
	return b
}

func (m *machine) length() int {
	n := binary.LittleEndian.Uint32(m.take(4))
	if n > math.MaxInt32 {
		m.fail("text of %d bytes; the file is damaged", n)
	}
	return int(n)
}

// line returns the bytes up to the next newline, without it.
func (m *machine) line() string {
	for i := m.at; i < len(m.b); i++ {
		if m.b[i] == '\n' {
			s := string(m.b[m.at:i])
			m.at = i + 1
			return s
		}
	}
	m.fail("it ends early; the file is damaged")
	return ""
}

// long is an integer in two's complement with its length in front.
func (m *machine) long() int64 {
	b := m.take(int(m.take(1)[0]))
	if len(b) > 8 {
		m.fail("an integer beyond 64 bits; save model.state_dict() with torch.save")
	}
	var v int64
	for i, x := range b {
		v |= int64(x) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v -= 1 << (8 * n)
	}
	return v
}
