//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"strings"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// walkArgs is WalkArgs in kernels/ensemble_adjoint.cuh.
type walkArgs struct {
	clk                                             clockView
	tape                                            tapeView
	theta, cotangents, lambda, carry, partial, skip driver.Ptr
	rows, outputs, begins, _                        int32
}

// walkBack goes back over all steps by the kernel of kernels/ensemble_adjoint.cuh.
func (f *sourced[T]) walkBack(w *backend.Walk[T]) bool {
	const most = 4 << 10 // bytes of a thread
	params := f.params.cols
	if f.vjp == nil || sizeOf[T]()*int64((4+len(w.A))*f.dim+3*params) > most {
		return false
	}
	b := f.b
	c, t := b.walk(w)
	back, err := b.compiledFunction(f.backText(w), "source_back")
	if err != nil {
		b.fail(fmt.Errorf("gpu: a gradient of a %s in one launch: %w", f.of, err))
		return true
	}
	a := walkArgs{
		clk: c.view, tape: t.view, theta: f.params.ptr, rows: int32(t.rows),
		lambda: f.operand(w.Lambda, t.rows, f.dim), carry: f.operand(w.Carry, t.rows, f.dim),
	}
	if w.Begin {
		a.begins = 1
	}
	if w.Cotangents != nil {
		out := b.vec(w.Cotangents)
		a.cotangents, a.outputs = out.ptr, c.outputs(out, b.vec(w.Lambda))
	}
	words, size, ok := b.flags(w.Skip)
	if !ok {
		return true
	}
	defer b.release(words, size)
	a.skip = words
	blocks := min(ceilDiv(int64(t.rows), warpSize), residentWarps*int64(b.sms))
	var g driver.Ptr
	if w.Theta != nil {
		if w.Begin {
			b.Zero(w.Theta)
		}
		g = f.operand(w.Theta, 1, params)
		n := 8 * int64(params) * blocks
		scratch, ok := f.reserve(padded(n))
		if !ok {
			return true
		}
		a.partial = scratch.take(n)
	}
	launchFunction(b, back, blocks, warpSize, 0, &a)
	if g != 0 {
		launchFunction(b, f.sum, int64(params), blockSize, 0, &sourceArgs{partial: a.partial, g: g, blocks: int32(blocks)})
	}
	return true
}

// backText writes what is compiled.
func (f *sourced[T]) backText(w *backend.Walk[T]) string {
	var t strings.Builder
	t.WriteString(functions[T](field.Source{Eval: f.source.Eval, VJP: f.source.VJP}, f.dim, f.params.cols))
	n, powers := len(w.A), degree(w.Dense)
	fmt.Fprintf(&t, "const int STAGES = %d, ALL = %d, POWERS = %d, END = %d;\nconst bool KEPT = %t;\n", len(w.B), n, powers, w.End, w.Stages)
	m := make([]float64, n*(n+1)+len(w.B)+n*powers)
	for i, row := range w.A {
		copy(m[i*n:], row)
	}
	copy(m[n*n:], w.C)
	copy(m[n*(n+1):], w.B)
	for i, p := range w.Dense {
		copy(m[n*(n+1)+len(w.B)+i*powers:], p)
	}
	constants(&t, "METHOD", m)
	t.WriteString("#include \"ensemble_adjoint.cuh\"\n")
	return t.String()
}
