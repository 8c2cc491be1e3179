// A tile of samples through all layers of a narrow net and back: vector-Jacobian products
// with the tile on chip (narrow.cuh).
#pragma once

#include "narrow.cuh"

// multiply_columns adds Σ_n δ[n]·w(n, output) over `terms` n for the first L lots of c
// and the groups G. w points to the warp's first four columns; its rows are ldw apart,
// its groups of outputs ldg.
template <int L, class G, class T, int R>
__device__ inline void multiply_columns(T (&c)[R][4 * MAX_GROUPS], G, const T *delta, int ldd, const T *w, int ldw,
                                        int ldg, int terms) {
    constexpr int V = Pack<T>::N;
#pragma unroll 1
    for (int n = 0; n < terms; n += V) {
        Pack<T> pd[L];
#pragma unroll
        for (int r = 0; r < L; r++) pd[r] = load_pack(delta + 32 * r * ldd + n);
#pragma unroll
        for (int v = 0; v < V; v++, w += ldw)
#pragma unroll
            for (int g = G::FIRST; g < G::FIRST + G::COUNT; g++)
#pragma unroll
                for (int j = 0; j < 4; j += V) {
                    const Pack<T> pw = load_pack(w + g * ldg + j);
#pragma unroll
                    for (int u = 0; u < V; u++)
#pragma unroll
                        for (int r = 0; r < L; r++)
                            c[r][4 * g + j + u] = fma(pd[r].v[v], pw.v[u], c[r][4 * g + j + u]);
                }
    }
}

// product_back computes W_lᵀ·δ for the tile into c, ascending in δ's components.
template <class T, int R>
__device__ inline void product_back(T (&c)[R][4 * MAX_GROUPS], const Share<T, R> &share, Weights<T, 1> &weights,
                                    const NarrowLayer &ly, const T *delta) {
    const NarrowNet<T> &net = weights.net;
    clear<T, R>(c);
    const int ldd = row_stride<T>(ly.out), rows = round4(ly.out);
    const T *lane = delta + (threadIdx.x % 32 + 32 * share.lot) * ldd;
    const int column = 4 * share.group;
    const int step = net.resident ? rows : SLAB<T>;
#pragma unroll 1
    for (int n = 0; n < ly.out; n += step) {
        const T *w;
        int ldw, ldg;
        if (net.resident) { // [in/SLAB][rows][SLAB]
            w = weights.shared + ly.slab + column / SLAB<T> * rows * SLAB<T> + column % SLAB<T>;
            ldw = SLAB<T>;
            ldg = 4 * WARPS * rows;
        } else {
            w = weights.next() + column;
            ldw = MAX_WIDTH;
            ldg = 4 * WARPS;
        }
        const int terms = min(step, ly.out - n);
        if (!share.split)
            in_groups(share.count, [&](auto g) { multiply_columns<R>(c, g, lane + n, ldd, w, ldw, ldg, terms); });
        else if (share.count > 0)
            multiply_columns<1>(c, Groups<1, 0>(), lane + n, ldd, w, ldw, ldg, terms);
    }
}

// tile_weights adds Σ_m w_m·δ_m x_mᵀ over the tile's samples, m ascending, to the
// layer's weight in sum. A warp owns groups of four rows, a lane C columns; this is for
// the groups G.
template <int C, class G, class T, int ROWS>
__device__ inline void tile_weights(T *sum, G, const NarrowLayer &ly, const T *delta, const T *x,
                                    const TileInfo<T, ROWS> &info, int valid) {
    constexpr int V = Pack<T>::N;
    const int lane = threadIdx.x % 32, row = 4 * (threadIdx.x / 32 + WARPS * G::FIRST);
    const int ldd = row_stride<T>(ly.out), ldx = row_stride<T>(ly.in);
    T c[4 * G::COUNT][C];
#pragma unroll
    for (int j = 0; j < 4 * G::COUNT; j++)
#pragma unroll
        for (int i = 0; i < C; i++) c[j][i] = 0;
    int column[C];
#pragma unroll
    for (int i = 0; i < C; i++) column[i] = min(lane + 32 * i, ly.in - 1);
    const T *d = delta + row;
#pragma unroll(sizeof(T) == 4 ? 2 : 1)
    for (int m = 0; m < valid; m++, d += ldd, x += ldx) {
        const T w = info.weight[m];
        T xw[C];
#pragma unroll
        for (int i = 0; i < C; i++) xw[i] = w * x[column[i]];
#pragma unroll
        for (int g = 0; g < G::COUNT; g++)
#pragma unroll
            for (int j = 0; j < 4; j += V) {
                const Pack<T> pd = load_pack(d + 4 * WARPS * g + j);
#pragma unroll
                for (int v = 0; v < V; v++)
#pragma unroll
                    for (int i = 0; i < C; i++) c[4 * g + j + v][i] = fma(pd.v[v], xw[i], c[4 * g + j + v][i]);
            }
    }
    // Registers cannot be indexed: shift them instead.
    T *to = sum + ly.w + lane;
#pragma unroll 1
    for (int n = row; n < row + 4 * WARPS * G::COUNT; n += 4 * WARPS) {
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < C; i++)
                if (n + j < ly.out && lane + 32 * i < ly.in) to[(n + j) * ly.ld() + 32 * i] += c[j][i];
#pragma unroll
        for (int j = 0; j + 4 < 4 * G::COUNT; j++)
#pragma unroll
            for (int i = 0; i < C; i++) c[j][i] = c[j + 4][i];
    }
}

// tile_biases does the same for the bias, and for the time column: a thread an element.
template <class T, int ROWS>
__device__ inline void tile_biases(T *sum, const NarrowLayer &ly, const T *delta, const TileInfo<T, ROWS> &info, int valid) {
    const int n = threadIdx.x % MAX_WIDTH;
    const bool time = threadIdx.x >= MAX_WIDTH;
    if (n >= ly.out || (time && !ly.time)) return;
    const int ldd = row_stride<T>(ly.out);
    T s = 0;
#pragma unroll 2
    for (int m = 0; m < valid; m++) {
        const T d = info.weight[m] * delta[m * ldd + n];
        s = time ? fma(info.time[m], d, s) : s + d;
    }
    T *to = sum + (time ? ly.w + n * ly.ld() + ly.in : ly.bias() + n);
    *to += s;
}

// time_part is Σ_n δ[n]·w_t[n] of one sample, n ascending.
template <class T>
__device__ inline T time_part(const T *delta, const T *column, int out) {
    T s = 0;
#pragma unroll 1
    for (int n = 0; n < out; n += Pack<T>::N) {
        const Pack<T> d = load_pack(delta + n), w = load_pack(column + n);
#pragma unroll
        for (int v = 0; v < Pack<T>::N; v++)
            if (n + v < out) s = fma(d.v[v], w.v[v], s);
    }
    return s;
}

// tile_forward takes a tile, whose input is in shared memory, through all layers. With
// SLOPES it leaves σ' of every layer where δ will be; the input of every layer stays.
// there(m): sample m takes part; the others become 0. out(m, n, r) gets the last layer's
// output and may change its slope. A barrier comes before it; it ends with one.
template <bool SLOPES, class T, int R, class There, class Out>
__device__ inline void tile_forward(Weights<T, 1> &weights, TileInfo<T, 32 * R> &info, There there, Out out) {
    const NarrowNet<T> &net = weights.net;
    T *shared = weights.shared;
    const int last = net.layers - 1;
#pragma unroll 1
    for (int l = 0; l <= last; l++) {
        const NarrowLayer ly = net.layer[l];
        info.load_layer(net.theta, ly);
        const Share<T, R> share(ly.out);
        T c[R][4 * MAX_GROUPS];
        product(c, share, weights, ly, shared + ly.x);
        // s waits where σ' will be.
        const int ld = row_stride<T>(ly.out);
        T *slope = shared + ly.d, *next = l < last ? shared + net.layer[l + 1].x : nullptr;
        put(c, share, slope, ld);
        __syncthreads();
        for_elements(32 * R, round4(ly.out), [&](int m, int n) {
            Activated<T> r = {0, 0};
            if (n < ly.out && there(m)) {
                r = activate<SLOPES>(ly.act, slope[m * ld + n] + info.shift(ly, m, n));
                if (l == last) out(m, n, r);
            }
            if (SLOPES) slope[m * ld + n] = r.slope;
            if (l < last) next[m * ld + n] = r.y;
        });
        __syncthreads();
    }
}

// tile_back takes a tile back, whose last slopes were multiplied by the cotangents. It adds
// the layers' parts of g of the first `valid` samples to sum, unless that is null;
// out(m, n, v) gets W_0ᵀδ_0 if az, and the sum of time_part is returned to the thread of a
// sample if at.
template <class T, int R, class Out>
__device__ inline T tile_back(Weights<T, 1> &weights, TileInfo<T, 32 * R> &info, T *sum, int valid, bool az, bool at, Out out) {
    const NarrowNet<T> &net = weights.net;
    T *shared = weights.shared, time = 0;
#pragma unroll 1
    for (int l = net.layers - 1; l >= 0; l--) {
        const NarrowLayer ly = net.layer[l];
        const T *delta = shared + ly.d, *x = shared + ly.x;
        const int ldd = row_stride<T>(ly.out), ldx = row_stride<T>(ly.in);
        const bool timed = at && ly.time;
        if (timed) info.load_layer(net.theta, ly);
        if (sum) {
            in_groups(groups_of(threadIdx.x / 32, round4(ly.out) / 4), [&](auto g) {
                if (ly.in > 64)
                    tile_weights<4>(sum, g, ly, delta, x, info, valid);
                else if (ly.in > 32)
                    tile_weights<2>(sum, g, ly, delta, x, info, valid);
                else
                    tile_weights<1>(sum, g, ly, delta, x, info, valid);
            });
            tile_biases(sum, ly, delta, info, valid);
        }
        if (timed) {
            __syncthreads(); // the time column is there
            if (threadIdx.x < 32 * R) time += time_part(delta + threadIdx.x * ldd, info.column, ly.out);
        }
        if (l == 0 && !az) break;
        const Share<T, R> share(ly.in);
        T c[R][4 * MAX_GROUPS];
        product_back(c, share, weights, ly, delta);
        if (l > 0) { // δ takes the place of σ'
            T *slope = shared + net.layer[l - 1].d;
            const int lane = threadIdx.x % 32;
            share.each(c, [&](int lot, int group, const T *four) {
                T *to = slope + (lane + 32 * lot) * ldx + 4 * group;
#pragma unroll
                for (int j = 0; j < 4; j += Pack<T>::N) {
                    Pack<T> d = load_pack(to + j);
#pragma unroll
                    for (int v = 0; v < Pack<T>::N; v++) d.v[v] *= four[j + v];
                    store_pack(to + j, d);
                }
            });
            __syncthreads();
        } else {
            __syncthreads(); // x_0 is not needed any more
            T *staged = shared + ly.x;
            put(c, share, staged, ldx);
            __syncthreads();
            for_elements(valid, ly.in, [&](int m, int n) { out(m, n, staged[m * ldx + n]); });
        }
    }
    return time;
}

// add_parts returns to the first warp, for g's element e of each lane, base plus the
// parts of it in ascending order, partial[part][e].
template <class T>
__device__ inline T add_parts(T base, const T *partial, int e, int params, int parts) {
    __shared__ T sum[WARPS][32];
    const int each = (parts + WARPS - 1) / WARPS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T s = 0;
    if (e < params)
        for (int i = warp * each; i < min(warp * each + each, parts); i++) s += partial[(long long)i * params + e];
    sum[warp][lane] = s;
    __syncthreads();
    if (warp == 0)
        for (int w = 0; w < WARPS; w++) base += sum[w][lane];
    return base;
}
