//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// warpSize is the threads of a warp, and of a block of kernels/ensemble.cuh.
const warpSize = 32

// residentWarps is the most blocks of a warp that a multiprocessor has at a time.
const residentWarps = 32

// ensembleArgs is EnsembleArgs in kernels/ensemble.cuh.
type ensembleArgs struct {
	clk clockView
	turn
	control
	theta, y, first, table, work driver.Ptr
	rel, abs                     float64
	everywhere                   int32
	slot                         [maxKeep]int8
}

// ensemble makes solves of one kind by the kernel of kernels/ensemble.cuh.
type ensemble[T backend.Float] struct {
	fused[T]
	f      *sourced[T]
	kernel *driver.Function
	args   ensembleArgs // but for the turn
}

// fuseEnsemble prepares solves of a compiled right-hand side, a thread a sample.
func fuseEnsemble[T backend.Float](f *sourced[T], p backend.Fusible[T], rows int) (backend.Fused[T], error) {
	const wanted, most = 4 << 10, 64 << 10 // bytes of a thread
	switch n := sizeOf[T]() * int64(f.dim) * int64(2+len(p.K)); {
	case n > wanted && p.Fusion == backend.FuseAuto:
		return nil, unfused("state and stages of a sample are %d bytes, more than %d; FuseAlways makes it nevertheless", n, wanted)
	case n > most:
		return nil, unfused("state and stages of a sample are %d bytes, more than the %d that a thread can have", n, most)
	}
	const attempts = 1 << 13
	s := &ensemble[T]{fused: fused[T]{p: p, b: f.b, limit: attempts}, f: f}
	var err error
	if s.kernel, err = s.b.compiledFunction(s.text(), "source_solve"); err != nil {
		return nil, fmt.Errorf("gpu: a solve of a %s in one launch: %w", f.of, err)
	}
	s.blocks = max(1, min(ceilDiv(int64(rows), warpSize), residentWarps*int64(s.b.sms)))
	if err := s.share(); err != nil {
		return nil, err
	}
	s.describe()
	s.launcher, s.field = s.ready, f
	return s, nil
}

// text writes what is compiled.
func (s *ensemble[T]) text() string {
	var t strings.Builder
	t.WriteString(functions[T](field.Source{Eval: s.f.source.Eval}, s.f.dim, s.f.params.cols))
	fmt.Fprintf(&t, "const int STAGES = %d, EXTRA = %d, POWERS = %d, ORDER = %d, HAND = %d;\nconst bool FSAL = %t, SECOND = %t;\n",
		len(s.p.B), len(s.p.K)-len(s.p.B), s.powers(), s.p.Order, s.handed(), s.p.FSAL, s.second())
	constants(&t, "METHOD", s.method())
	constants(&t, "BETA", s.p.Control.Beta[:])
	t.WriteString("#include \"ensemble.cuh\"\n")
	return t.String()
}

// constants writes an array of numbers that the compiler knows.
func constants(t *strings.Builder, name string, x []float64) {
	fmt.Fprintf(t, "constexpr double %s[] = {", name)
	for i, v := range x {
		if i > 0 {
			t.WriteByte(',')
		}
		t.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	}
	t.WriteString("};\n")
}

// describe fills in what stays the same from solve to solve.
func (s *ensemble[T]) describe() {
	p, b := &s.p, s.b
	s.args = ensembleArgs{
		clk: b.clock(p.Clock).view, control: controlOf(p.Control),
		theta: s.f.params.ptr, y: b.vec(p.Y).ptr, first: b.vec(p.K[0]).ptr, work: s.work,
		rel: p.Tol.Rel, abs: p.Tol.Abs,
	}
	a := &s.args
	if p.Extra == backend.Accepted {
		a.everywhere = 1
	}
	if p.Table != nil {
		a.table = b.vec(p.Table).ptr
	}
	for i := range a.slot {
		a.slot[i] = -1
	}
	for i := range p.Keep {
		a.slot[s.kept(i)] = int8(i)
	}
}

// ready returns what enqueues a launch.
func (s *ensemble[T]) ready([]backend.Span) (func(turn), error) {
	a := s.args
	return func(t turn) {
		a.turn = t
		launchFunction(s.b, s.kernel, s.blocks, warpSize, 0, &a)
	}, nil
}
