package cpu

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/control"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// flowCases are right-hand sides under every trace, with and without the integrals
// that regularise.
func flowCases(t *testing.T, do func(r *rig[float64], name string, flow *field.Flow[float64], rows int)) {
	spec := mlp.Dense(mlp.Tanh, 3, 7, 6, 3)
	spec.Time = mlp.TimeEveryLayer
	net := must(mlp.New[float64](spec, mlp.Init{}, 5))
	pair := must(mlp.New[float64](mlp.Dense(mlp.Softplus, 2, 8, 2), mlp.Init{}, 6))
	go2 := swirl([]float64{0.7, -1.3})
	go2.ForwardF = func(t float64, z, th, v, w, jv []float64) {
		for i := range jv {
			e, az, g := []float64{0, 0}, []float64{0, 0}, []float64{0, 0}
			e[i] = 1
			go2.BackF(t, z, th, e, az, g)
			jv[i] = dot(az, v) + dot(g, w)
		}
	}
	for name, inner := range map[string]backend.System[float64]{
		"mlp": net, "func": go2, "sum": must(field.Plus[float64](go2, pair)),
	} {
		for _, trace := range []field.Trace{field.ExactTrace, field.Rademacher, field.Gaussian} {
			for _, extra := range []struct{ kinetic, jacobian bool }{{}, {true, false}, {false, true}, {true, true}} {
				const rows = 70 // more than a tile
				flow := must(field.NewFlow(inner, field.FlowSettings{Trace: trace, Kinetic: extra.kinetic, Jacobian: extra.jacobian, Seed: 3}))
				do(newRig[float64](t, rows), fmt.Sprintf("%s/%v/%v", name, trace, extra), flow, rows)
			}
		}
	}
}

// The columns of a Flow against the Jacobian that the JVPs or VJPs of f give, column by
// column.
func TestFlow_MatchesTheJacobian(t *testing.T) {
	flowCases(t, func(r *rig[float64], name string, flow *field.Flow[float64], rows int) {
		d, cols, set := flow.Inner().Dim(), flow.Dim(), flow.Settings()
		state := r.random(rows * cols)
		z := make([]float64, 0, rows*d)
		for i := range rows {
			z = append(z, row(state, i, cols)[:d]...)
		}
		out := r.vec(rows, cols, make([]float64, rows*cols))
		r.bind(flow).Eval(out, r.at(0.5), r.vec(rows, cols, state))
		got := r.read(out)

		inner, zs := r.bind(flow.Inner()), r.vec(rows, d, z)
		f0 := r.vec(rows, d, make([]float64, rows*d))
		inner.Eval(f0, r.at(0.5), zs)
		jac := make([][]float64, d) // row i of ∂f/∂z of all samples
		for i := range jac {
			a, az := make([]float64, rows*d), r.vec(rows, d, make([]float64, rows*d))
			for n := range rows {
				a[n*d+i] = 1
			}
			inner.VJP(r.at(0.5), backend.VJP[float64]{Z: zs, A: r.vec(rows, d, a), AZ: az, Alpha: 1})
			jac[i] = r.read(az)
		}
		f := r.read(f0)
		eps := make([]float64, d)
		for n := range rows {
			want := slices.Clone(row(f, n, d))
			trace, square := 0.0, 0.0
			for p := range flow.Probes() {
				flow.Probe(p, n, eps)
				for j := range d {
					q := 0.0
					for i := range d {
						q += eps[i] * jac[i][n*d+j]
					}
					trace += q * eps[j]
					square += q * q
				}
			}
			want = append(want, trace)
			if set.Kinetic {
				want = append(want, dot(want[:d], want[:d]))
			}
			if set.Jacobian {
				want = append(want, square)
			}
			for j, w := range want {
				if g := got[n*cols+j]; math.Abs(g-w) > 1e-12*(1+math.Abs(w)) {
					t.Fatalf("%s: sample %d, component %d: got %g, want %g", name, n, j, g, w)
				}
			}
		}
	})
}

// Products of a Flow against five-point differences of its Eval, as in
// TestVJPTangent_MatchesFiniteDifference.
func TestFlow_ProductsMatchFiniteDifference(t *testing.T) {
	flowCases(t, func(r *rig[float64], name string, flow *field.Flow[float64], rows int) {
		cols, p := flow.Dim(), flow.NumParams()
		f := r.bind(flow)
		samples := make([]int, rows)
		for i := range samples {
			samples[i] = 1000 - 3*i
		}
		f.(backend.Sampler).SetSamples(samples)
		theta, z, v, w, a := flow.Params(), r.random(rows*cols), r.random(rows*cols), r.random(p), r.random(rows*cols)
		vec := func(x []float64) backend.Vec[float64] { return r.vec(rows, cols, x) }
		eval := func(e float64, dz, dtheta []float64) []float64 {
			x, th := slices.Clone(z), slices.Clone(theta)
			addTo(x, e, dz)
			addTo(th, e, dtheta)
			r.Upload(f.Params(), th)
			out := vec(x)
			f.Eval(out, r.at(0.5), vec(x))
			return r.read(out)
		}
		const h = 2e-4
		p1, m1, p2, m2 := eval(h, v, w), eval(-h, v, w), eval(2*h, v, w), eval(-2*h, v, w)
		r.Upload(f.Params(), theta)
		jv, dz := vec(z), vec(z)
		f.JVP(r.at(0.5), backend.JVP[float64]{Z: vec(z), V: vec(v), W: r.vec(1, p, w), JV: jv, DZ: dz})
		tangent := r.read(jv)
		for i, got := range tangent {
			want := (8*(p1[i]-m1[i]) - (p2[i] - m2[i])) / (12 * h)
			if math.Abs(got-want) > 1e-8*(1+math.Abs(want)) {
				t.Fatalf("%s: JVP of component %d: got %g, want %g", name, i, got, want)
			}
		}
		// aᵀ(J(v, w)) = (aᵀJ)(v, w)
		az, g, dz2 := vec(z), r.vec(1, p, make([]float64, p)), vec(z)
		f.VJP(r.at(0.5), backend.VJP[float64]{Z: vec(z), A: vec(a), AZ: az, Alpha: -2, DZ: dz2, G: g, W: 1})
		left := dot(a, tangent)
		right := dot(r.read(az), v)/-2 + dot(r.read(g), w)
		if math.Abs(left-right) > 1e-11*float64(rows*cols) {
			t.Errorf("%s: VJP: aᵀJv is %.12g by JVP and %.12g by VJP", name, left, right)
		}
		if want := eval(0, v, w); !slices.Equal(r.read(dz), want) || !slices.Equal(r.read(dz2), want) {
			t.Errorf("%s: the products' f is not that of Eval", name)
		}
		f.Close()
	})
}

func TestFlow_WhatCannotBe(t *testing.T) {
	r := newRig[float64](t, 1)
	defer r.Close()
	signal := must(control.NewSignal(control.Linear, 1, control.Series[float64]{Times: []float64{0, 1}, Values: []float64{0, 1}}))
	forced := must(control.New[float64](r.model(mlp.Tanh, 3, 2), signal, control.Settings{}))
	if _, err := r.Bind(must(field.NewFlow[float64](forced, field.FlowSettings{}))); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("the Flow of a right-hand side that reads a signal: %v", err)
	}
	if _, err := r.Bind(must(field.NewFlow[float64](r.model(mlp.Tanh, 3, 2), field.FlowSettings{}))); err == nil {
		t.Error("the Flow of an MLP from 3 to 2 components was bound")
	}
	if _, err := field.NewFlow[float64](nil, field.FlowSettings{}); err == nil {
		t.Error("the Flow of nil was made")
	}
	if _, err := field.NewFlow[float64](r.model(mlp.Tanh, 2, 2), field.FlowSettings{Trace: 3}); err == nil {
		t.Error("an unknown Trace was accepted")
	}
	// A generic function has first derivatives, which the density needs, but no second.
	f := r.bind(must(field.NewFlow[float64](newRotor[float64](), field.FlowSettings{})))
	x := r.vec(1, 3, []float64{1, 2, 0})
	f.Eval(r.vec(1, 3, make([]float64, 3)), r.at(0), x)
	if err := r.Sync(); err != nil {
		t.Errorf("Eval: %v", err)
	}
	f.VJP(r.at(0), backend.VJP[float64]{Z: x, A: x})
	if err := r.Sync(); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("VJP without second derivatives: %v", err)
	}
}
