package backend

// ReverseFuser is an optional capability of a Reverser, found by type assertion: it goes
// back over all the steps on a tape at once, in place of [Reverser.Back] for every attempt
// and of what is done to the step then.
type ReverseFuser[T Float] interface {
	Reverser[T]

	// WalkBack enqueues the discrete adjoint of the steps on w.Tape. It reports false, and
	// has done nothing, if the device does not take this field and this method: go back
	// step by step then.
	WalkBack(w *Walk[T]) bool
}

// Walk is a walk back over all steps on a tape, of an explicit Runge-Kutta method with s
// stages and more of them for interpolation, evaluated in steps with an output inside
// ([Saving]). With Y_i = y + h·Σ_j A[i][j]·k_j it computes, step by step from the last,
//
//	κ_i = π_i + h·(B[i]·λ + Σ_{j>i} A[j][i]·m_j),  m_i = κ_iᵀ ∂f/∂z(t + C[i]·h, Y_i)
//	θ  += Σ_i κ_iᵀ ∂f/∂θ(t + C[i]·h, Y_i),         λ  += Σ_i m_i + π
//
// with π_i, π, and what is added to λ at the beginning, as of [Reverser.SaveVJP]. Where the
// first stage was not evaluated for the step, κ_0 is kept, and added to κ of the step
// before at the stage End. Evaluations are counted as those of stages that have to be
// evaluated again, and of products. What it does to the clock beside that, and to the tape,
// is nothing.
type Walk[T Float] struct {
	Clock Clock
	Tape  Tape[T]
	Skip  []bool // lanes to leave out; nil: none
	Field Field[T]

	Formula // A, B, C, and Dense, which is nil without outputs
	// End is the stage that may be the first of the next step, or -1.
	End int
	// Stages says that the tape keeps y and all stages of a step, as Push got them, not
	// y alone.
	Stages bool

	// Lambda and Carry, 1×B×D, are λ and the κ_0 of the step behind; Begin says that they
	// and Theta, 1×1×P or nil, are zero before. Cotangents is the table of SaveVJP, or nil.
	Lambda, Carry, Theta, Cotangents Vec[T]
	Begin                            bool
}
