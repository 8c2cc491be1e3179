package backendtest

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// perceptron computes f, aᵀ∂f/∂z, aᵀ∂f/∂θ, aᵀ∂f/∂t and (∂f/∂z)v + (∂f/∂θ)w of one
// sample with bounds. That its values are right is tested against mlp.Model's own.
type perceptron[T backend.Float] struct {
	arith
	spec  mlp.Spec
	theta []T
}

// pass is what a forward pass leaves.
type pass struct {
	x [][]num // input of each layer, with the time if it sees it; then f
	d [][]num // slope of each layer's activation
}

func (p *perceptron[T]) forward(t float64, z []T) pass {
	layers := p.spec.Layers()
	x := make([]num, len(z))
	for i, v := range z {
		x[i], _ = p.input(v)
	}
	var r pass
	for _, l := range layers {
		if l.HasTime {
			x = append(x, p.round(t))
		}
		y, d := make([]num, l.Out), make([]num, l.Out)
		for o := range y {
			var s sum
			s.add(exact(p.theta[l.B+o]))
			for i, v := range x {
				s.add(p.mul(exact(p.theta[l.W+o*l.In+i]), v))
			}
			y[o], d[o] = p.activate(l.Act, s.total(p.arith))
		}
		r.x, r.d = append(r.x, x), append(r.d, d)
		x = y
	}
	r.x = append(r.x, x)
	return r
}

// input is the input map of one component and its slope.
func (p *perceptron[T]) input(z T) (g, dg num) {
	x := exact(z)
	if p.spec.Input == mlp.InputCube {
		square := p.mul(x, x)
		return p.mul(square, x), p.mul(exact(3.), square)
	}
	return x, exact(1.)
}

func (p *perceptron[T]) eval(t float64, z []T) []num {
	x := p.forward(t, z).x
	return x[len(x)-1]
}

// vjp returns aᵀ∂f/∂z, aᵀ∂f/∂t and aᵀ∂f/∂θ.
func (p *perceptron[T]) vjp(t float64, z, a []T) (az []num, at num, atheta []num) {
	r := p.forward(t, z)
	atheta = make([]num, len(p.theta))
	g := make([]num, len(a))
	for i, v := range a {
		g[i] = exact(v)
	}
	var time sum
	layers := p.spec.Layers()
	for l := len(layers) - 1; l >= 0; l-- {
		y, x := layers[l], r.x[l]
		back := make([]sum, y.In)
		for o := range g {
			delta := p.mul(g[o], r.d[l][o])
			atheta[y.B+o] = delta
			for i := range back {
				atheta[y.W+o*y.In+i] = p.mul(delta, x[i])
				back[i].add(p.mul(exact(p.theta[y.W+o*y.In+i]), delta))
			}
		}
		g = make([]num, y.In)
		for i := range g {
			g[i] = back[i].total(p.arith)
		}
		if y.HasTime {
			time.add(g[y.In-1])
			g = g[:y.In-1]
		}
	}
	for i, v := range z {
		_, dg := p.input(v)
		g[i] = p.mul(g[i], dg)
	}
	return g, time.total(p.arith), atheta
}

// jvp returns (∂f/∂z)v + (∂f/∂θ)w; a nil w is zero.
func (p *perceptron[T]) jvp(t float64, z, v, w []T) []num {
	r := p.forward(t, z)
	dx := make([]num, len(z))
	for i := range z {
		_, dg := p.input(z[i])
		dx[i] = p.mul(dg, exact(v[i]))
	}
	for l, y := range p.spec.Layers() {
		out := make([]num, y.Out)
		for o := range out {
			var s sum
			for i := range dx {
				s.add(p.mul(exact(p.theta[y.W+o*y.In+i]), dx[i]))
			}
			if w != nil {
				s.add(exact(w[y.B+o]))
				for i, x := range r.x[l] {
					s.add(p.mul(exact(w[y.W+o*y.In+i]), x))
				}
			}
			out[o] = p.mul(s.total(p.arith), r.d[l][o])
		}
		dx = out
	}
	return dx
}
