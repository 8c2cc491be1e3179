package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// shape is a batch and the widths of an MLP.
type shape struct {
	batch  int
	widths []int
}

func (s shape) String() string { return fmt.Sprintf("%d × %v", s.batch, s.widths) }

// weights is the number of weights without biases: half the flops of one sample.
func (s shape) weights() float64 {
	n := 0
	for l := 1; l < len(s.widths); l++ {
		n += s.widths[l-1] * s.widths[l]
	}
	return float64(n)
}

// kernel is the time of one verb.
type kernel struct {
	Name     string  `json:"name"`
	Type     string  `json:"type"`
	Size     string  `json:"size"`
	Micros   float64 `json:"microseconds"`
	GFlops   float64 `json:"gflop_per_s,omitempty"`
	GBs      float64 `json:"gb_per_s,omitempty"`
	Ceiling  float64 `json:"fraction_of_ceiling"`
	Launches int64   `json:"launches"`
}

// solve is the time of a forward solve and of its gradient.
type solve struct {
	Name        string  `json:"name"`
	Type        string  `json:"type"`
	Size        string  `json:"size"`
	Millis      float64 `json:"milliseconds"`
	CPUMillis   float64 `json:"cpu_milliseconds"`
	Launches    int64   `json:"launches"`
	Graphs      int64   `json:"graph_replays"`
	Waits       int64   `json:"host_waits"`
	ToDevice    int64   `json:"bytes_to_device"`
	ToHost      int64   `json:"bytes_to_host"`
	Evaluations int64   `json:"evaluations"`
}

func (r *report) measure(out io.Writer) error {
	if err := measureType[float32](r, "f32"); err != nil {
		return err
	}
	if err := measurePrecisions(r); err != nil {
		return err
	}
	if err := measureType[float64](r, "f64"); err != nil {
		return err
	}
	if err := r.ensembles(); err != nil {
		return err
	}
	r.print(out, false)
	return nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

func measureType[T backend.Float](r *report, name string) error {
	dev, err := gpu.Open[T](gpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	b := &bench[T]{r: r, name: name, dev: dev, rng: rand.New(rand.NewPCG(1, 1))}
	b.ceilings()
	for _, c := range r.settings.cases {
		b.verbs(c)
	}
	b.elementwise()
	for _, c := range r.settings.cases {
		if b.err == nil && (!r.Stand || name == "f32" && c.batch == 20) {
			b.solves(c)
		}
	}
	return b.err
}

// measurePrecisions measures the verbs on tensor cores, where the device has them.
func measurePrecisions(r *report) error {
	for _, p := range []gpu.Precision{gpu.TF32x3, gpu.TF32, gpu.BF16} {
		dev, err := gpu.Open[float32](gpu.Options{Precision: p})
		if errors.Is(err, backend.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		b := &bench[float32]{r: r, name: "f32 " + p.String(), dev: dev, rng: rand.New(rand.NewPCG(1, 1))}
		b.ceilings()
		for _, c := range r.settings.cases {
			if slices.Min(c.widths) >= 32 {
				b.verbs(c)
			}
		}
		if err := errors.Join(b.err, dev.Close()); err != nil {
			return err
		}
	}
	return nil
}

// bench holds what the measurements of one precision share. The first error stops all
// that follow.
type bench[T backend.Float] struct {
	r          *report
	name       string
	dev        *gpu.Backend[T]
	rng        *rand.Rand
	copy, gemm float64 // ceilings, GB/s and GFLOP/s
	err        error
}

func (b *bench[T]) check(err error) {
	if b.err == nil {
		b.err = err
	}
}

// vec makes a vector of noise.
func (b *bench[T]) vec(rows, cols int) backend.Vec[T] {
	if b.err != nil {
		return nil
	}
	v, err := b.dev.NewVec(1, rows, cols)
	if err != nil {
		b.check(err)
		return nil
	}
	x := make([]T, rows*cols)
	for i := range x {
		x[i] = T(b.rng.NormFloat64())
	}
	b.dev.Upload(v, x)
	return v
}

// buffers is how many copies of the operands a measurement goes through in turn, so
// that a cache does not serve them.
const buffers = 3

// time returns the median time in seconds of calls of do, each on the next buffers, and
// the launches of one.
func (b *bench[T]) time(do func(i int)) (seconds float64, launches int64) {
	if b.err != nil {
		return 1, 0
	}
	do(0) // warm-up, and so is what comes next
	before := b.dev.Counts().Launches
	do(0)
	launches = b.dev.Counts().Launches - before
	var times []float64
	for i := range b.r.settings.runs {
		s, err := b.dev.Time(func() { do(i % buffers) })
		b.check(err)
		times = append(times, s)
	}
	return median(times), launches
}

func (b *bench[T]) add(k kernel, seconds, flops, bytes float64) {
	if b.err != nil {
		return
	}
	k.Type, k.Micros = b.name, seconds*1e6
	if flops > 0 {
		k.GFlops = flops / seconds / 1e9
		k.Ceiling = k.GFlops / b.gemm
	}
	if bytes > 0 {
		k.GBs = bytes / seconds / 1e9
		k.Ceiling = max(k.Ceiling, k.GBs/b.copy)
	}
	b.r.Kernels = append(b.r.Kernels, k)
}

func sizeOf[T backend.Float]() float64 {
	var x T
	if _, single := any(x).(float32); single {
		return 4
	}
	return 8
}

// ceilings measures a large copy and a large GEMM.
func (b *bench[T]) ceilings() {
	n := b.r.settings.copy / int(sizeOf[T]()/4)
	src, dst := b.vec(1, n), b.vec(1, n)
	s, launches := b.time(func(int) { b.dev.Copy(dst, src) })
	bytes := 2 * float64(n) * sizeOf[T]()
	b.copy = bytes / s / 1e9
	b.add(kernel{Name: "copy (ceiling)", Size: fmt.Sprint(n), Launches: launches}, s, 0, bytes)
	if b.err == nil {
		b.dev.Free(src)
		b.dev.Free(dst)
	}
	w := b.r.settings.square
	c := shape{w, []int{w, w}}
	f := b.newField(c)
	if b.err != nil {
		return
	}
	defer f.close()
	s, launches = b.time(f.eval)
	flops := 2 * float64(w) * c.weights()
	b.gemm = flops / s / 1e9
	b.add(kernel{Name: "gemm (ceiling)", Size: c.String(), Launches: launches}, s, flops, 0)
}

// fieldBench is an MLP with operands for its verbs.
type fieldBench[T backend.Float] struct {
	b                   *bench[T]
	field               backend.Field[T]
	at                  backend.At
	z, a, dz, az, v, jv [buffers]backend.Vec[T]
	g                   backend.Vec[T]
}

func (b *bench[T]) newField(c shape) *fieldBench[T] {
	if b.err != nil {
		return nil
	}
	act := mlp.Tanh
	m, err := mlp.New[T](mlp.Dense(act, c.widths...), mlp.Init{}, 1)
	if err != nil {
		b.check(err)
		return nil
	}
	f := &fieldBench[T]{b: b}
	if f.field, err = b.dev.Bind(m); err != nil {
		b.check(err)
		return nil
	}
	d := c.widths[0]
	for i := range buffers {
		f.z[i], f.a[i], f.dz[i] = b.vec(c.batch, d), b.vec(c.batch, d), b.vec(c.batch, d)
		f.az[i], f.v[i], f.jv[i] = b.vec(c.batch, d), b.vec(c.batch, d), b.vec(c.batch, d)
	}
	f.g = b.vec(1, m.NumParams())
	clk, err := b.dev.NewClock(1)
	if err != nil {
		b.check(err)
		return f
	}
	b.dev.Start(clk, backend.Span{Stops: []float64{1}, H0: 0.1})
	f.at = backend.At{Clock: clk, Rows: backend.Running}
	return f
}

func (f *fieldBench[T]) eval(i int) { f.field.Eval(f.dz[i], f.at, f.z[i]) }

func (f *fieldBench[T]) vjp(i int) {
	f.field.VJP(f.at, backend.VJP[T]{Z: f.z[i], A: f.a[i], DZ: f.dz[i], AZ: f.az[i], Alpha: -1, G: f.g, W: 1e-3})
}

func (f *fieldBench[T]) jvp(i int) {
	f.field.JVP(f.at, backend.JVP[T]{Z: f.z[i], V: f.v[i], DZ: f.dz[i], JV: f.jv[i]})
}

func (f *fieldBench[T]) close() {
	if f == nil || f.b.err != nil {
		return
	}
	f.field.Close()
	f.at.Clock.Close()
	for i := range buffers {
		for _, v := range []backend.Vec[T]{f.z[i], f.a[i], f.dz[i], f.az[i], f.v[i], f.jv[i]} {
			f.b.dev.Free(v)
		}
	}
	f.b.dev.Free(f.g)
}

// verbs measures a field's products. A forward pass is two flops a weight and
// sample, a VJP with all outputs three such, a JVP two.
func (b *bench[T]) verbs(c shape) {
	f := b.newField(c)
	defer f.close()
	if b.err != nil {
		return
	}
	pass := 2 * float64(c.batch) * c.weights()
	s, n := b.time(f.eval)
	b.add(kernel{Name: "eval", Size: c.String(), Launches: n}, s, pass, 0)
	s, n = b.time(f.vjp)
	b.add(kernel{Name: "vjp", Size: c.String(), Launches: n}, s, 3*pass, 0)
	s, n = b.time(f.jvp)
	b.add(kernel{Name: "jvp", Size: c.String(), Launches: n}, s, 2*pass, 0)
}

// elementwise measures the verbs of a step that memory bounds.
func (b *bench[T]) elementwise() {
	rows, cols := b.r.settings.copy/8/64, 64
	tab := solver.Dopri5.Tableau()
	y, y1 := b.vec(rows, cols), b.vec(rows, cols)
	var k []backend.Vec[T]
	for range tab.Stages() {
		k = append(k, b.vec(rows, cols))
	}
	if b.err != nil {
		return
	}
	defer func() {
		for _, v := range append(k, y, y1) {
			b.dev.Free(v)
		}
	}()
	for _, lanes := range []int{1, rows} {
		clk, err := b.dev.NewClock(lanes)
		if err != nil {
			b.check(err)
			return
		}
		b.dev.Start(clk, backend.Span{Stops: []float64{1}, H0: 0.1})
		at := backend.At{Clock: clk, Rows: backend.Running}
		block := float64(rows*cols) * sizeOf[T]()
		size := fmt.Sprintf("%d × %d, %d lanes", rows, cols, lanes)
		s, n := b.time(func(int) { b.dev.Combine(y1, y, at, tab.B, k) })
		b.add(kernel{Name: "combine (dopri5)", Size: size, Launches: n}, s, 0, block*7) // b has 5 stages; y; y1
		parts := []backend.Part[T]{{Y0: y, Y1: y1, K: k}}
		s, n = b.time(func(int) { b.dev.ErrorRatio(clk, backend.Tolerance{Rel: 1e-3, Abs: 1e-3}, tab.E, nil, parts) })
		b.add(kernel{Name: "error ratio (dopri5)", Size: size, Launches: n}, s, 0, block*8)
		clk.Close()
	}
}

// solves measures a forward solve and its gradient on both backends: with samples that
// step alone, step by step and as the device finds it faster.
func (b *bench[T]) solves(c shape) {
	if b.r.settings.large && float64(c.batch)*c.weights() > 3e9 {
		return // minutes on the CPU
	}
	runs := 1 + b.r.settings.runs/5
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		set := solver.Settings{Method: solver.Dopri5, RTol: 1e-4, ATol: 1e-6, Stepping: stepping}
		host := cpu.New[T]()
		forwardCPU, gradientCPU, _, _ := timed[T](b, host, nil, c, set, runs)
		host.Close()
		for _, how := range []struct {
			name   string
			fusion solver.Fusion
		}{{" by steps", solver.FuseNever}, {"", solver.FuseAuto}} {
			set.Fusion = how.fusion
			forward, gradient, f, g := timed(b, backend.Backend[T](b.dev), b.dev, c, set, runs)
			if b.err != nil {
				return
			}
			name := stepping.String() + how.name
			f.Name, f.Type, f.Size, f.Millis, f.CPUMillis = "solve, "+name, b.name, c.String(), forward*1e3, forwardCPU*1e3
			g.Name, g.Type, g.Size, g.Millis, g.CPUMillis = "gradient, "+name, b.name, c.String(), gradient*1e3, gradientCPU*1e3
			b.r.Solves = append(b.r.Solves, f, g)
		}
	}
}

// timed returns median times in seconds of a solve and of its gradient, and the counts
// of one if dev is a GPU.
func timed[T backend.Float](b *bench[T], dev backend.Backend[T], counter *gpu.Backend[T], c shape, set solver.Settings, runs int) (forward, gradient float64, f, g solve) {
	if b.err != nil {
		return
	}
	ctx := context.Background()
	m, err := mlp.New[T](mlp.Dense(mlp.Tanh, c.widths...), mlp.Init{}, 1)
	if err != nil {
		b.check(err)
		return
	}
	s, err := solver.New(dev, m, set)
	if err != nil {
		b.check(err)
		return
	}
	defer s.Close()
	a, err := adjoint.New(s, adjoint.Settings{NoTimes: true})
	if err != nil {
		b.check(err)
		return
	}
	defer a.Close()
	z0 := make([]T, c.batch*c.widths[0])
	for i := range z0 {
		z0[i] = T(math.Sin(float64(i)))
	}
	var fs, gs []float64
	for range runs + 1 {
		var n0, n1, n2 gpu.Counts
		if counter != nil {
			n0 = counter.Counts()
		}
		t0 := time.Now()
		sol, err := s.Solve(ctx, z0, []float64{0, 0.25, 0.5, 0.75, 1})
		if err != nil {
			b.check(err)
			return
		}
		t1 := time.Now()
		if counter != nil {
			n1 = counter.Counts()
		}
		cot := make([]T, len(sol.Y))
		for i := range cot {
			cot[i] = 1
		}
		t2 := time.Now()
		grad, err := a.Gradients(ctx, sol, cot)
		if err != nil {
			b.check(err)
			return
		}
		fs, gs = append(fs, t1.Sub(t0).Seconds()), append(gs, time.Since(t2).Seconds())
		if counter != nil {
			n2 = counter.Counts()
			f, g = counted(n0, n1), counted(n1, n2)
		}
		f.Evaluations = sol.Evaluations()
		for _, st := range grad.Stats {
			g.Evaluations = max(g.Evaluations, st.Evaluations)
		}
	}
	return median(fs[1:]), median(gs[1:]), f, g
}

func counted(before, after gpu.Counts) solve {
	return solve{
		Launches: after.Launches - before.Launches, Graphs: after.Graphs - before.Graphs, Waits: after.Waits - before.Waits,
		ToDevice: after.ToDevice - before.ToDevice, ToHost: after.ToHost - before.ToHost,
	}
}
