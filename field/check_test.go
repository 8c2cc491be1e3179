package field

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// lotkaVolterra, over a Number and by hand. θ is 1.5, 1, 3, 1 in the literature.
func lotkaVolterra[T Number](_ T, z, theta, dz []T) {
	dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
	dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
}

func lotkaVolterraByHand[T backend.Float]() *Custom[T] {
	return &Custom[T]{
		N: 2, Theta: []T{1.5, 1, 3, 1},
		F: func(_ float64, z, theta, dz []T) {
			dz[0] = theta[0]*z[0] - theta[1]*z[0]*z[1]
			dz[1] = theta[3]*z[0]*z[1] - theta[2]*z[1]
		},
		BackF: func(_ float64, z, theta, a, az, atheta []T) float64 {
			az[0] = a[0]*(theta[0]-theta[1]*z[1]) + a[1]*theta[3]*z[1]
			az[1] = -a[0]*theta[1]*z[0] + a[1]*(theta[3]*z[0]-theta[2])
			if atheta != nil {
				atheta[0] += a[0] * z[0]
				atheta[1] -= a[0] * z[0] * z[1]
				atheta[2] -= a[1] * z[1]
				atheta[3] += a[1] * z[0] * z[1]
			}
			return 0
		},
		ForwardF: func(_ float64, z, theta, v, w, jv []T) {
			jv[0] = (theta[0]-theta[1]*z[1])*v[0] - theta[1]*z[0]*v[1] + z[0]*w[0] - z[0]*z[1]*w[1]
			jv[1] = theta[3]*z[1]*v[0] + (theta[3]*z[0]-theta[2])*v[1] - z[1]*w[2] + z[0]*z[1]*w[3]
		},
	}
}

func TestCheck_PassesWhatIsRight(t *testing.T) {
	t.Run("float32", func(t *testing.T) { passes[float32](t) })
	t.Run("float64", func(t *testing.T) { passes[float64](t) })
}

func passes[T backend.Float](t *testing.T) {
	each := func(name string, f Func[T], set CheckSettings[T]) {
		for seed := range uint64(20) {
			set.Seed = seed
			r, err := Check(f, set)
			if err != nil {
				t.Errorf("%s, seed %d: %v", name, seed, err)
				continue
			}
			d, p := f.Dim(), f.NumParams()
			if r.Points != 5 || r.VJP.Entries != 5*d*(d+p+1) || r.JVP.Entries != 5*d*(d+p) {
				t.Errorf("%s: %d points, %d and %d entries", name, r.Points, r.VJP.Entries, r.JVP.Entries)
			}
		}
	}
	each("by hand", lotkaVolterraByHand[T](), CheckSettings[T]{})
	for name, g := range generics[T]() {
		each(name, g.f, g.set)
	}
}

type example[T backend.Float] struct {
	f   Func[T]
	set CheckSettings[T]
}

// instance makes a Generic of f at T and at Dual.
func instance[T backend.Float](dim int, theta []T, f32 func(_ float32, z, theta, dz []float32), f64 func(_ float64, z, theta, dz []float64), dual func(_ Dual, z, theta, dz []Dual)) *Generic[T] {
	if f, ok := any(f32).(func(_ T, z, theta, dz []T)); ok {
		return New(dim, theta, f, dual)
	}
	return New(dim, theta, any(f64).(func(_ T, z, theta, dz []T)), dual)
}

// generics are right-hand sides whose differences are hard in different ways.
func generics[T backend.Float]() map[string]example[T] {
	positive := func(d int) CheckSettings[T] {
		return CheckSettings[T]{Low: slices.Repeat([]T{0.1}, d), High: slices.Repeat([]T{2}, d)}
	}
	return map[string]example[T]{
		"lotka-volterra": {f: instance(2, []T{1.5, 1, 3, 1}, lotkaVolterra[float32], lotkaVolterra[float64], lotkaVolterra[Dual])},
		"robertson": {
			f:   instance(3, []T{0.04, 3e7, 1e4}, robertson[float32], robertson[float64], robertson[Dual]),
			set: CheckSettings[T]{Low: []T{0, 0, 0}, High: []T{1, 1e-5, 1}},
		},
		"arrhenius": {f: instance(2, []T{1e3, 5, 300}, arrhenius[float32], arrhenius[float64], arrhenius[Dual]), set: positive(2)},
		"forced":    {f: instance(2, []T{20, 0.1, 0}, forced[float32], forced[float64], forced[Dual])},
		"offset":    {f: instance(1, []T{300}, offset[float32], offset[float64], offset[Dual])},
	}
}

func robertson[T Number](_ T, y, k, dy []T) {
	a, b, c := k[0]*y[0], k[1]*y[1]*y[1], k[2]*y[1]*y[2]
	dy[0], dy[1], dy[2] = c-a, a-b-c, b
}

// A reaction near the edge of its domain.
func arrhenius[T Number](_ T, z, k, dz []T) {
	rate := k[0] * Exp(-k[1]/z[1]) * Pow(z[0], Const[T](1.5))
	dz[0] = -rate
	dz[1] = rate*Log(z[1]) - Sqrt(z[1])/k[2]
}

// A fast oscillation in time, and a parameter that is 0.
func forced[T Number](t T, z, k, dz []T) {
	dz[0] = z[1] + k[2]*z[0]
	dz[1] = -Sin(z[0]) - k[1]*z[1] + Cos(k[0]*t)
}

// A small slope on a large value.
func offset[T Number](_ T, z, k, dz []T) { dz[0] = k[0] + z[0]/4 }

// The right Lotka-Volterra, broken in one way a case.
func TestCheck_FindsWhatIsWrong(t *testing.T) {
	t.Run("float32", func(t *testing.T) { finds[float32](t) })
	t.Run("float64", func(t *testing.T) { finds[float64](t) })
}

func finds[T backend.Float](t *testing.T) {
	type back = func(t float64, z, theta, a, az, atheta []T) float64
	type forward = func(t float64, z, theta, v, w, jv []T)
	nan := T(math.NaN())
	for _, c := range []struct {
		name    string
		back    func(right back) back
		forward func(right forward) forward
		f       func(t float64, z, theta, dz []T)
		want    []string // parts of the error
		more    bool     // other lines may be there
	}{
		{name: "sign in az", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				az[1] = a[0]*theta[1]*z[0] + a[1]*(theta[3]*z[0]-theta[2])
				return 0
			}
		}, want: []string{"VJP is wrong in 5 of 70 derivatives; worst: ∂f[0]/∂z[1] is "}},
		{name: "term missing in atheta", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				if atheta == nil {
					return right(t, z, theta, a, az, atheta)
				}
				kept := atheta[3]
				right(t, z, theta, a, az, atheta)
				atheta[3] = kept
				return 0
			}
		}, want: []string{"VJP is wrong in 5 of 70 derivatives; worst: ∂f[1]/∂θ[3] is 0, by differences"}},
		{name: "one part in a hundred", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				az[0] *= 1.01
				return 0
			}
		}, want: []string{"VJP is wrong in 10 of 70 derivatives; worst: ∂f["}},
		{name: "time", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				return right(t, z, theta, a, az, atheta) + float64(a[0])
			}
		}, want: []string{"VJP is wrong in 5 of 70 derivatives; worst: ∂f[0]/∂t is 1, by differences 0"}},
		{name: "overwrites", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				clear(atheta)
				return right(t, z, theta, a, az, atheta)
			}
		}, want: []string{"VJP overwrites atheta: add to what it holds"}},
		{name: "subtracts what it held", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				for i := range atheta {
					atheta[i] = -atheta[i]
				}
				return right(t, z, theta, a, az, atheta)
			}
		}, want: []string{"VJP does not add to atheta: atheta[0] held "}},
		{name: "adds to az", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				kept := slices.Clone(az)
				right(t, z, theta, a, az, atheta)
				az[0] += kept[0]
				return 0
			}
		}, want: []string{"VJP gives two results for the same arguments: az[0] = "}},
		{name: "needs atheta", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				atheta[0] += 0
				return right(t, z, theta, a, az, atheta)
			}
		}, want: []string{"VJP panics where atheta is nil: nil says that it is not wanted, skip it then (runtime error: index out of range"}},
		{name: "other az without atheta", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				if atheta == nil {
					clear(az)
				}
				return 0
			}
		}, want: []string{"VJP gives another result where atheta is nil: az[0] = "}},
		{name: "other at without atheta", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				if atheta == nil {
					return 1
				}
				return 0
			}
		}, want: []string{"VJP gives another result where atheta is nil: at = 0 and then 1"}},
		{name: "changes a", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				a[1] *= 2
				return 0
			}
		}, want: []string{"VJP changes its input a: copy what has to change"}},
		{name: "changes z and θ", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				z[1], theta[2] = nan, theta[2]+1
				return 0
			}
		}, want: []string{"VJP changes its input z: ", "VJP changes its input θ: "}},
		{name: "NaN", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				az[1] = nan
				return 0
			}
		}, want: []string{"VJP is wrong in 10 of 70 derivatives; worst: ∂f[0]/∂z[1] is NaN, by"}},
		{name: "infinite at", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				return math.Inf(-1)
			}
		}, want: []string{"VJP is wrong in 10 of 70 derivatives; worst: ∂f[0]/∂t is -Inf, by"}},
		{name: "not linear", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				b := []T{a[0] * a[0], a[1] * a[1]} // right for unit cotangents
				return right(t, z, theta, b, az, atheta)
			}
		}, want: []string{"VJP is not linear in a: for a = ["}},
		{name: "random", back: func(right back) back {
			r := rand.New(rand.NewPCG(1, 2))
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				right(t, z, theta, a, az, atheta)
				az[0] += T(0.01 * r.Float64())
				return 0
			}
		}, want: []string{"VJP gives two results for the same arguments: "}, more: true},

		{name: "JVP without w", forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) { right(t, z, theta, v, make([]T, 4), jv) }
		}, want: []string{"JVP is wrong in 20 of 60 derivatives; worst: ∂f["}},
		{name: "JVP adds", forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) {
				kept := jv[1]
				right(t, z, theta, v, w, jv)
				jv[1] += kept
			}
		}, want: []string{"JVP gives two results for the same arguments: jv[1] = "}},
		{name: "JVP changes v and w", forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) {
				right(t, z, theta, v, w, jv)
				v[0]++
				w[3]++
			}
		}, want: []string{"JVP changes its input v: ", "JVP changes its input w: "}},
		{name: "JVP not linear", forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) {
				right(t, z, theta, v, w, jv)
				jv[0] += v[0] * w[0] // right for unit tangents
			}
		}, want: []string{"JVP is not linear in v and w: for v = ["}},
		{name: "JVP NaN", forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) { right(t, z, theta, v, w, jv); jv[0] = nan }
		}, want: []string{"JVP is wrong in 30 of 60 derivatives; worst: ∂f[0]/∂z[0] is NaN, by"}},
		{name: "JVP of another function and VJP too", back: func(right back) back {
			return func(t float64, z, theta, a, az, atheta []T) float64 {
				return right(t, z, theta, []T{-a[0], -a[1]}, az, atheta)
			}
		}, forward: func(right forward) forward {
			return func(t float64, z, theta, v, w, jv []T) {
				right(t, z, theta, []T{-v[0], -v[1]}, []T{-w[0], -w[1], -w[2], -w[3]}, jv)
			}
		}, want: []string{"VJP is wrong in 40 of 70 derivatives", "JVP is wrong in 40 of 60 derivatives"}},

		{name: "Eval adds", f: func(_ float64, z, theta, dz []T) { dz[0] += z[0]; dz[1] = z[1] },
			want: []string{"Eval gives two results for the same arguments: dz[0] = "}},
		{name: "Eval forgets", f: func(_ float64, z, theta, dz []T) { dz[0] = z[0] },
			want: []string{"Eval gives two results for the same arguments: dz[1] = 0 and then NaN"}},
		{name: "Eval changes z", f: func(_ float64, z, theta, dz []T) { dz[0], dz[1] = z[0], z[1]; z[0] = 0 },
			want: []string{"Eval changes its input z: "}},
		{name: "Eval is NaN", f: func(_ float64, z, theta, dz []T) { dz[0], dz[1] = z[0], nan },
			want: []string{"f[1] is NaN at t = 0.", "give points where f is finite, by Points or by Low and High"}},
		{name: "Eval is NaN at some", f: func(_ float64, z, theta, dz []T) { dz[0], dz[1] = T(math.Log(float64(z[0]))), 0 },
			want: []string{"f[0] is NaN at t = 0."}},
	} {
		f := lotkaVolterraByHand[T]()
		if c.back != nil {
			f.BackF = c.back(f.BackF)
		}
		if c.forward != nil {
			f.ForwardF = c.forward(f.ForwardF)
		}
		if c.f != nil {
			f.F = c.f
		}
		r, err := Check(f, CheckSettings[T]{})
		if err == nil {
			t.Errorf("%s: not found", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "field: Check: ") {
				t.Errorf("%s: error\n%v\nwant\n%s", c.name, err, want)
			}
		}
		// One thing is broken, and no other is said to be.
		if n := strings.Count(err.Error(), "\n") + 1; n != len(c.want) && c.f == nil && !c.more {
			t.Errorf("%s: %d things are said to be wrong:\n%v", c.name, n, err)
		}
		if c.f == nil {
			for line := range strings.SplitSeq(strings.TrimPrefix(err.Error(), "field: Check: "), "\n") {
				if !strings.Contains(r.String(), line) {
					t.Errorf("%s: the report lacks %q:\n%v", c.name, line, r)
				}
			}
		}
		if theta := []T{1.5, 1, 3, 1}; !slices.Equal(f.Theta, theta) {
			t.Errorf("%s: Check changed θ to %v", c.name, f.Theta)
		}
	}
}

// The worst entry is the one with the largest error in units of what passes, and
// its numbers are right.
func TestCheck_NamesTheWorstEntry(t *testing.T) {
	f := lotkaVolterraByHand[float64]()
	right := f.BackF
	f.BackF = func(t float64, z, theta, a, az, atheta []float64) float64 {
		at := right(t, z, theta, a, az, atheta)
		az[0] += 1e-5 * a[0]
		if atheta != nil {
			atheta[2] += 1e-3 * a[1]
		}
		return at
	}
	p := Point[float64]{T: 3, Z: []float64{2, 0.5}, Theta: []float64{3, 2, 4, 8}}
	r, err := Check(f, CheckSettings[float64]{Points: []Point[float64]{p}})
	if err == nil || r.VJP.Wrong != 2 || r.JVP.Wrong != 0 || r.Points != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	e := r.VJP.Worst
	if e.I != 1 || e.Of != Param || e.J != 2 || e.Product != -0.5+1e-3 {
		t.Errorf("worst is %+v", e)
	}
	if math.Abs(e.Difference+0.5) > 1e-12 || math.Abs(e.Err()-1e-3) > 1e-12 || e.Uncertainty > 1e-12 || e.Tol > 0.51e-6 {
		t.Errorf("worst is %v", e)
	}
	if e.At.T != 3 || !slices.Equal(e.At.Z, p.Z) || !slices.Equal(e.At.Theta, p.Theta) {
		t.Errorf("worst is at %+v", e.At)
	}
	if want := "∂f[1]/∂θ[2] is -0.499, by differences -0.5 ± "; !strings.HasPrefix(e.String(), want) || !strings.HasSuffix(e.String(), "at t = 3, z = [2 0.5]") {
		t.Errorf("%v, want %s", e, want)
	}
}

// A rate of 0.04 beside others of 1e4 and 3e7 does not hide.
func TestCheck_SmallEntryBesideLargeOnes(t *testing.T) {
	g := New(3, []float64{0.04, 3e7, 1e4}, robertson[float64], robertson[Dual])
	f := &Custom[float64]{N: 3, Theta: g.Params(), F: g.Eval, BackF: func(t float64, z, theta, a, az, atheta []float64) float64 {
		at := g.VJP(t, z, theta, a, az, atheta)
		az[0] += 0.01 * theta[0] * a[0] // ∂f[0]/∂z[0] is -0.04
		return at
	}}
	r, err := Check(f, CheckSettings[float64]{Low: []float64{0, 0, 0}, High: []float64{1, 1e-5, 1}})
	if err == nil || r.VJP.Wrong != 5 || r.VJP.Worst.I != 0 || r.VJP.Worst.J != 0 || r.VJP.Worst.Of != State {
		t.Errorf("%v, %v", r, err)
	}
}

// Where no difference can be trusted, nothing is said to be right or wrong.
func TestCheck_Unclear(t *testing.T) {
	noise := func(x float64) float64 { return 1e-3 * rand.New(rand.NewPCG(math.Float64bits(x), 0)).Float64() }
	f := &Custom[float64]{N: 1,
		F:     func(_ float64, z, _, dz []float64) { dz[0] = z[0] + noise(z[0]) },
		BackF: func(_ float64, _, _, a, az, _ []float64) float64 { az[0] = a[0]; return 0 },
	}
	r, err := Check(f, CheckSettings[float64]{})
	if err == nil || r.VJP.Unclear == 0 || r.VJP.Wrong != 0 || r.JVP != nil ||
		!strings.Contains(err.Error(), "VJP cannot be judged in ") || !strings.Contains(err.Error(), "check at float64, or raise Tol") {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := Check(f, CheckSettings[float64]{Tol: 0.5}); err != nil {
		t.Errorf("with a large tolerance: %v", err)
	}
}

// Steps that leave the domain of f do not count against it; a domain that is a
// point does.
func TestCheck_EdgeOfDomain(t *testing.T) {
	sqrt := func(limit float64) *Custom[float64] {
		return &Custom[float64]{N: 1,
			F: func(_ float64, z, _, dz []float64) {
				dz[0] = math.Sqrt(z[0])
				if z[0] > limit {
					dz[0] = math.Inf(1)
				}
			},
			BackF: func(_ float64, z, _, a, az, _ []float64) float64 { az[0] = a[0] * 0.5 / math.Sqrt(z[0]); return 0 },
		}
	}
	set := CheckSettings[float64]{Points: []Point[float64]{{Z: []float64{1e-3}}}}
	if r, err := Check(sqrt(1), set); err != nil || r.VJP.Entries != 2 {
		t.Errorf("%v, %v", r, err)
	}
	r, err := Check(sqrt(1e-3), set)
	if err == nil || !strings.Contains(err.Error(), "f is not finite around t = 0, z = [0.001] in the direction of z[0]") {
		t.Errorf("%v, %v", r, err)
	}
	if got := r.String(); !strings.HasPrefix(got, "VJP was not compared\nf is not finite around") {
		t.Errorf("report %q", got)
	}
}

func TestCheck_TwoFunctionsGivenToNew(t *testing.T) {
	g := New(2, []float64{1, 1, 1, 1}, lotkaVolterra[float64], func(_ Dual, z, theta, dz []Dual) {
		dz[0], dz[1] = z[1], -z[0]
	})
	if _, err := Check(g, CheckSettings[float64]{}); err == nil {
		t.Error("not found")
	}
}

func TestVariable_String(t *testing.T) {
	if got := fmt.Sprint(State, Param, Time, Variable(9)); got != "z θ t Variable(9)" {
		t.Error(got)
	}
}
