package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/train"
)

// dataset is a table's series, divided and in the model's variables.
type dataset struct {
	series   []table.Series // with at least two rows, as they are read
	meta     modelfile.Meta
	dim      int
	training []train.Series[float64]
	held     []train.Series[float64] // for validation
	kept     []int                   // rows of each series for the training
	by       string                  // how they were divided: series, time or none
	remarks  []string
}

// newDataset divides and scales the series of a table as t says.
func newDataset(set *table.Set, t *training) (*dataset, error) {
	d := &dataset{by: t.validateBy, meta: modelfile.Meta{Time: set.Time, ID: set.ID, States: set.States}}
	d.dim = len(set.States) + t.augment
	for _, s := range set.Series {
		if len(s.Times) < 2 {
			d.remarks = append(d.remarks, fmt.Sprintf("series %q has one time only and is left out", s.ID))
			continue
		}
		d.series = append(d.series, s)
	}
	if len(d.series) == 0 {
		return nil, fmt.Errorf("no series has two times; a trajectory needs at least two")
	}
	kept, err := d.divide(t) // rows for the training
	if err != nil {
		return nil, err
	}
	d.kept = kept
	d.scale(kept, t.normalize)
	for i := range d.series {
		s := &d.series[i]
		z := d.meta.Z(s.Values, d.dim, math.NaN())
		z0, err := d.start(s, z, t.learnZ0)
		if err != nil {
			return nil, err
		}
		whole := train.Series[float64]{Times: d.meta.Taus(s.Times), Z0: z0, Values: z}
		d.meta.Series = append(d.meta.Series, modelfile.Start{ID: s.ID, Time: s.Times[0], End: s.Times[len(s.Times)-1], State: z0})
		if n := kept[i]; n > 0 {
			part := train.Series[float64]{Times: whole.Times[:n], Z0: z0, Values: z[:n*d.dim]}
			d.training = append(d.training, d.windows(part, t.window)...)
		}
		if kept[i] < len(s.Times) {
			rest := whole
			rest.Values = slices.Clone(z)
			for k := range kept[i] * d.dim {
				rest.Values[k] = math.NaN()
			}
			d.held = append(d.held, rest)
		}
	}
	return d, nil
}

// divide returns for each series how many of its rows are for the training.
func (d *dataset) divide(t *training) ([]int, error) {
	if d.by == "auto" {
		d.by = "time"
		if len(d.series) >= 5 {
			d.by = "series"
		}
	}
	if t.validation == 0 {
		d.by = "none"
	}
	kept := make([]int, len(d.series))
	for i := range kept {
		kept[i] = len(d.series[i].Times)
	}
	switch d.by {
	case "series":
		in, out := train.Split(len(kept), t.validation, t.seed)
		if len(in) == 0 || len(out) == 0 {
			return nil, fmt.Errorf("of %d series a fraction of %g leaves none for the training or for the validation; choose another --validation, or --validate-by time", len(kept), t.validation)
		}
		for _, i := range out {
			kept[i] = 0
		}
	case "time":
		for i, n := range kept {
			if kept[i] = min(n-int(math.Round(t.validation*float64(n))), n-1); kept[i] < 2 {
				return nil, fmt.Errorf("series %q has %d rows, too few to hold out a fraction of %g; use --validation 0 or --validate-by series", d.series[i].ID, n, t.validation)
			}
		}
	}
	return kept, nil
}

// scale chooses the model's variables by the rows for the training: states of mean 0 and
// standard deviation 1, and the time in which they move by 1 as the unit of time.
func (d *dataset) scale(kept []int, normalize bool) {
	m, n := &d.meta, len(d.meta.States)
	m.TimeScale, m.Shift, m.Scale = 1, make([]float64, n), slices.Repeat([]float64{1}, n)
	if !normalize {
		return
	}
	m.TimeShift = math.Inf(1)
	for i, s := range d.series {
		if kept[i] > 0 {
			m.TimeShift = min(m.TimeShift, s.Times[0])
		}
	}
	over := func(j int, visit func(x, dx, dt float64)) {
		for i := range d.series {
			s, last, at := &d.series[i], math.NaN(), 0.0
			for row := range kept[i] {
				if x := s.Row(row)[j]; !math.IsNaN(x) {
					visit(x, x-last, s.Times[row]-at)
					last, at = x, s.Times[row]
				}
			}
		}
	}
	moved, took := 0.0, 0.0
	for j := range n {
		count, sum, squares := 0.0, 0.0, 0.0
		over(j, func(x, _, _ float64) { count++; sum += x })
		if count == 0 {
			continue
		}
		m.Shift[j] = sum / count
		over(j, func(x, _, _ float64) { squares += (x - m.Shift[j]) * (x - m.Shift[j]) })
		if sd := math.Sqrt(squares / count); sd > 0 {
			m.Scale[j] = sd
		}
		over(j, func(_, dx, dt float64) {
			if !math.IsNaN(dx) {
				moved += math.Abs(dx) / m.Scale[j]
				took += dt
			}
		})
	}
	if moved > 0 {
		m.TimeScale = took / moved
	}
}

// start is the state at a series' first time; z are its values.
func (d *dataset) start(s *table.Series, z []float64, learned bool) ([]float64, error) {
	z0 := make([]float64, d.dim) // augmented components begin at 0
	for j, name := range d.meta.States {
		if !math.IsNaN(z[j]) {
			z0[j] = z[j]
			continue
		}
		if !learned {
			return nil, fmt.Errorf("series %q begins at time %v without a value of %q; give it, or learn the initial states with --learn-z0", s.ID, s.Times[0], name)
		}
		for k := j; k < len(z); k += d.dim { // learned from the first one that there is
			if !math.IsNaN(z[k]) {
				z0[j] = z[k]
				break
			}
		}
	}
	return z0, nil
}

// windows cuts a series into all windows of so many rows that begin with a complete state.
func (d *dataset) windows(s train.Series[float64], rows int) []train.Series[float64] {
	if rows == 0 || rows >= len(s.Times) {
		return []train.Series[float64]{s}
	}
	list := []train.Series[float64]{}
	observed := len(d.meta.States)
	for i := range len(s.Times) - rows + 1 {
		z0 := make([]float64, d.dim)
		copy(z0, s.Values[i*d.dim:][:observed])
		if slices.ContainsFunc(z0, math.IsNaN) {
			continue
		}
		values := s.Values[i*d.dim : (i+rows)*d.dim]
		if !slices.ContainsFunc(values[d.dim:], func(v float64) bool { return v == v }) {
			continue // there is nothing to learn
		}
		list = append(list, train.Series[float64]{Times: s.Times[i : i+rows], Z0: z0, Values: values})
	}
	return list
}

// ragged: the series do not share their times.
func ragged(list []train.Series[float64]) bool {
	return slices.ContainsFunc(list, func(s train.Series[float64]) bool { return !slices.Equal(s.Times, list[0].Times) })
}

// objective is a fit to series. The caller closes it.
type objective[T backend.Float] interface {
	train.Objective[T]
	Params() ([]T, error)
	Close() error
}

// newObjective makes a fit to series: [train.Trajectories] where they share their times.
func newObjective[T backend.Float](s *solver.Solver[T], list []train.Series[float64], set train.TrajectorySettings) (objective[T], error) {
	if ragged(list) {
		own := make([]train.Series[T], len(list))
		for i, x := range list {
			own[i] = train.Series[T]{Times: x.Times, Z0: cast[T](x.Z0), Values: cast[T](x.Values)}
		}
		return train.NewRagged(s, own, set)
	}
	data := train.Data[T]{Times: list[0].Times}
	d := s.Dim()
	for _, x := range list {
		data.Z0 = append(data.Z0, cast[T](x.Z0)...)
	}
	for i := range data.Times {
		for _, x := range list {
			data.Targets = append(data.Targets, cast[T](x.Values[i*d:(i+1)*d])...)
		}
	}
	if slices.ContainsFunc(data.Targets, func(v T) bool { return v != v }) {
		data.Weights = train.Observed(data.Targets)
	}
	return train.NewTrajectories(s, data, set)
}

func cast[To, From backend.Float](x []From) []To {
	y := make([]To, len(x))
	for i, v := range x {
		y[i] = To(v)
	}
	return y
}

// learned puts learned initial states, those of the series for the training, into list.
func (d *dataset) learned(list []modelfile.Start, z0 []float64) {
	for i := range list {
		if d.kept[i] == 0 {
			continue
		}
		list[i].State, z0 = z0[:d.dim], z0[d.dim:]
	}
}
