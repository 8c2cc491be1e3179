// Sums over the elements of a lane, in an order that depends on nothing but how
// many elements the lane has: not on other lanes, on the grid or on the device. So
// reruns are bit-equal, and a sample's result is the same alone and in a batch.
//
// A lane of n elements (of each block of a Vec) is summed by
//   n <= 128    a team of 1 to 32 threads of a warp, many teams a block
//   n <= 2048   one block of 256 threads
//   beyond      chunks, a block of 256 threads each, then a block that adds the chunks
// Thread j of a team adds elements j, j+team, ...; then the team adds its threads
// by halves. gpu/rk.go chooses team and chunk from n.
#pragma once

#include "flat.cuh"
#include "team.cuh"

// Extent is how a lane lies in a Vec: n elements in each block of block elements.
struct Extent {
    long long block, n;
    int blocks, cols;

    // at is the first element of a lane in block b.
    __device__ long long at(int b, int lane) const { return b * block + lane * n; }
};

// A norm N has a trivial type Sum, whose value {} is the sum of nothing, and
//   open(clk, lane)          reads what it needs of a lane
//   term(sum, element, i)    adds element i of the lane
//   close(sum, n)            takes the sum over a block of n elements
//   store(clk, lane, extent) writes its result

// norm_lanes: one team a lane does it all. Grid: ceil(lanes·team/BLOCK).
template <class N> __device__ void norm_lanes(N norm, const ClockView &clk, const Extent &x, int team) {
    const long long thread = (long long)blockIdx.x * BLOCK + threadIdx.x;
    const int lane = (int)(thread / team), j = (int)(thread % team);
    const bool active = lane < clk.lanes && clk.selected(lane, ROWS_RUNNING);
    if (team == BLOCK && !active) return;
    if (active) norm.open(clk, lane);
    for (int b = 0; b < x.blocks; b++) {
        typename N::Sum sum = {};
        if (active)
            for (long long i = j, e = x.at(b, lane) + j; i < x.n; i += team, e += team) norm.term(sum, e, i);
        norm.close(reduce(sum, team), x.n);
    }
    if (active && j == 0) norm.store(clk, lane, x);
}

// norm_chunks: one block a chunk, its sum to partial[lane][block][chunk]. Grid:
// lanes·blocks·chunks.
template <class N>
__device__ void norm_chunks(N norm, const ClockView &clk, const Extent &x, int chunk, int chunks, typename N::Sum *partial) {
    const int c = blockIdx.x % chunks, b = blockIdx.x / chunks % x.blocks, lane = blockIdx.x / chunks / x.blocks;
    if (!clk.selected(lane, ROWS_RUNNING)) return;
    norm.open(clk, lane);
    typename N::Sum sum = {};
    const long long first = (long long)c * chunk, end = min(first + chunk, x.n), base = x.at(b, lane);
    for (long long i = first + threadIdx.x; i < end; i += BLOCK) norm.term(sum, base + i, i);
    sum = reduce(sum, BLOCK);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// norm_finish: one block a lane adds the chunks. Grid: lanes.
template <class N>
__device__ void norm_finish(N norm, const ClockView &clk, const Extent &x, int chunks, const typename N::Sum *partial) {
    const int lane = blockIdx.x;
    if (!clk.selected(lane, ROWS_RUNNING)) return;
    norm.open(clk, lane);
    for (int b = 0; b < x.blocks; b++) {
        typename N::Sum sum = {};
        for (int c = threadIdx.x; c < chunks; c += BLOCK) sum.add(partial[((long long)lane * x.blocks + b) * chunks + c]);
        norm.close(reduce(sum, BLOCK), x.n);
    }
    if (threadIdx.x == 0) norm.store(clk, lane, x);
}
