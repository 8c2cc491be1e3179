// A register-tiled matrix product for layers too wide to keep a tile of samples on
// chip:
//
//     c[m][n] = Σ_k a(m, k)·b(n, k),  k ascending, one accumulator per element,
//
// so that c[m][n] has the same bits in any tile of any grid. A block owns TILE_M ×
// TILE_N elements of c, a thread PER_M × PER_N. Tiles of a and b pass through shared
// memory, the next one on its way while this one is used. An operand is stored
// either by outputs, [m][k] ("inner": k is contiguous), or by terms, [k][m].
// tensor.cuh multiplies the same tiles on tensor cores.
// Reference: blas.mul and blas.mulT in cpu/blas.go.
#pragma once

#include "mlp.cuh"

// Operand is one side of the product in global memory.
template <class T>
struct Operand {
    const T *p;   // of this block's first output
    int ld;       // elements between rows
    int outputs;  // that exist, from p on

    // packs: p and ld are multiples of 16 bytes.
    __device__ bool packs() const { return ((unsigned)(size_t)p | ld * (unsigned)sizeof(T)) % 16 == 0; }
};

template <class T>
__device__ inline Operand<T> operand(const T *p, int ld, int outputs) {
    return {p, ld, outputs};
}

// TERMS is how many terms of the sum a tile holds: 64 bytes.
template <class T>
constexpr int TERMS = 64 / sizeof(T);

// GemmSide is the shared memory of one operand: OUT outputs of a tile.
template <class T, int OUTPUTS, bool BY_OUTPUTS, Shift SHIFT>
struct GemmSide {
    static constexpr bool INNER = BY_OUTPUTS;
    static constexpr int OUT = OUTPUTS, K = TERMS<T>;
    static constexpr int COLS = INNER ? K : OUT, MOVED = OUT * K / THREADS;
    static constexpr int ELEMENTS = OUT * K + (SHIFT == SKEWED ? K / 2 * 8 : 0);
    using Copy = TileCopy<T, COLS, COLS, MOVED, SHIFT>;

    // fetch starts to copy the terms from k on, of which there are `terms`.
    __device__ static void fetch(T (&reg)[MOVED], T *tile, const Operand<T> &o, int k, int terms) {
        const int outputs = min(o.outputs, OUT), left = min(terms, K);
        if (INNER)
            Copy::fetch(reg, tile, o.p + k, o.ld, OUT, K, outputs, left, o.packs());
        else
            Copy::fetch(reg, tile, o.p + (long long)k * o.ld, o.ld, K, OUT, left, outputs, o.packs());
    }
    __device__ static void land(T (&reg)[MOVED], T *tile, const Operand<T> &o) {
        Copy::land(reg, tile, INNER ? OUT : K, COLS, o.packs());
    }
};

// NoTerms is what a product does with each tile beside the product: nothing.
struct NoTerms {
    template <class T>
    __device__ void landed(T *, bool, int, int) const {}
    template <class T>
    __device__ void ready(const T *, int, int) const {}
};

// Gemm takes the operands through shared memory, and c out of it. Core has the
// accumulators and multiplies: see Fma.
template <class Core>
struct Gemm : Core {
    using T = typename Core::Number;
    using A = typename Core::A;
    using B = typename Core::B;
    static constexpr int TILE_M = A::OUT, TILE_N = B::OUT;

    union alignas(16) Shared {
        struct {
            T a[2][A::ELEMENTS], b[2][B::ELEMENTS];
        } tile;
        T stage[Core::STAGED * Core::STAGE_LD];
    };

    // Place is the first element of a block's tile, and its part of a split sum. Tiles
    // of one row of tiles follow each other, so that they share what they read of a.
    struct Place {
        int m, n, part;
        __device__ Place(int rows, int columns) {
            const int across = (columns + TILE_N - 1) / TILE_N, down = (rows + TILE_M - 1) / TILE_M;
            n = blockIdx.x % across * TILE_N;
            const int row = blockIdx.x / across;
            m = row % down * TILE_M;
            part = row / down;
        }
    };

    // accumulate adds `terms` terms. each.landed(tile of a, …) runs before a tile
    // is shared with the other threads, each.ready after.
    template <class Each>
    __device__ void accumulate(Shared &s, const Operand<T> &a, const Operand<T> &b, int terms, Each &each) {
        T reg_a[A::MOVED], reg_b[B::MOVED];
        __syncthreads(); // s may still be in use
        A::fetch(reg_a, s.tile.a[0], a, 0, terms);
        B::fetch(reg_b, s.tile.b[0], b, 0, terms);
#pragma unroll 1
        for (int k = 0; k < terms; k += A::K) {
            const int now = k / A::K % 2, next = k + A::K;
            A::land(reg_a, s.tile.a[now], a);
            B::land(reg_b, s.tile.b[now], b);
            each.landed(s.tile.a[now], a.packs(), k, min(terms - k, A::K));
            __syncthreads();
            if (next < terms) {
                A::fetch(reg_a, s.tile.a[now ^ 1], a, next, terms - next);
                B::fetch(reg_b, s.tile.b[now ^ 1], b, next, terms - next);
            }
            each.ready(s.tile.a[now], k, min(terms - k, A::K));
            this->multiply(s.tile.a[now], s.tile.b[now]);
        }
    }

    // emit calls out.column(n) once a thread and out(m, n, c[m][n]) for the elements
    // of that column, m and n within the tile. It stages a few rows of c at a time, so
    // that a warp writes one row and out is compiled once. It uses up c.
    template <class Out>
    __device__ void emit(Shared &s, int rows, int columns, Out &out) {
        const int n = threadIdx.x % TILE_N;
        if (n < columns) out.column(n);
#pragma unroll 1
        for (int i = 0; i < Core::STAGES; i++) {
            __syncthreads();
            this->stage(s.stage);
            __syncthreads();
#pragma unroll 1
            for (int r = threadIdx.x / TILE_N; r < Core::STAGED; r += THREADS / TILE_N) {
                const int m = Core::row(r, i);
                if (n < columns && m < rows) out(m, n, s.stage[r * Core::STAGE_LD + n]);
            }
            // Registers cannot be indexed: shift them instead.
#pragma unroll
            for (int k = 0; k + 1 < Core::STAGES; k++) this->shift(k);
        }
    }
};

// Fma multiplies by fused multiply-adds: a thread's outputs are PER_M × PER_N.
template <class T, int PER_M, int PER_N, bool INNER_A, bool INNER_B>
struct Fma {
    using Number = T;
    static constexpr int V = Pack<T>::N;
    using A = GemmSide<T, 16 * PER_M, INNER_A, INNER_A ? PACKS : NONE>;
    using B = GemmSide<T, 16 * PER_N, INNER_B, INNER_B ? PACKS : NONE>;

    T c[PER_M][PER_N];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < PER_M; i++)
#pragma unroll
            for (int j = 0; j < PER_N; j++) c[i][j] = 0;
    }

    // multiply adds the products of one tile.
    __device__ void multiply(const T *a, const T *b) {
        const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
        if (INNER_A) {
#pragma unroll 1
            for (int k = 0; k < A::K; k += V) {
                // Rows 16 apart are swizzled alike.
                const T *row_a = a + A::Copy::place(ty, k), *row_b = b + (INNER_B ? B::Copy::place(tx, k) : 0);
                Pack<T> pa[PER_M];
#pragma unroll
                for (int i = 0; i < PER_M; i++) pa[i] = load_pack(row_a + 16 * i * A::COLS);
                if (INNER_B) {
#pragma unroll
                    for (int j = 0; j < PER_N; j++) {
                        const Pack<T> pb = load_pack(row_b + 16 * j * B::COLS);
#pragma unroll
                        for (int v = 0; v < V; v++)
#pragma unroll
                            for (int i = 0; i < PER_M; i++) c[i][j] = fma(pa[i].v[v], pb.v[v], c[i][j]);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < PER_N; j += V)
#pragma unroll
                        for (int v = 0; v < V; v++) {
                            const Pack<T> pb = load_pack(b + (k + v) * B::COLS + V * tx + 16 * j);
#pragma unroll
                            for (int u = 0; u < V; u++)
#pragma unroll
                                for (int i = 0; i < PER_M; i++)
                                    c[i][j + u] = fma(pa[i].v[v], pb.v[u], c[i][j + u]);
                        }
                }
            }
        } else {
#pragma unroll 2
            for (int k = 0; k < A::K; k++) {
                Pack<T> pa[PER_M / V];
#pragma unroll
                for (int i = 0; i < PER_M / V; i++) pa[i] = load_pack(a + k * A::COLS + V * ty + 16 * V * i);
#pragma unroll
                for (int j = 0; j < PER_N; j += V) {
                    const Pack<T> pb = load_pack(b + k * B::COLS + V * tx + 16 * j);
#pragma unroll
                    for (int u = 0; u < V; u++)
#pragma unroll
                        for (int i = 0; i < PER_M; i++)
                            c[i][j + u] = fma(pa[i / V].v[i % V], pb.v[u], c[i][j + u]);
                }
            }
        }
    }

    // c is staged in STAGES times STAGED rows. Half-warps that write two of them go to
    // different banks.
    static constexpr int STAGES = PER_M, STAGED = 16, STAGE_LD = 16 * PER_N + 16;

    // row is the row of c that is row r of stage i.
    __device__ static int row(int r, int i) { return INNER_A ? r + 16 * i : V * r + 16 * V * (i / V) + i % V; }

    __device__ void stage(T *to) const {
        const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
        for (int j = 0; j < PER_N; j++)
            if (INNER_B) {
                to[ty * STAGE_LD + tx + 16 * j] = c[0][j];
            } else if (j % V == 0) {
                Pack<T> p;
#pragma unroll
                for (int v = 0; v < V; v++) p.v[v] = c[0][(j + v) % PER_N];
                store_pack(to + ty * STAGE_LD + V * tx + 16 * j, p);
            }
    }
    __device__ void shift(int k) {
#pragma unroll
        for (int j = 0; j < PER_N; j++) c[k][j] = c[k + 1][j];
    }
};

// Scalar is the arithmetic of Fma. The tiles are large where the product has enough of
// them to fill the device, small otherwise.
template <class T>
struct Scalar {
    using Number = T;
    template <bool LARGE, bool INNER_A, bool INNER_B>
    using Product = Gemm<Fma<T, LARGE ? 8 : 4, LARGE && sizeof(T) == 4 ? 8 : 4, INNER_A, INNER_B>>;
};
