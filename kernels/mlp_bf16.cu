// The layers of a wide net on tensor cores, in BF16: see tensor.cuh for the arithmetic,
// wide.cuh for the layers. Reference: cpu/mlp.go.
#include "tensor.cuh"

TENSOR_KERNELS(Bf16, mlp_bf16)
