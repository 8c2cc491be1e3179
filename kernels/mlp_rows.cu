// The rows that a call works on, when every sample has its own lane:
//
//     list = rows r, ascending, with selected(lane r);  t_i, w_i of each
//
// and one evaluation counted for each. mlp_rows_count: a block owns THREADS
// lanes, a thread one, and leaves how many are selected in counts[block].
// mlp_rows_fill: a block places its selected lanes behind those of the blocks
// before it; the last one writes their number to counts[blocks].
// Shapes: list, times, weights [rows]; counts [blocks+1].
// Reference: bound.pick in cpu/field.go.
#include "mlp.cuh"

// block_sum returns the sum of x over the block to all its threads.
__device__ static int block_sum(int x) {
    __shared__ int part[WARPS];
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < WARPS; w++) x += part[w];
    __syncthreads();
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mlp_rows_count(ClockView clock, int *counts, int rows, int select) {
    const int lane = blockIdx.x * THREADS + threadIdx.x;
    const int n = block_sum(lane < rows && clock.selected(lane, select));
    if (threadIdx.x == 0) counts[blockIdx.x] = n;
}

template <class T>
__device__ static void fill(const MlpRows<T> &rows, int *list, T *times, T *weights, int *counts) {
    __shared__ int warp_count[WARPS];
    int before = 0;
    for (int b = threadIdx.x; b < blockIdx.x; b += THREADS) before += counts[b];
    before = block_sum(before);

    const int lane = blockIdx.x * THREADS + threadIdx.x;
    const bool selected = lane < rows.rows && rows.clock.selected(lane, rows.select);
    const unsigned ballot = __ballot_sync(~0u, selected);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) warp_count[warp] = __popc(ballot);
    __syncthreads();
    int place = before + __popc(ballot & ((1u << threadIdx.x % 32) - 1));
    for (int w = 0; w < warp; w++) place += warp_count[w];
    if (selected) {
        list[place] = lane;
        times[place] = T(rows.clock.instant(lane, rows.select, rows.c));
        weights[place] = rows.weight_of(lane);
        rows.clock.evaluated(lane);
    }
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == THREADS - 1) counts[gridDim.x] = place + selected;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mlp_rows_fill_f32(MlpRows<float> rows, int *list, float *times, float *weights, int *counts) {
    fill(rows, list, times, weights, counts);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    mlp_rows_fill_f64(MlpRows<double> rows, int *list, double *times, double *weights, int *counts) {
    fill(rows, list, times, weights, counts);
}
