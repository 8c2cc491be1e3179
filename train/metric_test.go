package train

import (
	"math"
	"testing"
)

// Against values worked out by hand.
func TestMetrics(t *testing.T) {
	nan := math.NaN()
	y := Target[float64]{Values: []float64{1, 2, nan, 6}, Weights: []float64{1, 1, 0, 2}}
	pred := []float64{2, 2, 5, 5} // errors 1, 0, -, -1: squares weigh 1 + 0 + 2 of 4; ȳ = 15/4
	logits := []float32{0, 2, 1, 5, 5, 0, float32(nan), 0, 1, 0, 0, 3, 1, 0, 0}
	labels := Target[float32]{Labels: []int32{1, 0, 0, 0, -1}, Weights: []float32{1, 2, 1, 4, 1}}
	for name, c := range map[string]metric{
		"RMSE":     result(RMSE(pred, y))(math.Sqrt(3. / 4)),
		"R2":       result(R2(pred, y))(1 - 3/(math.Pow(2.75, 2)+math.Pow(1.75, 2)+2*math.Pow(2.25, 2))),
		"Accuracy": result(Accuracy(logits, labels))(3. / 8),
		"NormalNLL": result(NormalNLL(pred, 2, y))(
			-(-1./8 - 0 - 2./8 - 4*math.Log(2*math.Sqrt(2*math.Pi))) / 4),
	} {
		if c.err != nil || math.Abs(c.got-c.want) > 1e-14 {
			t.Errorf("%s: %v, %v, want %v", name, c.got, c.err, c.want)
		}
	}
	_, err := R2(pred, Target[float64]{Values: []float64{3, 3, 3, 3}})
	wantError(t, err, "all targets are the same")
	_, err = NormalNLL(pred, 0, y)
	wantError(t, err, "standard deviation 0")
	_, err = RMSE(pred[:2], y)
	wantError(t, err, "2 predictions for 4 targets")
	_, err = Accuracy(logits[:7], labels)
	wantError(t, err, "7 logits for 5 labels")
	_, err = Accuracy(logits, Target[float32]{Labels: []int32{-1, -1, -1, -1, -1}})
	wantError(t, err, "no rows")
}

// metric is what a metric returned, and what it should.
type metric struct {
	got  float64
	err  error
	want float64
}

func result(got float64, err error) func(want float64) metric {
	return func(want float64) metric { return metric{got, err, want} }
}
