package field

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// products are both products of f at one point, in random directions.
type products[T backend.Float] struct {
	t                     float64
	z, theta, a, v, w     []T
	dz, az, atheta, jv    []T
	at                    float64
	adjoint, tangent, sum float64 // aᵀ(Jv), (aᵀJ)v, and the size of their terms
}

func compute[T backend.Float](f interface {
	VJPer[T]
	JVPer[T]
}, p *products[T]) {
	d, n := f.Dim(), f.NumParams()
	p.dz, p.az, p.atheta, p.jv = make([]T, d), make([]T, d), make([]T, n), make([]T, d)
	f.Eval(p.t, p.z, p.theta, p.dz)
	p.at = f.VJP(p.t, p.z, p.theta, p.a, p.az, p.atheta)
	f.JVP(p.t, p.z, p.theta, p.v, p.w, p.jv)
	p.adjoint, p.tangent, p.sum = 0, 0, 0
	for i := range d {
		p.adjoint += float64(p.a[i]) * float64(p.jv[i])
		p.tangent += float64(p.az[i]) * float64(p.v[i])
		p.sum += math.Abs(float64(p.a[i])*float64(p.jv[i])) + math.Abs(float64(p.az[i])*float64(p.v[i]))
	}
	for j := range n {
		p.tangent += float64(p.atheta[j]) * float64(p.w[j])
		p.sum += math.Abs(float64(p.atheta[j]) * float64(p.w[j]))
	}
}

func points[T backend.Float](t *testing.T, f Func[T], set CheckSettings[T], n int) []*products[T] {
	c := &checker[T]{f: f, rng: rand.New(rand.NewPCG(7, 7))}
	set.Random = n
	drawn, err := c.draw(&set)
	if err != nil {
		t.Fatal(err)
	}
	var list []*products[T]
	for _, q := range drawn {
		d := f.Dim()
		p := &products[T]{t: q.T, z: q.Z, theta: q.Theta, a: make([]T, d), v: make([]T, d), w: make([]T, f.NumParams())}
		c.random(p.a)
		c.random(p.v)
		c.random(p.w)
		list = append(list, p)
	}
	return list
}

// The products of New are those derived by hand, to the few roundings of each.
func TestGeneric_MatchesHandDerived(t *testing.T) {
	t.Run("float32", func(t *testing.T) {
		matchesByHand(t, New(2, []float32{1.5, 1, 3, 1}, lotkaVolterra[float32], lotkaVolterra[Dual]))
	})
	t.Run("float64", func(t *testing.T) {
		matchesByHand(t, New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual]))
	})
}

func matchesByHand[T backend.Float](t *testing.T, g *Generic[T]) {
	byHand := lotkaVolterraByHand[T]()
	for _, p := range points[T](t, g, CheckSettings[T]{}, 1000) {
		q := *p
		compute(g, p)
		compute(byHand, &q)
		// Terms are products of at most four numbers up to 2 (θ to 3.3), and at most
		// six are added.
		tol := 6 * 5 * 2 * 2 * 3.3 * eps[T]()
		for name, x := range map[string][2][]T{"dz": {p.dz, q.dz}, "az": {p.az, q.az}, "atheta": {p.atheta, q.atheta}, "jv": {p.jv, q.jv}} {
			for i := range x[0] {
				if !(math.Abs(float64(x[0][i])-float64(x[1][i])) <= tol) {
					t.Errorf("%s[%d] = %v, by hand %v", name, i, x[0][i], x[1][i])
				}
			}
		}
		if p.at != 0 {
			t.Errorf("at = %v for an autonomous f", p.at)
		}
	}
}

// aᵀ(Jv) = (aᵀJ)v, up to the rounding of what is added up.
func TestVJP_IsAdjointOfJVP(t *testing.T) {
	t.Run("float32", isAdjoint[float32])
	t.Run("float64", isAdjoint[float64])
}

func isAdjoint[T backend.Float](t *testing.T) {
	for name, g := range generics[T]() {
		for _, p := range points(t, g.f, g.set, 200) {
			compute(g.f.(*Generic[T]), p)
			// p.sum bounds the terms, and each output is rounded once.
			if !(math.Abs(p.adjoint-p.tangent) <= 16*eps[T]()*p.sum) {
				t.Errorf("%s: aᵀ(Jv) = %v, (aᵀJ)v = %v, terms %v", name, p.adjoint, p.tangent, p.sum)
			}
		}
	}
}

func TestGeneric_Accumulates(t *testing.T) {
	g := New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	p := points[float64](t, g, CheckSettings[float64]{}, 1)[0]
	compute(g, p)
	az, atheta := []float64{7, 7}, []float64{1, 1, 1, 1}
	g.VJP(p.t, p.z, p.theta, p.a, az, atheta)
	for j, v := range atheta {
		if v != 1+p.atheta[j] {
			t.Errorf("atheta[%d] = %v, want 1 + %v", j, v, p.atheta[j])
		}
	}
	if !slices.Equal(az, p.az) {
		t.Errorf("az = %v, want %v", az, p.az)
	}
	if at := g.VJP(p.t, p.z, p.theta, p.a, az, nil); at != p.at || !slices.Equal(az, p.az) {
		t.Errorf("without atheta: %v, %v", at, az)
	}
}

// NaN in an input comes out, and only where it belongs.
func TestGeneric_NaN(t *testing.T) {
	g := New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	az, atheta := make([]float64, 2), make([]float64, 4)
	g.VJP(0, []float64{math.NaN(), 1}, g.Params(), []float64{1, 1}, az, atheta)
	if !math.IsNaN(az[1]) || !math.IsNaN(atheta[0]) || !math.IsNaN(atheta[3]) {
		t.Errorf("az = %v, atheta = %v", az, atheta)
	}
	// The next call, with the same scratch, knows nothing of it.
	clear(atheta)
	g.VJP(0, []float64{1, 1}, g.Params(), []float64{1, 1}, az, atheta)
	if !finite(az...) || !finite(atheta...) {
		t.Errorf("az = %v, atheta = %v", az, atheta)
	}
}

// Many goroutines share one right-hand side; under the race detector this is a
// test of the scratch too.
func TestGeneric_Concurrent(t *testing.T) {
	g := New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	list := points[float64](t, g, CheckSettings[float64]{}, 64)
	for _, p := range list {
		compute(g, p)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				for _, p := range list {
					q := *p
					compute(g, &q)
					if !slices.Equal(p.dz, q.dz) || !slices.Equal(p.az, q.az) || !slices.Equal(p.atheta, q.atheta) || !slices.Equal(p.jv, q.jv) || p.at != q.at {
						t.Errorf("at %v: %+v alone and %+v together", p.z, p, q)
						return
					}
				}
			}
		})
	}
	group.Wait()
}

func TestGeneric_DoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	t.Run("float32", doesNotAllocate[float32])
	t.Run("float64", doesNotAllocate[float64])
}

func doesNotAllocate[T backend.Float](t *testing.T) {
	for name, e := range generics[T]() {
		g := e.f.(*Generic[T])
		p := points(t, e.f, e.set, 1)[0]
		compute(g, p)
		for method, f := range map[string]func(){
			"Eval": func() { g.Eval(p.t, p.z, p.theta, p.dz) },
			"VJP":  func() { p.at = g.VJP(p.t, p.z, p.theta, p.a, p.az, p.atheta) },
			"JVP":  func() { g.JVP(p.t, p.z, p.theta, p.v, p.w, p.jv) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s: %s allocates %v times", name, method, n)
			}
		}
	}
}

func TestGeneric_Panics(t *testing.T) {
	f, dual := lotkaVolterra[float64], lotkaVolterra[Dual]
	g := New(2, make([]float64, 4), f, dual)
	x1, x2, x3, x4, x5 := make([]float64, 1), make([]float64, 2), make([]float64, 3), make([]float64, 4), make([]float64, 5)
	for want, calls := range map[string][]func(){
		"field: New needs a dimension of at least 1": {func() { New(0, x4, f, dual) }},
		"field: New needs the function at both types": {
			func() { New(2, x4, nil, dual) }, func() { New(2, x4, f, nil) }},
		"field: Eval with slices of the wrong length": {
			func() { g.Eval(0, x1, x4, x2) }, func() { g.Eval(0, x2, x5, x2) }, func() { g.Eval(0, x2, x4, x3) }},
		"field: VJP with slices of the wrong length": {
			func() { g.VJP(0, x3, x4, x2, x2, x4) }, func() { g.VJP(0, x2, x3, x2, x2, x4) },
			func() { g.VJP(0, x2, x4, x1, x2, x4) }, func() { g.VJP(0, x2, x4, x2, x3, x4) },
			func() { g.VJP(0, x2, x4, x2, x2, x5) }},
		"field: JVP with slices of the wrong length": {
			func() { g.JVP(0, x3, x4, x2, x4, x2) }, func() { g.JVP(0, x2, x3, x2, x4, x2) },
			func() { g.JVP(0, x2, x4, x1, x4, x2) }, func() { g.JVP(0, x2, x4, x2, nil, x2) },
			func() { g.JVP(0, x2, x4, x2, x4, x1) }},
	} {
		for i, call := range calls {
			func() {
				defer func() {
					if r := recover(); r != want {
						t.Errorf("call %d recovered %v, want %q", i, r, want)
					}
				}()
				call()
			}()
		}
	}
}

func BenchmarkGeneric(b *testing.B) {
	g := New(2, []float64{1.5, 1, 3, 1}, lotkaVolterra[float64], lotkaVolterra[Dual])
	byHand := lotkaVolterraByHand[float64]()
	z, a, az, atheta := []float64{1, 2}, []float64{3, 4}, make([]float64, 2), make([]float64, 4)
	b.Run("Eval/f64/D=2/P=4", func(b *testing.B) {
		for b.Loop() {
			g.Eval(0, z, g.theta, az)
		}
	})
	b.Run("VJP/f64/D=2/P=4", func(b *testing.B) {
		for b.Loop() {
			clear(atheta)
			g.VJP(0, z, g.theta, a, az, atheta)
		}
	})
	b.Run("VJPByHand/f64/D=2/P=4", func(b *testing.B) {
		for b.Loop() {
			clear(atheta)
			byHand.VJP(0, z, g.theta, a, az, atheta)
		}
	})
	b.Run("JVP/f64/D=2/P=4", func(b *testing.B) {
		for b.Loop() {
			g.JVP(0, z, g.theta, a, g.theta, az)
		}
	})
}
