// The stepping state of every lane on the device, and what a kernel asks it.
//
// A clock is structures of arrays, one entry a lane: doubles, 64-bit counters and
// 32-bit words, each array `stride` entries long. A kernel takes a ClockView by
// value; its 40 bytes stay the same from one solve to the next, so that a recorded
// launch can be replayed. Reference: lane in cpu/clock.go.
#pragma once

// Rows selects rows by the state of their lane: backend.Rows.
enum Rows { ROWS_RUNNING, ROWS_STALE, ROWS_ACCEPTED, ROWS_SAVING, ROWS_FRESH };

// The arrays of doubles. The first eight are pairs: the step being attempted, and
// after it the same of the step that the last Advance accepted.
enum Real {
    REAL_T, REAL_TOOK_T,         // start of the step
    REAL_H, REAL_TOOK_H,         // its size, with its sign
    REAL_FROM, REAL_TOOK_FROM,   // f is evaluated no earlier than from
    REAL_UNTIL, REAL_TOOK_UNTIL, // and no later than until: it jumps there
    REAL_WANT,                   // |h| before it was cut to end on a stop
    REAL_RATIO, REAL_WORST,      // error of the attempt, and its largest component's
    REAL_HISTORY0, REAL_HISTORY1, // ratios of the last accepted steps, the latest first
    REAL_SMALLEST, REAL_LAST,    // smallest |h| and last h accepted
    REAL_D0, REAL_D1, REAL_D2,   // norms behind the first step
    REAL_END,                    // of the step that the last Advance accepted
    REAL_STRETCH,                // see aim in clock.cu
    REAL_COUNT
};

enum Wide { WIDE_EVALUATIONS, WIDE_ACCEPTED, WIDE_REJECTED, WIDE_COUNT };

enum Word {
    WORD_SELECT,         // bit i: Rows i selects the lane
    WORD_STATUS,         // backend.Status
    WORD_FLAGS,          // FLAG_*
    WORD_STOP, WORD_SAVE, // the next of the span's stops and saves
    WORD_SAVE_FROM,      // outputs save_from..save lie in the accepted step
    WORD_HIT,            // block of the stop that the accepted step ended on, or -1
    WORD_ROW, WORD_COL,  // where the error is largest
    WORD_COUNT
};

// backend.Status.
enum { RUNNING, DONE, TOO_MANY_ATTEMPTS, STEP_TOO_SMALL, NOT_FINITE, CANCELLED, STOPPED };

enum {
    FLAG_LANDING = 1,  // the step ends on the next stop
    FLAG_CUT = 2,      // it is shorter than want for it
    FLAG_REJECTED = 4, // the attempt before this one was
    FLAG_FRESH = 8,    // the first stage has to be, or was, evaluated for this step
};

// SpanView is backend.Span on the device.
struct SpanView {
    double t0, h0, max_step;
    const double *stops, *saves;
    const int *blocks; // of AtStop's tables, one a stop
    const int *jumps;  // 1 for each stop at which f jumps
    int stop_count, save_count;
    int jump0;  // f jumps at t0
    int single; // f sees its time as a float
    const SpanView *own; // of every lane, null where they share this one
    double rel, abs;     // in place of a norm's tolerance, unless both are 0
    long long row;       // of tables, where lanes have their own
};

// instant_of is the time c of the way through the step of size h that begins at t and in
// which f is evaluated from `from` until `until`. It is rounded as on the CPU, without a
// fused multiply-add.
__device__ inline double instant_of(double t0, double h, double from, double until, double c) {
    const double t = __dadd_rn(t0, __dmul_rn(c, h));
    if (c == 1 && isfinite(until)) return until;
    // The sign counts for -0 too: before the first step was chosen.
    return signbit(h) ? fmax(fmin(t, from), until) : fmin(fmax(t, from), until);
}

struct ClockView {
    double *reals;
    long long *wides;
    int *words;
    const SpanView *span;
    int lanes, stride;

    __device__ double &real(int which, int lane) const { return reals[(long long)which * stride + lane]; }
    __device__ long long &wide(int which, int lane) const { return wides[(long long)which * stride + lane]; }
    __device__ int &word(int which, int lane) const { return words[(long long)which * stride + lane]; }

    // lane_of is the lane of a row.
    __device__ int lane_of(long long row) const { return lanes == 1 ? 0 : (int)row; }

    // own reports whether every lane has a span of its own, and span_of is its span.
    __device__ bool own() const { return span->own; }
    __device__ const SpanView &span_of(int lane) const { return span->own ? span->own[lane] : *span; }

    // tolerance is where a lane's own begins, or null.
    __device__ const SpanView *tolerance(int lane) const {
        const SpanView &s = span_of(lane);
        return s.rel != 0 || s.abs != 0 ? &s : nullptr;
    }

    // selected reports whether rows selects the lane.
    __device__ bool selected(int lane, int rows) const { return word(WORD_SELECT, lane) >> rows & 1; }

    // size is the size of the step that rows speaks of.
    __device__ double size(int lane, int rows) const { return real(REAL_H + (rows >= ROWS_ACCEPTED), lane); }

    // instant is the time c of the way through the step that rows speaks of.
    __device__ double instant(int lane, int rows, double c) const {
        const int took = rows >= ROWS_ACCEPTED;
        return instant_of(real(REAL_T + took, lane), real(REAL_H + took, lane), real(REAL_FROM + took, lane),
                          real(REAL_UNTIL + took, lane), c);
    }

    // evaluated counts an evaluation of f. One thread calls it, once for each
    // selected lane.
    __device__ void evaluated(int lane) const { wide(WIDE_EVALUATIONS, lane)++; }

    // set_stale notes that the first stage of a lane does not hold f(t, y), or does.
    // It may be called while other threads ask for another selection of rows.
    __device__ void set_stale(int lane, bool stale) const {
        const int running = 1 << ROWS_RUNNING, bit = 1 << ROWS_STALE;
        int &select = word(WORD_SELECT, lane);
        select = stale && (select & running) ? select | bit : select & ~bit;
        if (stale) word(WORD_FLAGS, lane) |= FLAG_FRESH;
    }
};
static_assert(sizeof(ClockView) == 40, "gpu/clock.go passes its fields one by one");
static_assert(sizeof(SpanView) == 104, "gpu/clock.go writes it");
