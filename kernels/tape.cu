// The tape: the accepted steps of a solve, in device memory.
//
// Step i of every lane lies in chunk i/per, whose memory is
//   double t[per][lanes], h[per][lanes]; T data[per][keep][rows][cols]
// with data at a multiple of 256 bytes. Lanes advance independently, so the chunk of
// a lane's next step is found from its count.
//
// push: data[count] = the kept Vecs, [rows][cols] each; a thread owns V elements.
// count: t, h and the counts; a thread owns a lane.
// set: *address = value, one thread: a new chunk, without a copy that the host waits for.
// gather: copies steps, listed as pairs (lane, step), to [listed][keep][cols], and
//   their t and h to [listed][2]; a thread owns an element. For many lanes.
//
// Reference: Push and ReadTape in cpu/clock.go.
#include "flat.cuh"

const int KEEP = 40; // Vecs of a step, at most

// TapeView stays the same while the tape grows: what changes is behind chunks.
struct TapeView {
    char *const *const *chunks;
    int *counts;  // steps on each lane
    int *longest; // the largest of them
    long long data; // bytes from a chunk's start to its data
    int per, keep, lanes, unused;

    __device__ char *chunk(int step) const { return (*chunks)[step / per]; }
    __device__ double *times(int step, int lane) const {
        return (double *)chunk(step) + (long long)(step % per) * lanes + lane;
    }
    template <class T> __device__ T *vec(int step, int m, long long total) const {
        return (T *)(chunk(step) + data) + ((long long)(step % per) * keep + m) * total;
    }
};

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

struct CountArgs {
    ClockView clk;
    TapeView tape;
};

extern "C" __global__ void __launch_bounds__(BLOCK) tape_count(CountArgs a) {
    const int lane = blockIdx.x * BLOCK + threadIdx.x;
    if (lane >= a.clk.lanes || !a.clk.selected(lane, ROWS_ACCEPTED)) return;
    const int step = a.tape.counts[lane];
    double *t = a.tape.times(step, lane);
    t[0] = a.clk.real(REAL_TOOK_T, lane);
    t[(long long)a.tape.per * a.tape.lanes] = a.clk.real(REAL_TOOK_H, lane);
    a.tape.counts[lane] = step + 1;
    if (step + 1 > *(volatile int *)a.tape.longest) atomicMax(a.tape.longest, step + 1);
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
    const double *t = a.tape.times(step, lane);
    a.times[2 * at] = t[0];
    a.times[2 * at + 1] = t[(long long)a.tape.per * a.tape.lanes];
}

#define TAPE(S, T, V)                                                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK) tape_push##S(PushArgs<T> a) { push<V>(a); }
TAPE(_f32, float, 4)
TAPE(_f64, double, 2)
TAPE(_1_f32, float, 1)
TAPE(_1_f64, double, 1)

extern "C" __global__ void __launch_bounds__(BLOCK) tape_gather_f32(GatherArgs<float> a) { gather(a); }
extern "C" __global__ void __launch_bounds__(BLOCK) tape_gather_f64(GatherArgs<double> a) { gather(a); }
