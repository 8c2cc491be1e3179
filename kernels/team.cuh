// Sums over a team of threads: up to 32 adjacent ones of a warp, or a block.
#pragma once

const int BLOCK = 256; // threads of a block

const unsigned FULL = 0xffffffffu;

// exchange returns the value of the thread of the warp that differs in bit d.
template <class S> __device__ S exchange(S s, int d) {
    static_assert(sizeof(S) % 4 == 0, "whole words");
    union {
        S s;
        int w[sizeof(S) / 4];
    } u;
    u.s = s;
#pragma unroll
    for (int i = 0; i < (int)(sizeof(S) / 4); i++) u.w[i] = __shfl_xor_sync(FULL, u.w[i], d);
    return u.s;
}

// reduce returns to every thread of a team of up to 32 the sum over the team, to
// thread 0 of a team of BLOCK that over the block. S::add must be symmetric.
template <class S> __device__ S reduce(S s, int team) {
    for (int d = min(team, 32) >> 1; d > 0; d >>= 1) s.add(exchange(s, d));
    if (team <= 32) return s;
    __shared__ S warps[BLOCK / 32];
    __syncthreads(); // the last use of warps has ended
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x < 32) {
        s = warps[threadIdx.x % (BLOCK / 32)];
        for (int d = BLOCK / 64; d > 0; d >>= 1) s.add(exchange(s, d));
    }
    return s;
}
