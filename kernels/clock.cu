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
#include "reduce.cuh"

// backend.Handover.
enum { HAND_NOTHING, HAND_LAST, HAND_SAVING };

// A step that would leave less than a hundredth of itself before a stop is
// stretched to it; one whose size was given only by what rounding explains.
#define STRETCH_ADAPTIVE 1.01
#define STRETCH_FIXED (1 + 1e-8)

#define INF HUGE_VAL

// A lane's step while a thread works on it.
struct Lane {
    double t, h, want, from, until;
    int status, flags, stop;
    bool stale;

    // toward is infinity in the direction of the span.
    static __device__ double toward(const SpanView &s) { return copysign(INF, s.stops[s.stop_count - 1] - s.t0); }

    __device__ void load(const ClockView &c, int lane) {
        t = c.real(REAL_T, lane);
        h = c.real(REAL_H, lane);
        want = c.real(REAL_WANT, lane);
        from = c.real(REAL_FROM, lane);
        until = c.real(REAL_UNTIL, lane);
        status = c.word(WORD_STATUS, lane);
        flags = c.word(WORD_FLAGS, lane);
        stop = c.word(WORD_STOP, lane);
        stale = c.word(WORD_SELECT, lane) >> ROWS_STALE & 1;
    }

    // save also says which rows the lane is selected by; fresh is of the accepted step.
    __device__ void save(const ClockView &c, int lane, bool accepted, bool inside, bool fresh) const {
        c.real(REAL_T, lane) = t;
        c.real(REAL_H, lane) = h;
        c.real(REAL_WANT, lane) = want;
        c.real(REAL_FROM, lane) = from;
        c.real(REAL_UNTIL, lane) = until;
        c.word(WORD_STATUS, lane) = status;
        c.word(WORD_FLAGS, lane) = flags;
        c.word(WORD_STOP, lane) = stop;
        const bool running = status == RUNNING;
        c.word(WORD_SELECT, lane) = running << ROWS_RUNNING | (running && stale) << ROWS_STALE |
                                    accepted << ROWS_ACCEPTED | (accepted && inside) << ROWS_SAVING |
                                    (accepted && fresh) << ROWS_FRESH;
    }

    // beside is the time next to t towards an infinity, of those that f can tell apart.
    static __device__ double beside(const SpanView &s, double t, double infinity) {
        if (!s.single) return nextafter(t, infinity);
        const float x = (float)t;
        const double d = x - t;
        if (d != 0 && (d > 0) == (infinity > 0)) return x; // rounding has moved it there
        return nextafterf(x, (float)infinity);
    }

    // aim sets the step to attempt: want, or what is left to the next stop.
    __device__ void aim(const SpanView &s, double stretch) {
        const double left = s.stops[stop] - t, reach = fabs(left);
        if (s.max_step > 0) {
            want = fmin(want, s.max_step);
            stretch = fmin(stretch, s.max_step * STRETCH_FIXED / want);
        }
        const bool landing = want * stretch >= reach;
        flags = (flags & (FLAG_REJECTED | FLAG_FRESH)) | (landing ? FLAG_LANDING : 0) | (want > reach ? FLAG_CUT : 0);
        // What t moves by, so that the state belongs to the time to the last bit.
        h = copysign(t + copysign(want, left) - t, left); // -0 too
        until = copysign(INF, left);
        if (landing) {
            h = left;
            until = s.stops[stop];
            if (s.jumps[stop]) until = beside(s, until, copysign(INF, -left));
        }
    }

    // begin notes whether the next step begins where f jumps.
    __device__ void begin(const SpanView &s) {
        const double onward = toward(s);
        from = -onward;
        const bool jump = stop > 0 && t == s.stops[stop - 1]              ? s.jumps[stop - 1]
                          : stop < s.stop_count && t == s.stops[stop]     ? s.jumps[stop]
                                                                          : t == s.t0 && s.jump0;
        if (jump) {
            from = beside(s, t, onward);
            stale = true;
        }
    }
};

struct StartArgs {
    ClockView clk;
};

extern "C" __global__ void clock_start(StartArgs a) {
    const ClockView &c = a.clk;
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= c.lanes) return;
    const SpanView &s = c.span_of(lane);
    for (int i = 0; i < REAL_COUNT; i++) c.real(i, lane) = 0;
    for (int i = 0; i < WIDE_COUNT; i++) c.wide(i, lane) = 0;
    for (int i = 0; i < WORD_COUNT; i++) c.word(i, lane) = 0;
    c.real(REAL_HISTORY0, lane) = c.real(REAL_HISTORY1, lane) = 1;
    c.real(REAL_SMALLEST, lane) = INF;
    c.word(WORD_HIT, lane) = -1;
    Lane l = {};
    l.t = s.t0;
    l.stale = true;
    l.flags = FLAG_FRESH;
    l.begin(s);
    if (s.t0 == s.stops[s.stop_count - 1]) {
        l.status = DONE;
    } else {
        l.want = fabs(s.h0);
        l.aim(s, STRETCH_FIXED);
    }
    l.save(c, lane, false, false, false);
}

// Control is backend.Control.
struct Control {
    double order, beta[3], safety, min_factor, max_factor, min_step;
    long long max_attempts;
    int fixed, handover;
};

static __device__ double clamp(double x, double lo, double hi) { return fmax(lo, fmin(x, hi)); }

// between reports whether x lies after a, up to and including b.
static __device__ bool between(double a, double x, double b) { return b >= a ? a < x && x <= b : b <= x && x < a; }

// smallest_step is the size below which a rejected step is not tried again.
static __device__ double smallest_step(const Control &c, double t) {
    if (c.min_step > 0) return c.min_step;
    t = fabs(t);
    return 16 * (nextafter(t, INF) - t);
}

// propose sets want after an accepted step with error ratio r.
static __device__ void propose(const ClockView &v, int lane, Lane &l, const Control &c, double r) {
    const double h = fabs(l.h), e1 = v.real(REAL_HISTORY0, lane), e2 = v.real(REAL_HISTORY1, lane);
    double factor = c.max_factor, elementary = INF;
    if (r > 0) {
        factor = c.safety * pow(r, -c.beta[0]) * pow(e1, -c.beta[1]) * pow(e2, -c.beta[2]);
        factor = clamp(factor, c.min_factor, c.max_factor);
        elementary = c.safety * pow(r, -1 / c.order);
    }
    if (l.flags & FLAG_REJECTED) factor = fmin(factor, 1.0);
    if (l.flags & FLAG_CUT) {
        // A step cut for a stop says little of the size the solution allows: go on
        // with the size from before unless this one speaks against it.
        l.want = fmax(h * factor, fmin(h * elementary, l.want));
        return;
    }
    l.want = h * factor;
    v.real(REAL_HISTORY1, lane) = e1;
    v.real(REAL_HISTORY0, lane) = fmax(r, 1e-4);
}

// accept moves the lane past its step and reports whether an output lies inside it.
static __device__ bool accept(const ClockView &v, int lane, Lane &l, const SpanView &s, const Control &c, double ratio) {
    v.wide(WIDE_ACCEPTED, lane)++;
    const double took = l.t;
    v.real(REAL_TOOK_T, lane) = took;
    v.real(REAL_TOOK_H, lane) = v.real(REAL_LAST, lane) = l.h;
    v.real(REAL_TOOK_FROM, lane) = l.from;
    v.real(REAL_TOOK_UNTIL, lane) = l.until;
    v.real(REAL_SMALLEST, lane) = fmin(v.real(REAL_SMALLEST, lane), fabs(l.h));
    if (l.flags & FLAG_LANDING) {
        l.t = s.stops[l.stop];
        v.word(WORD_HIT, lane) = s.blocks[l.stop];
        l.stop++;
    } else {
        l.t += l.h;
    }
    v.real(REAL_END, lane) = l.t;

    bool inside = false;
    int save = v.word(WORD_SAVE, lane);
    v.word(WORD_SAVE_FROM, lane) = save;
    for (; save < s.save_count && between(took, s.saves[save], l.t); save++) inside = inside || s.saves[save] != l.t;
    v.word(WORD_SAVE, lane) = save;
    l.stale = c.handover == HAND_NOTHING || (c.handover == HAND_SAVING && !inside);
    l.begin(s);
    l.flags = l.stale ? l.flags | FLAG_FRESH : l.flags & ~FLAG_FRESH;
    if (!c.fixed) {
        propose(v, lane, l, c, ratio);
        l.want = fmax(l.want, smallest_step(c, l.t));
    } else if (l.flags & FLAG_LANDING) {
        l.want = fabs(s.h0);
    } else {
        l.want = fabs(s.h0) + (l.want - fabs(l.h)); // what rounding has lost
    }
    l.flags &= ~FLAG_REJECTED;
    if (l.stop == s.stop_count) l.status = DONE;
    return inside;
}

static __device__ void reject(const ClockView &v, int lane, Lane &l, const Control &c, double ratio) {
    v.wide(WIDE_REJECTED, lane)++;
    l.flags |= FLAG_REJECTED;
    l.stale = false; // the state did not move
    const int failure = isnan(ratio) ? NOT_FINITE : STEP_TOO_SMALL;
    if (c.fixed) { // only for NaN
        l.status = failure;
        return;
    }
    const double factor = isnan(ratio) ? c.min_factor : fmax(c.min_factor, c.safety * pow(ratio, -1 / c.order));
    l.want = fabs(l.h) * factor;
    if (l.want < smallest_step(c, l.t)) l.status = failure;
}

struct AdvanceArgs {
    ClockView clk;
    Control control;
};

extern "C" __global__ void clock_advance(AdvanceArgs a) {
    const ClockView &v = a.clk;
    const Control &c = a.control;
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= v.lanes) return;
    v.word(WORD_HIT, lane) = -1;
    Lane l;
    l.load(v, lane);
    if (l.status != RUNNING) {
        v.word(WORD_SELECT, lane) = 0;
        return;
    }
    const SpanView &s = v.span_of(lane);
    const double ratio = v.real(REAL_RATIO, lane);
    const bool accepted = ratio <= 1 || (c.fixed && !isnan(ratio)), fresh = l.flags & FLAG_FRESH;
    const double stretch = c.fixed ? STRETCH_FIXED : STRETCH_ADAPTIVE;
    v.real(REAL_STRETCH, lane) = stretch;
    bool inside = false;
    if (accepted)
        inside = accept(v, lane, l, s, c, ratio);
    else
        reject(v, lane, l, c, ratio);
    if (l.status == RUNNING) {
        if (c.max_attempts > 0 && v.wide(WIDE_ACCEPTED, lane) + v.wide(WIDE_REJECTED, lane) >= c.max_attempts)
            l.status = TOO_MANY_ATTEMPTS;
        else
            l.aim(s, stretch);
    }
    l.save(v, lane, accepted, inside, fresh);
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
    struct Sum {
        double s0, s1, s2;
        __device__ void add(const Sum &o) { s0 += o.s0, s1 += o.s1, s2 += o.s2; }
    };
    const NormsArgs<T> &a;
    double d0, d1, d2; // largest over blocks; d2 is not over h0 yet
    const SpanView *own; // where a tolerance of the lane's own is, or null

    __device__ Norms(const NormsArgs<T> &a) : a(a), d0(0), d1(0), d2(0), own(nullptr) {}
    __device__ void open(const ClockView &c, int lane) { own = c.tolerance(lane); }

    // square is (x/scale)², with nothing over nothing being nothing.
    static __device__ double square(double x, double scale) {
        const double r = x == 0 ? 0 : x / scale;
        return r * r;
    }

    __device__ void term(Sum &s, long long e, long long) const {
        const double y = a.y0[e], k0 = a.f0[e], k1 = a.f1 ? a.f1[e] : k0;
        const double scale = (own ? own->abs : a.abs) + (own ? own->rel : a.rel) * fabs(y);
        s.s0 += square(y, scale);
        s.s1 += square(k0, scale);
        s.s2 += square(k1 - k0, scale);
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
    Lane l;
    l.load(c, lane);
    const double length = fabs(s.stops[s.stop_count - 1] - l.t);
    const double d0 = c.real(REAL_D0, lane), d1 = c.real(REAL_D1, lane), d2 = c.real(REAL_D2, lane);
    double h;
    if (!a.second) {
        h = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * (d0 / d1);
    } else {
        const double h0 = fabs(l.h), m = isnan(d1) ? d1 : d1 >= d2 / h0 ? d1 : d2 / h0;
        h = m <= 1e-15 ? fmax(1e-6, h0 * 1e-3) : pow(0.01 / m, 1 / (double)(a.order + 1));
        if (h > 100 * h0) h = 100 * h0;
    }
    if (!(h > 0 && h < INF)) h = 1e-6 * length;
    l.want = fmin(h, length);
    l.stale = false; // f0 is the first stage
    l.aim(s, STRETCH_ADAPTIVE);
    const int select = c.word(WORD_SELECT, lane);
    l.save(c, lane, select >> ROWS_ACCEPTED & 1, select >> ROWS_SAVING & 1, select >> ROWS_FRESH & 1);
}

// Progress is backend.Progress, and the number of steps on the longest lane of a
// tape.
struct Progress {
    long long accepted, rejected;
    long long attempts; // the most that a lane made
    double left, t; // of the running lane that is furthest behind
    int running, failed;
    int lane; // which that is, or -1
    int tape;

    __device__ void add(const Progress &o) {
        accepted += o.accepted, rejected += o.rejected, running += o.running, failed += o.failed;
        attempts = max(attempts, o.attempts);
        if (o.lane >= 0 && (lane < 0 || o.left > left || (o.left == left && o.lane < lane)))
            left = o.left, t = o.t, lane = o.lane;
    }
};

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
        Progress one = {};
        one.accepted = c.wide(WIDE_ACCEPTED, lane), one.rejected = c.wide(WIDE_REJECTED, lane);
        one.attempts = one.accepted + one.rejected, one.lane = -1;
        const int status = c.word(WORD_STATUS, lane);
        if (status == RUNNING) {
            one.running = 1;
            one.t = c.real(REAL_T, lane);
            const SpanView &s = c.span_of((int)lane);
            one.left = fabs(s.stops[s.stop_count - 1] - one.t);
            one.lane = lane;
        } else if (status != DONE && status != STOPPED) {
            one.failed = 1;
        }
        p.add(one);
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
