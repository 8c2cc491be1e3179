package adjoint

import "fmt"

// Method is a way to differentiate a solve.
type Method uint8

const (
	// Auto is Discrete on a backend that can go back over its steps, as all of this
	// module's can, and Continuous on others.
	//
	// Discrete serves training best: it is the gradient of the loss that is computed,
	// so that an optimiser never sees the two disagree; it needs no reverse solve, whose
	// steps may be rejected or whose z may drift; and the number of its evaluations does
	// not grow with the number of output times. make table-gradients measures, with
	// tsit5 at its default tolerances, solve and gradient together:
	//
	//	                                 discrete          continuous        interpolating
	//	                                 ms      error     ms      error     ms      error
	//	Lotka-Volterra, t 0..10          0.26    5e-5      0.38    4e-5      0.35    3e-5
	//	the same, forced, 21 outputs     0.35    1e-5      0.54    2e-6      0.54    2e-6
	//	cubic spiral, 10 outputs         0.60    5e-5      1.10    2e-5      1.23    2e-5
	//	2-50-2 Neural ODE, batch of 20   0.25    2e-6      0.42    1e-7      0.44    7e-8
	//
	// (the median of three runs on two virtual cores of an AMD EPYC; errors are relative to
	// the exact solution's gradient, to which all converge with the tolerances.) Where
	// memory for the steps is short, Settings.Budget trades it for time, and Continuous
	// needs none.
	Auto Method = iota
	// Discrete reverses the accepted steps: the exact gradient of the computed
	// solution, to rounding, with the step sizes held, or with Settings.StepSizes
	// differentiated too. Its memory grows with the number of steps, unless
	// Settings.Budget limits it.
	Discrete
	// Continuous solves [z, a, a_θ] backwards in constant memory: an approximation
	// of the exact solution's gradient, to the tolerances of the reverse solve.
	Continuous
	// Interpolating solves [a, a_θ] backwards, with z taken from the forward solve's
	// interpolant, so that z does not drift. Its memory grows with the number of steps.
	// As z is not integrated again, its steps may be long: they can pass over a short
	// pulse of the adjoint, which MaxStep in Settings.Solver prevents.
	Interpolating
	// Reversible makes the forward solve's steps reversible, at twice the evaluations,
	// and goes back over them without keeping any: the exact gradient of the computed
	// solution, to rounding, in memory that does not grow with the number of fixed
	// steps; of each chosen step it keeps the time and size. A step ends on every output
	// time. Solutions come from [Adjoint.Solve], whose steps differ from
	// [solver.Solver.Solve]'s.
	Reversible
)

var methodNames = [...]string{"auto", "discrete", "continuous", "interpolating", "reversible"}

func (m Method) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return fmt.Sprintf("Method(%d)", uint8(m))
}

// Store says what [Discrete] keeps of every step. The gradient is the same to the
// last bit.
type Store uint8

const (
	// Stages keeps the state and all stages.
	Stages Store = iota
	// States keeps the state, and evaluates the stages once more.
	States
)

func (s Store) String() string {
	switch s {
	case Stages:
		return "stages"
	case States:
		return "states"
	}
	return fmt.Sprintf("Store(%d)", uint8(s))
}
