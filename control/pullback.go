package control

import "github.com/seed-5f5774c8/neuralode/backend"

// Pullback takes cotangents of u and u' back to the values at the knots, for a
// backend or whoever else differentiates a signal. It must not be used from several
// goroutines at once.
type Pullback[T backend.Float] struct {
	s *Signal[T]
	// Cotangents of a natural spline's slopes, which reach all values of their
	// series: they are kept until Flush. touched has the series that have any.
	slopes  []float64
	touched []bool
}

// Pullback makes one of s, which is read, not changed; the values do not matter.
func (s *Signal[T]) Pullback() *Pullback[T] {
	p := &Pullback[T]{s: s, touched: make([]bool, len(s.series))}
	if s.kind == NaturalCubic {
		p.slopes = make([]float64, len(s.values))
	}
	return p
}

// Bytes is the memory that p holds.
func (p *Pullback[T]) Bytes() int64 { return int64(len(p.slopes))*8 + int64(len(p.touched)) }

// Add adds w·(duᵀ∂u/∂v + ddᵀ∂u'/∂v) to g, [NumValues], for cotangents du of u(t) and
// dd of u'(t), of length C; nil is zero. Part of it may come with the next Flush only.
// It does nothing where At returns an error.
func (p *Pullback[T]) Add(g []T, sample int, t float64, w T, du, dd []T) {
	s := p.s
	at, err := s.locate(sample, t)
	if err != nil {
		return
	}
	b0, b1 := s.kind.basis(0, at.h, at.x), s.kind.basis(1, at.h, at.x)
	for c := range s.channels {
		var d0, d1 float64
		if du != nil {
			d0 = float64(w) * float64(du[c])
		}
		if dd != nil {
			d1 = float64(w) * float64(dd[c])
		}
		g[at.v0+c] += T(d0*b0.v0 + d1*b1.v0)
		g[at.v1+c] += T(d0*b0.v1 + d1*b1.v1)
		if s.slopes != nil {
			p.addSlope(g, at, 0, c, d0*b0.m0+d1*b1.m0)
			p.addSlope(g, at, 1, c, d0*b0.m1+d1*b1.m1)
		}
	}
}

// addSlope adds the cotangent d of the slope at knot at.i + side.
func (p *Pullback[T]) addSlope(g []T, at place, side, c int, d float64) {
	j := at.v0 + side*p.s.channels + c
	if p.slopes != nil {
		p.slopes[j] += d
		p.touched[at.series] = true
		return
	}
	i := at.i + side // a Hermite slope is that of the interval before the knot
	if i == 0 {
		i, j = 1, j+p.s.channels
	}
	d /= p.s.series[at.series].step(i - 1)
	g[j] += T(d)
	g[j-p.s.channels] -= T(d)
}

// Flush adds to g what Add has kept.
func (p *Pullback[T]) Flush(g []T) {
	for i, touched := range p.touched {
		if !touched {
			continue
		}
		p.touched[i] = false
		lo, hi := p.s.span(i)
		r, g, k, c := p.slopes[lo:hi], g[lo:hi], p.s.series[i].knots, p.s.channels
		k.solve(r, c) // A is symmetric
		for i := range len(k.times) - 1 {
			h := k.step(i)
			for j := i * c; j < (i+1)*c; j++ {
				d := T(3 * (r[j] + r[j+c]) / (h * h))
				g[j+c] += d
				g[j] -= d
			}
		}
		clear(r)
	}
}
