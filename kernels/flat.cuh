// Elementwise kernels on Vecs, dense row-major [blocks][rows][cols].
//
// A thread owns V adjacent elements: 16 bytes, or one (the _1 entries) where the rows
// of a lane are not whole in 16 bytes. A block has BLOCK threads.
#pragma once

#include "clock.cuh"
#include "team.cuh"

// Pack is what a thread of an elementwise kernel loads and stores at once.
template <class T, int V> struct alignas(V * sizeof(T)) Pack {
    T v[V];
};

template <int V, class T> static __device__ Pack<T, V> load(const T *p, long long e) {
    return *(const Pack<T, V> *)(p + e);
}

template <int V, class T> static __device__ void store(T *p, long long e, const Pack<T, V> &x) {
    *(Pack<T, V> *)(p + e) = x;
}

// Flat is the elements of an elementwise kernel: total of them in blocks of
// rows × cols.
struct Flat {
    long long total;
    int rows, cols;

    // mine is the first element of this thread, or -1. Grid: ceil(total/V/BLOCK).
    __device__ long long mine(int V) const {
        const long long e = ((long long)blockIdx.x * BLOCK + threadIdx.x) * V;
        return e < total ? e : -1;
    }

    __device__ int lane(const ClockView &c, long long e) const {
        if (c.lanes == 1) return 0;
        if (total <= 0xffffffffll) return (unsigned)e / (unsigned)cols % (unsigned)rows;
        return (int)(e / cols % rows);
    }
};
