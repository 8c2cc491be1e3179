package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/seed-5f5774c8/neuralode/solver"
)

// errBusy says that as many requests wait as may.
var errBusy = errors.New("too many requests are waiting; try again later")

// request is one trajectory that somebody waits for.
type request struct {
	ctx    context.Context
	z0     []float64
	times  []float64
	answer chan answer // has room for one
}

type answer struct {
	states [][]float64 // one for each time
	batch  int         // requests solved together
	err    error
}

// batcher solves the requests that arrive within a short time together. Each sample steps
// by itself, so that an answer has the same bits in any company.
type batcher struct {
	s     *solver.Solver[float64]
	queue chan *request
	most  int           // requests in a batch
	wait  time.Duration // for more, after the first
}

// run solves until ctx ends.
func (b *batcher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-b.queue:
			b.solve(ctx, b.collect(first))
		}
	}
}

// collect waits for company for a request.
func (b *batcher) collect(first *request) []*request {
	batch := []*request{first}
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	for len(batch) < b.most {
		select {
		case r := <-b.queue:
			batch = append(batch, r)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// solve answers a batch, leaving out whom nobody waits for any more. It stops when the
// last deadline of the batch has passed.
func (b *batcher) solve(ctx context.Context, batch []*request) {
	var live []*request
	var z0 []float64
	var samples []solver.Sample
	var last time.Time
	for _, r := range batch {
		if r.ctx.Err() != nil {
			continue
		}
		if deadline, ok := r.ctx.Deadline(); ok && deadline.After(last) {
			last = deadline
		}
		live, z0, samples = append(live, r), append(z0, r.z0...), append(samples, solver.Sample{Times: r.times})
	}
	if len(live) == 0 {
		return
	}
	if !last.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, last)
		defer cancel()
	}
	sol, err := b.s.SolveEach(ctx, z0, samples)
	failed := map[int]error{}
	var incomplete *solver.Error
	if errors.As(err, &incomplete) { // some failed; the others are complete
		for _, f := range incomplete.Failures {
			failed[f.Sample] = fmt.Errorf("the solve ended at t = %g: %w", f.T, f.Status)
		}
		err = nil
	}
	for i, r := range live {
		a := answer{batch: len(live), err: err}
		if err == nil {
			a.err = failed[i]
		}
		if a.err == nil {
			for k := range r.times {
				a.states = append(a.states, sol.Sample(k, i))
			}
		}
		r.answer <- a
	}
}

// predict waits for the states from z0 at times, the first of them z0's own.
func (b *batcher) predict(ctx context.Context, z0, times []float64) answer {
	r := &request{ctx, z0, times, make(chan answer, 1)}
	select {
	case b.queue <- r:
	default:
		return answer{err: errBusy}
	}
	select {
	case a := <-r.answer:
		return a
	case <-ctx.Done():
		return answer{err: context.Cause(ctx)}
	}
}

// check says what is wrong with a request, so that none spoils the batch of others.
func check(z0, times []float64, dim, most int) error {
	if len(z0) != dim {
		return fmt.Errorf("z0 has %d components; the model has %d", len(z0), dim)
	}
	if len(times) < 2 || len(times) > most {
		return fmt.Errorf("times has %d entries; give 2 to %d, the first that of z0", len(times), most)
	}
	for i := 1; i < len(times); i++ {
		if (times[i] > times[i-1]) != (times[1] > times[0]) || times[i] == times[i-1] {
			return errors.New("times must ascend strictly, or descend strictly")
		}
	}
	if d := times[len(times)-1] - times[0]; math.IsInf(d, 0) {
		return errors.New("times are too far apart")
	}
	return nil
}
