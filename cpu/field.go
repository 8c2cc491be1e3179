package cpu

import (
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// kernel is the arithmetic of one kind of right-hand side. Slices are row-major
// [B, D]; only the rows in r are touched, and results are ADDED to the outputs,
// so that a sum of right-hand sides is one call after another. Inside of a
// controlKernel the input z, v and az may be of another width than f.
type kernel[T backend.Float] interface {
	eval(dz, z []T, r *rows)
	vjp(o *vjp[T], r *rows)
	jvp(o *jvp[T], r *rows)
	// canVJP and canJVP return nil if the product exists, else the remedy.
	canVJP() error
	canJVP() error
	bytes() int64
}

// vjp and jvp are backend.VJP and backend.JVP on host slices; nil slices are skipped.
type vjp[T backend.Float] struct {
	z, a, dz, az, at, g []T
	alpha               T
	// weight of each selected row in g, parallel to rows.index
	weight []T
}

type jvp[T backend.Float] struct{ z, v, w, dz, jv []T }

// rows are the selected rows of a call with the instant of each.
type rows struct {
	index []int
	t, h  []float64
}

// bound is a System bound to this backend.
type bound[T backend.Float] struct {
	b      *Backend[T]
	dim    int
	params *vec[T]
	k      kernel[T]
	sel    rows
	weight []T
	// The operands of a call: kept, because what crosses an interface by pointer
	// would be garbage after each.
	back vjp[T]
	fwd  jvp[T]
	dot  vjpTangent[T]
}

// Bind prepares an *mlp.Model, a field.Func, a *control.Field or a *field.Sum of these.
func (b *Backend[T]) Bind(sys backend.System[T]) (backend.Field[T], error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if err := check(sys); err != nil {
		return nil, fmt.Errorf("cpu: Bind: %w", err)
	}
	v, err := b.NewVec(1, 1, sys.NumParams())
	if err != nil {
		return nil, err
	}
	f := &bound[T]{b: b, dim: sys.Dim(), params: b.out(v)}
	copy(f.params.d, sys.Params())
	f.k = b.newKernel(sys, f.params.d, f.params.mem)
	b.bytes += f.k.bytes()
	return f, nil
}

// check returns why sys cannot be run, if it cannot.
func check[T backend.Float](sys backend.System[T]) error {
	if v, ok := sys.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	switch s := sys.(type) {
	case *mlp.Model[T]:
		if in, out := s.Dim(), s.OutDim(); in != out {
			return fmt.Errorf("an MLP from %d to %d components is no right-hand side; give it as many outputs as inputs", in, out)
		}
	case *field.Sum[T]:
		for i, p := range s.Parts() {
			if err := check(p); err != nil {
				return fmt.Errorf("part %d of a sum: %w", i, err)
			}
		}
	case field.Func[T]:
		if in, out := s.Dim(), outDim(s); in != out {
			return fmt.Errorf("%T from %d to %d components is no right-hand side by itself; control.New gives it the signal that it reads", s, in, out)
		}
	case *control.Field[T]:
	default:
		return fmt.Errorf("%T: %w; give an *mlp.Model, a field.Func, a *control.Field or a *field.Sum", sys, backend.ErrUnsupported)
	}
	if got, want := len(sys.Params()), sys.NumParams(); got != want {
		return fmt.Errorf("%T says that it has %d parameters, but its Params has length %d", sys, want, got)
	}
	if sys.Dim() < 1 {
		return fmt.Errorf("%T has dimension %d; a state has at least one component", sys, sys.Dim())
	}
	return nil
}

// newKernel makes the arithmetic of sys, checked, over theta, which mem owns.
func (b *Backend[T]) newKernel(sys backend.System[T], theta []T, mem *memory[T]) kernel[T] {
	switch s := sys.(type) {
	case *mlp.Model[T]:
		return newMLPKernel(&b.blas, s, theta, mem)
	case *field.Sum[T]:
		k := &sumKernel[T]{}
		for _, p := range s.Parts() {
			n := p.NumParams()
			k.parts, k.size = append(k.parts, b.newKernel(p, theta[:n:n], mem)), append(k.size, n)
			theta = theta[n:]
		}
		return k
	case *control.Field[T]:
		return newControlKernel(b, s, theta, mem)
	}
	return newFuncKernel(sys.(field.Func[T]), theta)
}

// outDim is the number of components that f computes.
func outDim[T backend.Float](f field.Func[T]) int {
	if m, ok := f.(control.Map[T]); ok {
		return m.OutDim()
	}
	return f.Dim()
}

func (f *bound[T]) Dim() int               { return f.dim }
func (f *bound[T]) NumParams() int         { return len(f.params.d) }
func (f *bound[T]) Params() backend.Vec[T] { return f.params }

// SetSamples says which samples the rows are.
func (f *bound[T]) SetSamples(samples []int) {
	if k, ok := f.k.(interface{ setSamples([]int) }); ok {
		k.setSamples(slices.Clone(samples))
	}
}

func (f *bound[T]) Close() {
	if f.k != nil && !f.b.closed {
		f.b.bytes -= f.k.bytes()
		f.b.Free(f.params)
	}
	f.k = nil
}

// open says whether a call may run, and latches the reason if not.
func (f *bound[T]) open() bool {
	if !f.b.live() {
		return false
	}
	if f.k == nil {
		f.b.latch(fmt.Errorf("cpu: field: %w: bind the system again", backend.ErrClosed))
		return false
	}
	return true
}

// state is the host memory of a 1×B×cols operand.
func (f *bound[T]) state(v backend.Vec[T], nrows, cols int, write bool) []T {
	if v == nil {
		return nil
	}
	x := f.b.vec(v)
	if write {
		x.mem.version++
	}
	if x.blocks != 1 || x.cols != cols || x.rows != nrows {
		panic("cpu: operand of another shape than the field's")
	}
	return x.d
}

// pick collects the selected rows and counts the evaluation of their lanes.
func (f *bound[T]) pick(at backend.At, nrows int) *rows {
	c := f.b.clock(at.Clock)
	if len(c.lanes) != 1 && len(c.lanes) != nrows {
		panic("cpu: as many rows as lanes are needed")
	}
	s := &f.sel
	s.index, s.t, s.h = s.index[:0], s.t[:0], s.h[:0]
	for i := range c.lanes {
		l := &c.lanes[i]
		if !l.selected(at.Rows) {
			continue
		}
		l.evals++
		t, h := l.instant(at.Rows, at.C), l.size(at.Rows)
		lo, hi := i, i+1
		if len(c.lanes) == 1 {
			lo, hi = 0, nrows
		}
		for r := lo; r < hi; r++ {
			s.index = append(s.index, r)
			s.t = append(s.t, t)
			s.h = append(s.h, h)
		}
	}
	return s
}

// clearRows zeroes the selected rows of d, if there is one.
func clearRows[T backend.Float](d []T, cols int, r *rows) {
	if d == nil {
		return
	}
	for _, i := range r.index {
		clear(d[i*cols : (i+1)*cols])
	}
}

func (f *bound[T]) Eval(dz backend.Vec[T], at backend.At, z backend.Vec[T]) {
	if !f.open() {
		return
	}
	_, nrows, _ := z.Shape()
	Z, DZ := f.state(z, nrows, f.dim, false), f.state(dz, nrows, f.dim, true)
	r := f.pick(at, nrows)
	if len(r.index) == 0 {
		return
	}
	clearRows(DZ, f.dim, r)
	f.k.eval(DZ, Z, r)
}

func (f *bound[T]) VJP(at backend.At, v backend.VJP[T]) {
	if !f.open() {
		return
	}
	if err := f.k.canVJP(); err != nil {
		f.b.latch(err)
		return
	}
	_, nrows, _ := v.Z.Shape()
	o := &f.back
	*o = vjp[T]{
		z: f.state(v.Z, nrows, f.dim, false), a: f.state(v.A, nrows, f.dim, false),
		dz: f.state(v.DZ, nrows, f.dim, true), az: f.state(v.AZ, nrows, f.dim, true),
		at:    f.state(v.AT, nrows, 1, true),
		alpha: T(v.Alpha),
	}
	if v.G != nil {
		o.g = f.state(v.G, 1, len(f.params.d), true)
	}
	r := f.pick(at, nrows)
	if len(r.index) == 0 {
		return
	}
	if v.G != nil {
		f.weight = f.weight[:0]
		for i := range r.index {
			w := v.W
			if v.TimesH {
				w *= r.h[i]
			}
			f.weight = append(f.weight, T(w))
		}
		o.weight = f.weight
	}
	clearRows(o.dz, f.dim, r)
	clearRows(o.az, f.dim, r)
	clearRows(o.at, 1, r)
	f.k.vjp(o, r)
}

func (f *bound[T]) JVP(at backend.At, j backend.JVP[T]) {
	if !f.open() {
		return
	}
	if err := f.k.canJVP(); err != nil {
		f.b.latch(err)
		return
	}
	_, nrows, _ := j.Z.Shape()
	o := &f.fwd
	*o = jvp[T]{
		z: f.state(j.Z, nrows, f.dim, false), v: f.state(j.V, nrows, f.dim, false),
		dz: f.state(j.DZ, nrows, f.dim, true), jv: f.state(j.JV, nrows, f.dim, true),
	}
	if j.W != nil {
		o.w = f.state(j.W, 1, len(f.params.d), false)
	}
	r := f.pick(at, nrows)
	if len(r.index) == 0 {
		return
	}
	clearRows(o.dz, f.dim, r)
	clearRows(o.jv, f.dim, r)
	f.k.jvp(o, r)
}

// sumKernel adds its parts; θ is theirs, one after another.
type sumKernel[T backend.Float] struct {
	parts []kernel[T]
	size  []int // parameters of each part
	// the operands of one part
	back vjp[T]
	fwd  jvp[T]
	dot  vjpTangent[T]
}

func (k *sumKernel[T]) setSamples(samples []int) {
	for _, p := range k.parts {
		if q, ok := p.(interface{ setSamples([]int) }); ok {
			q.setSamples(samples)
		}
	}
}

func (k *sumKernel[T]) eval(dz, z []T, r *rows) {
	for _, p := range k.parts {
		p.eval(dz, z, r)
	}
}

func (k *sumKernel[T]) vjp(o *vjp[T], r *rows) {
	k.back = *o
	g := o.g
	for i, p := range k.parts {
		if g != nil {
			k.back.g, g = g[:k.size[i]], g[k.size[i]:]
		}
		p.vjp(&k.back, r)
	}
}

func (k *sumKernel[T]) jvp(o *jvp[T], r *rows) {
	k.fwd = *o
	w := o.w
	for i, p := range k.parts {
		if w != nil {
			k.fwd.w, w = w[:k.size[i]], w[k.size[i]:]
		}
		p.jvp(&k.fwd, r)
	}
}

func (k *sumKernel[T]) canVJP() error { return k.each(kernel[T].canVJP) }
func (k *sumKernel[T]) canJVP() error { return k.each(kernel[T].canJVP) }

func (k *sumKernel[T]) each(can func(kernel[T]) error) error {
	for _, p := range k.parts {
		if err := can(p); err != nil {
			return err
		}
	}
	return nil
}

func (k *sumKernel[T]) bytes() (n int64) {
	for _, p := range k.parts {
		n += p.bytes()
	}
	return n
}

// funcKernel evaluates a right-hand side written in Go, row by row.
type funcKernel[T backend.Float] struct {
	f     field.Func[T]
	back  field.VJPer[T]
	fwd   field.JVPer[T]
	theta []T
	// numbers of components that it reads and computes
	in, out int
	// one row of results before they are added
	dz, az []T
	grad   []T
	zeros  []T
}

// row is row i of x, [B, d].
func row[T backend.Float](x []T, i, d int) []T { return x[i*d : (i+1)*d : (i+1)*d] }

func newFuncKernel[T backend.Float](f field.Func[T], theta []T) *funcKernel[T] {
	k := &funcKernel[T]{f: f, theta: theta, in: f.Dim(), out: outDim(f), grad: make([]T, len(theta)), zeros: make([]T, len(theta))}
	k.dz, k.az = make([]T, k.out), make([]T, k.in)
	k.back, _ = f.(field.VJPer[T])
	k.fwd, _ = f.(field.JVPer[T])
	return k
}

func (k *funcKernel[T]) canVJP() error {
	if ok, has := k.f.(interface{ HasVJP() bool }); k.back == nil || has && !ok.HasVJP() {
		return fmt.Errorf("cpu: %T has no VJP: %w: implement field.VJPer (Custom.BackF, Func.BackF), or write f over field.Number (field.New, control.NewFunc)", k.f, backend.ErrUnsupported)
	}
	return nil
}

func (k *funcKernel[T]) canJVP() error {
	if ok, has := k.f.(interface{ HasJVP() bool }); k.fwd == nil || has && !ok.HasJVP() {
		return fmt.Errorf("cpu: %T has no JVP: %w: implement field.JVPer (Custom.ForwardF, Func.ForwardF), or write f over field.Number (field.New, control.NewFunc)", k.f, backend.ErrUnsupported)
	}
	return nil
}

func (k *funcKernel[T]) bytes() int64 {
	return int64(len(k.dz)+len(k.az)+len(k.grad)+len(k.zeros)) * sizeOf[T]()
}

func (k *funcKernel[T]) eval(dz, z []T, r *rows) {
	for n, i := range r.index {
		k.f.Eval(r.t[n], row(z, i, k.in), k.theta, k.dz)
		addTo(row(dz, i, k.out), 1, k.dz)
	}
}

func (k *funcKernel[T]) vjp(o *vjp[T], r *rows) {
	if o.dz != nil {
		k.eval(o.dz, o.z, r)
	}
	if o.az == nil && o.at == nil && o.g == nil {
		return
	}
	for n, i := range r.index {
		z, a := row(o.z, i, k.in), row(o.a, i, k.out)
		var grad []T
		if o.g != nil {
			grad = k.grad
			clear(grad)
		}
		at := k.back.VJP(r.t[n], z, k.theta, a, k.az, grad)
		if o.az != nil {
			addTo(row(o.az, i, k.in), o.alpha, k.az)
		}
		if o.at != nil {
			o.at[i] += T(float64(o.alpha) * at)
		}
		if o.g != nil {
			addTo(o.g, o.weight[n], grad)
		}
	}
}

func (k *funcKernel[T]) jvp(o *jvp[T], r *rows) {
	if o.dz != nil {
		k.eval(o.dz, o.z, r)
	}
	w := o.w
	if w == nil {
		w = k.zeros
	}
	for n, i := range r.index {
		k.fwd.JVP(r.t[n], row(o.z, i, k.in), k.theta, row(o.v, i, k.in), w, k.dz)
		addTo(row(o.jv, i, k.out), 1, k.dz)
	}
}
