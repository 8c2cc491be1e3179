// Package backendtest is the conformance suite of package backend: every backend
// passes [Run], in both precisions.
//
// It relies on the interface alone. Each verb is compared with a plain float64
// reference of its own, within bounds that follow from the unit roundoff and the
// number of operations; buffers lie between guards that must not change; rows that
// a call does not select must keep their bits.
package backendtest

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Run checks the backend that open returns. It opens several, one at a time beside
// the first, and closes them.
func Run[T backend.Float](t *testing.T, open func(t *testing.T) backend.Backend[T]) {
	b := open(t)
	for _, c := range cases[T]() {
		t.Run(c.name, func(t *testing.T) {
			c.check(t, b, func() backend.Backend[T] { return open(t) })
		})
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// cases is the whole suite.
func cases[T backend.Float]() (all []testCase[T]) {
	for _, group := range []func() []testCase[T]{
		memoryCases[T], bindCases[T], evalCases[T], vjpCases[T], jvpCases[T], fieldCases[T],
		combineCases[T], errorCases[T], saveCases[T], moveCases[T], tapeCases[T],
		clockCases[T], atCases[T], spanCases[T], reverseCases[T], cutCases[T], reserveCases[T], denseCases[T], proposeCases[T], sequenceCases[T], solveCases[T], learnerCases[T], misuseCases[T],
	} {
		all = append(all, group()...)
	}
	return all
}

// testCase is one case; its name begins with the verb.
type testCase[T backend.Float] struct {
	name string
	run  func(s *suite[T])
}

// check runs the case. Whatever the case allocated must be gone at its end.
func (c testCase[T]) check(r reporter, b backend.Backend[T], open func() backend.Backend[T]) {
	r.Helper()
	hash := fnv.New64a()
	hash.Write([]byte(c.name))
	s := &suite[T]{reporter: r, arith: arith{unit[T]()}, Backend: b, open: open, rng: rand.New(rand.NewPCG(1, hash.Sum64()))}
	before := b.MemoryUsed()
	c.run(s)
	s.release()
	s.noError("Sync", b.Sync())
	if after := b.MemoryUsed(); after != before {
		s.Errorf("MemoryUsed: %d bytes before and %d after everything was freed", before, after)
	}
}

// reporter is what the suite needs of a testing.T, so that a test of the suite can
// look on.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Skipf(format string, args ...any)
	FailNow()
}

// suite is what a case works with: the backend, and helpers that fail the case.
type suite[T backend.Float] struct {
	reporter
	arith
	backend.Backend[T]
	open  func() backend.Backend[T]
	rng   *rand.Rand
	owned []func()
}

func (s *suite[T]) fatalf(format string, args ...any) {
	s.Helper()
	s.Errorf(format, args...)
	s.FailNow()
}

func (s *suite[T]) noError(verb string, err error) {
	s.Helper()
	if err != nil {
		s.fatalf("%s: %v", verb, err)
	}
}

// reverser is the backend, and ends a case that has no use for one that is not a
// [backend.Reverser]. Call it first.
func (s *suite[T]) reverser() backend.Reverser[T] {
	s.Helper()
	r, ok := s.Backend.(backend.Reverser[T])
	if !ok {
		s.Skipf("%s is not a backend.Reverser", s.Name())
	}
	return r
}

// cutter is the same for a [backend.Cutter].
func (s *suite[T]) cutter() backend.Cutter[T] {
	s.Helper()
	c, ok := s.Backend.(backend.Cutter[T])
	if !ok {
		s.Skipf("%s is not a backend.Cutter", s.Name())
	}
	return c
}

func (s *suite[T]) release() {
	for _, f := range s.owned {
		f()
	}
	s.owned = nil
}

func (s *suite[T]) newVec(blocks, rows, cols int) backend.Vec[T] {
	s.Helper()
	v, err := s.NewVec(blocks, rows, cols)
	s.noError(fmt.Sprintf("NewVec(%d, %d, %d)", blocks, rows, cols), err)
	s.owned = append(s.owned, func() { s.Free(v) })
	return v
}

func (s *suite[T]) newClock(lanes int) backend.Clock {
	s.Helper()
	c, err := s.NewClock(lanes)
	s.noError(fmt.Sprintf("NewClock(%d)", lanes), err)
	s.owned = append(s.owned, c.Close)
	return c
}

func (s *suite[T]) newTape(lanes, rows, cols, keep int) backend.Tape[T] {
	s.Helper()
	t, err := s.NewTape(lanes, rows, cols, keep)
	s.noError(fmt.Sprintf("NewTape(%d, %d, %d, %d)", lanes, rows, cols, keep), err)
	s.owned = append(s.owned, t.Close)
	return t
}

func (s *suite[T]) bind(sys backend.System[T]) backend.Field[T] {
	s.Helper()
	f, err := s.Bind(sys)
	s.noError("Bind", err)
	s.owned = append(s.owned, f.Close)
	return f
}

func (s *suite[T]) download(v backend.Vec[T]) []T {
	s.Helper()
	blocks, rows, cols := v.Shape()
	x := make([]T, blocks*rows*cols)
	s.noError("Download", s.Download(x, v))
	return x
}

// random is n numbers in ±[0.1, 1].
func (s *suite[T]) random(n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(math.Copysign(0.1+0.9*s.rng.Float64(), s.rng.Float64()-0.5))
	}
	return x
}

func fill[T backend.Float](n int, v float64) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(v)
	}
	return x
}

// operand is a Vec in use by a verb, with what it holds. If it has one block, that is
// the middle one of three, and its neighbours must not change.
type operand[T backend.Float] struct {
	s                  *suite[T]
	name               string
	v                  backend.Vec[T]
	blocks, rows, cols int
	host               []T // what v holds

	whole backend.Vec[T] // v with its neighbours, or nil
	guard []T            // what the neighbours hold
}

// operand makes an operand of random numbers.
func (s *suite[T]) operand(name string, blocks, rows, cols int) *operand[T] {
	s.Helper()
	o := &operand[T]{s: s, name: name, blocks: blocks, rows: rows, cols: cols}
	if blocks == 1 {
		n := rows * cols
		o.whole, o.guard = s.newVec(3, rows, cols), s.random(2*n)
		o.v = o.whole.Block(1)
		s.Upload(o.whole.Block(0), o.guard[:n])
		s.Upload(o.whole.Block(2), o.guard[n:])
	} else {
		o.v = s.newVec(blocks, rows, cols)
	}
	o.set(s.random(blocks * rows * cols))
	return o
}

// input makes an operand with the given contents.
func (s *suite[T]) input(name string, blocks, rows, cols int, host []T) *operand[T] {
	s.Helper()
	o := s.operand(name, blocks, rows, cols)
	o.set(host)
	return o
}

// output makes an operand with NaN in the rows that a verb is about to write, and
// random numbers in the others.
func (s *suite[T]) output(name string, blocks, rows, cols int, written func(row int) bool) *operand[T] {
	s.Helper()
	o := s.operand(name, blocks, rows, cols)
	o.blank(written)
	return o
}

func (o *operand[T]) blank(written func(row int) bool) {
	for i := range o.host {
		if written(o.row(i)) {
			o.host[i] = T(math.NaN())
		}
	}
	o.set(o.host)
}

func (o *operand[T]) row(i int) int { return i / o.cols % o.rows }

func (o *operand[T]) set(host []T) {
	o.host = append([]T(nil), host...)
	o.s.Upload(o.v, host)
}

// element is the element at index i, for people.
func (o *operand[T]) element(i int) string {
	return fmt.Sprintf("%s[%d,%d,%d] of %d×%d×%d %T", o.name, i/o.cols/o.rows, o.row(i), i%o.cols, o.blocks, o.rows, o.cols, o.host[i])
}

// read downloads the operand and checks its neighbours.
func (o *operand[T]) read(verb string) []T {
	o.s.Helper()
	if o.whole == nil {
		return o.s.download(o.v)
	}
	all, n := o.s.download(o.whole), len(o.host)
	for i, want := range o.guard {
		if got := all[i%n+i/n*2*n]; !sameBits(got, want) {
			o.s.fatalf("%s: wrote outside %s: element %d of block %d was %g and is %g", verb, o.name, i%n, i/n*2, want, got)
		}
	}
	return all[n : 2*n]
}

// unchanged checks that a verb left the operand alone.
func (o *operand[T]) unchanged(verb string) {
	o.s.Helper()
	o.expect(verb, func(int) bool { return false }, nil)
}

// expect checks what a verb wrote: want(i) in the rows written, nothing elsewhere.
func (o *operand[T]) expect(verb string, written func(row int) bool, want func(i int) num) {
	o.s.Helper()
	got := o.read(verb)
	bad := 0
	for i := range got {
		switch {
		case !written(o.row(i)):
			if !sameBits(got[i], o.host[i]) {
				if bad++; bad <= 3 {
					o.s.Errorf("%s: %s is not to be written, but was %g and is %g", verb, o.element(i), o.host[i], got[i])
				}
			}
		case !near(got[i], want(i)):
			if bad++; bad <= 3 {
				w := want(i)
				o.s.Errorf("%s: %s is %.17g, want %.17g ± %.2g", verb, o.element(i), got[i], w.v, 2*w.e)
			}
		}
	}
	if bad > 3 {
		o.s.Errorf("%s: %s: %d of %d elements are wrong", verb, o.name, bad, len(got))
	}
	copy(o.host, got)
}

func sameBits[T backend.Float](x, y T) bool {
	if isSingle[T]() {
		return math.Float32bits(float32(x)) == math.Float32bits(float32(y))
	}
	return math.Float64bits(float64(x)) == math.Float64bits(float64(y))
}

// equalBits checks that two results are the same to the last bit.
func (s *suite[T]) equalBits(verb string, got, want []T, why string) {
	s.Helper()
	for i := range want {
		if !sameBits(got[i], want[i]) {
			s.Errorf("%s: element %d of %d is %.17g, and %.17g %s", verb, i, len(want), got[i], want[i], why)
			return
		}
	}
}

// allRows selects every row.
func allRows(int) bool { return true }
