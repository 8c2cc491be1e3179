// A lane's step while a thread works on it: where it begins, how an attempt is decided,
// and what is proposed next. The lane is one of a clock in global or in shared memory.
//
// Reference: lane in cpu/clock.go, and the formulas in internal/stepsize.
#pragma once

#include "clock.cuh"

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

// start sets a lane to the beginning of its span.
static __device__ void start(const ClockView &c, int lane, const SpanView &s) {
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

// first_step aims with the size that the norms ask for: the trial size or, second, the
// proposal; clock.cu says where they come from.
static __device__ void first_step(const ClockView &c, int lane, const SpanView &s, int order, bool second) {
    Lane l;
    l.load(c, lane);
    const double length = fabs(s.stops[s.stop_count - 1] - l.t);
    const double d0 = c.real(REAL_D0, lane), d1 = c.real(REAL_D1, lane), d2 = c.real(REAL_D2, lane);
    double h;
    if (!second) {
        h = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * (d0 / d1);
    } else {
        const double h0 = fabs(l.h), m = isnan(d1) ? d1 : d1 >= d2 / h0 ? d1 : d2 / h0;
        h = m <= 1e-15 ? fmax(1e-6, h0 * 1e-3) : pow(0.01 / m, 1 / (double)(order + 1));
        if (h > 100 * h0) h = 100 * h0;
    }
    if (!(h > 0 && h < INF)) h = 1e-6 * length;
    l.want = fmin(h, length);
    l.stale = false; // f0 is the first stage
    l.aim(s, STRETCH_ADAPTIVE);
    const int select = c.word(WORD_SELECT, lane);
    l.save(c, lane, select >> ROWS_ACCEPTED & 1, select >> ROWS_SAVING & 1, select >> ROWS_FRESH & 1);
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

// advance decides about the attempt of a lane by its error ratio.
static __device__ void advance(const ClockView &v, int lane, const SpanView &s, const Control &c) {
    v.word(WORD_HIT, lane) = -1;
    Lane l;
    l.load(v, lane);
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
