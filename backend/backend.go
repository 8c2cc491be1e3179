package backend

// Float is the element type of states, parameters and gradients. Times, step
// sizes and error norms are float64 everywhere.
type Float interface{ float32 | float64 }

// Vec is a block of memory owned by one backend: blocks × rows × cols elements.
// A batch of states is 1×B×D, one row a sample. The augmented state of the
// adjoint is 2×B×D, z in block 0 and its cotangent a in block 1. A table of
// outputs is n×B×D, one block an output time. Parameters are 1×1×P.
//
// Any of the three may be 0, as P is for a system without parameters.
//
// The shape is logical: the layout in memory belongs to the backend, and padding
// it adds never enters a norm. A slice given to Upload or filled by Download is
// row-major, blocks outermost.
type Vec[T Float] interface {
	Shape() (blocks, rows, cols int)
	// Block returns block i as a 1×rows×cols Vec that shares its memory. It lives
	// as long as the Vec, and is not freed.
	Block(i int) Vec[T]
}

// Clock holds on the device one lane for every group of rows that steps
// together: one lane steps the whole batch jointly, B lanes step each of B
// samples on its own. With one lane every row belongs to it; otherwise row r of
// every block belongs to lane r, and a Vec used with the Clock has that many rows.
type Clock interface {
	Lanes() int
	// Close releases it. It is safe to call twice.
	Close()
}

// Tape keeps, per lane and in the order in which they were taken, the accepted
// steps of a solve: t, h and the rows of the Vecs given to [Backend.Push].
type Tape[T Float] interface {
	// Len is the number of steps that lane has on the tape as of the last Poll.
	Len(lane int) int
	// Close releases it. It is safe to call twice.
	Close()
}

// Rows selects the rows a call works on, by the state of their lane. Rows that
// are not selected keep their contents and cost nothing that matters.
type Rows uint8

const (
	// Running selects lanes that have not ended. Time is that of the step being
	// attempted.
	Running Rows = iota
	// Stale selects the running lanes whose first stage does not hold
	// f(t, y) any more: at the start, after a jump of the state, and after an
	// accepted step that did not hand its last stage on. Time is that of the
	// step being attempted. A rejected attempt leaves the first stage valid.
	Stale
	// Accepted selects lanes whose step the last Advance accepted, those that
	// ended with it included. Time is that of the step just accepted.
	Accepted
	// Saving selects those of Accepted that have an output strictly inside
	// the step. Time is that of the step just accepted.
	Saving
	// Fresh selects those of Accepted whose first stage was evaluated for this step,
	// not handed over by the one before. Time is that of the step just accepted.
	Fresh
)

// At is the instant t + C·h of every lane that Rows selects: no later than the stop
// that the step ends on, and short of a jump of f there; see [Span]. C = 1 is the
// stop itself then, whatever t + h is rounded to. Before there is a step, h is 0 and
// the instant is t.
type At struct {
	Clock Clock
	C     float64 // dimensionless fraction of the step
	Rows  Rows
}

// System describes a right-hand side f(t, z; θ) without a device. Every backend
// runs an *mlp.Model; which others it runs is its own business ([ErrUnsupported]
// if it cannot).
type System[T Float] interface {
	Dim() int       // D, components of the state
	NumParams() int // P, length of θ
	// Params returns θ, length P, live and owned by the system. Bind copies it.
	Params() []T
}

// Field is a System bound to a backend. Its verbs enqueue, write the rows that At
// selects, all of each, and count one evaluation of every lane selected. Outputs
// must not share memory with inputs or with each other.
type Field[T Float] interface {
	Dim() int
	NumParams() int
	// Params is θ on the device, 1×1×P, owned by the field. Write to it to change θ.
	Params() Vec[T]
	// Eval sets dz = f(t, z; θ); dz and z are 1×B×D.
	Eval(dz Vec[T], at At, z Vec[T])
	// VJP computes vector-Jacobian products, see [VJP].
	VJP(at At, v VJP[T])
	// JVP computes Jacobian-vector products, see [JVP].
	JVP(at At, j JVP[T])
	// Close releases θ and what the field keeps on the device. Verbs after it fail
	// with ErrClosed. It is safe to call twice.
	Close()
}

// VJP names the operands of one vector-Jacobian product (Chen et al. 2018,
// appendix C, with Alpha = -1). Nil outputs are skipped, and all may be nil.
type VJP[T Float] struct {
	Z, A  Vec[T]  // in: state and cotangent, 1×B×D
	DZ    Vec[T]  // out: f(t, z; θ), 1×B×D
	AZ    Vec[T]  // out: Alpha · aᵀ∂f/∂z, 1×B×D
	AT    Vec[T]  // out: Alpha · aᵀ∂f/∂t, 1×B×1
	Alpha float64 // factor of AZ and AT
	// G accumulates W · Σ aᵀ∂f/∂θ over the selected rows, in ascending order of
	// rows; 1×1×P. With TimesH each row's term is also multiplied by the step
	// size of its lane, so that W = -b_i makes G the adjoint's quadrature.
	G      Vec[T]
	W      float64
	TimesH bool
}

// JVP names the operands of one Jacobian-vector product. A nil DZ is skipped, a
// nil W is zero.
type JVP[T Float] struct {
	Z, V Vec[T] // in: state and tangent, 1×B×D
	W    Vec[T] // in: tangent of θ, 1×1×P, or nil
	DZ   Vec[T] // out: f(t, z; θ), 1×B×D
	JV   Vec[T] // out: (∂f/∂z)·v + (∂f/∂θ)·w, 1×B×D
}

// Backend runs solves of element type T on one device. It is used from one
// goroutine at a time.
type Backend[T Float] interface {
	// Name says which device this is, for people: "cpu", "cuda:0 NVIDIA H100".
	Name() string

	// Bind prepares sys for this device and copies its parameters there. It
	// returns ErrUnsupported, with the reason, if the device cannot run sys, and
	// another error if sys is not valid: Params of the wrong length, a Spec that
	// does not pass its own Validate.
	Bind(sys System[T]) (Field[T], error)

	// NewVec allocates a zeroed Vec, NewClock a clock, NewTape an empty tape for
	// steps that keep `keep` Vecs of 1×rows×cols. They return ErrOutOfMemory when
	// there is no room. The caller frees the first and closes the others.
	NewVec(blocks, rows, cols int) (Vec[T], error)
	NewClock(lanes int) (Clock, error)
	NewTape(lanes, rows, cols, keep int) (Tape[T], error)
	// Free releases what NewVec returned; nil is ignored, and anything else, a block
	// or a Vec freed before, panics. Neither v nor its blocks may be used after it.
	Free(v Vec[T])

	// Upload copies src to dst. It may return before the copy reaches the device;
	// src is then already copied. Download waits for everything enqueued before.
	Upload(dst Vec[T], src []T)
	Download(dst []T, src Vec[T]) error

	// Copy sets dst = src and Zero clears dst, in all rows. They enqueue, like
	// everything down to Push.
	Copy(dst, src Vec[T])
	Zero(dst Vec[T])

	// Start sets every lane to t = T0 of its span with all of it ahead, its counters
	// zero and its first stage stale. There is one span for all lanes, or one for each
	// of several. A clock must be started before it is used. The first step is aimed
	// with H0; see [Control].
	Start(clk Clock, spans ...Span)
	// ProposeStep chooses the first step size of every running lane, of those alone
	// that have no H0 where each has a span of its own, by Hairer,
	// Nørsett & Wanner, Solving ODEs I, II.4, p. 169, with the norm of ErrorRatio,
	// scaled by y0, the largest over blocks. Called first with f0 = f(t0, y0) and
	// f1 nil it aims with the trial size of (a-b); called again with
	// f1 = f(t0+h, y0+h·f0) it aims with the proposal of (d-f). A size that is 0 or
	// not finite becomes 1e-6 of what is left of the span, and none is longer than
	// that. order is the method's. f0 is taken for the first stage, which is not
	// stale any more.
	ProposeStep(clk Clock, y0, f0, f1 Vec[T], order int, tol Tolerance)
	// Combine sets dst = y + h·Σ_j coef[j]·k[j] in the rows that at selects, of any
	// number of blocks; dst may be y, not one of k. There may be more k than coef,
	// and one whose coefficient is 0 is not read, whatever it holds. So it is with
	// e, e2 and dense below.
	Combine(dst, y Vec[T], at At, coef []float64, k []Vec[T])
	// ErrorRatio sets each running lane's error ratio to the weighted RMS norm of
	// the error estimate h·Σ_j e[j]·k[j],
	//
	//	√(1/n·Σ_i (est_i/sc_i)²),  sc_i = tol.Abs + tol.Rel·max(|y0_i|, |y1_i|),
	//
	// over the n components of a lane in one block (HNW eq. II.4.11); 0/0 is 0. The
	// largest over blocks and parts counts. It is NaN if a component of y1 or of
	// the estimate is not finite; nil e checks only y1, and is 0 otherwise. e2, if
	// not nil, is the second estimate of DOP853: the norm of a block is then
	// ‖e‖² / √(‖e‖² + 0.01·‖e2‖²), 0 if ‖e‖ is (HNW II.10). Where a sum of squares is
	// beyond float64 the ratio is +Inf.
	ErrorRatio(clk Clock, tol Tolerance, e, e2 []float64, parts []Part[T])
	// Advance decides about the attempt of each running lane by its error ratio:
	// accepts or rejects it, moves t, proposes the next h, counts, and ends lanes;
	// see [Control]. For lanes that have ended it accepts nothing.
	Advance(clk Clock, c Control)
	// Save writes the outputs that the step just accepted has reached: output
	// time j goes to block j of table, n×B×D, in the rows of that lane. Inside the
	// step the value is y0 + h·Σ_j k[j]·Σ_m dense[j][m]·x^(m+1), x in (0, 1); at its
	// end it is y1. y0, y1 and k are 1×B×D. Outputs beyond the last block of table
	// are dropped. Call it before Commit.
	Save(clk Clock, dense [][]float64, y0, y1 Vec[T], k []Vec[T], table Vec[T])
	// Commit sets dst = src in the selected rows of all blocks, move after move.
	Commit(clk Clock, rows Rows, moves []Move[T])
	// AtStop acts on the rows of lanes whose step the last Advance accepted and
	// that ended with it on stop j. With i = Blocks[j] of the [Span] Store writes y,
	// 1×B×D, to block i of table, n×B×D; Add adds block i to y; Load sets y to block
	// i. Add and Load make the first stage stale. If table has no block i nothing
	// happens.
	AtStop(clk Clock, op StopOp, y, table Vec[T])
	// Push appends t, h and the rows of keep, each 1×rows×cols, to the tape of each
	// lane whose step the last Advance accepted. Call it before Commit.
	Push(clk Clock, tape Tape[T], keep []Vec[T])

	// Poll waits and tells how far the solve is. It is the only wait inside one.
	Poll(clk Clock) (Progress, error)
	// Lanes waits and fills dst, one entry a lane, with what each did.
	Lanes(clk Clock, dst []Lane) error
	// ReadTape waits and copies step i of a lane to dst (keep × its rows × cols)
	// and returns the step's start and size.
	ReadTape(tape Tape[T], lane, i int, dst []T) (t, h float64, err error)
	// Sync waits for everything enqueued.
	Sync() error
	// MemoryUsed is the number of bytes that Vecs, clocks, tapes and fields hold,
	// 0 once all of them were released.
	MemoryUsed() int64
	// Close releases everything. It is safe to call twice. After it whatever
	// returns an error returns ErrClosed, and nothing else has an effect.
	Close() error
}
