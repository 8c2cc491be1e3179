// The layers of a wide net on tensor cores, in TF32x3: see tensor.cuh for the arithmetic,
// wide.cuh for the layers. Reference: cpu/mlp.go.
#include "tensor.cuh"

TENSOR_KERNELS(Tf32x3, mlp_tf32x3)
