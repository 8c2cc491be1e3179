package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/table"
)

// modelPath is path, or the model in it if it is the folder of a run.
func modelPath(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, "model.safetensors")
	}
	return path
}

func loadModel(path string) (*modelfile.File, error) {
	file := modelPath(path)
	m, err := modelfile.Load(file)
	switch {
	case err == nil:
		return m, nil
	case file != path && errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s has no model.safetensors; give the folder that train wrote, or a model's file", path)
	}
	return nil, table.Explain(file, err)
}

// starting holds the flags that say where solutions begin, and at which times they are
// wanted.
type starting struct {
	times, timesFile, states string
	series, z0               []string
	t0                       float64
}

// add adds the flags; times says what their default is.
func (p *starting) add(f *pflag.FlagSet, times string) {
	f.StringVar(&p.times, "times", "", "times, as START:END:COUNT or separated by commas (default "+times+")")
	f.StringVar(&p.timesFile, "times-file", "", "table whose column of times is used")
	f.StringSliceVar(&p.series, "series", nil, "series of the training to begin with (default all)")
	f.StringArrayVar(&p.z0, "z0", nil, "initial state, its components separated by commas; once for each")
	f.Float64Var(&p.t0, "t0", 0, "time of --z0 (default the first of the times)")
	f.StringVar(&p.states, "states", "", "table of initial states, one a row")
}

// validate finds flags that contradict each other.
func (p *starting) validate() error {
	switch {
	case p.times != "" && p.timesFile != "":
		return usagef("--times and --times-file exclude each other")
	case min(len(p.series), 1)+min(len(p.z0), 1)+min(len(p.states), 1) > 1:
		return usagef("--series, --z0 and --states exclude each other")
	}
	return nil
}

// given tells whether flags say where solutions begin.
func (p *starting) given() bool { return len(p.series)+len(p.z0) > 0 || p.states != "" }

// read returns what the flags ask for; nil times mean those of each series.
func (p *starting) read(a *app, m *modelfile.File, f *pflag.FlagSet) (starts []modelfile.Start, times []float64, err error) {
	if times, err = p.timesOf(a, m); err != nil {
		return nil, nil, err
	}
	starts, err = p.startsOf(a, m, times, f.Changed("t0"))
	return starts, times, err
}

// timesOf returns the times asked for, or nil.
func (p *starting) timesOf(a *app, m *modelfile.File) ([]float64, error) {
	var times []float64
	var err error
	switch {
	case p.timesFile != "":
		tab, err := table.Read(p.timesFile, a.in)
		if err != nil {
			return nil, err
		}
		if times, err = tab.Numbers(m.Time); err != nil {
			return nil, err
		}
	case p.times == "":
		return nil, nil
	default:
		if times, err = parseTimes(p.times); err != nil {
			return nil, usagef("--times %q: %w", p.times, err)
		}
	}
	for i, t := range times {
		if !(math.Abs(t) <= math.MaxFloat64) || i > 0 && !(t > times[i-1]) {
			return nil, fmt.Errorf("time %d is %v; give finite times that increase", i+1, t)
		}
	}
	if len(times) == 0 {
		return nil, errors.New("there are no times; give at least one")
	}
	return times, nil
}

// maxTimes limits START:END:COUNT.
const maxTimes = 10_000_000

func parseTimes(text string) ([]float64, error) {
	parts := strings.Split(text, ":")
	if len(parts) == 1 {
		return parseNumbers(text)
	}
	if len(parts) != 3 {
		return nil, errors.New("give START:END:COUNT, or numbers separated by commas")
	}
	ends, err := parseNumbers(parts[0] + "," + parts[1])
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil || n < 2 || n > maxTimes {
		return nil, fmt.Errorf("COUNT is %q; give a number from 2 to %d", parts[2], maxTimes)
	}
	return evenly(ends[0], ends[1], n), nil
}

// evenly returns n times from a to b.
func evenly(a, b float64, n int) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = a + (b-a)*float64(i)/float64(n-1)
	}
	list[n-1] = b
	return list
}

func parseNumbers(text string) ([]float64, error) {
	var list []float64
	for part := range strings.SplitSeq(text, ",") {
		x, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return nil, fmt.Errorf("%q is no finite number", part)
		}
		list = append(list, x)
	}
	return list, nil
}

// startsOf returns the initial states asked for.
func (p *starting) startsOf(a *app, m *modelfile.File, times []float64, t0 bool) ([]modelfile.Start, error) {
	dim, d := m.Model.Spec.Widths[0], len(m.States)
	var starts []modelfile.Start
	switch {
	case len(p.z0) > 0:
		if times == nil {
			return nil, usagef("--z0 needs --times or --times-file")
		}
		for i, text := range p.z0 {
			x, err := parseNumbers(text)
			if err != nil {
				return nil, usagef("--z0 %q: %w", text, err)
			}
			if len(x) != d {
				return nil, usagef("--z0 %q has %d components; the model has %s", text, len(x), strings.Join(m.States, ", "))
			}
			at := times[0]
			if t0 {
				at = p.t0
			}
			starts = append(starts, modelfile.Start{ID: strconv.Itoa(i + 1), Time: at, State: m.Z(x, dim, 0)})
		}
	case p.states != "":
		set, err := readSeries(a, m, p.states)
		if err != nil {
			return nil, err
		}
		for _, s := range set.Series {
			for i, t := range s.Times {
				id := s.ID
				if id == "" || len(s.Times) > 1 {
					id = strings.TrimPrefix(fmt.Sprintf("%s/%d", id, i+1), "/")
				}
				if j := slices.IndexFunc(s.Row(i), math.IsNaN); j >= 0 {
					return nil, fmt.Errorf("%s: the initial state %s has no value of %q; give all of them", p.states, id, m.States[j])
				}
				starts = append(starts, modelfile.Start{ID: id, Time: t, End: t, State: m.Z(s.Row(i), dim, 0)})
			}
		}
		if times == nil {
			return nil, usagef("--states needs --times or --times-file")
		}
	default:
		starts = m.Series
		if len(p.series) > 0 {
			starts = nil
			for _, id := range p.series {
				i := slices.IndexFunc(m.Series, func(s modelfile.Start) bool { return s.ID == id })
				if i < 0 {
					return nil, fmt.Errorf("the model was not trained on a series %q; give --z0 or --states", id)
				}
				starts = append(starts, m.Series[i])
			}
		}
		if len(starts) == 0 {
			return nil, usagef("the model remembers no series; give --z0 or --states")
		}
	}
	return starts, nil
}

// readSeries reads a table with the columns of the training.
func readSeries(a *app, m *modelfile.File, path string) (*table.Set, error) {
	tab, err := table.Read(path, a.in)
	if err != nil {
		return nil, err
	}
	layout := table.Layout{Time: m.Time, ID: m.ID, States: m.States}
	if m.ID != "" && !slices.Contains(tab.Names(), m.ID) {
		layout.ID = ""
	}
	return tab.Series(layout)
}
