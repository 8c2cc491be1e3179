package mlp_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// A right-hand side of two states with one hidden layer of 50 tanh units, on z³,
// as in the first example of the neural ODE literature.
func Example() {
	spec := mlp.Dense(mlp.Tanh, 2, 50, 2)
	spec.Input = mlp.InputCube
	model, err := mlp.New[float32](spec, mlp.Init{Weight: mlp.Normal, StdDev: 0.1, Bias: mlp.BiasZero}, 1)
	if err != nil {
		log.Fatal(err)
	}
	dz := make([]float32, model.OutDim())
	model.Eval(0, []float32{0, 0}, dz)
	fmt.Println(model.NumParams(), "parameters")
	fmt.Println("f(0) =", dz)
	// Output:
	// 252 parameters
	// f(0) = [0 0]
}

func ExampleSpec_Layer() {
	spec := mlp.Spec{
		Widths:      []int{2, 16, 2},
		Activations: []mlp.Activation{mlp.SiLU, mlp.Identity},
		Time:        mlp.TimeInput, // t is a third column of the first layer
	}
	for l := range spec.NumLayers() {
		y := spec.Layer(l)
		fmt.Printf("%v: weight [%d, %d] at %d, bias [%d] at %d\n", y.Act, y.Out, y.In, y.W, y.Out, y.B)
	}
	// Output:
	// silu: weight [16, 3] at 0, bias [16] at 48
	// identity: weight [2, 16] at 64, bias [2] at 96
}

func ExampleModel_VJP() {
	// dz/dt = 3z, written as a network of one layer.
	model := &mlp.Model[float64]{Spec: mlp.Dense(mlp.Identity, 1, 1), Theta: []float64{3, 0}}
	az, atheta := make([]float64, 1), make([]float64, 2)
	at := model.VJP(0, []float64{5}, []float64{1}, az, atheta)
	fmt.Println("∂f/∂z =", az)
	fmt.Println("∂f/∂θ =", atheta)
	fmt.Println("∂f/∂t =", at)
	// Output:
	// ∂f/∂z = [3]
	// ∂f/∂θ = [5 1]
	// ∂f/∂t = 0
}

func ExampleModel_Save() {
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 8, 2), mlp.Init{}, 1)
	if err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer // SaveFile and LoadFile take a path
	if err := model.Save(&file); err != nil {
		log.Fatal(err)
	}
	loaded, err := mlp.Load[float32](&file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(loaded.Spec.Widths, loaded.Spec.Activations)
	// Output: [2 8 2] [tanh identity]
}

// A state_dict that PyTorch saved: the tensors are there, and what they mean is said here.
func ExampleLoadFileWithSpec() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "field.safetensors")
	// safetensors.torch.save_file(f.state_dict(), "field.safetensors"), of two torch.nn.Linear
	if err := safetensors.WriteFile(path, []safetensors.Tensor{
		safetensors.New("layers.0.weight", []int{3, 2}, []float32{1, 0, 0, 1, 1, 1}),
		safetensors.New("layers.0.bias", []int{3}, []float32{0, 0, -1}),
		safetensors.New("layers.1.weight", []int{2, 3}, []float32{1, 2, 3, -1, -2, -3}),
		safetensors.New("layers.1.bias", []int{2}, []float32{0.5, 0}),
	}, nil); err != nil {
		log.Fatal(err)
	}

	f, err := mlp.LoadFileWithSpec[float32](path, mlp.Dense(mlp.ReLU, 2, 3, 2))
	if err != nil {
		log.Fatal(err)
	}
	dz := make([]float32, 2)
	f.Eval(0, []float32{2, 0.5}, dz)
	fmt.Println(dz)

	_, err = mlp.LoadFileWithSpec[float32](path, mlp.Dense(mlp.ReLU, 2, 4, 2))
	fmt.Println(err != nil)
	// Output:
	// [8 -7.5]
	// true
}

func ExampleParseActivation() {
	a, err := mlp.ParseActivation("softplus")
	fmt.Println(a, a.Value(0), a.Deriv(0), err)
	_, err = mlp.ParseActivation("swish")
	fmt.Println(err)
	// Output:
	// softplus 0.6931471805599453 0.5 <nil>
	// mlp: activation "swish" unknown; use one of identity, tanh, sigmoid, relu, leaky_relu, elu, softplus, silu, gelu, gelu_tanh, sin
}

// A model in the other precision.
func ExampleConvert() {
	model, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	if err != nil {
		log.Fatal(err)
	}
	single := mlp.Convert[float32](model)
	fmt.Printf("%T, %d parameters\n", single.Theta[0], single.NumParams())
	// Output:
	// float32, 82 parameters
}
