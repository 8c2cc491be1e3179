// Package step is the one stepping loop of the library: it advances a state by
// an explicit Runge-Kutta method through the verbs of a backend,
//
//	Y_i = y + h·Σ_{j<i} a_ij·k_j,  k_i = F(t + c_i·h, Y_i),  y' = y + h·Σ b_i·k_i
//
// (Hairer, Nørsett & Wanner, Solving ODEs I, eq. II.1.8). The forward solve and
// the augmented reverse solve of the adjoint differ only in their [System].
//
// An attempted step is always the same sequence of calls: what happened to it is
// known on the device alone until [Loop.Run] polls.
package step

import (
	"context"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// Block is a Vec with views of its blocks, made once.
type Block[T backend.Float] struct {
	Vec backend.Vec[T]
	Of  []backend.Vec[T]
}

// BlockOf makes the views of v's blocks.
func BlockOf[T backend.Float](v backend.Vec[T]) Block[T] {
	x := Block[T]{Vec: v}
	n, _, _ := v.Shape()
	for i := range n {
		x.Of = append(x.Of, v.Block(i))
	}
	return x
}

// System is what is integrated. Its methods enqueue.
type System[T backend.Float] interface {
	// Stage sets dst to the derivative of y at the given instant. i counts the
	// stages; those from the tableau's number of stages on serve interpolation.
	Stage(i int, dst, y Block[T], at backend.At)
	// Advanced runs after the decision about an attempt, before the state moves.
	Advanced()
	// Moved runs after the state has moved: jumps at stops go here.
	Moved()
}

// Config is what a loop is made of.
type Config[T backend.Float] struct {
	Backend backend.Backend[T]
	Tableau *tableau.Tableau
	Tol     backend.Tolerance
	Control backend.Control // Order and Handover are filled in
	System  System[T]

	Lanes, Blocks, Rows, Cols int
	Saves                     int                    // outputs of a solve; 0 if none are wanted
	Ragged                    bool                   // lanes have spans of their own, and Saves outputs together
	Keep                      Keep                   // what a tape keeps of every step
	Hook                      Hook[T]                // looks at every accepted step, or nil
	FirstBlock                bool                   // the first block of the state alone enters norms, and chooses steps
	Scheme                    Scheme[T]              // makes the step in the tableau's place, or nil
	ErrorParts                []backend.Part[T]      // beside the state, in the error norm
	Poll                      func(backend.Progress) // called after each poll, may be nil
	Fusion                    backend.Fusion         // whether Run makes whole solves at once
}

// Keep says what a tape keeps of every accepted step.
type Keep uint8

const (
	KeepNothing Keep = iota // there is no tape
	KeepTimes               // t and h alone
	KeepStates              // y
	KeepStages              // y and all stages; those for interpolation where an output needed them
	KeepDense               // y, y' and all stages that the interpolant takes
)

// Scheme is a step of another kind, made of the tableau's. It takes no outputs inside
// a step.
type Scheme[T backend.Float] interface {
	// Step enqueues what sets l.Trial to the state at the end of the attempt from l.Y at
	// its start, and the stages that the error is estimated from.
	Step(l *Loop[T])
}

// Hook works on the host between the verbs of an attempt.
type Hook[T backend.Float] interface {
	// Begin is called at the start of a solve.
	Begin(l *Loop[T]) error
	// Decided is called after the decision about an attempt, with the stages for
	// interpolation evaluated, before anything is saved.
	Decided(l *Loop[T]) error
	// Moved is called after the state has moved.
	Moved(l *Loop[T]) error
}

// Forward is dz/dt = f(z, t; θ).
type Forward[T backend.Float] struct{ Field backend.Field[T] }

func (f Forward[T]) Stage(_ int, dst, y Block[T], at backend.At) { f.Field.Eval(dst.Vec, at, y.Vec) }
func (f Forward[T]) Advanced()                                   {}
func (f Forward[T]) Moved()                                      {}

// Loop owns the memory of a solve and can run any number of them.
type Loop[T backend.Float] struct {
	Config[T]
	Clock backend.Clock
	Y     Block[T]   // the state; set it before Run
	Trial Block[T]   // the state at the end of the attempt
	K     []Block[T] // stages, those for interpolation last
	Table backend.Vec[T]
	// Tables are the outputs of every block of the state; Table is the first's.
	Tables []backend.Vec[T]
	Tape   backend.Tape[T]
	// Attempts is the number of attempted steps since Start: while lanes run of those
	// enqueued, and then the most that a lane made.
	Attempts int
	Last     backend.Progress // of the last poll
	stages   int

	k         []backend.Vec[T]
	kOf       [][]backend.Vec[T] // of every block
	work      Block[T]
	extraRows backend.Rows
	parts     []backend.Part[T]
	onAccept  []backend.Move[T]
	onSaving  []backend.Move[T]
	e, e2     []float64
	dense     [][]float64 // for outputs
	keep      []backend.Vec[T]
	owned     []backend.Vec[T]
	err       error // of the hook

	fused    backend.Fused[T] // makes whole solves, or nil
	atOnce   bool             // it made the last one
	recorder backend.Recorder // nil if the device has none
	recorded Recorded
	sequence func() // Attempt, made once
	one      [1]float64
	replayed int // attempts before the first poll if Start was replayed, or 0
}

// New allocates the memory of a loop.
func New[T backend.Float](c Config[T]) (*Loop[T], error) {
	l := &Loop[T]{Config: c, stages: c.Tableau.Stages()}
	if err := l.allocate(); err != nil {
		l.Free()
		return nil, err
	}
	l.recorder, _ = c.Backend.(backend.Recorder)
	l.sequence, l.one[0] = l.Attempt, 1
	tab := c.Tableau
	l.kOf = make([][]backend.Vec[T], c.Blocks)
	for _, b := range l.K {
		l.k = append(l.k, b.Vec)
		for i, v := range b.Of {
			l.kOf[i] = append(l.kOf[i], v)
		}
	}
	if !c.Control.Fixed {
		l.e, l.e2 = tab.E, tab.E2
	}
	part := backend.Part[T]{Y0: l.normed(l.Y), Y1: l.normed(l.Trial), K: l.k}
	if c.FirstBlock {
		part.K = l.kOf[0]
	}
	l.parts = append([]backend.Part[T]{part}, c.ErrorParts...)
	l.onAccept = []backend.Move[T]{{Dst: l.Y.Vec, Src: l.Trial.Vec}}

	l.Control.Order = tab.ErrorExponent()
	first := l.K[0].Vec
	l.extraRows = backend.Saving
	everywhere := c.Keep == KeepDense || c.Hook != nil
	if everywhere {
		l.extraRows = backend.Accepted
	}
	switch {
	case c.Scheme != nil:
		l.Control.Handover = backend.HandNothing
	case tab.FSAL:
		l.Control.Handover = backend.HandLast
		l.onAccept = append(l.onAccept, backend.Move[T]{Dst: first, Src: l.k[l.stages-1]})
	case len(l.K) > l.stages && tab.EndStage():
		end := backend.Move[T]{Dst: first, Src: l.k[l.stages]}
		if everywhere {
			l.Control.Handover = backend.HandLast
			l.onAccept = append(l.onAccept, end)
		} else {
			l.Control.Handover = backend.HandSaving
			l.onSaving = []backend.Move[T]{end}
		}
	default:
		l.Control.Handover = backend.HandNothing
	}
	switch c.Keep {
	case KeepStates:
		l.keep = l.Y.Of
	case KeepStages:
		l.keep = slices.Clone(l.Y.Of)
		for _, k := range l.K {
			l.keep = append(l.keep, k.Of...)
		}
	case KeepDense:
		l.keep = append([]backend.Vec[T]{l.Y.Vec, l.Trial.Vec}, l.k[:len(tab.Dense.P)]...)
	}
	if err := l.fuse(); err != nil {
		l.Free()
		return nil, err
	}
	return l, nil
}

func (l *Loop[T]) allocate() (err error) {
	b := l.Backend
	if l.Clock, err = b.NewClock(l.Lanes); err != nil {
		return err
	}
	block := func() (x Block[T]) {
		if err != nil {
			return x
		}
		v, fail := b.NewVec(l.Blocks, l.Rows, l.Cols)
		if err = fail; err != nil {
			return x
		}
		l.owned = append(l.owned, v)
		return BlockOf(v)
	}
	l.Y, l.Trial = block(), block()
	n := l.stages
	if l.Scheme == nil && (l.Saves > 0 || l.Keep == KeepDense || l.Hook != nil) {
		n += len(l.Tableau.Dense.ExtraC)
	}
	for i := 0; i < n; i++ {
		l.K = append(l.K, block())
	}
	if n > l.stages {
		l.work = block()
	}
	if err != nil {
		return err
	}
	if l.Saves > 0 {
		blocks, rows := l.Saves, l.Rows
		if l.Ragged && l.Lanes > 1 {
			blocks, rows = 1, l.Saves
		}
		for range l.Blocks {
			v, err := b.NewVec(blocks, rows, l.Cols)
			if err != nil {
				return err
			}
			l.owned, l.Tables = append(l.owned, v), append(l.Tables, v)
		}
		l.Table = l.Tables[0]
		if l.Scheme == nil {
			l.dense = l.Tableau.Dense.P
		}
	}
	return nil
}

// normed is what enters a norm.
func (l *Loop[T]) normed(b Block[T]) backend.Vec[T] {
	if l.FirstBlock {
		return b.Of[0]
	}
	return b.Vec
}

// ExtraRows are those in which the stages for interpolation are evaluated.
func (l *Loop[T]) ExtraRows() backend.Rows { return l.extraRows }

// Kept returns the Vecs that the tape keeps of a step.
func (l *Loop[T]) Kept() []backend.Vec[T] { return l.keep }

// Stages returns the stages of the attempt, those for interpolation last.
func (l *Loop[T]) Stages() []backend.Vec[T] { return l.k }

// StagesOf returns the stages of one block of the state.
func (l *Loop[T]) StagesOf(block int) []backend.Vec[T] { return l.kOf[block] }

// Free returns the loop's memory.
func (l *Loop[T]) Free() {
	l.recorded.Close()
	if l.fused != nil {
		l.fused.Close()
		l.fused = nil
	}
	for _, v := range l.owned {
		l.Backend.Free(v)
	}
	l.owned = nil
	if l.Clock != nil {
		l.Clock.Close()
		l.Clock = nil
	}
	if l.Tape != nil {
		l.Tape.Close()
		l.Tape = nil
	}
}

func (l *Loop[T]) at(c float64, rows backend.Rows) backend.At {
	return backend.At{Clock: l.Clock, C: c, Rows: rows}
}

// Attempt enqueues one attempted step of every running lane.
func (l *Loop[T]) Attempt() {
	b, tab := l.Backend, l.Tableau
	if l.Scheme != nil {
		l.Scheme.Step(l)
	} else {
		l.step()
	}
	b.ErrorRatio(l.Clock, l.Tol, l.e, l.e2, l.parts)
	b.Advance(l.Clock, l.Control)

	for i := l.stages; i < len(l.K); i++ {
		at := l.at(tab.Dense.ExtraC[i-l.stages], l.extraRows)
		b.Combine(l.work.Vec, l.Y.Vec, at, tab.Dense.ExtraA[i-l.stages], l.k)
		l.System.Stage(i, l.K[i], l.work, at)
	}
	l.hook(Hook[T].Decided)
	if l.err != nil { // a failure of the device that the hook was told of: nothing tells of it again
		return
	}
	for i, table := range l.Tables {
		b.Save(l.Clock, l.dense, l.Y.Of[i], l.Trial.Of[i], l.kOf[i], table)
	}
	if l.Tape != nil {
		b.Push(l.Clock, l.Tape, l.keep)
	}
	l.System.Advanced()
	b.Commit(l.Clock, backend.Accepted, l.onAccept)
	b.Commit(l.Clock, backend.Saving, l.onSaving)
	l.System.Moved()
	l.hook(Hook[T].Moved)
}

// step makes the tableau's own step.
func (l *Loop[T]) step() {
	b, tab := l.Backend, l.Tableau
	l.System.Stage(0, l.K[0], l.Y, l.at(0, backend.Stale))
	for i := 1; i < l.stages; i++ {
		at := l.at(tab.C[i], backend.Running)
		b.Combine(l.Trial.Vec, l.Y.Vec, at, tab.A[i], l.k)
		l.System.Stage(i, l.K[i], l.Trial, at)
	}
	if !tab.FSAL { // else the last stage was evaluated at the end of the step
		b.Combine(l.Trial.Vec, l.Y.Vec, l.at(1, backend.Running), tab.B, l.k)
	}
}

// hook calls a method of the hook, and keeps its first error.
func (l *Loop[T]) hook(call func(Hook[T], *Loop[T]) error) {
	if l.Hook != nil && l.err == nil {
		l.err = call(l.Hook, l)
	}
}

// firstStep lets the device choose the size of the first step.
func (l *Loop[T]) firstStep() {
	b := l.Backend
	l.System.Stage(0, l.K[0], l.Y, l.at(0, backend.Stale))
	b.ProposeStep(l.Clock, l.normed(l.Y), l.normed(l.K[0]), nil, l.Tableau.Order, l.Tol)
	at := l.at(1, backend.Running)
	b.Combine(l.Trial.Vec, l.Y.Vec, at, l.one[:], l.k)
	// The trial derivative goes where the first attempt will write anyway.
	trial := l.K[len(l.K)-1]
	l.System.Stage(1, trial, l.Trial, at)
	b.ProposeStep(l.Clock, l.normed(l.Y), l.normed(l.K[0]), l.normed(trial), l.Tableau.Order, l.Tol)
}

// Run solves from the beginning of the span, where Y is the state, to its last stop.
// There is one span, or one for each lane. It returns once every lane has ended or,
// with lanes still running, at the first poll after ctx has ended.
func (l *Loop[T]) Run(ctx context.Context, spans ...backend.Span) (backend.Progress, error) {
	if l.fused != nil && ctx.Err() == nil {
		return l.runFused(ctx, spans)
	}
	if err := l.Start(ctx, spans...); err != nil {
		return backend.Progress{}, err
	}
	return l.Continue(ctx, math.MaxInt)
}

// Start begins a solve, with an empty tape.
func (l *Loop[T]) Start(ctx context.Context, spans ...backend.Span) error {
	if err := l.begin(spans); err != nil {
		return err
	}
	b, propose := l.Backend, false
	for i := range spans {
		propose = propose || spans[i].H0 == 0
	}
	l.Attempts, l.Last, l.replayed, l.atOnce = 0, backend.Progress{Running: l.Lanes}, 0, false
	b.Start(l.Clock, spans...)
	l.err = nil
	l.hook(Hook[T].Begin)
	if l.err != nil { // maybe that of Start: the clock may not be used
		return l.err
	}
	if propose && ctx.Err() == nil {
		l.firstStep()
	}
	return nil
}

// begin checks the spans and empties the tape.
func (l *Loop[T]) begin(spans []backend.Span) (err error) {
	saves := 0
	for i := range spans {
		saves += len(spans[i].Saves)
	}
	if saves != l.Saves {
		panic("step: another number of outputs than the loop was made for")
	}
	if l.Keep == KeepNothing {
		return nil
	}
	if r, ok := l.Backend.(backend.Reverser[T]); ok && l.Tape != nil {
		r.Reset(l.Tape)
		return nil
	}
	if l.Tape != nil {
		l.Tape.Close()
	}
	l.Tape, err = l.Backend.NewTape(l.Lanes, l.Rows, l.Cols, len(l.keep))
	return err
}

// Replayed says that a recording which holds a Start was replayed, of a solve that may
// take so many attempts: how far it is is not asked before them.
func (l *Loop[T]) Replayed(attempts int) {
	const most = 256 // what is enqueued is not cancelled
	l.Attempts, l.Last, l.replayed = 0, backend.Progress{Running: l.Lanes}, min(max(attempts, 1), most)
}

// Repeat makes n attempts after a Start that was replayed, without asking how far the
// solve is.
func (l *Loop[T]) Repeat(ctx context.Context, n int) error {
	return l.recorded.Chunks(ctx, l.recorder, n, l.sequence)
}

// Continue goes on with a solve until every lane has ended, ctx has, or `attempts`
// attempts were made since Start.
func (l *Loop[T]) Continue(ctx context.Context, attempts int) (backend.Progress, error) {
	p := backend.Progress{Running: l.Lanes}
	for p.Running > 0 && ctx.Err() == nil && l.Attempts < attempts {
		n := max(l.replayed, 1)
		if l.Attempts > 0 {
			n = l.interval(l.Attempts)
		}
		n = min(n, attempts-l.Attempts)
		l.enqueue(n)
		l.Attempts += n
		if l.err != nil {
			return p, l.err
		}
		var err error
		if p, err = l.Backend.Poll(l.Clock); err != nil {
			return p, err
		}
		l.Last = p
		if p.Running == 0 { // those after the last that did something do not count
			l.Attempts = min(l.Attempts, int(p.Attempts))
		}
		if l.Poll != nil {
			l.Poll(p)
		}
	}
	return p, nil
}

// interval is the number of attempts from one poll to the next, after n attempts: one
// if somebody wants to hear of each. A device that records goes on while the host polls,
// and asking it seldom costs at most a fifth of the attempts in vain, which do nothing
// once all lanes have ended.
func (l *Loop[T]) interval(n int) int {
	if l.recorder == nil || l.Hook != nil || l.Poll != nil {
		return 1
	}
	return min(max(n/4, 4), 32)
}

// enqueue enqueues n attempts, by a recording if the device makes one. The first of
// each solve runs as it is: what a verb has to do once, as when parameters have changed,
// it does there.
func (l *Loop[T]) enqueue(n int) {
	if l.Attempts == 0 && l.replayed == 0 || l.recorder == nil || l.Hook != nil {
		for range n {
			l.Attempt()
		}
		return
	}
	l.recorded.Run(l.recorder, n, l.sequence)
}

// Recorded is a sequence of verbs that is recorded where the device can.
type Recorded struct {
	recording backend.Recording
	plain     bool // it cannot be recorded
}

// Run enqueues the sequence n times. Without a recorder it runs as it is.
func (r *Recorded) Run(recorder backend.Recorder, n int, sequence func()) {
	if r.Replay(recorder, n, sequence) {
		return
	}
	for range n {
		sequence()
	}
}

// Replay enqueues the sequence n times by a recording. It reports false, and has enqueued
// nothing, if there is none.
func (r *Recorded) Replay(recorder backend.Recorder, n int, sequence func()) bool {
	if recorder == nil || r.plain {
		return false
	}
	if r.recording != nil && r.recording.Replay(n) {
		return true
	}
	r.Close()
	var err error
	if r.recording, err = recorder.Record(sequence); err == nil && r.recording.Replay(n) {
		return true
	}
	r.plain = true
	return false
}

// Repeat enqueues the sequence n times, the first of them as it is, until ctx ends.
func (r *Recorded) Repeat(ctx context.Context, recorder backend.Recorder, n int, sequence func()) error {
	if n == 0 {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	sequence()
	return r.Chunks(ctx, recorder, n-1, sequence)
}

// Chunks is Run, until ctx ends.
func (r *Recorded) Chunks(ctx context.Context, recorder backend.Recorder, n int, sequence func()) error {
	const most = 64 // at a time
	for ; n > 0; n -= most {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		r.Run(recorder, min(n, most), sequence)
	}
	return nil
}

// Close releases the recording.
func (r *Recorded) Close() {
	if r.recording != nil {
		r.recording.Close()
		r.recording = nil
	}
}
