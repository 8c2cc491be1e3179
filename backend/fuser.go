package backend

import (
	"context"
	"fmt"
)

// Fuser is an optional capability of a Backend, found by type assertion: it makes whole
// solves, every sample with steps of its own, without returning to the host between
// steps, as one launch of a kernel.
type Fuser[T Float] interface {
	Backend[T]

	// Fuse prepares the solve that p describes. The error wraps ErrUnsupported, with the
	// reason, if the backend makes it by the other verbs alone. The caller closes what it
	// returns before the operands.
	Fuse(p Fusible[T]) (Fused[T], error)
}

// Fusion says whether a solve is made at once.
type Fusion uint8

const (
	FuseAuto   Fusion = iota // where the backend can and finds it faster
	FuseAlways               // or not at all
	FuseNever                // step by step
)

func (f Fusion) String() string {
	switch f {
	case FuseAuto:
		return "auto"
	case FuseAlways:
		return "always"
	case FuseNever:
		return "never"
	}
	return fmt.Sprintf("Fusion(%d)", uint8(f))
}

// Fusible describes solves by their operands, which stay where they are. What a solve
// does is what Start, ProposeStep and then, attempt by attempt, Eval, Combine, ErrorRatio,
// Advance, Save, Push and Commit do, and so is what it leaves in them.
type Fusible[T Float] struct {
	Clock Clock // with a lane for each row
	Field Field[T]
	Formula
	Tol     Tolerance
	Control Control

	Y, Trial Vec[T]   // the state and that at the end of an attempt, 1×B×D
	K        []Vec[T] // stages, those for interpolation last
	Table    Vec[T]   // of outputs, or nil
	Keep     []Vec[T] // of these what the tape keeps
	Extra    Rows     // Saving or Accepted: in which stages for interpolation are evaluated
	Fusion   Fusion   // FuseAuto or FuseAlways
}

// Formula is a Runge-Kutta method as package tableau has it.
type Formula struct {
	Order int
	A     [][]float64 // of all stages, those for interpolation last
	C     []float64
	B     []float64 // its length is the number of stages of an attempt
	E, E2 []float64 // of errors; nil: no estimate
	Dense [][]float64
	FSAL  bool // the last stage is evaluated at the end of the step
}

// Fused makes solves of one kind.
type Fused[T Float] interface {
	// Solve starts the clock and solves from Y, until all lanes have
	// ended or, within bounded time, ctx has. tape, nil for none, is empty. It waits.
	Solve(ctx context.Context, tape Tape[T], spans ...Span) (Progress, error)
	// Enqueue is Solve as far as it goes without waiting, and can be recorded: a lane that
	// takes more steps than the tape has had room for in a Solve before stays as it is,
	// running, and so do lanes after a fraction of a second.
	Enqueue(tape Tape[T], spans ...Span)
	// Close releases what Fuse allocated. It is safe to call twice.
	Close()
}
