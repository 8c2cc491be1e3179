package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/internal/statedict"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// benchmark holds the flags of bench.
type benchmark struct {
	solving
	times     string
	batches   []int
	steppings []string
	precision string
	duration  time.Duration
	seed      uint64
}

// benchReport is what bench prints.
type benchReport struct {
	Model     string      `json:"model"`
	Formula   string      `json:"formula"`
	Params    int         `json:"params"`
	Precision string      `json:"precision"`
	Method    string      `json:"method"`
	RTol      float64     `json:"rtol"`
	Times     int         `json:"times"`
	Span      [2]float64  `json:"span"`
	Machine   string      `json:"machine"`
	Rows      []benchLine `json:"rows"`
}

// benchLine is a batch of one size. Times are medians, in seconds.
type benchLine struct {
	Batch       int     `json:"batch"`
	Stepping    string  `json:"stepping"`
	Backend     string  `json:"backend"`
	Evaluations int64   `json:"evaluations"` // of f in a solve, of the sample with the most
	Solve       float64 `json:"solve_s"`
	Gradient    float64 `json:"solve_and_gradient_s"`
	Runs        int     `json:"runs"` // of solve and gradient together
}

func (a *app) benchCommand() *cobra.Command {
	b := &benchmark{}
	cmd := &cobra.Command{
		Use:   "bench MODEL",
		Short: "Time solves and gradients of a model on this machine",
		Long: `Bench solves the model from normally distributed states of the network, and
differentiates the sum of the states at all times with respect to initial states and
parameters by the discrete adjoint. It prints medians over runs after a first one, for
each size of batch and each stepping. Where no flag says otherwise, method, tolerances
and step are those of the training.`,
		Example: `  neuralode bench run
  neuralode bench run --batch 1,32,1024 --stepping per_sample --rtol 1e-6
  neuralode bench model.safetensors --backend gpu --precision float32 --json`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := b.run(cmd, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			return r.print(a.out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&b.times, "times", "", "times, as START:END:COUNT or separated by commas (default 10 over the first series of the training, else 0:1:10)")
	f.IntSliceVar(&b.batches, "batch", []int{1, 32, 1024}, "sizes of the batch")
	f.StringSliceVar(&b.steppings, "stepping", []string{"joint", "per_sample"}, "one step size for the batch, joint, or for each sample, per_sample; or both")
	f.StringVar(&b.precision, "precision", "", "float32 or float64 (by default, that of MODEL)")
	f.DurationVar(&b.duration, "duration", time.Second, "time for each line and kind of run")
	f.Uint64Var(&b.seed, "seed", 1, "seed of the initial states")
	b.addOver(f, "that of MODEL", "that of MODEL")
	return cmd
}

func (b *benchmark) run(cmd *cobra.Command, path string) (*benchReport, error) {
	f, err := loadModel(path)
	if err != nil {
		return nil, err
	}
	m, ts := f.Model, evenly(0, 1, 10)
	if b.times != "" {
		if ts, err = parseTimes(b.times); err != nil {
			return nil, usagef("--times %q: %w", b.times, err)
		}
	} else if len(f.Series) > 0 {
		ts = evenly(f.Series[0].Time, f.Series[0].End, 10)
	}
	if len(ts) < 2 {
		return nil, usagef("one time alone is no span; give at least two --times")
	}
	base, err := f.Settings()
	if err != nil {
		return nil, err
	}
	set, err := b.over(base, cmd.Flags())
	if err != nil {
		return nil, err
	}
	wide := f.Wide
	switch b.precision {
	case "":
	case "float32", "float64":
		wide = b.precision == "float64"
	default:
		return nil, usagef("--precision is %q; give float32 or float64", b.precision)
	}
	r := &benchReport{
		Model: path, Formula: statedict.Formula(m.Spec), Params: m.NumParams(), Method: set.Method.String(),
		Times: len(ts), Span: [2]float64{ts[0], ts[len(ts)-1]},
		Machine: fmt.Sprintf("%s/%s, %s, %d threads", runtime.GOOS, runtime.GOARCH, simd.Level(), runtime.GOMAXPROCS(0)),
	}
	ts = f.Taus(ts)
	if wide {
		r.Precision = "float64"
		return r, benchAll[float64](cmd.Context(), b, m, set, ts, r)
	}
	r.Precision = "float32"
	return r, benchAll[float32](cmd.Context(), b, m, set, ts, r)
}

func benchAll[T backend.Float](ctx context.Context, b *benchmark, m *mlp.Model[float64], set solver.Settings, ts []float64, r *benchReport) error {
	resolved, _, err := solver.Resolve[T](set)
	if err != nil {
		return err
	}
	r.RTol = resolved.RTol
	dev, err := openBackend[T](b.backend)
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, batch := range b.batches {
		if batch < 1 {
			return usagef("--batch has the size %d; give at least 1", batch)
		}
		z0 := cast[T](randomStates(batch, m.Dim(), b.seed))
		for _, name := range b.steppings {
			if set.Stepping, err = parseStepping(name); err != nil {
				return err
			}
			line, err := benchOne(ctx, dev, mlp.Convert[T](m), set, z0, ts, b.duration)
			if err != nil {
				return fmt.Errorf("batch of %d, %s: %w", batch, name, err)
			}
			line.Batch, line.Stepping = batch, name
			r.Rows = append(r.Rows, *line)
		}
	}
	return nil
}

// benchOne times solves, then solves with their gradients.
func benchOne[T backend.Float](ctx context.Context, dev backend.Backend[T], m *mlp.Model[T], set solver.Settings, z0 []T, ts []float64, d time.Duration) (*benchLine, error) {
	s, err := solver.New(dev, m, set)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	adj, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		return nil, err
	}
	defer adj.Close()
	line := &benchLine{}
	line.Solve, _, err = median(d, func() error {
		sol, err := s.Solve(ctx, z0, ts)
		if err == nil {
			line.Evaluations, line.Backend = sol.Evaluations(), sol.Backend
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	dLdz := make([]T, len(ts)*len(z0))
	for i := range dLdz {
		dLdz[i] = 1
	}
	line.Gradient, line.Runs, err = median(d, func() error {
		sol, err := adj.Solve(ctx, z0, ts)
		if err != nil {
			return err
		}
		_, err = adj.Gradients(ctx, sol, dLdz)
		return err
	})
	return line, err
}

// median runs f once, then again and again for the duration d, at least once, and
// returns the median of the seconds that these took and their number.
func median(d time.Duration, f func() error) (seconds float64, runs int, err error) {
	if err := f(); err != nil {
		return 0, 0, err
	}
	var all []float64
	for begin := time.Now(); len(all) == 0 || time.Since(begin) < d; {
		start := time.Now()
		if err := f(); err != nil {
			return 0, 0, err
		}
		all = append(all, time.Since(start).Seconds())
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2, n, nil
}

func (r *benchReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s, %d parameters, %s\n%s, rtol %g, %d times from %g to %g; %s\n\n",
		r.Model, r.Formula, r.Params, r.Precision, r.Method, r.RTol, r.Times, r.Span[0], r.Span[1], r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "batch\tstepping\tbackend\tevaluations\tsolve\tsolve and gradient\tsolves/s\t\n")
	for _, l := range r.Rows {
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%.3g\t\n", l.Batch, l.Stepping, l.Backend, l.Evaluations, milliseconds(l.Solve), milliseconds(l.Gradient), float64(l.Batch)/l.Solve)
	}
	return t.Flush()
}

func milliseconds(s float64) string { return fmt.Sprintf("%.3g ms", 1000*s) }
