// The verbs of a right-hand side that comes as text, compiled when it is bound:
// gpu/source.go puts before this file
//   typedef of real; const int DIM, PARAMS; and device functions of one sample
//   rhs_eval(t, z, theta, dz), rhs_vjp(t, z, theta, a, az, at, atheta),
//   rhs_jvp(t, z, theta, v, w, jv).
//
// A thread owns a sample. Vecs are [rows][DIM] of real.
// vjp: the block's part of weight·Σ aᵀ∂f/∂θ goes to partial[block][PARAMS], in double;
// sum adds the blocks in ascending order to g. Grid of sum: PARAMS.
//
// Reference: funcKernel in cpu/field.go.
#pragma once

#include "reduce.cuh"

struct SourceArgs {
    ClockView clk;
    double c, weight;
    const real *theta, *z, *a, *v, *w;
    real *dz, *az, *at, *jv;
    double *partial;
    real *g;
    double alpha;
    int rows, selects, times_h, blocks;
};

// Sample is the row of a thread, if it has one that is selected.
struct Sample {
    long long row;
    int lane;
    bool mine;
    real t, z[DIM];

    __device__ Sample(const SourceArgs &a) : row((long long)blockIdx.x * BLOCK + threadIdx.x), lane(0) {
        mine = row < a.rows;
        if (mine) {
            lane = a.clk.lane_of(row);
            mine = a.clk.selected(lane, a.selects);
        }
        if (!mine) return;
        if (a.clk.lanes > 1 || row == 0) a.clk.evaluated(lane);
        t = (real)a.clk.instant(lane, a.selects, a.c);
        load(a.z, z);
    }

    __device__ void load(const real *from, real *x) const {
        if (!from) return;
#pragma unroll
        for (int i = 0; i < DIM; i++) x[i] = from[row * DIM + i];
    }

    __device__ void store(real *to, const real *x, real factor) const {
        if (!to) return;
#pragma unroll
        for (int i = 0; i < DIM; i++) to[row * DIM + i] = factor * x[i];
    }
};

extern "C" __global__ void __launch_bounds__(BLOCK) source_eval(SourceArgs a) {
    const Sample s(a);
    if (!s.mine || !a.dz) return;
    real dz[DIM];
    rhs_eval(s.t, s.z, a.theta, dz);
    s.store(a.dz, dz, 1);
}

#ifdef RHS_VJP
struct Total {
    double x;
    __device__ void add(const Total &o) { x += o.x; }
};

extern "C" __global__ void __launch_bounds__(BLOCK) source_vjp(SourceArgs a) {
    const Sample s(a);
    real g[PARAMS + 1] = {}; // one more than none
    if (s.mine) {
        real x[DIM], cot[DIM], at = 0;
        if (a.dz) {
            rhs_eval(s.t, s.z, a.theta, x);
            s.store(a.dz, x, 1);
        }
        s.load(a.a, cot);
        rhs_vjp(s.t, s.z, a.theta, cot, x, at, g);
        s.store(a.az, x, (real)a.alpha);
        if (a.at) a.at[s.row] = (real)a.alpha * at;
    }
    if (!a.partial) return;
    double *partial = a.partial + (long long)blockIdx.x * PARAMS;
    if (!__syncthreads_or(s.mine)) {
        for (int p = threadIdx.x; p < PARAMS; p += BLOCK) partial[p] = 0;
        return;
    }
    const double weight = !s.mine ? 0 : a.times_h ? a.weight * a.clk.size(s.lane, a.selects) : a.weight;
    for (int p = 0; p < PARAMS; p++) {
        const Total sum = reduce(Total{s.mine ? weight * g[p] : 0}, BLOCK);
        if (threadIdx.x == 0) partial[p] = sum.x;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK) source_sum(SourceArgs a) {
    Total sum = {0};
    for (int b = threadIdx.x; b < a.blocks; b += BLOCK) sum.x += a.partial[(long long)b * PARAMS + blockIdx.x];
    sum = reduce(sum, BLOCK);
    if (threadIdx.x == 0) a.g[blockIdx.x] += (real)sum.x;
}
#endif

#ifdef RHS_JVP
extern "C" __global__ void __launch_bounds__(BLOCK) source_jvp(SourceArgs a) {
    const Sample s(a);
    if (!s.mine) return;
    real x[DIM], v[DIM], w[PARAMS + 1] = {};
    if (a.dz) {
        rhs_eval(s.t, s.z, a.theta, x);
        s.store(a.dz, x, 1);
    }
    s.load(a.v, v);
    if (a.w)
        for (int p = 0; p < PARAMS; p++) w[p] = a.w[p];
    rhs_jvp(s.t, s.z, a.theta, v, w, x);
    s.store(a.jv, x, 1);
}
#endif
