// What all kernels of a multilayer perceptron share:
//
//     x_0 = g(z),  s_l = W_l [x_l, t] + b_l,  x_{l+1} = σ_l(s_l),  f = x_L
//
// (package mlp has the layout of θ). A call works on the rows whose lane its clock
// selects. Kernels see those rows in ascending order without gaps, numbered i, so
// that what a row costs and how it rounds does not depend on the others.
#pragma once

#include "activation.cuh"
#include "clock.cuh"

// Threads of a block in every kernel of this family, but for those over rows.
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// MlpRows is the selection of rows of one call. With one lane all rows share its
// state. Otherwise mlp_rows_fill has listed the selected ones.
template <class T>
struct MlpRows {
    ClockView clock;
    double c;              // fraction of the step
    double factor;         // W of the quadrature
    const int *list;       // row of each i; null with one lane
    const T *times;        // t of each i
    const T *weights;      // factor of each i's part of the quadrature
    const int *listed;     // how many there are
    int rows;              // of the operands
    int select;            // Rows
    int times_h;           // weights have a factor h
    int counts;            // this kernel counts the evaluation (one lane)

    __device__ int count() const {
        if (list) return *listed;
        return clock.selected(0, select) ? rows : 0;
    }
    __device__ int row(int i) const { return list ? list[i] : i; }
    __device__ T time(int i) const { return list ? times[i] : T(clock.instant(0, select, c)); }
    __device__ T weight(int i) const { return list ? weights[i] : weight_of(0); }
    __device__ T weight_of(int lane) const {
        return T(times_h ? factor * clock.size(lane, select) : factor);
    }
    // evaluated counts the evaluation with one lane. Call it from every block.
    __device__ void evaluated() const {
        if (counts && !list && blockIdx.x == 0 && threadIdx.x == 0 && clock.selected(0, select))
            clock.evaluated(0);
    }
};
static_assert(sizeof(MlpRows<float>) == 104, "mlpRows in gpu/field.go is its mirror");

// Pack is what one memory instruction moves: 16 bytes.
template <class T>
struct Pack {
    static constexpr int N = 16 / sizeof(T);
    T v[N];
};

__device__ inline Pack<float> load_pack(const float *p) {
    const float4 x = *reinterpret_cast<const float4 *>(p);
    return {x.x, x.y, x.z, x.w};
}
__device__ inline Pack<double> load_pack(const double *p) {
    const double2 x = *reinterpret_cast<const double2 *>(p);
    return {x.x, x.y};
}

// store_pack writes to shared memory. It is assembly because the compiler takes some
// of these stores apart, and then the banks conflict.
__device__ inline void store_pack(float *p, const Pack<float> &x) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"((unsigned)__cvta_generic_to_shared(p)), "f"(x.v[0]),
                 "f"(x.v[1]), "f"(x.v[2]), "f"(x.v[3])
                 : "memory");
}
__device__ inline void store_pack(double *p, const Pack<double> &x) {
    asm volatile("st.shared.v2.f64 [%0], {%1, %2};" ::"r"((unsigned)__cvta_generic_to_shared(p)), "d"(x.v[0]),
                 "d"(x.v[1])
                 : "memory");
}

// input_map is g and its derivative.
template <class T>
__device__ inline T input_map(bool cube, T z) {
    return cube ? z * z * z : z;
}
template <class T>
__device__ inline T input_slope(bool cube, T z) {
    return cube ? 3 * z * z : T(1);
}

#if __CUDA_ARCH__ >= 800
#define ASYNC_COPY 1
#else
#define ASYNC_COPY 0
#endif

// RESIDENT is how many blocks of a kernel with many accumulators a multiprocessor
// should hold. Where copies go through registers, these do not suffice for two.
#if ASYNC_COPY
constexpr int RESIDENT = 2;
#else
constexpr int RESIDENT = 1;
#endif

// wait_for_copies waits for what this thread has set out for.
__device__ inline void wait_for_copies() {
#if ASYNC_COPY
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// TileCopy moves a tile of COLS columns from global to shared memory, where a row
// takes LD elements, with all threads of the block; PER elements a thread. fetch
// starts it; land ends it, after which a barrier makes it visible to the block.
// Elements beyond the valid rows or columns become 0. From sm_80 on the copy does
// not go through registers and land only waits; before, reg carries it.
//
// Where threads read columns, parts of the rows are shifted, so that these reads meet no
// bank conflict, and neither do those that write rows:
// PACKS, for rows of four packs: pack c of row r lies at c ^ r/2%4, for threads that read
// one pack of eight rows each.
// OCTETS, for rows of 16 floats: octet c of row r lies at c ^ r/2%2, for threads that read
// two floats of an octet of four rows.
// SKEWED, for longer rows: row r begins 8·(r/2) floats later, for threads that read one
// float of eight of four rows, two apart.
enum Shift { NONE, PACKS, OCTETS, SKEWED };
template <class T, int COLS, int LD, int PER, Shift SHIFT = NONE>
struct TileCopy {
    static_assert(SHIFT != PACKS || (COLS == 4 * Pack<T>::N && LD == COLS), "a row has four packs");
    static_assert(SHIFT != OCTETS || (sizeof(T) == 4 && COLS == 16 && LD == COLS), "a row has 16 floats");

    __device__ static int place(int row, int c) {
        return row * LD + (SHIFT == PACKS    ? c ^ row / 2 % 4 * Pack<T>::N
                           : SHIFT == OCTETS ? c ^ row / 2 % 2 * 8
                           : SHIFT == SKEWED ? row / 2 * 8 + c
                                             : c);
    }

    // Part is what a thread moves: N elements, at column c of rows r, r+STEP, ….
    template <int N>
    struct Part {
        static constexpr int STEP = THREADS * N / COLS, COUNT = PER / N;
        // Without registers to index, long loops need not be unrolled.
        static constexpr int UNROLL = ASYNC_COPY ? 1 : COUNT;
        int r, c;
        __device__ Part() : r(threadIdx.x / (COLS / N)), c(threadIdx.x % (COLS / N) * N) {}

        // read copies `valid` elements and fills up with zeros.
        __device__ static void read(T *reg, T *dst, const T *from, int valid) {
#if ASYNC_COPY
            const unsigned to = (unsigned)__cvta_generic_to_shared(dst);
            const int bytes = valid * sizeof(T);
            if (N > 1)
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
            else
                asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(sizeof(T)),
                             "r"(bytes)
                             : "memory");
#else
            if (N > 1 && valid == N) {
                const Pack<T> p = load_pack(from);
#pragma unroll
                for (int v = 0; v < N; v++) reg[v] = p.v[v];
            } else {
#pragma unroll
                for (int v = 0; v < N; v++) reg[v] = v < valid ? from[v] : T(0);
            }
#endif
        }
        __device__ void fetch(T (&reg)[PER], T *dst, const T *src, int ld, int rows, int cols, int valid_rows,
                              int valid_cols) const {
            if (c >= cols) return;
            const int valid = min(max(valid_cols - c, 0), N);
            const T *from = src + (r * ld + c);
#pragma unroll UNROLL
            for (int i = 0; i < COUNT; i++, from += STEP * ld) {
                const int row = r + i * STEP;
                const bool there = valid > 0 && row < valid_rows;
                if (row < rows) read(reg + i * N, dst + place(row, c), there ? from : src, there ? valid : 0);
            }
        }
        __device__ void land(const T (&reg)[PER], T *dst, int rows, int cols) const {
            if (c >= cols) return;
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const int row = r + i * STEP;
                if (row >= rows) break;
                if (N == 1) {
                    dst[place(row, c)] = reg[i];
                } else {
                    Pack<T> p;
#pragma unroll
                    for (int v = 0; v < N; v++) p.v[v % Pack<T>::N] = reg[i * N + v];
                    store_pack(dst + place(row, c), p);
                }
            }
        }
        template <class F>
        __device__ void scale(T *dst, int rows, int cols, F factor) const {
            if (c >= cols) return;
#pragma unroll 1
            for (int row = r; row < rows; row += STEP) {
                const T w = factor(row);
                T *p = dst + place(row, c);
                if (N == 1) {
                    *p *= w;
                } else {
                    Pack<T> x = load_pack(p);
#pragma unroll
                    for (int v = 0; v < Pack<T>::N; v++) x.v[v] *= w;
                    store_pack(p, x);
                }
            }
        }
    };
    using Packs = Part<Pack<T>::N>;
    using Singles = Part<1>;

    // fetch reads the tile at src, whose rows are ld apart, within 2³¹ elements. Its first rows×cols
    // elements are wanted, of which those in valid_rows×valid_cols exist. packs:
    // src and ld are multiples of 16 bytes.
    __device__ static void fetch(T (&reg)[PER], T *dst, const T *src, int ld, int rows, int cols, int valid_rows,
                                 int valid_cols, bool packs) {
        if (packs)
            Packs().fetch(reg, dst, src, ld, rows, cols, valid_rows, valid_cols);
        else
            Singles().fetch(reg, dst, src, ld, rows, cols, valid_rows, valid_cols);
    }
    __device__ static void land(T (&reg)[PER], T *dst, int rows, int cols, bool packs) {
        if (ASYNC_COPY)
            wait_for_copies();
        else if (packs)
            Packs().land(reg, dst, rows, cols);
        else
            Singles().land(reg, dst, rows, cols);
    }
    // scale multiplies the elements that this thread moved by a factor of their
    // row, before the barrier.
    template <class F>
    __device__ static void scale(T *dst, int rows, int cols, bool packs, F factor) {
        if (packs)
            Packs().scale(dst, rows, cols, factor);
        else
            Singles().scale(dst, rows, cols, factor);
    }
};
