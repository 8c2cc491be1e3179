package backend

import (
	"fmt"
	"math"
)

// Span is the interval of a solve, forwards or backwards in time.
type Span struct {
	T0 float64
	// Saves are output times, strictly monotone from T0 (exclusive) towards the
	// last stop (inclusive). They do not shorten steps.
	Saves []float64
	// Stops are times on which a step must end, strictly monotone in the same
	// direction; the last one ends the solve. There is at least one. T0 alone is a
	// span of length 0, done at once.
	Stops []float64
	// Blocks[j] is the block of AtStop's tables that belongs to stop j, -1 for
	// none; nil means j.
	Blocks []int
	// Breaks are those of Stops and T0 at which f jumps, in any order. A step that
	// ends on one evaluates f no later than the number before it, of the element type;
	// a step that begins on one no earlier than the number after it, its first stage
	// afresh.
	Breaks []float64
	// H0 is the size of the first step, of either sign; 0 leaves it to
	// ProposeStep.
	H0 float64
	// MaxStep limits |h|, in units of time; 0: no limit. The last step before a
	// stop may be longer by one part in 1e8.
	MaxStep float64
	// Tol, unless zero, takes the place of the tolerance given to ProposeStep and
	// ErrorRatio.
	Tol Tolerance
	// Row is used where every lane has a span of its own. Tables are then 1×N×D:
	// output j is row Row+j of Save's, and Blocks are rows of AtStop's.
	Row int
}

// Valid reports whether s is as its comments say: finite, in order, and with as
// many Blocks as Stops or none.
func (s *Span) Valid() bool {
	if len(s.Stops) == 0 || s.Blocks != nil && len(s.Blocks) != len(s.Stops) ||
		!finite(s.T0) || !finite(s.H0) || !finite(s.MaxStep) || s.MaxStep < 0 || s.Row < 0 ||
		!finite(s.Tol.Rel) || !finite(s.Tol.Abs) || s.Tol.Rel < 0 || s.Tol.Abs < 0 {
		return false
	}
	end := s.Stops[len(s.Stops)-1]
	if end == s.T0 {
		return len(s.Stops) == 1 && len(s.Saves) == 0
	}
	sign := math.Copysign(1, end-s.T0)
	for _, ts := range [][]float64{s.Stops, s.Saves} {
		last := s.T0
		for _, t := range ts {
			if !finite(t) || !(sign*(t-last) > 0) || sign*(end-t) < 0 {
				return false
			}
			last = t
		}
	}
	return true
}

func finite(x float64) bool { return math.Abs(x) <= math.MaxFloat64 }

// Tolerance scales the error of component i by Abs + Rel·max(|y0_i|, |y1_i|).
type Tolerance struct{ Rel, Abs float64 }

// Part is one group of components in the error norm: y0 and y1 bracket the step,
// k are its stages, all of one shape. Every block is a norm of its own. With one
// lane parts may differ in shape.
type Part[T Float] struct {
	Y0, Y1 Vec[T]
	K      []Vec[T]
}

// Move is one assignment of Commit.
type Move[T Float] struct{ Dst, Src Vec[T] }

// StopOp says what AtStop does.
type StopOp uint8

const (
	Store StopOp = iota // table[j] = y
	Add                 // y += table[j]
	Load                // y = table[j]
)

// Handover says what the first stage of the next step holds after an accepted
// one.
type Handover uint8

const (
	// HandNothing leaves it stale.
	HandNothing Handover = iota
	// HandLast: the last stage is f(t1, y1) and is committed (FSAL).
	HandLast
	// HandSaving: only a step with an output inside evaluated f(t1, y1).
	HandSaving
)

// Control parametrises the step-size controller of Advance.
//
// An attempt with error ratio e_n ≤ 1 is accepted, and the size proposed for the next
// step is F·|h|,
//
//	F = Safety · e_n^(-Beta[0]) · e_{n-1}^(-Beta[1]) · e_{n-2}^(-Beta[2])
//
// (Söderlind 2003, Digital filters in adaptive time-stepping, eq. 31), limited to
// [MinFactor, MaxFactor], MaxFactor if e_n = 0, and to at most 1 if the attempt before
// was rejected. e_{n-1} and e_{n-2} are those of the accepted steps before, 1 if there
// are none, and at least 1e-4.
//
// Any other attempt is rejected, and repeated with E·|h|, E = Safety · e_n^(-1/Order),
// limited to at least MinFactor, which it is if e_n is NaN. If that is below MinStep
// the lane ends with StepTooSmall, or with NotFinite if e_n is NaN.
//
// A proposal w, after an accepted step at least MinStep, is then aimed: it is limited
// to MaxStep, and h is what t moves by when w is added to it: (t+w)-t, in float64. Where
// 1.01·w reaches the next stop the step is what is left, and t becomes the stop itself
// when it is accepted. The 1% is not used beyond MaxStep, by fixed steps and by
// [Span].H0; 1e-8 takes its place, for rounding. A step that was cut, because w was
// longer than what was left, says little of the size that the solution allows: when it
// is accepted the proposal is max(F·|h|, min(E·|h|, w)), E infinite if e_n = 0, and e_n
// is not remembered.
type Control struct {
	// Fixed: every step is accepted, and the next one has size |Span.H0|; what the
	// rounding of t took from a step, the next one makes up. If the ratio is NaN the
	// lane ends instead, with NotFinite.
	Fixed     bool
	Order     float64
	Beta      [3]float64
	Safety    float64 // below 1
	MinFactor float64 // below 1
	MaxFactor float64
	MinStep   float64 // in units of time; 0: 16 units in the last place of t
	// MaxAttempts ends a lane that has not arrived after so many accepted and
	// rejected steps; 0: no limit.
	MaxAttempts int64
	Handover    Handover
}

// Status says how far a lane, or a sample, has come.
type Status uint8

const (
	StatusRunning   Status = iota
	Done                   // reached its end
	TooManyAttempts        // used up Control.MaxAttempts
	StepTooSmall           // the error stayed too large down to the smallest step
	NotFinite              // f or the state became NaN or infinite
	Cancelled              // the caller's context ended
	Stopped                // an event ended it, as it should
	TooManyEvents          // events came without end
)

var statusText = [...]string{
	"running",
	"done",
	"too many attempted steps",
	"step size too small",
	"not finite",
	"cancelled",
	"stopped by an event",
	"too many events",
}

func (s Status) String() string {
	if int(s) < len(statusText) {
		return statusText[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Error makes a status comparable with errors.Is.
func (s Status) Error() string { return s.String() }

// Progress is what Poll reads back: a few words, whatever the batch.
type Progress struct {
	Running            int // lanes not ended
	Failed             int // lanes ended with a status other than Done and Stopped
	Accepted, Rejected int64
	Attempts           int64 // the most that one lane made, accepted and rejected ones
	// T is the time of the running lane that is furthest behind, the end of the
	// span if none runs.
	T float64
}

// Lane is what one lane did.
type Lane struct {
	Status      Status
	T           float64 // where it is
	H           float64 // size of the step to attempt next, of the one attempted last if it ended; with its sign
	Evaluations int64   // of f, its VJP or its JVP; one covers all rows of the lane
	Accepted    int64
	Rejected    int64
	SmallestH   float64 // smallest |h| accepted, 0 if none was
	LastH       float64 // last h accepted, with its sign
	// Next is the size that the controller proposes, not negative, before it is cut
	// to end on a stop.
	Next float64
	// Row and Col name the component with the largest error over its tolerance in
	// the last attempt, the first if several have it, or the first that is not
	// finite, in the first part and block that has it. Ratio is its error over its
	// tolerance, NaN if not finite.
	Row, Col int
	Ratio    float64
}
