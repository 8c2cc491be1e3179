// What a whole solve in one launch keeps on chip.
//
// A block has places for ROWS samples. Each place is at an evaluation of its own: the
// stage that its sample needs next, whatever the others do, so that a tile of products
// never waits for a sample. A sample that has ended leaves its place to the next one that
// waits.
#pragma once

#include "lane.cuh"
#include "narrow.cuh"
#include "norms.cuh"
#include "queue.cuh"
#include "tape.cuh"
#include "team.cuh"

template <class T> struct FusedArgs {
    ClockView clk;
    TapeView tape; // without counts: there is none
    Control control;
    NarrowNet<T> net;
    const double *method; // see Table
    T *y, *first;         // [rows][dim]: states, and first stages of lanes that go on
    T *table;             // of outputs
    T *sheets;            // places of the blocks, null: in shared memory
    FusedWork *work;
    double rel, abs;
    long long limit; // evaluations of a block, after which lanes leave with their attempt; 0: none
    int stages, extra, powers; // stages, those for interpolation, and the degree of it or 0
    int fsal;        // the last stage's input is the end of the step
    int second;      // there is a second error estimate
    int order;       // of the method
    int everywhere;  // extra stages are evaluated in all accepted steps
    int hand;        // the stage that is the next step's first
    int outputs;     // blocks of the table, or rows where lanes have spans of their own
    int room;        // steps of a lane that the tape has room for
    int resume;      // the lanes go on; else they start
    int span;        // doubles of the span's arrays, if they are to be kept in shared memory
    int table_at, span_at, coef_at, x_at, bias_at, sheet_at; // in shared memory, elements of T
    signed char keep[KEEP];    // on the tape: 0 is y, 1 its value at the end, 2+i stage i
};

// Table is the method, in doubles: with P stages, those for interpolation among them,
//   a [P+2][P], c [P+1], e [P], e2 [P], dense [P][powers]
// Row P of a is the trial of the first step, row P+1 the weights of the end.
struct Table {
    const double *p;
    int stages;

    __device__ double a(int row, int j) const { return p[row * stages + j]; }
    __device__ double c(int row) const { return p[(stages + 2) * stages + row]; }
    __device__ double e(int j) const { return p[(stages + 2) * stages + stages + 1 + j]; }
    __device__ double e2(int j) const { return p[(stages + 3) * stages + stages + 1 + j]; }
    __device__ const double *dense(int j, int powers) const { return p + (stages + 4) * stages + stages + 1 + j * powers; }
    static __device__ int size(int stages, int powers) { return (stages + 4 + powers) * stages + stages + 1; }
};

// What is to be done for a place after an evaluation.
enum { TODO_TRIAL = 1, TODO_FIRST = 2, TODO_DECIDE = 4, TODO_SAVE = 8, TODO_NEXT = 16, TODO_LEAVE = 32 };

// Places is at the beginning of shared memory.
template <class T, int ROWS> struct Places {
    double reals[REAL_COUNT * ROWS]; // of a clock whose lanes are the places
    long long wides[WIDE_COUNT * ROWS];
    Progress left[ROWS]; // of the lanes that left the place
    SpanView span;
    int words[WORD_COUNT * ROWS];
    int lane[ROWS];  // or -1
    int phase[ROWS]; // the row of Table to evaluate next; past it: nothing to evaluate
    int todo[ROWS];
    int enters[ROWS]; // 1: the state is to be read, 2: and the first stage
    T time[ROWS];
};
static_assert(sizeof(Places<float, 32>) == 32 * 296 + 104, "gpu/fused.go computes it");
