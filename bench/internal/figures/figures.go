// Package figures has what the benchmarks' tables share: quantiles, and numbers as people
// read them.
package figures

import (
	"fmt"
	"math"
	"slices"
)

// Quantile is the q-quantile of x, 0 ≤ q ≤ 1, between its neighbours where it falls
// between two; NaN if x is empty.
func Quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(x))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// Median is the median of x; NaN if x is empty.
func Median(x []float64) float64 { return Quantile(x, 0.5) }

// Spread is the distance of the quartiles of x over its median.
func Spread(x []float64) float64 {
	return (Quantile(x, 0.75) - Quantile(x, 0.25)) / Median(x)
}

// Digits writes x with three significant digits, or all before the point.
func Digits(x float64) string {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return fmt.Sprint(x)
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	if scale := math.Pow(10, float64(decimals)); math.Round(math.Abs(x)*scale) >= 1000 {
		decimals-- // 9.999 is 10.0
	}
	return fmt.Sprintf("%.*f", max(0, decimals), x)
}
