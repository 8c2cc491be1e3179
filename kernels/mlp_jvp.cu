// Jacobian-vector products of a batched MLP. With the forward pass's x_l, s_l,
// tangents v of z and w = (Ẇ, ḃ) of θ,
//
//     ẋ_0 = g'(z) ⊙ v,   ẋ_{l+1} = σ'(s_l) ⊙ (W_l ẋ_l + Ẇ_l [x_l, t] + ḃ_l),   jv = ẋ_L
//
// for the selected rows; t is held fixed. z, v, dz, jv: [rows, D]; w: [P] or absent.
//
// mlp_jvp_tileN: all layers in one launch, widths up to 128; a block takes tiles of N
// samples, see narrow.cuh. mlp_jvp_layer_*: the tangent of one wide layer, after
// mlp_forward_* has left x_l and σ'; see wide.cuh.
// Reference: mlpKernel.tangent in cpu/mlp.go.
#include "narrow.cuh"
#include "wide.cuh"

// TileJvp are the operands of mlp_jvp_tileN.
template <class T>
struct TileJvp {
    const T *z, *v;
    T *dz, *jv; // dz may be null
    int vx;     // offset of the tangents in shared memory
    int unused;
};

// product_tangent computes W_l·x into c and W_l·ẋ + Ẇ_l·x into d.
template <class T, int R>
__device__ static void product_tangent(T (&c)[R][4 * MAX_GROUPS], T (&d)[R][4 * MAX_GROUPS], const Share<T, R> &share,
                                       Weights<T, 2> &weights, const NarrowLayer &ly, const T *x,
                                       const T *vx) {
    clear<T, R>(c);
    clear<T, R>(d);
    const int ldx = row_stride<T>(ly.in);
#pragma unroll 1
    for (int k = 0; k < ly.in; k += SLAB<T>) {
        const T *slab = weights.forward(ly, k);
        const int terms = min(SLAB<T>, ly.in - k);
        multiply_slab(c, share, x + k, ldx, slab, terms);
        multiply_slab(d, share, vx + k, ldx, slab, terms);
        if (weights.count() > 1) multiply_slab(d, share, x + k, ldx, slab + weights.size(ly), terms);
    }
}

template <class T, int R>
__device__ static void jvp_tiles(const MlpRows<T> &rows, const NarrowNet<T> &net, const TileJvp<T> &p) {
    constexpr int ROWS = 32 * R;
    extern __shared__ __align__(16) unsigned char raw[];
    T *shared = reinterpret_cast<T *>(raw);
    TileInfo<T, ROWS> &info = *reinterpret_cast<TileInfo<T, ROWS> *>(raw);
    rows.evaluated();
    const int count = rows.count();
    Weights<T, 2> weights(net, shared, net.layers);
    if ((int)blockIdx.x * ROWS < count) weights.load();
#pragma unroll 1
    for (int i0 = blockIdx.x * ROWS; i0 < count; i0 += gridDim.x * ROWS) {
        const int valid = min(count - i0, ROWS);
        __syncthreads(); // the tile before may still be in use
        weights.begin();
        load_rows(info, rows, i0, valid, false);
        __syncthreads();
        T *x = shared + net.layer[0].x, *vx = shared + p.vx;
        load_input(x, info, net, p.z, valid);
        const int ld0 = row_stride<T>(net.dim);
        for_elements(ROWS, round4(net.dim), [&](int m, int n) {
            T v = 0;
            if (m < valid && n < net.dim) {
                const long long e = (long long)info.row[m] * net.dim + n;
                v = p.v[e];
                if (net.cube) v *= input_slope(true, p.z[e]);
            }
            vx[m * ld0 + n] = v;
        });
        weights.loaded();
        __syncthreads();
#pragma unroll 1
        for (int l = 0; l < net.layers; l++) {
            const NarrowLayer ly = net.layer[l];
            info.load_layer(net.theta, ly);
            if (net.theta_dot) info.load_layer(net.theta_dot, ly, true);
            const Share<T, R> share(ly.out);
            T c[R][4 * MAX_GROUPS], d[R][4 * MAX_GROUPS];
            product_tangent(c, d, share, weights, ly, x, vx);
            __syncthreads();
            // The next layer's input takes the place of this one's.
            const int ld = row_stride<T>(ly.out);
            put(c, share, x, ld);
            put(d, share, vx, ld);
            __syncthreads();
            const bool last = l == net.layers - 1;
            for_elements(last ? valid : ROWS, last ? ly.out : round4(ly.out), [&](int m, int n) {
                T y = 0, v = 0;
                if (n < ly.out && m < valid) {
                    const Activated<T> r = activate<true>(ly.act, x[m * ld + n] + info.shift(ly, m, n));
                    y = r.y;
                    v = vx[m * ld + n];
                    if (net.theta_dot) v += info.shift_dot(ly, m, n);
                    v *= r.slope;
                }
                if (!last) {
                    x[m * ld + n] = y;
                    vx[m * ld + n] = v;
                    return;
                }
                const long long e = (long long)info.row[m] * ly.out + n;
                if (p.dz) p.dz[e] = y;
                p.jv[e] = v;
            });
            __syncthreads();
        }
    }
}

#define JVP_TILES(T, R, NAME)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? RESIDENT : 1)               \
        NAME(MlpRows<T> rows, NarrowNet<T> net, TileJvp<T> p) {                                        \
        jvp_tiles<T, R>(rows, net, p);                                                                 \
    }
JVP_TILES(float, 1, mlp_jvp_tile32_f32)
JVP_TILES(float, 2, mlp_jvp_tile64_f32)
JVP_TILES(double, 1, mlp_jvp_tile32_f64)
JVP_TILES(double, 2, mlp_jvp_tile64_f64)

WIDE_KERNEL(tangent_layer, Tangent, Scalar<float>, true, RESIDENT, mlp_jvp_layer_large_f32)
WIDE_KERNEL(tangent_layer, Tangent, Scalar<float>, false, 2, mlp_jvp_layer_small_f32)
WIDE_KERNEL(tangent_layer, Tangent, Scalar<double>, true, 1, mlp_jvp_layer_large_f64)
WIDE_KERNEL(tangent_layer, Tangent, Scalar<double>, false, 2, mlp_jvp_layer_small_f64)
