package train

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// resident makes updates on a device that keeps the data, the parameters and the
// optimiser's memory: of an update only a few words come back. It computes what the
// host would, in another order of sums.
type resident[T backend.Float] struct {
	t       *Trajectories[T]
	dev     backend.Backend[T]
	learner backend.Learner[T]
	// seen says for every time after the first which samples have a target then.
	seen  [][]bool
	jumps []int // the times with any

	z0, y, w           backend.Vec[T] // of all samples; w may be nil
	theta, good, best  backend.Vec[T] // θ is copied to the solver for every update
	m, v, a            backend.Vec[T]
	batch              int // what the next are made for
	pred, yb, wb, dLdz backend.Vec[T]
	update             *adjoint.DeviceStep[T]          // with them
	made               *adjoint.DeviceStep[T]          // the last
	now                under                           // what the update under way is made with
	run                func(d *solver.Device[T]) error // makes it

	// ahead: the device's θ, good and moments are newer than the host's; better: so is
	// its best.
	ahead, better bool
}

// under is an update under way.
type under struct {
	ctx   context.Context
	batch []int
	jumps []int
	how   backend.Optimizer
	out   backend.Outcome
}

// newResident moves the run to the device of its objective, or returns nil if that
// has no means for it, or no room.
func newResident[T backend.Float](obj Objective[T], s *state[T]) (*resident[T], error) {
	t, ok := obj.(*Trajectories[T])
	if !ok || t.set.LearnZ0 || len(t.data.Times) < 2 {
		return nil, nil
	}
	r := &resident[T]{t: t}
	r.run = r.onDevice
	err := t.s.OnDevice(func(d *solver.Device[T]) (err error) {
		trainer, ok := d.Backend.(backend.Trainer[T])
		if !ok || len(solver.EventsOf(d)) > 0 { // a solve on the device tells of none
			return backend.ErrUnsupported
		}
		if p, err := d.Problem(t.data.Z0, t.data.Times, nil); err != nil || p.Empty() { // the host tells
			return backend.ErrUnsupported
		}
		r.dev = d.Backend
		if r.learner, err = trainer.NewLearner(); err != nil {
			return err
		}
		return r.allocate(s)
	})
	if err != nil {
		r.close()
		if errors.Is(err, backend.ErrUnsupported) || errors.Is(err, backend.ErrOutOfMemory) {
			return nil, nil
		}
		return nil, fmt.Errorf("train: %w", err)
	}
	r.seen = t.seen()
	for i, seen := range r.seen {
		if slices.Contains(seen, true) {
			r.jumps = append(r.jumps, i+1)
		}
	}
	return r, nil
}

func (r *resident[T]) allocate(s *state[T]) (err error) {
	t := r.t
	vec := func(blocks, rows int, x []T) backend.Vec[T] {
		if x == nil || err != nil {
			return nil
		}
		var v backend.Vec[T]
		if v, err = r.dev.NewVec(blocks, rows, len(x)/(blocks*rows)); err == nil {
			r.dev.Upload(v, x)
		}
		return v
	}
	n := len(t.data.Times)
	r.z0 = vec(1, t.n, t.data.Z0)
	r.y = vec(n, t.n, t.targets())
	r.w = vec(n, t.n, t.data.Weights)
	r.theta, r.good, r.best = vec(1, 1, s.theta), vec(1, 1, s.good), vec(1, 1, s.best)
	r.m, r.v, r.a = vec(1, 1, s.opt.M), vec(1, 1, s.opt.V), vec(1, 1, s.opt.A)
	if err == nil {
		err = r.dev.Sync()
	}
	return err
}

// targets are the data's targets, or its labels as numbers.
func (t *Trajectories[T]) targets() []T {
	if t.set.Loss.Kind != CrossEntropy {
		return t.data.Targets
	}
	y := make([]T, len(t.data.Labels))
	for i, c := range t.data.Labels {
		y[i] = T(c)
	}
	return y
}

// seen says for every time after the first which samples have a target then.
func (t *Trajectories[T]) seen() [][]bool {
	y := Target[T]{Values: t.data.Targets, Labels: t.data.Labels, Weights: t.data.Weights}
	n := len(t.data.Times)
	k := max(len(y.Values), len(y.Labels)) / (n * t.n)
	all := make([][]bool, n-1)
	for i := range all {
		all[i] = make([]bool, t.n)
		for b := range t.n {
			for j := range k {
				all[i][b] = all[i][b] || y.weight(((i+1)*t.n+b)*k+j) != 0
			}
		}
	}
	return all
}

// vecs lists what is allocated.
func (r *resident[T]) vecs() []*backend.Vec[T] {
	return append(r.batchVecs(), &r.z0, &r.y, &r.w, &r.theta, &r.good, &r.best, &r.m, &r.v, &r.a)
}

func (r *resident[T]) batchVecs() []*backend.Vec[T] {
	return []*backend.Vec[T]{&r.pred, &r.yb, &r.wb, &r.dLdz}
}

func (r *resident[T]) free(vecs []*backend.Vec[T]) {
	for _, v := range vecs {
		if *v != nil {
			r.dev.Free(*v)
			*v = nil
		}
	}
}

// close frees what is on the device.
func (r *resident[T]) close() {
	if r.dev == nil {
		return
	}
	r.t.s.OnDevice(func(*solver.Device[T]) error { // what is left of a closed solver goes with its backend
		r.free(r.vecs())
		if r.learner != nil {
			r.learner.Close()
		}
		return nil
	})
}

// errHost says that the host has to make this update, if only to find out what is
// wrong with it.
var errHost = errors.New("train: not for the device")

// step makes an update with the batch, by the learning rate of o and with its number.
// The error is errHost if nothing was updated.
func (r *resident[T]) step(ctx context.Context, batch []int, o backend.Optimizer) (backend.Outcome, error) {
	n := &r.now
	n.ctx, n.batch, n.how, n.jumps = ctx, batch, o, r.jumps
	if r.t.adj.Method() != adjoint.Discrete { // where times that do not count cost nothing
		n.jumps = nil
		for _, i := range r.jumps {
			if slices.ContainsFunc(batch, func(b int) bool { return r.seen[i-1][b] }) {
				n.jumps = append(n.jumps, i)
			}
		}
	}
	if len(n.jumps) == 0 {
		return backend.Outcome{}, errHost
	}
	err := r.t.s.OnDevice(r.run)
	switch {
	case errors.Is(err, solver.ErrIncomplete) || errors.Is(err, backend.ErrOutOfMemory):
		return n.out, errHost
	case err != nil:
		return n.out, err
	case !finite(n.out.Loss) || !finite(n.out.Norm) || n.out.Weight == 0:
		return n.out, errHost
	}
	r.ahead = true
	return n.out, nil
}

// onDevice makes the update under way.
func (r *resident[T]) onDevice(d *solver.Device[T]) (err error) {
	n := &r.now
	if err := r.fit(len(n.batch)); err != nil {
		return err
	}
	if r.update == nil || !slices.Equal(r.update.Jumps, n.jumps) {
		r.update = r.newUpdate(d, n.jumps)
	}
	r.learner.Prepare(n.batch, n.how)
	d.ParamsChanged()
	if k, ok := d.Field.(backend.Sampler); ok {
		r.t.rows = r.t.origins(r.t.rows[:0], n.batch)
		k.SetSamples(r.t.rows)
	}
	for {
		again := r.made == r.update
		if err := r.t.adj.StepOnDevice(n.ctx, d, r.update); err != nil {
			return err
		}
		r.made = r.update
		n.out, err = r.learner.Outcome()
		if err != nil || !again || finite(n.out.Loss) {
			return err
		}
		r.update = r.newUpdate(d, n.jumps) // it may have been replayed with a tape that is too short
	}
}

// newUpdate makes what is the same in all updates with the vectors of a batch.
func (r *resident[T]) newUpdate(d *solver.Device[T], jumps []int) *adjoint.DeviceStep[T] {
	u := &adjoint.DeviceStep[T]{Times: r.t.data.Times, Jumps: jumps, States: r.pred, DLdz: r.dLdz}
	moves := []backend.Move[T]{{Dst: r.pred.Block(0), Src: r.z0}, {Dst: r.yb, Src: r.y}}
	if r.w != nil {
		moves = append(moves, backend.Move[T]{Dst: r.wb, Src: r.w})
	}
	theta := d.Field.Params()
	u.Before = func() {
		r.dev.Copy(theta, r.theta)
		r.learner.Gather(moves)
	}
	loss := r.t.set.Loss.plain()
	u.Loss = func(solve backend.Clock) { r.learner.Loss(loss, solve, r.pred, r.yb, r.wb, r.dLdz) }
	u.After = func(grad backend.Vec[T]) {
		r.dev.Copy(r.good, r.theta)
		r.learner.Update(r.theta, grad, r.m, r.v, r.a)
	}
	return u
}

// fit makes the vectors of a batch of n.
func (r *resident[T]) fit(n int) error {
	if n == r.batch {
		return nil
	}
	r.free(r.batchVecs())
	r.batch, r.update = 0, nil
	like := func(v backend.Vec[T]) (backend.Vec[T], error) {
		blocks, _, cols := v.Shape()
		return r.dev.NewVec(blocks, n, cols)
	}
	var err error
	times := len(r.t.data.Times)
	if r.pred, err = r.dev.NewVec(times, n, r.t.dim); err == nil {
		r.dLdz, err = r.dev.NewVec(times, n, r.t.dim)
	}
	if err == nil {
		r.yb, err = like(r.y)
	}
	if r.w != nil && err == nil {
		r.wb, err = like(r.w)
	}
	if err == nil {
		r.batch = n
	}
	return err
}

// keep notes that the parameters before the last update are the best.
func (r *resident[T]) keep() {
	r.dev.Copy(r.best, r.good)
	r.better = true
}

// pull brings the host's state up to the device's.
func (r *resident[T]) pull(s *state[T]) error {
	if !r.ahead && !r.better {
		return nil
	}
	return r.t.s.OnDevice(func(*solver.Device[T]) (err error) {
		read := func(dst []T, src backend.Vec[T]) {
			if err == nil && src != nil {
				err = r.dev.Download(dst, src)
			}
		}
		if r.ahead {
			read(s.theta, r.theta)
			read(s.good, r.good)
			read(s.opt.M, r.m)
			read(s.opt.V, r.v)
			read(s.opt.A, r.a)
		}
		if r.better {
			read(s.best, r.best)
		}
		if err == nil {
			r.ahead, r.better = false, false
		}
		return err
	})
}

// push brings the device's state up to the host's.
func (r *resident[T]) push(s *state[T]) error {
	return r.t.s.OnDevice(func(*solver.Device[T]) error {
		for _, x := range []struct {
			dst backend.Vec[T]
			src []T
		}{{r.theta, s.theta}, {r.good, s.good}, {r.m, s.opt.M}, {r.v, s.opt.V}, {r.a, s.opt.A}} {
			if x.dst != nil {
				r.dev.Upload(x.dst, x.src)
			}
		}
		return nil
	})
}
