package figures

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	x := []float64{4, 1, 3, 2} // unsorted, and to stay so
	for _, c := range []struct{ q, want float64 }{{0, 1}, {0.25, 1.75}, {0.5, 2.5}, {0.75, 3.25}, {1, 4}} {
		if got := Quantile(x, c.q); got != c.want {
			t.Errorf("Quantile(%g) = %g, want %g", c.q, got, c.want)
		}
	}
	if x[0] != 4 {
		t.Error("the argument was sorted")
	}
	if got := Median([]float64{7}); got != 7 {
		t.Errorf("the median of one: %g", got)
	}
	if got := Spread(x); math.Abs(got-1.5/2.5) > 1e-15 {
		t.Errorf("Spread = %g, want 0.6", got)
	}
	if got := Median(nil); got == got {
		t.Errorf("the median of none: %g", got)
	}
}

func TestDigits(t *testing.T) {
	for _, c := range []struct {
		x    float64
		want string
	}{
		{0, "0"}, {12345, "12345"}, {123.4, "123"}, {12.34, "12.3"}, {1.234, "1.23"}, {0.01234, "0.0123"},
		{9.999, "10.0"}, {99.96, "100"}, {0.9996, "1.00"}, {-1.5, "-1.50"}, {999.7, "1000"},
	} {
		if got := Digits(c.x); got != c.want {
			t.Errorf("Digits(%g) = %s, want %s", c.x, got, c.want)
		}
	}
	if got := Digits(math.NaN()); got != "NaN" {
		t.Error(got)
	}
}
