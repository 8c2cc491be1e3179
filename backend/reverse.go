package backend

// Reverser is an optional capability of a Backend, found by type assertion: it goes
// back over the accepted steps of a solve, which is what exact gradients need.
//
// Reverse mode visits attempted steps in the opposite order. [Reverser.Rewind] puts
// a clock behind the attempts on a tape, and every [Reverser.Back] goes back by one:
// the clock is then what it was when Advance had decided about that attempt, so that
// [Accepted], [Saving] and [Fresh], with the time and the size of that step, work as
// they did.
type Reverser[T Float] interface {
	Backend[T]

	// Sum sets dst = y + Σ_j coef[j]·k[j] in the rows that at selects: Combine without
	// the step size.
	Sum(dst, y Vec[T], at At, coef []float64, k []Vec[T])

	// Reset empties the tape and keeps its memory.
	Reset(tape Tape[T])
	// Rewind goes behind attempt number `attempts` of the solve that clk was started
	// for and that Push recorded on tape, counted from 1. No lane is selected until
	// Back is called. skip, one entry a lane, leaves lanes out of it; nil leaves out
	// none.
	Rewind(clk Clock, tape Tape[T], attempts int64, skip []bool)
	// Back goes back by one attempt, and sets keep in the rows of the lanes whose
	// step was accepted in it to what Push kept. Lanes that are not on the tape with
	// this attempt are not selected. It leaves what [Backend.Lanes] reports as it was.
	// A clock that went back does not go on: set it with CopyClock or Start before that.
	Back(clk Clock, tape Tape[T], keep []Vec[T])
	// SaveVJP is the vector-Jacobian product of Save: with c_j block j of cotangents,
	// n×B×D, and over the outputs in the step of each lane that is [Accepted], it adds
	// Σ c_j to y1 for an output at the step's end and sets, for those inside it,
	//
	//	y0 = Σ c_j,  k[i] = Σ_j h·b_i(x_j)·c_j,  b_i(x) = Σ_m dense[i][m]·x^(m+1)
	//
	// which is zero without any.
	SaveVJP(clk Clock, dense [][]float64, cotangents, y0, y1 Vec[T], k []Vec[T])

	// Interpolate sets dst, 1×B×D, in the rows that at selects, to the solution on the
	// tape at that instant: y0 + h·Σ_j k[j]·Σ_m dense[j][m]·x^(m+1) of the step that it
	// lies in, y1 at the end of a step. The tape keeps y0, y1 and k of every step, the
	// steps of one solve; an instant before or after them is moved to their ends.
	Interpolate(dst Vec[T], at At, tape Tape[T], dense [][]float64)

	// Reserve changes the memory of an empty tape to what so many steps of every lane
	// need: Push then allocates nothing for them.
	Reserve(tape Tape[T], steps int) error

	// CopyClock sets the lanes of dst, not its spans, to those of src, which has as
	// many. A clock that was started with the same spans then continues from where src
	// is; one that never was holds a copy to set it to later.
	CopyClock(dst, src Clock)
	// ReadClock waits and copies the lanes of clk to dst, and WriteClock sets them to
	// what was copied from a clock with as many; between them it is host memory, of
	// ClockSize bytes.
	ReadClock(dst []byte, clk Clock) error
	WriteClock(clk Clock, src []byte)
	ClockSize(clk Clock) int
}
