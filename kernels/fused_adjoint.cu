// The discrete adjoint of a whole solve of a narrow net in one launch: from the steps on
// the tape, last to first, what adjoint/discrete.go spells out,
//
//     κ_i = π_i + h·(b_i·λ + Σ_{j>i} a_ji·m_j),  m_i = κ_iᵀ ∂f/∂z(t + c_i·h, Y_i)
//     g  += Σ_i κ_iᵀ ∂f/∂θ(t + c_i·h, Y_i),      λ += Σ_i m_i + π
//
// A block owns `run` rows. It has places for 32·R of them, which take a step back at a
// time, each its own; a row whose steps are done leaves its place to the next of the
// block. What the places hold is written and read by the thread of an element, but for
// the products of f, which are those of narrow_vjp.cuh. Blocks leave their parts of g in
// partial[block], [params]; fused_adjoint_reduce adds them in ascending order. So no bit
// depends on anything but the steps and the number of blocks.
//
// In shared memory, or where that is too small in `states` of the block:
//   [y, λ, carry, k_0 … k_{stages-1}][place][dim]
// carry is κ_0 of the step behind, for the stage that it handed over. Stage by stage,
// last to first, κ_j takes the place of k_j, and m_j that of κ_j.
//
// Reference: reversal in adjoint/reversal.go, SaveVJP in cpu/save.go.
#include "narrow_vjp.cuh"
#include "tape.cuh"

template <class T>
struct ReverseArgs {
    ClockView clk;
    TapeView tape;
    NarrowNet<T> net;
    const double *method; // a [stages][stages], c [stages], b [extra], p [dense][powers]
    const T *cotangents;  // of the outputs, null: none
    T *lambda, *carry;    // [rows, dim]
    T *partial;           // [blocks, params], or null
    T *states;            // [blocks][3+stages][places][dim], or null
    const int *skip;      // 1 for lanes that are left out, or null
    int rows, run;
    int outputs;          // blocks of cotangents, or rows where lanes have spans of their own
    int stages, extra;    // the stages from extra on are evaluated where an output lies inside
    int dense, powers;    // stages with interpolation weights, 0 without outputs
    int end;              // the stage that may be the first of the next step, or -1
    int read;             // stages before it are read by others
    int kept;             // the tape has the stages
    int begins;           // λ and carry begin as zero
    int params, sum;      // offsets in shared memory, or -1
    int sheet, places, coef;
};

// What a place takes part in.
enum { TAKES_ROW = 1, TAKES_STEP = 2, TAKES_FRESH = 4, TAKES_SAVING = 8 };

// Places are the steps that a tile is at.
template <int ROWS>
struct Places {
    double t[ROWS], h[ROWS], end[ROWS], from[ROWS], until[ROWS];
    int lane[ROWS], step[ROWS]; // steps from `step` on are done
    int first[ROWS], last[ROWS]; // outputs in the step
    int leaving[ROWS], entering[ROWS]; // rows, or -1
    int takes[ROWS], evaluations[ROWS];
    int any;   // of takes
    int queue; // the next row to enter
};

template <class T, int R>
struct Reversal {
    static constexpr int ROWS = 32 * R;
    const ReverseArgs<T> &a;

    // These are functions, so that no registers hold them.
    __device__ static T *shared() {
        extern __shared__ __align__(16) unsigned char raw[];
        return reinterpret_cast<T *>(raw);
    }
    __device__ TileInfo<T, ROWS> &info() const { return *reinterpret_cast<TileInfo<T, ROWS> *>(shared()); }
    __device__ Places<ROWS> &at() const { return *reinterpret_cast<Places<ROWS> *>(shared() + a.places); }
    // coef is T(h·a) of the stage at hand, [stages][ROWS].
    __device__ T *coef() const { return shared() + a.coef; }
    __device__ int dim() const { return a.net.dim; }
    __device__ int size() const { return ROWS * a.net.dim; }
    __device__ T *state(int i) const {
        T *sheet = a.sheet >= 0 ? shared() + a.sheet : a.states + (long long)blockIdx.x * (3 + a.stages) * size();
        return sheet + i * size();
    }
    __device__ T *y() const { return state(0); }
    __device__ T *lambda() const { return state(1); }
    __device__ T *carry() const { return state(2); }
    __device__ T *k(int j) const { return state(3 + j); }
    // sum is the block's part of g, or null.
    __device__ T *part() const { return a.partial ? a.partial + (long long)blockIdx.x * a.params : nullptr; }
    __device__ T *sum() const { return a.partial && a.sum >= 0 ? shared() + a.sum : part(); }
    // The block's rows are those from first to last, and it uses so many places.
    __device__ int first() const { return blockIdx.x * a.run; }
    __device__ int last() const { return min(first() + a.run, a.rows); }
    __device__ int valid() const { return min(ROWS, last() - first()); }

    __device__ bool takes(int m, int what) const { return at().takes[m] & what; }

    // needs is what a place takes that stage j has to be evaluated for, or with `back` to
    // be taken back.
    __device__ int needs(int j, bool back) const {
        return j >= a.extra ? TAKES_SAVING : j == 0 && back ? TAKES_FRESH : TAKES_STEP;
    }

    // next lets warp 0 move every place on to the step before, or to the next row of the
    // block.
    __device__ void next() const {
        int any = 0, queue = at().queue;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const int m = threadIdx.x % 32 + 32 * r;
            const bool free = at().step[m] == 0;
            const unsigned all = __ballot_sync(~0u, free);
            int row = info().row[m], lane = at().lane[m], step = at().step[m], leaving = -1, entering = -1;
            if (free) {
                if (row >= 0) {
                    leaving = row;
                    if (a.clk.lanes > 1 || row == 0) a.clk.wide(WIDE_EVALUATIONS, lane) += at().evaluations[m];
                }
                const int ahead = queue + __popc(all & ((1u << threadIdx.x % 32) - 1));
                row = ahead < last() ? ahead : -1;
                entering = info().row[m] = row;
                if (row >= 0) {
                    lane = at().lane[m] = a.clk.lane_of(row);
                    step = a.skip && a.skip[lane] ? 0 : a.tape.counts[lane];
                }
                at().evaluations[m] = 0;
            }
            queue += __popc(all);
            int takes = row >= 0 ? TAKES_ROW : 0;
            if (step > 0) takes |= load(m, lane, --step);
            at().step[m] = step;
            at().leaving[m] = leaving;
            at().entering[m] = entering;
            at().takes[m] = takes;
            any |= takes;
        }
        for (int d = 16; d > 0; d /= 2) any |= __shfl_xor_sync(~0u, any, d);
        __syncwarp(); // all have read queue
        if (threadIdx.x == 0) at().any = any, at().queue = queue;
    }

    // load reads what Advance decided about a step.
    __device__ int load(int m, int lane, int step) const {
        at().t[m] = a.tape.real(STEP_T, step, lane);
        at().h[m] = a.tape.real(STEP_H, step, lane);
        at().end[m] = a.tape.real(STEP_END, step, lane);
        at().from[m] = a.tape.real(STEP_FROM, step, lane);
        at().until[m] = a.tape.real(STEP_UNTIL, step, lane);
        const int select = a.tape.word(STEP_SELECT, step, lane);
        int takes = TAKES_STEP;
        if (select >> ROWS_FRESH & 1) takes |= TAKES_FRESH;
        if (select >> ROWS_SAVING & 1) takes |= TAKES_SAVING;
        at().first[m] = at().last[m] = 0;
        if (a.cotangents) {
            const int save = a.tape.word(STEP_SAVE, step, lane);
            at().first[m] = a.tape.word(STEP_SAVE_FROM, step, lane);
            at().last[m] = (int)min((long long)save, a.outputs - a.clk.span_of(lane).row);
        }
        const int extra = takes & TAKES_SAVING ? a.stages - a.extra : 0;
        at().evaluations[m] += a.extra - 1 + (takes & TAKES_FRESH ? 1 : 0) + extra + (a.kept ? 0 : a.extra + extra);
        return takes;
    }

    // cotangent is that of output o of place m, component d.
    __device__ T cotangent(int m, int o, int d) const {
        const long long row = a.clk.own() ? a.clk.span_of(at().lane[m]).row + o : (long long)o * a.rows + info().row[m];
        return a.cotangents[row * dim() + d];
    }
    __device__ double saved(int m, int o) const { return a.clk.span_of(at().lane[m]).saves[o]; }

    // enter moves λ and carry of rows that come and go, reads the step and adds the
    // cotangents at its end.
    __device__ void enter() const {
        const long long total = (long long)a.rows * dim();
        for_elements(valid(), dim(), [&](int m, int d) {
            const int e = m * dim() + d;
            if (at().leaving[m] >= 0) {
                const long long i = (long long)at().leaving[m] * dim() + d;
                a.lambda[i] = lambda()[e];
                a.carry[i] = carry()[e];
            }
            const long long i = (long long)info().row[m] * dim() + d;
            if (at().entering[m] >= 0) {
                lambda()[e] = a.begins ? T(0) : a.lambda[i];
                carry()[e] = a.begins ? T(0) : a.carry[i];
            }
            if (!takes(m, TAKES_STEP)) return;
            const T *kept = a.tape.template vec<T>(at().step[m], 0, total) + i;
            y()[e] = *kept;
            if (a.kept) {
                const int n = takes(m, TAKES_SAVING) ? a.stages : a.extra;
#pragma unroll 1
                for (int j = 0; j < n; j++) k(j)[e] = kept[(j + 1) * total];
            }
            T sum = lambda()[e];
#pragma unroll 1
            for (int o = at().first[m]; o < at().last[m]; o++)
                if (saved(m, o) == at().end[m]) sum += cotangent(m, o, d);
            lambda()[e] = sum;
        });
    }

    // weigh sets the coefficients of stage j, of Y_j and with `back` of κ_j, and the
    // instant at which it is evaluated.
    __device__ void weigh(int j, bool back) const {
        const int n = back ? a.stages : j;
#pragma unroll 1
        for (int e = threadIdx.x; e < n * ROWS; e += THREADS) {
            const int i = e / ROWS, m = e % ROWS;
            double w;
            if (i < j)
                w = a.method[j * a.stages + i];
            else if (i > j)
                w = i < a.extra || takes(m, TAKES_SAVING) ? a.method[i * a.stages + j] : 0;
            else
                w = j < a.extra ? a.method[a.stages * (a.stages + 1) + j] : 0;
            coef()[e] = takes(m, TAKES_STEP) ? T(at().h[m] * w) : T(0);
        }
        const int m = threadIdx.x;
        if (m < ROWS)
            info().time[m] = takes(m, TAKES_STEP) ? T(instant_of(at().t[m], at().h[m], at().from[m], at().until[m],
                                                               a.method[a.stages * a.stages + j]))
                                                : T(0);
    }

    // stage is Y_j.
    __device__ T stage(int j, int m, int e) const {
        T sum = y()[e];
#pragma unroll 1
        for (int i = 0; i < j; i++) {
            const T c = coef()[i * ROWS + m];
            if (c != 0) sum = fma(c, k(i)[e], sum);
        }
        return sum;
    }

    // inside calls f(weight of stage j, cotangent) for the outputs inside the step.
    template <class F>
    __device__ void inside(int j, int m, int d, F f) const {
        if (!takes(m, TAKES_SAVING)) return;
#pragma unroll 1
        for (int o = at().first[m]; o < at().last[m]; o++) {
            const double t = saved(m, o);
            if (t == at().end[m]) continue;
            const double x = (t - at().t[m]) / at().h[m], *p = a.method + a.stages * (a.stages + 1) + a.extra + j * a.powers;
            double w = 0;
#pragma unroll 1
            for (int i = a.powers - 1; i >= 0; i--) w = (w + p[i]) * x;
            f(T(at().h[m] * w), cotangent(m, o, d));
        }
    }

    // costate is κ_j.
    __device__ T costate(int j, int m, int d, int e) const {
        T sum = 0;
        if (j < a.dense) inside(j, m, d, [&](T w, T c) { sum = fma(w, c, sum); });
        const T b = coef()[j * ROWS + m];
        if (b != 0) sum = fma(b, lambda()[e], sum);
#pragma unroll 1
        for (int i = j + 1; i < a.stages; i++) {
            const T c = coef()[i * ROWS + m];
            if (c != 0) sum = fma(c, k(i)[e], sum);
        }
        return j == a.end ? sum + carry()[e] : sum;
    }

    // arrive adds what the step's stages and outputs give to λ.
    __device__ void arrive() const {
        for_elements(valid(), dim(), [&](int m, int d) {
            if (!takes(m, TAKES_STEP)) return;
            const int e = m * dim() + d;
            T sum = lambda()[e], out = 0;
#pragma unroll 1
            for (int j = 0; j < a.extra; j++) sum += k(j)[e];
            if (a.dense) inside(0, m, d, [&](T, T c) { out += c; });
            sum += out;
            if (takes(m, TAKES_SAVING))
                for (int j = a.extra; j < a.stages; j++) sum += k(j)[e];
            lambda()[e] = sum;
        });
    }

    // evaluate sets k_j = f(Y_j).
    __device__ void evaluate(int j, Weights<T, 1> &weights) const {
        const int what = needs(j, false);
        if (!(at().any & what)) return;
        prepare(j, what, false, weights);
        tile_forward<false, T, R>(
            weights, info(), [&](int m) { return takes(m, what); },
            [&](int m, int d, Activated<T> &r) { k(j)[m * dim() + d] = r.y; });
    }

    // prepare makes the input of stage j, and κ_j where k_j is.
    __device__ void prepare(int j, int what, bool back, Weights<T, 1> &weights) const {
        const NarrowNet<T> &net = weights.net;
        __syncthreads();
        weights.lowest = back ? 0 : net.layers;
        weights.begin();
        weigh(j, back);
        weights.loaded();
        __syncthreads();
        T *x = weights.shared + net.layer[0].x;
        const int ld = row_stride<T>(dim());
        for_elements(ROWS, round4(dim()), [&](int m, int d) {
            const int e = m * dim() + d;
            T in = 0;
            if (d < dim() && takes(m, TAKES_STEP)) {
                const bool mine = takes(m, what);
                if (mine) in = input_map(net.cube, stage(j, m, e));
                if (back && (mine || j == 0)) {
                    const T kappa = costate(j, m, d, e);
                    k(j)[e] = mine ? kappa : T(0);
                    if (j == 0) carry()[e] = mine ? T(0) : kappa; // the step before evaluated it
                }
            }
            x[m * ld + d] = in;
        });
        __syncthreads();
    }

    // back takes stage j back: m_j takes the place of κ_j.
    __device__ void back(int j, Weights<T, 1> &weights) const {
        const int what = needs(j, true);
        if (!(at().any & what) && j > 0) return;
        prepare(j, what, true, weights);
        if (!(at().any & what)) return;
        tile_forward<true, T, R>(
            weights, info(), [&](int m) { return takes(m, what); },
            [&](int m, int d, Activated<T> &r) { r.slope *= k(j)[m * dim() + d]; });
        const bool cube = weights.net.cube;
        tile_back<T, R>(weights, info(), sum(), valid(), true, false, [&](int m, int d, T v) {
            if (!takes(m, what)) return;
            const int e = m * dim() + d;
            k(j)[e] = cube ? v * input_slope(true, stage(j, m, e)) : v;
        });
    }
};

template <class T, int R>
__device__ static void reverse(const ReverseArgs<T> &a) {
    constexpr int ROWS = 32 * R;
    const Reversal<T, R> x = {a};
    if (a.partial) {
#pragma unroll 1
        for (int e = threadIdx.x; e < a.params; e += THREADS) x.sum()[e] = 0;
    }
    if (threadIdx.x < ROWS) {
        x.info().row[threadIdx.x] = -1;
        x.info().weight[threadIdx.x] = 1;
        x.at().lane[threadIdx.x] = x.at().step[threadIdx.x] = 0;
    }
    if (threadIdx.x == 0) x.at().queue = x.first();
    Weights<T, 1> weights(a.net, x.shared(), 0);
    weights.load();
#pragma unroll 1
    for (;;) {
        __syncthreads();
        if (threadIdx.x < 32) x.next();
        __syncthreads();
        x.enter();
        if (!x.at().any) break;
#pragma unroll 1
        for (int j = 0; j < a.read && !a.kept; j++) x.evaluate(j, weights);
#pragma unroll 1
        for (int j = a.stages - 1; j >= 0; j--) x.back(j, weights);
        __syncthreads();
        x.arrive();
    }
    if (a.partial && a.sum >= 0) {
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < a.params; e += THREADS) x.part()[e] = x.sum()[e];
    }
}

#define REVERSE(T, R, NAME)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? RESIDENT : 1) NAME(ReverseArgs<T> a) { \
        reverse<T, R>(a);                                                                           \
    }
REVERSE(float, 1, fused_adjoint_tile32_f32)
REVERSE(float, 2, fused_adjoint_tile64_f32)
REVERSE(double, 1, fused_adjoint_tile32_f64)
REVERSE(double, 2, fused_adjoint_tile64_f64)

// PartsArgs are the parts of g that blocks left. A block of the grid owns 32 elements.
template <class T>
struct PartsArgs {
    T *g;
    const T *partial; // [parts, params]
    int params, parts, begins, unused; // begins: g begins as zero
};

template <class T>
__device__ static void add_blocks(const PartsArgs<T> &a) {
    const int e = blockIdx.x * 32 + threadIdx.x % 32;
    const bool mine = threadIdx.x < 32 && e < a.params;
    const T g = add_parts(mine && !a.begins ? a.g[e] : T(0), a.partial, e, a.params, a.parts);
    if (mine) a.g[e] = g;
}
extern "C" __global__ void __launch_bounds__(THREADS) fused_adjoint_reduce_f32(PartsArgs<float> a) { add_blocks(a); }
extern "C" __global__ void __launch_bounds__(THREADS) fused_adjoint_reduce_f64(PartsArgs<double> a) { add_blocks(a); }
