package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// prediction holds the flags of predict.
type prediction struct {
	starting
	solving
	out, format string
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
	p.starting.add(f, "101 over each series of the training")
	f.StringVar(&p.out, "out", "-", "file to write, - is standard output")
	f.StringVar(&p.format, "format", "", "csv, parquet or json (default by the name of --out, else csv)")
	p.addOver(f, "that of MODEL", "that of MODEL")
	return cmd
}

func (a *app) predict(cmd *cobra.Command, p *prediction, path string) error {
	if err := p.validate(); err != nil {
		return err
	}
	format := p.format
	if format == "" && a.json {
		format = "json"
	}
	format, err := formatBy(p.out, format, "csv", "parquet", "json")
	if err != nil {
		return err
	}
	m, err := loadModel(path)
	if err != nil {
		return err
	}
	starts, times, err := p.read(a, m, cmd.Flags())
	if err != nil {
		return err
	}
	base, err := m.Settings()
	if err != nil {
		return err
	}
	set, err := p.over(base, cmd.Flags())
	if err != nil {
		return err
	}
	list, solveErr := solveFrom(cmd.Context(), p.backend, m, set, starts, times)
	if list == nil {
		return solveErr
	}
	return errors.Join(solveErr, writeTo(p.out, a.out, func(w io.Writer) error { return writeTrajectories(w, format, m, list) }))
}

// formatBy is format; else the ending of the name out, or the first of the list for standard
// output.
func formatBy(out, format string, list ...string) (string, error) {
	if format == "" {
		if format = strings.TrimPrefix(strings.ToLower(filepath.Ext(out)), "."); out == "-" {
			format = list[0]
		}
	}
	if !slices.Contains(list, format) {
		return "", usagef("there is no format %q; give --format %s", format, strings.Join(list, ", "))
	}
	return format, nil
}

// solveFrom solves the model from every start; nil times mean 101 over the span of its
// series. Where some of the samples fail it returns the others, and an error.
func solveFrom(ctx context.Context, device string, m *modelfile.File, set solver.Settings, starts []modelfile.Start, times []float64) ([]trajectory, error) {
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
		return unwritten(path, err)
	}
	return errors.Join(write(f), f.Close())
}

// unwritten says what to do about a file that cannot be made.
func unwritten(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s cannot be written, as its folder does not exist; make it, or give another", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be written; change the permissions, or give another place", path)
	}
	return err
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
