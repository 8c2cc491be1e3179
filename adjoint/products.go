package adjoint

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// products computes f and its products at the stages of attempts, in the memory of a loop
// whose solve is over.
type products[T backend.Float] struct {
	dev   backend.Backend[T]
	field backend.Field[T]
	loop  *step.Loop[T]

	a, az, at backend.Vec[T]
	theta     backend.Vec[T] // dL/dθ, nil without parameters
	slopes    *slopes[T]
	spans     []backend.Span
	x, m, tau []T // a, az and at on the host
}

func newProducts[T backend.Float](d *solver.Device[T], loop *step.Loop[T]) (p *products[T], err error) {
	n := loop.Rows * loop.Cols
	p = &products[T]{
		dev: d.Backend, field: d.Field, loop: loop, spans: make([]backend.Span, loop.Lanes),
		x: make([]T, n), m: make([]T, n), tau: make([]T, loop.Rows),
	}
	vec := func(rows, cols int) (v backend.Vec[T]) {
		if err == nil {
			v, err = p.dev.NewVec(1, rows, cols)
		}
		return v
	}
	p.a, p.az, p.at = vec(loop.Rows, loop.Cols), vec(loop.Rows, loop.Cols), vec(loop.Rows, 1)
	if n := p.field.NumParams(); n > 0 {
		p.theta = vec(1, n)
	}
	if err == nil {
		p.slopes, err = newSlopes(d, loop.Rows)
	}
	if err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

func (p *products[T]) free() {
	if p == nil {
		return
	}
	for _, v := range []backend.Vec[T]{p.a, p.az, p.at, p.theta} {
		p.dev.Free(v)
	}
	p.slopes.free()
}

// start puts the clock, the state and so many stages at steps of size h, in those of the
// loop's lanes for which of has an attempt.
func (p *products[T]) start(stages int, of func(i int) (a *attempt[T], span *backend.Span, h float64)) {
	loop := p.loop
	for i := range p.spans {
		p.spans[i] = backend.Span{Stops: []float64{0}} // done at once
		if a, s, h := of(i); a != nil {
			p.spans[i] = backend.Span{T0: a.t, Stops: []float64{a.stop}, Breaks: s.Breaks, H0: h}
		}
	}
	p.dev.Start(loop.Clock, p.spans...)
	upload := func(v backend.Vec[T], part func(a *attempt[T]) []T) {
		for i := range p.spans {
			if a, _, _ := of(i); a != nil {
				lo, _ := rowsOf(loop, i)
				copy(p.x[lo*loop.Cols:], part(a))
			}
		}
		p.dev.Upload(v, p.x)
	}
	upload(loop.Y.Of[0], func(a *attempt[T]) []T { return a.y })
	for j, v := range loop.StagesOf(0)[:stages] {
		upload(v, func(a *attempt[T]) []T { return a.k[j] })
	}
}

// started reports whether start found an attempt for lane i.
func (p *products[T]) started(i int) bool { return p.spans[i].H0 != 0 }

// vjp computes f's products with x: those by z and t are in m and tau then, those by θ
// are added to theta.
func (p *products[T]) vjp(at backend.At, z backend.Vec[T]) error {
	p.dev.Upload(p.a, p.x)
	p.field.VJP(at, backend.VJP[T]{Z: z, A: p.a, AZ: p.az, AT: p.at, Alpha: 1, G: p.theta, W: 1})
	if err := p.dev.Download(p.m, p.az); err != nil {
		return err
	}
	return p.dev.Download(p.tau, p.at)
}
