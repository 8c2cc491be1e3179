// One layer of a net too wide for narrow.cuh, as a product with an epilogue:
//
//     s_l = W_l [x_l, t] + b_l              forward_layer
//     ẋ_{l+1} = σ'(s_l) ⊙ (W_l ẋ_l + …)     tangent_layer
//     δ_{l-1} = (W_lᵀ δ_l) ⊙ σ'(s_{l-1})    back_layer
//     g += Σ_i w_i·δ_l,i [x_l,i, t_i, 1]ᵀ   layer_weights
//
// The kernels are named in mlp_forward.cu, mlp_jvp.cu and mlp_vjp.cu, and those on
// tensor cores in tensor.cuh. Math is Scalar of gemm.cuh, or Tensor of tensor.cuh.
#pragma once

#include "gemm.cuh"

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

template <class Math, bool LARGE, class T = typename Math::Number>
__device__ static void forward_layer(const MlpRows<T> &rows, const Forward<T> &p) {
    using G = typename Math::template Product<LARGE, true, true>;
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

// Tangent is one layer of a wide net. Rows as in Forward; jv has all of them.
template <class T>
struct Tangent {
    const T *vx, *w;               // [chunk, in]; [out, in(+1)]
    const T *x, *w_dot, *b_dot;    // [chunk, in]; tangents of weight and bias, or null
    const T *slope;                // [chunk, out]
    T *to;                         // [chunk, out], or [rows, out]
    int ldv, ldw, ldx, lds, ldt;
    int in, out, time;
    int first, chunk, last, unused;
};

template <class T>
struct TangentOut {
    const MlpRows<T> &rows;
    const Tangent<T> &p;
    int m0, n0;
    T t, bias, column_t;

    __device__ void column(int n) {
        if (!p.w_dot) return;
        bias = p.b_dot[n0 + n];
        column_t = p.time ? p.w_dot[(long long)(n0 + n) * p.ldw + p.in] : T(0);
    }
    __device__ void operator()(int m, int n, T v) const {
        const int i = p.first + m0 + m;
        const long long packed = m0 + m;
        if (p.w_dot) {
            const T time = rows.list ? rows.times[i] : t;
            v += p.time ? fma(time, column_t, bias) : bias;
        }
        v *= p.slope[packed * p.lds + n0 + n];
        p.to[(p.last ? rows.row(i) : packed) * p.ldt + n0 + n] = v;
    }
};

template <class Math, bool LARGE, class T = typename Math::Number>
__device__ static void tangent_layer(const MlpRows<T> &rows, const Tangent<T> &p) {
    using G = typename Math::template Product<LARGE, true, true>;
    __shared__ typename G::Shared shared;
    const typename G::Place at(p.chunk, p.out);
    const int m0 = at.m, n0 = at.n;
    const int m = min(rows.count() - p.first, p.chunk) - m0, n = p.out - n0;
    if (m <= 0) return;
    G g;
    g.clear();
    NoTerms none;
    // One loop for both products: the second operands follow the first.
#pragma unroll 1
    for (int dot = 0; dot < (p.w_dot ? 2 : 1); dot++) {
        const T *a = dot ? p.x : p.vx, *b = dot ? p.w_dot : p.w;
        const int ld = dot ? p.ldx : p.ldv;
        g.accumulate(shared, operand(a + (long long)m0 * ld, ld, m), operand(b + (long long)n0 * p.ldw, p.ldw, n), p.in,
                     none);
    }
    TangentOut<T> out = {rows, p, m0, n0, rows.list ? T(0) : rows.time(0)};
    g.emit(shared, m, n, out);
}

// Back is the way from one wide layer's δ to the one below. Rows as in Forward.
template <class T>
struct Back {
    const T *delta, *w; // [chunk, out]; [out, in(+1)]
    T *below;           // [chunk, in]: σ' of the layer below, becomes its δ; or null:
    T *az;              // [rows, in]
    const T *z;         // [rows, in]
    T alpha;
    int ldd, ldw, ldb;
    int in, out, cube;
    int first, chunk;
};

template <class T>
struct BackOut {
    const MlpRows<T> &rows;
    const Back<T> &p;
    int m0, n0;

    __device__ void column(int) {}
    __device__ void operator()(int m, int n, T v) const {
        if (p.below) {
            p.below[(long long)(m0 + m) * p.ldb + n0 + n] *= v;
            return;
        }
        const long long e = (long long)rows.row(p.first + m0 + m) * p.in + n0 + n;
        v *= p.alpha;
        if (p.cube) v *= input_slope(true, p.z[e]);
        p.az[e] = v;
    }
};

template <class Math, bool LARGE, class T = typename Math::Number>
__device__ static void back_layer(const MlpRows<T> &rows, const Back<T> &p) {
    using G = typename Math::template Product<LARGE, true, false>;
    __shared__ typename G::Shared shared;
    const typename G::Place at(p.chunk, p.in);
    const int m0 = at.m, n0 = at.n;
    const int m = min(rows.count() - p.first, p.chunk) - m0, n = p.in - n0;
    if (m <= 0) return;
    G g;
    g.clear();
    NoTerms none;
    g.accumulate(shared, operand(p.delta + (long long)m0 * p.ldd, p.ldd, m), operand(p.w + n0, p.ldw, n), p.out, none);
    BackOut<T> out = {rows, p, m0, n0};
    g.emit(shared, m, n, out);
}

// LayerWeights is a wide layer's part of g: `run` rows a block, `first … first+chunk`
// in all. partial: [parts, out·in(+1) + out].
template <class T>
struct LayerWeights {
    const T *delta, *x; // [chunk, out], [chunk, in]
    T *partial;
    int ldd, ldx;
    int in, out, time;
    int first, chunk, run;
};

// WeightTerms weights the rows of δ, and sums bias and time column, for which the
// first blocks of a row have time left.
template <class T, class G>
struct WeightTerms {
    const MlpRows<T> &rows;
    int i0;        // of the first row
    T t0, w0;      // with one lane
    bool sums;
    T bias, time;

    __device__ T time_of(int i) const { return rows.list ? rows.times[i0 + i] : t0; }
    __device__ T weight_of(int i) const { return rows.list ? rows.weights[i0 + i] : w0; }

    __device__ void landed(T *tile, bool packs, int k, int terms) const {
        G::A::Copy::scale(tile, terms, G::A::COLS, packs, [&](int r) { return weight_of(k + r); });
    }
    __device__ void ready(const T *tile, int k, int terms) {
        if (!sums) return;
#pragma unroll 2
        for (int r = 0; r < terms; r++) {
            const T d = tile[G::A::Copy::place(r, threadIdx.x)];
            bias += d;
            time = fma(time_of(k + r), d, time);
        }
    }
};

template <class T>
struct WeightsOut {
    T *to; // of the block's first element
    int ld;
    __device__ void column(int) {}
    __device__ void operator()(int m, int n, T v) const { to[(long long)m * ld + n] = v; }
};

template <class Math, bool LARGE, class T = typename Math::Number>
__device__ static void layer_weights(const MlpRows<T> &rows, const LayerWeights<T> &p) {
    using G = typename Math::template Product<LARGE, false, false>;
    __shared__ typename G::Shared shared;
    const typename G::Place at(p.out, p.in);
    const int m0 = at.m, n0 = at.n, k0 = at.part * p.run;
    const int m = p.out - m0, n = p.in - n0;
    const int terms = min(min(rows.count() - p.first, p.chunk) - k0, p.run);
    if (terms <= 0) return;
    const int ld = p.in + p.time;
    T *part = p.partial + at.part * ((long long)p.out * (ld + 1));
    const bool one = rows.list == nullptr;
    WeightTerms<T, G> each = {rows,
                              p.first + k0,
                              one ? rows.time(0) : T(0),
                              one ? rows.weight(0) : T(0),
                              n0 == 0 && threadIdx.x < G::TILE_M,
                              0,
                              0};
    G g;
    g.clear();
    g.accumulate(shared, operand(p.delta + (long long)k0 * p.ldd + m0, p.ldd, m),
                 operand(p.x + (long long)k0 * p.ldx + n0, p.ldx, n), terms, each);
    if (each.sums && (int)threadIdx.x < m) {
        const int row = m0 + threadIdx.x;
        part[(long long)p.out * ld + row] = each.bias;
        if (p.time) part[(long long)row * ld + p.in] = each.time;
    }
    WeightsOut<T> out = {part + (long long)m0 * ld + n0, ld};
    g.emit(shared, m, n, out);
}

// WIDE_KERNEL defines a kernel, of which BLOCKS should fit a multiprocessor.
#define WIDE_KERNEL(LAYER, ARGS, MATH, LARGE, BLOCKS, NAME)                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                      \
        NAME(MlpRows<MATH::Number> rows, ARGS<MATH::Number> p) {                                       \
        LAYER<MATH, LARGE>(rows, p);                                                                   \
    }
