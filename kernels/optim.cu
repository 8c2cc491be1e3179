// The update of parameters by a gradient, in T, element by element:
//
//   g = c·grad + λθ, c = min(1, limit/(‖grad‖+1e-6));  s and r of the step
//   Adam, AdamW  m = β1 m + (1-β1) g; v = β2 v + (1-β2) g²; θ = keep·θ - s·m/(r·√v + ε)
//   RMSprop      v = α v + (1-α) g²; a = α a + (1-α) g; d = g/(√(v-a²) + ε) [+ μ m; m = d]; θ -= s·d
//   SGD          m = μ m + τ' g; θ -= s·(m, g + μ m or g)
//
// and nothing if the loss or the norm is not finite. grad, theta, m, v, a are [n].
//
// What differs from one update to the next is read from memory, so that a recorded launch
// can be replayed.
//
// norm, norm_scaled: ‖grad‖ in double, a block owns CHUNK elements; the second is for
//   squares that overflowed, or lost digits below the smallest normal number.
// finish, finish_scaled: one block adds the blocks. update: a thread owns an element.
//
// Reference: Update, ClipNorm and Norm in train/optim.go.
#include "learn.cuh"

struct SquareSum {
    double sum, largest;
    __device__ void add(const SquareSum &o) { sum += o.sum, largest = fmax(largest, o.largest); }
};

enum OptimizerKind { ADAM, ADAMW, RMSPROP, SGD };

// Factors are those of one update.
template <class T> struct Factors {
    int kind, nesterov;
    double limit; // of the gradient's norm, 0: none
    // b1, c1: of m and g in m; b2, c2: of v and g² in v.
    T step, decay, keep, b1, c1, b2, c2, eps, root;
};

template <class T> struct NormArgs {
    const T *grad;
    SquareSum *partial;
    Outcome *out;
    const Factors<T> *factors;
    long long n;
    int blocks, unused;
};

template <class T> static __device__ void squares(const NormArgs<T> &a, bool scaled) {
    const double shift = a.out->shift;
    if (scaled && shift == 0) return;
    const long long first = (long long)blockIdx.x * CHUNK, end = min(first + CHUNK, a.n);
    SquareSum sum = {};
    for (long long i = first + threadIdx.x; i < end; i += BLOCK) {
        const double g = scaled ? (double)a.grad[i] * shift : (double)a.grad[i];
        sum.sum += g * g;
        sum.largest = fmax(sum.largest, fabs(g));
    }
    sum = reduce(sum, BLOCK);
    if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

template <class T> static __device__ void measure(const NormArgs<T> &a, bool scaled) {
    Outcome &out = *a.out;
    if (scaled && out.shift == 0) return;
    const SquareSum s = add_partials(a.partial, a.blocks);
    if (threadIdx.x) return;
    const double shift = scaled ? out.shift : 0;
    out.norm = scaled ? sqrt(s.sum) / shift : sqrt(s.sum);
    const bool lost = isinf(s.sum) || s.sum < 0x1p-960;
    // A power of two, so that nothing is rounded.
    out.shift = !scaled && lost && s.largest > 0 && isfinite(s.largest) ? exp2((double)min(-ilogb(s.largest), 1000)) : 0;
    const double limit = a.factors->limit, c = limit > 0 ? limit / (out.norm + 1e-6) : 1;
    out.clip = c < 1 && isfinite(out.norm) ? c : 1;
}

template <class T> struct UpdateArgs {
    T *theta, *m, *v, *a; // m, v, a null where the formulas have none
    const T *grad;
    Outcome *out;
    const Factors<T> *factors;
    long long n;
};

template <class T> static __device__ void update(const UpdateArgs<T> &a) {
    const long long i = (long long)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= a.n || !a.out->sound()) return;
    const Factors<T> f = *a.factors;
    const double clip = a.out->clip;
    const T p = a.theta[i], grad = a.grad[i];
    T g = (clip < 1 ? (T)(clip * (double)grad) : grad) + f.decay * p, next;
    if (f.kind <= ADAMW) {
        const T m = f.b1 * a.m[i] + f.c1 * g, v = f.b2 * a.v[i] + f.c2 * g * g;
        a.m[i] = m, a.v[i] = v;
        next = f.keep * p - f.step * m / (sqrt(v) * f.root + f.eps);
    } else if (f.kind == RMSPROP) {
        T v = f.b2 * a.v[i] + f.c2 * g * g;
        a.v[i] = v;
        if (a.a) {
            const T mean = f.b2 * a.a[i] + f.c2 * g;
            a.a[i] = mean;
            v = fmax(v - mean * mean, (T)0); // a variance, which rounding can make negative
        }
        T d = g / (sqrt(v) + f.eps);
        if (a.m) {
            d += f.b1 * a.m[i];
            a.m[i] = d;
        }
        next = p - f.step * d;
    } else {
        if (a.m) {
            const T m = f.b1 * a.m[i] + f.c1 * g;
            a.m[i] = m;
            g = f.nesterov ? g + f.b1 * m : m;
        }
        next = p - f.step * g;
    }
    a.theta[i] = next;
    if (!isfinite(next)) atomicMin(&a.out->bad, i);
}

#define OPTIM(S, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(BLOCK) optim_norm_##S(NormArgs<T> a) { squares(a, false); }     \
    extern "C" __global__ void __launch_bounds__(BLOCK) optim_finish_##S(NormArgs<T> a) { measure(a, false); }   \
    extern "C" __global__ void __launch_bounds__(BLOCK) optim_norm_scaled_##S(NormArgs<T> a) { squares(a, true); } \
    extern "C" __global__ void __launch_bounds__(BLOCK) optim_finish_scaled_##S(NormArgs<T> a) { measure(a, true); } \
    extern "C" __global__ void __launch_bounds__(BLOCK) optim_update_##S(UpdateArgs<T> a) { update(a); }
OPTIM(f32, float)
OPTIM(f64, double)
