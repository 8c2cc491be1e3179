package train

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/learn"
)

// OptimizerKind is the formula by which a gradient g changes θ. γ is the learning
// rate times the schedule's factor, λ is WeightDecay, t counts updates from 1, all
// state starts at 0, and products and roots are element-wise.
type OptimizerKind uint8

const (
	// Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1):
	//
	//	g += λθ
	//	m  = β1 m + (1-β1) g
	//	v  = β2 v + (1-β2) g²
	//	θ -= γ (m/(1-β1ᵗ)) / (√(v/(1-β2ᵗ)) + ε)
	Adam = OptimizerKind(backend.Adam)
	// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) is Adam with
	// weight decay apart from the gradient: θ -= γλθ in place of g += λθ.
	AdamW = OptimizerKind(backend.AdamW)
	// RMSprop (Hinton 2012, Neural networks for machine learning, lecture 6):
	//
	//	g += λθ
	//	v  = α v + (1-α) g²
	//	a  = α a + (1-α) g                if Centered, else a stays 0
	//	s  = g / (√(v-a²) + ε)
	//	m  = μ m + s;  θ -= γ m           if μ > 0, else θ -= γ s
	RMSprop = OptimizerKind(backend.RMSprop)
	// SGD is gradient descent, with momentum μ, dampening τ and Nesterov's form
	// (Sutskever et al. 2013, On the importance of initialization and momentum):
	//
	//	g += λθ
	//	m  = μ m + (1-τ) g                m = g at t = 1
	//	θ -= γ (g + μ m) if Nesterov, else θ -= γ m
	SGD = OptimizerKind(backend.SGD)
)

var optimizerNames = []string{"adam", "adamw", "rmsprop", "sgd"}

func (k OptimizerKind) String() string { return enumString("OptimizerKind", optimizerNames, k) }

// Optimizer says how a gradient changes the parameters. Its zero value is Adam with
// its usual numbers. Formulas and defaults are those of torch.optim; a tiny number,
// such as 1e-300, stands for a zero where 0 means a default.
type Optimizer struct {
	Kind OptimizerKind
	// LR is the learning rate; 0 means 0.01 for RMSprop and 0.001 for the others.
	LR float64
	// WeightDecay is λ; 0 means 0.01 for AdamW and none for the others.
	WeightDecay float64

	Beta1, Beta2 float64 // Adam, AdamW; 0 means 0.9 and 0.999
	Alpha        float64 // RMSprop; 0 means 0.99
	Eps          float64 // ε of Adam, AdamW, RMSprop; 0 means 1e-8

	Momentum  float64 // μ of SGD, RMSprop
	Dampening float64 // τ of SGD
	Nesterov  bool    // SGD
	Centered  bool    // RMSprop
}

// OptimizerState is what an optimiser remembers between updates.
type OptimizerState[T backend.Float] struct {
	Step int64 // updates made
	// M is m, V is v and A is a of the formulas, length P; nil where not used.
	M, V, A []T
}

// NewOptimizerState is the state before the first update of p parameters.
func NewOptimizerState[T backend.Float](o Optimizer, p int) *OptimizerState[T] {
	s := &OptimizerState[T]{}
	adam := o.Kind == Adam || o.Kind == AdamW
	if adam || o.Momentum != 0 {
		s.M = make([]T, p)
	}
	if adam || o.Kind == RMSprop {
		s.V = make([]T, p)
	}
	if o.Kind == RMSprop && o.Centered {
		s.A = make([]T, p)
	}
	return s
}

// WithDefaults returns o with its defaults filled in.
func (o Optimizer) WithDefaults() Optimizer {
	def := func(p *float64, v float64) {
		if *p == 0 {
			*p = v
		}
	}
	switch o.Kind {
	case RMSprop:
		def(&o.LR, 0.01)
		def(&o.Alpha, 0.99)
		def(&o.Eps, 1e-8)
	case Adam, AdamW:
		def(&o.Beta1, 0.9)
		def(&o.Beta2, 0.999)
		def(&o.Eps, 1e-8)
	}
	if o.Kind == AdamW {
		def(&o.WeightDecay, 0.01)
	}
	def(&o.LR, 0.001)
	return o
}

// Validate returns what is wrong with o, if anything; a number that its kind does
// not use is wrong too.
func (o Optimizer) Validate() error {
	if int(o.Kind) >= len(optimizerNames) {
		return fmt.Errorf("train: Optimizer.Kind is %d; use Adam, AdamW, RMSprop or SGD", o.Kind)
	}
	adam := o.Kind == Adam || o.Kind == AdamW
	for _, f := range []struct {
		name       string
		value, end float64 // in [0, end)
		used       bool
		remedy     string
	}{
		{"LR", o.LR, math.Inf(1), true, ""},
		{"WeightDecay", o.WeightDecay, math.Inf(1), true, ""},
		{"Beta1", o.Beta1, 1, adam, "Adam or AdamW have it"},
		{"Beta2", o.Beta2, 1, adam, "Adam or AdamW have it"},
		{"Alpha", o.Alpha, 1, o.Kind == RMSprop, "RMSprop has it"},
		{"Eps", o.Eps, math.Inf(1), o.Kind != SGD, "the others have it"},
		{"Momentum", o.Momentum, math.Inf(1), !adam, "SGD and RMSprop have it; set Beta1 here"},
		{"Dampening", o.Dampening, math.Inf(1), o.Kind == SGD, "SGD has it"},
	} {
		if !(f.value >= 0 && f.value < f.end) {
			return fmt.Errorf("train: Optimizer.%s is %g; give a number from 0 to below %g", f.name, f.value, f.end)
		}
		if f.value != 0 && !f.used {
			return fmt.Errorf("train: Optimizer.%s is %g, but %v does not use it: %s", f.name, f.value, o.Kind, f.remedy)
		}
	}
	if o.Nesterov && (o.Kind != SGD || o.Momentum == 0 || o.Dampening != 0) {
		return fmt.Errorf("train: Optimizer.Nesterov needs SGD with Momentum and without Dampening, and got %v with %g and %g", o.Kind, o.Momentum, o.Dampening)
	}
	if o.Dampening != 0 && o.Momentum == 0 {
		return fmt.Errorf("train: Optimizer.Dampening is %g, but there is no Momentum to dampen; set both or none", o.Dampening)
	}
	if o.Centered && o.Kind != RMSprop {
		return fmt.Errorf("train: Optimizer.Centered is set, but %v does not use it: RMSprop does", o.Kind)
	}
	return nil
}

// Update makes one update of theta with the gradient grad, which it leaves as it
// is, at o.LR times factor. State and arithmetic of the elements are in T. It does
// not allocate.
func Update[T backend.Float](o Optimizer, factor float64, theta, grad []T, s *OptimizerState[T]) {
	o = o.WithDefaults()
	if len(grad) != len(theta) || s.M != nil && len(s.M) != len(theta) || s.V != nil && len(s.V) != len(theta) || s.A != nil && len(s.A) != len(theta) {
		panic("train: Update with slices of different lengths")
	}
	if int(o.Kind) >= len(optimizerNames) {
		panic("train: Update with an unknown optimizer")
	}
	s.Step++
	u := o.plain(s.Step, factor)
	learn.Update(&u, 1, theta, grad, learn.Memory[T]{M: s.M, V: s.V, A: s.A})
}

// plain is the update with number step by o, whose defaults are filled in, for those
// that compute.
func (o *Optimizer) plain(step int64, factor float64) backend.Optimizer {
	return backend.Optimizer{
		Kind: backend.OptimizerKind(o.Kind), Step: step, LR: o.LR * factor, WeightDecay: o.WeightDecay,
		Beta1: o.Beta1, Beta2: o.Beta2, Alpha: o.Alpha, Eps: o.Eps,
		Momentum: o.Momentum, Dampening: o.Dampening, Nesterov: o.Nesterov,
	}
}

// ClipNorm scales grad down to the Euclidean norm limit if it is longer, as
// torch.nn.utils.clip_grad_norm_ does: by limit/(norm+1e-6). It returns the norm
// before. A gradient that is not finite is left as it is.
func ClipNorm[T backend.Float](grad []T, limit float64) (norm float64) {
	norm = Norm(grad)
	if c := learn.Clip(norm, limit); c < 1 {
		for i, g := range grad {
			grad[i] = T(c * float64(g))
		}
	}
	return norm
}

// Norm is the Euclidean norm of x in float64, summed in ascending order. It
// overflows only if the norm itself does.
func Norm[T backend.Float](x []T) float64 { return learn.Norm(x) }
