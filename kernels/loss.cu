// The loss of a batch and its derivative.
//
//   L = s·Σ_i w_i·ℓ_i,  s = 1 or 1/Σ_i w_i,  ∂L/∂p, with r = p - y:
//   MSE r², MAE |r|, Huber r²/2 where |r| <= δ and δ(|r| - δ/2) beyond,
//   cross-entropy log Σ_j exp(p_j) - p_c of a row of C logits and its class c.
//
// In double; sums in an order that depends on the number of targets alone. pred and
// grad are [n] elements, or [n][C] for cross-entropy; y and w are [n]. What weighs 0
// is not looked at, and its derivative is 0. The loss of a solve is NaN unless all lanes
// of its clock have arrived.
//
// sum: a block owns CHUNK targets, a thread every BLOCK-th. rows_sum: a block owns CHUNK
//   rows of logits, a team of 1 to 32 threads of a warp every (BLOCK/team)-th.
// finish: one block adds the blocks.
// grad: a thread owns an element. rows_grad: a team owns a row.
// gather: dst[b][i] = src[b][rows[i]]; a thread owns an element.
//
// Reference: eachLoss and EvalLoss in train/loss.go, gather in train/trajectories.go.
#include "learn.cuh"

enum LossKind { MSE, MAE, HUBER, CROSS_ENTROPY };

struct LossSum {
    double loss, weight;
    __device__ void add(const LossSum &o) { loss += o.loss, weight += o.weight; }
};

template <class T> struct LossArgs {
    const T *pred, *y, *w; // w null: all 1
    T *grad;
    LossSum *partial;
    Outcome *out;
    double delta;
    long long n;
    int classes, team; // of cross-entropy
    int kind, mean;
    int blocks, unused;
    ClockView solve; // of no lanes if the predictions are not a solve's
};

template <class T> static __device__ double weight(const LossArgs<T> &a, long long i) {
    if (a.kind == CROSS_ENTROPY && a.y[i] < 0) return 0;
    return a.w ? (double)a.w[i] : 1;
}

// element returns the loss of element i and its derivative.
template <class T> static __device__ double element(const LossArgs<T> &a, long long i, double &slope) {
    const double r = (double)a.pred[i] - (double)a.y[i], size = fabs(r);
    if (a.kind == MSE) {
        slope = 2 * r;
        return r * r;
    }
    if (a.kind == HUBER) {
        slope = size <= a.delta ? r : copysign(a.delta, r);
        return size <= a.delta ? r * r / 2 : a.delta * (size - a.delta / 2);
    }
    slope = r == 0 ? 0 : r / size;
    return size;
}

// Softmax of a row, known to the whole team. The largest logit is taken out of the
// exponentials, so that none overflows, and out of their sum, so that a loss near 0
// keeps its digits.
struct Softmax {
    double top, rest;
    int at; // of top
};

// Logit is a candidate for the largest, the first of equals.
struct Logit {
    double x;
    int at, unused;
    __device__ void add(const Logit &o) {
        if (o.x > x || (o.x == x && o.at < at)) x = o.x, at = o.at;
    }
};

struct Rest {
    double sum;
    __device__ void add(const Rest &o) { sum += o.sum; }
};

// softmax of the row at x, of which a team takes every team-th logit. Every thread of
// the warp calls it, those without a row with classes 0.
template <class T> static __device__ Softmax softmax(const T *x, int classes, int team) {
    const int j0 = threadIdx.x % team;
    Logit top = {-HUGE_VAL, 0x7fffffff, 0};
    for (int j = j0; j < classes; j += team) top.add(Logit{(double)x[j], j, 0});
    top = reduce(top, team);
    if (top.at == 0x7fffffff) top.x = nan(""), top.at = 0; // no logit is a number
    Rest rest = {0};
    for (int j = j0; j < classes; j += team)
        if (j != top.at) rest.sum += exp((double)x[j] - top.x);
    rest = reduce(rest, team);
    return Softmax{top.x, rest.sum, top.at};
}

template <class T> static __device__ void elements_sum(const LossArgs<T> &a) {
    const long long first = (long long)blockIdx.x * CHUNK, end = min(first + CHUNK, a.n);
    LossSum sum = {};
    for (long long i = first + threadIdx.x; i < end; i += BLOCK) {
        const double w = weight(a, i);
        if (w == 0) continue;
        double slope;
        sum.loss += w * element(a, i, slope);
        sum.weight += w;
    }
    sum = reduce(sum, BLOCK);
    if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

template <class T> static __device__ void rows_sum(const LossArgs<T> &a) {
    const int first = blockIdx.x * CHUNK, end = (int)min((long long)first + CHUNK, a.n);
    LossSum sum = {};
    for (int at = first; at < end; at += BLOCK / a.team) {
        const int i = at + threadIdx.x / a.team;
        const double w = i < end ? weight(a, i) : 0;
        const T *x = a.pred + (long long)i * a.classes;
        const Softmax s = softmax(x, w != 0 ? a.classes : 0, a.team);
        if (w == 0 || threadIdx.x % a.team) continue;
        sum.loss += w * ((s.top - (double)x[(int)a.y[i]]) + log1p(s.rest));
        sum.weight += w;
    }
    sum = reduce(sum, BLOCK);
    if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

template <class T> static __device__ void loss_finish(const LossArgs<T> &a) {
    const LossSum sum = add_partials(a.partial, a.blocks);
    int early = 0;
    for (int lane = threadIdx.x; lane < a.solve.lanes; lane += BLOCK) early |= a.solve.word(WORD_STATUS, lane) != DONE;
    early = __syncthreads_or(early);
    if (threadIdx.x) return;
    a.out->scale = a.mean ? 1 / sum.weight : 1;
    a.out->loss = early ? nan("") : sum.loss * a.out->scale;
    a.out->weight = sum.weight;
    a.out->norm = 0;
    a.out->bad = NONE;
}

template <class T> static __device__ void elements_grad(const LossArgs<T> &a) {
    const long long i = (long long)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= a.n) return;
    const double w = weight(a, i);
    double slope = 0;
    if (w != 0) element(a, i, slope);
    a.grad[i] = (T)(w == 0 ? 0 : a.out->scale * w * slope);
}

template <class T> static __device__ void rows_grad(const LossArgs<T> &a) {
    const long long i = (long long)blockIdx.x * (BLOCK / a.team) + threadIdx.x / a.team;
    const double w = i < a.n ? weight(a, i) : 0, scale = a.out->scale * w;
    const T *x = a.pred + i * a.classes;
    const Softmax s = softmax(x, w != 0 ? a.classes : 0, a.team);
    if (i >= a.n) return;
    const int c = w != 0 ? (int)a.y[i] : 0;
    for (int j = threadIdx.x % a.team; j < a.classes; j += a.team) {
        double p = 0;
        if (w != 0) {
            p = exp((double)x[j] - s.top) / (1 + s.rest);
            if (j == c) p = c == s.at ? -s.rest / (1 + s.rest) : p - 1;
        }
        a.grad[i * a.classes + j] = (T)(w == 0 ? 0 : scale * p);
    }
}

template <class T> struct RowsArgs {
    const T *src;
    T *dst;
    const int *rows;
    long long total;         // elements of dst
    int count, source, cols; // rows of a block of dst and of src
    int unused;
};

template <class T> static __device__ void gather(const RowsArgs<T> &a) {
    const long long e = (long long)blockIdx.x * BLOCK + threadIdx.x;
    if (e >= a.total) return;
    const long long row = e / a.cols, b = row / a.count;
    a.dst[e] = a.src[(b * a.source + a.rows[row % a.count]) * a.cols + e % a.cols];
}

#define LOSS(S, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_sum_##S(LossArgs<T> a) { elements_sum(a); }           \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_grad_##S(LossArgs<T> a) { elements_grad(a); }         \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_rows_sum_##S(LossArgs<T> a) { rows_sum(a); }          \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_rows_grad_##S(LossArgs<T> a) { rows_grad(a); }        \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_finish_##S(LossArgs<T> a) { loss_finish(a); }         \
    extern "C" __global__ void __launch_bounds__(BLOCK) loss_gather_##S(RowsArgs<T> a) { gather(a); }
LOSS(f32, float)
LOSS(f64, double)
