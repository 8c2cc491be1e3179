package adjoint

import "fmt"

// Method is a way to differentiate a solve.
type Method uint8

const (
	// Auto is Discrete on a backend that can go back over its steps, as all of this
	// module's can, and Continuous on others.
	Auto Method = iota
	// Discrete reverses the accepted steps: the exact gradient of the computed
	// solution, to rounding. Its memory grows with the number of steps, unless
	// Settings.Budget limits it.
	Discrete
	// Continuous solves [z, a, a_θ] backwards in constant memory: an approximation
	// of the exact solution's gradient, to the tolerances of the reverse solve.
	Continuous
	// Interpolating solves [a, a_θ] backwards, with z taken from the forward solve's
	// interpolant, so that z does not drift. Its memory grows with the number of steps.
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
