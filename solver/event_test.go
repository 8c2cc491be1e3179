package solver_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// ball falls with the acceleration of its third component: z = [height, velocity, g].
func ball[T backend.Float]() *field.Custom[T] {
	return custom(3, func(_ float64, z, _, dz []T) { dz[0], dz[1], dz[2] = z[1], -z[2], 0 })
}

// bounce keeps a part of the speed, θ = [restitution, height of the ground].
func bounce[T backend.Float](restitution, ground float64) solver.Event[T] {
	return solver.Event[T]{
		Name: "ground", Theta: []T{T(restitution), T(ground)}, Direction: solver.Falling,
		G:     func(_ float64, z, theta []T) float64 { return float64(z[0] - theta[1]) },
		Reset: func(_ float64, z, theta, out []T) { out[1] = -theta[0] * z[1] },
	}
}

// clockwork is z' = 1 in every component: any step is exact.
func clockwork[T backend.Float](dim int) *field.Custom[T] {
	return custom(dim, func(_ float64, _, _, dz []T) {
		for i := range dz {
			dz[i] = 1
		}
	})
}

// reaches is the event that component i is at a level.
func reaches[T backend.Float](i int, level float64) solver.Event[T] {
	return solver.Event[T]{G: func(_ float64, z, _ []T) float64 { return float64(z[i]) - level }}
}

func terminal[T backend.Float](e solver.Event[T]) solver.Event[T] {
	e.Terminal = true
	return e
}

func resets[T backend.Float](e solver.Event[T], reset func(z []T)) solver.Event[T] {
	e.Reset = func(_ float64, _, _, out []T) { reset(out) }
	return e
}

func perSample(set solver.Settings) solver.Settings {
	set.Stepping = solver.PerSample
	return set
}

// wantEvents compares which events happened, and when, to atol + rtol·|t|.
func wantEvents[T backend.Float](t testing.TB, what string, found []solver.Occurrence[T], tol float64, events []int, times []float64) {
	t.Helper()
	var which []int
	var when []float64
	for _, o := range found {
		which, when = append(which, o.Event), append(when, o.T)
	}
	ok := slices.Equal(which, events)
	for i := range when {
		ok = ok && math.Abs(when[i]-times[i]) <= tol*(1+math.Abs(times[i]))
	}
	if !ok {
		t.Errorf("%s: events %v at %v, want %v at %v", what, which, when, events, times)
	}
}

// A ball's fall is a parabola, on which every method of order 2 or more is exact: times
// and speeds of its bounces are known to the last digits.
func TestEvent_BouncingBallIsExact(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testBouncingBall[float32](t, 0x1p-23) })
	t.Run("float64", func(t *testing.T) { testBouncingBall[float64](t, 0x1p-52) })
}

func testBouncingBall[T backend.Float](t *testing.T, roundoff float64) {
	// Vern7's interpolation weights, up to some hundred, make rounding as much larger, and
	// that of the height is one of the time, over the speed.
	tol := func(speed float64) float64 { return 1000 * roundoff * (1 + 1/speed) }
	const restitution, ground = 0.75, 0.5 // numbers of both types
	z0 := []T{10.5, 0, 8, 2.5, 1, 10, 4.5, 0, 0.25}
	for _, m := range solver.Methods() {
		if m == solver.Euler {
			continue
		}
		for _, fixed := range []float64{0, 0.17} {
			set := perSample(anySettings(m))
			set.Dense = true
			if m.Adaptive() {
				// Of a longer step than there is between bounces the rounding would be larger.
				set.Step, set.MaxStep = fixed, 0.25
			}
			sol, err := open(t, ball[T](), set, bounce[T](restitution, ground)).Solve(background, z0, []float64{0, 4})
			if err != nil {
				t.Fatalf("%s: %v", m, err)
			}
			for b, found := range sol.Events {
				height, v, g := float64(z0[3*b])-ground, float64(z0[3*b+1]), float64(z0[3*b+2])
				speed := math.Sqrt(v*v + 2*g*height)
				at := (v + speed) / g
				n := 0
				for ; at < 4; n++ {
					if n == len(found) {
						t.Errorf("%s: sample %d has %d bounces, the next should be at %g", m, b, n, at)
						break
					}
					o := found[n]
					for i, pair := range [][2]float64{
						{o.T, at}, {float64(o.Before[0]), ground}, {float64(o.Before[1]), -speed}, {float64(o.After[1]), restitution * speed},
					} {
						if d := math.Abs(pair[0] - pair[1]); !(d <= tol(speed)) {
							t.Errorf("%s, step %g: sample %d, bounce %d at %g: quantity %d is %.17g, want %.17g", m, set.Step, b, n, at, i, pair[0], pair[1])
						}
					}
					z, err := sol.At(o.T)
					if err != nil || o.Event != 0 || !o.Cut || o.After[0] != o.Before[0] || !same(z[3*b:3*b+3], o.Before) {
						t.Errorf("%s: %+v, by At %v, %v", m, o, z[3*b:3*b+3], err)
					}
					speed *= restitution
					at += 2 * speed / g
				}
				if n != len(found) {
					t.Errorf("%s: sample %d has %d bounces, want %d", m, b, len(found), n)
				}
			}
		}
	}
}

// Directions are along the solve, whichever way it runs, and noting an event changes
// nothing of the solution.
func TestEvent_Directions(t *testing.T) {
	turn := custom(2, func(_ float64, z, _, dz []float64) { dz[0], dz[1] = z[1], -z[0] })
	set := perSample(solver.Settings{Method: solver.Dopri8, RTol: 1e-12, ATol: 1e-12})
	var events []solver.Event[float64]
	for _, d := range []solver.Direction{solver.Either, solver.Rising, solver.Falling} {
		e := reaches[float64](0, 0.5)
		e.Direction = d
		events = append(events, e)
	}
	s, plain := open(t, turn, set, events...), open(t, turn, set)
	for _, ts := range [][]float64{grid(0, 10, 7), grid(10, 0, 7)} {
		// z = [sin t, cos t] is 0.5 at 30° and 150°.
		z0 := []float64{math.Sin(ts[0]), math.Cos(ts[0])}
		sol, err := s.Solve(background, z0, ts)
		if err != nil {
			t.Fatal(err)
		}
		up, down := []float64{math.Pi / 6, 13 * math.Pi / 6}, []float64{5 * math.Pi / 6, 17 * math.Pi / 6}
		which, when := []int{0, 1, 0, 2, 0, 1, 0, 2}, []float64{up[0], up[0], down[0], down[0], up[1], up[1], down[1], down[1]}
		if ts[0] == 10 {
			slices.Reverse(when) // and what fell rises
		}
		wantEvents(t, fmt.Sprint(ts), sol.Events[0], 1e-10, which, when)
		without, err := plain.Solve(background, z0, ts)
		if err != nil || !same(sol.Y, without.Y) || sol.Stats[0].Accepted != without.Stats[0].Accepted {
			t.Errorf("%v: noting events changed the solution: %v", ts, err)
		}
		for _, o := range sol.Events[0] {
			if d := math.Abs(o.Before[0] - 0.5); d > 1e-14 || !same(o.Before, o.After) || o.Cut {
				t.Errorf("%+v is off by %.1g", o, d)
			}
		}
	}
}

// A single step that holds several events.
func TestEvent_OrderWithinAStep(t *testing.T) {
	t.Run("float32", testOrder[float32])
	t.Run("float64", testOrder[float64])
}

func testOrder[T backend.Float](t *testing.T) {
	const tol = 2e-6 // of float32's sums; the order is what is tested
	zero := func(z []T) { z[0] = 0 }
	for _, c := range []struct {
		name   string
		events []solver.Event[T]
		which  []int
		when   []float64
		status solver.Status
		final  float64
	}{
		{"noted", []solver.Event[T]{reaches[T](0, 3), reaches[T](0, 1), reaches[T](0, 2)}, []int{1, 2, 0}, []float64{1, 2, 3}, solver.Done, 8},
		{"up to a terminal one", []solver.Event[T]{reaches[T](0, 3), reaches[T](0, 1), terminal(reaches[T](0, 2))},
			[]int{1, 2}, []float64{1, 2}, solver.Stopped, math.NaN()},
		{"two terminal", []solver.Event[T]{terminal(reaches[T](0, 3)), terminal(reaches[T](0, 2.5))}, []int{1}, []float64{2.5}, solver.Stopped, math.NaN()},
		{"at one time", []solver.Event[T]{terminal(reaches[T](0, 2)), reaches[T](0, 2), reaches[T](0, 2)},
			[]int{1, 2, 0}, []float64{2, 2, 2}, solver.Stopped, math.NaN()},
		{"again after a reset", []solver.Event[T]{resets(reaches[T](0, 2.5), zero), reaches[T](0, 1)},
			[]int{1, 0, 1, 0, 1, 0}, []float64{1, 2.5, 3.5, 5, 6, 7.5}, solver.Done, 0.5},
		{"the other is behind", []solver.Event[T]{resets(reaches[T](0, 2), func(z []T) { z[0] = 5 }), reaches[T](0, 3)},
			[]int{0}, []float64{2}, solver.Done, 11},
		{"a reset onto the other", []solver.Event[T]{resets(reaches[T](0, 2), func(z []T) { z[0] = 3 }), reaches[T](0, 3)},
			[]int{0}, []float64{2}, solver.Done, 9},
		{"terminal at the end", []solver.Event[T]{terminal(reaches[T](0, 8))}, []int{0}, []float64{8}, solver.Stopped, 8},
		{"reset at the end", []solver.Event[T]{resets(reaches[T](0, 8), zero)}, []int{0}, []float64{8}, solver.Done, 8},
		{"at the start", []solver.Event[T]{terminal(reaches[T](0, 0))}, nil, nil, solver.Done, 8},
		{"constant 0", []solver.Event[T]{{G: func(float64, []T, []T) float64 { return 0 }, Terminal: true}}, nil, nil, solver.Done, 8},
		{"of the time alone", []solver.Event[T]{resets(solver.Event[T]{G: func(at float64, _, _ []T) float64 { return math.Sin(math.Pi * at / 3) }}, zero)},
			[]int{0, 0}, []float64{3, 6}, solver.Done, 2},
	} {
		for _, set := range []solver.Settings{{Method: solver.Midpoint, Step: 0.25}, {FirstStep: 8}, {Method: solver.RK4, Step: 0.3}, {Method: solver.Vern7}} {
			if strings.HasSuffix(c.name, "at the end") && set.Method != solver.Midpoint {
				continue // rounding decides whether it gets to 8
			}
			s := open(t, clockwork[T](1), perSample(set), c.events...)
			sol, err := s.Solve(background, []T{0}, []float64{0, 8})
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if len(sol.Events[0]) != len(c.when) {
				t.Fatalf("%s, %s: events %+v", c.name, sol.Method, sol.Events[0])
			}
			wantEvents(t, c.name, sol.Events[0], tol, c.which, c.when)
			if sol.Status[0] != c.status || !(math.Abs(float64(sol.Y[1])-c.final) <= 10*tol) && c.final == c.final || c.final != c.final && sol.Y[1] == sol.Y[1] {
				t.Errorf("%s: %v at %g, want %v at %g", c.name, sol.Status[0], sol.Y[1], c.status, c.final)
			}
			if c.status == solver.Stopped && sol.Stats[0].T != sol.Events[0][len(c.when)-1].T {
				t.Errorf("%s: stopped at %g, not where the event is", c.name, sol.Stats[0].T)
			}
		}
	}
}

// Two walls at once: a ball that flies into the corner comes back from both.
func TestEvent_Corner(t *testing.T) {
	t.Run("float32", testCorner[float32])
	t.Run("float64", testCorner[float64])
}

func testCorner[T backend.Float](t *testing.T) {
	fly := custom(4, func(_ float64, z, _, dz []T) { dz[0], dz[1], dz[2], dz[3] = z[2], z[3], 0, 0 })
	wall := func(i int) solver.Event[T] {
		e := resets(reaches[T](i, 0), func(z []T) { z[2+i] = -z[2+i] })
		e.Direction = solver.Falling
		return e
	}
	s := open(t, fly, perSample(solver.Settings{FirstStep: 2}), wall(0), wall(1))
	for _, start := range []T{1, 0.3, 0.7} { // of some no digit of the time says which wall is first
		for _, v := range []T{1, 0.9, 0.3} {
			sol, err := s.Solve(background, []T{start, start, -v, -v}, []float64{0, 10})
			if err != nil || len(sol.Events[0]) != 2 || sol.Events[0][0].Event == sol.Events[0][1].Event {
				t.Errorf("from %g: %v, %+v", start, err, sol.Events[0])
				continue
			}
			if z := sol.Final(); z[2] != v || z[3] != v || math.Abs(float64(z[0]-(10*v-start))) > 1e-5 {
				t.Errorf("from %g with %g the ball is at %v", start, v, z)
			}
		}
	}
}

// A g that is 0 at the start counts from then on, whatever the first step.
func TestEvent_AtTheStart(t *testing.T) {
	for _, first := range []float64{0, 1e-6, 0.1, 5} {
		s := open(t, ball[float64](), perSample(solver.Settings{FirstStep: first}), terminal(reaches[float64](0, 0)))
		// Thrown up from the ground, and from below it through it.
		sol, err := s.Solve(background, []float64{0, 4, 8, -1.5, 7, 8}, []float64{0, 100})
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, fmt.Sprintf("first step %g", first), sol.Events[0], 1e-13, []int{0}, []float64{1})
		wantEvents(t, fmt.Sprintf("first step %g, from below", first), sol.Events[1], 1e-13, []int{0}, []float64{0.25})
	}
}

// Outputs at an event are the state before it, and At agrees to the last bit.
func TestEvent_Outputs(t *testing.T) {
	for _, dir := range []float64{1, -1} {
		f := custom(1, func(_ float64, _, _, dz []float64) { dz[0] = dir })
		e := resets(reaches[float64](0, 1), func(z []float64) { z[0] = 0 })
		ts := []float64{0, 0.5, 1, 1.25, 2, 3, 3.75}
		for i := range ts {
			ts[i] *= dir
		}
		// The midpoint rule is exact here to the last bit.
		s := open(t, f, perSample(solver.Settings{Method: solver.Midpoint, Step: 0.25, Dense: true}), e)
		sol, err := s.Solve(background, []float64{0}, ts)
		if err != nil {
			t.Fatal(err)
		}
		if want := []float64{0, 0.5, 1, 0.25, 1, 1, 0.75}; distance(sol.Y, want) > 1e-15 {
			t.Errorf("outputs %v, want %v", sol.Y, want)
		}
		wantEvents(t, "resets", sol.Events[0], 1e-15, []int{0, 0, 0}, []float64{dir, 2 * dir, 3 * dir})
		for i, o := range sol.Events[0] {
			before, err := sol.At(o.T)
			if err != nil || !same(before, o.Before) {
				t.Errorf("At(%g) is %v, and the state before the event %v: %v", o.T, before, o.Before, err)
			}
			behind, err := sol.At(o.T + dir/8)
			if err != nil || math.Abs(behind[0]-0.125) > 1e-15 || o.After[0] != 0 {
				t.Errorf("event %d: At(%g) is %v, want 0.125: %v", i, o.T+dir/8, behind, err)
			}
		}
		// An output at the very time of an event.
		at := sol.Events[0][1].T
		sol, err = s.Solve(background, []float64{0}, []float64{0, at, 2.5 * dir})
		if err != nil || sol.Y[1] != sol.Events[0][1].Before[0] || sol.Events[0][1].T != at || math.Abs(sol.Y[2]-0.5) > 1e-15 {
			t.Errorf("output at the event: %v, %v", sol.Y, err)
		}
		// After a terminal one there is nothing.
		sol, err = open(t, f, perSample(solver.Settings{Dense: true}), terminal(reaches[float64](0, 1.1))).Solve(background, []float64{0}, ts)
		if err != nil || sol.Status[0] != solver.Stopped || !same(sol.Y[3:], []float64{nan, nan, nan, nan}) {
			t.Errorf("terminal: %v, %v, %v", sol.Status, sol.Y, err)
		}
		_, err = sol.At(1.25 * dir)
		wantText(t, err, "sample 0 only got to", "stopped by an event")
	}
}

// What happens to one sample is nothing to the others, to the last bit.
func TestEvent_IsTheSameInAnyCompany(t *testing.T) {
	t.Run("float32", testEventCompany[float32])
	t.Run("float64", testEventCompany[float64])
}

func testEventCompany[T backend.Float](t *testing.T) {
	z0 := []T{4, 0, 8, 9, 1, 10, 1, 0, 1, 3, -1, 9.81, 50, -20, 0.5, 0.2, 0, 7}
	const n = 6
	nan := T(math.NaN())
	odd := solver.Event[T]{ // ends one sample, breaks one, resets one
		G: func(_ float64, z, _ []T) float64 { return float64(z[0]) - 2.5 },
		Reset: func(_ float64, z, _, out []T) {
			if z[2] == 9.81 {
				out[0] = nan
			}
		},
	}
	high := solver.Event[T]{G: func(_ float64, z, _ []T) float64 { return float64(z[0]) + float64(z[2]) - 5 }, Terminal: true}
	ts := grid(0, 3, 6)
	ground := bounce[T](0.7, 0)
	ground.Max = 100
	own := make([]solver.Sample, n)
	for b := range own {
		own[b].Times = grid(0, 2+float64(b)/4, 1+b)
	}
	for _, m := range []solver.Method{solver.Tsit5, solver.Vern7, solver.Dopri8, solver.RK4} {
		s := open(t, ball[T](), perSample(anySettings(m)), ground, odd, high)
		all, _ := s.Solve(background, z0, ts)
		each, _ := s.SolveEach(background, z0, own)
		statuses := map[solver.Status]int{}
		for b := range n {
			one, _ := s.Solve(background, z0[3*b:3*b+3], ts)
			if got, want := samples(all)[b], samples(one)[0]; !got.equal(want) || !sameEvents(all.Events[b], one.Events[0]) {
				t.Errorf("%s: sample %d is %+v, alone %+v", m, b, got, want)
			}
			mine, _ := s.SolveEach(background, z0[3*b:3*b+3], own[b:b+1])
			if each.Stats[b] != mine.Stats[0] || each.Status[b] != mine.Status[0] || !sameEvents(each.Events[b], mine.Events[0]) {
				t.Errorf("%s: with its own times sample %d is %+v, alone %+v", m, b, each.Stats[b], mine.Stats[0])
			}
			for i := range own[b].Times {
				if !same(each.Sample(i, b), mine.Sample(i, 0)) {
					t.Errorf("%s: with its own times sample %d has another output %d: %v", m, b, i, each.Sample(i, b))
				}
			}
			statuses[all.Status[b]]++
		}
		if len(statuses) != 4 {
			t.Errorf("%s: the batch is too simple: %v", m, statuses)
		}
	}
}

func sameEvents[T backend.Float](x, y []solver.Occurrence[T]) bool {
	return slices.EqualFunc(x, y, func(a, b solver.Occurrence[T]) bool {
		return a.Event == b.Event && a.T == b.T && a.Cut == b.Cut && a.X == b.X && a.H == b.H && same(a.Before, b.Before) && same(a.After, b.After)
	})
}

// No event, no list of events, and a span without length.
func TestEvent_Lists(t *testing.T) {
	s := open(t, ball[float64](), perSample(solver.Settings{}), bounce[float64](0.5, 0))
	for _, ts := range [][]float64{{0}, {1, 1}, {0, 1e-3}} {
		sol, err := s.Solve(background, []float64{4, 0, 8, 1, 0, 8}, ts)
		if err != nil || len(sol.Events) != 2 || len(sol.Events[0])+len(sol.Events[1]) != 0 {
			t.Errorf("%v: %v, %v", ts, sol.Events, err)
		}
	}
	sol, err := open(t, ball[float64](), perSample(solver.Settings{})).Solve(background, []float64{4, 0, 8}, []float64{0, 1})
	if err != nil || sol.Events != nil {
		t.Errorf("%v, %v", sol.Events, err)
	}
	if got := fmt.Sprint(solver.Either, solver.Rising, solver.Falling, solver.Direction(7)); got != "either rising falling Direction(7)" {
		t.Error(got)
	}
}

// uncut is a backend that cannot cut steps.
type uncut struct{ backend.Backend[float64] }

func TestEvent_RefusesBadInput(t *testing.T) {
	g := reaches[float64](0, 1).G
	dev := cpu.New[float64]()
	defer dev.Close()
	for _, c := range []struct {
		name string
		dev  backend.Backend[float64]
		set  solver.Settings
		e    solver.Event[float64]
		text []string
	}{
		{"joint", dev, solver.Settings{}, solver.Event[float64]{G: g}, []string{"events belong to single samples", "Settings.Stepping to PerSample"}},
		{"no G", dev, perSample(solver.Settings{}), solver.Event[float64]{Name: "x"}, []string{"event 1 (x) has no G", "set it"}},
		{"direction", dev, perSample(solver.Settings{}), solver.Event[float64]{G: g, Direction: 3}, []string{"event 1 has Direction 3", "Falling"}},
		{"terminal with a reset", dev, perSample(solver.Settings{}), terminal(bounce[float64](1, 1)), []string{"event 1 (ground) is terminal and has a Reset", "one of the two"}},
		{"Max", dev, perSample(solver.Settings{}), solver.Event[float64]{G: g, Max: -1}, []string{"event 1 has Max -1", "positive"}},
		{"θ", dev, perSample(solver.Settings{}), bounce[float64](0, nan), []string{"parameter 1 of event 1 (ground) is NaN", "finite"}},
		{"backend", uncut{dev}, perSample(solver.Settings{}), solver.Event[float64]{G: g}, []string{"events on cpu", "use a cpu backend"}},
	} {
		s, err := solver.New(c.dev, clockwork[float64](1), c.set, reaches[float64](0, 1), c.e)
		if s != nil {
			t.Errorf("%s: returned a solver", c.name)
		}
		wantText(t, err, append(c.text, "solver: ")...)
	}
	if n := dev.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
	defer func() {
		if r := recover(); r != "solver: NewEvent needs its functions at both types" {
			t.Error(r)
		}
	}()
	solver.NewEvent[float64](nil, func(_ float64, z, _ []float64) float64 { return z[0] }, nil, nil, nil)
}
