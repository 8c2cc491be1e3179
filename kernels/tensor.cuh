// Products of float32 matrices on tensor cores, from compute capability 8.0 on: Gemm
// with another core, and one order of terms in any tile of any grid.
//
//     Tf32     operands are rounded to 11 bits, to nearest
//     Bf16     operands are rounded to 8 bits, to nearest
//     Tf32x3   operands are sums of two numbers of 11 bits, x = x₁ + x₂, to nearest;
//              the product is a₂b₁ + a₁b₂ + a₁b₁
//
// Sums are float32. Tensor cores round them toward zero; so with Tf32x3 they add up only
// eight terms, and other cores, which round to nearest, add that to the accumulator:
// Ootomo & Yokota 2022 (arXiv 2203.03341), section 3. There an infinite operand gives
// NaN, as ∞ - ∞.
//
// A warp owns M × N outputs, in parts of 16 × 8, which is what an instruction computes.
// Its operands are spread over the warp: lane 4g + t has outputs g and g+8 of a, g of b,
// and of an octet of terms two, which may be any if they are the same of a and b. They
// are 2t and 2t+1.
#pragma once

#include "wide.cuh"

// mma_tf32 adds an octet of terms to c; a and a8 are of outputs g and g+8.
__device__ inline void mma_tf32(float (&c)[4], const unsigned *a, const unsigned *a8, const unsigned *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a8[0]), "r"(a[1]), "r"(a8[1]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned to_tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// A format has a lane's Terms of an output, PAIRS of them, a pair an octet. multiply adds
// their products to c. N is the width of a warp's outputs in large tiles; that of Tf32x3
// leaves registers for twice the Terms.
struct Tf32 {
    static constexpr int PAIRS = 1, N = 64;
    struct Terms {
        unsigned v[2];
        __device__ Terms() {}
        __device__ explicit Terms(const float2 (&x)[1]) : v{to_tf32(x[0].x), to_tf32(x[0].y)} {}
    };
    __device__ static void multiply(float (&c)[4], const Terms &a, const Terms &a8, const Terms &b) {
        mma_tf32(c, a.v, a8.v, b.v);
    }
};

struct Tf32x3 {
    static constexpr int PAIRS = 1, N = 32;
    struct Terms {
        Tf32::Terms first, second;
        __device__ Terms() {}
        __device__ explicit Terms(const float2 (&x)[1]) : first(x) {
            const float2 rest[1] = {{x[0].x - __uint_as_float(first.v[0]), x[0].y - __uint_as_float(first.v[1])}};
            second = Tf32::Terms(rest);
        }
    };
    __device__ static void multiply(float (&c)[4], const Terms &a, const Terms &a8, const Terms &b) {
        float d[4] = {0, 0, 0, 0};
        mma_tf32(d, a.second.v, a8.second.v, b.first.v);
        mma_tf32(d, a.first.v, a8.first.v, b.second.v);
        mma_tf32(d, a.first.v, a8.first.v, b.first.v);
#pragma unroll
        for (int k = 0; k < 4; k++) c[k] += d[k];
    }
};

struct Bf16 {
    static constexpr int PAIRS = 2, N = 64;
    struct Terms {
        unsigned v[2];
        __device__ Terms() {}
        __device__ explicit Terms(const float2 (&x)[2]) {
#pragma unroll
            for (int i = 0; i < 2; i++) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v[i]) : "f"(x[i].y), "f"(x[i].x));
        }
    };
    __device__ static void multiply(float (&c)[4], const Terms &a, const Terms &a8, const Terms &b) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.v[0]), "r"(a8.v[0]), "r"(a.v[1]), "r"(a8.v[1]), "r"(b.v[0]), "r"(b.v[1]));
    }
};

// store_pair is store_pack of two.
__device__ inline void store_pair(float *p, const float *x) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"((unsigned)__cvta_generic_to_shared(p)), "f"(x[0]), "f"(x[1])
                 : "memory");
}

// TensorCore is the core of a Gemm.
template <class Format, bool LARGE, bool INNER_A, bool INNER_B>
struct TensorCore {
    using Number = float;
    using Terms = typename Format::Terms;
    static constexpr int WARPS_M = 4, WARPS_N = WARPS / WARPS_M;
    static constexpr int M = LARGE ? 32 : 16, N = LARGE ? Format::N : 32;
    using A = GemmSide<float, WARPS_M * M, INNER_A, INNER_A ? OCTETS : SKEWED>;
    using B = GemmSide<float, WARPS_N * N, INNER_B, INNER_B ? OCTETS : SKEWED>;

    float c[M / 16][N / 8][4];

    __device__ static int lane() { return threadIdx.x % 32; }
    __device__ static int warp_m() { return threadIdx.x / (32 * WARPS_N); }
    __device__ static int warp_n() { return threadIdx.x / 32 % WARPS_N; }

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < M / 16; i++)
#pragma unroll
            for (int j = 0; j < N / 8; j++)
#pragma unroll
                for (int k = 0; k < 4; k++) c[i][j][k] = 0;
    }

    // load reads the lane's terms of an output of a tile, from octet k on.
    template <class Side>
    __device__ static Terms load(const float *tile, int output, int k) {
        float2 x[Format::PAIRS];
#pragma unroll
        for (int i = 0; i < Format::PAIRS; i++) {
            const int term = 8 * (k + i) + lane() % 4 * 2;
            if (Side::INNER)
                x[i] = *reinterpret_cast<const float2 *>(tile + Side::Copy::place(output, term));
            else
                x[i] = {tile[Side::Copy::place(term, output)], tile[Side::Copy::place(term + 1, output)]};
        }
        return Terms(x);
    }

    // multiply adds the products of one tile.
    __device__ void multiply(const float *a, const float *b) {
        const int m = warp_m() * M + lane() / 4, n = warp_n() * N + lane() / 4;
#pragma unroll 1
        for (int k = 0; k < 2; k += Format::PAIRS) {
            Terms of_a[M / 8];
#pragma unroll
            for (int i = 0; i < M / 8; i++) of_a[i] = load<A>(a, m + 8 * i, k);
#pragma unroll
            for (int j = 0; j < N / 8; j++) {
                const Terms of_b = load<B>(b, n + 8 * j, k);
#pragma unroll
                for (int i = 0; i < M / 16; i++) Format::multiply(c[i][j], of_a[2 * i], of_a[2 * i + 1], of_b);
            }
        }
    }

    // 16 rows of each warp are staged at a time. The four rows that half a warp writes to
    // are in different banks.
    static constexpr int STAGES = M / 16, STAGED = 16 * WARPS_M, STAGE_LD = WARPS_N * N + 8;
    __device__ static int row(int r, int i) { return r / 16 * M + r % 16 + 16 * i; }

    __device__ void stage(float *to) const {
        to += (16 * warp_m() + lane() / 4) * STAGE_LD + warp_n() * N + 2 * (lane() % 4);
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                store_pair(to + 8 * h * STAGE_LD + 8 * j, c[0][j] + 2 * h);
    }
    __device__ void shift(int i) {
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) c[i][j][k] = c[i + 1][j][k];
    }
};

// Tensor is the arithmetic of TensorCore.
template <class Format>
struct Tensor {
    using Number = float;
    template <bool LARGE, bool INNER_A, bool INNER_B>
    using Product = Gemm<TensorCore<Format, LARGE, INNER_A, INNER_B>>;
};

// TENSOR_KERNELS defines the kernels of a format: FAMILY_forward_*, FAMILY_jvp_*,
// FAMILY_back_* and FAMILY_weights_*, see mlp_forward.cu, mlp_jvp.cu and mlp_vjp.cu.
#define TENSOR_KERNELS(FORMAT, FAMILY)                                                                 \
    TENSOR_PAIR(forward_layer, Forward, FORMAT, FAMILY##_forward)                                      \
    TENSOR_PAIR(tangent_layer, Tangent, FORMAT, FAMILY##_jvp)                                          \
    TENSOR_PAIR(back_layer, Back, FORMAT, FAMILY##_back)                                               \
    TENSOR_PAIR(layer_weights, LayerWeights, FORMAT, FAMILY##_weights)
#define TENSOR_PAIR(LAYER, ARGS, FORMAT, NAME)                                                         \
    WIDE_KERNEL(LAYER, ARGS, Tensor<FORMAT>, true, 2, NAME##_large_f32)                                \
    WIDE_KERNEL(LAYER, ARGS, Tensor<FORMAT>, false, 2, NAME##_small_f32)
