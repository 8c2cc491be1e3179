// The forward pass of a batched MLP,
//
//     x_0 = g(z),  s_l = W_l [x_l, t] + b_l,  x_{l+1} = σ_l(s_l),  dz = x_L
//
// for the selected rows. z, dz: [rows, D]; θ as package mlp lays it out.
//
// mlp_forward_tileN: all layers in one launch, widths up to 128. A block takes
// tiles of N samples, a warp all of them for its share of a layer's outputs; see
// narrow.cuh.
// mlp_forward_input, mlp_forward_large, mlp_forward_small: any width, a launch a
// layer. The product's block owns a tile of [rows, out]; see wide.cuh. The latter
// two differ in the tile's size alone.
// Reference: mlpKernel.forward in cpu/mlp.go.
#include "narrow.cuh"
#include "wide.cuh"

template <class T, int R>
__device__ static void forward_tiles(const MlpRows<T> &rows, const NarrowNet<T> &net, const T *z, T *dz) {
    constexpr int ROWS = 32 * R;
    extern __shared__ __align__(16) unsigned char raw[];
    T *shared = reinterpret_cast<T *>(raw);
    TileInfo<T, ROWS> &info = *reinterpret_cast<TileInfo<T, ROWS> *>(raw);
    rows.evaluated();
    const int count = rows.count();
    Weights<T, 1> weights(net, shared, net.layers);
    if ((int)blockIdx.x * ROWS < count) weights.load();
#pragma unroll 1
    for (int i0 = blockIdx.x * ROWS; i0 < count; i0 += gridDim.x * ROWS) {
        const int valid = min(count - i0, ROWS);
        __syncthreads(); // the tile before may still be in use
        weights.begin();
        load_rows(info, rows, i0, valid, false);
        __syncthreads();
        T *x = shared + net.layer[0].x;
        load_input(x, info, net, z, valid);
        weights.loaded();
        __syncthreads();
        forward_layers<T, R>(
            net, weights, x, valid, [&](const NarrowLayer &ly) { info.load_layer(net.theta, ly); },
            [&](const NarrowLayer &ly, int m, int n) { return info.shift(ly, m, n); },
            [&](int m, int n, T y) { dz[(long long)info.row[m] * net.dim + n] = y; });
    }
}

#define FORWARD_TILES(T, R, NAME)                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)                                    \
        NAME(MlpRows<T> rows, NarrowNet<T> net, const T *z, T *dz) {                                   \
        forward_tiles<T, R>(rows, net, z, dz);                                                         \
    }
FORWARD_TILES(float, 1, mlp_forward_tile32_f32)
FORWARD_TILES(float, 4, mlp_forward_tile128_f32)
FORWARD_TILES(double, 1, mlp_forward_tile32_f64)
FORWARD_TILES(double, 2, mlp_forward_tile64_f64)

// Input is where the input of a wide net comes from and goes to.
template <class T>
struct Input {
    const T *z, *v; // [rows, D]; v: a tangent, or null
    T *x, *vx;      // [chunk, ld]: g(z), g'(z)·v
    int first, chunk, dim, ld, cube, unused;
};

// A thread owns elements of x, rows first … first+chunk of the selected ones.
template <class T>
__device__ static void forward_input(const MlpRows<T> &rows, const Input<T> &p) {
    rows.evaluated();
    const long long n = (long long)max(min(rows.count() - p.first, p.chunk), 0) * p.dim;
    for (long long e = blockIdx.x * (long long)THREADS + threadIdx.x; e < n; e += (long long)gridDim.x * THREADS) {
        const int i = e / p.dim, j = e % p.dim;
        const long long from = (long long)rows.row(p.first + i) * p.dim + j, to = (long long)i * p.ld + j;
        const T z = p.z[from];
        p.x[to] = input_map(p.cube, z);
        if (p.v) p.vx[to] = input_slope(p.cube, z) * p.v[from];
    }
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_forward_input_f32(MlpRows<float> rows, Input<float> p) {
    forward_input(rows, p);
}
extern "C" __global__ void __launch_bounds__(THREADS) mlp_forward_input_f64(MlpRows<double> rows, Input<double> p) {
    forward_input(rows, p);
}

WIDE_KERNEL(forward_layer, Forward, Scalar<float>, true, RESIDENT, mlp_forward_large_f32)
WIDE_KERNEL(forward_layer, Forward, Scalar<float>, false, 2, mlp_forward_small_f32)
WIDE_KERNEL(forward_layer, Forward, Scalar<double>, true, 1, mlp_forward_large_f64)
WIDE_KERNEL(forward_layer, Forward, Scalar<double>, false, 2, mlp_forward_small_f64)
