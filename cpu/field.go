package cpu

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// kernel is the arithmetic of one kind of right-hand side, for one worker. Slices are
// row-major [B, D]; only the rows in r are touched. Inside of a controlKernel the
// input z, v and az may be of another width than f.
type kernel[T backend.Float] interface {
	eval(dz, z []T, r *rows)
	vjp(o *vjp[T], r *rows)
	jvp(o *jvp[T], r *rows)
	// canVJP and canJVP return nil if the product exists, else the remedy.
	canVJP() error
	canJVP() error
	// more makes a kernel for another worker.
	more() kernel[T]
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
	index []int32
	t, h  []float64
	// add: results are added to the outputs, as those of a sum are; else they are set. g
	// is always added to.
	add bool
}

// bound is a System bound to this backend.
type bound[T backend.Float] struct {
	b       *Backend[T]
	dim     int
	params  *vec[T]
	kernels []kernel[T] // one a worker
	block   int         // rows that a kernel takes at a time
	work    int         // about the operations of an evaluation of a row
	last    product[T]
	samples []int // of SetSamples
}

// Bind prepares an *mlp.Model, a field.Func, a *control.Field, a *field.Sum of these or a
// *field.Flow.
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
	f.kernels = []kernel[T]{b.newKernel(sys, f.params.d, f.params.mem)}
	f.block = tileRows(f.kernels[0])
	f.work = max(2*len(f.params.d), 100) // an MLP uses every parameter once; of others nothing is known
	b.bytes.Add(f.kernels[0].bytes())
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
	case *field.Flow[T]:
		if err := checkFlow(s); err != nil {
			return err
		}
	case field.Func[T]:
		if in, out := s.Dim(), outDim(s); in != out {
			return fmt.Errorf("%T from %d to %d components is no right-hand side by itself; control.New gives it the signal that it reads", s, in, out)
		}
	case *control.Field[T]:
	default:
		return fmt.Errorf("%T: %w; give an *mlp.Model, a field.Func, a *control.Field, a *field.Sum or a *field.Flow", sys, backend.ErrUnsupported)
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
		return newMLPKernel(s, theta, mem)
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
	case *field.Flow[T]:
		return newFlowKernel(b, s, b.newKernel(s.Inner(), theta, mem))
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
	if samples != nil {
		f.samples = append(f.samples[:0], samples...)
		samples = f.samples
	}
	for _, k := range f.kernels {
		if k, ok := k.(sampled); ok {
			k.setSamples(samples)
		}
	}
}

// sampled is a kernel that tells rows apart.
type sampled interface{ setSamples([]int) }

func (f *bound[T]) Close() {
	if f.kernels != nil && !f.b.closed {
		for _, k := range f.kernels {
			f.b.bytes.Add(-k.bytes())
		}
		f.b.Free(f.params)
	}
	f.kernels = nil
}

// tileRows is the number of rows that k makes the most of at a time.
func tileRows[T backend.Float](k kernel[T]) int {
	if t, ok := k.(interface{ tileRows() int }); ok {
		return t.tileRows()
	}
	return 1
}

// open says whether a call may run, and latches the reason if not.
func (f *bound[T]) open() bool {
	if !f.b.live() {
		return false
	}
	if f.kernels == nil {
		f.b.latch(fmt.Errorf("cpu: field: %w: bind the system again", backend.ErrClosed))
		return false
	}
	return true
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

func (k *sumKernel[T]) more() kernel[T] {
	x := &sumKernel[T]{size: k.size}
	for _, p := range k.parts {
		x.parts = append(x.parts, p.more())
	}
	return x
}

func (k *sumKernel[T]) tileRows() (n int) {
	for _, p := range k.parts {
		n = max(n, tileRows(p))
	}
	return n
}

func (k *sumKernel[T]) setSamples(samples []int) {
	for _, p := range k.parts {
		if q, ok := p.(sampled); ok {
			q.setSamples(samples)
		}
	}
}

func (k *sumKernel[T]) eval(dz, z []T, r *rows) {
	add := r.add
	for _, p := range k.parts {
		p.eval(dz, z, r)
		r.add = true
	}
	r.add = add
}

func (k *sumKernel[T]) vjp(o *vjp[T], r *rows) {
	k.back = *o
	g, add := o.g, r.add
	for i, p := range k.parts {
		if g != nil {
			k.back.g, g = g[:k.size[i]], g[k.size[i]:]
		}
		p.vjp(&k.back, r)
		r.add = true
	}
	r.add = add
}

func (k *sumKernel[T]) jvp(o *jvp[T], r *rows) {
	k.fwd = *o
	w, add := o.w, r.add
	for i, p := range k.parts {
		if w != nil {
			k.fwd.w, w = w[:k.size[i]], w[k.size[i]:]
		}
		p.jvp(&k.fwd, r)
		r.add = true
	}
	r.add = add
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
func row[T backend.Float, I int | int32](x []T, i I, d int) []T {
	n := int(i) * d
	return x[n : n+d : n+d]
}

// put sets dst to alpha·src, or adds it.
func put[T backend.Float](dst []T, alpha T, src []T, add bool) {
	if add {
		addTo(dst, alpha, src)
		return
	}
	for i, v := range src {
		dst[i] = alpha * v
	}
}

// begin zeroes the rows of d that will be added to, if they are to be set.
func begin[T backend.Float](d []T, cols int, r *rows) {
	if d == nil || r.add {
		return
	}
	for _, i := range r.index {
		clear(row(d, i, cols))
	}
}

func newFuncKernel[T backend.Float](f field.Func[T], theta []T) *funcKernel[T] {
	k := &funcKernel[T]{f: f, theta: theta, in: f.Dim(), out: outDim(f), grad: make([]T, len(theta)), zeros: make([]T, len(theta))}
	k.dz, k.az = make([]T, k.out), make([]T, k.in)
	k.back, _ = f.(field.VJPer[T])
	k.fwd, _ = f.(field.JVPer[T])
	return k
}

func (k *funcKernel[T]) more() kernel[T] { return newFuncKernel(k.f, k.theta) }

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
		put(row(dz, i, k.out), 1, k.dz, r.add)
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
			put(row(o.az, i, k.in), o.alpha, k.az, r.add)
		}
		if o.at != nil {
			if !r.add {
				o.at[i] = 0
			}
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
		put(row(o.jv, i, k.out), 1, k.dz, r.add)
	}
}
