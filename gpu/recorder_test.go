//go:build cuda && cgo && linux && amd64

package gpu_test

import (
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// A recording holds until its own operands change, whatever else is released.
func TestRecording_KnowsItsOperands(t *testing.T) {
	dev := open[float32](t)
	vec := func() backend.Vec[float32] {
		v, err := dev.NewVec(2, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	clock := func() backend.Clock {
		c, err := dev.NewClock(1)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	span := backend.Span{T0: 0, Stops: []float64{1}, H0: 0.5}
	for _, c := range []struct {
		name   string
		change func(y, k, other backend.Vec[float32], clk backend.Clock)
		holds  bool
	}{
		{"nothing", func(y, k, other backend.Vec[float32], clk backend.Clock) {}, true},
		{"another vector", func(y, k, other backend.Vec[float32], clk backend.Clock) { dev.Free(other) }, true},
		{"the vector of a block", func(y, k, other backend.Vec[float32], clk backend.Clock) { dev.Free(k) }, false},
		{"the result", func(y, k, other backend.Vec[float32], clk backend.Clock) { dev.Free(y) }, false},
		{"the clock", func(y, k, other backend.Vec[float32], clk backend.Clock) { clk.Close() }, false},
		{"the same span", func(y, k, other backend.Vec[float32], clk backend.Clock) { dev.Start(clk, span) }, true},
		{"the span", func(y, k, other backend.Vec[float32], clk backend.Clock) {
			s := span
			s.H0 = 0.25
			dev.Start(clk, s)
		}, false},
	} {
		y, k, other, clk := vec(), vec(), vec(), clock()
		one := []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
		dev.Upload(k, slices.Concat(one, one))
		verbs := func() {
			dev.Start(clk, span)
			dev.Combine(y.Block(1), y.Block(1), backend.At{Clock: clk, Rows: backend.Running}, []float64{1}, []backend.Vec[float32]{k.Block(0)})
		}
		verbs()
		r, err := dev.Record(verbs)
		if err != nil {
			t.Fatal(err)
		}
		c.change(y, k, other, clk)
		if got := r.Replay(3); got != c.holds {
			t.Errorf("%s: Replay is %v", c.name, got)
		}
		if c.holds {
			got := make([]float32, 24)
			if err := dev.Download(got, y); err != nil {
				t.Fatal(err)
			}
			if got[0] != 0 || got[12] != 4*0.5 {
				t.Errorf("%s: %g and %g after four times", c.name, got[0], got[12])
			}
			if _, err := dev.Record(func() {
				if _, err := dev.Record(verbs); err == nil {
					t.Error("a recording inside of another")
				}
			}); err != nil {
				t.Error(err)
			}
		}
		r.Close()
		r.Close()
		if r.Replay(1) {
			t.Errorf("%s: a closed recording was replayed", c.name)
		}
		if err := dev.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	// A copy from the host cannot be recorded, and leaves nothing behind.
	v := vec()
	if _, err := dev.Record(func() { dev.Upload(v, make([]float32, 24)) }); err == nil {
		t.Error("an upload was recorded")
	}
	if err := dev.Sync(); err != nil {
		t.Error(err)
	}
}
