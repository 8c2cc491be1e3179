// The sums behind the norms of a lane, over its elements in one block of a Vec.
#pragma once

// ErrorSum is behind the error ratio of an attempt: it holds sums of squares of both
// estimates over their scales, and the largest component of the first with the least
// index, NaN if a component is not finite.
struct ErrorSum {
    double s, s2, worst;
    long long at;

    __device__ void add(const ErrorSum &o) {
        s += o.s, s2 += o.s2;
        const bool bad = isnan(worst), other = isnan(o.worst);
        if (bad != other ? other : o.worst > worst || ((bad || o.worst == worst) && o.at < at))
            worst = o.worst, at = o.at;
    }

    static __device__ double scaled(double x, double scale) { return x == 0 ? 0 : x / scale; }

    // term adds element i of a step of size h from y0 to y1, whose estimates are h·est
    // and, if there is a second, h·est2.
    __device__ void term(double h, double est, double est2, double y0, double y1, double rel, double abs, bool second,
                         long long i) {
        const double scale = abs + rel * fmax(fabs(y0), fabs(y1));
        const double r = fabs(scaled(h * est, scale));
        s += r * r;
        if (second) {
            const double r2 = scaled(h * est2, scale);
            s2 += r2 * r2;
        }
        if (isnan(worst)) return;
        if (!(isfinite(y1) && isfinite(est) && isfinite(est2)) || isnan(r))
            worst = nan(""), at = i;
        else if (r > worst)
            worst = r, at = i;
    }

    // ratio is the norm of n elements.
    __device__ double ratio(long long n, bool second) const {
        const double m = n > 0 ? (double)n : 1;
        if (isnan(worst)) return nan("");
        if (isinf(s) || isinf(s2)) return HUGE_VAL;
        if (!second || s == 0) return sqrt(s / m);
        // Hairer's DOP853: |h|·ERR/√(n·(ERR + 0.01·ERR2)), ERR and ERR2 the sums of squares.
        return s / sqrt(m * (s + 0.01 * s2));
    }
};

// FirstSum is behind the size of the first step.
struct FirstSum {
    double s0, s1, s2;

    __device__ void add(const FirstSum &o) { s0 += o.s0, s1 += o.s1, s2 += o.s2; }

    // square is (x/scale)², with nothing over nothing being nothing.
    static __device__ double square(double x, double scale) {
        const double r = x == 0 ? 0 : x / scale;
        return r * r;
    }

    // term adds an element of y0, f0 and f1.
    __device__ void term(double y, double f0, double f1, double rel, double abs) {
        const double scale = abs + rel * fabs(y);
        s0 += square(y, scale);
        s1 += square(f0, scale);
        s2 += square(f1 - f0, scale);
    }
};
