package cpu

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// swirl is f = [θ0·z0·z1², sin(θ1·z0) + t·z1³] with all its products by hand.
func swirl[T backend.Float](theta []T) *field.Custom[T] {
	sincos := func(x T) (s, c T) {
		a, b := math.Sincos(float64(x))
		return T(a), T(b)
	}
	return &field.Custom[T]{
		N: 2, Theta: theta,
		F: func(t float64, z, th, dz []T) {
			s, _ := sincos(th[1] * z[0])
			dz[0], dz[1] = th[0]*z[0]*z[1]*z[1], s+T(t)*z[1]*z[1]*z[1]
		},
		BackF: func(t float64, z, th, a, az, ath []T) float64 {
			_, c := sincos(th[1] * z[0])
			az[0] = a[0]*th[0]*z[1]*z[1] + a[1]*th[1]*c
			az[1] = 2*a[0]*th[0]*z[0]*z[1] + 3*a[1]*T(t)*z[1]*z[1]
			if ath != nil {
				ath[0] += a[0] * z[0] * z[1] * z[1]
				ath[1] += a[1] * z[0] * c
			}
			return float64(a[1] * z[1] * z[1] * z[1])
		},
		SecondF: func(t float64, z, th, a, v, b, w, bz, bth []T) {
			s, c := sincos(th[1] * z[0])
			dc := -s * (w[1]*z[0] + th[1]*v[0])
			bz[0] = b[0]*th[0]*z[1]*z[1] + b[1]*th[1]*c + a[0]*(w[0]*z[1]*z[1]+2*th[0]*z[1]*v[1]) + a[1]*(w[1]*c+th[1]*dc)
			bz[1] = 2*b[0]*th[0]*z[0]*z[1] + 3*b[1]*T(t)*z[1]*z[1] + 2*a[0]*(w[0]*z[0]*z[1]+th[0]*(v[0]*z[1]+z[0]*v[1])) + 6*a[1]*T(t)*z[1]*v[1]
			if bth != nil {
				bth[0] += b[0]*z[0]*z[1]*z[1] + a[0]*(v[0]*z[1]*z[1]+2*z[0]*z[1]*v[1])
				bth[1] += b[1]*z[0]*c + a[1]*(v[0]*c+z[0]*dc)
			}
		},
	}
}

// secondCases are right-hand sides with second derivatives: MLPs of all activations,
// inputs and times, a Go function, and a sum with both.
func secondCases() map[string]backend.System[float64] {
	cases := map[string]backend.System[float64]{"func": swirl([]float64{0.7, -1.3})}
	for _, act := range mlp.Activations() {
		for _, in := range []mlp.Input{mlp.InputIdentity, mlp.InputCube} {
			s := mlp.Dense(act, 2, 9, 5, 2)
			s.Input, s.Time = in, mlp.TimeEveryLayer
			if act == mlp.Tanh && in == mlp.InputIdentity {
				s.Time = mlp.TimeNone
			}
			cases[fmt.Sprintf("%v/%v", act, in)] = must(mlp.New[float64](s, mlp.Init{}, 7))
		}
	}
	cases["sum"] = must(field.Plus(cases["func"], cases["gelu/identity"], cases["func"]))
	return cases
}

// operands of one VJPTangent over some rows, on the host.
type second64 struct{ z, v, a, b, w, theta []float64 }

func (r *rig[T]) vjpTangent(f backend.Field[T], x second64, rows int, withW bool, alpha, weight float64, timesH bool, g0 []float64) (bz, g []T) {
	vec := func(h []float64) backend.Vec[T] { return r.vec(rows, len(h)/rows, narrow[T](h)) }
	p := len(x.theta)
	r.Upload(f.Params(), narrow[T](x.theta))
	G, BZ := r.vec(1, p, narrow[T](g0)), vec(slices.Repeat([]float64{math.NaN()}, len(x.z)))
	o := backend.VJPTangent[T]{
		Z: vec(x.z), V: vec(x.v), A: vec(x.a), B: vec(x.b), BZ: BZ, Alpha: alpha, G: G, Weight: weight, TimesH: timesH,
	}
	if withW {
		o.W = r.vec(1, p, narrow[T](x.w))
	}
	f.(backend.SecondOrder[T]).VJPTangent(r.at(0.5), o)
	return r.read(BZ), r.read(G)
}

func narrow[T backend.Float](x []float64) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// Against five-point differences of VJP along the direction, good to about 1e-10 at a
// step of 2e-4 where f is smooth: truncation h⁴ and rounding ε/h. Where it has kinks a
// few rows have one within the five points.
func TestVJPTangent_MatchesFiniteDifference(t *testing.T) {
	for name, sys := range secondCases() {
		const rows = 70 // more than a tile
		r := newRig[float64](t, rows)
		f := r.bind(sys)
		p := f.NumParams()
		rng := rand.New(rand.NewPCG(3, 4))
		random := func(n int) []float64 {
			x := make([]float64, n)
			for i := range x {
				x[i] = 0.7 * rng.NormFloat64()
			}
			return x
		}
		x := second64{random(2 * rows), random(2 * rows), random(2 * rows), random(2 * rows), random(p), random(p)}
		for _, withW := range []bool{true, false} {
			g0 := random(p)
			bz, g := r.vjpTangent(f, x, rows, withW, -2, 3, true, g0)
			products := func(e float64) []float64 {
				move := func(x, d []float64) []float64 {
					y := slices.Clone(x)
					for i := range y {
						y[i] += e * d[i]
					}
					return y
				}
				theta := x.theta
				if withW {
					theta = move(x.theta, x.w)
				}
				r.Upload(f.Params(), theta)
				az, G := r.vec(rows, 2, x.z), r.vec(1, p, make([]float64, p))
				f.VJP(r.at(0.5), backend.VJP[float64]{Z: r.vec(rows, 2, move(x.z, x.v)), A: r.vec(rows, 2, move(x.a, x.b)), AZ: az, Alpha: -2, G: G, W: 3, TimesH: true})
				return append(r.read(az), r.read(G)...)
			}
			const h = 2e-4
			p1, m1, p2, m2 := products(h), products(-h), products(2*h), products(-2*h)
			got := slices.Concat(bz, g)
			for i := range g {
				got[len(bz)+i] -= g0[i]
			}
			scale := 0.0
			want := make([]float64, len(got))
			for i := range got {
				want[i] = (8*(p1[i]-m1[i]) - (p2[i] - m2[i])) / (12 * h)
				scale = max(scale, math.Abs(want[i]))
			}
			if strings.HasPrefix(name, "relu") || strings.HasPrefix(name, "leaky") || strings.HasPrefix(name, "elu") {
				// Nor is what is summed over rows compared.
				want, got = want[:len(bz)], got[:len(bz)]
			}
			bad := 0
			for i := range want {
				if d := math.Abs(got[i] - want[i]); !(d <= 1e-8*scale) {
					bad++
					if len(want) > len(bz) {
						t.Errorf("%s, w %v: component %d is %.12g, differences give %.12g of %.3g", name, withW, i, got[i], want[i], scale)
					}
				}
			}
			if len(want) == len(bz) && bad > rows/5 {
				t.Errorf("%s, w %v: %d of %d components do not agree", name, withW, bad, len(want))
			}
		}
	}
}

// The second derivative of aᵀf is symmetric in its directions, to rounding.
func TestVJPTangent_IsSymmetric(t *testing.T) {
	for name, sys := range secondCases() {
		const rows = 3
		r := newRig[float64](t, 1)
		f := r.bind(sys)
		p := f.NumParams()
		zero := make([]float64, 2*rows)
		x := second64{z: r.random(2 * rows), v: r.random(2 * rows), a: r.random(2 * rows), b: zero, w: r.random(p), theta: r.random(p)}
		y := x
		y.v, y.w = r.random(2*rows), r.random(p)
		one, size := 0.0, 0.0
		for i, pair := range [][2]second64{{x, y}, {y, x}} {
			bz, g := r.vjpTangent(f, pair[0], rows, true, 1, 1, false, make([]float64, p))
			sum := 0.0
			for j, v := range bz {
				sum += v * pair[1].v[j]
				size += math.Abs(v * pair[1].v[j])
			}
			for j, v := range g {
				sum += v * pair[1].w[j]
				size += math.Abs(v * pair[1].w[j])
			}
			if i == 0 {
				one = sum
			} else if math.Abs(sum-one) > 1e-13*size {
				t.Errorf("%s: %.15g one way and %.15g the other, of terms that add up to %g", name, one, sum, size)
			}
		}
	}
}

func TestVJPTangent_Float32MatchesFloat64(t *testing.T) {
	for _, act := range mlp.Activations() {
		m := must(mlp.New[float64](mlp.Dense(act, 2, 9, 2), mlp.Init{}, 7))
		const rows = 5
		d, s := newRig[float64](t, 1), newRig[float32](t, 1)
		fd, fs := d.bind(m), s.bind(mlp.Convert[float32](m))
		p := len(m.Theta)
		// Numbers that float32 has too.
		x := second64{wide(s.random(2 * rows)), wide(s.random(2 * rows)), wide(s.random(2 * rows)), wide(s.random(2 * rows)), wide(s.random(p)), wide(s.random(p))}
		bz, g := d.vjpTangent(fd, x, rows, true, 1, 1, false, make([]float64, p))
		bz32, g32 := s.vjpTangent(fs, x, rows, true, 1, 1, false, make([]float64, p))
		want, scale := slices.Concat(bz, g), 0.0
		for _, v := range want {
			scale = max(scale, math.Abs(v))
		}
		for i, v := range slices.Concat(bz32, g32) {
			// Some hundred operations.
			if math.Abs(float64(v)-want[i]) > 100*eps[float32]()*scale {
				t.Errorf("%v: component %d is %g in float32 and %g in float64", act, i, v, want[i])
			}
		}
	}
}

// Rows that are not selected keep what they hold, nil outputs are skipped, lanes count
// one evaluation, and the memory comes back.
func TestVJPTangent_RowsAndMemory(t *testing.T) {
	b := New[float64]()
	clk := must(b.NewClock(2))
	b.Start(clk, backend.Span{Stops: []float64{1}, H0: 1}, backend.Span{Stops: []float64{0}})
	at := backend.At{Clock: clk, Rows: backend.Running}
	f := must(b.Bind(must(mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 7))))
	vec := func(x ...float64) backend.Vec[float64] {
		v := must(b.NewVec(1, 2, 2))
		b.Upload(v, x)
		return v
	}
	z, bz := vec(1, 2, math.NaN(), 4), vec(7, 7, 7, 7)
	o := backend.VJPTangent[float64]{Z: z, V: z, A: z, B: z, BZ: bz, Alpha: 1}
	f.(backend.SecondOrder[float64]).VJPTangent(at, o)
	got := make([]float64, 4)
	if err := b.Download(got, bz); err != nil {
		t.Fatal(err)
	}
	if got[0] == 7 || got[0] != got[0] || got[2] != 7 || got[3] != 7 {
		t.Errorf("BZ is %v", got)
	}
	g := must(b.NewVec(1, 1, f.NumParams()))
	f.(backend.SecondOrder[float64]).VJPTangent(at, backend.VJPTangent[float64]{Z: z, V: z, A: z, B: z, G: g, Weight: 1})
	f.(backend.SecondOrder[float64]).VJPTangent(at, backend.VJPTangent[float64]{Z: z, V: z, A: z, B: z})
	lanes := make([]backend.Lane, 2)
	if err := b.Lanes(clk, lanes); err != nil {
		t.Fatal(err)
	}
	if lanes[0].Evaluations != 3 || lanes[1].Evaluations != 0 {
		t.Errorf("counted %d and %d", lanes[0].Evaluations, lanes[1].Evaluations)
	}
	for _, v := range []backend.Vec[float64]{z, bz, g} {
		b.Free(v)
	}
	f.Close()
	clk.Close()
	if n := b.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
}

func TestVJPTangent_Unsupported(t *testing.T) {
	for name, c := range map[string]struct {
		sys  backend.System[float64]
		want string
	}{
		"generic": {newRotor[float64](), "field.SecondOrderer"},
		"custom":  {&field.Custom[float64]{N: 2, F: func(float64, []float64, []float64, []float64) {}}, "Custom.SecondF"},
		"sum":     {must(field.Plus[float64](newRotor[float64](), swirl([]float64{1, 1}))), "field.SecondOrderer"},
	} {
		r := newRig[float64](t, 1)
		f := r.bind(c.sys)
		z := r.vec(1, 2, []float64{1, 2})
		f.(backend.SecondOrder[float64]).VJPTangent(r.at(0), backend.VJPTangent[float64]{Z: z, V: z, A: z, B: z, BZ: r.vec(1, 2, []float64{0, 0})})
		if err := r.Sync(); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
