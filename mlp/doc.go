// Package mlp describes a multilayer perceptron used as the right-hand side of
//
//	dz/dt = f(z, t; θ)
//
// its parameters, how they are initialised, saved and loaded, and the plain
// arithmetic that the backends are tested against. No code here runs on a device.
//
// With layers l = 0 … L-1, the state z and the time t,
//
//	x_0     = g(z)                     g: identity or element-wise cube
//	s_l     = W_l [x_l, t] + b_l       t is there only where [Time] puts it
//	x_{l+1} = σ_l(s_l)
//	f       = x_L
//
// A [Spec] says which of these are meant; a [Model] is a Spec with parameters.
//
// # Parameters
//
// θ is one flat vector: for every layer in turn its weight W_l, row-major
// [out, in] as in torch.nn.Linear, then its bias b_l, [out]. Where a layer gets
// the time, t is the last column of its input, so that W_l is [out, in+1].
// [Spec.Layer] gives the offsets.
//
// # Files
//
// Models are saved as safetensors with the tensors layers.N.weight and
// layers.N.bias and the Spec as JSON in the metadata. A PyTorch program reads and
// writes them with safetensors.torch.save_file, given a module whose
// torch.nn.Linear layers are called layers.0, layers.1, ….
package mlp
