package cpu

import (
	"fmt"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// sizes are batch, components of the state, and width of two hidden layers.
var sizes = [][3]int{{1, 2, 50}, {128, 2, 64}, {512, 64, 64}, {1024, 128, 128}, {512, 512, 512}}

// benchmark runs do for both precisions and every size, and reports the arithmetic of
// its matrix products; passes is how many times as much it is as Eval's.
func benchmark(b *testing.B, passes int, do32 func(f backend.Field[float32], r *rig[float32], rows, d int) func(), do64 func(f backend.Field[float64], r *rig[float64], rows, d int) func()) {
	for _, s := range sizes {
		run(b, "f32", passes, s, do32)
	}
	for _, s := range sizes {
		run(b, "f64", passes, s, do64)
	}
}

func run[T backend.Float](b *testing.B, precision string, passes int, size [3]int, do func(f backend.Field[T], r *rig[T], rows, d int) func()) {
	rows, d, w := size[0], size[1], size[2]
	b.Run(fmt.Sprintf("%s/B=%d/D=%d/W=%d", precision, rows, d, w), func(b *testing.B) {
		r := newRig[T](b, 1)
		verb := do(r.bind(r.model(mlp.Tanh, d, w, w, d)), r, rows, d)
		verb() // allocates its scratch memory
		b.ReportAllocs()
		for b.Loop() {
			verb()
		}
		flops := float64(passes) * 2 * float64(rows) * float64(2*d*w+w*w)
		b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}

func BenchmarkEval(b *testing.B) { benchmark(b, 1, evalOf[float32], evalOf[float64]) }
func BenchmarkVJP(b *testing.B)  { benchmark(b, 3, vjpOf[float32], vjpOf[float64]) }

func evalOf[T backend.Float](f backend.Field[T], r *rig[T], rows, d int) func() {
	z, dz := r.vec(rows, d, r.random(rows*d)), r.vec(rows, d, r.random(rows*d))
	at := r.at(0)
	return func() { f.Eval(dz, at, z) }
}

// vjpOf is a stage of the adjoint: f, aᵀ∂f/∂z and aᵀ∂f/∂θ.
func vjpOf[T backend.Float](f backend.Field[T], r *rig[T], rows, d int) func() {
	vec := func() backend.Vec[T] { return r.vec(rows, d, r.random(rows*d)) }
	v := backend.VJP[T]{
		Z: vec(), A: vec(), DZ: vec(), AZ: vec(), Alpha: -1,
		G: r.vec(1, f.NumParams(), make([]T, f.NumParams())), W: 1e-6, // so that the sum stays finite
	}
	at := r.at(0)
	return func() { f.VJP(at, v) }
}
