package solver_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Steps that end on a breakpoint are cut too, and the breakpoint stays one.
func TestEvent_Breakpoints(t *testing.T) {
	// f is 1, from 0.5 on 2 and from 1 on 4.
	jumps := custom(1, func(at float64, _, _, dz []float64) {
		switch {
		case at < 0.5:
			dz[0] = 1
		case at < 1:
			dz[0] = 2
		default:
			dz[0] = 4
		}
	})
	for _, c := range []struct {
		level float64
		when  []float64
		final float64
	}{
		{0.375, []float64{0.375, 0.625, 0.8125, 1, 1.09375, 1.1875}, 0.25},   // within steps
		{0.5, []float64{0.5, 0.75, 1, 1.125, 1.25}, 0},                       // on both
		{1.25, []float64{0.875, 1.25}, 0},                                    // an event at the end
		{1.2, []float64{0.85, 1.225}, 0.1},                                   //
		{math.Nextafter(0.5, 1), []float64{0.5, 0.75, 1, 1.125, 1.25}, 0.50}, // just behind
	} {
		for _, set := range []solver.Settings{{}, {FirstStep: 10}, {Method: solver.Midpoint, Step: 0.1}, {Method: solver.Dopri8}} {
			set.Breakpoints = []float64{1, 0.5}
			e := resets(reaches[float64](0, c.level), func(z []float64) { z[0] = 0 })
			sol, err := open(t, jumps, perSample(set), e).Solve(background, []float64{0}, []float64{0, 1.25})
			if err != nil {
				t.Fatal(err)
			}
			when, n := c.when, len(sol.Events[0])
			if n == len(when)-1 && when[n] == 1.25 {
				when = when[:n] // by rounding it is just behind the end
			}
			wantEvents(t, fmt.Sprint(c.level), sol.Events[0], 1e-13, make([]int, len(when)), when)
			if last := sol.Final()[0]; math.Abs(last-c.final) > 1e-12 && !(math.Abs(last-c.level) < 1e-12 && c.when[len(c.when)-1] == 1.25) {
				t.Errorf("level %g ends at %g, want %g", c.level, last, c.final)
			}
		}
	}
}

// f of the step after a cut is evaluated in that step, not beside a breakpoint that the
// cut step ended on.
func TestEvent_BreakpointOfATime(t *testing.T) {
	f := custom(1, func(at float64, _, _, dz []float64) {
		if dz[0] = 2 * at; math.Abs(at) > 0.5 {
			dz[0] = -20 * at
		}
	})
	e := resets(reaches[float64](0, 0.16), func(z []float64) { z[0] = 0 })
	for _, end := range []float64{1, -1} { // z = t², then less by 0.16 from 0.4 on, then falling ten times as fast
		for _, set := range []solver.Settings{{Method: solver.Midpoint, Step: 0.5}, {FirstStep: 1}, {Method: solver.Dopri8}} {
			set.Breakpoints = []float64{0.5 * end}
			sol, err := open(t, f, perSample(set), e).Solve(background, []float64{0}, []float64{0, 0.5 * end, end})
			if err != nil {
				t.Fatal(err)
			}
			wantEvents(t, fmt.Sprint(end), sol.Events[0], 1e-14, []int{0}, []float64{0.4 * end})
			if d := distance(sol.Y, []float64{0, 0.09, 0.09 - 7.5}); d > 1e-13 {
				t.Errorf("%s: outputs %v are off by %.1g", sol.Method, sol.Y, d)
			}
		}
	}
}

// Bounces that come ever faster end, whatever the steps and the rounding: none of them
// is lost, and the ball never falls through the ground.
func TestEvent_Zeno(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testZeno[float32](t, 0x1p-23) })
	t.Run("float64", func(t *testing.T) { testZeno[float64](t, 0x1p-52) })
}

func testZeno[T backend.Float](t *testing.T, roundoff float64) {
	for _, ground := range []float64{0, 0.1, -3} {
		for _, restitution := range []float64{0.9, 0.5, 0.01, 0} {
			for _, set := range []solver.Settings{{}, {FirstStep: 90}, {Method: solver.RK4, Step: 0.5}} {
				e := bounce[T](restitution, ground)
				most := 10_000
				if ground != 0.1 || set.Step > 0 || restitution != 0.5 {
					e.Max, most = 500, 500
				}
				sol, err := open(t, ball[T](), perSample(set), e).Solve(background, []T{T(ground) + 4, 0, 8}, []float64{0, 1000})
				if !errors.Is(err, solver.TooManyEvents) || sol.Status[0] != solver.TooManyEvents || len(sol.Events[0]) != most {
					t.Errorf("ground %g, restitution %g: %v with %d events", ground, restitution, err, len(sol.Events[0]))
					continue
				}
				wantText(t, err, fmt.Sprintf("event 0 (ground) happened more than %d times", most), "terminal", "Event.Max")
				// The first is at 1, and the flights after it are 2r, 2r², … until a flight cannot
				// be told from a fall by a last digit, each time by one more.
				digit := 4 * roundoff
				rest, late := 1+2*restitution/(1-restitution), 2*math.Sqrt(2*digit/8)*float64(most)
				if end := sol.Stats[0].T; end < rest*(1-1000*roundoff)-late || end > rest+late {
					t.Errorf("ground %g, restitution %g: comes to rest at %g, not %g", ground, restitution, end, rest)
				}
				last := 0.0
				for i, o := range sol.Events[0] {
					if o.T <= last || math.Abs(float64(o.Before[0])-ground) > digit*float64(i+1000) {
						t.Errorf("bounce %d at %.17g, after one at %.17g, is at height %g", i, o.T, last, o.Before[0])
						break
					}
					last = o.T
				}
			}
		}
	}
}

func TestEvent_Max(t *testing.T) {
	e := bounce[float64](0.9, 0)
	e.Max = 3
	s := open(t, ball[float64](), perSample(solver.Settings{}), e, reaches[float64](0, -1))
	sol, err := s.Solve(background, []float64{4, 0, 8, 400, 0, 8}, []float64{0, 2, 60})
	var failed *solver.Error
	if !errors.As(err, &failed) || len(failed.Failures) != 2 {
		t.Fatal(err)
	}
	wantText(t, err, "sample 0 at t = 5.87", "event 0 (ground) happened more than 3 times")
	for b, scale := range []float64{1, 10} {
		if len(sol.Events[b]) != 3 || math.Abs(sol.Stats[b].T-5.878*scale) > 1e-12*scale {
			t.Errorf("sample %d has %d events, and ends at %g", b, len(sol.Events[b]), sol.Stats[b].T)
		}
	}
	if math.Abs(sol.Sample(1, 0)[0]-3.2) > 1e-12 || sol.Sample(2, 0)[0] == sol.Sample(2, 0)[0] {
		t.Errorf("outputs %v", sol.Y)
	}
	// Max is of each event and each sample.
	sol, err = s.Solve(background, []float64{4, 0, 8, 400, 0, 8}, []float64{0, 4.9})
	if err != nil || len(sol.Events[0]) != 3 || len(sol.Events[1]) != 0 {
		t.Errorf("%v, %v", err, sol.Events)
	}
}

// A reset after which the flow goes on through the zero is one event.
func TestEvent_ResetThatLetsPass(t *testing.T) {
	for _, part := range []float64{0.5, 1, 2, 1e-6} {
		e := bounce[float64](-part, 0) // the speed changes, not its direction
		e.Direction = solver.Either
		s := open(t, ball[float64](), perSample(solver.Settings{}), e)
		sol, err := s.Solve(background, []float64{4, 0, 8}, []float64{0, 1.5})
		if err != nil {
			t.Fatal(err)
		}
		// The coefficients of the interpolant go up to 88, and so does its rounding.
		wantEvents(t, fmt.Sprint(part), sol.Events[0], 2e-14, []int{0}, []float64{1})
		if want := -8*part*0.5 - 1; math.Abs(sol.Final()[0]-want) > 1e-13 {
			t.Errorf("falls to %g, want %g", sol.Final()[0], want)
		}
	}
}

// A reset along the zeros of g, which rounding puts to either side of them, is one event.
func TestEvent_ResetAlongTheZeros(t *testing.T) {
	grow := custom(2, func(_ float64, _, _, dz []float64) { dz[0], dz[1] = 1, 0 })
	for k := 1.0; k < 40; k++ {
		e := resets(solver.Event[float64]{G: func(_ float64, z, _ []float64) float64 { return z[0]*z[1] - 0.7 }},
			func(z []float64) { z[0], z[1] = z[0]*k, z[1]/k })
		s := open(t, grow, perSample(solver.Settings{}), e)
		for y := 0.2; y < 1; y += 0.07 {
			sol, err := s.Solve(background, []float64{0, y}, []float64{0, 4})
			if err != nil || len(sol.Events[0]) != 1 || math.Abs(sol.Events[0][0].T-0.7/y) > 1e-14 {
				t.Errorf("factor %g, %g: %+v, %v", k, y, sol.Events[0], err)
			}
		}
	}
}

func TestEvent_NotFinite(t *testing.T) {
	root := solver.Event[float64]{Name: "root", G: func(_ float64, z, _ []float64) float64 { return math.Sqrt(2-z[0]) + 1 }}
	never := solver.Event[float64]{G: func(float64, []float64, []float64) float64 { return nan }}
	to := func(x float64) solver.Event[float64] {
		e := resets(reaches[float64](1, 2), func(z []float64) { z[1] = x })
		e.Name = "jump"
		return e
	}
	hidden := solver.Event[float64]{G: func(at float64, z, _ []float64) float64 { // between the points looked at
		if x := z[0] - 2.3; math.Abs(x) < 0.01 {
			return nan
		}
		return z[0] - 2.301
	}}
	ts := []float64{0, 1, 8}
	for _, c := range []struct {
		name    string
		events  []solver.Event[float64]
		earlier float64 // it ends after that
		later   float64 // and no later than this
		text    string
	}{
		{"g", []solver.Event[float64]{root}, 2, 8, "g of event 0 (root) is NaN"},
		{"g from the start", []solver.Event[float64]{never}, 0, 1e-300, "g of event 0 is NaN"},
		{"g near its zero", []solver.Event[float64]{hidden}, 2.28, 2.32, "g of event 0 is NaN"},
		{"reset to NaN", []solver.Event[float64]{root, to(nan)}, 1.99, 2.01, "the reset of event 1 (jump) set component 1 to NaN"},
		{"reset to infinity", []solver.Event[float64]{to(-inf)}, 1.99, 2.01, "the reset of event 0 (jump) set component 1 to -Inf"},
	} {
		s := open(t, clockwork[float64](2), perSample(solver.Settings{FirstStep: 8}), c.events...)
		sol, err := s.Solve(background, []float64{0, 0}, ts)
		end := sol.Stats[0].T
		if !errors.Is(err, solver.NotFinite) || sol.Status[0] != solver.NotFinite || end <= c.earlier || end > c.later {
			t.Errorf("%s: %v at %g", c.name, err, end)
		}
		wantText(t, err, c.text, "check the event's functions")
		if sol.Sample(0, 0)[0] != 0 || (sol.Sample(1, 0)[0] == 1) != (end >= 1) || sol.Sample(2, 0)[0] == sol.Sample(2, 0)[0] && end < 8 {
			t.Errorf("%s: outputs %v, got to %g", c.name, sol.Y, end)
		}
	}
	// What is NaN behind a terminal event does not matter.
	s := open(t, clockwork[float64](2), perSample(solver.Settings{FirstStep: 8}), root, terminal(reaches[float64](0, 1.9)))
	sol, err := s.Solve(background, []float64{0, 0}, ts)
	if err != nil || sol.Status[0] != solver.Stopped {
		t.Errorf("%v: %v", sol.Status, err)
	}
	wantEvents(t, "terminal", sol.Events[0], 1e-15, []int{1}, []float64{1.9})
	// f overflows at the end of a step, which the interpolant needs and the step does not.
	over := custom(1, func(at float64, _, _, dz []float64) {
		if dz[0] = 1; at == 1 {
			dz[0] = inf
		}
	})
	for _, at := range []float64{0.3, 1} {
		e := terminal(solver.Event[float64]{G: func(t float64, _, _ []float64) float64 { return t - at }})
		sol, err := open(t, over, perSample(solver.Settings{Method: solver.Midpoint, Step: 1}), e).Solve(background, []float64{0}, []float64{0, 0.2, 1})
		if !errors.Is(err, solver.NotFinite) || len(sol.Events[0]) != int(at) || sol.Y[1] == sol.Y[1] {
			t.Errorf("event at %g: %v, %+v, outputs %v", at, err, sol.Events[0], sol.Y)
		}
	}
}

// A solve that goes on where a terminal event has stopped another does not meet it again.
func TestEvent_GoingOn(t *testing.T) {
	t.Run("float32", testGoingOn[float32])
	t.Run("float64", testGoingOn[float64])
}

func testGoingOn[T backend.Float](t *testing.T) {
	turn := custom(2, func(_ float64, z, _, dz []T) { dz[0], dz[1] = z[1], -z[0] })
	for i := range 50 {
		level := -0.9 + 0.036*float64(i)
		e := terminal(reaches[T](0, level))
		s := open(t, turn, perSample(solver.Settings{}), e)
		z, at := []T{0, 1}, 0.0
		// The sine is at the level at these times, and half a turn later.
		first, second := math.Asin(level), math.Pi-math.Asin(level)
		if first < 0 {
			first, second = second, first+2*math.Pi
		}
		for _, want := range []float64{first, second, first + 2*math.Pi} {
			sol, err := s.Solve(background, z, []float64{at, 20})
			if err != nil || len(sol.Events[0]) != 1 || math.Abs(sol.Events[0][0].T-want) > 0.01 {
				t.Fatalf("level %g: from %g to %+v, not %g: %v", level, at, sol.Events[0], want, err)
			}
			z, at = sol.Events[0][0].Before, sol.Events[0][0].T
		}
	}
}
