package main

import (
	"context"
	"fmt"
	"math"
	"os"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// arrays are results by name: y [n, B, D], dz0 [B, D], dtheta [P], losses.
type arrays map[string][]float64

// checkedUpdates is how many losses of a training run are compared.
const checkedUpdates = 3

func (a arrays) write(path string) error {
	var tensors []safetensors.Tensor
	for _, name := range []string{"y", "dz0", "dtheta", "losses"} {
		if x, ok := a[name]; ok {
			tensors = append(tensors, safetensors.New(name, []int{len(x)}, x))
		}
	}
	return safetensors.WriteFile(path, tensors, nil)
}

func readArrays(path string) (arrays, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := safetensors.Read(raw)
	if err != nil {
		return nil, err
	}
	a := arrays{}
	for _, t := range f.Tensors {
		x := make([]float64, t.Len())
		if err := safetensors.Floats(x, t); err != nil {
			return nil, err
		}
		a[t.Name] = x
	}
	return a, nil
}

// tightening is how much smaller the reference's tolerances are than the case's.
const tightening = 1e-2

// reference computes what a task should give: in float64, with tolerances a hundred
// times smaller. All sides are compared with it, this library's own too.
func reference(ctx context.Context, p *problem, file string, t task) (arrays, error) {
	c := p.caseSpec(file)
	c.Double = true
	c.RTol, c.ATol = c.RTol*tightening, c.ATol*tightening
	j, err := newJob[float64](*c, t, "joint/discrete")
	if err != nil {
		return nil, err
	}
	defer j.close()
	a, _, err := j.check(ctx)
	return a, err
}

// allowed is the largest relative difference, in the Euclidean norm, from the reference.
//
// A tolerance bounds the error of one step, in relation to RTol·|z| + ATol; up to some
// ten steps add up, and what a step errs is amplified on the way, the more in a gradient,
// which is the product of all steps' Jacobians: a hundred tolerances. Below that is the
// rounding of as many operations as a solve has one after the other, some thousand in
// float32's 1.2e-7. A wrong weight, activation, time or loss makes a difference of 1e-2
// and more.
func (p *problem) allowed() float64 {
	eps := 0x1p-23
	if p.double {
		eps = 0x1p-52
	}
	return 100*(p.rtol+p.atol) + 1000*eps
}

// difference is the largest relative difference of got's arrays from want's, which must
// have the same names and lengths.
func difference(got, want arrays) (float64, error) {
	worst := 0.0
	for name, w := range want {
		g := got[name]
		if len(g) != len(w) {
			return 0, fmt.Errorf("%s has %d elements, want %d", name, len(g), len(w))
		}
		var sum, norm float64
		for i := range w {
			sum += (g[i] - w[i]) * (g[i] - w[i])
			norm += w[i] * w[i]
		}
		worst = max(worst, math.Sqrt(sum/norm)) // NaN if one is
	}
	return worst, nil
}

// agree compares a side's results with the reference.
func (p *problem) agree(got, want arrays) (float64, error) {
	d, err := difference(got, want)
	if err == nil && !(d <= p.allowed()) {
		err = fmt.Errorf("differs from the reference by %.1e, more than %.1e", d, p.allowed())
	}
	return d, err
}
