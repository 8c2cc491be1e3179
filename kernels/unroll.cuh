// What kernels that are compiled together with a right-hand side and a method have in
// common: their loops over stages, and where state and stages are small, those over
// components, are unrolled, so that state and stages are in registers.
#pragma once

#ifndef HUGE_VAL // there is no math.h
#define HUGE_VAL __longlong_as_double(0x7ff0000000000000ll)
#endif

const int WARP = 32;    // threads
const int LARGE = 1024; // bytes of a sample that are not kept in registers

// fits reports whether so many vectors are small.
constexpr bool fits(int vectors) { return vectors * DIM * sizeof(real) <= LARGE; }

// each calls f with the numbers from FROM up to TO as types, which it can use where the
// compiler must know them.
template <int N> struct Int {
    static constexpr int value = N;
};
template <int FROM, int TO, class F> static __device__ __forceinline__ void each(F f) {
    if constexpr (FROM < TO) {
        f(Int<FROM>{});
        each<FROM + 1, TO>(f);
    }
}
