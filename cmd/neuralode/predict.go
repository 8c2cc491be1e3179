package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// prediction holds the flags of predict.
type prediction struct {
	times, timesFile, states, out, format, backend string
	series, z0                                     []string
	t0                                             float64
}

// trajectory is a prediction for one initial state, in the data's units.
type trajectory struct {
	ID     string      `json:"series"`
	Times  []float64   `json:"times"`
	States [][]float64 `json:"states"` // one list for each time
}

func (a *app) predictCommand() *cobra.Command {
	p := &prediction{}
	cmd := &cobra.Command{
		Use:   "predict MODEL",
		Short: "Solve a trained model from initial states",
		Long: `Predict solves dz/dt = f(z, t) with the model that train wrote, in the units of the
data: a file model.safetensors, or the folder it lies in.

It begins where the series of the training began, or at --z0, or at the rows of --states,
a table with the columns of the training. Each is solved on its own, so that its result
does not depend on the others.`,
		Example: `  neuralode predict run --times 0:10:101
  neuralode predict run --z0 1,0.5 --t0 0 --times 0,0.5,1 --json
  neuralode predict run --states starts.csv --times 0:10:101 --out future.parquet
  neuralode predict run --series p7 --times-file times.csv | head`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.predict(cmd, p, args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&p.times, "times", "", "times, as START:END:COUNT or separated by commas (default 101 over each series of the training)")
	f.StringVar(&p.timesFile, "times-file", "", "table whose column of times is used")
	f.StringSliceVar(&p.series, "series", nil, "series of the training to begin with (default all)")
	f.StringArrayVar(&p.z0, "z0", nil, "initial state, its components separated by commas; once for each")
	f.Float64Var(&p.t0, "t0", 0, "time of --z0 (default the first of the times)")
	f.StringVar(&p.states, "states", "", "table of initial states, one a row")
	f.StringVar(&p.out, "out", "-", "file to write, - is standard output")
	f.StringVar(&p.format, "format", "", "csv, parquet or json (default by the name of --out, else csv)")
	f.StringVar(&p.backend, "backend", "auto", "device: auto, cpu or gpu")
	return cmd
}

func (a *app) predict(cmd *cobra.Command, p *prediction, path string) error {
	switch {
	case p.times != "" && p.timesFile != "":
		return usagef("--times and --times-file exclude each other")
	case min(len(p.series), 1)+min(len(p.z0), 1)+min(len(p.states), 1) > 1:
		return usagef("--series, --z0 and --states exclude each other")
	}
	format, err := p.formatOf(a.json)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "model.safetensors")
	}
	m, err := modelfile.Load(path)
	if err != nil {
		return err
	}
	times, err := p.timesOf(a, m)
	if err != nil {
		return err
	}
	starts, err := p.startsOf(a, m, times, cmd.Flags().Changed("t0"))
	if err != nil {
		return err
	}
	list, solveErr := solveFrom(cmd.Context(), p.backend, m, starts, times)
	if list == nil {
		return solveErr
	}
	return errors.Join(solveErr, writeTo(p.out, a.out, func(w io.Writer) error { return writeTrajectories(w, format, m, list) }))
}

func (p *prediction) formatOf(json bool) (string, error) {
	format := p.format
	if format == "" {
		format = strings.TrimPrefix(strings.ToLower(filepath.Ext(p.out)), ".")
		switch {
		case json:
			format = "json"
		case p.out == "-":
			format = "csv"
		}
	}
	if !slices.Contains([]string{"csv", "parquet", "json"}, format) {
		return "", usagef("there is no format %q; give --format csv, parquet or json", format)
	}
	return format, nil
}

// timesOf returns the times asked for, or nil.
func (p *prediction) timesOf(a *app, m *modelfile.File) ([]float64, error) {
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
func (p *prediction) startsOf(a *app, m *modelfile.File, times []float64, t0 bool) ([]modelfile.Start, error) {
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
		tab, err := table.Read(p.states, a.in)
		if err != nil {
			return nil, err
		}
		layout := table.Layout{Time: m.Time, ID: m.ID, States: m.States}
		if m.ID != "" && !slices.Contains(tab.Names(), m.ID) {
			layout.ID = ""
		}
		set, err := tab.Series(layout)
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

// solveFrom solves the model from every start; nil times mean 101 over the span of its
// series. Where some of the samples fail it returns the others, and an error.
func solveFrom(ctx context.Context, device string, m *modelfile.File, starts []modelfile.Start, times []float64) ([]trajectory, error) {
	set, err := m.Settings()
	if err != nil {
		return nil, err
	}
	set.Stepping = solver.PerSample
	dev, err := openBackend[float64](device)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	s, err := solver.New(dev, m.Model, set)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var z0 []float64
	var samples []solver.Sample
	list := make([]trajectory, len(starts))
	for i, start := range starts {
		list[i] = trajectory{ID: start.ID, Times: times}
		if times == nil {
			list[i].Times = evenly(start.Time, start.End, 101)
		}
		at := m.Taus(list[i].Times)
		switch t0 := m.Tau(start.Time); {
		case at[0] < t0:
			return nil, fmt.Errorf("the time %v lies before the initial state of series %q, at %v; give later times", list[i].Times[0], start.ID, start.Time)
		case at[0] > t0:
			at = slices.Insert(at, 0, t0)
		}
		z0 = append(z0, start.State...)
		samples = append(samples, solver.Sample{Times: at})
	}
	sol, err := s.SolveEach(ctx, z0, samples)
	if sol == nil {
		return nil, err
	}
	for b := range list {
		first := len(samples[b].Times) - len(list[b].Times)
		for i := range list[b].Times {
			if !sol.Reached(first+i, b) {
				list[b].Times = list[b].Times[:i]
				break
			}
			list[b].States = append(list[b].States, m.X(sol.Sample(first+i, b), sol.Dim))
		}
	}
	return list, err
}

// writeTo calls write with the file path, or with out if that is "-".
func writeTo(path string, out io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		return write(out)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func writeTrajectories(w io.Writer, format string, m *modelfile.File, list []trajectory) error {
	id := m.ID
	if id == "" {
		id = "series"
	}
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		return enc.Encode(struct {
			Time       string       `json:"time"`
			States     []string     `json:"states"`
			Trajectory []trajectory `json:"trajectories"`
		}{m.Time, m.States, list})
	case "parquet":
		return writeParquet(w, id, m, list)
	}
	c := csv.NewWriter(w)
	c.Write(append([]string{id, m.Time}, m.States...))
	for _, tr := range list {
		for i, t := range tr.Times {
			row := []string{tr.ID, strconv.FormatFloat(t, 'g', -1, 64)}
			for _, x := range tr.States[i] {
				row = append(row, strconv.FormatFloat(x, 'g', -1, 64))
			}
			c.Write(row)
		}
	}
	c.Flush()
	return c.Error()
}

func writeParquet(w io.Writer, id string, m *modelfile.File, list []trajectory) error {
	group := parquet.Group{id: parquet.String(), m.Time: parquet.Leaf(parquet.DoubleType)}
	for _, name := range m.States {
		group[name] = parquet.Leaf(parquet.DoubleType)
	}
	schema := parquet.NewSchema("predictions", group) // its columns are in alphabetical order
	column := map[string]int{}
	for i, path := range schema.Columns() {
		column[path[0]] = i
	}
	out := parquet.NewWriter(w, schema)
	for _, tr := range list {
		for i, t := range tr.Times {
			row := make(parquet.Row, len(column))
			set := func(name string, v parquet.Value) { row[column[name]] = v.Level(0, 0, column[name]) }
			set(id, parquet.ByteArrayValue([]byte(tr.ID)))
			set(m.Time, parquet.DoubleValue(t))
			for j, name := range m.States {
				set(name, parquet.DoubleValue(tr.States[i][j]))
			}
			if _, err := out.WriteRows([]parquet.Row{row}); err != nil {
				return err
			}
		}
	}
	return out.Close()
}
