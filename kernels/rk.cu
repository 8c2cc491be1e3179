// The state's verbs: combine stages, measure the error, save outputs, commit.
//
// Vecs are dense row-major [blocks][rows][cols] of T. With one lane every row
// belongs to it, otherwise row r of each block belongs to lane r; rows whose lane is
// not selected are not touched.
//
// combine: dst = y + h·Σ_j coef_j·k_j in ascending order of j, h·coef_j rounded to T.
// commit: dst = src. stop: table[j] = y, y += table[j] or y = table[j].
//   A thread owns V adjacent elements: 16 bytes, or one (the _1 entries) where
//   rows are not whole in 16 bytes.
// error: the estimate of element i is h·Σ_j e_j·k_j[i], over abs + rel·max(|y0|, |y1|);
//   its RMS over the elements of a lane, the largest over blocks and parts, in double.
//   Threads and blocks own what reduce.cuh says.
// save: y0 + h·Σ_j k_j·Σ_m p_jm·x^(m+1) to the output's block of the table. A team of
//   threads of a warp owns a lane, or blocks own chunks of one. save_vjp is its
//   transpose.
//
// Reference: cpu/rk.go: Combine, Commit, AtStop, ErrorRatio, Save; cpu/reverse.go: SaveVJP.
#include "norms.cuh"
#include "reduce.cuh"

const int MOVES = 8;   // of one commit, at most
const int STAGES = 32; // of a method
const int TERMS = 320; // stages times powers of an interpolant

template <class T> struct CombineArgs {
    ClockView clk;
    Flat x;
    T *dst;
    const T *y, *k[STAGES];
    double coef[STAGES];
    int count, rows; // rows: which are selected
    int plain, unused; // plain: without h
};

template <int V, class T> static __device__ void combine(const CombineArgs<T> &a) {
    const long long e = a.x.mine(V);
    if (e < 0) return;
    const int lane = a.x.lane(a.clk, e);
    if (!a.clk.selected(lane, a.rows)) return;
    const double h = a.plain ? 1 : a.clk.size(lane, a.rows);
    Pack<T, V> sum = load<V>(a.y, e);
#pragma unroll 4
    for (int j = 0; j < a.count; j++) {
        const T c = (T)(h * a.coef[j]);
        const Pack<T, V> k = load<V>(a.k[j], e);
#pragma unroll
        for (int i = 0; i < V; i++) sum.v[i] = fma(c, k.v[i], sum.v[i]);
    }
    store<V>(a.dst, e, sum);
}

template <class T> struct CommitArgs {
    ClockView clk;
    Flat x;
    T *dst[MOVES];
    const T *src[MOVES];
    int count, rows;
};

template <int V, class T> static __device__ void commit(const CommitArgs<T> &a) {
    const long long e = a.x.mine(V);
    if (e < 0 || !a.clk.selected(a.x.lane(a.clk, e), a.rows)) return;
    for (int m = 0; m < a.count; m++) store<V>(a.dst[m], e, load<V>(a.src[m], e));
}

enum StopOp { STOP_STORE, STOP_ADD, STOP_LOAD };

template <class T> struct StopArgs {
    ClockView clk;
    Flat x;
    T *y, *table;
    int blocks, op; // blocks of the table, or rows where lanes have spans of their own
};

template <int V, class T> static __device__ void stop(const StopArgs<T> &a) {
    const long long e = a.x.mine(V);
    if (e < 0) return;
    const int lane = a.x.lane(a.clk, e), hit = a.clk.word(WORD_HIT, lane);
    if (hit < 0 || hit >= a.blocks) return;
    // Where lanes have spans of their own the table is [rows][cols], and so is y.
    T *row = a.table + (a.clk.own() ? (long long)(hit - lane) * a.x.cols : hit * a.x.total);
    if (a.op == STOP_STORE) {
        store<V>(row, e, load<V>(a.y, e));
        return;
    }
    Pack<T, V> r = load<V>(row, e);
    if (a.op == STOP_ADD) {
        const Pack<T, V> y = load<V>(a.y, e);
        for (int i = 0; i < V; i++) r.v[i] = y.v[i] + r.v[i];
    }
    store<V>(a.y, e, r);
    if (a.clk.lanes == 1 ? e == 0 : e % a.x.cols == 0) a.clk.set_stale(lane, true);
}

template <class T> struct ErrorArgs {
    ClockView clk;
    Extent x;
    const T *y0, *y1, *k[STAGES];
    double e[STAGES], e2[STAGES];
    double rel, abs;
    void *partial;
    int count;  // of stages
    int second; // there is an e2
    int first;  // of the parts
    int team, chunk, chunks, unused;
};

// Error is the norm of reduce.cuh that decides about an attempt.
template <class T> struct Error {
    using Sum = ErrorSum;
    const ErrorArgs<T> &a;
    double h, ratio, worst;
    const SpanView *own; // where a tolerance of the lane's own is, or null
    long long at; // element of the lane's block where worst is new, or -1

    __device__ Error(const ErrorArgs<T> &a) : a(a), own(nullptr), at(-1) {}

    __device__ void open(const ClockView &c, int lane) {
        own = c.tolerance(lane);
        h = c.real(REAL_H, lane);
        ratio = a.first ? 0 : c.real(REAL_RATIO, lane);
        worst = a.first ? -1 : c.real(REAL_WORST, lane);
    }

    __device__ void term(Sum &sum, long long e, long long i) const {
        double est = 0, est2 = 0;
#pragma unroll 4
        for (int j = 0; j < a.count; j++) {
            const double k = a.k[j][e];
            // A zero weight keeps an infinite k out of a sum that does not use it.
            est += a.e[j] != 0 ? a.e[j] * k : 0;
            if (a.second) est2 += a.e2[j] != 0 ? a.e2[j] * k : 0;
        }
        sum.term(h, est, est2, a.y0[e], a.y1[e], own ? own->rel : a.rel, own ? own->abs : a.abs, a.second, i);
    }

    __device__ void close(const Sum &sum, long long n) {
        const double r = sum.ratio(n, a.second);
        if (!(r <= ratio)) ratio = isnan(ratio) ? ratio : r;
        if (!isnan(worst) && !(sum.worst <= worst)) worst = sum.worst, at = sum.at;
    }

    __device__ void store(const ClockView &c, int lane, const Extent &x) const {
        c.real(REAL_RATIO, lane) = ratio;
        c.real(REAL_WORST, lane) = worst;
        if (at < 0 && !a.first) return;
        const long long e = at < 0 ? 0 : lane * x.n + at;
        c.word(WORD_ROW, lane) = (int)(e / max(x.cols, 1));
        c.word(WORD_COL, lane) = (int)(e % max(x.cols, 1));
    }
};

template <class T> struct SaveArgs {
    ClockView clk;
    Extent x; // one block
    const T *y0, *y1, *k[STAGES];
    T *table;
    int blocks;  // of the table, or rows where lanes have spans of their own
    int stages, powers;
    int team;    // threads of a lane: a power of two up to 32, or BLOCK
    int chunks;  // blocks of a lane, if team is BLOCK
    int unused;
    double dense[TERMS]; // [stages][powers]
};

// Outputs are those that lie in the accepted step of a lane: from, below end; output
// j of the lane begins at first + j·stride of a table, less where the lane begins in y.
struct Outputs {
    int from, end;
    long long first, stride;
    const double *saves;

    __device__ Outputs(const ClockView &c, int lane, int blocks, const Extent &x) : from(0), end(0) {
        if (lane >= c.lanes || !c.selected(lane, ROWS_ACCEPTED)) return;
        const SpanView &s = c.span_of(lane);
        from = c.word(WORD_SAVE_FROM, lane);
        end = (int)min((long long)c.word(WORD_SAVE, lane), blocks - s.row);
        stride = c.own() ? x.n : x.block;
        first = c.own() ? (s.row - lane) * x.n : 0;
        saves = s.saves;
    }
};

// weigh reports whether an output lies inside the step, and sets w to T(h·weight) of
// each stage then. Thread j of a team does its part.
template <class T>
static __device__ bool weigh(const SaveArgs<T> &a, const Outputs &o, int out, int lane, int j, T *w) {
    const ClockView &c = a.clk;
    const double t = o.saves[out];
    if (t == c.real(REAL_END, lane)) return false;
    const double h = c.real(REAL_TOOK_H, lane), x = (t - c.real(REAL_TOOK_T, lane)) / h;
#pragma unroll 1
    for (int s = j; s < a.stages; s += a.team) {
        const double *p = a.dense + s * a.powers;
        double sum = 0;
        for (int m = a.powers - 1; m >= 0; m--) sum = (sum + p[m]) * x;
        w[s] = (T)(h * sum);
    }
    return true;
}

// save keeps T(h·weight) of each stage in shared memory, [teams][stages].
template <class T> static __device__ void save(const SaveArgs<T> &a) {
    extern __shared__ double shared[];
    const ClockView &c = a.clk;
    const bool block = a.team == BLOCK;
    const int team = threadIdx.x / a.team, j = threadIdx.x % a.team;
    const int lane = block ? blockIdx.x / a.chunks : blockIdx.x * (BLOCK / a.team) + team;
    const int first = block ? blockIdx.x % a.chunks * BLOCK + j : j, step = block ? a.chunks * BLOCK : a.team;
    T *w = (T *)shared + team * a.stages;

    const Outputs o(c, lane, a.blocks, a.x);
    int out = o.from;
    const int end = o.end;
    // The loop is uniform in what synchronises: the block or the warp.
    for (; block ? out < end : __any_sync(FULL, out < end); out++) {
        const bool active = out < end;
        const bool inside = active && weigh(a, o, out, lane, j, w);
        if (block) __syncthreads();
        else __syncwarp();
        if (active) {
            T *dst = a.table + o.first + out * o.stride;
            for (long long i = first; i < a.x.n; i += step) {
                const long long e = a.x.at(0, lane) + i;
                T sum = a.y1[e];
                if (inside) {
                    sum = a.y0[e];
#pragma unroll 4
                    for (int s = 0; s < a.stages; s++)
                        if (w[s] != 0) sum = fma(w[s], a.k[s][e], sum);
                }
                dst[e] = sum;
            }
        }
        if (block) __syncthreads();
        else __syncwarp();
    }
}

#define ELEMENTWISE(S, T, V)                                                                                      \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_combine##S(CombineArgs<T> a) { combine<V>(a); }       \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_commit##S(CommitArgs<T> a) { commit<V>(a); }          \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_stop##S(StopArgs<T> a) { stop<V>(a); }
ELEMENTWISE(_f32, float, 4)
ELEMENTWISE(_f64, double, 2)
ELEMENTWISE(_1_f32, float, 1)
ELEMENTWISE(_1_f64, double, 1)

// save_vjp is the vector-Jacobian product of save: y0 and k are set, y1 is added to, and
// the table has the cotangents. A thread owns the same elements in all of them.
template <class T> static __device__ void save_vjp(const SaveArgs<T> &a) {
    extern __shared__ double shared[];
    const ClockView &c = a.clk;
    const bool block = a.team == BLOCK;
    const int team = threadIdx.x / a.team, j = threadIdx.x % a.team;
    const int lane = block ? blockIdx.x / a.chunks : blockIdx.x * (BLOCK / a.team) + team;
    const int first = block ? blockIdx.x % a.chunks * BLOCK + j : j, step = block ? a.chunks * BLOCK : a.team;
    T *w = (T *)shared + team * a.stages;

    T *y0 = (T *)a.y0, *y1 = (T *)a.y1;
    const Outputs o(c, lane, a.blocks, a.x);
    if (lane < c.lanes && c.selected(lane, ROWS_ACCEPTED))
        for (long long i = first; i < a.x.n; i += step) {
            const long long e = a.x.at(0, lane) + i;
            y0[e] = 0;
#pragma unroll 1
            for (int s = 0; s < a.stages; s++) ((T *)a.k[s])[e] = 0;
        }
    for (int out = o.from; block ? out < o.end : __any_sync(FULL, out < o.end); out++) {
        const bool active = out < o.end;
        const bool inside = active && weigh(a, o, out, lane, j, w);
        if (block) __syncthreads();
        else __syncwarp();
        if (active) {
            const T *src = a.table + o.first + out * o.stride;
            for (long long i = first; i < a.x.n; i += step) {
                const long long e = a.x.at(0, lane) + i;
                const T cot = src[e];
                if (!inside) {
                    y1[e] += cot;
                    continue;
                }
                y0[e] += cot;
#pragma unroll 1
                for (int s = 0; s < a.stages; s++) {
                    T *k = (T *)a.k[s];
                    k[e] = fma(w[s], cot, k[e]);
                }
            }
        }
        if (block) __syncthreads();
        else __syncwarp();
    }
}

#define TEAMS(S, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_error_##S(ErrorArgs<T> a) {                           \
        norm_lanes(Error<T>(a), a.clk, a.x, a.team);                                                              \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_error_chunks_##S(ErrorArgs<T> a) {                    \
        norm_chunks(Error<T>(a), a.clk, a.x, a.chunk, a.chunks, (typename Error<T>::Sum *)a.partial);             \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_error_finish_##S(ErrorArgs<T> a) {                    \
        norm_finish(Error<T>(a), a.clk, a.x, a.chunks, (const typename Error<T>::Sum *)a.partial);                \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_save_##S(SaveArgs<T> a) { save(a); }                  \
    extern "C" __global__ void __launch_bounds__(BLOCK) rk_save_vjp_##S(SaveArgs<T> a) { save_vjp(a); }
TEAMS(f32, float)
TEAMS(f64, double)
