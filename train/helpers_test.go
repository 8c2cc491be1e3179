package train

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// linear is the least-squares fit of y_i = Σ_k x_ik θ_k, a mean over the batch.
type linear[T backend.Float] struct {
	k    int
	x, y []float64 // [N, k], [N]
	// hook, if not nil, may spoil an evaluation; grad is nil for a loss alone.
	hook  func(theta []T, batch []int, loss *float64, grad []T) error
	calls int
}

// newLinear makes n samples of k features with the exact solution θ_k = k+1, plus
// noise.
func newLinear[T backend.Float](n, k int, noise float64) *linear[T] {
	l := &linear[T]{k: k}
	for i := range n {
		y := noise * math.Sin(float64(7*i+3))
		for j := range k {
			x := math.Cos(float64(3*i*j+i+j*j)) + 0.1*float64(j%3)
			l.x = append(l.x, x)
			y += x * float64(j+1)
		}
		l.y = append(l.y, y)
	}
	return l
}

func (l *linear[T]) NumParams() int  { return l.k }
func (l *linear[T]) NumSamples() int { return len(l.y) }

func (l *linear[T]) Loss(ctx context.Context, theta []T, batch []int) (float64, error) {
	return l.eval(theta, batch, nil)
}

func (l *linear[T]) Gradient(ctx context.Context, theta []T, batch []int, grad []T) (float64, error) {
	return l.eval(theta, batch, grad)
}

func (l *linear[T]) eval(theta []T, batch []int, grad []T) (float64, error) {
	l.calls++
	clear(grad)
	loss, scale := 0.0, 1/float64(len(batch))
	for _, i := range batch {
		x := l.x[i*l.k : (i+1)*l.k]
		r := -l.y[i]
		for j, v := range x {
			r += v * float64(theta[j])
		}
		loss += scale * r * r
		for j := range grad {
			grad[j] += T(2 * scale * r * x[j])
		}
	}
	if l.hook != nil {
		spoilt := loss
		err := l.hook(theta, batch, &spoilt, grad)
		return spoilt, err
	}
	return loss, nil
}

// near compares with a tolerance relative to the reference plus an absolute one.
func near(got, want, rtol, atol float64) bool {
	return math.Abs(got-want) <= atol+rtol*math.Abs(want)
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}

// torchData is testdata/torch.json, computed by PyTorch.
type torchData struct {
	Losses []struct {
		Kind, Reduction             string
		Pred, Target, Weights, Grad []float64
		Labels                      []int32
		Loss                        float64
	}
	Optimizers []struct {
		Kind          string
		Options       map[string]json.RawMessage
		Start         []float64
		Grads, Thetas [][]float64
	}
	Clipping []struct {
		Limit, Norm   float64
		Grad, Clipped []float64
	}
	Schedules []struct {
		Kind           string
		Period, Warmup int
		Gamma, Min     float64
		Factors        []float64
	}
}

func readTorch(t *testing.T) torchData {
	t.Helper()
	b, err := os.ReadFile("testdata/torch.json")
	if err != nil {
		t.Fatal(err)
	}
	var d torchData
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Losses) != 14 || len(d.Optimizers) != 15 || len(d.Clipping) != 3 || len(d.Schedules) != 4 {
		t.Fatalf("testdata/torch.json has %d, %d, %d, %d cases", len(d.Losses), len(d.Optimizers), len(d.Clipping), len(d.Schedules))
	}
	return d
}

func narrow[T backend.Float](x []float64) []T {
	if x == nil {
		return nil
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// kind finds an enumeration's value by its name.
func kind[E ~uint8](t *testing.T, names []string, name string) E {
	t.Helper()
	for i, n := range names {
		if n == name {
			return E(i)
		}
	}
	t.Fatalf("no kind is named %q", name)
	return 0
}
