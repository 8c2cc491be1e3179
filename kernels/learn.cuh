// What a training step leaves on the device, and sums over all of an array, in an
// order that depends on its length alone.
#pragma once

#include "reduce.cuh"

// Outcome is backend.Outcome, with what kernels hand to each other.
struct Outcome {
    double loss, weight, norm;
    long long bad;
    double scale;   // of the loss's sum: 1, or 1/weight
    double shift;   // gradients are scaled by it before they are squared; 0: not needed
    double clip;    // factor of the gradient, at most 1

    // sound reports whether the parameters may be updated.
    __device__ bool sound() const { return isfinite(loss) && isfinite(norm); }
};

const long long NONE = 0x7fffffffffffffffll; // no bad parameter

const int CHUNK = 8 * BLOCK; // elements of a block in a first pass

// add_partials returns to thread 0 of the only block the sum of what blocks left.
template <class S> __device__ S add_partials(const S *partial, int count) {
    S sum = {};
    for (int i = threadIdx.x; i < count; i += BLOCK) sum.add(partial[i]);
    return reduce(sum, BLOCK);
}
