package adjoint

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// timeGradients computes dL/dt for all times, from f at the outputs; g.Z0 is a(t0)
// without the cotangent at t0, which does not depend on t0.
func timeGradients[T backend.Float](d *solver.Device[T], sol *solver.Solution[T], dLdz []T, g *Gradient[T]) (grad []float64, err error) {
	dev, dim := d.Backend, sol.Dim
	lanes, count := 1, 0
	if sol.Samples != nil {
		lanes = sol.Batch
	}
	for b := range sol.Batch {
		count = max(count, len(sol.SampleTimes(b)))
	}
	state, err := dev.NewVec(1, sol.Batch, dim)
	if err != nil {
		return nil, err
	}
	defer dev.Free(state)
	slopes, err := dev.NewVec(count, sol.Batch, dim)
	if err != nil {
		return nil, err
	}
	defer dev.Free(slopes)
	clk, err := dev.NewClock(lanes)
	if err != nil {
		return nil, err
	}
	defer clk.Close()
	host := make([]T, count*sol.Batch*dim)
	cot := func(i, b int) []T { return dLdz[sol.Row(i, b)*dim:][:dim] }

	grad = make([]float64, len(sol.Y)/dim)
	if sol.Samples == nil {
		grad = make([]float64, len(sol.Times))
	}
	spans := make([]backend.Span, lanes)
	for i := range count {
		needed := false
		for b := range sol.Batch {
			ts := sol.SampleTimes(b)
			at := min(i, len(ts)-1)
			copy(host[b*dim:], sol.Sample(at, b))
			if lanes > 1 || b == 0 {
				// A span is needed for the clock to show a time; nothing is solved over it.
				spans[min(b, lanes-1)] = backend.Span{T0: ts[at], Stops: []float64{math.Nextafter(ts[at], math.Inf(1))}, H0: 1}
			}
			wanted := i == 0
			for _, v := range cot(at, b) {
				wanted = wanted || at == i && v != 0
			}
			if masked := g.Masked != nil && g.Masked[b]; masked || i >= len(ts) || !wanted {
				if lanes > 1 {
					t := spans[b].T0
					spans[b].Stops = []float64{t} // done at once
				}
				continue
			}
			needed = true
		}
		if !needed {
			continue
		}
		dev.Upload(state, host[:sol.Batch*dim])
		dev.Start(clk, spans...)
		d.Field.Eval(slopes.Block(i), backend.At{Clock: clk, Rows: backend.Running}, state)
	}
	if err := dev.Download(host, slopes); err != nil {
		return nil, err
	}
	for i := range count {
		for b := range sol.Batch {
			if i >= len(sol.SampleTimes(b)) || g.Masked != nil && g.Masked[b] {
				continue
			}
			c, sign, to := cot(i, b), 1.0, i
			if i == 0 {
				c, sign = g.Z0[b*dim:][:dim], -1
			}
			if sol.Samples != nil {
				to = sol.Row(i, b)
			}
			for j, v := range host[(i*sol.Batch+b)*dim:][:dim] {
				if c[j] != 0 { // an output that was not reached has no slope
					grad[to] += sign * float64(c[j]) * float64(v)
				}
			}
		}
	}
	return grad, nil
}
