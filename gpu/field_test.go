//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// netCase is one field under test.
type netCase struct {
	spec  mlp.Spec
	rows  int
	lanes int
	path  path
}

func (c netCase) String() string {
	return fmt.Sprintf("%v/%v/%v/%v/rows=%d/lanes=%d/%v", c.spec.Widths, c.spec.Activations[0], c.spec.Time, c.spec.Input, c.rows, c.lanes, c.path)
}

// path is how the kernels are made to run a net.
type path int

const (
	chosen    path = iota // as they choose
	largeTile             // narrow, with the tile for large batches
	layered               // layer by layer, though it is narrow
)

func (p path) String() string { return [...]string{"chosen", "large", "layered"}[p] }

// take makes a net bound to the device run that way.
func (p path) take(n *narrow) {
	for _, x := range []*tilings{&n.forward, &n.vjp, &n.jvp, &n.jvpW} {
		switch p {
		case largeTile:
			x.small = nil
		case layered:
			*x = tilings{}
		}
	}
}

// operands are the inputs of all verbs, and what the outputs held before.
type operands struct {
	z, a, v, w, dz, g []float64
	alpha, factor     float64
}

func newOperands(c netCase, seed uint64) operands {
	rng := rand.New(rand.NewPCG(seed, 7))
	n := c.rows * c.spec.Widths[0]
	draw := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(float32(rng.NormFloat64()))
		}
		return x
	}
	p := c.spec.NumParams()
	return operands{z: draw(n), a: draw(n), v: draw(n), w: draw(p), dz: draw(n), g: draw(p), alpha: -1.5, factor: 0.75}
}

// results are the outputs of all verbs.
type results struct{ eval, dz, az, at, g, jv, jdz, jvW []float64 }

func (r *results) each(f func(name string, x []float64)) {
	f("Eval", r.eval)
	f("VJP.DZ", r.dz)
	f("VJP.AZ", r.az)
	f("VJP.AT", r.at)
	f("VJP.G", r.g)
	f("JVP.JV", r.jv)
	f("JVP.DZ", r.jdz)
	f("JVP.JV with W", r.jvW)
}

// session is a backend with a clock in the middle of a solve and a bound net.
type session[T backend.Float] struct {
	t    testing.TB
	b    backend.Backend[T]
	f    backend.Field[T]
	clk  backend.Clock
	c    netCase
	free []backend.Vec[T]
}

// newSession binds the case's net and takes two steps. With a lane a row each takes
// its own: lanes 1, 4, … are not running any more, lanes 2, 5, … reject the second.
func newSession[T backend.Float](t testing.TB, b backend.Backend[T], c netCase, theta []float64) *session[T] {
	m := &mlp.Model[T]{Spec: c.spec, Theta: convert[T](theta)}
	s := &session[T]{t: t, b: b, c: c, f: must(b.Bind(m)), clk: must(b.NewClock(c.lanes))}
	if f, ok := s.f.(*bound[T]); ok {
		c.path.take(&f.narrow)
	}
	b.Start(s.clk, backend.Span{T0: 0.25, Stops: []float64{8}, H0: 0.5})
	y := s.vec(make([]float64, c.rows), 1)
	for attempt := range 2 {
		e := make([]float64, c.rows)
		for r := range e {
			e[r] = 0.02
			switch {
			case c.lanes == 1: // the batch takes the same step whatever its size
			case r%3 == 1:
				e[r] = math.NaN()
			case r%3 == 2 && attempt == 1:
				e[r] = 20
			default:
				e[r] = 0.01 * float64(r%7+1)
			}
		}
		k := s.vec(e, 1)
		b.ErrorRatio(s.clk, backend.Tolerance{Abs: 1}, []float64{1}, nil, []backend.Part[T]{{Y0: y, Y1: y, K: []backend.Vec[T]{k}}})
		b.Advance(s.clk, backend.Control{
			Order: 5, Beta: [3]float64{0.2}, Safety: 0.9, MinFactor: 0.2, MaxFactor: 5, MaxAttempts: 100,
			MinStep: 0.1 * float64(1-attempt), // a NaN ends a lane at once
		})
	}
	return s
}

func (s *session[T]) close() {
	for _, v := range s.free {
		s.b.Free(v)
	}
	s.f.Close()
	if c, ok := s.clk.(interface{ Close() }); ok {
		c.Close()
	}
}

func (s *session[T]) vec(x []float64, cols int) backend.Vec[T] {
	v := must(s.b.NewVec(1, len(x)/cols, cols))
	s.b.Upload(v, convert[T](x))
	s.free = append(s.free, v)
	return v
}

func (s *session[T]) download(v backend.Vec[T]) []float64 {
	_, rows, cols := v.Shape()
	x := make([]T, rows*cols)
	if err := s.b.Download(x, v); err != nil {
		s.t.Fatal(err)
	}
	return convert[float64](x)
}

// run computes everything. want limits the outputs of the VJP: bit 0 DZ, 1 AZ, 2 AT, 3 G.
func (s *session[T]) run(o operands, sel backend.Rows, want int, timesH bool) (r results) {
	d, p := s.c.spec.Widths[0], s.c.spec.NumParams()
	at := backend.At{Clock: s.clk, C: 0.375, Rows: sel}
	z, a, v, w := s.vec(o.z, d), s.vec(o.a, d), s.vec(o.v, d), s.vec(o.w, p)
	out := s.vec(o.dz, d)
	s.f.Eval(out, at, z)
	r.eval = s.download(out)

	x := backend.VJP[T]{Z: z, A: a, Alpha: o.alpha, W: o.factor, TimesH: timesH}
	for bit, to := range []struct {
		v    *backend.Vec[T]
		x    []float64
		cols int
		r    *[]float64
	}{{&x.DZ, o.dz, d, &r.dz}, {&x.AZ, o.dz, d, &r.az}, {&x.AT, o.dz[:s.c.rows], 1, &r.at}, {&x.G, o.g, p, &r.g}} {
		if want>>bit&1 != 0 {
			*to.v = s.vec(to.x, to.cols)
			defer func() { *to.r = s.download(*to.v) }()
		}
	}
	s.f.VJP(at, x)

	jv, jdz, jvW := s.vec(o.dz, d), s.vec(o.dz, d), s.vec(o.dz, d)
	s.f.JVP(at, backend.JVP[T]{Z: z, V: v, JV: jv, DZ: jdz})
	s.f.JVP(at, backend.JVP[T]{Z: z, V: v, W: w, JV: jvW})
	r.jv, r.jdz, r.jvW = s.download(jv), s.download(jdz), s.download(jvW)
	return r
}

const all = 15

func convert[T, S backend.Float](x []S) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

func epsilon[T backend.Float]() float64 {
	if sizeOf[T]() == 4 {
		return 1.0 / (1 << 23)
	}
	return 1.0 / (1 << 52)
}

// theta draws parameters that keep activations of order 1.
func (c netCase) theta(seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 11))
	x := make([]float64, c.spec.NumParams())
	for _, l := range c.spec.Layers() {
		for i := range l.Out*l.In + l.Out {
			x[l.W+i] = float64(float32(rng.NormFloat64() / math.Sqrt(float64(l.In+1))))
		}
	}
	return x
}

// compare compares with the CPU backend in float64 on the same data. A dot product of
// n terms in random order is off by about √n units of the largest partial sum; a net
// passes errors on from layer to layer, so its largest result sets the scale.
func compare[T backend.Float](t *testing.T, c netCase, got, want results) {
	t.Helper()
	compareIn(t, epsilon[T](), c, got, want)
}

// compareIn is compare with an arithmetic of the given unit.
func compareIn(t *testing.T, unit float64, c netCase, got, want results) {
	t.Helper()
	terms := float64(c.rows + slices.Max(c.spec.Widths))
	rtol := 8 * unit * float64(len(c.spec.Activations)) * (4 + math.Sqrt(terms))
	names, refs := []string{}, [][]float64{}
	want.each(func(name string, x []float64) { names, refs = append(names, name), append(refs, x) })
	i := 0
	got.each(func(name string, x []float64) {
		ref := refs[i]
		i++
		if len(x) != len(ref) {
			t.Fatalf("%v: %s has %d elements, want %d", c, name, len(x), len(ref))
		}
		scale := 0.0
		for _, v := range ref {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				scale = max(scale, math.Abs(v))
			}
		}
		for j := range x {
			if math.IsNaN(ref[j]) && math.IsNaN(x[j]) || x[j] == ref[j] {
				continue
			}
			if d := math.Abs(x[j] - ref[j]); !(d <= rtol*scale) {
				t.Errorf("%v: %s[%d] = %v, want %v ± %.2g", c, name, j, x[j], ref[j], rtol*scale)
				return
			}
		}
	})
}

// testField compares the case's net, set up by with if that is not nil.
func testField[T backend.Float](t *testing.T, b *Backend[T], c netCase, with func(*bound[T]), sels ...backend.Rows) {
	t.Helper()
	theta, o := c.theta(3), newOperands(c, 5)
	got := newSession(t, b, c, theta)
	if with != nil {
		with(got.f.(*bound[T]))
	}
	defer got.close()
	want := newSession[float64](t, cpu.New[float64](), c, theta)
	defer want.close()
	for _, sel := range sels {
		compare[T](t, c, got.run(o, sel, all, sel == backend.Accepted), want.run(o, sel, all, sel == backend.Accepted))
	}
	var lanes, ref64 = make([]backend.Lane, c.lanes), make([]backend.Lane, c.lanes)
	if err := errors.Join(got.b.Lanes(got.clk, lanes), want.b.Lanes(want.clk, ref64)); err != nil {
		t.Fatal(err)
	}
	for i := range lanes {
		if lanes[i].Evaluations != ref64[i].Evaluations {
			t.Fatalf("%v: lane %d counts %d evaluations, want %d", c, i, lanes[i].Evaluations, ref64[i].Evaluations)
		}
	}
}

func spec(act mlp.Activation, time mlp.Time, in mlp.Input, widths ...int) mlp.Spec {
	s := mlp.Dense(act, widths...)
	s.Time, s.Input = time, in
	return s
}

// bothPrecisions runs the test for both, side by side.
func bothPrecisions(t *testing.T, f32, f64 func(*testing.T)) {
	for name, f := range map[string]func(*testing.T){"f32": f32, "f64": f64} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t)
		})
	}
}

// TestField_MatchesCPU runs the verbs on all ways through a net.
func TestField_MatchesCPU(t *testing.T) {
	bothPrecisions(t, testMatchesCPU[float32], testMatchesCPU[float64])
}

func testMatchesCPU[T backend.Float](t *testing.T) {
	b := openOrSkip[T](t)
	both := []backend.Rows{backend.Running, backend.Accepted}
	// Shapes and everything else that changes how memory is read, on every way.
	for _, widths := range [][]int{{1, 1}, {2, 50, 2}, {3, 7, 13, 3}, {64, 64}, {5, 128, 5}} {
		for i, time := range []mlp.Time{mlp.TimeNone, mlp.TimeInput, mlp.TimeEveryLayer} {
			for _, way := range []path{chosen, largeTile, layered} {
				for _, n := range []struct{ rows, lanes int }{{1, 1}, {67, 1}, {67, 67}} {
					c := netCase{spec(mlp.Tanh, time, mlp.Input((i+1)%2), widths...), n.rows, n.lanes, way}
					testField(t, b, c, nil, both...)
				}
			}
		}
	}
	// Weights that do not stay in shared memory, and layers too wide for it.
	for i, widths := range [][]int{{100, 128, 100}, {128, 127, 126, 128}, {130, 3, 130}, {3, 257, 3}, {131, 131}} {
		for _, n := range []struct{ rows, lanes int }{{1, 1}, {67, 67}, {130, 1}} {
			c := netCase{spec(mlp.Tanh, mlp.Time(i%3), mlp.Input(i%2), widths...), n.rows, n.lanes, chosen}
			testField(t, b, c, nil, both...)
		}
	}
	// Activations.
	for i, act := range mlp.Activations() {
		for _, way := range []path{chosen, layered} {
			testField(t, b, netCase{spec(act, mlp.Time(i%3), mlp.InputIdentity, 4, 9, 4), 33, 33, way}, nil, both...)
		}
	}
}

// TestField_ManyLanes lists the selected rows of more lanes than a block has threads,
// and gives a block more than one tile, and a wide net more than one chunk of rows.
func TestField_ManyLanes(t *testing.T) {
	bothPrecisions(t, testManyLanes[float32], testManyLanes[float64])
}

func testManyLanes[T backend.Float](t *testing.T) {
	b := openOrSkip[T](t)
	for _, way := range []path{chosen, layered} {
		for _, lanes := range []int{1, 601} {
			c := netCase{spec(mlp.Tanh, mlp.TimeEveryLayer, mlp.InputIdentity, 2, 6, 2), 601, lanes, way}
			testField(t, b, c, func(f *bound[T]) { f.sms, f.budget = 1, 0 }, backend.Running, backend.Accepted)
		}
	}
}

// TestField_Activations compares σ and σ' with package mlp's at single numbers, far
// out too. GELUTanh is a logistic function of u: its tail magnifies the rounding of u
// by |u|.
func TestField_Activations(t *testing.T) {
	bothPrecisions(t, testActivations[float32], testActivations[float64])
}

func testActivations[T backend.Float](t *testing.T) {
	b := openOrSkip[T](t)
	var x []float64
	for i := -400; i <= 400; i++ {
		x = append(x, float64(float32(float64(i)*0.037)), math.Copysign(float64(float32(math.Exp(float64(i)*0.05))), float64(i)))
	}
	x = append(x, 0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), float64(float32(3e38)), float64(float32(-3e38)))
	smallest := 1e-37 // below it results may be denormal or 0
	if sizeOf[T]() == 8 {
		smallest = 1e-300
	}
	for _, act := range mlp.Activations() {
		for _, way := range []path{chosen, layered} {
			c := netCase{mlp.Spec{Widths: []int{1, 1}, Activations: []mlp.Activation{act}}, len(x), 1, way}
			s := newSession(t, b, c, []float64{1, 0})
			one := make([]float64, len(x))
			for i := range one {
				one[i] = 1
			}
			z, a, az, dz, ez := s.vec(x, 1), s.vec(one, 1), s.vec(one, 1), s.vec(one, 1), s.vec(one, 1)
			at := backend.At{Clock: s.clk}
			s.f.VJP(at, backend.VJP[T]{Z: z, A: a, AZ: az, DZ: dz, Alpha: 1})
			s.f.Eval(ez, at, z)
			y, slope, only := s.download(dz), s.download(az), s.download(ez)
			for i, v := range x {
				wantY, wantSlope := act.Both(v)
				tol := 6 * epsilon[T]()
				if act == mlp.GELUTanh {
					tol *= 1 + math.Abs(v*(1+v*v/20))
				}
				for _, r := range []struct {
					name      string
					got, want float64
				}{{"σ", y[i], wantY}, {"σ by Eval", only[i], wantY}, {"σ'", slope[i], wantSlope}} {
					limit := tol*math.Abs(r.want) + smallest
					switch act {
					case mlp.GELU, mlp.GELUTanh, mlp.SiLU, mlp.Sin:
						limit += tol // near a zero
					}
					if r.got != r.want && !(math.IsNaN(r.got) && math.IsNaN(r.want)) && !(math.Abs(r.got-r.want) <= limit) {
						t.Errorf("%v, %v: %s(%v) = %v, want %v ± %.2g", act, way, r.name, v, r.got, r.want, limit)
					}
				}
			}
			s.close()
		}
	}
}
