package train_test

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// rotation is dz/dt = ω·(-z₂, z₁), θ = ω.
func rotation[T field.Number](_ T, z, theta, dz []T) {
	dz[0], dz[1] = -theta[0]*z[1], theta[0]*z[0]
}

// circles is ten turns with ω = 2, seen 251 times.
func circles() train.Series[float64] {
	var s train.Series[float64]
	for i := range 251 {
		t := 0.125 * float64(i)
		s.Times = append(s.Times, t)
		s.Values = append(s.Values, math.Cos(2*t), math.Sin(2*t))
	}
	s.Z0 = s.Values[:2]
	return s
}

// The speed of a rotation, without a solve: nearly, as smoothing takes some of it.
func ExampleNewCollocation() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	f, series := field.New(2, []float64{0.1}, rotation[float64], rotation[field.Dual]), circles()
	z, dz, err := train.Smooth(series, 0.4)
	check(err)
	c, err := train.NewCollocation(dev, f, series.Times, z, dz, train.Loss{})
	check(err)
	defer c.Close()
	res, err := train.LBFGS(ctx, c, f.Params(), train.LBFGSSettings[float64]{})
	check(err)
	fmt.Printf("ω = %.2f\n", res.Best[0])
	// Output: ω = 2.03
}

// The same by segments of five steps each.
func ExampleNewShooting() {
	ctx, dev := context.Background(), solver.Auto[float64]()
	defer dev.Close()
	f := field.New(2, []float64{0.1}, rotation[float64], rotation[field.Dual])
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample})
	check(err)
	defer s.Close()
	o, err := train.NewShooting(s, []train.Series[float64]{circles()}, train.ShootingSettings{})
	check(err)
	defer o.Close()
	theta, err := o.Params()
	check(err)
	res, err := train.LBFGS(ctx, o, theta, train.LBFGSSettings[float64]{})
	check(err)
	fmt.Printf("ω = %.4f\n", res.Best[0])
	// Output: ω = 2.0000
}
