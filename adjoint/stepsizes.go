package adjoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/internal/stepsize"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// stepSizes is the method Discrete with Settings.StepSizes: reverse-mode differentiation
// of the whole adaptive solve. It keeps every attempt in the host's memory and works
// there, in float64, with f's products from the device.
type stepSizes[T backend.Float] struct {
	rec   recording[T]
	trace trace[T]
	mem   *products[T] // made for rec's loop
	times bool         // dL/dt is wanted
}

func newStepSizes[T backend.Float](dev *solver.Device[T], set *Settings) (*stepSizes[T], error) {
	switch {
	case set.Store != 0 || set.Budget != 0 || set.HostBudget != 0:
		return nil, errors.New("adjoint: Settings.StepSizes keeps every attempted step in host memory; leave Store, Budget and HostBudget out")
	case len(solver.EventsOf(dev)) > 0:
		return nil, fmt.Errorf("adjoint: Settings.StepSizes with a solver that looks for events: %w: leave StepSizes out, or use a solver without events", backend.ErrUnsupported)
	}
	s := &stepSizes[T]{times: !set.NoTimes}
	s.rec = recording[T]{with: func(c *step.Config[T]) { c.Hook = &s.trace }, drive: s.trace.run}
	return s, nil
}

func (s *stepSizes[T]) free(dev backend.Backend[T]) {
	s.mem.free()
	s.mem, s.trace = nil, trace[T]{}
	s.rec.free()
}

func (s *stepSizes[T]) solve(ctx context.Context, _ *solver.Device[T], p *solver.Problem[T]) (*solver.Solution[T], error) {
	return s.rec.solve(ctx, p)
}

func (s *stepSizes[T]) gradient(ctx context.Context, dev *solver.Device[T], sol *solver.Solution[T], dLdz []T, _ [][]EventCotangent[T], g *Gradient[T]) error {
	if err := s.rec.have(ctx, dev, sol); err != nil {
		return err
	}
	if s.times {
		g.Times = make([]float64, len(sol.Times))
		if sol.Samples != nil {
			g.Times = make([]float64, len(sol.Y)/sol.Dim)
		}
	}
	cot := func(i, b int) []T { return dLdz[sol.Row(i, b)*sol.Dim:][:sol.Dim] }
	if err := s.still(dev, sol, cot, g); err != nil || solveIsEmpty(sol) {
		return err
	}
	back, err := s.back(ctx, dev, g.Masked, cot)
	if err != nil {
		return err
	}
	g.HostMemory = s.trace.bytes
	for i := range back.lanes {
		p := &back.lanes[i]
		for b := p.lo; b < p.hi; b++ {
			g.Stats[b].Evaluations = back.evals[i]
			for j, v := range p.y[(b-p.lo)*sol.Dim:][:sol.Dim] {
				g.Z0[b*sol.Dim+j] += T(v)
			}
		}
		if s.times {
			to := g.Times
			if sol.Samples != nil {
				to = to[sol.Row(0, i):]
			}
			axpy(to, 1, p.times)
		}
	}
	if len(g.Theta) > 0 {
		return dev.Backend.Download(g.Theta, s.mem.theta)
	}
	return nil
}

// still completes the gradient of samples whose span has length zero: all their outputs
// are z0.
func (s *stepSizes[T]) still(dev *solver.Device[T], sol *solver.Solution[T], cot func(i, b int) []T, g *Gradient[T]) error {
	is := func(b int) bool {
		ts := sol.SampleTimes(b)
		return len(ts) == 2 && ts[0] == ts[1]
	}
	some := false
	for b := range sol.Batch {
		if is(b) {
			some = true
			addTo(g.Z0[b*sol.Dim:][:sol.Dim], cot(1, b))
		}
	}
	if !some || !s.times {
		return nil
	}
	f, err := newSlopes(dev, sol.Batch)
	if err != nil {
		return err
	}
	defer f.free()
	for b := range sol.Batch {
		if is(b) {
			f.set(b, sol.SampleTimes(b)[0], sol.Sample(0, b))
		}
	}
	slope, err := f.eval()
	if err != nil {
		return err
	}
	for b := range sol.Batch {
		if is(b) {
			at := 0
			if sol.Samples != nil {
				at = sol.Row(0, b)
			}
			v := dot(cot(1, b), slope[b*sol.Dim:][:sol.Dim])
			g.Times[at] -= v
			g.Times[at+1] += v
		}
	}
	return nil
}

// back goes back over the last solve's attempts.
func (s *stepSizes[T]) back(ctx context.Context, dev *solver.Device[T], skip []bool, cot func(i, b int) []T) (back *backwards[T], err error) {
	defer func() { s.rec.lost = s.rec.lost || err != nil }()
	loop := s.rec.loop
	if s.mem == nil || s.mem.loop != loop {
		s.mem.free()
		if s.mem, err = newProducts(dev, loop); err != nil {
			return nil, step.TooLarge(err, dev.Backend, loop.Rows, step.Size(loop.Config), 0)
		}
	}
	back = newBackwards(s, skip, cot)
	return back, back.run(ctx)
}

func (s *stepSizes[T]) solveOnDevice(ctx context.Context, dev *solver.Device[T], z0 backend.Vec[T], ts []float64) (backend.Vec[T], error) {
	return s.rec.solveOnDevice(ctx, dev, z0, ts)
}

func (s *stepSizes[T]) thetaOnDevice(ctx context.Context, dev *solver.Device[T], ts []float64, jumps []int, _, dLdz backend.Vec[T]) (backend.Vec[T], error) {
	_, batch, dim := dLdz.Shape()
	all := make([][]T, len(ts))
	for _, i := range jumps {
		all[i] = make([]T, batch*dim)
		if err := dev.Backend.Download(all[i], dLdz.Block(i)); err != nil {
			return nil, fmt.Errorf("adjoint: %w", err)
		}
	}
	cot := func(i, b int) []T {
		if all[i] == nil {
			return make([]T, dim)
		}
		return all[i][b*dim:][:dim]
	}
	if _, err := s.back(ctx, dev, nil, cot); err != nil {
		return nil, fmt.Errorf("adjoint: %w", err)
	}
	return s.mem.theta, nil
}

// trace is a step.Hook that keeps what every attempt was made of, on the host.
type trace[T backend.Float] struct {
	lanes     []traced[T]
	now, next []backend.Lane // before and after the decision about an attempt
	host      []T            // one state
	bytes     int64
}

// traced is a lane.
type traced[T backend.Float] struct {
	span     backend.Span
	tol      backend.Tolerance
	attempts []attempt[T]
	next     attempt[T] // about to be made
	stop     int        // the next of the span's stops
	save     int        // the next of its outputs
	history  [2]float64 // error ratios of the last accepted steps, the latest first
	rejected bool       // the last attempt was
}

// attempt is one of a lane.
type attempt[T backend.Float] struct {
	stepsize.Step
	t, stop  float64 // where it begins, and the next stop
	accepted bool
	end      float64       // where it ended, if it was accepted
	next     stepsize.Size // proposed after it
	// Outputs saveFrom to below save lie in it, and maybe some of them before its end.
	saveFrom, save int
	inside         bool

	y, y1 []T // state at both ends
	k     [][]T
	ratio float64 // of the error
}

// estimate is what the ratio is made of.
func (a *attempt[T]) estimate(l *step.Loop[T], tol backend.Tolerance) stepsize.Estimate[T] {
	return stepsize.Estimate[T]{Tol: tol, H: a.H, E: l.Tableau.E, E2: l.Tableau.E2, Y0: a.y, Y1: a.y1, K: a.k}
}

// run integrates over spans.
func (r *trace[T]) run(ctx context.Context, l *step.Loop[T], spans []backend.Span) error {
	r.lanes, r.bytes = make([]traced[T], l.Lanes), 0
	r.now, r.next = make([]backend.Lane, l.Lanes), make([]backend.Lane, l.Lanes)
	r.host = make([]T, l.Rows*l.Cols)
	for i := range r.lanes {
		lane := &r.lanes[i]
		*lane = traced[T]{span: spans[min(i, len(spans)-1)], tol: l.Tol, history: [2]float64{1, 1}}
		if lane.span.Tol != (backend.Tolerance{}) {
			lane.tol = lane.span.Tol
		}
	}
	if err := l.Start(ctx, spans...); err != nil {
		return err
	}
	if err := l.Backend.Lanes(l.Clock, r.now); err != nil {
		return err
	}
	for i := range r.lanes {
		r.lanes[i].aim(&r.now[i], false)
	}
	_, err := l.Continue(ctx, math.MaxInt)
	return err
}

// aim notes which step a lane is about to attempt.
func (l *traced[T]) aim(at *backend.Lane, held bool) {
	stop := l.span.Stops[min(l.stop, len(l.span.Stops)-1)]
	l.next = attempt[T]{t: at.T, stop: stop, Step: stepsize.Step{H: at.H, Want: at.Next, Landing: at.H == stop-at.T, Held: held}}
}

// last is the lane's last stop.
func (l *traced[T]) last() float64 { return l.span.Stops[len(l.span.Stops)-1] }

// rowsOf are the rows of lane i of a loop.
func rowsOf[T backend.Float](l *step.Loop[T], i int) (lo, hi int) {
	if l.Lanes == 1 {
		return 0, l.Rows
	}
	return i, i + 1
}

func (r *trace[T]) Begin(*step.Loop[T]) error { return nil }
func (r *trace[T]) Moved(*step.Loop[T]) error { return nil }

// Decided copies the attempt.
func (r *trace[T]) Decided(l *step.Loop[T]) error {
	dev := l.Backend
	if err := dev.Lanes(l.Clock, r.next); err != nil {
		return err
	}
	running, inside := false, false
	for i := range r.lanes {
		if r.now[i].Status != backend.StatusRunning {
			continue
		}
		running = true
		lane, a := &r.lanes[i], &r.lanes[i].next
		a.accepted = r.next[i].Accepted > r.now[i].Accepted
		if a.accepted {
			a.end, a.saveFrom = r.next[i].T, lane.save
			for ; lane.save < len(lane.span.Saves); lane.save++ {
				t := lane.span.Saves[lane.save]
				if math.Abs(t-a.t) > math.Abs(a.end-a.t) {
					break
				}
				a.inside = a.inside || t != a.end
			}
			a.save = lane.save
		}
		inside = inside || a.inside
		lane.attempts = append(lane.attempts, *a)
	}
	if !running {
		return nil
	}
	k := l.StagesOf(0)
	if !inside {
		k = k[:l.Tableau.Stages()]
	}
	for j, v := range append([]backend.Vec[T]{l.Y.Of[0], l.Trial.Of[0]}, k...) {
		if err := dev.Download(r.host, v); err != nil {
			return err
		}
		for i := range r.lanes {
			if r.now[i].Status == backend.StatusRunning {
				lo, hi := rowsOf(l, i)
				r.keep(&r.lanes[i], j, l.Tableau.Stages(), r.host[lo*l.Cols:hi*l.Cols])
			}
		}
	}
	for i := range r.lanes {
		if r.now[i].Status == backend.StatusRunning {
			if err := r.lanes[i].decide(l, &r.next[i]); err != nil {
				return err
			}
		}
	}
	r.now, r.next = r.next, r.now
	return nil
}

// keep copies a Vec of a lane's last attempt: y, y1, the stages, of the method and then
// those for outputs inside.
func (r *trace[T]) keep(lane *traced[T], j, stages int, x []T) {
	n := len(lane.attempts)
	a := &lane.attempts[n-1]
	switch {
	case j == 0 && n > 1 && !lane.attempts[n-2].accepted:
		a.y = lane.attempts[n-2].y // it has not moved
		return
	case j-2 >= stages && !a.inside:
		return
	}
	x = append([]T(nil), x...)
	r.bytes += int64(len(x)) * int64(unsafe.Sizeof(x[0]))
	switch j {
	case 0:
		a.y = x
	case 1:
		a.y1 = x
	default:
		a.k = append(a.k, x)
	}
}

// decide retraces the decision about the last attempt.
func (l *traced[T]) decide(loop *step.Loop[T], next *backend.Lane) error {
	a := &l.attempts[len(l.attempts)-1]
	e := a.estimate(loop, l.tol)
	a.ratio = e.Ratio()
	h := math.Abs(a.H)
	if !a.accepted {
		a.next = stepsize.Rejected(&loop.Control, h, a.ratio)
	} else {
		a.next = stepsize.Accepted(&loop.Control, a.end, h, a.ratio, l.history, l.rejected, a.Want, a.cut())
		if !a.cut() {
			ratio, _ := stepsize.Remembered(a.ratio)
			l.history = [2]float64{ratio, l.history[0]}
		}
		if a.Landing {
			l.stop++
		}
	}
	l.rejected = !a.accepted
	if next.Status != backend.StatusRunning {
		return nil
	}
	l.aim(next, false)
	s := stepsize.Aim(next.T, a.next.Want, l.next.stop, l.span.MaxStep, stepsize.StretchAdaptive)
	l.next.Held = s.Held
	// The device may round otherwise, not more.
	if !(math.Abs(s.H-next.H) <= 1e-3*math.Abs(next.H)) {
		return fmt.Errorf("%s goes on at t = %g with a step of %g, where %g was expected: its step sizes cannot be differentiated; leave Settings.StepSizes out", loop.Backend.Name(), next.T, next.H, s.H)
	}
	return nil
}

// cut reports whether the step is shorter than what was wanted.
func (a *attempt[T]) cut() bool { return a.Want > math.Abs(a.stop-a.t) }
