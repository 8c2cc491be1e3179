// The clock's verbs: start a solve, choose the first step, decide about an attempt,
// and count how far the lanes are. Times, steps and norms are double for either
// type of element.
//
// start, propose, advance: a thread owns a lane.
// norms, propose: Hairer, Nørsett & Wanner, Solving ODEs I, II.4, p. 169, from the RMS norms,
//   over the elements of a lane,
//     d0 = ‖y0/sc‖, d1 = ‖f0/sc‖, d2 = ‖(f1-f0)/sc‖/h0, sc_i = abs + rel·|y0_i|,
//   the largest over blocks each. In norms, threads and blocks own what reduce.cuh
//   says; y0, f0, f1 are [blocks][rows][cols].
// poll: a block owns 4096 lanes, the last kernel adds the blocks.
//
// Reference: Start, ProposeStep, Advance and Poll in cpu/clock.go.
#include "lane.cuh"
#include "norms.cuh"
#include "progress.cuh"
#include "reduce.cuh"

struct StartArgs {
    ClockView clk;
};

extern "C" __global__ void clock_start(StartArgs a) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane < a.clk.lanes) start(a.clk, lane, a.clk.span_of(lane));
}

struct AdvanceArgs {
    ClockView clk;
    Control control;
};

extern "C" __global__ void clock_advance(AdvanceArgs a) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= a.clk.lanes) return;
    if (a.clk.word(WORD_STATUS, lane) == RUNNING) {
        advance(a.clk, lane, a.clk.span_of(lane), a.control);
        return;
    }
    a.clk.word(WORD_HIT, lane) = -1;
    a.clk.word(WORD_SELECT, lane) = 0;
}

struct CutArgs {
    ClockView clk;
    const double *times; // NaN for lanes that are not cut
    const int *status;
};

// cut ends the accepted steps of lanes early; a thread owns a lane.
extern "C" __global__ void clock_cut(CutArgs a) {
    const ClockView &c = a.clk;
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= c.lanes || !c.selected(lane, ROWS_ACCEPTED) || isnan(a.times[lane])) return;
    const SpanView &s = c.span_of(lane);
    const double t = a.times[lane], took = c.real(REAL_TOOK_T, lane), end = c.real(REAL_END, lane);
    bool inside = c.selected(lane, ROWS_SAVING);
    const bool fresh = c.selected(lane, ROWS_FRESH);
    Lane l;
    l.load(c, lane);
    if (t != end) {
        if (l.stop > 0 && end == s.stops[l.stop - 1]) l.stop--;
        c.word(WORD_HIT, lane) = -1;
        l.t = c.real(REAL_END, lane) = t;
        inside = false;
        int save = c.word(WORD_SAVE_FROM, lane);
        for (; save < s.save_count && between(took, s.saves[save], t); save++) inside = inside || s.saves[save] != t;
        c.word(WORD_SAVE, lane) = save;
        if (l.status == DONE) l.status = RUNNING;
        l.begin(s);
    }
    l.stale = true;
    l.flags |= FLAG_FRESH;
    if (a.status[lane] != RUNNING)
        l.status = a.status[lane];
    else if (l.status == RUNNING)
        l.aim(s, c.real(REAL_STRETCH, lane));
    l.save(c, lane, true, inside, fresh);
}

template <class T> struct NormsArgs {
    ClockView clk;
    Extent x;
    const T *y0, *f0, *f1; // f1 null in the first of the two calls
    double rel, abs;
    void *partial;
    int team, chunk, chunks, unused;
};

// Norms is the norm of reduce.cuh behind the first step.
template <class T> struct Norms {
    using Sum = FirstSum;
    const NormsArgs<T> &a;
    double d0, d1, d2; // largest over blocks; d2 is not over h0 yet
    const SpanView *own; // where a tolerance of the lane's own is, or null

    __device__ Norms(const NormsArgs<T> &a) : a(a), d0(0), d1(0), d2(0), own(nullptr) {}
    __device__ void open(const ClockView &c, int lane) { own = c.tolerance(lane); }

    __device__ void term(Sum &s, long long e, long long) const {
        const double k0 = a.f0[e];
        s.term(a.y0[e], k0, a.f1 ? (double)a.f1[e] : k0, own ? own->rel : a.rel, own ? own->abs : a.abs);
    }

    // larger, unlike fmax, keeps a NaN.
    static __device__ double larger(double a, double b) { return a >= b || isnan(a) ? a : b; }

    __device__ void close(const Sum &s, long long n) {
        const double m = n > 0 ? (double)n : 1;
        d0 = larger(d0, sqrt(s.s0 / m));
        d1 = larger(d1, sqrt(s.s1 / m));
        d2 = larger(d2, sqrt(s.s2 / m));
    }

    __device__ void store(const ClockView &c, int lane, const Extent &) const {
        c.real(REAL_D0, lane) = d0;
        c.real(REAL_D1, lane) = d1;
        c.real(REAL_D2, lane) = d2;
    }
};

#define NORMS(S, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(BLOCK) clock_norms_##S(NormsArgs<T> a) {                     \
        norm_lanes(Norms<T>(a), a.clk, a.x, a.team);                                                           \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(BLOCK) clock_norms_chunks_##S(NormsArgs<T> a) {              \
        norm_chunks(Norms<T>(a), a.clk, a.x, a.chunk, a.chunks, (typename Norms<T>::Sum *)a.partial);          \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(BLOCK) clock_norms_finish_##S(NormsArgs<T> a) {              \
        norm_finish(Norms<T>(a), a.clk, a.x, a.chunks, (const typename Norms<T>::Sum *)a.partial);             \
    }
NORMS(f32, float)
NORMS(f64, double)

struct ProposeArgs {
    ClockView clk;
    int order, second; // second: of the two calls
};

extern "C" __global__ void clock_propose(ProposeArgs a) {
    const ClockView &c = a.clk;
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= c.lanes || !c.selected(lane, ROWS_RUNNING)) return;
    const SpanView &s = c.span_of(lane);
    if (c.own() && s.h0 != 0) return;
    first_step(c, lane, s, a.order, a.second);
}

const int POLL_LANES = 16 * BLOCK; // of one block

struct PollArgs {
    ClockView clk;
    Progress *partial, *progress;
    const int *tape; // its longest lane, or null
};

extern "C" __global__ void __launch_bounds__(BLOCK) clock_poll(PollArgs a) {
    const ClockView &c = a.clk;
    Progress p = {};
    p.lane = -1;
    for (int i = 0; i < POLL_LANES; i += BLOCK) {
        const long long lane = (long long)blockIdx.x * POLL_LANES + i + threadIdx.x;
        if (lane >= c.lanes) break;
        p.add(c, (int)lane, (int)lane, c.span_of((int)lane));
    }
    p = reduce(p, BLOCK);
    if (threadIdx.x == 0) a.partial[blockIdx.x] = p;
}

extern "C" __global__ void __launch_bounds__(BLOCK) clock_poll_finish(PollArgs a) {
    const SpanView &s = *a.clk.span;
    const int blocks = (a.clk.lanes + POLL_LANES - 1) / POLL_LANES;
    Progress p = {};
    p.lane = -1;
    for (int i = threadIdx.x; i < blocks; i += BLOCK) p.add(a.partial[i]);
    p = reduce(p, BLOCK);
    if (threadIdx.x) return;
    if (p.lane < 0) p.t = s.stop_count > 0 ? s.stops[s.stop_count - 1] : s.t0;
    p.tape = a.tape ? *a.tape : 0;
    *a.progress = p;
}
