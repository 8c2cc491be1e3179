//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/train"
)

// lesson is a Learner with vectors for its operands.
type lesson[T backend.Float] struct {
	t testing.TB
	b *gpu.Backend[T]
	backend.Learner[T]
	owned []backend.Vec[T]
}

func newLesson[T backend.Float](t testing.TB) *lesson[T] {
	t.Helper()
	b := open[T](t)
	learner, err := b.NewLearner()
	if err != nil {
		t.Fatal(err)
	}
	l := &lesson[T]{t: t, b: b, Learner: learner}
	t.Cleanup(func() {
		for _, v := range l.owned {
			b.Free(v)
		}
		l.Close()
		if n := b.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are left", n)
		}
	})
	return l
}

// vec makes a vector of x, nil of nil.
func (l *lesson[T]) vec(blocks, rows, cols int, x []T) backend.Vec[T] {
	l.t.Helper()
	if x == nil {
		return nil
	}
	v, err := l.b.NewVec(blocks, rows, cols)
	if err != nil {
		l.t.Fatal(err)
	}
	l.owned = append(l.owned, v)
	l.b.Upload(v, x)
	return v
}

func (l *lesson[T]) read(v backend.Vec[T]) []T {
	l.t.Helper()
	blocks, rows, cols := v.Shape()
	x := make([]T, blocks*rows*cols)
	if err := l.b.Download(x, v); err != nil {
		l.t.Fatal(err)
	}
	return x
}

func (l *lesson[T]) outcome() backend.Outcome {
	l.t.Helper()
	o, err := l.Outcome()
	if err != nil {
		l.t.Fatal(err)
	}
	return o
}

func equalWithin[T backend.Float](t testing.TB, what string, got, want []T, rel float64) {
	t.Helper()
	for i, w := range want {
		g, w := float64(got[i]), float64(w)
		if !(math.Abs(g-w) <= rel*(math.Abs(w)+1e-30)) && !(math.IsNaN(g) && math.IsNaN(w)) && g != w {
			t.Fatalf("%s[%d] = %.17g, want %.17g", what, i, g, w)
		}
	}
}

// Losses and derivatives are the host's to the rounding of T: both compute in
// float64, which a sum over elements of one sign loses no digits of.
func TestLearner_LossMatchesTrain(t *testing.T) {
	t.Run("f32", func(t *testing.T) { testLoss[float32](t, 1.2e-7) })
	t.Run("f64", func(t *testing.T) { testLoss[float64](t, 1e-13) })
}

func testLoss[T backend.Float](t *testing.T, rel float64) {
	l := newLesson[T](t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][3]int{{1, 1, 1}, {2, 3, 2}, {3, 70, 5}, {1, 41, 33}, {4, 300, 10}, {1, 2, 2500}} {
		blocks, rows, cols := shape[0], shape[1], shape[2]
		n := blocks * rows * cols
		pred := make([]T, n)
		for i := range pred {
			pred[i] = T(3 * r.NormFloat64())
		}
		values, labels, labelled := make([]T, n), make([]int32, n/cols), make([]T, n/cols)
		for i := range values {
			values[i] = pred[i] + T(2*r.NormFloat64())
		}
		values[0] = pred[0] // MAE's kink
		for i := range labels {
			labels[i] = int32(r.IntN(cols+1)) - 1
			labelled[i] = T(labels[i])
		}
		labels[0], labelled[0] = 0, 0
		for _, kind := range []train.LossKind{train.MSE, train.MAE, train.Huber, train.CrossEntropy} {
			for _, red := range []train.Reduction{train.Mean, train.Sum} {
				for _, masked := range []bool{false, true} {
					name := fmt.Sprintf("%v/%v/%v/masked=%v", shape, kind, red, masked)
					loss := train.Loss{Kind: kind, Reduction: red}
					target, y, tcols := train.Target[T]{Values: values}, values, cols
					if kind == train.Huber {
						loss.Delta = 0.7
					}
					if kind == train.CrossEntropy {
						target, y, tcols = train.Target[T]{Labels: labels}, labelled, 1
					}
					input := append([]T{}, pred...)
					if masked {
						target.Weights = make([]T, len(y))
						for i := range target.Weights {
							target.Weights[i] = T(r.IntN(3))
						}
						target.Weights[0] = 1
						if last := len(y) - 1; last > 0 {
							target.Weights[last] = 0
							input[len(input)-1] = T(math.NaN()) // not looked at
						}
					}
					grad := make([]T, n)
					want, err := train.EvalLoss(loss, input, target, grad)
					if err != nil {
						t.Fatal(err)
					}
					g := l.vec(blocks, rows, cols, make([]T, n))
					l.Loss(backend.Loss{Kind: backend.LossKind(kind), Mean: red == train.Mean, Delta: loss.Delta}, nil,
						l.vec(blocks, rows, cols, input), l.vec(blocks, rows, tcols, y), l.vec(blocks, rows, tcols, target.Weights), g)
					got := l.outcome()
					equalWithin(t, name+" loss", []float64{got.Loss}, []float64{want}, 1e-12)
					equalWithin(t, name+" derivative", l.read(g), grad, rel)
				}
			}
		}
	}
	// A row without a number, and a prediction that is infinite.
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		x := []T{T(bad), T(bad)}
		l.Loss(backend.Loss{Kind: backend.CrossEntropy}, nil, l.vec(1, 1, 2, x), l.vec(1, 1, 1, []T{1}), nil, l.vec(1, 1, 2, x))
		if got := l.outcome().Loss; !math.IsNaN(got) {
			t.Errorf("cross-entropy of %v is %v", x, got)
		}
		l.Loss(backend.Loss{}, nil, l.vec(1, 1, 1, x[:1]), l.vec(1, 1, 1, []T{1}), nil, l.vec(1, 1, 1, x[:1]))
		if got := l.outcome().Loss; math.IsNaN(got) != math.IsNaN(bad) || math.Abs(got) < math.MaxFloat64 {
			t.Errorf("squared error of %v is %v", x[0], got)
		}
	}
}

// Updates equal the host's to a few roundings of T each, which the device may fuse.
func TestLearner_UpdateMatchesTrain(t *testing.T) {
	t.Run("f32", func(t *testing.T) { testUpdate[float32](t, 5e-6) })
	t.Run("f64", func(t *testing.T) { testUpdate[float64](t, 1e-14) })
}

func testUpdate[T backend.Float](t *testing.T, rel float64) {
	l := newLesson[T](t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, o := range []train.Optimizer{
		{}, {Kind: train.AdamW, LR: 0.01}, {WeightDecay: 0.1, Beta1: 0.8, Beta2: 0.9, Eps: 1e-3},
		{Kind: train.RMSprop}, {Kind: train.RMSprop, Centered: true, Momentum: 0.9, WeightDecay: 0.01},
		{Kind: train.SGD, LR: 0.1}, {Kind: train.SGD, LR: 0.1, Momentum: 0.9, Dampening: 0.5}, {Kind: train.SGD, LR: 0.1, Momentum: 0.9, Nesterov: true},
	} {
		for _, clip := range []float64{0, 0.5} {
			const p = 5000
			o := o.WithDefaults()
			theta := make([]T, p)
			for i := range theta {
				theta[i] = T(r.NormFloat64())
			}
			host := train.NewOptimizerState[T](o, p)
			th := l.vec(1, 1, p, theta)
			m, v, a := l.vec(1, 1, p, host.M), l.vec(1, 1, p, host.V), l.vec(1, 1, p, host.A)
			l.sound()
			for step := range 5 {
				grad := make([]T, p)
				for i := range grad {
					grad[i] = T(0.1 * r.NormFloat64())
				}
				g := l.vec(1, 1, p, grad)
				norm := train.Norm(grad)
				if clip > 0 {
					train.ClipNorm(grad, clip)
				}
				factor := 1 - 0.1*float64(step)
				train.Update(o, factor, theta, grad, host)
				l.update(backend.Optimizer{
					Kind: backend.OptimizerKind(o.Kind), Step: host.Step, LR: o.LR * factor, WeightDecay: o.WeightDecay,
					Beta1: o.Beta1, Beta2: o.Beta2, Alpha: o.Alpha, Eps: o.Eps, Momentum: o.Momentum, Dampening: o.Dampening,
					Nesterov: o.Nesterov, Clip: clip,
				}, th, g, m, v, a)
				got := l.outcome()
				equalWithin(t, "norm", []float64{got.Norm}, []float64{norm}, 1e-13)
				if got.BadParam != -1 {
					t.Errorf("%+v: parameter %d is not finite", o, got.BadParam)
				}
			}
			// The centred variance is a difference, good to rounding of its terms.
			tol := rel
			if o.Centered {
				tol *= 100
			}
			name := fmt.Sprintf("%v clipped at %g:", o.Kind, clip)
			near := func(what string, got backend.Vec[T], want []T) {
				x := l.read(got)
				for i, w := range want {
					if d := math.Abs(float64(x[i]) - float64(w)); !(d <= tol*(1+math.Abs(float64(w)))) {
						t.Fatalf("%s %s[%d] = %.17g, want %.17g", name, what, i, float64(x[i]), float64(w))
					}
				}
			}
			near("θ", th, theta)
			for i, s := range [][]T{host.M, host.V, host.A} {
				if s != nil {
					near("state", []backend.Vec[T]{m, v, a}[i], s)
				}
			}
		}
	}
}

// update makes an update of no rows.
func (l *lesson[T]) update(o backend.Optimizer, theta, grad, m, v, a backend.Vec[T]) {
	l.Prepare(nil, o)
	l.Update(theta, grad, m, v, a)
}

// sound makes the outcome that of a finite loss.
func (l *lesson[T]) sound() {
	one := l.vec(1, 1, 1, []T{1})
	l.Loss(backend.Loss{}, nil, one, one, nil, l.vec(1, 1, 1, []T{0}))
}

// Nothing is updated by a loss or a gradient that is not finite, and a parameter that
// becomes so is named.
func TestLearner_KeepsParametersFinite(t *testing.T) {
	l := newLesson[float64](t)
	o := backend.Optimizer{Kind: backend.SGD, LR: 1, Step: 1}
	theta := []float64{1, 2, 3}
	th := l.vec(1, 1, 3, theta)
	l.sound()
	l.update(o, th, l.vec(1, 1, 3, []float64{0, math.NaN(), 1}), nil, nil, nil)
	if got := l.outcome(); !math.IsNaN(got.Norm) || got.BadParam != -1 {
		t.Errorf("%+v", got)
	}
	l.Loss(backend.Loss{}, nil, l.vec(1, 1, 1, []float64{math.Inf(1)}), l.vec(1, 1, 1, theta[:1]), nil, l.vec(1, 1, 1, theta[:1]))
	l.update(o, th, l.vec(1, 1, 3, []float64{1, 1, 1}), nil, nil, nil)
	if got := l.outcome(); !math.IsInf(got.Loss, 1) || math.Abs(got.Norm-math.Sqrt(3)) > 1e-15 {
		t.Errorf("%+v", got)
	}
	equalWithin(t, "θ", l.read(th), theta, 0)
	l.sound()
	o.LR = 1e200
	l.update(o, th, l.vec(1, 1, 3, []float64{1, 1e150, 1e150}), nil, nil, nil)
	if got := l.outcome(); got.BadParam != 1 {
		t.Errorf("%+v", got)
	}
}

// The norm overflows, and vanishes, only if it does itself.
func TestLearner_NormOfExtremes(t *testing.T) {
	l := newLesson[float64](t)
	for _, grad := range [][]float64{
		{3e200, 4e200}, {3e-200, 4e-200}, {5e-324, 0}, {0, 0}, {1e308, 1e308, 1e308}, {1.7e308, 1.7e308}, {1e-160, 1}, {math.Inf(1), 1},
	} {
		l.sound()
		n := len(grad)
		l.update(backend.Optimizer{Kind: backend.SGD}, l.vec(1, 1, n, make([]float64, n)), l.vec(1, 1, n, grad), nil, nil, nil)
		if got, want := l.outcome().Norm, train.Norm(grad); !(math.Abs(got-want) <= 1e-15*want) && got != want {
			t.Errorf("norm of %v is %g, want %g", grad, got, want)
		}
	}
}

func TestLearner_Gather(t *testing.T) {
	l := newLesson[float32](t)
	src := make([]float32, 3*7*5)
	for i := range src {
		src[i] = float32(i)
	}
	rows := []int{6, 0, 3, 3}
	dst, labels := l.vec(3, 4, 5, make([]float32, 60)), l.vec(1, 4, 1, make([]float32, 4))
	l.Prepare(rows, backend.Optimizer{})
	l.Gather([]backend.Move[float32]{
		{Dst: dst, Src: l.vec(3, 7, 5, src)}, {Dst: labels, Src: l.vec(1, 7, 1, src[:7])},
	})
	got := l.read(dst)
	for b := range 3 {
		for i, r := range rows {
			equalWithin(t, "row", got[(b*4+i)*5:][:5], src[(b*7+r)*5:][:5], 0)
		}
	}
	equalWithin(t, "labels", l.read(labels), []float32{6, 0, 3, 3}, 0)
}
