package main

import (
	"cmp"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gonum.org/v1/plot"

	"github.com/seed-5f5774c8/neuralode/internal/picture"
)

// drawing holds the flags that say how a picture is written.
type drawing struct {
	out, format   string
	width, height float64
	dpi           int
}

func (d *drawing) add(f *pflag.FlagSet, out string, height float64) {
	f.StringVar(&d.out, "out", out, "picture to write, - is standard output")
	f.StringVar(&d.format, "format", "", "png, svg or pdf (default by the name of --out, else png)")
	f.Float64Var(&d.width, "width", 18, "width in centimetres")
	f.Float64Var(&d.height, "height", height, "height in centimetres, of each panel")
	f.IntVar(&d.dpi, "dpi", 100, "dots per inch of a PNG")
}

// maxDots limits the size of a PNG.
const maxDots = 100_000_000

// check fills in the format, before there is work to lose.
func (d *drawing) check(json bool) (err error) {
	const most = 1000 // centimetres
	switch dots := d.width / 2.54 * d.height / 2.54 * float64(d.dpi) * float64(d.dpi); {
	case !(d.width >= 1 && d.width <= most && d.height >= 1 && d.height <= most):
		return usagef("--width is %g and --height %g; give 1 to %d centimetres", d.width, d.height, most)
	case d.dpi < 1 || dots > maxDots:
		return usagef("--dpi is %d, which makes %.3g dots; give at least 1, for no more than %.3g dots", d.dpi, dots, float64(maxDots))
	case d.out == "-" && json:
		return usagef("--json and --out - exclude each other: both are standard output")
	}
	d.format, err = formatBy(d.out, d.format, "png", "svg", "pdf")
	return err
}

// write draws the panels, one above the other, and says where.
func (a *app) write(d *drawing, panels ...*plot.Plot) error {
	layout := picture.Layout{Columns: 1, Width: d.width, Height: d.height, DPI: d.dpi}
	err := writeTo(d.out, a.out, func(w io.Writer) error { return picture.Write(w, d.format, layout, panels...) })
	if err == nil && a.json {
		err = a.printJSON(map[string]any{"out": d.out, "format": d.format, "panels": len(panels)})
	}
	return err
}

func (a *app) plotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plot",
		Short: "Draw what a model learned, and how",
		Long: `Plot draws pictures in PNG, SVG or PDF: the solutions of a model with data, a phase
portrait with its field, the course of a training, and the sizes of the solver's steps.`,
		Example: `  neuralode plot trajectories run --data data.csv
  neuralode plot phase run --out phase.svg
  neuralode plot loss run
  neuralode plot steps run --rtol 1e-8 --out steps.pdf`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no plot of %q; give trajectories, phase, loss or steps", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to draw: trajectories, phase, loss or steps")
		},
	}
	cmd.AddCommand(a.plotTrajectoriesCommand(), a.plotPhaseCommand(), a.plotLossCommand(), a.plotStepsCommand())
	return cmd
}

func (a *app) plotTrajectoriesCommand() *cobra.Command {
	s := &scene{}
	var d drawing
	var only []string
	cmd := &cobra.Command{
		Use:   "trajectories MODEL",
		Short: "Draw solutions over time, with data",
		Long: `Trajectories draws a panel for each state: lines are solutions of the model, points the
observations in --data.

The solutions begin where predict's do. With --data and no other word of where, they are
those of its series, and a series that the model was not trained on begins at its first
row.`,
		Example: `  neuralode plot trajectories run --data data.csv
  neuralode plot trajectories run --series p7 --only x,y --out p7.svg
  neuralode plot trajectories run --z0 1,0 --times 0:20:500 --out - --format pdf > future.pdf`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.check(a.json); err != nil {
				return err
			}
			solveErr := s.load(cmd, a, args[0])
			if s.list == nil {
				return solveErr
			}
			panels, err := s.trajectories(only)
			if err != nil {
				return err
			}
			return errors.Join(solveErr, a.write(&d, panels...))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	s.add(f)
	f.StringSliceVar(&only, "only", nil, "states to draw (default all)")
	d.add(f, "trajectories.png", 7)
	s.addOver(f, "that of MODEL", "that of MODEL")
	return cmd
}

func (a *app) plotPhaseCommand() *cobra.Command {
	s := &scene{}
	var d drawing
	p := portrait{}
	cmd := &cobra.Command{
		Use:   "phase MODEL",
		Short: "Draw a phase portrait with the field",
		Long: `Phase draws solutions in the plane of two states, over arrows along the field dz/dt; the
longer, the faster, by the root of the speed on paper. Points are the observations in
--data. The solutions begin as those of trajectories do.

Where the field depends on more, it is that at the time --at, with the other components
of the state as in the first initial state.`,
		Example: `  neuralode plot phase run
  neuralode plot phase run --x prey --y predator --data data.csv --out phase.svg
  neuralode plot phase run --z0 1,0 --z0 0,2 --times 0:10:200 --grid 30`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(d.check(a.json), p.check()); err != nil {
				return err
			}
			solveErr := s.load(cmd, a, args[0])
			if s.list == nil {
				return solveErr
			}
			if !cmd.Flags().Changed("at") {
				p.at = s.starts[0].Time
			}
			panel, err := s.phase(&p)
			if err != nil {
				return err
			}
			return errors.Join(solveErr, a.write(&d, panel))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	s.add(f)
	f.StringVar(&p.x, "x", "", "state on the horizontal axis (default the first)")
	f.StringVar(&p.y, "y", "", "state on the vertical axis (default the next)")
	f.Float64Var(&p.at, "at", 0, "time of the field, if it depends on it (default that of the first initial state)")
	f.IntVar(&p.grid, "grid", 20, "arrows along an axis; 0: no field")
	d.add(f, "phase.png", 15)
	s.addOver(f, "that of MODEL", "that of MODEL")
	return cmd
}

func (a *app) plotLossCommand() *cobra.Command {
	var d drawing
	cmd := &cobra.Command{
		Use:   "loss RUN",
		Short: "Draw the course of a training",
		Long: `Loss draws the losses of the epochs, of the training and of what is held out. RUN is the
folder that train writes, of a run that still goes on too, or a metrics file in it.`,
		Example: `  neuralode plot loss run
  neuralode plot loss run/metrics.csv --out loss.svg`,
		Args: positional("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := d.check(a.json); err != nil {
				return err
			}
			history, err := readMetrics(args[0])
			if err != nil {
				return err
			}
			return a.write(&d, lossPlot(history))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	d.add(f, "loss.png", 10)
	return cmd
}

func (a *app) plotStepsCommand() *cobra.Command {
	s := &scene{}
	var d drawing
	cmd := &cobra.Command{
		Use:   "steps MODEL",
		Short: "Draw the sizes of the solver's steps",
		Long: `Steps solves the model from each initial state on its own, and draws the sizes
of the accepted steps over time. Points are those that were accepted after a
rejection. The solutions begin as those of trajectories do.`,
		Example: `  neuralode plot steps run
  neuralode plot steps run --series p7 --method dopri5 --rtol 1e-8 --out steps.pdf`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.check(a.json); err != nil {
				return err
			}
			if err := s.read(cmd, a, args[0]); err != nil {
				return err
			}
			s.limit(a)
			panel, err := s.steps(cmd.Context())
			if panel == nil {
				return err
			}
			return errors.Join(err, a.write(&d, panel))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	s.add(f)
	d.add(f, "steps.png", 10)
	s.addOver(f, "that of MODEL", "that of MODEL")
	return cmd
}
