package solver_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// part is what a solution of SolveEach says about one sample.
func part[T backend.Float](sol *solver.Solution[T], b int) sample[T] {
	s := sample[T]{stats: sol.Stats[b], status: sol.Status[b]}
	for i := range sol.SampleTimes(b) {
		s.y = append(s.y, sol.Sample(i, b)...)
	}
	return s
}

// ragged are samples that differ in everything a sample can say.
func ragged() []solver.Sample {
	return []solver.Sample{
		{Times: grid(0, 1.5, 4)},
		{Times: grid(1, -0.5, 7)},                             // backwards
		{Times: []float64{0.25, 0.75}, RTol: 1e-9, ATol: 0.5}, // hardly any tolerance for its size
		{Times: []float64{2}},                                 // no span
		{Times: grid(-0.5, 2, 31), RTol: 1e-8, ATol: 1e-9},
		{Times: []float64{0, 1.2}, FirstStep: 0.3, MaxStep: 0.35},
		{Times: grid(1, 0.1, 3), Breakpoints: []float64{0.3, 0.7, 5}, FirstStep: 1e-3},
		{Times: []float64{1, 1}}, // no span
		{Times: []float64{1, math.Nextafter(1, 2)}},
		{Times: grid(0, 2, 9), RTol: 1e-3, ATol: 1e-3, MaxStep: 10},
	}
}

// TestSolveEach_IsAsAlone solves samples together, alone as one of a batch, and by
// Solve, which all have the same answer to the last bit.
func TestSolveEach_IsAsAlone(t *testing.T) {
	t.Run("float32", testEach[float32])
	t.Run("float64", testEach[float64])
}

func testEach[T backend.Float](t *testing.T) {
	list := ragged()
	z0 := initial[T](len(list), rand.New(rand.NewPCG(3, 3)))
	for name, sys := range systems[T](t) {
		for _, m := range solver.Methods() {
			set := perSample(anySettings(m))
			if set.Step > 0 {
				set.Step = 0.05
			}
			set.Breakpoints = []float64{0.4}
			s := open(t, sys, set)
			all, err := s.SolveEach(background, z0, list)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, m, err)
			}
			if all.Times != nil || len(all.Samples) != len(list) || len(all.Final()) != len(z0) {
				t.Errorf("%s, %s: %+v", name, m, all)
			}
			row := 0
			for b, x := range list {
				mine := z0[2*b : 2*b+2]
				got := part(all, b)
				if x.FirstStep > 0 && m.Adaptive() {
					// While the others choose their first steps, by two evaluations, it waits but
					// for its own.
					got.stats.Evaluations -= 2
				}
				if all.Row(0, b) != row || !slices.Equal(all.SampleTimes(b), x.Times) || !same(all.Sample(0, b), mine) {
					t.Errorf("%s, %s: sample %d lies at row %d, want %d, with times %v, from %v", name, m, b, all.Row(0, b), row, all.SampleTimes(b), all.Sample(0, b))
				}
				row += len(x.Times)
				one, err := s.SolveEach(background, mine, list[b:b+1])
				if err != nil || !got.equal(part(one, 0)) {
					t.Errorf("%s, %s: sample %d is %+v, alone %+v, %v", name, m, b, got, part(one, 0), err)
				}
				end := x.Times[len(x.Times)-1]
				if got.status != solver.Done || got.stats.T != end || !same(all.Final()[2*b:2*b+2], all.Sample(len(x.Times)-1, b)) {
					t.Errorf("%s, %s: sample %d is %v at %g", name, m, b, got.status, got.stats.T)
				}
				if x.MaxStep > 0 && math.Abs(got.stats.LastH) > x.MaxStep*(1+1e-8) {
					t.Errorf("%s, %s: sample %d made a step of %g, above %g", name, m, b, got.stats.LastH, x.MaxStep)
				}
			}
			if len(all.Y) != 2*row {
				t.Errorf("%s, %s: %d elements of output for %d times", name, m, len(all.Y), row)
			}
			if name != "Go" {
				continue
			}
			// What a sample says of itself is what Settings say of a solve.
			for b, x := range list {
				same := set
				same.Breakpoints = slices.Concat(set.Breakpoints, x.Breakpoints)
				if x.RTol > 0 {
					same.RTol, same.ATol = x.RTol, x.ATol
				}
				same.FirstStep, same.MaxStep = x.FirstStep, x.MaxStep
				sol, err := open(t, sys, same).Solve(background, z0[2*b:2*b+2], x.Times)
				got, want := part(all, b), samples(sol)[0]
				got.stats.Evaluations = want.stats.Evaluations
				if err != nil || !got.equal(want) {
					t.Errorf("%s: sample %d is %+v, by Solve %+v, %v", m, b, got, want, err)
				}
			}
		}
	}
}

// TestSolveEach_Exact compares with the solution of a linear system.
func TestSolveEach_Exact(t *testing.T) {
	decay := custom(1, func(at float64, z, _, dz []float64) { dz[0] = -z[0] + math.Cos(at) + math.Sin(at) })
	s := open(t, decay, perSample(solver.Settings{RTol: 1e-9, ATol: 1e-10, Dense: true}))
	list := ragged()
	list[2].RTol, list[2].ATol = 0, 0
	list[9].RTol, list[9].ATol = 0, 0
	z0 := make([]float64, len(list))
	for b := range z0 {
		z0[b] = float64(b) - 3
	}
	// z = sin t + (z0 - sin t0)·exp(t0 - t)
	exact := func(b int, at float64) float64 {
		t0 := list[b].Times[0]
		return math.Sin(at) + (z0[b]-math.Sin(t0))*math.Exp(t0-at)
	}
	sol, err := s.SolveEach(background, z0, list)
	if err != nil {
		t.Fatal(err)
	}
	for b, x := range list {
		for i, at := range x.Times {
			if d := math.Abs(sol.Sample(i, b)[0] - exact(b, at)); d > 1e-7 {
				t.Errorf("sample %d at %g is off by %.1g", b, at, d)
			}
		}
	}
	// The steps of each are kept: At is within the spans of all samples, or none.
	some := []int{0, 1, 4, 9} // these have [0, 1] in common
	var z []float64
	var pick []solver.Sample
	for _, b := range some {
		z, pick = append(z, z0[b]), append(pick, list[b])
	}
	if sol, err = s.SolveEach(background, z, pick); err != nil {
		t.Fatal(err)
	}
	for _, at := range []float64{0, 0.3, 1} {
		y, err := sol.At(at)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range some {
			if d := math.Abs(y[i] - exact(b, at)); d > 1e-7 {
				t.Errorf("At(%g) of sample %d is off by %.1g", at, b, d)
			}
		}
	}
	_, err = sol.At(1.25)
	wantText(t, err, "At(1.25) is outside the span from 1 to -0.5", "longer span")
}

// TestSolveEach_Failures: good and failing samples together, in every way of failing.
func TestSolveEach_Failures(t *testing.T) {
	t.Run("float32", testEachFailures[float32])
	t.Run("float64", testEachFailures[float64])
}

func testEachFailures[T backend.Float](t *testing.T) {
	nan := T(math.NaN())
	// The second component says what happens to the first: it decays, turns NaN at
	// t = 0.5, blows up at t = 1, is far too stiff, or is NaN from the start.
	sys := custom(2, func(at float64, z, _, dz []T) {
		dz[0], dz[1] = -z[0], 0
		switch {
		case z[1] == 1 && math.Abs(at) > 0.5, z[1] == 4:
			dz[0] = nan
		case z[1] == 2:
			dz[0] = z[0] * z[0]
		case z[1] == -2:
			dz[0] = -z[0] * z[0] // backwards
		case z[1] == 3:
			dz[0] = -1e6 * (z[0] - T(math.Cos(at)))
		}
	})
	kinds := []T{0, 1, 0, 2, 3, 0, 4, -2, 0, 1}
	want := []solver.Status{solver.Done, solver.NotFinite, solver.Done, solver.StepTooSmall, solver.TooManyAttempts,
		solver.Done, solver.NotFinite, solver.StepTooSmall, solver.Done, solver.NotFinite}
	reach := []float64{2, 0.5, -1, 1, 0.1, 1.5, 0, -1, 3, -0.5}
	z0, list := make([]T, 2*len(kinds)), make([]solver.Sample, len(kinds))
	for b, kind := range kinds {
		z0[2*b], z0[2*b+1] = 1, kind
		list[b].Times = grid(0, math.Copysign(2, reach[b]), 5+b)
	}
	list[5].Times, list[8].Times = grid(0, 1.5, 3), grid(1, 3, 40)
	list[2].Times = grid(0, -1, 4)
	s := open(t, sys, perSample(solver.Settings{MaxAttempts: 400, MinStep: 1e-7, Dense: true}))
	sol, err := s.SolveEach(background, z0, list)
	var failed *solver.Error
	if !errors.As(err, &failed) || len(failed.Failures) != 6 || failed.Samples != len(kinds) {
		t.Fatal(err)
	}
	for _, f := range failed.Failures {
		if f.Status != sol.Status[f.Sample] || f.T != sol.Stats[f.Sample].T || f.Joint {
			t.Errorf("%+v", f)
		}
	}
	for b := range kinds {
		got := part(sol, b)
		if at := got.stats.T; got.status != want[b] || math.Abs(at-reach[b]) > 0.11 {
			t.Errorf("sample %d is %v at %g, want %v at about %g", b, got.status, at, want[b], reach[b])
		}
		one, _ := s.SolveEach(background, z0[2*b:2*b+2], list[b:b+1])
		if !got.equal(part(one, 0)) {
			t.Errorf("sample %d is %+v, alone %+v", b, got, part(one, 0))
		}
		for i, at := range list[b].Times {
			if reached := sol.Reached(i, b); (sol.Sample(i, b)[0] == sol.Sample(i, b)[0]) != reached || reached != (math.Abs(at-list[b].Times[0]) <= math.Abs(got.stats.T-list[b].Times[0])) {
				t.Errorf("sample %d got to %g and is %v at %g", b, got.stats.T, sol.Sample(i, b), at)
			}
		}
	}
	// Cancelled before it begins: all at their starts.
	ctx, cancel := context.WithCancel(background)
	cancel()
	sol, err = s.SolveEach(ctx, z0, list)
	if !errors.Is(err, solver.Cancelled) || !errors.Is(err, context.Canceled) || !same(sol.Sample(0, 8), z0[16:18]) || sol.Evaluations() != 0 {
		t.Errorf("%v", err)
	}
}

// TestSolveEach_Memory: the device holds one row for every output of a sample.
func TestSolveEach_Memory(t *testing.T) {
	const batch, dim = 64, 3
	dev := cpu.New[float64]()
	defer dev.Close()
	used := func(outputs func(b int) int) int64 {
		s, err := solver.New(dev, clockwork[float64](dim), perSample(solver.Settings{}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		list := make([]solver.Sample, batch)
		for b := range list {
			list[b].Times = grid(0, 1, outputs(b))
		}
		sol, err := s.SolveEach(background, make([]float64, batch*dim), list)
		if err != nil {
			t.Fatal(err)
		}
		if len(sol.Y) != cap(sol.Y) {
			t.Errorf("the solution holds %d elements for %d", cap(sol.Y), len(sol.Y))
		}
		return dev.MemoryUsed()
	}
	few := used(func(int) int { return 1 })
	// One sample with all outputs, or all samples with the same number, is the same.
	one := used(func(b int) int { return max(1, 10_000*(b/63)) })
	each := used(func(b int) int {
		if b < 10 {
			return 1001
		}
		return 1
	})
	for _, c := range []struct {
		got   int64
		extra int64
	}{{one, 9_999}, {each, 10_000}} {
		if c.got-few != c.extra*dim*8 {
			t.Errorf("%d bytes for %d outputs more, want %d", c.got-few, c.extra, c.extra*dim*8)
		}
	}
}

// TestSolveEach_FinishedSamplesCostNothing counts the rows of f that are evaluated on a
// mix of easy and hard samples.
func TestSolveEach_FinishedSamplesCostNothing(t *testing.T) {
	const n = 24
	count := 0
	// z = [state, rate]
	sys := custom(2, func(at float64, z, _, dz []float64) {
		count++
		dz[0], dz[1] = -z[1]*(z[0]-math.Cos(at)), 0
	})
	z0, list := make([]float64, 2*n), make([]solver.Sample, n)
	for b := range list {
		z0[2*b], z0[2*b+1] = 2, math.Exp2(float64(b%12)) // up to 2048: hundreds of times the steps
		list[b].Times = grid(0, 1+float64(b%5), 1+b%7)
	}
	list[5].Times = []float64{0}
	for _, m := range []solver.Method{solver.Tsit5, solver.Dopri5, solver.Dopri8, solver.Bosh3} {
		s := open(t, sys, perSample(solver.Settings{Method: m}))
		alone := 0
		for b := range list {
			count = 0
			if _, err := s.SolveEach(background, z0[2*b:2*b+2], list[b:b+1]); err != nil {
				t.Fatal(err)
			}
			alone += count
		}
		count = 0
		sol, err := s.SolveEach(background, z0, list)
		if err != nil {
			t.Fatal(err)
		}
		var said int64
		for _, st := range sol.Stats {
			said += st.Evaluations
		}
		if count != alone || said != int64(count) {
			t.Errorf("%s: %d rows were evaluated together, %d alone, and the statistics say %d", m, count, alone, said)
		}
		if joint := int64(n) * sol.Evaluations(); int64(count)*4 > joint {
			t.Errorf("%s: the batch is too even: %d evaluations of %d", m, count, joint)
		}
	}
}

// TestPerSample_VanDerPol: relaxation oscillators do not pull each other's steps down, as
// they do in a joint batch, of which one always jumps. The most that a sample takes was
// 690 steps of Tsit5 and 724 of Dopri5, rejected ones counted.
func TestPerSample_VanDerPol(t *testing.T) {
	const n, mu, most = 256, 25, 760
	vdp := custom(2, func(_ float64, z, _, dz []float64) { dz[0], dz[1] = z[1], mu*(1-z[0]*z[0])*z[1]-z[0] })
	set := perSample(solver.Settings{RTol: 1e-5, ATol: 1e-5})
	// Phases over the cycle: states along the limit cycle, whose period is about 44.
	cycle := grid(0, 44, n-1)
	orbit, err := open(t, vdp, solver.Settings{RTol: 1e-9, ATol: 1e-9}).Solve(background, []float64{2, 0}, []float64{0, 44})
	if err != nil {
		t.Fatal(err)
	}
	start, err := open(t, vdp, solver.Settings{RTol: 1e-9, ATol: 1e-9}).Solve(background, orbit.Final(), cycle)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []solver.Method{solver.Tsit5, solver.Dopri5} {
		set.Method = m
		sol, err := open(t, vdp, set).Solve(background, start.Y, grid(0, 44, 199))
		if err != nil {
			t.Fatal(err)
		}
		worst := int64(0)
		for _, st := range sol.Stats {
			worst = max(worst, st.Accepted+st.Rejected)
		}
		joint, err := open(t, vdp, solver.Settings{Method: m, RTol: 1e-5, ATol: 1e-5}).Solve(background, start.Y, []float64{0, 44})
		if err != nil {
			t.Fatal(err)
		}
		if st := joint.Stats[0]; st.Accepted+st.Rejected < 5*worst {
			t.Errorf("%s: the phases are not spread: %d steps jointly, %d alone", m, st.Accepted+st.Rejected, worst)
		}
		if worst > most {
			t.Errorf("%s: a sample takes %d steps, want no more than %d", m, worst, most)
		}
	}
}

func TestSolveEach_RefusesBadInput(t *testing.T) {
	sys := problems.System[float64](problems.LotkaVolterra())
	s := open(t, sys, perSample(solver.Settings{MinStep: 1e-3, Breakpoints: []float64{0.5}}))
	span := []float64{0, 1}
	good := solver.Sample{Times: span}
	for _, c := range []struct {
		name string
		z0   []float64
		bad  solver.Sample
		text []string
	}{
		{"no times", nil, solver.Sample{}, []string{"sample 1: no times", "t0"}},
		{"NaN time", nil, solver.Sample{Times: []float64{0, nan}}, []string{"sample 1: Times[1] is NaN", "finite"}},
		{"infinite time", nil, solver.Sample{Times: []float64{inf}}, []string{"sample 1: Times[0] is +Inf"}},
		{"not monotone", nil, solver.Sample{Times: []float64{0, 1, 3, 2}}, []string{"sample 1: Times is not monotone at index 3", "2 after 3", "sort"}},
		{"turning", nil, solver.Sample{Times: []float64{0, -1, 1}}, []string{"sample 1: Times is not monotone at index 2"}},
		{"doubles", nil, solver.Sample{Times: []float64{1, 1, 1}}, []string{"sample 1: Times is not monotone at index 1", "doubles"}},
		{"span beyond float64", nil, solver.Sample{Times: []float64{-1e308, 1e308}}, []string{"sample 1: the span", "rescale the time"}},
		{"negative RTol", nil, solver.Sample{Times: span, RTol: -1, ATol: 1}, []string{"sample 1: RTol is -1", "not negative"}},
		{"NaN ATol", nil, solver.Sample{Times: span, RTol: 1, ATol: nan}, []string{"sample 1: ATol is NaN"}},
		{"one tolerance", nil, solver.Sample{Times: span, ATol: 1e-3}, []string{"sample 1: RTol is 0 and ATol 0.001", "both"}},
		{"negative FirstStep", nil, solver.Sample{Times: span, FirstStep: -0.1}, []string{"sample 1: FirstStep is -0.1"}},
		{"infinite MaxStep", nil, solver.Sample{Times: span, MaxStep: inf}, []string{"sample 1: MaxStep is +Inf"}},
		{"MaxStep below MinStep", nil, solver.Sample{Times: span, MaxStep: 1e-4}, []string{"sample 1: MaxStep is 0.0001, below Settings.MinStep, 0.001", "longer"}},
		{"NaN breakpoint", nil, solver.Sample{Times: span, Breakpoints: []float64{0, nan}}, []string{"sample 1: Breakpoints[1] is NaN"}},
		{"no state", []float64{1, 1}, good, []string{"z0 has 2 elements and samples 2 entries", "z0 as [2, 2]"}},
		{"part of a state", []float64{1, 1, 1}, good, []string{"z0 has 3 elements", "z0 as [2, 2]"}},
		{"NaN state", []float64{1, 1, 1, nan}, good, []string{"z0 of sample 1, component 1, is NaN", "finite"}},
	} {
		if c.z0 == nil {
			c.z0 = []float64{1, 1, 1, 1}
		}
		sol, err := s.SolveEach(background, c.z0, []solver.Sample{good, c.bad})
		if sol != nil {
			t.Errorf("%s: returned a solution", c.name)
		}
		wantText(t, err, append(c.text, "solver: ")...)
	}
	sol, err := s.SolveEach(background, nil, nil)
	if sol != nil {
		t.Error("no samples: returned a solution")
	}
	wantText(t, err, "solver: ", "at least one sample")
	var none context.Context
	_, err = s.SolveEach(none, []float64{1, 1}, []solver.Sample{good})
	wantText(t, err, "nil context", "context.Background()")
	_, err = open(t, sys, solver.Settings{}).SolveEach(background, []float64{1, 1}, []solver.Sample{good})
	wantText(t, err, "solver: ", "Settings.Stepping to PerSample")
	_, err = open(t, sys, perSample(solver.Settings{Method: solver.RK4, Step: 0.1})).
		SolveEach(background, []float64{1, 1}, []solver.Sample{{Times: span, MaxStep: 0.01}})
	wantText(t, err, "sample 0: MaxStep is 0.01, below Settings.MinStep, 0, or Step, 0.1")
	// The caller's samples are not changed, and not kept.
	own := []solver.Sample{{Times: []float64{0, 1}, Breakpoints: []float64{0.7, 0.2}}}
	sol, err = s.SolveEach(background, []float64{1, 1}, own)
	if err != nil || own[0].Breakpoints[0] != 0.7 {
		t.Fatal(err, own)
	}
	own[0].Times[1] = 9
	if sol.SampleTimes(0)[1] != 1 {
		t.Error("the solution shares memory with the caller's samples")
	}
	defer func() {
		if r := recover(); r != "solver: there is no common state where samples have their own times; use Sample" {
			t.Error(r)
		}
	}()
	sol.State(0)
}
