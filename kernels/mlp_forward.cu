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
// layer. The product's block owns a tile of [rows, out]; see gemm.cuh. The latter
// two differ in the tile's size alone.
// Reference: mlpKernel.forward in cpu/mlp.go.
#include "gemm.cuh"
#include "narrow.cuh"

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

// Forward is one layer of a wide net. Its rows are first … first+chunk of the
// selected ones, packed, in all operands but a and the last layer's y.
template <class T>
struct Forward {
    const T *x, *w, *b; // [chunk, in]; [out, in(+1)], [out]
    const T *a;         // null, or [rows, out]: slope becomes a·σ'(s)
    T *y, *slope;       // [chunk, out], either may be null
    int ldx, ldw, ldy, lds;
    int in, out, time, act;
    int first, chunk;
    int last; // y has all rows
    int unused;
};

template <class T>
struct ForwardOut {
    const MlpRows<T> &rows;
    const Forward<T> &p;
    int m0, n0;
    T t, bias, column_t;

    __device__ void column(int n) {
        bias = p.b[n0 + n];
        column_t = p.time ? p.w[(long long)(n0 + n) * p.ldw + p.in] : T(0);
    }
    __device__ void operator()(int m, int n, T v) const {
        const int i = p.first + m0 + m;
        const T time = rows.list ? rows.times[i] : t;
        const T s = v + (p.time ? fma(time, column_t, bias) : bias);
        const long long packed = m0 + m;
        if (!p.slope) {
            put(packed, i, n, activate<false>(p.act, s).y);
            return;
        }
        const Activated<T> r = activate<true>(p.act, s);
        if (p.y) put(packed, i, n, r.y);
        T *slope = p.slope + packed * p.lds + n0 + n;
        *slope = p.a ? p.a[(long long)rows.row(i) * p.out + n0 + n] * r.slope : r.slope;
    }
    __device__ void put(long long packed, int i, int n, T y) const {
        p.y[(p.last ? rows.row(i) : packed) * p.ldy + n0 + n] = y;
    }
};

template <class T, bool LARGE>
__device__ static void forward_layer(const MlpRows<T> &rows, const Forward<T> &p) {
    using G = GemmOf<T, LARGE, true, true>;
    __shared__ typename G::Shared shared;
    rows.evaluated();
    const typename G::Place at(p.chunk, p.out);
    const int m0 = at.m, n0 = at.n;
    const int m = min(rows.count() - p.first, p.chunk) - m0, n = p.out - n0;
    if (m <= 0) return;
    G g;
    g.clear();
    NoTerms none;
    g.accumulate(shared, operand(p.x + (long long)m0 * p.ldx, p.ldx, m), operand(p.w + (long long)n0 * p.ldw, p.ldw, n),
                 p.in, none);
    ForwardOut<T> out = {rows, p, m0, n0, rows.list || !p.time ? T(0) : rows.time(0)};
    g.emit(shared, m, n, out);
}

#define FORWARD_LAYER(T, LARGE, BLOCKS, NAME)                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(MlpRows<T> rows, Forward<T> p) { \
        forward_layer<T, LARGE>(rows, p);                                                              \
    }
FORWARD_LAYER(float, true, RESIDENT, mlp_forward_large_f32)
FORWARD_LAYER(float, false, 2, mlp_forward_small_f32)
FORWARD_LAYER(double, true, 1, mlp_forward_large_f64)
FORWARD_LAYER(double, false, 2, mlp_forward_small_f64)
