package solver

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// Settings says how to solve. Its zero value is the default, with numbers that
// depend on the precision.
type Settings struct {
	// Method is the Runge-Kutta method; the zero value is Tsit5. Tableau, if not
	// nil, is used in its place; it must pass its own Check.
	Method  Method
	Tableau *tableau.Tableau

	// RTol and ATol bound the error of a step, per component, by
	// ATol + RTol·max(|z_i| at both ends), in the RMS norm. Zero means 1e-6 and
	// 1e-8 in float64, 1e-4 and 1e-6 in float32. They bound the error made in a
	// step, not the error at the end.
	RTol, ATol float64

	// Stepping says who shares a step size.
	Stepping Stepping

	// Step, if not 0, is the size of every step, in units of time: the error is
	// not estimated. Methods without an error estimate need it.
	Step float64

	// Controller chooses the size of the next step from the errors of the last.
	Controller Controller
	// Safety is multiplied into the size of every proposed step; 0 means 0.9.
	Safety float64
	// MinFactor and MaxFactor limit the change of size from step to step; 0 means
	// 0.2 and 10.
	MinFactor, MaxFactor float64

	// FirstStep is the size of the first step, in units of time; 0 means the choice
	// of Hairer, Nørsett & Wanner, Solving ODEs I, II.4.
	FirstStep float64
	// MinStep ends a sample whose error demands smaller steps, in units of time;
	// 0 means 16 units in the last place of t. MaxStep limits the steps; 0 means
	// no limit.
	MinStep, MaxStep float64
	// MaxAttempts ends a sample after so many accepted and rejected steps; 0
	// means 100,000.
	MaxAttempts int

	// Breakpoints are times at which f is not smooth. No step goes over them; a
	// step ends on each that lies within the span. In any order.
	Breakpoints []float64

	// Dense keeps all steps, so that Solution.At can evaluate the solution at any
	// time of the span. Memory grows with the number of steps.
	Dense bool

	// Fusion says whether a whole solve is made in one launch, which the GPU backend can
	// where samples step alone; the zero value is FuseAuto.
	Fusion Fusion

	// Progress, if not nil, is called after every attempted step, from the goroutine that
	// solves. It must return quickly and must not call the solver. A solve that reports
	// waits for every step, which costs a device, and many threads, time.
	Progress func(backend.Progress)
}

// Stepping says which samples share a step size.
type Stepping uint8

const (
	// Joint steps the batch as one system: the error norm runs over all samples.
	// It evaluates f on the whole batch at once and makes the fewest calls.
	Joint Stepping = iota
	// PerSample gives every sample its own time and step size, as if it were
	// alone in the batch: its result is the same to the last bit in any company.
	PerSample
)

func (s Stepping) String() string {
	switch s {
	case Joint:
		return "joint"
	case PerSample:
		return "per sample"
	}
	return fmt.Sprintf("Stepping(%d)", uint8(s))
}

// Fusion says whether a whole solve is made in one launch.
type Fusion = backend.Fusion

const (
	FuseAuto   = backend.FuseAuto   // where the backend can and finds it faster
	FuseAlways = backend.FuseAlways // or an error that wraps backend.ErrUnsupported
	FuseNever  = backend.FuseNever  // step by step
)

// Controller is a step-size controller. With the error ratio e_n of step n
// and k one more than the order of the error estimate, the next step is
// h·Safety·e_n^(-β1)·e_{n-1}^(-β2)·e_{n-2}^(-β3) (Söderlind 2003, eq. 31).
type Controller uint8

const (
	// PI is Gustafsson's controller with Hairer's mild memory: β = (0.85, -0.2, 0)/k
	// (Solving ODEs II, IV.2, with DOPRI5's β = 0.04 at k = 5).
	PI Controller = iota
	// I uses the last error alone: β = (1, 0, 0)/k.
	I
	// PID remembers two errors: β = (0.49, -0.34, 0.10)/k (Kennedy & Carpenter
	// 2003, Additive Runge-Kutta schemes, section 4).
	PID
)

func (c Controller) String() string {
	switch c {
	case PI:
		return "PI"
	case I:
		return "I"
	case PID:
		return "PID"
	}
	return fmt.Sprintf("Controller(%d)", uint8(c))
}

// beta returns the exponents for error estimates of order k-1.
func (c Controller) beta(k float64) (b [3]float64) {
	switch c {
	case PI:
		b = [3]float64{0.85, -0.2, 0}
	case I:
		b = [3]float64{1, 0, 0}
	case PID:
		b = [3]float64{0.49, -0.34, 0.10}
	}
	for i := range b {
		b[i] /= k
	}
	return b
}

// Resolve fills in the defaults for T. It returns remarks for people, and an
// error about what cannot be.
func Resolve[T backend.Float](s Settings) (Settings, []string, error) {
	var one T
	single := unsafe.Sizeof(one) == 4
	bad := func(format string, args ...any) (Settings, []string, error) {
		return s, nil, fmt.Errorf("solver: Settings."+format, args...)
	}
	for _, f := range []struct {
		name  string
		value *float64
		zero  float64
	}{
		{"RTol", &s.RTol, pick(single, 1e-4, 1e-6)},
		{"ATol", &s.ATol, pick(single, 1e-6, 1e-8)},
		{"Step", &s.Step, 0},
		{"Safety", &s.Safety, 0.9},
		{"MinFactor", &s.MinFactor, 0.2},
		{"MaxFactor", &s.MaxFactor, 10},
		{"FirstStep", &s.FirstStep, 0},
		{"MinStep", &s.MinStep, 0},
		{"MaxStep", &s.MaxStep, 0},
	} {
		if *f.value < 0 || math.IsNaN(*f.value) || math.IsInf(*f.value, 0) {
			return bad("%s is %g; give a finite number that is not negative, or 0 for the default", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if s.MaxAttempts < 0 {
		return bad("MaxAttempts is %d; give a positive number, or 0 for the default", s.MaxAttempts)
	}
	if s.MaxAttempts == 0 {
		s.MaxAttempts = 100_000
	}
	if s.Safety >= 1 || s.MinFactor >= 1 || s.MaxFactor <= 1 {
		return bad("Safety is %g, MinFactor %g, MaxFactor %g; the first two must be below 1, the last above 1", s.Safety, s.MinFactor, s.MaxFactor)
	}
	if s.MaxStep > 0 && s.MinStep > s.MaxStep {
		return bad("MinStep is %g, above MaxStep, %g", s.MinStep, s.MaxStep)
	}
	if s.MaxStep > 0 && s.Step > s.MaxStep {
		return bad("Step is %g, above MaxStep, %g", s.Step, s.MaxStep)
	}
	if s.Stepping > PerSample {
		return bad("Stepping is %d; use Joint or PerSample", s.Stepping)
	}
	if s.Fusion > FuseNever {
		return bad("Fusion is %d; use FuseAuto, FuseAlways or FuseNever", s.Fusion)
	}
	if s.Controller > PID {
		return bad("Controller is %d; use PI, I or PID", s.Controller)
	}
	s.Breakpoints = slices.Clone(s.Breakpoints)
	for i, t := range s.Breakpoints {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return bad("Breakpoints[%d] is %g; give finite times", i, t)
		}
	}
	if s.Tableau == nil {
		if int(s.Method) >= len(methods) {
			return bad("Method is %d; use one of %v", s.Method, Methods())
		}
		s.Tableau = s.Method.Tableau()
	} else if err := s.Tableau.Check(); err != nil {
		return bad("Tableau: %w", err)
	}
	if !s.Tableau.Adaptive() && s.Step == 0 {
		return bad("Step is 0, but method %s has no error estimate to choose steps by; set Step, or use an adaptive method such as Tsit5", s.Tableau.Name)
	}
	var warnings []string
	if floor := pick(single, 1e-6, 1e-14); s.RTol < floor && s.Step == 0 {
		warnings = append(warnings, fmt.Sprintf("RTol %g is below what float%d arithmetic can reach; use at least %g%s",
			s.RTol, pick(single, 32, 64), floor, pick(single, ", or float64", "")))
	}
	return s, warnings, nil
}

func pick[V any](c bool, a, b V) V {
	if c {
		return a
	}
	return b
}

// Control translates the settings for a backend; the stepping loop fills in what
// depends on the tableau alone.
func (s *Settings) Control() backend.Control {
	return backend.Control{
		Fixed: s.Step > 0, Beta: s.Controller.beta(s.Tableau.ErrorExponent()),
		Safety: s.Safety, MinFactor: s.MinFactor, MaxFactor: s.MaxFactor,
		MinStep: s.MinStep, MaxAttempts: int64(s.MaxAttempts),
	}
}

// Tolerance translates the tolerances for a backend.
func (s *Settings) Tolerance() backend.Tolerance {
	return backend.Tolerance{Rel: s.RTol, Abs: s.ATol}
}
