package backend

// Cutter is an optional capability of a Backend, found by type assertion: it ends a
// step early, where an event is.
type Cutter[T Float] interface {
	Backend[T]

	// Cut shortens the step that the last Advance accepted, in every lane whose time
	// is not NaN: the lane is then at that time, later than the step's start and no
	// later than its end; outputs and a stop beyond it are ahead again. The size of
	// the step, by which outputs in it are interpolated, stays what it was. A lane
	// whose status is StatusRunning goes on, its first stage stale; others end with
	// that status. What is at the cut is the caller's to write to y1. Call it before
	// Save.
	Cut(clk Clock, times []float64, status []Status)
}
