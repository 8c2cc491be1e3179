//go:build cuda && cgo && linux && amd64

package gpu

import (
	"fmt"
	"strings"
	"sync"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/nvrtc"
	"github.com/seed-5f5774c8/neuralode/kernels"
)

// sourced is a right-hand side that was compiled from its source. A thread owns a sample.
type sourced[T backend.Float] struct {
	core[T]
	eval, vjp, sum, jvp *driver.Function // nil if there is no such product
	of                  string           // its type, for errors
	source              field.Source
}

// functions writes a right-hand side of element type T as functions that a thread calls.
func functions[T backend.Float](s field.Source, dim, params int) string {
	var t strings.Builder
	real := "double"
	if sizeOf[T]() == 4 {
		real = "float"
	}
	fmt.Fprintf(&t, "typedef %s real;\nconst int DIM = %d, PARAMS = %d;\n", real, dim, params)
	function := func(name, args, body string) {
		if body == "" {
			return
		}
		// #line makes the compiler speak of lines of the body.
		fmt.Fprintf(&t, "#define RHS_%[1]s\nstatic __device__ __forceinline__ void rhs_%[2]s(const real t, const real *z, const real *theta, %[3]s) {\n#line 1 \"Source.%[4]s\"\n%[5]s\n}\n",
			strings.ToUpper(name), strings.ToLower(name), args, name, body)
	}
	function("Eval", "real *dz", s.Eval)
	function("VJP", "const real *a, real *az, real &at, real *atheta", s.VJP)
	function("JVP", "const real *v, const real *w, real *jv", s.JVP)
	return t.String()
}

// compiled remembers what NVRTC made of a text for a target: compiling takes a good part
// of a second, and the same goes in again whenever a solver is made.
var compiled sync.Map // of sourceKey to []byte

type sourceKey struct {
	text       string
	capability int
	cuda       int
}

// compile makes PTX of a text for this device.
func (b *Backend[T]) compile(text string) ([]byte, error) {
	info := b.d.Info()
	key := sourceKey{text, info.Capability(), info.CUDA}
	if ptx, ok := compiled.Load(key); ok {
		return ptx.([]byte), nil
	}
	c, err := nvrtc.Open(info.CUDA)
	if err != nil {
		return nil, err
	}
	ptx, err := c.PTX(text, kernels.Headers(), info.Capability())
	if err != nil {
		return nil, err
	}
	compiled.Store(key, ptx)
	return ptx, nil
}

// module loads what a text is compiled to.
func (b *Backend[T]) module(text string) (*driver.Module, error) {
	if m := b.modules[text]; m != nil {
		return m, nil
	}
	ptx, err := b.compile(text)
	if err != nil {
		return nil, err
	}
	m, err := b.d.Load("source", ptx)
	if err == nil {
		b.modules[text] = m
	}
	return m, err
}

// compiledFunction is a kernel of what a text is compiled to.
func (b *Backend[T]) compiledFunction(text, name string) (*driver.Function, error) {
	if f := b.functions[text]; f != nil {
		return f, nil
	}
	m, err := b.module(text)
	if err != nil {
		return nil, err
	}
	f, err := m.Function(name)
	if err == nil {
		b.functions[text] = f
	}
	return f, err
}

// bindSource compiles s, unless it was before.
func (b *Backend[T]) bindSource(s field.Sourcer[T]) (backend.Field[T], error) {
	if v, ok := s.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	if got, want := len(s.Params()), s.NumParams(); got != want {
		return nil, fmt.Errorf("gpu: %T says that it has %d parameters, but its Params has length %d", s, want, got)
	}
	if s.Dim() < 1 {
		return nil, fmt.Errorf("gpu: %T has dimension %d; a state has at least one component", s, s.Dim())
	}
	source := s.Source()
	m, err := b.module(functions[T](source, s.Dim(), s.NumParams()) + "#include \"source.cuh\"\n")
	if err != nil {
		return nil, fmt.Errorf("gpu: Bind of a %T: %w", s, err)
	}
	f := &sourced[T]{of: fmt.Sprintf("%T", s), source: source}
	for _, x := range []struct {
		to   **driver.Function
		name string
		has  bool
	}{
		{&f.eval, "source_eval", true}, {&f.vjp, "source_vjp", source.VJP != ""},
		{&f.sum, "source_sum", source.VJP != ""}, {&f.jvp, "source_jvp", source.JVP != ""},
	} {
		if x.has {
			if *x.to, err = m.Function(x.name); err != nil {
				return nil, err
			}
		}
	}
	if f.core, err = newCore[T](b, s); err != nil {
		return nil, err
	}
	if err := b.takeErr(); err != nil { // or θ might not be there
		f.Close()
		return nil, err
	}
	return f, nil
}

// sourceArgs is SourceArgs in kernels/source.cuh.
type sourceArgs struct {
	clk                           clockView
	c, weight                     float64
	theta, z, a, v, w             driver.Ptr
	dz, az, at, jv                driver.Ptr
	partial, g                    driver.Ptr
	alpha                         float64
	rows, selects, timesH, blocks int32
}

// args are those of a verb.
func (f *sourced[T]) args(at backend.At, rows int) sourceArgs {
	c := f.b.clock(at.Clock)
	if c.lanes != 1 && c.lanes != rows {
		panic("gpu: as many rows as lanes are needed")
	}
	return sourceArgs{
		clk: c.view, c: at.C, theta: f.params.ptr, rows: int32(rows), selects: selection(at.Rows),
		blocks: int32(ceilDiv(int64(rows), blockSize)),
	}
}

// Eval sets dz = f(t, z; θ).
func (f *sourced[T]) Eval(dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
	if !f.open() {
		return
	}
	_, rows, _ := z.Shape()
	a := f.args(at, rows)
	a.z, a.dz = f.operand(z, rows, f.dim), f.operand(dz, rows, f.dim)
	launchFunction(f.b, f.eval, int64(a.blocks), blockSize, 0, &a)
}

// VJP computes vector-Jacobian products.
func (f *sourced[T]) VJP(at backend.At, v backend.VJP[T]) {
	if !f.open() {
		return
	}
	_, rows, _ := v.Z.Shape()
	o := f.products(&v, rows)
	a := f.args(at, rows)
	a.z, a.a, a.dz, a.az, a.at, a.g = o.z, o.a, o.dz, o.az, o.at, o.g
	a.alpha, a.weight = v.Alpha, v.W
	if v.TimesH {
		a.timesH = 1
	}
	switch {
	case o.az == 0 && o.at == 0 && v.G == nil:
		launchFunction(f.b, f.eval, int64(a.blocks), blockSize, 0, &a)
		return
	case v.A == nil:
		panic("gpu: VJP without a cotangent")
	case f.vjp == nil:
		f.lacks("VJP")
		return
	}
	params := int64(f.params.cols)
	if v.G != nil && params > 0 {
		n := 8 * params * int64(a.blocks)
		scratch, ok := f.reserve(padded(n))
		if !ok {
			return
		}
		a.partial = scratch.take(n)
	}
	launchFunction(f.b, f.vjp, int64(a.blocks), blockSize, 0, &a)
	if a.partial != 0 {
		launchFunction(f.b, f.sum, params, blockSize, 0, &a)
	}
}

// JVP computes Jacobian-vector products.
func (f *sourced[T]) JVP(at backend.At, j backend.JVP[T]) {
	if !f.open() {
		return
	}
	if f.jvp == nil {
		f.lacks("JVP")
		return
	}
	_, rows, _ := j.Z.Shape()
	o := f.tangents(&j, rows)
	a := f.args(at, rows)
	a.z, a.v, a.w, a.dz, a.jv = o.z, o.v, o.w, o.dz, o.jv
	launchFunction(f.b, f.jvp, int64(a.blocks), blockSize, 0, &a)
}

// lacks latches that a product is missing.
func (f *sourced[T]) lacks(product string) {
	f.b.fail(fmt.Errorf("gpu: the source of %s has no %s: %w: fill in field.Source.%s, or write the equations for expr.Parse, which derives it", f.of, product, backend.ErrUnsupported, product))
}
