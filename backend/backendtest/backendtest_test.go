package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
)

// onlooker takes the place of a testing.T and keeps what was said.
type onlooker struct {
	messages []string
	skipped  bool
}

func (o *onlooker) Helper() {}
func (o *onlooker) Errorf(format string, args ...any) {
	o.messages = append(o.messages, fmt.Sprintf(format, args...))
}
func (o *onlooker) Skipf(string, ...any) {
	o.skipped = true
	runtime.Goexit()
}
func (o *onlooker) FailNow() { runtime.Goexit() }

// complaints runs the cases whose names begin with prefix on backends that open
// makes, and returns what the suite said about them.
func complaints[T backend.Float](prefix string, open func() backend.Backend[T]) []string {
	all, _ := observe(prefix, open)
	return all
}

// observe is complaints, with the names of the cases that were skipped.
func observe[T backend.Float](prefix string, open func() backend.Backend[T]) (all, skipped []string) {
	for _, c := range cases[T]() {
		if !strings.HasPrefix(c.name, prefix) {
			continue
		}
		var o onlooker
		done := make(chan struct{})
		go func() { // FailNow and a panic end it
			defer close(done)
			defer func() {
				if p := recover(); p != nil {
					o.Errorf("panic: %v", p)
				}
			}()
			c.check(&o, open(), open)
		}()
		<-done
		all = append(all, o.messages...)
		if o.skipped {
			skipped = append(skipped, c.name)
		}
	}
	return all, skipped
}

func TestSuite_AcceptsCPU(t *testing.T) {
	messages, skipped := observe("", func() backend.Backend[float64] { return cpu.New[float64]() })
	for _, m := range messages {
		t.Error(m)
	}
	if len(skipped) > 0 {
		t.Errorf("skipped %v", skipped)
	}
}

// plain is a backend without capabilities.
type plain[T backend.Float] struct{ backend.Backend[T] }

func TestSuite_SkipsWhatABackendHasNot(t *testing.T) {
	messages, skipped := observe("", func() backend.Backend[float32] { return plain[float32]{cpu.New[float32]()} })
	for _, m := range messages {
		t.Error(m)
	}
	var want []string
	for _, c := range cases[float32]() {
		verb, rest, _ := strings.Cut(c.name, "/")
		switch verb {
		case "Sum", "Reset", "Reserve", "Rewind", "Back", "SaveVJP", "Interpolate", "CopyClock", "Cut", "Gather", "Loss", "Update":
			want = append(want, c.name)
		case "panics":
			if rest == "reverser" || rest == "cutter" || rest == "learner" {
				want = append(want, c.name)
			}
		}
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
}

func TestSuite_CatchesDefects(t *testing.T) {
	t.Run("float32", catchesDefects[float32])
	t.Run("float64", catchesDefects[float64])
}

func catchesDefects[T backend.Float](t *testing.T) {
	for _, d := range defects[T]() {
		t.Run(d.name, func(t *testing.T) {
			got := complaints(d.cases, func() backend.Backend[T] {
				h := &broken[T]{Backend: cpu.New[T]()}
				d.plant(h)
				return h
			})
			if len(got) == 0 {
				t.Fatalf("the cases %q do not notice", d.cases)
			}
			for _, m := range got {
				if strings.Contains(m, d.says) && !strings.HasPrefix(m, "panic") {
					return
				}
			}
			t.Errorf("no message contains %q; the first: %s", d.says, got[0])
		})
	}
}

// recorder keeps verbs as a closure, the cheap way to be a backend.Recorder.
type recorder[T backend.Float] struct {
	*cpu.Backend[T]
	replays int // that a recording is good for; 0: any number
}

type replay struct {
	enqueue func()
	left    int
}

func (r recorder[T]) Record(enqueue func()) (backend.Recording, error) {
	return &replay{enqueue, r.replays}, nil
}

func (r *replay) Replay(times int) bool {
	for range times {
		if r.left != 1 {
			r.enqueue()
		}
		if r.left > 1 {
			r.left--
		}
	}
	return true
}

func (r *replay) Close() {}

func TestSuite_Recorder(t *testing.T) {
	with := func(replays int) []string {
		return complaints("solve/recorded", func() backend.Backend[float64] { return recorder[float64]{cpu.New[float64](), replays} })
	}
	for _, m := range with(0) {
		t.Error(m)
	}
	if len(with(5)) == 0 {
		t.Error("a recording that stops working is not noticed")
	}
}

func TestNumber_SumIsWithinItsBound(t *testing.T) {
	// Sums of float32 products in both orders, against float64.
	rng := rand.New(rand.NewPCG(1, 2))
	a := arith{unit[float32]()}
	worst := 0.0
	for n := 1; n < 300; n++ {
		x, y := make([]float32, n), make([]float32, n)
		var want sum
		for i := range x {
			x[i], y[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
			want.add(a.mul(exact(x[i]), exact(y[i])))
		}
		var up, down float32
		for i := range x {
			up += x[i] * y[i]
			down += x[n-1-i] * y[n-1-i]
		}
		total := want.total(a)
		for _, got := range []float32{up, down} {
			if !near(got, total) {
				t.Fatalf("a sum of %d products is %g, want %g ± %g", n, got, total.v, total.e)
			}
			worst = max(worst, math.Abs(float64(got)-total.v)/total.e)
		}
	}
	if worst < 0.01 {
		t.Errorf("the bound is more than 100 times too wide: worst error is %g of it", worst)
	}
}

func TestPerceptron_MatchesModel(t *testing.T) {
	s := &suite[float64]{reporter: t, arith: arith{unit[float64]()}, rng: rand.New(rand.NewPCG(1, 2))}
	for _, n := range nets() {
		m := s.model(n.spec)
		p := perceptron[float64]{s.arith, m.Spec, m.Theta}
		d, time := m.Dim(), 0.37
		z, a, v, w := s.random(d), s.random(d), s.random(d), s.random(m.NumParams())
		compare := func(what string, got []num, want []float64) {
			t.Helper()
			for i := range want {
				if !near(want[i], got[i]) {
					t.Errorf("%v: %s[%d] is %g ± %g, and %g by mlp.Model", n, what, i, got[i].v, got[i].e, want[i])
				}
				if got[i].e > 1e-9*(1+math.Abs(got[i].v)) {
					t.Errorf("%v: %s[%d] = %g has a bound of %g", n, what, i, got[i].v, got[i].e)
				}
			}
		}
		dz, az, atheta, jv := make([]float64, d), make([]float64, d), make([]float64, len(w)), make([]float64, d)
		m.Eval(time, z, dz)
		at := m.VJP(time, z, a, az, atheta)
		m.JVP(time, z, v, w, jv)
		gotAZ, gotAT, gotTheta := p.vjp(time, z, a)
		compare("f", p.eval(time, z), dz)
		compare("aᵀ∂f/∂z", gotAZ, az)
		compare("aᵀ∂f/∂t", []num{gotAT}, []float64{at})
		compare("aᵀ∂f/∂θ", gotTheta, atheta)
		compare("(∂f/∂z)v + (∂f/∂θ)w", p.jvp(time, z, v, w), jv)
	}
}

// defect is something a backend may get wrong.
type defect[T backend.Float] struct {
	name  string
	cases string // prefix of the cases that must notice
	says  string // in one of their messages
	plant func(h *broken[T])
}
