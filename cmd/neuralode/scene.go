package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// scene is a model with solutions and observations to draw.
type scene struct {
	starting
	solving
	data string

	m      *modelfile.File
	set    solver.Settings
	starts []modelfile.Start
	at     []float64      // times of the solutions; nil: of each series
	points []table.Series // observations
	list   []trajectory
}

// maxSolutions is how many are drawn, unless their initial states are named.
const maxSolutions = 12

func (s *scene) add(f *pflag.FlagSet) {
	f.StringVar(&s.data, "data", "", "table of observations, with the columns of the training")
	s.starting.add(f, "101 over each series")
}

// read reads the model and the data, and finds the initial states.
func (s *scene) read(cmd *cobra.Command, a *app, path string) (err error) {
	if err = s.validate(); err != nil {
		return err
	}
	if s.m, err = loadModel(path); err != nil {
		return err
	}
	base, err := s.m.Settings()
	if err != nil {
		return err
	}
	if s.set, err = s.over(base, cmd.Flags()); err != nil {
		return err
	}
	if s.data != "" {
		set, err := readSeries(a, s.m, s.data)
		if err != nil {
			return err
		}
		s.points = set.Series
	}
	if s.data != "" && !s.given() {
		if s.at, err = s.timesOf(a, s.m); err != nil {
			return err
		}
		if err = s.startWithData(); err != nil {
			return err
		}
	} else if s.starts, s.at, err = s.starting.read(a, s.m, cmd.Flags()); err != nil {
		return err
	}
	if len(s.z0) == 0 && s.states == "" { // else the data's series are none of the solutions
		s.points = slices.DeleteFunc(s.points, func(p table.Series) bool { return s.start(p.ID) < 0 })
	}
	return nil
}

// limit leaves out what would be too much to see.
func (s *scene) limit(a *app) {
	if n := len(s.starts); n > maxSolutions && !s.given() {
		fmt.Fprintf(a.err, "note: %d of %d series are drawn; choose others with --series\n", maxSolutions, n)
		s.starts = s.starts[:maxSolutions]
		s.points = slices.DeleteFunc(s.points, func(p table.Series) bool { return s.start(p.ID) < 0 })
	}
}

// startWithData begins where the data's series do, or where the training found that they do.
func (s *scene) startWithData() error {
	for _, p := range s.points {
		end := p.Times[len(p.Times)-1]
		i := slices.IndexFunc(s.m.Series, func(m modelfile.Start) bool { return m.ID == p.ID && m.Time <= p.Times[0] })
		if i >= 0 {
			start := s.m.Series[i]
			start.End = max(start.End, end)
			s.starts = append(s.starts, start)
			continue
		}
		if j := slices.IndexFunc(p.Row(0), math.IsNaN); j >= 0 {
			return fmt.Errorf("%s: series %q has no value of %q in its first row, where its solution would begin; give it, or say with --series, --z0 or --states where to begin", s.data, p.ID, s.m.States[j])
		}
		z := s.m.Z(p.Row(0), s.m.Model.Dim(), 0)
		s.starts = append(s.starts, modelfile.Start{ID: p.ID, Time: p.Times[0], End: end, State: z})
	}
	return nil
}

// start is the number of the solution with that ID, or -1.
func (s *scene) start(id string) int {
	return slices.IndexFunc(s.starts, func(m modelfile.Start) bool { return m.ID == id })
}

// load reads and solves. Where some of the samples fail, list has the others.
func (s *scene) load(cmd *cobra.Command, a *app, path string) error {
	if err := s.read(cmd, a, path); err != nil {
		return err
	}
	s.limit(a)
	var err error
	s.list, err = solveFrom(cmd.Context(), s.backend, s.m, s.set, s.starts, s.at)
	return err
}

// label is what a legend calls solution k: nothing where there is one.
func (s *scene) label(k int) string {
	if len(s.starts) == 1 {
		return ""
	}
	return s.starts[k].ID
}

// roomForLegend makes p wider by what a legend of several solutions takes.
func (s *scene) roomForLegend(p *plot.Plot) {
	if len(s.starts) > 1 && p.X.Min < p.X.Max {
		p.X.Max += 0.12 * (p.X.Max - p.X.Min)
	}
}

// dots draws observations, in the colour of their solution or else in black.
func (s *scene) dots(p *plot.Plot, of *table.Series, xys plotter.XYs) {
	dots := picture.Dots(picture.Black, 2, xys)
	if k := s.start(of.ID); k >= 0 && len(s.z0) == 0 && s.states == "" {
		dots.Color = plotutil.Color(k)
	}
	p.Add(dots)
}

// state is the number of a state.
func (s *scene) state(flag, name string) (int, error) {
	j := slices.Index(s.m.States, name)
	if j < 0 {
		return 0, usagef("--%s: the model has no state %q; it has %s", flag, name, strings.Join(s.m.States, ", "))
	}
	return j, nil
}

// trajectories is a panel for each of the states named, or for all.
func (s *scene) trajectories(only []string) ([]*plot.Plot, error) {
	if len(only) == 0 {
		only = s.m.States
	}
	var panels []*plot.Plot
	for _, name := range only {
		j, err := s.state("only", name)
		if err != nil {
			return nil, err
		}
		p := picture.Panel("", s.m.Time, name)
		for k := range s.list {
			addLine(p, k, s.label(k), s.list[k].course(j))
		}
		for i := range s.points {
			s.dots(p, &s.points[i], observed(&s.points[i], j))
		}
		s.roomForLegend(p)
		panels = append(panels, p)
	}
	return panels, nil
}

// portrait holds what a phase portrait has besides its scene.
type portrait struct {
	x, y string
	at   float64
	grid int
}

func (p *portrait) check() error {
	if p.grid < 0 || p.grid > 200 {
		return usagef("--grid is %d; give 0 to 200", p.grid)
	}
	return nil
}

// axes are the numbers of the states on them.
func (s *scene) axes(p *portrait) (i, j int, err error) {
	if len(s.m.States) < 2 {
		return 0, 0, fmt.Errorf("a phase portrait needs two states, and the model has %s alone; draw its trajectories", s.m.States[0])
	}
	if p.x != "" {
		if i, err = s.state("x", p.x); err != nil {
			return 0, 0, err
		}
	}
	j = (i + 1) % len(s.m.States)
	if p.y != "" {
		if j, err = s.state("y", p.y); err != nil {
			return 0, 0, err
		}
	}
	if i == j {
		return 0, 0, usagef("--x and --y are the same state, %s; give two", s.m.States[i])
	}
	return i, j, nil
}

// phase is the plane of two states.
func (s *scene) phase(set *portrait) (*plot.Plot, error) {
	i, j, err := s.axes(set)
	if err != nil {
		return nil, err
	}
	m := s.m
	p := picture.Panel("", m.States[i], m.States[j])
	if set.grid > 0 {
		z, dz := slices.Clone(s.starts[0].State), make([]float64, m.Model.Dim())
		tau := m.Tau(set.at)
		p.Add(picture.Flow{Columns: set.grid, Rows: set.grid, F: func(x, dx []float64) {
			z[i], z[j] = (x[0]-m.Shift[i])/m.Scale[i], (x[1]-m.Shift[j])/m.Scale[j]
			m.Model.Eval(tau, z, dz)
			dx[0], dx[1] = m.Scale[i]/m.TimeScale*dz[i], m.Scale[j]/m.TimeScale*dz[j]
		}})
	}
	for k, tr := range s.list {
		xys := make(plotter.XYs, len(tr.States))
		for row, x := range tr.States {
			xys[row] = plotter.XY{X: x[i], Y: x[j]}
		}
		addLine(p, k, s.label(k), xys)
	}
	for n := range s.points {
		of := &s.points[n]
		var xys plotter.XYs
		for row := range of.Times {
			if x := of.Row(row); !math.IsNaN(x[i]) && !math.IsNaN(x[j]) {
				xys = append(xys, plotter.XY{X: x[i], Y: x[j]})
			}
		}
		s.dots(p, of, xys)
	}
	s.roomForLegend(p)
	return p, nil
}

// steps draws the sizes of the steps over time.
func (s *scene) steps(ctx context.Context) (*plot.Plot, error) {
	list, err := s.stepSizes(ctx)
	if list == nil {
		return nil, err
	}
	p := picture.Panel("", s.m.Time, "size of the step, in units of "+s.m.Time)
	p.Y.Tick.Marker = picture.Decades{}
	for k, c := range list {
		addLine(p, k, s.label(k), c.line)
		addDots(p, k, c.retried)
	}
	s.roomForLegend(p)
	return p, err
}

// stepCourse is log10 of the sizes of a solution's accepted steps over time: both ends of
// each, and the first end of those that follow a rejection.
type stepCourse struct{ line, retried plotter.XYs }

// stepSizes solves from every start. Where a solve fails it has the steps before.
func (s *scene) stepSizes(ctx context.Context) ([]stepCourse, error) {
	dev, err := openBackend[float64](s.backend)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	var last backend.Progress
	var c stepCourse
	m, set := s.m, s.set
	set.Stepping = solver.Joint
	set.Progress = func(now backend.Progress) {
		if now.Accepted == last.Accepted {
			return
		}
		h := math.Log10(math.Abs(now.T-last.T) * m.TimeScale)
		begin, end := m.TimeShift+m.TimeScale*last.T, m.TimeShift+m.TimeScale*now.T
		c.line = append(c.line, plotter.XY{X: begin, Y: h}, plotter.XY{X: end, Y: h})
		if now.Rejected > last.Rejected {
			c.retried = append(c.retried, plotter.XY{X: begin, Y: h})
		}
		last = now
	}
	run, err := solver.New(dev, m.Model, set)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	var list []stepCourse
	var errs error
	for _, start := range s.starts {
		end := start.End
		if s.at != nil {
			end = s.at[len(s.at)-1]
		}
		if !(end > start.Time) {
			return nil, fmt.Errorf("series %q begins at %v, and its solution would end at %v; give a later time with --times", start.ID, start.Time, end)
		}
		last, c = backend.Progress{T: m.Tau(start.Time)}, stepCourse{}
		if _, err := run.Solve(ctx, start.State, []float64{last.T, m.Tau(end)}); err != nil {
			errs = errors.Join(errs, fmt.Errorf("series %q: %w", start.ID, err))
		}
		list = append(list, c)
	}
	return list, errs
}
