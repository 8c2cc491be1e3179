// The tape: the accepted steps of a solve, in device memory.
//
// push: data[count] = the kept Vecs, [rows][cols] each; a thread owns V elements.
// count: the reals, the words and the counts; a thread owns a lane.
// set: *address = value, one thread: a new chunk, without a copy that the host waits for.
// gather: copies steps, listed as pairs (lane, step), to [listed][keep][cols], and
//   their t and h to [listed][2]; a thread owns an element. For many lanes.
// rewind, back: put the clock behind an attempt, and back to one; a thread owns a lane.
// restore: the kept Vecs of the step that back went to; a thread owns V elements.
// interpolate: y0 + h·Σ_j k_j·Σ_m p_jm·x^(m+1) of the step that the instant lies in; a
//   thread owns an element.
//
// Reference: Push, ReadTape, Rewind and Back in cpu/tape.go, Interpolate in cpu/reverse.go.
#include "flat.cuh"
#include "tape.cuh"

template <class T> struct PushArgs {
    ClockView clk;
    TapeView tape;
    Flat x;
    const T *src[KEEP];
};

template <int V, class T> static __device__ void push(const PushArgs<T> &a) {
    const long long e = a.x.mine(V);
    if (e < 0) return;
    const int lane = a.x.lane(a.clk, e);
    if (!a.clk.selected(lane, ROWS_ACCEPTED)) return;
    T *dst = a.tape.template vec<T>(a.tape.counts[lane], 0, a.x.total);
    for (int m = 0; m < a.tape.keep; m++) store<V>(dst + m * a.x.total, e, load<V>(a.src[m], e));
}

struct CountArgs { // of back, too
    ClockView clk;
    TapeView tape;
};

extern "C" __global__ void __launch_bounds__(BLOCK) tape_count(CountArgs a) {
    const int lane = blockIdx.x * BLOCK + threadIdx.x;
    if (lane >= a.clk.lanes || !a.clk.selected(lane, ROWS_ACCEPTED)) return;
    a.tape.note(lane, a.clk, lane);
}

struct SetArgs {
    unsigned long long *address, value;
};

extern "C" __global__ void tape_set(SetArgs a) {
    if (threadIdx.x == 0) *a.address = a.value;
}

template <class T> struct GatherArgs {
    TapeView tape;
    const int2 *list; // lane, step
    T *dst;
    double *times;
    long long total; // elements of a kept Vec
    long long n;     // of a lane in it
    int count, unused;
};

// Grid: ceil(count·(keep·n + 1)/BLOCK), one thread more a step for its times.
template <class T> static __device__ void gather(const GatherArgs<T> &a) {
    const long long i = (long long)blockIdx.x * BLOCK + threadIdx.x, size = a.tape.keep * a.n;
    if (i >= a.count * (size + 1)) return;
    const int at = (int)(i / (size + 1)), lane = a.list[at].x, step = a.list[at].y;
    const long long e = i % (size + 1);
    if (e < size) {
        a.dst[at * size + e] = a.tape.template vec<T>(step, (int)(e / a.n), a.total)[lane * a.n + e % a.n];
        return;
    }
    a.times[2 * at] = a.tape.real(STEP_T, step, lane);
    a.times[2 * at + 1] = a.tape.real(STEP_H, step, lane);
}

struct RewindArgs {
    ClockView clk;
    TapeView tape;
    const int *skip; // 1 for lanes that are left out, or null
    int attempts, unused;
};

extern "C" __global__ void __launch_bounds__(BLOCK) tape_rewind(RewindArgs a) {
    const int lane = blockIdx.x * BLOCK + threadIdx.x;
    if (lane >= a.clk.lanes) return;
    int left = a.skip && a.skip[lane] ? 0 : a.tape.counts[lane];
    while (left > 0 && a.tape.word(STEP_ATTEMPT, left - 1, lane) > a.attempts) left--;
    a.tape.left(lane) = left;
    a.tape.attempt(lane) = a.attempts + 1;
    a.clk.word(WORD_SELECT, lane) &= 1 << ROWS_RUNNING | 1 << ROWS_STALE;
    a.clk.word(WORD_HIT, lane) = -1;
}

extern "C" __global__ void __launch_bounds__(BLOCK) tape_back(CountArgs a) {
    const int lane = blockIdx.x * BLOCK + threadIdx.x;
    if (lane >= a.clk.lanes) return;
    const int step = a.tape.left(lane) - 1, attempt = --a.tape.attempt(lane);
    int select = a.clk.word(WORD_SELECT, lane) & (1 << ROWS_RUNNING | 1 << ROWS_STALE), hit = -1;
    if (step >= 0 && a.tape.word(STEP_ATTEMPT, step, lane) == attempt) {
        a.tape.left(lane) = step;
        select |= a.tape.word(STEP_SELECT, step, lane);
        hit = a.tape.word(STEP_HIT, step, lane);
        a.clk.real(REAL_TOOK_T, lane) = a.tape.real(STEP_T, step, lane);
        a.clk.real(REAL_TOOK_H, lane) = a.tape.real(STEP_H, step, lane);
        a.clk.real(REAL_END, lane) = a.tape.real(STEP_END, step, lane);
        a.clk.real(REAL_TOOK_FROM, lane) = a.tape.real(STEP_FROM, step, lane);
        a.clk.real(REAL_TOOK_UNTIL, lane) = a.tape.real(STEP_UNTIL, step, lane);
        a.clk.word(WORD_SAVE_FROM, lane) = a.tape.word(STEP_SAVE_FROM, step, lane);
        a.clk.word(WORD_SAVE, lane) = a.tape.word(STEP_SAVE, step, lane);
    }
    a.clk.word(WORD_SELECT, lane) = select;
    a.clk.word(WORD_HIT, lane) = hit;
}

// restore: the other direction of push, with dst in place of src.
template <int V, class T> static __device__ void restore(const PushArgs<T> &a) {
    const long long e = a.x.mine(V);
    if (e < 0) return;
    const int lane = a.x.lane(a.clk, e);
    if (!a.clk.selected(lane, ROWS_ACCEPTED)) return;
    const T *src = a.tape.template vec<T>(a.tape.left(lane), 0, a.x.total);
    for (int m = 0; m < a.tape.keep; m++) store<V>((T *)a.src[m], e, load<V>(src + m * a.x.total, e));
}

const int TAPE_TERMS = 320; // stages times powers of an interpolant

template <class T> struct InterpolateArgs {
    ClockView clk;
    TapeView tape;
    Flat x;
    T *dst;
    double c; // of the instant
    int rows, stages, powers, unused;
    double dense[TAPE_TERMS]; // [stages][powers]
};

template <class T> static __device__ void interpolate(const InterpolateArgs<T> &a) {
    const long long e = a.x.mine(1);
    if (e < 0) return;
    const int lane = a.x.lane(a.clk, e), count = a.tape.counts[lane];
    if (count == 0 || !a.clk.selected(lane, a.rows)) return;
    const double now = a.clk.instant(lane, a.rows, a.c);
    const double sign = a.tape.real(STEP_H, 0, lane) < 0 ? -1 : 1;
    // The first step that ends at or after now.
    int step = 0, last = count - 1;
    while (step < last) {
        const int mid = (step + last) / 2;
        if (sign * (a.tape.real(STEP_END, mid, lane) - now) >= 0) last = mid;
        else step = mid + 1;
    }
    const double h = a.tape.real(STEP_H, step, lane), end = a.tape.real(STEP_END, step, lane);
    const double x = (now - a.tape.real(STEP_T, step, lane)) / h;
    const T *kept = a.tape.template vec<T>(step, 0, a.x.total);
    if (now == end || x >= 1) {
        a.dst[e] = kept[a.x.total + e];
        return;
    }
    T sum = kept[e];
    for (int s = 0; s < a.stages; s++) {
        const double *p = a.dense + s * a.powers;
        double w = 0;
        for (int m = a.powers - 1; m >= 0; m--) w = (w + p[m]) * fmax(x, 0.0);
        if (w != 0) sum = fma((T)(h * w), kept[(2 + s) * a.x.total + e], sum);
    }
    a.dst[e] = sum;
}

#define TAPE(S, T, V)                                                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK) tape_push##S(PushArgs<T> a) { push<V>(a); }               \
    extern "C" __global__ void __launch_bounds__(BLOCK) tape_restore##S(PushArgs<T> a) { restore<V>(a); }
TAPE(_f32, float, 4)
TAPE(_f64, double, 2)
TAPE(_1_f32, float, 1)
TAPE(_1_f64, double, 1)

extern "C" __global__ void __launch_bounds__(BLOCK) tape_gather_f32(GatherArgs<float> a) { gather(a); }
extern "C" __global__ void __launch_bounds__(BLOCK) tape_gather_f64(GatherArgs<double> a) { gather(a); }

extern "C" __global__ void __launch_bounds__(BLOCK) tape_interpolate_f32(InterpolateArgs<float> a) { interpolate(a); }
extern "C" __global__ void __launch_bounds__(BLOCK) tape_interpolate_f64(InterpolateArgs<double> a) { interpolate(a); }
