// The tape: the accepted steps of a solve, in device memory.
//
// Step i of every lane lies in chunk i/per, whose memory is
//   double reals[5][per][lanes]; int words[5][per][lanes]; T data[per][keep][rows][cols]
// with data at a multiple of 256 bytes: of each step t, h, its end, and the first and
// the last instant at which f is evaluated; the number of the attempt, the outputs in
// it, the stop it ended on, and which rows it selects. Lanes advance independently, so
// the chunk of a lane's next step is found from its count.
#pragma once

#include "clock.cuh"

const int KEEP = 40; // Vecs of a step, at most

// What a tape has of a step beside the kept Vecs.
enum { STEP_T, STEP_H, STEP_END, STEP_FROM, STEP_UNTIL, STEP_REALS };
static __constant__ int took[] = {REAL_TOOK_T, REAL_TOOK_H, REAL_END, REAL_TOOK_FROM, REAL_TOOK_UNTIL};
enum { STEP_ATTEMPT, STEP_SAVE_FROM, STEP_SAVE, STEP_HIT, STEP_SELECT, STEP_WORDS };

// TapeView stays the same while the tape grows: what changes is behind chunks.
struct TapeView {
    char *const *const *chunks;
    int *counts;  // steps on each lane, those of them that back has not reached, and its attempt
    int *longest; // the largest of them
    long long data; // bytes from a chunk's start to its data
    int per, keep, lanes, unused;

    __device__ char *chunk(int step) const { return (*chunks)[step / per]; }
    __device__ double &real(int which, int step, int lane) const {
        return ((double *)chunk(step))[((long long)which * per + step % per) * lanes + lane];
    }
    __device__ int &word(int which, int step, int lane) const {
        int *words = (int *)(chunk(step) + 8ll * STEP_REALS * per * lanes);
        return words[((long long)which * per + step % per) * lanes + lane];
    }
    __device__ int &left(int lane) const { return counts[lanes + lane]; }
    __device__ int &attempt(int lane) const { return counts[2 * lanes + lane]; }
    template <class T> __device__ T *vec(int step, int m, long long total) const {
        return (T *)(chunk(step) + data) + ((long long)(step % per) * keep + m) * total;
    }

    // note appends what the tape has of a step beside the kept Vecs: the one accepted
    // last by lane `at` of the clock.
    __device__ void note(int lane, const ClockView &c, int at) const {
        const int step = counts[lane];
        const long long stride = (long long)per * lanes;
        double *to = &real(0, step, lane);
#pragma unroll 1
        for (int i = STEP_T; i <= STEP_UNTIL; i++) to[i * stride] = c.real(took[i], at);
        int *words = &word(0, step, lane);
        words[STEP_ATTEMPT * stride] = (int)(c.wide(WIDE_ACCEPTED, at) + c.wide(WIDE_REJECTED, at));
        words[STEP_SAVE_FROM * stride] = c.word(WORD_SAVE_FROM, at);
        words[STEP_SAVE * stride] = c.word(WORD_SAVE, at);
        words[STEP_HIT * stride] = c.word(WORD_HIT, at);
        words[STEP_SELECT * stride] = c.word(WORD_SELECT, at) & ~3;
        counts[lane] = step + 1;
        if (step + 1 > *(volatile int *)longest) atomicMax(longest, step + 1);
    }
};
