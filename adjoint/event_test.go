package adjoint_test

import (
	"math"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// ball falls: z = [height, velocity, gravity].
func ball[T field.Number](_ T, z, th, dz []T) {
	dz[0], dz[1], dz[2] = z[1], -z[2]-th[0]*z[1], 0*z[2]
}

func height[T field.Number](_ T, z, th []T) T { return z[0] - th[1] }

// bounce loses a part of the speed.
func bounce[T field.Number](_ T, z, th, out []T) { out[1] = -th[0] * z[1] }

func bouncing(restitution, floor float64) solver.Event[float64] {
	e := solver.NewEvent([]float64{restitution, floor}, height[float64], height[field.Dual], bounce[float64], bounce[field.Dual])
	e.Direction = solver.Falling
	return e
}

// A ball with an event at the ground: its time and the derivative of that are known.
func TestEvent_GradientOfItsTime(t *testing.T) {
	e := bouncing(0, 0)
	e.Terminal, e.Reset = true, nil
	s := newSolver(t, field.New(3, []float64{0}, ball[float64], ball[field.Dual]), solver.Settings{Stepping: solver.PerSample}, e)
	sol := solve(t, s, []float64{10, 0, 8, 5, 1, 10}, []float64{0, 1, 20})
	o := sol.Events[0][0]
	if sol.Status[0] != solver.Stopped || len(sol.Events[0]) != 1 || math.Abs(o.T-1.5811388300842) > 1e-12 || math.Abs(o.Before[1]+12.649110640674) > 1e-11 {
		t.Fatalf("%v, %+v", sol.Status[0], sol.Events[0])
	}
	if !math.IsNaN(sol.Sample(2, 0)[0]) {
		t.Error("there is an output after the end")
	}
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	g, err := a.GradientsEvents(ctx, sol, make([]float64, len(sol.Y)), [][]adjoint.EventCotangent[float64]{{{T: 1}}, {{}}})
	if err != nil {
		t.Fatal(err)
	}
	// t = √(2·x0/g)
	closeTo(t, "dt/dz0", g.Z0, []float64{.0790569415042, 1. / 8, -1.5811388300842 / 16, 0, 0, 0}, 1e-10)
	closeTo(t, "dt/d(floor)", g.Events[0], []float64{0, -.0790569415042}, 1e-10)

	bad := make([]float64, len(sol.Y))
	bad[len(bad)-6] = 1
	_, err = a.Gradients(ctx, sol, bad)
	wants(t, err, "time 20 of sample 0", "GradientsEvents")
	_, err = a.GradientsEvents(ctx, sol, make([]float64, len(sol.Y)), [][]adjoint.EventCotangent[float64]{{{T: 1}}})
	wants(t, err, "1 entries", "2 samples")
}

// Ten bounces, each sample with its own gravity, drag, restitution and floor: the
// gradient of the outputs in between, of the bounces' times and of the states around
// them against differences.
func TestEvent_GradientThroughBounces(t *testing.T) {
	theta := []float64{0.05}
	z0 := []float64{1, 0.3, 9.81, 1.5, -0.2, 3.7, 0.8, 0.1, 20}
	e := bouncing(0.93, 0.05)
	e.Max = 10
	const batch = 3
	samples := make([]solver.Sample, batch)
	set := solver.Settings{Stepping: solver.PerSample, Method: solver.Dopri8, RTol: 1e-12, ATol: 1e-13}
	s := newSolver(t, field.New(3, theta, ball[float64], ball[field.Dual]), set, e)
	for b := range samples {
		samples[b].Times = []float64{0, 100}
	}
	sol, _ := s.SolveEach(ctx, z0, samples) // to find the time of the tenth bounce
	for b := range samples {
		if n := len(sol.Events[b]); n != 10 || sol.Status[b] != solver.TooManyEvents {
			t.Fatalf("%d bounces, %v", n, sol.Status[b])
		}
		last := sol.Events[b][9].T
		samples[b].Times = []float64{0, 0.3 * last, 0.5 * last, 1.02 * last}
	}
	value := func() (float64, *solver.Solution[float64], []float64, [][]adjoint.EventCotangent[float64]) {
		if err := s.SetParams(theta); err != nil {
			t.Fatal(err)
		}
		sol, err := s.SolveEach(ctx, z0, samples)
		if err != nil {
			t.Fatal(err)
		}
		dLdz, cot := make([]float64, len(sol.Y)), make([][]adjoint.EventCotangent[float64], batch)
		sum := 0.0
		for i, y := range sol.Y {
			w := math.Sin(float64(i))
			sum += w * y
			dLdz[i] = w
		}
		for b, found := range sol.Events {
			if len(found) != 10 {
				t.Fatalf("%d bounces", len(found))
			}
			for i, o := range found {
				w := math.Cos(float64(i + 3*b))
				sum += w*o.T + 2*w*o.After[1] + w*w*o.Before[1]
				cot[b] = append(cot[b], adjoint.EventCotangent[float64]{T: w, After: []float64{0, 2 * w, 0}, Before: []float64{0, w * w, 0}})
			}
		}
		return sum, sol, dLdz, cot
	}
	for _, store := range []adjoint.Store{adjoint.Stages, adjoint.States} {
		a, err := adjoint.New(s, adjoint.Settings{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		_, sol, dLdz, cot := value()
		g, err := a.GradientsEvents(ctx, sol, dLdz, cot)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		only := func() float64 { v, _, _, _ := value(); return v }
		closeTo(t, "dL/dz0", g.Z0, differences(z0, 1e-5, only), 1e-6)
		closeTo(t, "dL/dθ", g.Theta, differences(theta, 1e-5, only), 1e-6)
		closeTo(t, "dL/d(restitution, floor)", g.Events[0], differences(e.Theta, 1e-5, only), 1e-6)
	}
}

// An event that is only noted has a gradient of its time and its state.
func TestEvent_GradientOfACrossing(t *testing.T) {
	f := field.New(2, []float64{1}, pendulum[float64], pendulum[field.Dual])
	cross := solver.NewEvent([]float64{0.25}, level[float64], level[field.Dual], nil, nil)
	s := newSolver(t, f, solver.Settings{Stepping: solver.PerSample, RTol: 1e-11, ATol: 1e-11}, cross)
	z0, ts := []float64{1, 0, 0.5, 0.3}, []float64{0, 12}
	value := func() (float64, *solver.Solution[float64], [][]adjoint.EventCotangent[float64]) {
		sol := solve(t, s, z0, ts)
		sum, cot := 0.0, make([][]adjoint.EventCotangent[float64], 2)
		for b, found := range sol.Events {
			if len(found) < 3 {
				t.Fatalf("%d crossings", len(found))
			}
			for i, o := range found {
				w := float64(i + 1 + b)
				sum += w*o.T + o.Before[1]*w + o.After[0]
				cot[b] = append(cot[b], adjoint.EventCotangent[float64]{T: w, Before: []float64{0, w}, After: []float64{1, 0}})
			}
		}
		return sum, sol, cot
	}
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_, sol, cot := value()
	g, err := a.GradientsEvents(ctx, sol, make([]float64, len(sol.Y)), cot)
	if err != nil {
		t.Fatal(err)
	}
	only := func() float64 { v, _, _ := value(); return v }
	closeTo(t, "dL/dz0", g.Z0, differences(z0, 1e-5, only), 1e-7)
	closeTo(t, "dL/d(level)", g.Events[0], differences(cross.Theta, 1e-5, only), 1e-7)

	c, err := adjoint.New(s, adjoint.Settings{Method: adjoint.Continuous})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.GradientsEvents(ctx, sol, make([]float64, len(sol.Y)), cot)
	wants(t, err, "continuous", "use Discrete")
}

// Forward sensitivities through the same events: every derivative along random
// directions equals that of the discrete adjoint, whose steps are the same.
func TestEvent_SensitivityMatchesAdjoint(t *testing.T) {
	e := bouncing(0.9, 0.05)
	noted := solver.NewEvent([]float64{0.3}, level[float64], level[field.Dual], nil, nil)
	set := solver.Settings{Stepping: solver.PerSample, RTol: 1e-8, ATol: 1e-9}
	s := newSolver(t, field.New(3, []float64{0.05}, ball[float64], ball[field.Dual]), set, e, noted)
	z0 := []float64{1, 0.3, 9.81, 1.5, -0.2, 3.7}
	samples := []solver.Sample{{Times: []float64{0, 0.9, 1.3, 2}}, {Times: []float64{0, 2.2, 3}}}
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	sol, err := a.SolveEach(ctx, z0, samples)
	if err != nil {
		t.Fatal(err)
	}
	dLdz, cot := make([]float64, len(sol.Y)), make([][]adjoint.EventCotangent[float64], 2)
	for i := range dLdz {
		dLdz[i] = math.Sin(float64(i))
	}
	for b, found := range sol.Events {
		if len(found) < 4 {
			t.Fatalf("%d events", len(found))
		}
		for i := range found {
			w := math.Cos(float64(i + 3*b))
			cot[b] = append(cot[b], adjoint.EventCotangent[float64]{T: w, Before: []float64{1, w, 0}, After: []float64{0, 2 * w, w}})
		}
	}
	g, err := a.GradientsEvents(ctx, sol, dLdz, cot)
	if err != nil {
		t.Fatal(err)
	}
	v, err := adjoint.NewSensitivity(s, adjoint.SensitivitySettings{NoErrorControl: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	dirs := []adjoint.Tangent[float64]{
		{Z0: []float64{1, -0.5, 0.3, 0.2, 1, -1}, Theta: []float64{0.7}, Events: [][]float64{{0.3, -0.4}, {0.5}}},
		{Events: [][]float64{nil, {1}}}, {Z0: []float64{0, 0, 1, 0, 0, 0}},
	}
	tan, err := v.SolveEach(ctx, z0, samples, dirs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tan.Derivatives(dLdz)
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	for m, dir := range dirs {
		for b := range cot {
			for i, c := range cot[b] {
				e := tan.Events[m][b][i]
				got[m] += c.T * e.T
				for j := range 3 {
					got[m] += c.Before[j]*e.Before[j] + c.After[j]*e.After[j]
				}
			}
		}
		sum := 0.0
		for i, x := range dir.Z0 {
			sum += x * g.Z0[i]
		}
		for i, x := range dir.Theta {
			sum += x * g.Theta[i]
		}
		for k, q := range dir.Events {
			for i, x := range q {
				sum += x * g.Events[k][i]
			}
		}
		want = append(want, sum)
	}
	closeTo(t, "dL along directions", got, want, 1e-10)
	_, err = v.SolveEach(ctx, z0, samples, []adjoint.Tangent[float64]{{Events: [][]float64{{1}, {1}}}})
	wants(t, err, "Events[0] has 1 elements", "2 parameters")
}

func pendulum[T field.Number](_ T, z, th, dz []T) { dz[0], dz[1] = z[1], -th[0]*field.Sin(z[0]) }

func level[T field.Number](_ T, z, th []T) T { return z[0] - th[0] }

// A budget of memory goes together with events: the steps that are made again meet the
// events of the first time, and the gradient is the same to the last bit. One sample
// bounces, one stops at the ground, one fails at too many events, one is only watched.
func TestEvent_Budget(t *testing.T) {
	bounces, ground := bouncing(0.9, 0.05), bouncing(0, -30)
	ground.Terminal, ground.Reset, ground.Name = true, nil, "ground"
	bounces.Max = 12
	apex := solver.NewEvent[float64](nil, speed[float64], speed[field.Dual], nil, nil)
	f := field.New(3, []float64{0.05}, ball[float64], ball[field.Dual])
	for _, method := range []solver.Method{solver.Tsit5, solver.Dopri8, solver.Bosh3} {
		set := solver.Settings{Stepping: solver.PerSample, Method: method, RTol: 1e-6, ATol: 1e-8, MaxStep: 0.05}
		s := newSolver(t, f, set, bounces, ground, apex)
		z0 := []float64{1, 0.3, 9.81, -3, 2, 9.81, 0.06, 0, 90, 3, -1, 0.2}
		sol, err := s.Solve(ctx, z0, []float64{0, 0.7, 1.9, 3})
		if err == nil || sol.Status[0] != solver.Done || sol.Status[1] != solver.Stopped || sol.Status[2] != solver.TooManyEvents || sol.Status[3] != solver.Done {
			t.Fatalf("%v: %v, %v", method, sol.Status, err)
		}
		a, cot := make([]float64, len(sol.Y)), make([][]adjoint.EventCotangent[float64], 4)
		for i := range sol.Y {
			if b := i / 3 % 4; sol.Reached(i/12, b) {
				a[i] = math.Sin(float64(i))
			}
		}
		for b, found := range sol.Events {
			for i := range found {
				w := math.Cos(float64(i + 3*b))
				cot[b] = append(cot[b], adjoint.EventCotangent[float64]{T: w, After: []float64{0, 2 * w, 0}, Before: []float64{0, w * w, 0}})
			}
		}
		at := func(set adjoint.Settings) *adjoint.Gradient[float64] {
			rev, err := adjoint.New(s, set)
			if err != nil {
				t.Fatal(err)
			}
			defer rev.Close()
			var g *adjoint.Gradient[float64]
			for range 2 { // the second time it solves again
				if g, err = rev.GradientsEvents(ctx, sol, a, cot); err != nil {
					t.Fatal(err)
				}
			}
			return g
		}
		want := at(adjoint.Settings{Store: adjoint.States})
		for _, part := range []float64{0.7, 0.3, 0.1} {
			budget := int64(part * float64(want.Memory))
			for _, host := range []int64{0, budget} {
				g := at(adjoint.Settings{Budget: budget, HostBudget: host})
				if !slices.Equal(g.Z0, want.Z0) || !slices.Equal(g.Theta, want.Theta) || !slices.Equal(g.Times, want.Times) || !slices.Equal(g.Events[0], want.Events[0]) || !slices.Equal(g.Events[1], want.Events[1]) {
					t.Errorf("%v, budget %d and %d: another gradient", method, budget, host)
				}
				if g.Memory > budget || g.HostMemory > host || !g.Masked[2] {
					t.Errorf("%v, budget %d and %d: %d and %d bytes, masked %v", method, budget, host, g.Memory, g.HostMemory, g.Masked)
				}
				if part < 0.5 && g.Stats[0].Evaluations <= want.Stats[0].Evaluations {
					t.Errorf("%v, budget %d: nothing is made again", method, budget)
				}
			}
		}
	}
}

func speed[T field.Number](_ T, z, _ []T) T { return z[1] }
