// Vector-Jacobian products of a batched MLP (Chen et al. 2018, appendix C). With
// x_l, s_l of the forward pass and the cotangent a of f,
//
//     δ_{L-1} = a ⊙ σ'(s_{L-1}),   δ_{l-1} = (W_lᵀ δ_l) ⊙ σ'(s_{l-1})
//     az = α·(W_0ᵀ δ_0) ⊙ g'(z),   at = α·Σ_l w_tᵀ δ_l   (w_t: the time column)
//     g += Σ_i w_i·δ_l,i [x_l,i, t_i, 1]ᵀ   over the selected rows i, ascending
//
// z, a, dz, az: [rows, D]; at: [rows]; g: [P].
//
// mlp_vjp_tileN: all layers forth and back in one launch, widths up to 128. A block
// takes a run of tiles of N samples and leaves its part of g in partial[block], [P].
// mlp_vjp_back_*: δ_{l-1} or az of a wide layer; mlp_vjp_weights_*: a layer's part of
// g, split over rows: part i adds rows i·run … and goes to partial[i].
// mlp_vjp_time: a wide layer's part of at; a warp owns a row.
// mlp_vjp_reduce: g += the parts, in ascending order; a block owns 32 elements.
// Reference: mlpKernel.vjp in cpu/mlp.go.
#include "narrow_vjp.cuh"
#include "wide.cuh"

// TileVjp are the operands of mlp_vjp_tileN.
template <class T>
struct TileVjp {
    const T *z, *a;
    T *dz, *az, *at;  // null: not wanted
    T *partial;       // [gridDim.x, params], null without g
    T alpha;
    int params;
    int sum;          // offset of the block's part of g in shared memory, or -1
};

template <class T, int R>
__device__ static void vjp_tiles(const MlpRows<T> &rows, const NarrowNet<T> &net, const TileVjp<T> &p) {
    constexpr int ROWS = 32 * R;
    extern __shared__ __align__(16) unsigned char raw[];
    T *shared = reinterpret_cast<T *>(raw);
    TileInfo<T, ROWS> &info = *reinterpret_cast<TileInfo<T, ROWS> *>(raw);
    rows.evaluated();
    // A block's tiles follow each other, so that the parts of g ascend with the rows.
    const int count = rows.count(), tiles = (count + ROWS - 1) / ROWS, run = (tiles + gridDim.x - 1) / gridDim.x;
    const int from = blockIdx.x * run;
    int left = min(run, tiles - from);
    if (left <= 0) return;
    // These are functions, so that no registers hold them.
    const auto part = [&] { return p.partial ? p.partial + (long long)blockIdx.x * p.params : nullptr; };
    const auto sum = [&] { return p.partial && p.sum >= 0 ? shared + p.sum : part(); };
    if (p.partial) {
#pragma unroll 1
        for (int e = threadIdx.x; e < p.params; e += THREADS) sum()[e] = 0;
    }
    Weights<T, 1> weights(net, shared, p.az ? 0 : 1);
    weights.load();
#pragma unroll 1
    for (int tile = from; left > 0; tile++, left--) {
        const int valid = min(rows.count() - tile * ROWS, ROWS);
        __syncthreads(); // the tile before may still be in use
        weights.begin();
        load_rows(info, rows, tile * ROWS, valid, p.partial);
        __syncthreads();
        load_input(shared + net.layer[0].x, info, net, p.z, valid);
        weights.loaded();
        __syncthreads();
        tile_forward<true, T, R>(
            weights, info, [&](int m) { return m < valid; },
            [&](int m, int n, Activated<T> &r) {
                const long long e = (long long)info.row[m] * net.dim + n;
                if (p.dz) p.dz[e] = r.y;
                r.slope *= p.a[e];
            });
        const T at = tile_back<T, R>(weights, info, sum(), valid, p.az, p.at, [&](int m, int n, T v) {
            const long long e = (long long)info.row[m] * net.dim + n;
            v *= p.alpha;
            if (net.cube) v *= input_slope(true, p.z[e]);
            p.az[e] = v;
        });
        if (p.at && (int)threadIdx.x < valid) p.at[info.row[threadIdx.x]] = p.alpha * at;
    }
    if (p.partial && p.sum >= 0) {
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < p.params; e += THREADS) part()[e] = sum()[e];
    }
}

#define VJP_TILES(T, R, NAME)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? RESIDENT : 1)               \
        NAME(MlpRows<T> rows, NarrowNet<T> net, TileVjp<T> p) {                                        \
        vjp_tiles<T, R>(rows, net, p);                                                                 \
    }
VJP_TILES(float, 1, mlp_vjp_tile32_f32)
VJP_TILES(float, 2, mlp_vjp_tile64_f32)
VJP_TILES(double, 1, mlp_vjp_tile32_f64)
VJP_TILES(double, 2, mlp_vjp_tile64_f64)

WIDE_KERNEL(back_layer, Back, Scalar<float>, true, RESIDENT, mlp_vjp_back_large_f32)
WIDE_KERNEL(back_layer, Back, Scalar<float>, false, 2, mlp_vjp_back_small_f32)
WIDE_KERNEL(back_layer, Back, Scalar<double>, true, 1, mlp_vjp_back_large_f64)
WIDE_KERNEL(back_layer, Back, Scalar<double>, false, 2, mlp_vjp_back_small_f64)
WIDE_KERNEL(layer_weights, LayerWeights, Scalar<float>, true, RESIDENT, mlp_vjp_weights_large_f32)
WIDE_KERNEL(layer_weights, LayerWeights, Scalar<float>, false, 2, mlp_vjp_weights_small_f32)
WIDE_KERNEL(layer_weights, LayerWeights, Scalar<double>, true, 1, mlp_vjp_weights_large_f64)
WIDE_KERNEL(layer_weights, LayerWeights, Scalar<double>, false, 2, mlp_vjp_weights_small_f64)

// LayerTime is a wide layer's part of at: at (+)= alpha·Σ_n δ[n]·w_t[n].
template <class T>
struct LayerTime {
    const T *delta, *w; // [chunk, out]; w_t, ldw apart, null: no part
    T *at;              // [rows]
    T alpha;
    int ldd, ldw, out, add, first, chunk, unused;
};

template <class T>
__device__ static void layer_time(const MlpRows<T> &rows, const LayerTime<T> &p) {
    __shared__ T sum[WARPS];
    const int i0 = blockIdx.x * WARPS, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int valid = min(rows.count() - p.first, p.chunk) - i0;
    T s = 0;
    if (p.w && warp < valid)
        for (int n = lane; n < p.out; n += 32)
            s = fma(p.delta[(long long)(i0 + warp) * p.ldd + n], p.w[(long long)n * p.ldw], s);
    for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(~0u, s, d);
    if (lane == 0) sum[warp] = s;
    __syncthreads();
    if ((int)threadIdx.x < min(valid, WARPS)) {
        T *at = p.at + rows.row(p.first + i0 + threadIdx.x);
        s = p.alpha * sum[threadIdx.x];
        *at = p.add ? *at + s : s;
    }
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_vjp_time_f32(MlpRows<float> rows, LayerTime<float> p) {
    layer_time(rows, p);
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_vjp_time_f64(MlpRows<double> rows, LayerTime<double> p) {
    layer_time(rows, p);
}

// Reduce adds the parts of g. There are as many as the kernel before left: with
// `blocks` blocks and `run` rows a unit, unit after unit to the blocks in equal shares.
template <class T>
struct Reduce {
    T *g;
    const T *partial; // [blocks, params]
    int params, blocks, run, first, chunk, unused;
};

template <class T>
__device__ static void reduce(const MlpRows<T> &rows, const Reduce<T> &p) {
    const int count = min(rows.count() - p.first, p.chunk);
    if (count <= 0) return;
    const int units = (count + p.run - 1) / p.run, share = (units + p.blocks - 1) / p.blocks;
    const int parts = (units + share - 1) / share, e = blockIdx.x * 32 + threadIdx.x % 32;
    const bool mine = threadIdx.x < 32 && e < p.params;
    const T g = add_parts(mine ? p.g[e] : T(0), p.partial, e, p.params, parts);
    if (mine) p.g[e] = g;
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_vjp_reduce_f32(MlpRows<float> rows, Reduce<float> p) {
    reduce(rows, p);
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_vjp_reduce_f64(MlpRows<double> rows, Reduce<double> p) {
    reduce(rows, p);
}
