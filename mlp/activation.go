package mlp

// Activation is the function σ that a layer applies to every component. Names
// and definitions are those of PyTorch.
type Activation uint8

// The activations, with Φ the normal distribution function.
const (
	Identity  Activation = iota // x
	Tanh                        // tanh x
	Sigmoid                     // 1/(1+e^-x)
	ReLU                        // max(x, 0)
	LeakyReLU                   // x for x > 0, else x/100
	ELU                         // x for x > 0, else e^x - 1
	Softplus                    // ln(1+e^x)
	SiLU                        // x/(1+e^-x)
	GELU                        // x·Φ(x)
	GELUTanh                    // x/2·(1+tanh(√(2/π)(x+0.044715x³)))
	Sin                         // sin x
)

var activationNames = []string{
	Identity:  "identity",
	Tanh:      "tanh",
	Sigmoid:   "sigmoid",
	ReLU:      "relu",
	LeakyReLU: "leaky_relu",
	ELU:       "elu",
	Softplus:  "softplus",
	SiLU:      "silu",
	GELU:      "gelu",
	GELUTanh:  "gelu_tanh",
	Sin:       "sin",
}

// Activations lists all of them.
func Activations() []Activation {
	list := make([]Activation, len(activationNames))
	for i := range list {
		list[i] = Activation(i)
	}
	return list
}

// String is the name that [ParseActivation] reads.
func (a Activation) String() string { return enumString("Activation", activationNames, a) }

// ParseActivation reads a name as String writes it: identity, tanh, sigmoid,
// relu, leaky_relu, elu, softplus, silu, gelu, gelu_tanh or sin.
func ParseActivation(s string) (Activation, error) {
	return enumParse[Activation]("activation", activationNames, s)
}

// MarshalText is the name; it fails for a value that is no activation.
func (a Activation) MarshalText() ([]byte, error) {
	return enumMarshal("activation", activationNames, a)
}

// UnmarshalText reads a name as [ParseActivation] does.
func (a *Activation) UnmarshalText(text []byte) error {
	v, err := ParseActivation(string(text))
	if err == nil {
		*a = v
	}
	return err
}
