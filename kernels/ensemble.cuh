// A whole solve of a right-hand side that comes as text, every sample with steps of its
// own, in one launch: what the kernels of source.cuh, clock.cu, rk.cu and tape.cu do one
// after another. gpu/ensemble.go puts before this file
//   typedef of real; const int DIM; rhs_eval(t, z, theta, dz) of one sample;
//   STAGES of an attempt, EXTRA for interpolation, POWERS of the interpolant, ORDER, and
//   HAND, the stage that may be the next step's first; FSAL: the last stage's input is the
//   end of the step; SECOND: there is a second error estimate;
//   constexpr double METHOD[], Table of fused.cuh, and BETA[], Control's.
// So the compiler leaves out what is multiplied by 0.
//
// A thread owns a sample: its state, stages and step are in registers, unless they are
// larger than LARGE. A block is one warp. Its threads take samples from a queue; those that
// have none wait until they are half of the warp, for the others wait while a sample is
// begun. No result depends on which thread takes a sample.
// See Utkarsh et al. 2024, Automated translation and accelerated solving of differential
// equations on multiple GPU platforms, Computer Methods in Applied Mechanics and
// Engineering 419: EnsembleGPUKernel, whose threads own one sample each.
//
// Reference: Loop in internal/step/step.go on the CPU backend.
#pragma once

#include "unroll.cuh"

#include "lane.cuh"
#include "norms.cuh"
#include "queue.cuh"
#include "tape.cuh"
#include "team.cuh"

const int TOGETHER = WARP / 2; // samples that are begun together
const int ALL = STAGES + EXTRA;
const bool SMALL = fits(2 + ALL);
const int UNROLL = SMALL ? DIM : 1; // of loops over components

struct EnsembleArgs {
    ClockView clk;
    TapeView tape; // without counts: there is none
    long long limit; // attempts of a thread, after which lanes leave with theirs; 0: none
    int outputs;     // blocks of the table, or rows where lanes have spans of their own
    int room;        // steps of a lane that the tape has room for
    int resume;      // the lanes go on; else they start
    Control control; // without beta
    const real *theta;
    real *y, *first; // [rows][DIM]: states, and first stages of lanes that go on
    real *table;     // of outputs
    FusedWork *work;
    double rel, abs;
    int everywhere; // extra stages are evaluated in all accepted steps
    signed char slot[KEEP]; // of y, y at the end, and the stages, on the tape, or -1
};

// The method, as in Table of fused.cuh.
static __device__ constexpr double method_a(int row, int j) { return METHOD[row * ALL + j]; }
static __device__ constexpr double method_c(int row) { return METHOD[(ALL + 2) * ALL + row]; }
static __device__ constexpr double method_e(int j) { return METHOD[(ALL + 2) * ALL + ALL + 1 + j]; }
static __device__ constexpr double method_e2(int j) { return METHOD[(ALL + 3) * ALL + ALL + 1 + j]; }
static __device__ constexpr double method_dense(int j, int n) { return METHOD[(ALL + 4) * ALL + ALL + 1 + j * POWERS + n]; }
static __device__ constexpr bool interpolates(int j) {
    for (int n = 0; n < POWERS; n++)
        if (method_dense(j, n) != 0) return true;
    return false;
}

static __device__ __noinline__ void rhs_call(real t, const real *z, const real *theta, real *dz) { rhs_eval(t, z, theta, dz); }

// Ensemble is a thread with its sample.
struct Ensemble {
    const EnsembleArgs &a;
    Control control;
    Progress &left; // of the lanes that the thread had
    int lane = -1;
    // A clock of one lane, indexed by constants.
    double reals[REAL_COUNT];
    long long wides[WIDE_COUNT];
    int words[WORD_COUNT];
    real y[DIM], end[DIM], k[ALL][DIM];

    __device__ __forceinline__ Ensemble(const EnsembleArgs &a, Progress &left) : a(a), control(a.control), left(left) {
        each<0, 3>([&](auto i) { control.beta[decltype(i)::value] = BETA[decltype(i)::value]; });
        left = {};
        left.lane = -1;
    }

    __device__ __forceinline__ ClockView clock() { return {reals, wides, words, a.clk.span, 1, 1}; }
    __device__ __forceinline__ const SpanView &span() const { return a.clk.span_of(lane); }
    __device__ __forceinline__ double rel(const SpanView &s) const { return s.rel != 0 || s.abs != 0 ? s.rel : a.rel; }
    __device__ __forceinline__ double abs(const SpanView &s) const { return s.rel != 0 || s.abs != 0 ? s.abs : a.abs; }
    __device__ __forceinline__ bool full() const { return a.tape.counts && a.tape.counts[lane] >= a.room; }
    __device__ __forceinline__ long long row() const { return (long long)lane * DIM; }

    // copy_clock copies the state of the lane to the thread, or back.
    __device__ __forceinline__ void copy_clock(bool out) {
#pragma unroll
        for (int i = 0; i < REAL_COUNT; i++) out ? a.clk.real(i, lane) = reals[i] : reals[i] = a.clk.real(i, lane);
#pragma unroll
        for (int i = 0; i < WIDE_COUNT; i++) out ? a.clk.wide(i, lane) = wides[i] : wides[i] = a.clk.wide(i, lane);
#pragma unroll
        for (int i = 0; i < WORD_COUNT; i++) out ? a.clk.word(i, lane) = words[i] : words[i] = a.clk.word(i, lane);
    }

    // leave gives the lane's clock back.
    __device__ __forceinline__ void leave() {
        const ClockView c = clock();
        c.word(WORD_SELECT, 0) &= 1 << ROWS_RUNNING | 1 << ROWS_STALE;
        if (!c.selected(0, ROWS_RUNNING)) c.word(WORD_HIT, 0) = -1;
        copy_clock(true);
        left.add(c, 0, lane, span());
        lane = -1;
    }

    // enter takes a lane, if there is something to do for it.
    __device__ __forceinline__ void enter(int which, bool late) {
        const ClockView c = clock();
        lane = which;
        if (a.resume)
            copy_clock(false);
        else
            start(c, 0, span());
        if (!c.selected(0, ROWS_RUNNING) || late || full()) {
            leave();
            return;
        }
        const bool stale = c.selected(0, ROWS_STALE);
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            y[d] = a.y[row() + d];
            if (!stale) k[0][d] = a.first[row() + d];
        }
    }

    // fill gives lanes that wait to threads without, and reports whether the warp has any.
    // more is false once none waits.
    __device__ __forceinline__ bool fill(bool &more, bool late) {
        for (;;) {
            const unsigned want = __ballot_sync(FULL, lane < 0 && more);
            const bool any = __any_sync(FULL, lane >= 0);
            if (!want || (any && __popc(want) < TOGETHER)) return any;
            const int m = threadIdx.x, leader = __ffs(want) - 1;
            int next = 0;
            if (m == leader) next = atomicAdd(&a.work->next, __popc(want));
            next = __shfl_sync(FULL, next, leader) + __popc(want & ((1u << m) - 1));
            if (!(lane < 0 && more)) continue;
            if (next >= a.clk.lanes)
                more = false;
            else
                enter(next, late);
        }
    }

    // evaluate sets f to the right-hand side at z, at the instant of a stage.
    template <int ROW> __device__ __forceinline__ void evaluate(int rows, const real *z, real *f) {
        const ClockView c = clock();
        const real t = (real)c.instant(0, rows, method_c(ROW));
        if constexpr (SMALL)
            rhs_eval(t, z, a.theta, f);
        else
            rhs_call(t, z, a.theta, f);
        c.evaluated(0);
    }

    // combine sets to = y + h·Σ_j a_j·k_j for a row of the method.
    template <int ROW> __device__ __forceinline__ void combine(double h, real *to) const {
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            real s = y[d];
            each<0, ALL>([&](auto j) {
                constexpr double w = method_a(ROW, decltype(j)::value);
                if constexpr (w != 0) s = fma((real)(h * w), k[decltype(j)::value][d], s);
            });
            to[d] = s;
        }
    }

    // choose chooses the size of the first step: see clock.cu.
    __device__ __forceinline__ void choose(const SpanView &s) {
        const ClockView c = clock();
        real f1[DIM];
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) f1[d] = k[0][d];
#pragma unroll 1
        for (int second = 0; second < 2; second++) {
            if (second) {
                combine<ALL>(c.size(0, ROWS_RUNNING), end);
                evaluate<ALL>(ROWS_RUNNING, end, f1);
            }
            FirstSum sum = {};
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) sum.term(y[d], k[0][d], f1[d], rel(s), abs(s));
            c.real(REAL_D0, 0) = sqrt(sum.s0 / DIM);
            c.real(REAL_D1, 0) = sqrt(sum.s1 / DIM);
            c.real(REAL_D2, 0) = sqrt(sum.s2 / DIM);
            first_step(c, 0, s, ORDER, second);
        }
    }

    // error computes the error of the attempt.
    __device__ __forceinline__ void error(const SpanView &s) {
        const ClockView c = clock();
        const double h = c.real(REAL_H, 0);
        ErrorSum sum = {};
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            double est = 0, est2 = 0;
            each<0, STAGES>([&](auto j) {
                // A zero weight keeps an infinite k out of a sum that does not use it.
                constexpr double w = method_e(decltype(j)::value), w2 = method_e2(decltype(j)::value);
                if constexpr (w != 0) est += w * k[decltype(j)::value][d];
                if constexpr (SECOND && w2 != 0) est2 += w2 * k[decltype(j)::value][d];
            });
            sum.term(h, est, est2, y[d], end[d], rel(s), abs(s), SECOND, d);
        }
        c.real(REAL_RATIO, 0) = sum.ratio(DIM, SECOND);
        c.real(REAL_WORST, 0) = sum.worst;
        c.word(WORD_ROW, 0) = lane;
        c.word(WORD_COL, 0) = (int)sum.at;
    }

    // save writes the outputs that lie in the accepted step.
    __device__ __forceinline__ void save(const SpanView &s) {
        const ClockView c = clock();
        const bool own = a.clk.own();
        const int last = (int)min((long long)c.word(WORD_SAVE, 0), a.outputs - (own ? s.row : 0));
        for (int out = c.word(WORD_SAVE_FROM, 0); out < last; out++) {
            real *const to = a.table + (own ? s.row + out : (long long)out * a.clk.lanes + lane) * DIM;
            const double t = s.saves[out], h = c.real(REAL_TOOK_H, 0), x = (t - c.real(REAL_TOOK_T, 0)) / h;
            const bool inside = t != c.real(REAL_END, 0);
            real w[ALL];
            each<0, ALL>([&](auto j) {
                if constexpr (interpolates(decltype(j)::value)) {
                    double sum = 0;
                    each<0, POWERS>([&](auto n) {
                        sum = (sum + method_dense(decltype(j)::value, POWERS - 1 - decltype(n)::value)) * x;
                    });
                    w[decltype(j)::value] = (real)(h * sum);
                }
            });
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) {
                real sum = y[d];
                each<0, ALL>([&](auto j) {
                    constexpr int J = decltype(j)::value;
                    if constexpr (interpolates(J))
                        if (w[J] != 0) sum = fma(w[J], k[J][d], sum);
                });
                to[d] = inside ? sum : end[d];
            }
        }
    }

    // push appends the accepted step to the tape.
    __device__ __forceinline__ void push() {
        const long long total = (long long)a.clk.lanes * DIM;
        real *const to = a.tape.vec<real>(a.tape.counts[lane], 0, total) + row();
        const auto put = [&](int slot, const real *x) {
            if (slot < 0) return;
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) to[slot * total + d] = x[d];
        };
        put(a.slot[0], y);
        put(a.slot[1], end);
        each<0, ALL>([&](auto j) { put(a.slot[2 + decltype(j)::value], k[decltype(j)::value]); });
        // A copy, for note indexes it by variables.
        double copy[REAL_COUNT];
        each<REAL_T, REAL_UNTIL + 2>([&](auto i) { copy[decltype(i)::value] = reals[decltype(i)::value]; });
        copy[REAL_END] = reals[REAL_END];
        a.tape.note(lane, {copy, wides, words, a.clk.span, 1, 1}, 0);
    }

    // attempt makes an attempt, and goes with the lane past it.
    __device__ __forceinline__ void attempt() {
        const ClockView c = clock();
        const SpanView &s = span();
        if (c.selected(0, ROWS_STALE)) {
            evaluate<0>(ROWS_RUNNING, y, k[0]);
            if (s.h0 == 0 && c.wide(WIDE_ACCEPTED, 0) + c.wide(WIDE_REJECTED, 0) == 0) choose(s);
        }
        const double h = c.size(0, ROWS_RUNNING);
        each<1, STAGES>([&](auto i) {
            combine<decltype(i)::value>(h, end);
            evaluate<decltype(i)::value>(ROWS_RUNNING, end, k[decltype(i)::value]);
        });
        if constexpr (!FSAL) combine<ALL + 1>(h, end);
        error(s);
        advance(c, 0, s, control);
        if (!c.selected(0, ROWS_ACCEPTED)) return;

        const bool saving = c.selected(0, ROWS_SAVING);
        if constexpr (EXTRA > 0) {
            if (a.everywhere || saving) {
                real z[DIM];
                each<STAGES, ALL>([&](auto i) {
                    combine<decltype(i)::value>(c.size(0, ROWS_ACCEPTED), z);
                    evaluate<decltype(i)::value>(ROWS_ACCEPTED, z, k[decltype(i)::value]);
                });
            }
        }
        if (a.table) save(s);
        if (a.tape.counts) push();
        const bool hand = control.handover == HAND_LAST || (control.handover == HAND_SAVING && saving);
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            y[d] = end[d];
            if constexpr (HAND < ALL)
                if (hand) k[0][d] = k[HAND][d];
        }
    }

    // stay ends the lane's stay unless it goes on.
    __device__ __forceinline__ void stay(bool late) {
        const ClockView c = clock();
        if (c.selected(0, ROWS_RUNNING) && !late && !full()) return;
        const bool on = c.selected(0, ROWS_RUNNING) && !c.selected(0, ROWS_STALE);
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            a.y[row() + d] = y[d];
            if (on) a.first[row() + d] = k[0][d];
        }
        leave();
    }

    // report adds what this warp's lanes did, and in the last warp everything.
    __device__ __forceinline__ void report(long long places) const {
        FusedWork &w = *a.work;
        bool last = false;
        const FusedProgress mine = reduce(FusedProgress{left, places}, WARP);
        if (threadIdx.x == 0) {
            w.partial[blockIdx.x] = mine;
            __threadfence();
            last = atomicAdd(&w.done, 1) == (int)gridDim.x - 1;
        }
        if (!__any_sync(FULL, last)) return;
        __threadfence();
        FusedProgress sum = {};
        sum.p.lane = -1;
        for (int i = threadIdx.x; i < (int)gridDim.x; i += WARP) sum.add(w.partial[i]);
        sum = reduce(sum, WARP);
        if (threadIdx.x) return;
        const SpanView &s = *a.clk.span;
        if (sum.p.lane < 0) sum.p.t = s.stops[s.stop_count - 1];
        sum.p.tape = a.tape.counts ? *(volatile int *)a.tape.longest : 0;
        w.total = sum;
        w.next = w.done = 0;
    }
};

extern "C" __global__ void __launch_bounds__(WARP) source_solve(EnsembleArgs a) {
    __shared__ Progress left[WARP];
    Ensemble e(a, left[threadIdx.x]);
    const auto late = [&](long long attempts) { return a.limit > 0 && attempts >= a.limit; };
    bool more = true;
    long long n = 0;
#pragma unroll 1
    for (; e.fill(more, late(n)); n++) {
        if (e.lane < 0) continue;
        e.attempt();
        e.stay(late(n + 1));
    }
    e.report(n);
}
