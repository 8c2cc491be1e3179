// How far a solve is.
#pragma once

#include "clock.cuh"

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

    // add counts lane number `number`, whose state is that of `at` in the clock c.
    __device__ void add(const ClockView &c, int at, int number, const SpanView &s) {
        Progress one = {};
        one.accepted = c.wide(WIDE_ACCEPTED, at), one.rejected = c.wide(WIDE_REJECTED, at);
        one.attempts = one.accepted + one.rejected, one.lane = -1;
        const int status = c.word(WORD_STATUS, at);
        if (status == RUNNING) {
            one.running = 1;
            one.t = c.real(REAL_T, at);
            one.left = fabs(s.stops[s.stop_count - 1] - one.t);
            one.lane = number;
        } else if (status != DONE && status != STOPPED) {
            one.failed = 1;
        }
        add(one);
    }
};
