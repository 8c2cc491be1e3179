package mlp

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// WeightInit is the distribution that weights are drawn from, with the names and
// formulas of torch.nn.init. fan_in is the number of columns of the weight, the
// time's included, and fan_out the number of rows.
type WeightInit uint8

const (
	// TorchLinear is what torch.nn.Linear does: uniform in ±1/√fan_in, which is
	// kaiming_uniform_ with a = √5. The gain does not enter.
	TorchLinear WeightInit = iota
	// XavierUniform is uniform in ±gain·√(6/(fan_in+fan_out))
	// (Glorot & Bengio 2010, eq. 16).
	XavierUniform
	// XavierNormal is normal with σ = gain·√(2/(fan_in+fan_out))
	// (Glorot & Bengio 2010, eq. 12).
	XavierNormal
	// KaimingUniform is uniform in ±gain·√(3/fan_in) (He et al. 2015, eq. 10).
	KaimingUniform
	// KaimingNormal is normal with σ = gain/√fan_in (He et al. 2015, eq. 10).
	KaimingNormal
	// Normal is normal with σ = Init.StdDev.
	Normal
)

var weightInitNames = []string{
	TorchLinear:    "torch_linear",
	XavierUniform:  "xavier_uniform",
	XavierNormal:   "xavier_normal",
	KaimingUniform: "kaiming_uniform",
	KaimingNormal:  "kaiming_normal",
	Normal:         "normal",
}

// String is the name that [ParseWeightInit] reads.
func (w WeightInit) String() string { return enumString("WeightInit", weightInitNames, w) }

// ParseWeightInit reads a name as String writes it: torch_linear,
// xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal or normal.
func ParseWeightInit(s string) (WeightInit, error) {
	return enumParse[WeightInit]("weight initialiser", weightInitNames, s)
}

// MarshalText is the name; it fails for a value that is none of the constants.
func (w WeightInit) MarshalText() ([]byte, error) {
	return enumMarshal("weight initialiser", weightInitNames, w)
}

// UnmarshalText reads a name as [ParseWeightInit] does.
func (w *WeightInit) UnmarshalText(text []byte) error {
	v, err := ParseWeightInit(string(text))
	if err == nil {
		*w = v
	}
	return err
}

// BiasInit is how biases are drawn.
type BiasInit uint8

const (
	BiasTorchLinear BiasInit = iota // uniform in ±1/√fan_in, as torch.nn.Linear does
	BiasZero                        // 0
)

var biasInitNames = []string{BiasTorchLinear: "torch_linear", BiasZero: "zero"}

// String is the name that [ParseBiasInit] reads.
func (b BiasInit) String() string { return enumString("BiasInit", biasInitNames, b) }

// ParseBiasInit reads a name as String writes it: torch_linear or zero.
func ParseBiasInit(s string) (BiasInit, error) {
	return enumParse[BiasInit]("bias initialiser", biasInitNames, s)
}

// MarshalText is the name; it fails for a value that is none of the constants.
func (b BiasInit) MarshalText() ([]byte, error) {
	return enumMarshal("bias initialiser", biasInitNames, b)
}

// UnmarshalText reads a name as [ParseBiasInit] does.
func (b *BiasInit) UnmarshalText(text []byte) error {
	v, err := ParseBiasInit(string(text))
	if err == nil {
		*b = v
	}
	return err
}

// Init says how [New] draws parameters. Its zero value is what torch.nn.Linear
// does for weights and biases.
type Init struct {
	Weight WeightInit
	// Gain scales Xavier and Kaiming weights; [Activation.Gain] recommends one.
	// 0 is PyTorch's default: 1 for Xavier, √2 for Kaiming.
	Gain float64
	// StdDev is σ of Normal; 0 is PyTorch's default of 1.
	StdDev float64
	Bias   BiasInit
	// ZeroLast makes weight and bias of the last layer 0, so that an untrained
	// f is σ(0) everywhere: dz/dt = 0 if the last activation is Identity.
	ZeroLast bool
}

// Validate returns what is wrong with i, if anything.
func (i Init) Validate() error {
	if err := enumCheck("weight initialiser", weightInitNames, i.Weight); err != nil {
		return err
	}
	if err := enumCheck("bias initialiser", biasInitNames, i.Bias); err != nil {
		return err
	}
	if !(i.Gain >= 0) || math.IsInf(i.Gain, 0) {
		return fmt.Errorf("mlp: Init.Gain is %v; give a positive number, or 0 for the default", i.Gain)
	}
	if !(i.StdDev >= 0) || math.IsInf(i.StdDev, 0) {
		return fmt.Errorf("mlp: Init.StdDev is %v; give a positive number, or 0 for the default", i.StdDev)
	}
	return nil
}

// Gain is the gain that torch.nn.init.calculate_gain recommends for weights in
// front of a: 5/3 for Tanh, √2 for ReLU, √(2/(1+0.01²)) for LeakyReLU, and 1 for
// the others, of which PyTorch names only Identity and Sigmoid.
func (a Activation) Gain() float64 {
	switch a {
	case Tanh:
		return 5.0 / 3
	case ReLU:
		return math.Sqrt2
	case LeakyReLU:
		return math.Sqrt(2 / (1 + leakySlope*leakySlope))
	}
	return 1
}

// scale is the distribution of a layer's weights: its half-width if uniform, its
// standard deviation if normal.
func (i Init) scale(l Layer) (scale float64, normal bool) {
	in, out := float64(l.In), float64(l.Out)
	gain := func(def float64) float64 {
		if i.Gain != 0 {
			return i.Gain
		}
		return def
	}
	switch i.Weight {
	case XavierUniform:
		return gain(1) * math.Sqrt(6/(in+out)), false
	case XavierNormal:
		return gain(1) * math.Sqrt(2/(in+out)), true
	case KaimingUniform:
		return gain(math.Sqrt2) * math.Sqrt(3/in), false
	case KaimingNormal:
		return gain(math.Sqrt2) / math.Sqrt(in), true
	case Normal:
		if i.StdDev != 0 {
			return i.StdDev, true
		}
		return 1, true
	}
	return 1 / math.Sqrt(in), false // TorchLinear
}

// fill sets every parameter of a valid spec, in the order of θ. Numbers are
// drawn even where they are not used, so that Bias and ZeroLast change nothing
// but the parameters they are about.
func fill(spec Spec, init Init, seed uint64, set func(i int, v float64)) {
	const stream = 0x6e6575726f6465 // any constant; it sets apart other users of one seed
	r := rand.New(rand.NewPCG(seed, stream))
	uniform := func(bound float64) float64 { return bound * (2*r.Float64() - 1) }
	layers := spec.Layers()
	for n, l := range layers {
		zero := init.ZeroLast && n == len(layers)-1
		scale, normal := init.scale(l)
		for i := l.W; i < l.B; i++ {
			v := 0.0
			if normal {
				v = scale * r.NormFloat64()
			} else {
				v = uniform(scale)
			}
			if zero {
				v = 0
			}
			set(i, v)
		}
		for i := l.B; i < l.B+l.Out; i++ {
			v := uniform(1 / math.Sqrt(float64(l.In)))
			if zero || init.Bias == BiasZero {
				v = 0
			}
			set(i, v)
		}
	}
}
