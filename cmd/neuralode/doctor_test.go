package main

import (
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
)

func TestDoctor(t *testing.T) {
	var d diagnosis
	if err := json.Unmarshal([]byte(succeed(t, "doctor", "--json")), &d); err != nil {
		t.Fatal(err)
	}
	if !d.OK || len(d.Trials) != 2 || d.CPU.Instructions != simd.Level() || d.CUDA.Built != gpu.Built || d.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", d)
	}
	for _, r := range d.Trials {
		if r.Problem != "" || r.Backend == "" || r.Why == "" || r.Error == 0 || r.GradientError == 0 {
			t.Errorf("%+v", r)
		}
	}
	if out := succeed(t, "doctor"); !strings.Contains(out, "float64: "+d.Trials[1].Backend) || strings.Count(out, "trial passed") != 2 {
		t.Errorf("it prints\n%s", out)
	}
}

// A wrong solution, a wrong gradient and a NaN are found.
func TestDoctor_Judges(t *testing.T) {
	e := math.Exp(-1)
	for _, c := range []struct {
		d             decay
		err, gradient float64
	}{
		{decay{z: []float64{e, 2 * e}, dz0: []float64{e, e}, dk: 3 * e}, 0, 0},
		{decay{z: []float64{e, 3 * e}, dz0: []float64{e, e}, dk: 3 * e}, 0.5, 0},
		{decay{z: []float64{e, 2 * e}, dz0: []float64{e, 0}, dk: 3 * e}, 0, 1},
		{decay{z: []float64{e, 2 * e}, dz0: []float64{e, e}, dk: -3 * e}, 0, 2},
	} {
		var r trial
		if r.judge(&c.d); math.Abs(r.Error-c.err) > 1e-15 || math.Abs(r.GradientError-c.gradient) > 1e-15 {
			t.Errorf("%+v: errors %g and %g", c.d, r.Error, r.GradientError)
		}
	}
	var r trial
	if r.judge(&decay{z: []float64{math.NaN(), 2 * e}, dz0: []float64{e, e}, dk: 3 * e}); r.Error <= 1 {
		t.Errorf("NaN passes: %+v", r)
	}
}
