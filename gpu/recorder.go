//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

var _ backend.Recorder = (*Backend[float32])(nil)

// recording is a CUDA graph that holds while no memory is released.
type recording[T backend.Float] struct {
	b        *Backend[T]
	graph    *driver.Graph
	released uint64
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
	before := b.pool.released
	if err := b.d.BeginCapture(); err != nil {
		return nil, err
	}
	b.capturing, b.unrecordable = true, ""
	enqueue()
	b.capturing = false
	g, err := b.d.EndCapture()
	if err != nil {
		return nil, err
	}
	if b.unrecordable != "" {
		g.Close()
		return nil, fmt.Errorf("gpu: %s cannot be recorded", b.unrecordable)
	}
	if b.pool.released != before {
		g.Close()
		return nil, errors.New("gpu: memory moved while the calls were recorded")
	}
	return &recording[T]{b: b, graph: g, released: before}, nil
}

// recordable reports whether a verb whose launches depend on what the host knows may
// run: not while launches are captured, which Record then refuses.
func (b *Backend[T]) recordable(verb string) bool {
	if b.capturing {
		b.unrecordable = verb
	}
	return !b.capturing
}

// Replay launches the graph so many times.
func (r *recording[T]) Replay(times int) bool {
	if r.b.pool.released != r.released {
		return false
	}
	for range times {
		r.graph.Launch()
	}
	return true
}

func (r *recording[T]) Close() { r.graph.Close() }

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
