// The layers of a wide net on tensor cores, in TF32: see tensor.cuh for the arithmetic,
// wide.cuh for the layers. Reference: cpu/mlp.go.
#include "tensor.cuh"

TENSOR_KERNELS(Tf32, mlp_tf32)
