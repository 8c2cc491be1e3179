package table

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Layout says what the columns of a table are.
type Layout struct {
	Time   string   // "": a column called time or t, else the first
	ID     string   // tells series apart; "": a column called series or series_id, if any
	States []string // none: all others
}

// Series is one trajectory.
type Series struct {
	ID     string    // "" where the table has one series
	Times  []float64 // [n], strictly increasing
	Values []float64 // [n, D], NaN where missing
}

// Rows returns the values at time i.
func (s *Series) Row(i int) []float64 {
	d := len(s.Values) / len(s.Times)
	return s.Values[i*d : (i+1)*d]
}

// Set is the series of a table, in the order in which they begin.
type Set struct {
	Layout // filled in
	Series []Series
}

// Resolve fills in what is left to the table.
func (t *Table) Resolve(l Layout) (Layout, error) {
	names := t.Names()
	named := func(list ...string) string {
		for _, want := range list {
			for _, name := range names {
				if strings.EqualFold(name, want) {
					return name
				}
			}
		}
		return ""
	}
	if l.ID == "" {
		l.ID = named("series", "series_id")
	}
	if l.Time == "" {
		l.Time = named("time", "t")
	}
	if l.Time == "" {
		for _, name := range names {
			if name != l.ID {
				l.Time = name
				break
			}
		}
	}
	if len(l.States) == 0 {
		for _, name := range names {
			if name != l.Time && name != l.ID {
				l.States = append(l.States, name)
			}
		}
	}
	for _, name := range append([]string{l.Time}, l.States...) {
		if _, err := t.column(name); err != nil {
			return l, err
		}
	}
	if l.ID != "" {
		if _, err := t.column(l.ID); err != nil {
			return l, err
		}
	}
	for i, name := range l.States {
		if slices.Contains(l.States[:i], name) {
			return l, fmt.Errorf("the state %q is named twice; name it once", name)
		}
	}
	switch {
	case len(l.States) == 0:
		return l, fmt.Errorf("%s has no column of states beside the time %q; it has %s", t.Name, l.Time, strings.Join(names, ", "))
	case slices.Contains(l.States, l.Time) || l.ID != "" && slices.Contains(l.States, l.ID) || l.ID == l.Time:
		return l, errors.New("a column can be only one of time, series and state")
	}
	return l, nil
}

// Series divides the table into series, whose rows may be mixed.
func (t *Table) Series(l Layout) (*Set, error) {
	l, err := t.Resolve(l)
	if err != nil {
		return nil, err
	}
	if t.Rows() == 0 {
		return nil, fmt.Errorf("%s has a header but no rows", t.Name)
	}
	times, err := t.Numbers(l.Time)
	if err != nil {
		return nil, err
	}
	ids := make([]string, t.Rows())
	if l.ID != "" {
		if ids, err = t.texts(l.ID); err != nil {
			return nil, err
		}
	}
	var states [][]float64
	for _, name := range l.States {
		x, err := t.Numbers(name)
		if err != nil {
			return nil, err
		}
		states = append(states, x)
	}
	set := &Set{Layout: l}
	index, last := map[string]int{}, map[string]int{}
	for row, at := range times {
		if math.IsNaN(at) {
			return nil, fmt.Errorf("%s: the time is missing; give it or remove the row", t.where(row))
		}
		i, ok := index[ids[row]]
		if !ok {
			i = len(set.Series)
			index[ids[row]] = i
			set.Series = append(set.Series, Series{ID: ids[row]})
		}
		s := &set.Series[i]
		if n := len(s.Times); n > 0 && at <= s.Times[n-1] {
			of, what := "", "is not after"
			if l.ID != "" {
				of = fmt.Sprintf(" of series %q", s.ID)
			}
			if at == s.Times[n-1] {
				what = "is the same as"
			}
			hint := "sort the rows by time"
			if l.ID == "" {
				hint += ", or name the column that tells series apart with --id"
			}
			return nil, fmt.Errorf("%s: time %v%s %s that of the row before it (%s); %s", t.where(row), at, of, what, t.where(last[ids[row]]), hint)
		}
		last[ids[row]] = row
		s.Times = append(s.Times, at)
		for _, x := range states {
			s.Values = append(s.Values, x[row])
		}
	}
	return set, nil
}
