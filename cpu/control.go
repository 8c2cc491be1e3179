package cpu

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
)

// controlRows is how many samples are put together at a time.
const controlRows = 64

// controlKernel evaluates a right-hand side that reads a signal. A tile of rows at a
// time, it puts x = [z, u] together, or x = z for a CDE, has the function's own kernel
// work on that, and takes the results apart.
type controlKernel[T backend.Float] struct {
	b      *Backend[T] // latches what goes wrong
	f      *control.Field[T]
	theta  []T
	inner  kernel[T]
	signal *control.Signal[T]
	form   control.Form
	dim    int // of the state
	in     int // of x
	out    int // of the function
	c      int // channels of the signal
	// samples that the rows are, nil where they are as they come
	samples []int

	// Where the signal's values are learned:
	values  []T // at the knots, the end of θ; else nil
	mem     *memory[T]
	packed  uint64             // version of θ that the signal holds
	tangent *control.Signal[T] // its tangent
	pull    *control.Pullback[T]

	// of a tile
	local       rows
	x, v, ax    []T // input, its tangent and its cotangent
	y, ay       []T // output, and its cotangent or tangent
	u, du, ddu  []T // of the signal
	adu         []T // cotangent of du, of a CDE
	at          []T
	back        vjp[T]
	fwd         jvp[T]
	numInner    int // parameters of the function
	scratchSize int64
}

func newControlKernel[T backend.Float](b *Backend[T], f *control.Field[T], theta []T, mem *memory[T]) *controlKernel[T] {
	inner, set, signal := f.Inner(), f.Settings(), f.Signal().Clone()
	k := &controlKernel[T]{
		b: b, f: f, theta: theta, signal: signal, form: set.Form, mem: mem,
		dim: f.Dim(), in: inner.Dim(), out: inner.OutDim(), c: signal.Channels(), numInner: inner.NumParams(),
	}
	k.inner = b.newKernel(inner, theta[:k.numInner:k.numInner], mem)
	for n := range int32(controlRows) {
		k.local.index = append(k.local.index, n)
	}
	if set.Learn {
		k.values, k.tangent, k.pull = theta[k.numInner:], signal.Clone(), signal.Pullback()
	}
	for _, s := range []struct {
		of    *[]T
		width int
	}{
		{&k.x, k.in}, {&k.v, k.in}, {&k.ax, k.in}, {&k.y, k.out}, {&k.ay, k.out},
		{&k.u, k.c}, {&k.du, k.c}, {&k.ddu, k.c}, {&k.adu, k.c}, {&k.at, 1},
	} {
		*s.of = make([]T, controlRows*s.width)
		k.scratchSize += int64(controlRows*s.width) * sizeOf[T]()
	}
	return k
}

func (k *controlKernel[T]) more() kernel[T] {
	x := newControlKernel(k.b, k.f, k.theta, k.mem)
	x.setSamples(k.samples)
	return x
}

// sample is which a row is.
func (k *controlKernel[T]) sample(row int32) int {
	if k.samples == nil {
		return int(row)
	}
	if int(row) >= len(k.samples) {
		panic("cpu: SetSamples named fewer samples than there are rows")
	}
	return k.samples[row]
}

func (k *controlKernel[T]) setSamples(samples []int) { k.samples = samples }

func (k *controlKernel[T]) canVJP() error { return k.inner.canVJP() }
func (k *controlKernel[T]) canJVP() error { return k.inner.canJVP() }

func (k *controlKernel[T]) bytes() int64 {
	n := k.scratchSize + k.inner.bytes() + k.signal.Bytes()
	if k.values != nil {
		n += k.tangent.Bytes() + k.pull.Bytes()
	}
	return n
}

// pack takes learned values over into the signal, of which every worker has its own.
func (k *controlKernel[T]) pack() {
	if k.values != nil && k.packed != k.mem.version {
		k.signal.SetValues(k.values)
		k.packed = k.mem.version
	}
}

// gather reads the signal for a tile and puts x together. It returns the tile as the
// inner kernel sees it.
func (k *controlKernel[T]) gather(z []T, tile rows) *rows {
	for n, i := range tile.index {
		u, du, ddu := row(k.u, n, k.c), row(k.du, n, k.c), row(k.ddu, n, k.c)
		if err := k.signal.At(k.sample(i), tile.t[n], u, du, ddu); err != nil {
			k.b.latch(err) // and the results are NaN
		}
		k.assemble(row(k.x, n, k.in), row(z, i, k.dim), u, du)
	}
	k.local.t, k.local.h = tile.t, tile.h
	k.local.index = k.local.index[:len(tile.index)]
	return &k.local
}

// assemble sets x to [z, u], [z, u, u'] or z, or a tangent of it to those of these.
func (k *controlKernel[T]) assemble(x, z, u, du []T) {
	x = x[copy(x, z):]
	if k.form != control.CDE {
		x = x[copy(x, u):]
		copy(x, du) // if there is room for it
	}
}

// addOutputs adds what is in y to the tile's rows of dst, for a CDE times du.
func (k *controlKernel[T]) addOutputs(dst, y, du []T, tile rows) {
	if k.form != control.CDE {
		for n, i := range tile.index {
			addTo(row(dst, i, k.dim), 1, row(y, n, k.dim))
		}
		return
	}
	for n, i := range tile.index {
		d, y, du := row(dst, i, k.dim), row(y, n, k.out), row(du, n, k.c)
		for j := range d {
			d[j] += dot(row(y, j, k.c), du)
		}
	}
}

func dot[T backend.Float](x, y []T) (sum T) {
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

func (k *controlKernel[T]) eval(dz, z []T, r *rows) {
	k.pack()
	begin(dz, k.dim, r)
	for lo := 0; lo < len(r.index); lo += controlRows {
		tile := r.tile(lo, controlRows)
		local := k.gather(z, tile)
		k.inner.eval(k.y, k.x, local)
		k.addOutputs(dz, k.y, k.du, tile)
	}
}

func (k *controlKernel[T]) vjp(o *vjp[T], r *rows) {
	k.pack()
	begin(o.dz, k.dim, r)
	begin(o.az, k.dim, r)
	begin(o.at, 1, r)
	for lo := 0; lo < len(r.index); lo += controlRows {
		tile := r.tile(lo, controlRows)
		local := k.gather(o.z, tile)
		m := len(tile.index)
		products := o.az != nil || o.at != nil || o.g != nil
		b := &k.back
		*b = vjp[T]{z: k.x, alpha: 1}
		if o.dz != nil || products && k.form == control.CDE {
			b.dz = k.y
		}
		if products {
			k.cotangents(o.a, tile)
			b.a, b.az, b.at = k.ay, k.ax, k.at
		}
		if o.g != nil {
			b.g, b.weight = o.g[:k.numInner], o.weight[lo:lo+m]
		}
		k.inner.vjp(b, local)
		if o.dz != nil {
			k.addOutputs(o.dz, k.y, k.du, tile)
		}
		if products {
			k.takeApart(o, b.weight, tile)
		}
	}
	if o.g != nil && k.values != nil {
		k.pull.Flush(o.g[k.numInner:])
	}
}

// cotangents sets ay to those of the function's output.
func (k *controlKernel[T]) cotangents(a []T, tile rows) {
	for n, i := range tile.index {
		ay, a := row(k.ay, n, k.out), row(a, i, k.dim)
		if k.form != control.CDE {
			copy(ay, a)
			continue
		}
		for j, v := range a {
			for c, d := range row(k.du, n, k.c) {
				ay[j*k.c+c] = v * d
			}
		}
	}
}

// takeApart adds the cotangents of x, u and u' to what they belong to.
func (k *controlKernel[T]) takeApart(o *vjp[T], weight []T, tile rows) {
	for n, i := range tile.index {
		ax, at := row(k.ax, n, k.in), k.at[n]
		if o.az != nil {
			addTo(row(o.az, i, k.dim), o.alpha, ax[:k.dim])
		}
		var au, adu []T
		switch k.form {
		case control.CDE:
			adu = row(k.adu, n, k.c)
			clear(adu)
			for j, v := range row(o.a, i, k.dim) {
				addTo(adu, v, row(row(k.y, n, k.out), j, k.c))
			}
		case control.AndRate:
			au, adu = ax[k.dim:k.dim+k.c], ax[k.dim+k.c:]
		default:
			au = ax[k.dim:]
		}
		if o.at != nil {
			// Through u(t) and u'(t) too.
			at += dot(au, row(k.du, n, k.c)) + dot(adu, row(k.ddu, n, k.c))
			o.at[i] += o.alpha * at
		}
		if o.g != nil && k.values != nil {
			k.pull.Add(o.g[k.numInner:], k.sample(i), tile.t[n], weight[n], au, adu)
		}
	}
}

func (k *controlKernel[T]) jvp(o *jvp[T], r *rows) {
	k.pack()
	learned := o.w != nil && k.values != nil
	if learned {
		k.tangent.SetValues(o.w[k.numInner:])
	}
	begin(o.dz, k.dim, r)
	begin(o.jv, k.dim, r)
	for lo := 0; lo < len(r.index); lo += controlRows {
		tile := r.tile(lo, controlRows)
		local := k.gather(o.z, tile)
		// The tangents of u and u' take the place of u and the second derivative.
		clear(k.u[:len(tile.index)*k.c])
		clear(k.ddu[:len(tile.index)*k.c])
		for n, i := range tile.index {
			u, du := row(k.u, n, k.c), row(k.ddu, n, k.c)
			if learned {
				_ = k.tangent.At(k.sample(i), tile.t[n], u, du, nil) // an error was latched
			}
			k.assemble(row(k.v, n, k.in), row(o.v, i, k.dim), u, du)
		}
		f := &k.fwd
		*f = jvp[T]{z: k.x, v: k.v, dz: k.y, jv: k.ay}
		if o.w != nil {
			f.w = o.w[:k.numInner]
		}
		k.inner.jvp(f, local)
		if o.dz != nil {
			k.addOutputs(o.dz, k.y, k.du, tile)
		}
		k.addOutputs(o.jv, k.ay, k.du, tile)
		if learned && k.form == control.CDE {
			k.addOutputs(o.jv, k.y, k.ddu, tile)
		}
	}
}
