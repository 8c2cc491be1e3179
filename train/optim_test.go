package train

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func TestUpdate_MatchesPyTorch(t *testing.T) {
	// Eight updates of a few roundings each. In float32, an update by RMSprop or Adam
	// with a tiny v amplifies the rounding of g (6e-8) by √v+ε once more.
	t.Run("float64", func(t *testing.T) { updateMatchesPyTorch[float64](t, 1e-14) })
	t.Run("float32", func(t *testing.T) { updateMatchesPyTorch[float32](t, 2e-6) })
}

func updateMatchesPyTorch[T backend.Float](t *testing.T, tol float64) {
	for _, c := range readTorch(t).Optimizers {
		o := Optimizer{Kind: kind[OptimizerKind](t, optimizerNames, c.Kind)}
		var betas [2]float64
		fields := map[string]any{
			"lr": &o.LR, "weight_decay": &o.WeightDecay, "alpha": &o.Alpha, "eps": &o.Eps, "momentum": &o.Momentum,
			"dampening": &o.Dampening, "nesterov": &o.Nesterov, "centered": &o.Centered, "betas": &betas,
		}
		for name, value := range c.Options {
			if fields[name] == nil {
				t.Fatalf("unknown option %q", name)
			}
			if err := json.Unmarshal(value, fields[name]); err != nil {
				t.Fatal(err)
			}
		}
		o.Beta1, o.Beta2 = betas[0], betas[1]
		if err := o.Validate(); err != nil {
			t.Error(err)
		}
		theta := narrow[T](c.Start)
		s := NewOptimizerState[T](o, len(theta))
		for i, grad := range c.Grads {
			Update(o, 1, theta, narrow[T](grad), s)
			for j, want := range c.Thetas[i] {
				if !near(float64(theta[j]), want, tol, tol) {
					t.Errorf("%+v: update %d: parameter %d is %v, want %v", o, i, j, theta[j], want)
				}
			}
		}
		if s.Step != int64(len(c.Grads)) {
			t.Errorf("%d updates counted", s.Step)
		}
	}
}

// A factor of the learning rate is the same as another learning rate, also in the
// decoupled weight decay.
func TestUpdate_FactorScalesLR(t *testing.T) {
	for _, k := range []OptimizerKind{Adam, AdamW, RMSprop, SGD} {
		a, b := Optimizer{Kind: k, LR: 0.5}, Optimizer{Kind: k, LR: 0.125}
		x, y, g := []float64{1, -2}, []float64{1, -2}, []float64{0.3, 0.7}
		Update(a, 0.25, x, g, NewOptimizerState[float64](a, 2))
		Update(b, 1, y, g, NewOptimizerState[float64](b, 2))
		if !slices.Equal(x, y) || x[0] == 1 {
			t.Errorf("%v: %v and %v", k, x, y)
		}
	}
}

func TestUpdate_DoesNotAllocate(t *testing.T) {
	theta, grad := make([]float32, 1000), make([]float32, 1000)
	for _, o := range []Optimizer{{}, {Kind: AdamW}, {Kind: RMSprop, Centered: true, Momentum: 0.9}, {Kind: SGD, Momentum: 0.9, Nesterov: true}} {
		s := NewOptimizerState[float32](o, len(theta))
		if n := testing.AllocsPerRun(10, func() {
			ClipNorm(grad, 1)
			Update(o, 0.5, theta, grad, s)
		}); n != 0 {
			t.Errorf("%v: %v allocations", o.Kind, n)
		}
	}
}

func TestUpdate_PanicsOnLengths(t *testing.T) {
	defer func() {
		if r := recover(); r != "train: Update with slices of different lengths" {
			t.Errorf("recovered %v", r)
		}
	}()
	o := Optimizer{}
	Update(o, 1, make([]float64, 2), make([]float64, 2), NewOptimizerState[float64](o, 3))
}

func TestOptimizer_Validate(t *testing.T) {
	for _, c := range []struct {
		o    Optimizer
		want string
	}{
		{Optimizer{Kind: 7}, "Optimizer.Kind is 7; use Adam"},
		{Optimizer{LR: -1}, "Optimizer.LR is -1; give a number from 0"},
		{Optimizer{LR: math.NaN()}, "Optimizer.LR is NaN"},
		{Optimizer{LR: math.Inf(1)}, "Optimizer.LR is +Inf"},
		{Optimizer{Beta1: 1}, "Optimizer.Beta1 is 1; give a number from 0 to below 1"},
		{Optimizer{Kind: SGD, Beta2: 0.5}, "Optimizer.Beta2 is 0.5, but sgd does not use it: Adam or AdamW have it"},
		{Optimizer{Momentum: 0.9}, "Optimizer.Momentum is 0.9, but adam does not use it"},
		{Optimizer{Kind: SGD, Eps: 1e-8}, "Optimizer.Eps is 1e-08, but sgd"},
		{Optimizer{Kind: AdamW, Alpha: 0.9}, "Optimizer.Alpha is 0.9, but adamw"},
		{Optimizer{Kind: SGD, Dampening: 0.1}, "there is no Momentum to dampen"},
		{Optimizer{Kind: SGD, Nesterov: true}, "Optimizer.Nesterov needs SGD with Momentum"},
		{Optimizer{Kind: SGD, Nesterov: true, Momentum: 0.9, Dampening: 0.1}, "Optimizer.Nesterov needs SGD"},
		{Optimizer{Nesterov: true}, "Optimizer.Nesterov needs SGD"},
		{Optimizer{Kind: SGD, Centered: true}, "Optimizer.Centered is set, but sgd"},
	} {
		wantError(t, c.o.Validate(), "train: ", c.want)
	}
	for k := range optimizerNames {
		if err := (Optimizer{Kind: OptimizerKind(k)}).WithDefaults().Validate(); err != nil {
			t.Error(err)
		}
	}
	if s := fmt.Sprint(RMSprop, OptimizerKind(9)); s != "rmsprop OptimizerKind(9)" {
		t.Error(s)
	}
}

func TestClipNorm_MatchesPyTorch(t *testing.T) {
	for _, c := range readTorch(t).Clipping {
		grad := slices.Clone(c.Grad)
		if norm := ClipNorm(grad, c.Limit); !near(norm, c.Norm, 1e-15, 0) {
			t.Errorf("norm %v, want %v", norm, c.Norm)
		}
		for i := range grad {
			if !near(grad[i], c.Clipped[i], 1e-15, 0) {
				t.Errorf("limit %v: %v, want %v", c.Limit, grad, c.Clipped)
			}
		}
	}
}

// The norm neither overflows nor vanishes when only its squares do.
func TestNorm_Extremes(t *testing.T) {
	for _, scale := range []float64{1e200, 1e-200, 5e-324, 1e300} {
		if got, want := Norm([]float64{3 * scale, 4 * scale}), 5*scale; !near(got, want, 1e-15, 0) {
			t.Errorf("scale %g: %g, want %g", scale, got, want)
		}
	}
	big := []float64{3e200, 4e200}
	if norm := ClipNorm(big, 1); !near(norm, 5e200, 1e-15, 0) || !near(big[0], 0.6, 1e-15, 0) || !near(big[1], 0.8, 1e-15, 0) {
		t.Errorf("clipped to %v", big)
	}
	if got := Norm([]float32{3e30, 4e30}); !near(got, 5e30, 1e-7, 0) {
		t.Errorf("%g", got)
	}
	if got := Norm([]float64{0, 0}); got != 0 {
		t.Errorf("%g", got)
	}
	bad := []float64{1, math.NaN(), 2}
	if norm := ClipNorm(bad, 0.1); !math.IsNaN(norm) || bad[0] != 1 {
		t.Errorf("%v, %v", norm, bad)
	}
	bad[1] = math.Inf(-1)
	if norm := ClipNorm(bad, 0.1); !math.IsInf(norm, 1) || bad[0] != 1 {
		t.Errorf("%v, %v", norm, bad)
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, o := range []Optimizer{{}, {Kind: AdamW}, {Kind: RMSprop}, {Kind: SGD, Momentum: 0.9}} {
		b.Run(o.Kind.String()+"/f32/P=100000", func(b *testing.B) { benchmarkUpdate[float32](b, o) })
		b.Run(o.Kind.String()+"/f64/P=100000", func(b *testing.B) { benchmarkUpdate[float64](b, o) })
	}
}

func benchmarkUpdate[T backend.Float](b *testing.B, o Optimizer) {
	theta, grad := make([]T, 100_000), slices.Repeat([]T{0.1}, 100_000)
	s := NewOptimizerState[T](o, len(theta))
	b.ReportAllocs()
	for b.Loop() {
		ClipNorm(grad, 1)
		Update(o, 1, theta, grad, s)
	}
}
