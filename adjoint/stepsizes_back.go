package adjoint

import (
	"context"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/internal/stepsize"
)

// backwards goes back over the attempts of a trace. In the notation of [discrete], an
// attempt from (t, y) with the wanted size w is
//
//	h = w, or what is left to a stop,     k_i = f(t + c_i·h, Y_i),   y' = y + h·Σ b_i·k_i,
//	r = the ratio of (h, y, y', k),       w' = the controller's proposal from (h, r, w),
//
// and the next begins at (t + h, y') with w', or if r > 1 at (t, y). With a bar for the
// derivative of L, and m_i = k̄_iᵀ ∂f/∂z, τ_i = k̄_iᵀ ∂f/∂t at stage i, the stages give
//
//	ȳ += Σ m_i,   t̄ += Σ τ_i,   h̄ += Σ_i (c_i·τ_i + Σ_j a_ij·m_iᵀk_j),   k̄_j += h·a_ij·m_i.
type backwards[T backend.Float] struct {
	*products[T]
	lanes []pulled[T]
	cot   func(i, b int) []T // cotangent of sample b at its time i
	times bool               // dL/dt is wanted
	evals []int64            // of each lane
}

// pulled is a lane, with the derivatives of L going backwards.
type pulled[T backend.Float] struct {
	*traced[T]
	lo, hi  int       // rows
	times   []float64 // by output time, t0 first
	y       []float64
	t, want float64
	ratios  [2]float64 // those of history
	// Of the attempt at hand:
	a  *attempt[T]
	h  float64
	y1 []float64
	k  [][]float64
	in bool // f's products at its stages are wanted
}

func newBackwards[T backend.Float](s *stepSizes[T], skip []bool, cot func(i, b int) []T) *backwards[T] {
	loop := s.rec.loop
	r := &backwards[T]{products: s.mem, cot: cot, times: s.times, lanes: make([]pulled[T], loop.Lanes), evals: make([]int64, loop.Lanes)}
	for i := range r.lanes {
		p := &r.lanes[i]
		p.lo, p.hi = rowsOf(loop, i)
		n := (p.hi - p.lo) * loop.Cols
		p.traced, p.y, p.y1 = &s.trace.lanes[i], make([]float64, n), make([]float64, n)
		p.times = make([]float64, len(p.span.Saves)+1)
		for range loop.K {
			p.k = append(p.k, make([]float64, n))
		}
		if skip != nil && skip[i] {
			p.traced = &traced[T]{span: p.span}
		}
	}
	return r
}

// run goes back to the beginning, where lanes then are.
func (r *backwards[T]) run(ctx context.Context) error {
	if r.theta != nil {
		r.dev.Zero(r.theta)
	}
	n := 0
	for i := range r.lanes {
		n = max(n, len(r.lanes[i].attempts))
	}
	for n--; n >= 0; n-- {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for i := range r.lanes {
			r.lanes[i].begin(n, r.loop)
		}
		if err := r.outputs(); err != nil {
			return err
		}
		if err := r.stages(); err != nil {
			return err
		}
		for i := range r.lanes {
			if p := &r.lanes[i]; p.a != nil {
				p.aimed(&p.a.Step, p.h, p.a.stop)
			}
		}
	}
	if err := r.firstStep(); err != nil {
		return err
	}
	for i := range r.lanes {
		r.lanes[i].times[0] += r.lanes[i].t
	}
	return nil
}

// begin takes the decision about attempt n back.
func (p *pulled[T]) begin(n int, loop *step.Loop[T]) {
	p.a, p.in = nil, false
	if n >= len(p.attempts) {
		return
	}
	p.a = &p.attempts[n]
	a, by, w, old := p.a, &p.a.next, p.want, p.ratios
	clear(p.y1)
	for _, k := range p.k {
		clear(k)
	}
	p.want = by.ByWant * w
	p.h = math.Copysign(by.ByH, a.H) * w
	ratio := by.ByRatio * w
	if a.accepted {
		p.in = true
		p.y, p.y1 = p.y1, p.y
		p.h += p.t
		if !a.cut() {
			_, slope := stepsize.Remembered(a.ratio)
			ratio += slope * old[0]
			p.ratios = [2]float64{old[1], 0}
		}
		for i, v := range by.ByHistory {
			p.ratios[i] += v * w
		}
	}
	if ratio != 0 {
		p.in = true
		e := a.estimate(loop, p.tol)
		p.h += e.VJP(ratio, p.y, p.y1, p.k)
	}
}

// aimed takes the aiming of a step back, of whose h the derivative is given.
func (p *pulled[T]) aimed(s *stepsize.Step, h, stop float64) {
	t, want, atStop := s.VJP(h, p.want)
	p.t, p.want = p.t+t, want
	if stop == p.last() && p.times != nil {
		p.times[len(p.times)-1] += atStop
	}
}

// outputs takes the outputs in the attempts back.
func (r *backwards[T]) outputs() error {
	atEnd := false
	weights, slopes := make([]float64, len(r.loop.Tableau.Dense.P)), make([]float64, len(r.loop.Tableau.Dense.P))
	for i := range r.lanes {
		p := &r.lanes[i]
		if p.a == nil || !p.a.accepted {
			continue
		}
		a := p.a
		for j := a.saveFrom; j < a.save; j++ {
			c, some := r.cotangent(p, j+1)
			t := p.span.Saves[j]
			switch {
			case !some:
			case t == a.end:
				axpy(p.y1, 1, c)
				if t != p.last() && (r.times || !a.Landing) {
					r.slope(p, t)
					atEnd = true
				}
			default:
				// y + h·Σ b_s(x)·k_s at x = (t_j-t)/h.
				x := (t - a.t) / a.H
				r.loop.Tableau.Weights(weights, x)
				interpolantSlopes(slopes, r.loop.Tableau.Dense.P, x)
				axpy(p.y, 1, c)
				var value, slope float64
				for s, w := range weights {
					along := dotWith(c, a.k[s])
					value += w * along
					slope += slopes[s] * along
					axpy(p.k[s], a.H*w, c)
				}
				p.h += value - x*slope
				p.t -= slope
				p.times[j+1] += slope
			}
		}
	}
	if !atEnd {
		return nil
	}
	// An output at the end of a step moves along with a stop that the step ends on. Any
	// other stays where it is, on one of the two interpolants that meet there, whose
	// slope is f's. So is what its own move makes of it.
	f, err := r.slopes.eval()
	if err != nil {
		return err
	}
	for i := range r.lanes {
		p := &r.lanes[i]
		if p.a == nil || !p.a.accepted || p.a.save == p.a.saveFrom {
			continue
		}
		j := p.a.save
		c, some := r.cotangent(p, j)
		if t := p.span.Saves[j-1]; !some || t != p.a.end || t == p.last() {
			continue
		}
		slope := dotWith(c, f[p.lo*r.loop.Cols:p.hi*r.loop.Cols])
		p.times[j] += slope
		if !p.a.Landing {
			p.h -= slope
			p.t -= slope
		}
	}
	return nil
}

// slope asks for f at the end of a lane's attempt.
func (r *backwards[T]) slope(p *pulled[T], t float64) {
	dim := r.loop.Cols
	for b := p.lo; b < p.hi; b++ {
		r.slopes.set(b, t, p.a.y1[(b-p.lo)*dim:][:dim])
	}
}

// cotangent is that of a lane's output i, and whether any of it is not zero.
func (r *backwards[T]) cotangent(p *pulled[T], i int) (c []float64, some bool) {
	for b := p.lo; b < p.hi; b++ {
		for _, v := range r.cot(i, b) {
			c = append(c, float64(v))
			some = some || v != 0
		}
	}
	return c, some
}

// interpolantSlopes sets dst[j] = b_j'(x).
func interpolantSlopes(dst []float64, poly [][]float64, x float64) {
	for j, p := range poly {
		dst[j] = 0
		for m := len(p) - 1; m >= 0; m-- {
			dst[j] = dst[j]*x + float64(m+1)*p[m]
		}
	}
}

// stages takes the state at the end and the stages of the attempts back.
func (r *backwards[T]) stages() error {
	tab := r.loop.Tableau
	some, extra := false, false
	for i := range r.lanes {
		p := &r.lanes[i]
		if p.a == nil || !p.in {
			continue
		}
		some = true
		extra = extra || p.a.inside && len(p.a.k) > tab.Stages()
		axpy(p.y, 1, p.y1)
		for j, b := range tab.B {
			if b != 0 {
				axpy(p.k[j], p.a.H*b, p.y1)
				p.h += b * dotWith(p.y1, p.a.k[j])
			}
		}
	}
	if extra {
		// Lanes without an output inside have not evaluated these stages.
		r.start(len(r.loop.K), func(p *pulled[T]) bool { return p.a != nil && p.a.inside })
		for j := len(r.loop.K) - 1; j >= tab.Stages(); j-- {
			if err := r.stage(j, tab.Dense.ExtraC[j-tab.Stages()], tab.Dense.ExtraA[j-tab.Stages()]); err != nil {
				return err
			}
		}
	}
	if !some {
		return nil
	}
	r.start(tab.Stages(), func(p *pulled[T]) bool { return p.a != nil && p.in })
	for j := tab.Stages() - 1; j >= 0; j-- {
		if err := r.stage(j, tab.C[j], tab.A[j]); err != nil {
			return err
		}
	}
	return nil
}

// start puts the clock, the state and the stages at the attempts of the lanes that want
// it.
func (r *backwards[T]) start(stages int, want func(*pulled[T]) bool) {
	r.products.start(stages, func(i int) (*attempt[T], *backend.Span, float64) {
		p := &r.lanes[i]
		if !want(p) {
			return nil, nil, 0
		}
		return p.a, &p.span, p.a.H
	})
}

// stage takes stage j back.
func (r *backwards[T]) stage(j int, c float64, row []float64) error {
	at := backend.At{Clock: r.loop.Clock, C: c, Rows: backend.Running}
	z := r.loop.Y.Of[0]
	if j > 0 {
		z = r.loop.Trial.Of[0]
		r.dev.Combine(z, r.loop.Y.Of[0], at, row, r.loop.StagesOf(0))
	}
	return r.pull(at, z, func(p *pulled[T]) []float64 { return p.k[j] }, func(p *pulled[T], m []T, tau float64) {
		p.t += tau
		p.h += c * tau
		axpyOf(p.y, 1, m)
		for i, a := range row {
			if a != 0 {
				axpyOf(p.k[i], p.a.H*a, m)
				p.h += a * dot(m, p.a.k[i])
			}
		}
	})
}

// pull computes f's products with a cotangent k of each lane that was started, and
// hands them to add.
func (r *backwards[T]) pull(at backend.At, z backend.Vec[T], k func(*pulled[T]) []float64, add func(p *pulled[T], m []T, tau float64)) error {
	dim := r.loop.Cols
	for i := range r.lanes {
		if p := &r.lanes[i]; r.started(i) {
			for e, v := range k(p) {
				r.x[p.lo*dim+e] = T(v)
			}
			r.evals[i]++
		}
	}
	if err := r.vjp(at, z); err != nil {
		return err
	}
	for i := range r.lanes {
		if p := &r.lanes[i]; r.started(i) {
			tau := 0.0
			for _, v := range r.tau[p.lo:p.hi] {
				tau += float64(v)
			}
			add(p, r.m[p.lo*dim:p.hi*dim], tau)
		}
	}
	return nil
}

// proposed is a first step that the device chose.
type proposed struct {
	f0, diff         []float64 // f0, and f1-f0
	d0, d1, d2       float64
	trial, first     stepsize.Size
	aimed            stepsize.Step // of the trial step
	length           float64
	byF0, byF1       []float64
	byD1, byLen, byH float64
}

// firstStep takes the choice of the first step back; see [backend.Backend.ProposeStep].
func (r *backwards[T]) firstStep() error {
	loop, dim := r.loop, r.loop.Cols
	steps := make([]proposed, len(r.lanes))
	some := false
	for i := range r.lanes {
		p, s := &r.lanes[i], &steps[i]
		p.a = nil
		if len(p.attempts) == 0 || p.span.H0 != 0 || p.want == 0 {
			continue
		}
		some = true
		p.a = &p.attempts[0]
		n := len(p.y)
		s.f0, s.diff, s.byF0, s.byF1 = make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
		y := make([]float64, n)
		for e, v := range p.a.k[0] {
			s.f0[e], y[e] = float64(v), float64(p.a.y[e])
		}
		s.d0, s.d1 = stepsize.Norm(p.tol, y, p.a.y), stepsize.Norm(p.tol, s.f0, p.a.y)
		s.length = math.Abs(p.last() - p.a.t)
		s.trial = stepsize.Trial(s.d0, s.d1, s.length)
		s.aimed = stepsize.Aim(p.a.t, s.trial.Want, p.a.stop, p.span.MaxStep, stepsize.StretchAdaptive)
	}
	if !some {
		return nil
	}
	r.products.start(1, func(i int) (*attempt[T], *backend.Span, float64) {
		return r.lanes[i].a, &r.lanes[i].span, steps[i].aimed.H
	})
	at, z := backend.At{Clock: loop.Clock, C: 1, Rows: backend.Running}, loop.Trial.Of[0]
	r.dev.Combine(z, loop.Y.Of[0], at, []float64{1}, loop.StagesOf(0))
	r.field.Eval(r.az, at, z)
	if err := r.dev.Download(r.m, r.az); err != nil {
		return err
	}
	for i := range r.lanes {
		p, s := &r.lanes[i], &steps[i]
		if p.a == nil {
			continue
		}
		r.evals[i]++
		for e := range s.diff {
			s.diff[e] = float64(r.m[p.lo*dim+e]) - s.f0[e]
		}
		s.d2 = stepsize.Norm(p.tol, s.diff, p.a.y)
		s.first = stepsize.First(s.d1, s.d2, math.Abs(s.aimed.H), s.length, loop.Tableau.Order)
		w := p.want
		if p.span.MaxStep > 0 && s.first.Want > p.span.MaxStep {
			w = 0
		}
		s.byD1, s.byLen, s.byH = s.first.ByD1*w, s.first.ByLength*w, math.Copysign(s.first.ByTrial, s.aimed.H)*w
		stepsize.NormVJP(s.first.ByD2*w, p.tol, s.diff, p.a.y, s.byF1, p.y)
		axpy(s.byF0, -1, s.byF1)
	}
	of := func(p *pulled[T]) *proposed { return &steps[min(p.lo, len(steps)-1)] }
	err := r.pull(at, z, func(p *pulled[T]) []float64 { return of(p).byF1 }, func(p *pulled[T], m []T, tau float64) {
		s := of(p)
		axpyOf(p.y, 1, m)
		axpyOf(s.byF0, s.aimed.H, m)
		p.t += tau
		s.byH += tau + dot(m, p.a.k[0])
	})
	if err != nil {
		return err
	}
	for i := range r.lanes {
		p, s := &r.lanes[i], &steps[i]
		if p.a == nil {
			continue
		}
		p.want = 0
		p.aimed(&s.aimed, s.byH, p.a.stop)
		s.byD1 += s.trial.ByD1 * p.want
		s.byLen += s.trial.ByLength * p.want
		y := make([]float64, len(p.y))
		for e, v := range p.a.y {
			y[e] = float64(v)
		}
		stepsize.NormVJP(s.trial.ByD0*p.want, p.tol, y, p.a.y, p.y, p.y)
		stepsize.NormVJP(s.byD1, p.tol, s.f0, p.a.y, s.byF0, p.y)
		onward := math.Copysign(s.byLen, s.byLen*(p.last()-p.a.t))
		p.times[len(p.times)-1] += onward
		p.t -= onward
	}
	at.C = 0
	return r.pull(at, loop.Y.Of[0], func(p *pulled[T]) []float64 { return of(p).byF0 }, func(p *pulled[T], m []T, tau float64) {
		axpyOf(p.y, 1, m)
		p.t += tau
	})
}

// axpy is dst += a·x.
func axpy(dst []float64, a float64, x []float64) {
	for i, v := range x {
		dst[i] += a * v
	}
}

// axpyOf is dst += a·x.
func axpyOf[T backend.Float](dst []float64, a float64, x []T) {
	for i, v := range x {
		dst[i] += a * float64(v)
	}
}

// dotWith is x·y.
func dotWith[T backend.Float](x []float64, y []T) (sum float64) {
	for i, v := range x {
		sum += v * float64(y[i])
	}
	return sum
}
