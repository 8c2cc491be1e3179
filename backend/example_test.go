package backend_test

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Steps of Euler's method for z' = -z by the verbs themselves: each is of the size that
// the clock has, and the host learns nothing before Poll.
func Example() {
	var dev backend.Backend[float64] = cpu.New[float64]()
	defer dev.Close()
	f, err := dev.Bind(&field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = -z[0] }})
	check(err)
	defer f.Close()
	clk, err := dev.NewClock(1)
	check(err)
	defer clk.Close()
	var v [3]backend.Vec[float64] // y, y', f(y) of two samples
	for i := range v {
		v[i], err = dev.NewVec(1, 2, 1)
		check(err)
	}
	y, next, k := v[0], v[1], v[2]

	dev.Upload(y, []float64{1, 2})
	dev.Start(clk, backend.Span{T0: 0, Stops: []float64{1}, H0: 0.25})
	now := backend.At{Clock: clk, Rows: backend.Running}
	for {
		f.Eval(k, now, y)
		dev.Combine(next, y, now, []float64{1}, []backend.Vec[float64]{k})
		dev.ErrorRatio(clk, backend.Tolerance{Rel: 1, Abs: 1}, nil, nil, []backend.Part[float64]{{Y0: y, Y1: next}})
		dev.Advance(clk, backend.Control{Fixed: true, Order: 2, Safety: 0.9, MinFactor: 0.2, MaxFactor: 10})
		dev.Commit(clk, backend.Accepted, []backend.Move[float64]{{Dst: y, Src: next}})
		p, err := dev.Poll(clk)
		check(err)
		if p.Running == 0 {
			break
		}
	}
	z := make([]float64, 2)
	check(dev.Download(z, y))
	fmt.Println(z) // (1 - 0.25)⁴ of what they were
	// Output:
	// [0.31640625 0.6328125]
}
