package solver

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/step"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// Solution is what a solve computed. The caller owns all of it.
type Solution[T backend.Float] struct {
	// Times are those asked for, t0 first; nil where samples have their own.
	Times []float64
	// Samples are what [Solver.SolveEach] was given, else nil.
	Samples    []Sample
	Batch, Dim int // B and D
	// Y holds the states, row-major [len(Times), B, D]; where samples have their own
	// times sample after sample, [N, D], N the number of all times. Outputs that a
	// failed sample did not reach are NaN.
	Y []T
	// Status and Stats have one entry a sample. Under joint stepping all samples
	// share them.
	Status []Status
	Stats  []Stats
	// Events lists for each sample the events that happened to it, in their order; nil
	// if the solver looks for none. Outputs at the time of an event are the state
	// before it; after a terminal one they are NaN.
	Events [][]Occurrence[T]
	// Backend is the device that ran the solve, Method the method's name.
	Backend, Method string
	// Fused says that the solve was made in one launch; see Settings.Fusion.
	Fused bool
	// Warnings are remarks on the settings and on the choice of the device, for people.
	Warnings []string

	version *Version
	first   []int // row of Y where each sample begins, if they have their own times
	reached []backend.Lane
	dense   []denseLane[T]
	tab     *tableau.Tableau
}

func (s *Solver[T]) newSolution(g grid, z0 []T) *Solution[T] {
	sol := &Solution[T]{
		Times: slices.Clone(g.times), Samples: g.samples, Batch: g.batch, Dim: s.dim,
		Status:  make([]Status, g.batch),
		Stats:   make([]Stats, g.batch),
		Backend: s.dev.Name(), Method: s.set.name(), Warnings: s.warnings,
		version: s.device.Version(), tab: s.set.Tableau,
	}
	if len(s.events) > 0 {
		sol.Events = make([][]Occurrence[T], g.batch)
	}
	rows := len(g.times) * g.batch
	for _, x := range g.samples {
		sol.first = append(sol.first, rows)
		rows += len(x.Times)
	}
	sol.Y = make([]T, rows*s.dim)
	for b := range g.batch {
		ts := sol.SampleTimes(b)
		copy(sol.Sample(0, b), z0[b*s.dim:])
		if length(ts) == 0 && len(ts) == 2 {
			copy(sol.Sample(1, b), z0[b*s.dim:])
		}
	}
	return sol
}

// Stats counts the work on one sample; under joint stepping, on the batch.
type Stats struct {
	Evaluations        int64   // of f
	Accepted, Rejected int64   // steps
	SmallestH          float64 // smallest step taken, without its sign
	LastH              float64 // last step taken, with its sign
	T                  float64 // time reached
}

// StatsOf translates what a lane did.
func StatsOf(l backend.Lane) Stats {
	return Stats{
		Evaluations: l.Evaluations, Accepted: l.Accepted, Rejected: l.Rejected,
		SmallestH: l.SmallestH, LastH: l.LastH, T: l.T,
	}
}

// State is the batch at Times[i], row-major [B, D], sharing memory with Y. It panics
// where samples have their own times.
func (s *Solution[T]) State(i int) []T {
	if s.Samples != nil {
		panic("solver: there is no common state where samples have their own times; use Sample")
	}
	n := s.Batch * s.Dim
	return s.Y[i*n : (i+1)*n : (i+1)*n]
}

// SampleTimes are the output times of sample b, t0 first.
func (s *Solution[T]) SampleTimes(b int) []float64 {
	if s.Samples != nil {
		return s.Samples[b].Times
	}
	return s.Times
}

// Sample is the state of sample b at the i-th of its times, sharing memory with Y.
func (s *Solution[T]) Sample(i, b int) []T {
	row := s.Row(i, b)
	return s.Y[row*s.Dim : (row+1)*s.Dim : (row+1)*s.Dim]
}

// Row is where Sample(i, b) lies in Y, in units of D elements: the layout of Y and of
// all that is laid out as Y.
func (s *Solution[T]) Row(i, b int) int {
	if s.Samples != nil {
		return s.first[b] + i
	}
	return i*s.Batch + b
}

// Reached reports whether sample b got to the i-th of its times.
func (s *Solution[T]) Reached(i, b int) bool {
	ts := s.SampleTimes(b)
	return math.Abs(ts[i]-ts[0]) <= math.Abs(s.Stats[b].T-ts[0])
}

// Final is the batch at the last time, row-major [B, D]: each sample's own last time,
// and a copy, where they have their own, else sharing memory with Y.
func (s *Solution[T]) Final() []T {
	if s.Samples == nil {
		return s.State(len(s.Times) - 1)
	}
	z := make([]T, 0, s.Batch*s.Dim)
	for b := range s.Batch {
		z = append(z, s.Sample(len(s.SampleTimes(b))-1, b)...)
	}
	return z
}

// Evaluations is the largest number of evaluations of f over the samples.
func (s *Solution[T]) Evaluations() int64 {
	var n int64
	for _, st := range s.Stats {
		n = max(n, st.Evaluations)
	}
	return n
}

// Version identifies the solver and the parameters of the solution.
func (s *Solution[T]) Version() *Version { return s.version }

// denseLane holds the steps of one lane: where each begins, its size, and the
// state at both ends and the stages, [2+stages, rows, D].
type denseLane[T backend.Float] struct {
	end  float64 // the time it reached
	t, h []float64
	d    [][]T
}

func readDense[T backend.Float](dev backend.Backend[T], loop *step.Loop[T], reached []backend.Lane) ([]denseLane[T], error) {
	lanes := make([]denseLane[T], loop.Lanes)
	keep := 2 + len(loop.Tableau.Dense.P)
	n := keep * loop.Rows / loop.Lanes * loop.Cols
	for i := range lanes {
		steps := loop.Tape.Len(i)
		l := denseLane[T]{end: reached[i].T, t: make([]float64, steps), h: make([]float64, steps), d: make([][]T, steps)}
		all := make([]T, steps*n)
		for j := range l.t {
			l.d[j] = all[j*n : (j+1)*n]
			var err error
			if l.t[j], l.h[j], err = dev.ReadTape(loop.Tape, i, j, l.d[j]); err != nil {
				return nil, err
			}
		}
		lanes[i] = l
	}
	return lanes, nil
}

// At evaluates the solution at time t from the steps kept by Settings.Dense,
// into a new slice, row-major [B, D]. At the time of an event that is the state before
// it, as an output is. It refuses times outside the span of any sample.
// Of samples that failed before t it says which in the error, and returns NaN beside
// what the others have.
func (s *Solution[T]) At(t float64) ([]T, error) {
	z := make([]T, s.Batch*s.Dim)
	for b := range s.Batch {
		ts := s.SampleTimes(b)
		if s.dense == nil && length(ts) != 0 {
			return nil, errors.New("solver: At needs the steps of the solve; set Settings.Dense")
		}
		first, last := ts[0], ts[len(ts)-1]
		if !(t >= min(first, last) && t <= max(first, last)) {
			return nil, fmt.Errorf("solver: At(%g) is outside the span from %g to %g, and a solution is not extrapolated; solve over a longer span", t, first, last)
		}
		copy(z[b*s.Dim:], s.Sample(0, b))
	}
	var failed error
	weights := make([]float64, len(s.tab.Dense.P))
	for i := range s.dense {
		l, n := &s.dense[i], len(z)/len(s.dense)
		row, first := z[i*n:(i+1)*n], s.SampleTimes(i)[0]
		if t == first {
			continue
		}
		if math.Abs(t-first) > math.Abs(l.end-first) {
			for j := range row {
				row[j] = T(math.NaN())
			}
			if failed == nil {
				failed = fmt.Errorf("solver: At(%g): sample %d only got to t = %g: %w", t, i, l.end, s.Status[i])
			}
			continue
		}
		l.eval(row, t, s.tab, weights)
	}
	return z, failed
}

// eval interpolates within the step that t lies in, t after the first step's
// beginning and no later than the last one's end.
func (l *denseLane[T]) eval(dst []T, t float64, tab *tableau.Tableau, weights []float64) {
	n := len(dst)
	forward := l.h[0] > 0
	// The last step that begins before t.
	i := sort.Search(len(l.t), func(i int) bool { return forward && l.t[i] >= t || !forward && l.t[i] <= t }) - 1
	y0, y1, k := l.d[i][:n], l.d[i][n:2*n], l.d[i][2*n:]
	if t == l.end || i+1 < len(l.t) && t == l.t[i+1] {
		copy(dst, y1)
		return
	}
	tab.Weights(weights, min((t-l.t[i])/l.h[i], 1)) // above 1 by rounding
	for j := range dst {
		sum := 0.0
		for s, w := range weights {
			sum += w * float64(k[s*n+j])
		}
		dst[j] = T(float64(y0[j]) + l.h[i]*sum)
	}
}
