package latent_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/seed-5f5774c8/neuralode/latent"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// Oscillations of unknown amplitude and phase, each seen at 8 times of its own in 0..5:
// the model says how a new one goes on.
func Example() {
	ctx, dev := context.Background(), solver.Auto[float32]()
	defer dev.Close()
	r := rand.New(rand.NewPCG(1, 2))
	wave := func() (s latent.Series[float32], at func(t float64) float64) {
		a, b := r.NormFloat64(), r.NormFloat64()
		at = func(t float64) float64 { return a*math.Cos(t) + b*math.Sin(t) }
		t := 0.0
		for range 8 {
			t += 0.1 + r.Float64()
			s.Times = append(s.Times, t)
			s.Values = append(s.Values, float32(at(t)+0.1*r.NormFloat64()))
		}
		return s, at
	}
	var series []latent.Series[float32]
	for range 200 {
		s, _ := wave()
		series = append(series, s)
	}

	f, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1) // linear
	check(err)
	decoder, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 1), mlp.Init{}, 2)
	check(err)
	m, err := latent.New(dev, f, decoder, latent.Settings{Noise: 0.1})
	check(err)
	defer m.Close()
	obj, err := latent.NewELBO(m, series)
	check(err)
	theta, err := m.Params()
	check(err)
	res, err := train.Fit(ctx, obj, theta, train.Settings[float32]{
		Optimizer: train.Optimizer{LR: 0.02}, Schedule: train.Schedule{Kind: train.Cosine},
		BatchSize: 10, Epochs: 60, ClipNorm: 100,
	})
	check(err)
	check(m.SetParams(res.Theta))

	sum, n := 0.0, 0
	for range 50 {
		s, at := wave()
		mean, _, err := m.Encode([]latent.Series[float32]{s})
		check(err)
		times := []float64{6, 7, 8}
		x, err := m.Decode(ctx, mean, times)
		check(err)
		for i, t := range times {
			sum += math.Pow(float64(x[i])-at(t), 2)
			n++
		}
	}
	fmt.Println("waves of amplitude 1 or so are foretold within 0.2:", math.Sqrt(sum/float64(n)) < 0.2)
	// Output: waves of amplitude 1 or so are foretold within 0.2: true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
