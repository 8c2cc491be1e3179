// The discrete adjoint of a whole solve of a right-hand side that comes as text, in one
// launch: from the steps on the tape, last to first, what adjoint/discrete.go spells out,
//
//     κ_i = π_i + h·(b_i·λ + Σ_{j>i} a_ji·m_j),  m_i = κ_iᵀ ∂f/∂z(t + c_i·h, Y_i)
//     g  += Σ_i κ_iᵀ ∂f/∂θ(t + c_i·h, Y_i),      λ += Σ_i m_i + π
//
// gpu/ensemble_adjoint.go puts before this file
//   typedef of real; const int DIM, PARAMS; rhs_eval(t, z, theta, dz) and
//   rhs_vjp(t, z, theta, a, az, at, atheta) of one sample;
//   STAGES of an attempt, ALL with those for interpolation, POWERS of the interpolant or 0,
//   END, the stage that may be the next step's first, or -1; KEPT: the tape has the stages;
//   constexpr double METHOD[]: a [ALL][ALL], c [ALL], b [STAGES], p [ALL][POWERS].
//
// A thread owns rows, one after the other; a block is one warp. A warp leaves its part of g
// in partial[block][PARAMS], in double, which source_sum adds in ascending order. Stage by
// stage, last to first, m_j takes the place of k_j.
//
// Reference: reversal in adjoint/reversal.go, SaveVJP in cpu/save.go.
#pragma once

#include "unroll.cuh"

#include "tape.cuh"
#include "team.cuh"

const bool SMALL = fits(4 + ALL);
const int UNROLL = SMALL ? DIM : 1; // of loops over components

struct WalkArgs {
    ClockView clk;
    TapeView tape;
    const real *theta;
    const real *cotangents; // of the outputs, null: none
    real *lambda, *carry;   // [rows][DIM]; carry is κ_0 of the step behind
    double *partial;        // or null
    const int *skip;        // 1 for lanes that are left out, or null
    int rows;
    int outputs; // blocks of cotangents, or rows where lanes have spans of their own
    int begins;  // λ and carry begin as zero
    int unused;
};

static __device__ constexpr double method_a(int row, int j) { return METHOD[row * ALL + j]; }
static __device__ constexpr double method_c(int row) { return METHOD[ALL * ALL + row]; }
static __device__ constexpr double method_b(int j) { return METHOD[ALL * (ALL + 1) + j]; }
static __device__ constexpr double method_dense(int j, int n) { return METHOD[ALL * (ALL + 1) + STAGES + j * POWERS + n]; }

// read_by_others reports whether stage j is an operand of a later one.
static __device__ constexpr bool read_by_others(int j) {
    for (int i = j + 1; i < ALL; i++)
        if (method_a(i, j) != 0) return true;
    return false;
}

static __device__ constexpr bool interpolates(int j) {
    for (int n = 0; n < POWERS; n++)
        if (method_dense(j, n) != 0) return true;
    return false;
}

static __device__ __noinline__ void eval_call(real t, const real *z, const real *theta, real *dz) { rhs_eval(t, z, theta, dz); }
static __device__ __noinline__ void vjp_call(real t, const real *z, const real *theta, const real *a, real *az, real *atheta) {
    real at = 0;
    rhs_vjp(t, z, theta, a, az, at, atheta);
}

// Reversal is a thread with its row.
struct Reversal {
    const WalkArgs &a;
    long long row;
    int lane;
    real lambda[DIM], carry[DIM], y[DIM], k[ALL][DIM];
    double g[PARAMS + 1];

    // The step at hand.
    double t, h, end, from, until;
    bool fresh, saving; // the first stage was evaluated for it; an output lies inside
    int first, last;    // outputs in it

    __device__ __forceinline__ Reversal(const WalkArgs &a) : a(a) {
#pragma unroll
        for (int p = 0; p < PARAMS; p++) g[p] = 0;
    }

    // load reads step number `step` of the lane, and returns how many evaluations it takes.
    __device__ __forceinline__ int load(int step) {
        t = a.tape.real(STEP_T, step, lane);
        h = a.tape.real(STEP_H, step, lane);
        end = a.tape.real(STEP_END, step, lane);
        from = a.tape.real(STEP_FROM, step, lane);
        until = a.tape.real(STEP_UNTIL, step, lane);
        const int select = a.tape.word(STEP_SELECT, step, lane);
        fresh = select >> ROWS_FRESH & 1;
        saving = select >> ROWS_SAVING & 1;
        first = last = 0;
        if (a.cotangents) {
            first = a.tape.word(STEP_SAVE_FROM, step, lane);
            last = (int)min((long long)a.tape.word(STEP_SAVE, step, lane), a.outputs - a.clk.span_of(lane).row);
        }
        const long long total = (long long)a.rows * DIM;
        const real *kept = a.tape.vec<real>(step, 0, total) + row * DIM;
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) y[d] = kept[d];
        if constexpr (KEPT) each<0, ALL>([&](auto j) {
            constexpr int J = decltype(j)::value;
            if (J >= STAGES && !saving) return;
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) k[J][d] = kept[(J + 1) * total + d];
        });
        const int extra = saving ? ALL - STAGES : 0;
        return STAGES - 1 + fresh + extra + (KEPT ? 0 : STAGES + extra);
    }

    __device__ __forceinline__ double saved(int o) const { return a.clk.span_of(lane).saves[o]; }

    // cotangents are those of output o.
    __device__ __forceinline__ const real *cotangents(int o) const {
        return a.cotangents + (a.clk.own() ? a.clk.span_of(lane).row + o : (long long)o * a.rows + row) * DIM;
    }

    __device__ __forceinline__ real instant(double c) const { return (real)instant_of(t, h, from, until, c); }

    // stage sets z to Y_j.
    template <int J> __device__ __forceinline__ void stage(real *z) const {
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            real s = y[d];
            each<0, J>([&](auto i) {
                constexpr double w = method_a(J, decltype(i)::value);
                if constexpr (w != 0) s = fma((real)(h * w), k[decltype(i)::value][d], s);
            });
            z[d] = s;
        }
    }

    // evaluate sets k_j = f(Y_j).
    template <int J> __device__ __forceinline__ void evaluate() {
        if (J >= STAGES && !saving) return;
        real z[DIM];
        stage<J>(z);
        if constexpr (SMALL)
            rhs_eval(instant(method_c(J)), z, a.theta, k[J]);
        else
            eval_call(instant(method_c(J)), z, a.theta, k[J]);
    }

    // costate sets kappa to κ_j.
    template <int J> __device__ __forceinline__ void costate(real *kappa) const {
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) kappa[d] = 0;
        if constexpr (interpolates(J)) {
            if (saving)
                for (int o = first; o < last; o++) {
                    const double when = saved(o);
                    if (when == end) continue;
                    const double x = (when - t) / h;
                    double w = 0;
                    each<0, POWERS>([&](auto n) { w = (w + method_dense(J, POWERS - 1 - decltype(n)::value)) * x; });
                    const real *c = cotangents(o), weight = (real)(h * w);
#pragma unroll UNROLL
                    for (int d = 0; d < DIM; d++) kappa[d] = fma(weight, c[d], kappa[d]);
                }
        }
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            real s = kappa[d];
            if constexpr (J < STAGES) {
                constexpr double b = method_b(J);
                if constexpr (b != 0) s = fma((real)(h * b), lambda[d], s);
            }
            each<J + 1, ALL>([&](auto i) {
                constexpr double w = method_a(decltype(i)::value, J);
                if constexpr (w != 0) s = fma((real)(h * w), k[decltype(i)::value][d], s);
            });
            kappa[d] = J == END ? s + carry[d] : s;
        }
    }

    // back takes stage j back.
    template <int J> __device__ __forceinline__ void back() {
        const bool mine = J >= STAGES ? saving : J == 0 ? fresh : true;
        real kappa[DIM], z[DIM], atheta[PARAMS + 1];
        if (mine || J == 0) costate<J>(kappa);
        if (J == 0) {
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) carry[d] = mine ? 0 : kappa[d]; // else the step before evaluated it
        }
        if (!mine) {
#pragma unroll UNROLL
            for (int d = 0; d < DIM; d++) k[J][d] = 0;
            return;
        }
        stage<J>(z);
        const real now = instant(method_c(J));
        if constexpr (SMALL) {
            real at = 0;
            rhs_vjp(now, z, a.theta, kappa, k[J], at, atheta);
        } else {
            vjp_call(now, z, a.theta, kappa, k[J], atheta);
        }
#pragma unroll
        for (int p = 0; p < PARAMS; p++) g[p] += atheta[p];
    }

    // arrive adds what the step's stages and outputs give to λ.
    __device__ __forceinline__ void arrive() {
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            real s = lambda[d], out = 0;
            each<0, STAGES>([&](auto j) { s += k[decltype(j)::value][d]; });
            if constexpr (POWERS > 0) {
                if (saving)
                    for (int o = first; o < last; o++)
                        if (saved(o) != end) out += cotangents(o)[d];
            }
            s += out;
            each<STAGES, ALL>([&](auto j) { s += k[decltype(j)::value][d]; });
            lambda[d] = s;
        }
    }

    // walk goes back over all steps of a row.
    __device__ __forceinline__ void walk(long long which) {
        row = which;
        lane = a.clk.lane_of(row);
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            lambda[d] = a.begins ? 0 : a.lambda[row * DIM + d];
            carry[d] = a.begins ? 0 : a.carry[row * DIM + d];
        }
        long long evaluations = 0;
#pragma unroll 1
        for (int step = a.skip && a.skip[lane] ? 0 : a.tape.counts[lane]; step-- > 0;) {
            evaluations += load(step);
            for (int o = first; o < last; o++)
                if (saved(o) == end) {
#pragma unroll UNROLL
                    for (int d = 0; d < DIM; d++) lambda[d] += cotangents(o)[d];
                }
            if constexpr (!KEPT) each<0, ALL>([&](auto j) {
                if constexpr (read_by_others(decltype(j)::value)) evaluate<decltype(j)::value>();
            });
            each<0, ALL>([&](auto j) { back<ALL - 1 - decltype(j)::value>(); });
            arrive();
        }
        if (a.clk.lanes > 1 || row == 0) a.clk.wide(WIDE_EVALUATIONS, lane) += evaluations;
#pragma unroll UNROLL
        for (int d = 0; d < DIM; d++) {
            a.lambda[row * DIM + d] = lambda[d];
            a.carry[row * DIM + d] = carry[d];
        }
    }
};

struct Part {
    double x;
    __device__ void add(const Part &o) { x += o.x; }
};

extern "C" __global__ void __launch_bounds__(WARP) source_back(WalkArgs a) {
    Reversal r(a);
#pragma unroll 1
    for (long long row = (long long)blockIdx.x * WARP + threadIdx.x; row < a.rows; row += (long long)gridDim.x * WARP)
        r.walk(row);
    if (!a.partial) return;
    __syncwarp();
#pragma unroll
    for (int p = 0; p < PARAMS; p++) {
        const Part sum = reduce(Part{r.g[p]}, WARP);
        if (threadIdx.x == 0) a.partial[(long long)blockIdx.x * PARAMS + p] = sum.x;
    }
}
