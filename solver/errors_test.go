package solver_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

var nan, inf = math.NaN(), math.Inf(1)

func TestSolve_RefusesBadInput(t *testing.T) {
	s := open(t, problems.System[float64](problems.LotkaVolterra()), solver.Settings{})
	good, span := []float64{1, 1}, []float64{0, 1}
	for _, c := range []struct {
		name string
		z0   []float64
		ts   []float64
		text []string
	}{
		{"empty batch", nil, span, []string{"the batch is empty", "at least one initial state"}},
		{"wrong length", []float64{1, 2, 3}, span, []string{"z0 has 3 elements", "dimension 2", "[B, 2]"}},
		{"NaN", []float64{1, 1, 2, nan}, span, []string{"z0 of sample 1, component 1, is NaN", "finite"}},
		{"infinite", []float64{inf, 1}, span, []string{"z0 of sample 0, component 0, is +Inf"}},
		{"no times", good, nil, []string{"no times", "t0"}},
		{"NaN time", good, []float64{0, nan}, []string{"ts[1] is NaN"}},
		{"infinite time", good, []float64{-inf, 0}, []string{"ts[0] is -Inf"}},
		{"not monotone", good, []float64{0, 1, 3, 2}, []string{"not monotone at index 3", "2 after 3", "sort"}},
		{"turning", good, []float64{0, -1, 1}, []string{"not monotone at index 2"}},
		{"double", good, []float64{0, 1, 1, 2}, []string{"not monotone at index 2", "doubles"}},
		{"three times the same", good, []float64{1, 1, 1}, []string{"not monotone at index 1"}},
		{"span beyond float64", good, []float64{-1e308, 1e308}, []string{"span", "rescale the time"}},
	} {
		sol, err := s.Solve(background, c.z0, c.ts)
		if sol != nil {
			t.Errorf("%s: returned a solution", c.name)
		}
		wantText(t, err, append(c.text, "solver: ")...)
	}
	var none context.Context
	sol, err := s.Solve(none, good, span)
	if sol != nil {
		t.Error("nil context: returned a solution")
	}
	wantText(t, err, "nil context", "context.Background()")
}

func TestNew_RefusesBadSettings(t *testing.T) {
	dev, sys := cpu.New[float64](), problems.System[float64](problems.LotkaVolterra())
	broken := solver.Tsit5.Tableau().Clone()
	broken.B[0] += 0.1
	for _, c := range []struct {
		name string
		set  solver.Settings
		text []string
	}{
		{"negative RTol", solver.Settings{RTol: -1}, []string{"RTol is -1", "not negative"}},
		{"NaN ATol", solver.Settings{ATol: nan}, []string{"ATol is NaN"}},
		{"infinite ATol", solver.Settings{ATol: inf}, []string{"ATol is +Inf"}},
		{"negative Step", solver.Settings{Step: -0.1}, []string{"Step is -0.1"}},
		{"negative FirstStep", solver.Settings{FirstStep: -1}, []string{"FirstStep is -1"}},
		{"negative MinStep", solver.Settings{MinStep: -1}, []string{"MinStep is -1"}},
		{"NaN MaxStep", solver.Settings{MaxStep: nan}, []string{"MaxStep is NaN"}},
		{"MinStep above MaxStep", solver.Settings{MinStep: 2, MaxStep: 1}, []string{"MinStep is 2, above MaxStep, 1"}},
		{"Step above MaxStep", solver.Settings{Step: 2, MaxStep: 1}, []string{"Step is 2, above MaxStep, 1"}},
		{"negative MaxAttempts", solver.Settings{MaxAttempts: -1}, []string{"MaxAttempts is -1", "positive"}},
		{"Safety 1", solver.Settings{Safety: 1}, []string{"Safety is 1", "below 1"}},
		{"MinFactor above 1", solver.Settings{MinFactor: 2}, []string{"MinFactor 2"}},
		{"MaxFactor below 1", solver.Settings{MaxFactor: 0.5}, []string{"MaxFactor 0.5"}},
		{"NaN Safety", solver.Settings{Safety: nan}, []string{"Safety is NaN"}},
		{"unknown Method", solver.Settings{Method: 200}, []string{"Method is 200", "tsit5", "dopri5"}},
		{"unknown Stepping", solver.Settings{Stepping: 7}, []string{"Stepping is 7", "PerSample"}},
		{"unknown Controller", solver.Settings{Controller: 7}, []string{"Controller is 7", "PID"}},
		{"NaN breakpoint", solver.Settings{Breakpoints: []float64{1, nan}}, []string{"Breakpoints[1] is NaN"}},
		{"no Step", solver.Settings{Method: solver.RK4}, []string{"rk4 has no error estimate", "set Step", "adaptive"}},
		{"wrong tableau", solver.Settings{Tableau: broken}, []string{"Tableau: ", "tsit5", "order"}},
		{"tableau without anything", solver.Settings{Tableau: &tableau.Tableau{Name: "x"}}, []string{"Tableau: ", "B is empty"}},
	} {
		s, err := solver.New(dev, sys, c.set)
		if s != nil {
			t.Errorf("%s: returned a solver", c.name)
		}
		wantText(t, err, append(c.text, "solver: Settings.")...)
	}
}

func TestNew_RefusesBadSystems(t *testing.T) {
	dev := cpu.New[float64]()
	p := problems.LotkaVolterra()
	theta := problems.System[float64](p)
	theta.Params()[2] = inf
	var noModel *mlp.Model[float64]
	var noDevice *cpu.Backend[float64]
	wide := model[float64](t, 2, 3)
	short := model[float64](t, 2, 4, 2)
	short.Theta = short.Theta[:5]
	for _, c := range []struct {
		name string
		dev  backend.Backend[float64]
		sys  backend.System[float64]
		text []string
	}{
		{"no device", nil, theta, []string{"New needs a backend", "solver.Auto"}},
		{"nil device", noDevice, theta, []string{"New needs a backend"}},
		{"no system", dev, nil, []string{"New needs", "right-hand side"}},
		{"nil model", dev, noModel, []string{"New needs", "right-hand side"}},
		{"infinite parameter", dev, theta, []string{"parameter 2 is +Inf"}},
		{"other outputs than states", dev, wide, []string{"2 to 3 components"}},
		{"parameters of another length", dev, short, []string{"Theta has length 5"}},
		{"empty model", dev, &mlp.Model[float64]{}, []string{"Widths"}},
		{"no function", dev, &field.Custom[float64]{N: 2}, []string{"Custom.F is nil"}},
		{"no components", dev, custom(0, func(float64, []float64, []float64, []float64) {}), []string{"at least one component"}},
	} {
		s, err := solver.New(c.dev, c.sys, solver.Settings{})
		if s != nil {
			t.Errorf("%s: returned a solver", c.name)
		}
		wantText(t, err, c.text...)
	}
	dev.Close()
	_, err := solver.New[float64](dev, problems.System[float64](p), solver.Settings{})
	if !errors.Is(err, backend.ErrClosed) {
		t.Errorf("on a closed device: %v", err)
	}
}

func TestSolver_AfterClose(t *testing.T) {
	p := problems.LotkaVolterra()
	s := open(t, problems.System[float64](p), solver.Settings{})
	if _, err := s.Solve(background, p.Z0, []float64{0, 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Solve(background, p.Z0, []float64{0, 1})
	wantText(t, err, "solver: ", "closed", "make a new Solver")
	_, perr := s.Params()
	for _, err := range []error{err, s.SetParams(p.Theta), perr} {
		if !errors.Is(err, backend.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	dev := cpu.New[float64]()
	s, err = solver.New(dev, problems.System[float64](p), solver.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	dev.Close()
	if sol, err := s.Solve(background, p.Z0, []float64{0, 1}); sol != nil || !errors.Is(err, backend.ErrClosed) {
		t.Errorf("on a device closed before: %v, %v", sol, err)
	}
	s.Close()
}

func TestSetParams(t *testing.T) {
	p := problems.LotkaVolterra()
	s := open(t, problems.System[float64](p), solver.Settings{})
	before, err := s.Solve(background, p.Z0, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, s.SetParams([]float64{1}), "SetParams got 1 parameters", "has 4")
	wantText(t, s.SetParams([]float64{1, 2, nan, 4}), "parameter 2 is NaN")
	theta := []float64{1, 1, 1, 1}
	if err := s.SetParams(theta); err != nil {
		t.Fatal(err)
	}
	theta[0] = 5 // a copy was taken
	got, err := s.Params()
	if err != nil || !same(got, []float64{1, 1, 1, 1}) {
		t.Errorf("Params: %v, %v", got, err)
	}
	after, err := s.Solve(background, p.Z0, []float64{0, 1})
	if err != nil || !same(after.Final(), []float64{1, 1}) { // the fixed point of these parameters
		t.Errorf("with new parameters: %v, %v", after.Final(), err)
	}
	if before.Version() == after.Version() {
		t.Error("the version did not change with the parameters")
	}
}

// TestBlowUp: z' = z² has a pole at t = 1.
func TestBlowUp(t *testing.T) {
	square := custom(1, func(_ float64, z, _, dz []float64) { dz[0] = z[0] * z[0] })
	for _, m := range adaptive() {
		sol, err := open(t, square, solver.Settings{Method: m}).Solve(background, []float64{1}, []float64{0, 0.5, 2})
		var failed *solver.Error
		if !errors.As(err, &failed) {
			t.Errorf("%s: %v", m, err)
			continue
		}
		// Where orders 1 and 2 end depends on whether the attempts or the steps give out.
		f := failed.Failures[0]
		if f.Status == solver.Done || math.Abs(f.T-1) > 0.05 || math.Abs(sol.Y[1]-2) > 0.05 || !math.IsNaN(sol.Y[2]) {
			t.Errorf("%s: %+v, outputs %v", m, f, sol.Y)
		}
		if f.Status == solver.StepTooSmall {
			wantText(t, err, "may be singular there", "end the span earlier")
		}
	}
	// A fixed step cannot shrink.
	cube := custom(1, func(_ float64, z, _, dz []float64) { dz[0] = z[0] * z[0] * z[0] })
	sol, err := open(t, cube, solver.Settings{Method: solver.RK4, Step: 0.1}).Solve(background, []float64{10}, []float64{0, 10})
	if !errors.Is(err, solver.NotFinite) || sol.Status[0] != solver.NotFinite {
		t.Errorf("fixed steps: %v", err)
	}
	wantText(t, err, "became NaN or infinite", "make a fixed Step smaller")
	// float32 overflows where float64 does not: f at t = 8.64, and before that its multiples
	// in the stages of Tsit5, whose largest coefficient is 11.6, at 8.64 - ln(11.6)/10.
	grow := custom(1, func(_ float64, z, _, dz []float32) { dz[0] = 10 * z[0] })
	set := solver.Settings{MaxAttempts: 1000} // it creeps up to the last number whose f is finite
	sol32, err := open(t, grow, set).Solve(background, []float32{1}, []float64{0, 20})
	if err == nil || sol32.Status[0] == solver.Done || !(sol32.Stats[0].T > 8.39 && sol32.Stats[0].T < 8.65) {
		t.Errorf("beyond float32: %v, %+v", err, sol32.Stats[0])
	}
}

func TestNaNFromTheStart(t *testing.T) {
	bad := custom(1, func(_ float64, _, _, dz []float64) { dz[0] = nan })
	for _, m := range solver.Methods() {
		set := anySettings(m)
		set.MinStep = 1e-12 // numbers next to 0 are far smaller
		sol, err := open(t, bad, set).Solve(background, []float64{1}, []float64{0, 1})
		if !errors.Is(err, solver.NotFinite) || sol.Stats[0].Accepted != 0 || sol.Stats[0].T != 0 || sol.Stats[0].Rejected > 40 {
			t.Errorf("%s: %v, %+v", m, err, sol.Stats[0])
		}
	}
}

var errMine = errors.New("enough")

// TestCancel_FromProgress: nothing is attempted after the context has ended.
func TestCancel_FromProgress(t *testing.T) {
	p := problems.LotkaVolterra()
	for _, stepping := range []solver.Stepping{solver.Joint, solver.PerSample} {
		ctx, cancel := context.WithCancelCause(background)
		calls := 0
		set := solver.Settings{RTol: 1e-9, Stepping: stepping, Progress: func(backend.Progress) {
			if calls++; calls == 7 {
				cancel(errMine)
			}
		}}
		sol, err := open(t, problems.System[float64](p), set).Solve(ctx, []float64{1, 1, 1.5, 1.5}, grid(0, 10, 1000))
		if calls != 7 {
			t.Errorf("%s: %d attempts, want 7", stepping, calls)
		}
		if !errors.Is(err, solver.Cancelled) || !errors.Is(err, errMine) || errors.Is(err, solver.NotFinite) {
			t.Errorf("%s: %v", stepping, err)
		}
		if stepping == solver.Joint {
			wantText(t, err, "solver: the batch at t = ", "cancelled before the end of the span: enough")
		} else {
			wantText(t, err, "solver: sample 0 at t = ", "cancelled before the end of the span (and 1 more of 2 samples): enough")
		}
		for b, st := range sol.Stats {
			if sol.Status[b] != solver.Cancelled || st.Accepted+st.Rejected != 7 || st.T <= 0 {
				t.Errorf("%s: %v, %+v", stepping, sol.Status[b], st)
			}
			for i, ti := range sol.Times {
				if reached := !math.IsNaN(sol.Sample(i, b)[0]); reached != (ti <= st.T) {
					t.Errorf("%s: output at %g is there: %v; the sample got to %g", stepping, ti, reached, st.T)
				}
			}
		}
	}
}

// TestCancel_FromAnotherGoroutine stops within the evaluation of one more step.
func TestCancel_FromAnotherGoroutine(t *testing.T) {
	started, after := make(chan struct{}), atomic.Int64{}
	ctx, cancel := context.WithCancel(background)
	sys := custom(1, func(at float64, z, _, dz []float64) {
		if at == 0 {
			select {
			case <-started:
			default:
				close(started)
			}
		}
		if ctx.Err() != nil {
			after.Add(1)
		}
		dz[0] = -z[0]
	})
	go func() {
		<-started
		cancel()
	}()
	// Without the cancellation this would take 10^12 steps.
	set := solver.Settings{Method: solver.RK4, Step: 1e-6, MaxAttempts: math.MaxInt}
	sol, err := open(t, sys, set).Solve(ctx, []float64{1}, []float64{0, 1e6})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, solver.Cancelled) || sol.Status[0] != solver.Cancelled {
		t.Fatal(err)
	}
	// The context is looked at after 32 attempts at most, of 4 stages and the one of the
	// interpolant.
	if n := after.Load(); n > 32*5 {
		t.Errorf("%d evaluations after the context had ended", n)
	}
}

func TestCancel_BeforeTheStart(t *testing.T) {
	p := problems.LotkaVolterra()
	s := open(t, problems.System[float64](p), solver.Settings{})
	ctx, cancel := context.WithTimeout(background, -time.Second)
	defer cancel()
	sol, err := s.Solve(ctx, p.Z0, []float64{0, 1})
	if !errors.Is(err, context.DeadlineExceeded) || sol.Evaluations() != 0 || !same(sol.State(0), p.Z0) {
		t.Errorf("%v, %+v", err, sol.Stats)
	}
	// The solver is as good as new, and a span without length needs no time.
	if _, err := s.Solve(background, p.Z0, []float64{0, 1}); err != nil {
		t.Error(err)
	}
	if _, err := s.Solve(ctx, p.Z0, []float64{1}); err != nil {
		t.Error(err)
	}
}

// TestError_BlamesTheContextOnlyForCancellation: a solve that failed by itself.
func TestError_BlamesTheContextOnlyForCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(background)
	bad := custom(1, func(float64, []float64, []float64, []float64) { cancel() })
	bad.F = func(_ float64, _, _, dz []float64) { cancel(); dz[0] = nan }
	_, err := open(t, bad, solver.Settings{Method: solver.Euler, Step: 1}).Solve(ctx, []float64{1}, []float64{0, 1})
	if !errors.Is(err, solver.NotFinite) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSettings_Defaults(t *testing.T) {
	p := problems.LotkaVolterra()
	breaks := []float64{0.5}
	d := open(t, problems.System[float64](p), solver.Settings{Breakpoints: breaks}).Settings()
	s := open(t, problems.System[float32](p), solver.Settings{}).Settings()
	if d.RTol != 1e-6 || d.ATol != 1e-8 || s.RTol != 1e-4 || s.ATol != 1e-6 || d.Safety != 0.9 || d.MinFactor != 0.2 ||
		d.MaxFactor != 10 || d.MaxAttempts != 100_000 || d.Tableau != tableau.Tsit5() {
		t.Errorf("float64 %+v, float32 %+v", d, s)
	}
	breaks[0] = 7
	if d.Breakpoints[0] != 0.5 {
		t.Error("the settings share memory with the caller's")
	}
}

func TestWarnings(t *testing.T) {
	p := problems.LotkaVolterra()
	if sol := solve[float32](t, p, solver.Settings{RTol: 1e-8, ATol: 1e-3}, 0, 0.1); len(sol.Warnings) != 1 {
		t.Errorf("warnings %q", sol.Warnings)
	} else {
		wantText(t, errors.New(sol.Warnings[0]), "RTol 1e-08", "float32", "1e-06")
	}
	if sol := solve[float64](t, p, solver.Settings{RTol: 1e-8}, 0, 0.1); len(sol.Warnings) != 0 {
		t.Errorf("warnings %q", sol.Warnings)
	}
}

func TestEnums(t *testing.T) {
	for _, m := range solver.Methods() {
		got, err := solver.ParseMethod(m.String())
		if err != nil || got != m {
			t.Errorf("ParseMethod(%q) = %v, %v", m, got, err)
		}
		if err := m.Tableau().Check(); err != nil {
			t.Error(err)
		}
	}
	_, err := solver.ParseMethod("dopri6")
	wantText(t, err, `no method is called "dopri6"`, "tsit5, dopri5")
	for got, want := range map[string]string{
		solver.Method(99).String(): "Method(99)", solver.Stepping(9).String(): "Stepping(9)", solver.Controller(9).String(): "Controller(9)",
		solver.Joint.String(): "joint", solver.PerSample.String(): "per sample",
		solver.PI.String(): "PI", solver.I.String(): "I", solver.PID.String(): "PID",
		solver.Status(77).String(): "Status(77)", solver.Cancelled.Error(): "cancelled",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	defer func() {
		if r := recover(); r != "solver: unknown Method" {
			t.Errorf("Tableau of an unknown method: %v", r)
		}
	}()
	solver.Method(99).Tableau()
}
