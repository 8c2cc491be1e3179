package main

import (
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// problem is a case of the comparison.
type problem struct {
	name       string
	about      string // where it is from
	spec       mlp.Spec
	init       mlp.Init
	batch      int
	times      []float64
	rtol, atol float64
	double     bool // float64; else float32
	// wide: it is worth more than one thread; else it is measured with the first number
	// of threads alone.
	wide bool
	// z0 draws the initial states; nil: standard normal.
	z0 func(r *rand.Rand) []float64
}

// task is what is timed.
type task string

const (
	forward  task = "forward"  // a solve alone
	gradient task = "gradient" // a solve, a mean squared error, its gradient by z0 and θ
	training task = "train"    // the same by θ, and an update of Adam
)

var tasks = []task{forward, gradient, training}

// learningRate is Adam's.
const learningRate = 1e-3

func cases() []problem {
	cube := mlp.Dense(mlp.Tanh, 2, 50, 2)
	cube.Input = mlp.InputCube
	small := mlp.Init{Weight: mlp.Normal, StdDev: 0.1, Bias: mlp.BiasZero} // as ode_demo.py has it
	softplus := mlp.Dense(mlp.Softplus, 4, 32, 4)
	softplus.Activations[1] = mlp.Tanh
	demo := problem{
		name: "ode_demo", about: "From torchdiffeq's examples/ode_demo.py: f reads z³, z0 on its true spiral, 10 times of its 1000 on 0..25",
		spec: cube, init: small, batch: 20, times: linspace(0, 25, 1000)[:10], rtol: 1e-7, atol: 1e-9, z0: onSpiral(20),
	}
	list := []problem{
		demo,
		{
			name: "spiral", about: "SciML's spiral: f reads z³, z0 = (2, 0), 30 times on 0..1.5",
			spec: cube, init: small, batch: 1, times: linspace(0, 1.5, 30), rtol: 1e-7, atol: 1e-9,
			z0: func(*rand.Rand) []float64 { return []float64{2, 0} },
		},
		{
			name: "diffrax small", about: "From diffrax's benchmarks/small_neural_ode.py: softplus and a last tanh, on 0..100",
			spec: softplus, batch: 64, times: []float64{0, 100}, rtol: 1e-6, atol: 1e-6,
		},
	}
	for _, n := range problems.Networks() {
		list = append(list, problem{
			name: n.String(), about: "Tanh, weights and biases as torch.nn.Linear draws them, z0 standard normal",
			spec: n.Spec(), batch: n.Batch, times: n.Times, rtol: n.RTol, atol: n.RTol / 100, wide: n.Batch >= 128,
		})
	}
	return list
}

// linspace has the values that a float32 holds, so that all sides have the same.
func linspace(from, to float64, n int) []float64 {
	t := make([]float64, n)
	for i := range t {
		t[i] = float64(float32(from + (to-from)*float64(i)/float64(n-1)))
	}
	return t
}

// onSpiral draws n points of the solution of dz/dt = A·z³ that ode_demo.py learns, A =
// [-0.1 2; -2 -0.1] and z(0) = (2, 0), by Heun's method with 1000 steps.
func onSpiral(n int) func(*rand.Rand) []float64 {
	f := func(z [2]float64) [2]float64 {
		a, b := z[0]*z[0]*z[0], z[1]*z[1]*z[1]
		return [2]float64{-0.1*a - 2*b, 2*a - 0.1*b}
	}
	return func(r *rand.Rand) []float64 {
		const steps, h = 1000, 25.0 / 1000
		path := [][2]float64{{2, 0}}
		for z := path[0]; len(path) < steps; path = append(path, z) {
			k := f(z)
			l := f([2]float64{z[0] + h*k[0], z[1] + h*k[1]})
			z[0] += h / 2 * (k[0] + l[0])
			z[1] += h / 2 * (k[1] + l[1])
		}
		var z0 []float64
		for range n {
			z := path[r.IntN(len(path))]
			z0 = append(z0, z[0], z[1])
		}
		return z0
	}
}

// write makes the safetensors file that all sides read: the model, z0 [B, D], times [n]
// and targets [n, B, D] in the case's precision.
func (p *problem) write(path string) error {
	if p.double {
		return writeProblem[float64](p, path)
	}
	return writeProblem[float32](p, path)
}

func writeProblem[T mlp.Float](p *problem, path string) error {
	model, err := mlp.New[T](p.spec, p.init, 1)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	var z0 []float64
	if p.z0 != nil {
		z0 = p.z0(r)
	} else {
		for range p.batch * model.Dim() {
			z0 = append(z0, r.NormFloat64())
		}
	}
	// The targets lie around z0, turning with the time, so that the loss's gradient has
	// every component and is not small.
	var targets []float64
	for i, t := range p.times {
		span := (t - p.times[0]) / (p.times[len(p.times)-1] - p.times[0])
		for j, z := range z0 {
			targets = append(targets, z*math.Cos(span)+0.1*math.Sin(float64(i+j)))
		}
	}
	tensors := []safetensors.Tensor{
		safetensors.New("z0", []int{p.batch, model.Dim()}, convert[T](z0)),
		safetensors.New("times", []int{len(p.times)}, convert[T](p.times)),
		safetensors.New("targets", []int{len(p.times), p.batch, model.Dim()}, convert[T](targets)),
	}
	for i, l := range p.spec.Layers() {
		tensors = append(tensors,
			safetensors.New(weightName(i), []int{l.Out, l.In}, model.Weight(i)),
			safetensors.New(biasName(i), []int{l.Out}, model.Bias(i)))
	}
	return safetensors.WriteFile(path, tensors, nil)
}

func convert[T mlp.Float](x []float64) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}
