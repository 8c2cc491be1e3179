// The activations σ of an MLP and their derivatives, in the working precision.
// Definitions and limits are those of mlp/activation_math.go: no overflow, the
// limit at ±Inf (NaN for sin), NaN at NaN, derivatives from the pre-activation.
// Products that are added to something are written as fma, so that every kernel
// rounds alike whatever the compiler would contract.
#pragma once

// Activation is mlp.Activation.
enum Activation {
    ACT_IDENTITY,
    ACT_TANH,
    ACT_SIGMOID,
    ACT_RELU,
    ACT_LEAKY_RELU,
    ACT_ELU,
    ACT_SOFTPLUS,
    ACT_SILU,
    ACT_GELU,
    ACT_GELU_TANH,
    ACT_SIN,
};

// normal_cdf is Φ(x) with a tail that keeps its digits.
__device__ inline float normal_cdf(float x) { return normcdff(x); }
__device__ inline double normal_cdf(double x) { return normcdf(x); }

// normal_pdf is e^(-x²/2)/√(2π). What x·x loses to rounding is put back, for the
// exponential magnifies it by x²/2.
template <class T>
__device__ inline T normal_pdf(T x) {
    const T square = x * x;
    const T e = exp(T(-0.5) * square);
    if (e == 0) return 0;
    const T lost = fma(x, x, -square);
    return T(0.39894228040143267794) * fma(T(-0.5) * lost, e, e);
}

// sigmoid is 1/(1+e^-x); the exponential cannot overflow.
template <class T>
__device__ inline T sigmoid(T x) {
    const T e = exp(-fabs(x));
    return (x >= 0 ? T(1) : e) / (1 + e);
}

// sigmoid_slope is sigmoid(x)·sigmoid(-x) without the cancellation of σ(1-σ).
template <class T>
__device__ inline T sigmoid_slope(T x) {
    const T e = exp(-fabs(x));
    return e / ((1 + e) * (1 + e));
}

// gate is x·p for a gate p that vanishes faster than |x| grows.
template <class T>
__device__ inline T gate(T x, T p) {
    return p == 0 ? T(0) : x * p;
}

// gate_slope is the derivative p + x·dp of gate.
template <class T>
__device__ inline T gate_slope(T x, T p, T dp) {
    return dp == 0 ? p : fma(x, dp, p);
}

// Activated is σ(x) and σ'(x).
template <class T>
struct Activated {
    T y, slope;
};

// activate returns σ(x) and, if WITH_SLOPE, σ'(x). At a kink σ' is what PyTorch
// takes: 0 for relu, 0.01 for leaky_relu.
template <bool WITH_SLOPE, class T>
__device__ inline Activated<T> activate(int act, T x) {
    const T leak = T(0.01);
    const T gelu_cubic = T(0.044715);
    const T gelu_scale = T(1.5957691216057307118); // 2√(2/π)
    T y = x, s = 1;
    switch (act) {
    case ACT_TANH:
        y = tanh(x);
        if (WITH_SLOPE) {
            // 1 - tanh² cancels for large x; sech²x = 4σ(2x)σ(-2x).
            s = fabs(x) < 1 ? fma(-y, y, T(1)) : 4 * sigmoid_slope(2 * x);
        }
        break;
    case ACT_SIGMOID:
        y = sigmoid(x);
        if (WITH_SLOPE) s = sigmoid_slope(x);
        break;
    case ACT_RELU: // NaN stays
        y = x <= 0 ? T(0) : x;
        if (WITH_SLOPE) s = x > 0 ? T(1) : x <= 0 ? T(0) : x;
        break;
    case ACT_LEAKY_RELU:
        y = x > 0 ? x : leak * x;
        if (WITH_SLOPE) s = x > 0 ? T(1) : x <= 0 ? leak : x;
        break;
    case ACT_ELU:
        y = x > 0 ? x : expm1(x);
        if (WITH_SLOPE) s = x > 0 ? T(1) : exp(x);
        break;
    case ACT_SOFTPLUS:
        y = fmax(x, T(0)) + log1p(exp(-fabs(x))); // the second term carries a NaN
        if (WITH_SLOPE) s = sigmoid(x);
        break;
    case ACT_SILU: {
        const T p = sigmoid(x);
        y = gate(x, p);
        if (WITH_SLOPE) s = gate_slope(x, p, sigmoid_slope(x));
        break;
    }
    case ACT_GELU: {
        const T p = normal_cdf(x);
        y = gate(x, p);
        if (WITH_SLOPE) s = gate_slope(x, p, normal_pdf(x));
        break;
    }
    case ACT_GELU_TANH: {
        // (1+tanh(u/2))/2 = sigmoid(u) has no cancellation for negative x.
        const T cubic = gelu_cubic * x;
        const T u = gelu_scale * x * fma(cubic, x, T(1));
        const T p = sigmoid(u);
        y = gate(x, p);
        if (WITH_SLOPE) {
            T dp = sigmoid_slope(u);
            if (dp != 0) dp *= gelu_scale * fma(3 * cubic, x, T(1));
            s = gate_slope(x, p, dp);
        }
        break;
    }
    case ACT_SIN:
        y = sin(x);
        if (WITH_SLOPE) s = cos(x);
        break;
    }
    return {y, s};
}
