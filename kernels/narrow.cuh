// Layers of at most 128 units, a tile of samples kept on chip through all of them.
//
// A block owns 32·R samples. Lane i of every warp owns samples i, i+32, …; the
// warps share out the outputs of a layer, in groups of four: group q belongs to
// warp q%8. So activations are read by lanes, one row of shared memory each, and
// weights by warps, one address for all lanes. Every output of every sample is one
// accumulator over ascending k: its bits do not depend on R or on the tile.
//
// Weights stay in shared memory if they fit; otherwise they pass through two
// buffers, a slab at a time, the next on its way while one is used.
// Reference: mlpKernel in cpu/mlp.go.
#pragma once

#include "mlp.cuh"

constexpr int MAX_WIDTH = 128;
constexpr int MAX_GROUPS = MAX_WIDTH / 4 / WARPS; // of four outputs, a warp

// SLAB is how many k a slab of weights holds: 128 bytes. For the way back, where k
// are the outputs, a slab is SLAB rows of MAX_WIDTH.
template <class T>
constexpr int SLAB = 128 / sizeof(T);

__host__ __device__ inline int round4(int n) { return (n + 3) & ~3; }

// row_stride is the elements between samples in shared memory for `width` values: an
// odd number of packs, so that lanes reading one row each meet no bank conflict.
template <class T>
__device__ inline int row_stride(int width) {
    constexpr int V = Pack<T>::N;
    return (round4(width) / V | 1) * V;
}

// NarrowLayer describes a layer to a kernel. Offsets into shared memory are in
// elements.
struct NarrowLayer {
    int in, out; // in without the time column
    int time;    // 1: there is one
    int act;
    int w;    // of the weight in θ
    int x, d; // of the layer's input, and of σ' and then δ at its output
    int slab; // of the weights, if they stay
    __device__ int ld() const { return in + time; }
    __device__ int bias() const { return w + out * ld(); }
};

// NarrowNet is what every narrow kernel needs to know.
template <class T>
struct NarrowNet {
    const T *theta;
    const T *theta_dot;      // tangent of θ, or null
    const NarrowLayer *layer;
    int layers, dim;
    int cube;                // the input map
    int resident;            // weights stay in shared memory
    int slabs, slab_size;    // offset of the buffers, elements of one
};

// TileInfo is at the beginning of shared memory: what is known of the tile's rows, and
// bias and time column of the layer at hand, and their tangents.
template <class T, int ROWS>
struct TileInfo {
    T bias[MAX_WIDTH], column[MAX_WIDTH], bias_dot[MAX_WIDTH], column_dot[MAX_WIDTH];
    T time[ROWS], weight[ROWS];
    int row[ROWS];

    // load_layer reads bias and time column; a barrier makes them visible.
    __device__ void load_layer(const T *theta, const NarrowLayer &ly, bool dot = false) {
        const int n = threadIdx.x % MAX_WIDTH;
        if (n >= ly.out) return;
        if (threadIdx.x < MAX_WIDTH)
            (dot ? bias_dot : bias)[n] = theta[ly.bias() + n];
        else
            (dot ? column_dot : column)[n] = ly.time ? theta[ly.w + n * ly.ld() + ly.in] : T(0);
    }
    // shift is t·w_t + b of output n for sample m.
    __device__ T shift(const NarrowLayer &ly, int m, int n) const {
        return ly.time ? fma(time[m], column[n], bias[n]) : bias[n];
    }
    __device__ T shift_dot(const NarrowLayer &ly, int m, int n) const {
        return ly.time ? fma(time[m], column_dot[n], bias_dot[n]) : bias_dot[n];
    }
};

// for_elements calls f(m, n) for every element of rows×cols, in the order of memory.
template <class F>
__device__ inline void for_elements(int rows, int cols, F f) {
    const int down = THREADS / cols, right = THREADS % cols;
    int m = threadIdx.x / cols, n = threadIdx.x % cols;
#pragma unroll 1
    while (m < rows) {
        f(m, n);
        m += down;
        n += right;
        if (n >= cols) n -= cols, m++;
    }
}

// Weights hands out the slabs of all layers in the order in which a kernel uses
// them; of θ or, with MOST = 2 and if there is a tangent of θ, of both side by side.
template <class T, int MOST>
struct Weights {
    static constexpr int PER = SLAB<T> * MAX_WIDTH / THREADS;
    using Forward = TileCopy<T, SLAB<T>, SLAB<T>, PER>;
    using Back = TileCopy<T, MAX_WIDTH, MAX_WIDTH, PER>;

    const NarrowNet<T> &net;
    T *shared;
    int lowest;      // layer at which the way back ends; net.layers: there is none
    int l, k;        // the slab on its way
    bool back, more; // more: there is one
    int now;         // buffer it goes to
    T reg[MOST][PER];

    __device__ Weights(const NarrowNet<T> &net, T *shared, int lowest) : net(net), shared(shared), lowest(lowest) {}

    __device__ int count() const { return MOST > 1 && net.theta_dot ? 2 : 1; }

    __device__ const T *source(int i) const { return i == 0 ? net.theta : net.theta_dot; }
    __device__ T *buffer(int i) const { return shared + net.slabs + (now * count() + i) * net.slab_size; }

    // load sets out for all weights, if they stay. loaded waits for them, before a
    // barrier.
    __device__ void load() {
        if (!net.resident) return;
#pragma unroll 1
        for (int l = 0; l < net.layers; l++) {
            const NarrowLayer ly = net.layer[l];
            const int size = round4(ly.out) * SLAB<T>;
#pragma unroll 1
            for (int k = 0; k < ly.in; k += SLAB<T>)
#pragma unroll
                for (int i = 0; i < MOST; i++) {
                    if (i >= count()) break;
                    T *to = shared + ly.slab + (k / SLAB<T> * count() + i) * size;
                    fetch_forward(reg[i], to, source(i), ly, k);
                    if (!ASYNC_COPY) land_forward(reg[i], to, source(i), ly, k);
                }
        }
    }
    __device__ void loaded() const {
        if (net.resident) wait_for_copies();
    }

    // begin starts with the first slab for a tile.
    __device__ void begin() {
        l = k = now = 0;
        back = false;
        more = !net.resident;
        if (more) fetch();
    }

    // forward returns the slab of the weight of layer ly from column k on,
    // [round4(out)][SLAB]; that of the tangent follows size() later.
    __device__ const T *forward(const NarrowLayer &ly, int k) {
        if (net.resident) return shared + ly.slab + k * count() * round4(ly.out);
        return next();
    }
    __device__ int size(const NarrowLayer &ly) const {
        return net.resident ? round4(ly.out) * SLAB<T> : net.slab_size;
    }

    // next waits for the slab on its way, sets out for the one after it, and
    // returns it.
    __device__ const T *next() {
        const NarrowLayer ly = net.layer[l];
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (i >= count())
                break;
            else if (back)
                Back::land(reg[i], buffer(i), min(SLAB<T>, round4(ly.out - k)), round4(ly.in), packs(source(i), ly));
            else
                land_forward(reg[i], buffer(i), source(i), ly, k);
        __syncthreads();
        const T *slab = buffer(0);
        advance();
        now ^= 1;
        if (more) fetch();
        return slab;
    }

    __device__ void advance() {
        k += SLAB<T>;
        if (!back) {
            if (k < net.layer[l].in) return;
            k = 0;
            if (++l < net.layers) return;
            back = true;
        } else if (k < net.layer[l].out) {
            return;
        }
        k = 0;
        more = --l >= lowest;
    }

    __device__ void fetch() {
        const NarrowLayer ly = net.layer[l];
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (i >= count()) {
                break;
            } else if (back) {
                const T *from = source(i) + ly.w;
                Back::fetch(reg[i], buffer(i), from + (long long)k * ly.ld(), ly.ld(), min(SLAB<T>, round4(ly.out - k)),
                            round4(ly.in), ly.out - k, ly.in, packs(source(i), ly));
            } else {
                fetch_forward(reg[i], buffer(i), source(i), ly, k);
            }
    }

    __device__ static bool packs(const T *theta, const NarrowLayer &ly) {
        return ((size_t)(theta + ly.w) | ly.ld() * sizeof(T)) % 16 == 0;
    }
    __device__ static void fetch_forward(T (&reg)[PER], T *to, const T *theta, const NarrowLayer &ly, int k) {
        Forward::fetch(reg, to, theta + ly.w + k, ly.ld(), round4(ly.out), round4(ly.in - k), ly.out, ly.in - k,
                       packs(theta, ly));
    }
    __device__ static void land_forward(T (&reg)[PER], T *to, const T *theta, const NarrowLayer &ly, int k) {
        Forward::land(reg, to, round4(ly.out), round4(ly.in - k), packs(theta, ly));
    }
};

// Groups is COUNT of a warp's groups of outputs from the FIRST one on, known when
// compiled, so that loops over them are straight code.
template <int COUNT_, int FIRST_>
struct Groups {
    static constexpr int COUNT = COUNT_, FIRST = FIRST_;
};

// in_groups calls f with parts of n groups that make up the whole, n up to MAX_GROUPS.
template <class F>
__device__ inline void in_groups(int n, F f) {
    static_assert(MAX_GROUPS == 4, "these are all cases");
    if (n == 4) {
        f(Groups<4, 0>());
        return;
    }
    if (n > 1)
        f(Groups<2, 0>());
    else if (n == 1)
        f(Groups<1, 0>());
    if (n == 3) f(Groups<1, 2>());
}

// groups_of is how many of the groups belong to the warp.
__device__ inline int groups_of(int warp, int groups) { return (groups - warp + WARPS - 1) / WARPS; }

// Share is the part of a layer's outputs that a warp computes: for all R lots of 32
// samples the groups q = warp, warp+8, …; or, where a layer has so few outputs that
// most warps would have none, one group for one lot.
template <class T, int R>
struct Share {
    bool split;
    int lot, group, count; // the first lot and group, and how many groups

    __device__ explicit Share(int outputs) {
        const int groups = round4(outputs) / 4, warp = threadIdx.x / 32;
        split = R > 1 && groups * R <= WARPS;
        lot = split ? warp % R : 0;
        group = split ? warp / R : warp;
        count = split ? group < groups : groups_of(warp, groups);
    }

    // each calls f(lot, group, registers of four outputs).
    template <class F>
    __device__ void each(T (&c)[R][4 * MAX_GROUPS], F f) const {
#pragma unroll
        for (int g = 0; g < MAX_GROUPS; g++)
            if (g < count) {
#pragma unroll
                for (int r = 0; r < R; r++)
                    if (r == 0 || !split) f(lot + r, group + WARPS * g, &c[r][4 * g]);
            }
    }
};

template <class T, int R>
__device__ inline void clear(T (&c)[R][4 * MAX_GROUPS]) {
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int j = 0; j < 4 * MAX_GROUPS; j++) c[r][j] = 0;
}

// multiply_rows adds Σ_k x[k]·w(output, k) over `terms` k for the first L lots of c
// and the groups G. x points to this lane's first row, w to the warp's first group in
// a slab of forward().
template <int L, class G, class T, int R>
__device__ inline void multiply_rows(T (&c)[R][4 * MAX_GROUPS], G, const T *x, int ldx, const T *w, int terms) {
    constexpr int V = Pack<T>::N;
#pragma unroll 1
    for (int k = 0; k < terms; k += V) {
        Pack<T> px[L];
#pragma unroll
        for (int r = 0; r < L; r++) px[r] = load_pack(x + 32 * r * ldx + k);
#pragma unroll
        for (int g = G::FIRST; g < G::FIRST + G::COUNT; g++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const Pack<T> pw = load_pack(w + (4 * WARPS * g + j) * SLAB<T> + k);
#pragma unroll
                for (int v = 0; v < V; v++)
#pragma unroll
                    for (int r = 0; r < L; r++) c[r][4 * g + j] = fma(px[r].v[v], pw.v[v], c[r][4 * g + j]);
            }
    }
}

// multiply_slab is multiply_rows for the warp's share: x is the layer's input.
template <class T, int R>
__device__ inline void multiply_slab(T (&c)[R][4 * MAX_GROUPS], const Share<T, R> &share, const T *x, int ldx,
                                     const T *slab, int terms) {
    const T *rows = x + (threadIdx.x % 32 + 32 * share.lot) * ldx;
    const T *w = slab + 4 * share.group * SLAB<T>;
    if (!share.split)
        in_groups(share.count, [&](auto g) { multiply_rows<R>(c, g, rows, ldx, w, terms); });
    else if (share.count > 0)
        multiply_rows<1>(c, Groups<1, 0>(), rows, ldx, w, terms);
}

// put_group writes four outputs of a sample.
template <class T>
__device__ inline void put_group(T *to, const T *c) {
    constexpr int V = Pack<T>::N;
#pragma unroll
    for (int j = 0; j < 4; j += V) {
        Pack<T> p;
#pragma unroll
        for (int v = 0; v < V; v++) p.v[v] = c[j + v];
        store_pack(to + j, p);
    }
}

// product computes W_l·x for the tile into c, k ascending.
template <class T, int R>
__device__ inline void product(T (&c)[R][4 * MAX_GROUPS], const Share<T, R> &share, Weights<T, 1> &weights,
                               const NarrowLayer &ly, const T *x) {
    clear<T, R>(c);
    const int ldx = row_stride<T>(ly.in);
#pragma unroll 1
    for (int k = 0; k < ly.in; k += SLAB<T>) {
        const T *slab = weights.forward(ly, k);
        multiply_slab(c, share, x + k, ldx, slab, min(SLAB<T>, ly.in - k));
    }
}

// put writes c to a tile of samples ld apart.
template <class T, int R>
__device__ inline void put(T (&c)[R][4 * MAX_GROUPS], const Share<T, R> &share, T *to, int ld) {
    const int lane = threadIdx.x % 32;
    share.each(c, [&](int lot, int group, const T *four) {
        put_group(to + (lane + 32 * lot) * ld + 4 * group, four);
    });
}

// forward_layers takes a tile through all layers. x is the input of the first, and of each
// one after it. begin(layer) readies what shift(layer, m, n) adds to output n of sample m;
// last(m, n, y) takes the outputs of the last layer, of the first `valid` samples.
template <class T, int R, class Begin, class Shift, class Last>
__device__ inline void forward_layers(const NarrowNet<T> &net, Weights<T, 1> &weights, T *x, int valid, Begin begin,
                                      Shift shift, Last last_layer) {
#pragma unroll 1
    for (int l = 0; l < net.layers; l++) {
        const NarrowLayer ly = net.layer[l];
        begin(ly);
        const Share<T, R> share(ly.out);
        T c[R][4 * MAX_GROUPS];
        product(c, share, weights, ly, x);
        __syncthreads();
        // The next layer's input takes the place of this one's.
        const int ld = row_stride<T>(ly.out);
        put(c, share, x, ld);
        __syncthreads();
        const bool last = l == net.layers - 1;
        for_elements(last ? valid : 32 * R, last ? ly.out : round4(ly.out), [&](int m, int n) {
            T y = 0;
            if (n < ly.out && m < valid) y = activate<false>(ly.act, x[m * ld + n] + shift(ly, m, n)).y;
            if (last)
                last_layer(m, n, y);
            else
                x[m * ld + n] = y;
        });
        __syncthreads();
    }
}

// load_rows notes row, time and weight of the tile's samples, which are i0 … of the
// call's; `valid` of them exist.
template <class T, int ROWS>
__device__ inline void load_rows(TileInfo<T, ROWS> &info, const MlpRows<T> &rows, int i0, int valid, bool weights) {
    const int m = threadIdx.x;
    if (m < valid) {
        info.row[m] = rows.row(i0 + m);
        info.time[m] = rows.time(i0 + m);
        if (weights) info.weight[m] = rows.weight(i0 + m);
    }
}

// load_input sets x = g(z) in a tile, and 0 where there is no sample or component.
// The rows must be in info.
template <class T, int ROWS>
__device__ inline void load_input(T *x, const TileInfo<T, ROWS> &info, const NarrowNet<T> &net, const T *z, int valid) {
    const int ld = row_stride<T>(net.dim);
    for_elements(ROWS, round4(net.dim), [&](int m, int d) {
        const bool there = m < valid && d < net.dim;
        x[m * ld + d] = there ? input_map(net.cube, z[(long long)info.row[m] * net.dim + d]) : T(0);
    });
}
