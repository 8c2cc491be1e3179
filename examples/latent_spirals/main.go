// Command latent_spirals fits latent ODEs to noisy spirals seen at random times, and asks
// how they go on: section 5.1 of Chen et al. 2018, Neural ordinary differential equations,
// arXiv 1806.07366.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/latent"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

func main() {
	updates := flag.Int("updates", 20_000, "of each of the three fits")
	noise := flag.Float64("noise", 0.1, "standard deviation of the noise on both coordinates")
	seed := flag.Uint64("seed", 1, "chooses the spirals, the times and the noise")
	example.Main("latent_spirals", func(ctx context.Context, e *example.Env) error {
		return run(ctx, e, example.Pick(e, 60, *updates), *noise, *seed)
	})
}

const (
	grid   = 1000        // points of a whole spiral
	end    = 6 * math.Pi // units of time that it takes
	window = 100         // points of which some are seen, and points after them to foretell
	batch  = 50
)

// spiral is one of the two of torchdiffeq's examples/latent_ode.py at time t: clockwise
// inwards to outwards around (-5, 0), or counter-clockwise around (5, 0).
func spiral(clockwise bool, t float64) (x, y float64) {
	if clockwise {
		angle := end + 1 - t
		return 0.3*50/angle*math.Cos(angle) - 5, 0.3 * 50 / angle * math.Sin(angle)
	}
	return 0.3*t*math.Cos(t) + 5, 0.3 * t * math.Sin(t)
}

// piece is a part of a spiral: 2·window points without noise, times from 0 on.
type piece struct {
	inner  bool      // it goes on where other pieces begin
	points []float32 // [2·window, 2]
	seen   latent.Series[float32]
}

func at(i int) float64 { return end * float64(i) / (grid - 1) }

// pieces draws n pieces, half of them clockwise, each with that many seen points.
func pieces(r *rand.Rand, n, seen int, noise float64) []piece {
	list := make([]piece, n)
	for k := range list {
		p := &list[k]
		start := window + r.IntN(grid-3*window+1) // as there, not from the very beginning
		p.inner = start <= grid-4*window
		for i := range 2 * window {
			x, y := spiral(k%2 == 0, at(start+i))
			p.points = append(p.points, float32(x), float32(y))
		}
		order := r.Perm(window)[:seen]
		slices.Sort(order)
		for _, i := range order {
			p.seen.Times = append(p.seen.Times, at(i))
			for c := range 2 {
				p.seen.Values = append(p.seen.Values, p.points[2*i+c]+float32(noise*r.NormFloat64()))
			}
		}
	}
	return list
}

func run(ctx context.Context, e *example.Env, updates int, noise float64, seed uint64) error {
	var shown []piece
	var courses [][]float32 // foretold, of each
	for _, seen := range []int{30, 50, 100} {
		r := rand.New(rand.NewPCG(seed, uint64(seen)))
		training := pieces(r, example.Pick(e, 100, 1000), seen, noise)
		test := pieces(r, example.Pick(e, 20, 200), seen, noise)
		x, err := learn(ctx, e, training, test, updates, noise, fmt.Sprintf("%d of 100", seen))
		if err != nil {
			return err
		}
		// Squared errors within the window, after it, and after it for inner pieces.
		var within, after, inner mean
		for k, p := range test {
			for i, v := range p.points {
				d := float64(x[k*len(p.points)+i] - v)
				switch {
				case i < 2*window:
					within.add(d * d)
				default:
					after.add(d * d)
					if p.inner {
						inner.add(d * d)
					}
				}
			}
		}
		e.Found(fmt.Sprintf("rmse_within_%d", seen), math.Sqrt(within.of()))
		e.Found(fmt.Sprintf("rmse_after_%d", seen), math.Sqrt(after.of()))
		e.Found(fmt.Sprintf("rmse_after_inner_%d", seen), math.Sqrt(inner.of()))
		shown, courses = append(shown, test[0], test[1]), append(courses, x[:4*window], x[4*window:8*window])
	}
	return draw(e.File("latent_spirals.png"), shown, courses)
}

// mean is that of what was added.
type mean struct{ sum, n float64 }

func (m *mean) add(x float64) { m.sum, m.n = m.sum+x, m.n+1 }
func (m *mean) of() float64   { return m.sum / m.n }

// learn fits a latent ODE and returns what it says of the test pieces, all of their
// points, [len(test), 2·window, 2].
func learn(ctx context.Context, e *example.Env, training, test []piece, updates int, noise float64, title string) ([]float32, error) {
	series := func(list []piece) (s []latent.Series[float32]) {
		for _, p := range list {
			s = append(s, p.seen)
		}
		return s
	}
	dev := cpu.New[float32]()
	defer dev.Close()
	f, err := mlp.New[float32](mlp.Dense(mlp.ELU, 4, 20, 4), mlp.Init{}, 1)
	if err != nil {
		return nil, err
	}
	decoder, err := mlp.New[float32](mlp.Dense(mlp.ReLU, 4, 20, 2), mlp.Init{}, 2)
	if err != nil {
		return nil, err
	}
	m, err := latent.New(dev, f, decoder, latent.Settings{
		Hidden: 25, Noise: noise, Solver: solver.Settings{Method: solver.Dopri5, RTol: 1e-3, ATol: 1e-4},
	})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	obj, err := latent.NewELBO(m, series(training))
	if err != nil {
		return nil, err
	}
	theta, err := m.Params()
	if err != nil {
		return nil, err
	}
	res, err := train.Fit(ctx, obj, theta, train.Settings[float32]{
		Optimizer: train.Optimizer{Kind: train.Adam, LR: 0.01},
		Schedule:  train.Schedule{Kind: train.Cosine},
		ClipNorm:  1000, BatchSize: batch, Steps: updates, Progress: e.Bar, Title: title,
	})
	if err != nil {
		return nil, err
	}
	if err := m.SetParams(res.Theta); err != nil {
		return nil, err
	}
	mean, _, err := m.Encode(series(test))
	if err != nil {
		return nil, err
	}
	times := make([]float64, 2*window)
	for i := range times {
		times[i] = at(i)
	}
	return m.Decode(ctx, mean, times)
}
