//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var _ backend.Recorder = (*Backend[float32])(nil)

// recording is a CUDA graph that holds while its operands stay where they are.
type recording[T backend.Float] struct {
	b     *Backend[T]
	graph *driver.Graph
	footprint
	host []func(times int)
}

// Record captures the launches of enqueue as a CUDA graph.
func (b *Backend[T]) Record(enqueue func()) (backend.Recording, error) {
	if !b.live() {
		return nil, b.takeErr()
	}
	if err := b.takeErr(); err != nil {
		b.fail(err) // not a failure of the recording
		return nil, err
	}
	if b.capture != nil {
		return nil, errors.New("gpu: Record inside of Record: record the outer sequence alone")
	}
	if err := b.d.BeginCapture(); err != nil {
		return nil, err
	}
	r := &recording[T]{b: b, footprint: footprint{used: map[driver.Ptr]struct{}{}}}
	b.capture, b.pool.capture = r, &r.footprint
	b.pool.recorded[&r.footprint] = struct{}{}
	enqueue()
	b.capture, b.pool.capture = nil, nil
	var err error
	if r.graph, err = b.d.EndCapture(); err == nil && r.moved {
		err = errors.New("gpu: memory moved while the calls were recorded")
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// hosted runs what a verb does on the host: now, or whenever what is being recorded is
// replayed, for so many times at once.
func (b *Backend[T]) hosted(do func(times int)) {
	if b.capture != nil {
		b.capture.host = append(b.capture.host, do)
		return
	}
	do(1)
}

func (r *recording[T]) Replay(times int) bool {
	if r.moved || !r.b.live() {
		return false
	}
	for _, do := range r.host {
		do(times)
	}
	for range times {
		r.graph.Launch()
	}
	return true
}

func (r *recording[T]) Close() {
	delete(r.b.pool.recorded, &r.footprint)
	if r.graph != nil {
		r.graph.Close()
	}
	r.moved = true
}

// Time returns the seconds that the device takes for what enqueue enqueues, by marks
// in its stream. It waits.
func (b *Backend[T]) Time(enqueue func()) (seconds float64, err error) {
	if !b.live() {
		return 0, b.takeErr()
	}
	start, err := b.d.Event()
	if err != nil {
		return 0, err
	}
	defer start.Close()
	end, err := b.d.Event()
	if err != nil {
		return 0, err
	}
	defer end.Close()
	start.Record()
	enqueue()
	end.Record()
	if err := b.d.Sync(); err != nil {
		return 0, err
	}
	return end.Since(start)
}
