package backend

import "fmt"

// Span is the interval of a solve, forwards or backwards in time.
type Span struct {
	T0 float64
	// Saves are output times, strictly monotone from T0 (exclusive) towards the
	// last stop (inclusive). They do not shorten steps.
	Saves []float64
	// Stops are times on which a step must end, strictly monotone in the same
	// direction; the last one ends the solve. There is at least one.
	Stops []float64
	// Blocks[j] is the block of AtStop's tables that belongs to stop j, -1 for
	// none; nil means j.
	Blocks []int
	// Breaks are those of Stops and T0 at which f jumps. A step that ends on one
	// sees f just before it, a step that begins on one sees f just after it and
	// evaluates its first stage afresh.
	Breaks []float64
	// H0 is the size of the first step, of either sign; 0 leaves it to
	// ProposeStep.
	H0 float64
	// MaxStep limits |h|, in units of time; 0: no limit. The last step before a
	// stop may be longer by one part in 1e8.
	MaxStep float64
}

// Tolerance scales the error of component i: Abs + Rel·max(|y0_i|, |y1_i|).
type Tolerance struct{ Rel, Abs float64 }

// Part is one group of components in the error norm: y0 and y1 bracket the step,
// k are its stages, all of one shape. Every block is a norm of its own.
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

// Control parametrises the step-size controller of Advance. After an attempt
// with error ratio e_n the next step is h·F with
//
//	F = Safety · e_n^(-Beta[0]) · e_{n-1}^(-Beta[1]) · e_{n-2}^(-Beta[2])
//
// limited to [MinFactor, MaxFactor], to at most 1 right after a rejection
// (Söderlind 2003, Digital filters in adaptive time-stepping, eq. 31). A rejected
// attempt uses e_n alone with exponent -1/Order.
type Control struct {
	Fixed       bool // every step has size |Span.H0| and is accepted unless not finite
	Order       float64
	Beta        [3]float64
	Safety      float64
	MinFactor   float64
	MaxFactor   float64
	MinStep     float64 // in units of time; 0: 16 units in the last place of t
	MaxAttempts int64   // accepted and rejected steps of a lane
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
)

var statusText = [...]string{
	"running",
	"done",
	"too many attempted steps",
	"step size too small",
	"not finite",
	"cancelled",
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
	Failed             int // lanes ended with a status other than Done
	Accepted, Rejected int64
	// T is the time of the running lane that is furthest behind.
	T float64
}

// Lane is what one lane did.
type Lane struct {
	Status      Status
	T           float64 // where it is
	H           float64 // size of the step attempted last, with its sign
	Evaluations int64   // of f, or of its VJP; one covers all rows of the lane
	Accepted    int64
	Rejected    int64
	SmallestH   float64 // smallest |h| accepted
	LastH       float64 // last h accepted, with its sign
	// Next is the h that the controller would have taken next.
	Next float64
	// Row and Col name the component with the largest error ratio, or the first
	// that is not finite, in the last attempt; Ratio is its error over its tolerance.
	Row, Col int
	Ratio    float64
}
