// The lanes of a solve in one launch, which blocks take from a queue.
#pragma once

#include "progress.cuh"

// FusedProgress is how far the lanes are that left a block, or all of them, and the
// evaluations that there was place for.
struct FusedProgress {
    Progress p;
    long long places;

    __device__ void add(const FusedProgress &o) { p.add(o.p), places += o.places; }
};

// FusedWork is how the blocks of a launch share the lanes out. The last block leaves it
// as the next launch wants it.
struct FusedWork {
    int next, done; // lanes taken, blocks that have ended
    FusedProgress total, partial[1]; // [blocks]
};
static_assert(sizeof(FusedProgress) == 64 && sizeof(FusedWork) == 136, "gpu/fuse.go allocates it");
