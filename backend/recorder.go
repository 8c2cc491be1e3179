package backend

// Recorder is an optional capability of a Backend, found by type assertion: it
// records a sequence of verbs once and replays it with one call, as a CUDA graph.
type Recorder interface {
	// Record records the verbs that enqueue calls, instead of running them. They
	// must have run before with the same arguments, and all of them enqueue. An error
	// means that this sequence cannot be recorded: run it as it is.
	Record(enqueue func()) (Recording, error)
}

// Recording is a recorded sequence of verbs.
type Recording interface {
	// Replay enqueues the sequence so many times, one after another, with the arguments
	// that it was recorded with. A backend may leave out what does nothing, because all
	// lanes that the sequence advances have ended. It enqueues nothing and reports false
	// if memory that it may use has been released since: record it again.
	Replay(times int) bool
	// Close releases the recording. It is safe to call twice.
	Close()
}
