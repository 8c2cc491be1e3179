package solver

import (
	"fmt"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Status says how the solve of a sample ended. A Status is an error, for
// errors.Is(err, solver.NotFinite).
type Status = backend.Status

const (
	Done            = backend.Done
	TooManyAttempts = backend.TooManyAttempts
	StepTooSmall    = backend.StepTooSmall
	NotFinite       = backend.NotFinite
	Cancelled       = backend.Cancelled
	Stopped         = backend.Stopped // as it should, by a terminal event
	TooManyEvents   = backend.TooManyEvents
)

// Failure is how one sample failed.
type Failure struct {
	Sample int
	Status Status
	T, H   float64 // the time it reached and the step attempted last
	// Component has the largest error, Ratio times what the tolerance allows, or is
	// the first that is not finite.
	Component int
	Ratio     float64
	Attempts  int64
	// Event says what went wrong with an event, if the sample ended for that.
	Event string
	// Joint: the sample is the worst of a batch that stepped jointly and failed
	// as a whole.
	Joint bool
}

func (f Failure) Error() string {
	where := fmt.Sprintf("sample %d at t = %g, h = %.3g", f.Sample, f.T, f.H)
	if f.Joint {
		where += " (the batch stepped jointly and stops with it)"
	}
	switch {
	case f.Event != "" && f.Status == TooManyEvents:
		return where + ": " + f.Event + ": it may come ever faster, as the bounces of a ball that comes to rest do; " +
			"end the sample by a terminal event before that, or raise Event.Max"
	case f.Event != "":
		return where + ": " + f.Event + ": check the event's functions and parameters, or end the sample by a terminal event before that"
	}
	switch f.Status {
	case TooManyAttempts:
		largest := ""
		if f.Ratio > 0 { // fixed steps estimate no error
			largest = fmt.Sprintf(", component %d has the largest error", f.Component)
		}
		return fmt.Sprintf("%s: used up %d attempted steps%s: raise Settings.MaxAttempts, or allow longer steps by looser RTol and ATol or a larger Step; "+
			"if the steps stay small where the solution is smooth, the problem is stiff and no explicit method suits it", where, f.Attempts, largest)
	case StepTooSmall:
		return fmt.Sprintf("%s: the error of component %d is %.3g times the tolerance even at the smallest step: the solution may be singular there; "+
			"end the span earlier, loosen RTol and ATol, or put discontinuities of f into Settings.Breakpoints", where, f.Component, f.Ratio)
	case NotFinite:
		return fmt.Sprintf("%s: component %d became NaN or infinite, and no smaller step was left to try: the solution blows up there or f is not defined; "+
			"end the span earlier, make a fixed Step smaller, or check f, its parameters and z0", where, f.Component)
	case Cancelled:
		if f.Joint {
			where = fmt.Sprintf("the batch at t = %g, h = %.3g", f.T, f.H)
		}
		return where + ": cancelled before the end of the span"
	}
	return where + ": " + f.Status.String()
}

// Error reports the samples that did not reach the end. What was computed is in
// the Solution returned with it.
type Error struct {
	Failures []Failure // ascending by sample; one for a batch that stepped jointly
	Samples  int       // size of the batch
	cause    error     // why the context ended, if that cancelled a sample
}

// Failed returns an *Error about the lanes that are not done, or nil. A lane
// that still runs counts as cancelled. cause says why the context ended, if it did.
func Failed(lanes []backend.Lane, batch int, cause error) error {
	var failed []Failure
	cancelled := false
	for i, l := range lanes {
		if l.Status == Done || l.Status == Stopped {
			continue
		}
		if l.Status == backend.StatusRunning {
			l.Status = Cancelled
		}
		cancelled = cancelled || l.Status == Cancelled
		f := Failure{
			Sample: i, Status: l.Status, T: l.T, H: l.H, Component: l.Col, Ratio: l.Ratio,
			Attempts: l.Accepted + l.Rejected,
		}
		if len(lanes) == 1 && batch > 1 {
			f.Sample, f.Joint = l.Row, true // the row that made the joint step fail
		}
		failed = append(failed, f)
	}
	if failed == nil {
		return nil
	}
	if !cancelled {
		cause = nil
	}
	return &Error{Failures: failed, Samples: batch, cause: cause}
}

func (e *Error) Error() string {
	msg := "solver: " + e.Failures[0].Error()
	if n := len(e.Failures); n > 1 {
		msg += fmt.Sprintf(" (and %d more of %d samples)", n-1, e.Samples)
	}
	if e.cause != nil {
		msg += ": " + e.cause.Error()
	}
	return msg
}

// Unwrap makes errors.Is find each status that occurred and the cause of a cancellation.
func (e *Error) Unwrap() []error {
	seen := map[Status]bool{}
	var errs []error
	for _, f := range e.Failures {
		if !seen[f.Status] {
			seen[f.Status] = true
			errs = append(errs, f.Status)
		}
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}
