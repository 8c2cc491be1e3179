package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// certificate is what check prints.
type certificate struct {
	Model      string      `json:"model"`
	Backend    string      `json:"backend"`
	Method     string      `json:"method"`
	RTol       float64     `json:"rtol,omitempty"`
	Step       float64     `json:"step,omitempty"` // of a fixed size
	Samples    int         `json:"samples"`
	Times      [2]float64  `json:"times"` // the first and the last
	Gradient   string      `json:"gradient"`
	Second     string      `json:"second"`
	Tol        float64     `json:"tol"`
	Directions []direction `json:"directions"`
	// The gradient's distance from that of the second method, relative.
	Z0    float64 `json:"difference_z0"`
	Theta float64 `json:"difference_theta"`
	Pass  bool    `json:"pass"`
}

type direction struct {
	Of          string  `json:"of"`
	Gradient    float64 `json:"gradient"`
	Difference  float64 `json:"difference"`
	Uncertainty float64 `json:"uncertainty"`
	Error       float64 `json:"error"`
}

// checking holds the flags of check.
type checking struct {
	solving
	starting
	data    string
	samples int
	adjoint.CheckSettings[float64]
}

// checkProblem is what is solved and differentiated.
type checkProblem struct {
	series string    // of --data, whose observations are in the loss
	z0     []float64 // of the network, row-major [B, dim]
	ts     []float64 // of the data
	loss   func(y, dLdy []float64) float64
}

func (a *app) checkCommand() *cobra.Command {
	c := &checking{}
	cmd := &cobra.Command{
		Use:   "check MODEL",
		Short: "Certify the gradients of a model by finite differences",
		Long: `Check solves the model, differentiates the mean square of all states at all times with
respect to initial states and parameters, in float64, and compares with finite
differences in random directions and with the continuous adjoint. States are those of
the network: normalised ones, where train normalised. The exit code is 1 if one differs
by more than the tolerance.

With --data the loss is the mean squared error of the observations, for each of the
first --samples series on its own.

It begins where the series of the training began, or at --z0, or at the rows of --states;
a model that remembers no series at random states, normally distributed.

The default tolerance of the solver is 1e-9 here, as finite differences see its errors.
Activations with kinks, relu and leaky_relu, may fail near one, where no derivative is.`,
		Example: `  neuralode check run
  neuralode check model.safetensors --z0 2,0 --times 0:25:100 --method dopri5
  neuralode check run --data data.csv --json`,
		Args: positional("MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.run(cmd, a, args[0])
			if r == nil {
				return err
			}
			show := r.print
			if a.json {
				show = func(io.Writer) error { return a.printJSON(r) }
			}
			return cmp.Or(err, show(a.out))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&c.data, "data", "", "table of observations, with the columns of the training")
	c.starting.add(f, "5 over the first of the series, else 0:1:5")
	f.IntVar(&c.samples, "samples", 4, "number of initial states or series, unless they are given")
	f.IntVar(&c.Directions, "directions", 3, "number of random directions, of initial states and of parameters")
	f.Float64Var(&c.Tol, "tol", 0, "relative error that passes (default 1000 times rtol, at least 1e-6)")
	f.Uint64Var(&c.Seed, "seed", 1, "seed of what is random")
	c.addOver(f, "1e-9", "rtol/100")
	c.addStepping(f)
	f.Lookup("stepping").DefValue = "that of MODEL"
	return cmd
}

// run returns the certificate, which is nil if nothing could be compared, and an error
// unless it passes.
func (c *checking) run(cmd *cobra.Command, a *app, path string) (*certificate, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Directions < 1 || c.samples < 1 {
		return nil, usagef("--directions is %d and --samples %d; give at least 1", c.Directions, c.samples)
	}
	m, err := loadModel(path)
	if err != nil {
		return nil, err
	}
	problems, err := c.problems(cmd, a, path, m)
	if err != nil {
		return nil, err
	}
	base, err := m.Settings()
	if err != nil {
		return nil, err
	}
	if base.RTol, base.ATol = 0, 0; base.Step == 0 && c.step == 0 {
		base.RTol = 1e-9
	}
	set, err := c.over(base, cmd.Flags())
	if err != nil {
		return nil, err
	}
	if set.ATol == 0 {
		set.ATol = set.RTol / 100
	}
	dev, err := openBackend[float64](c.backend)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	s, err := solver.New(dev, m.Model, set)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r := &certificate{
		Model: path, Backend: dev.Name(), Method: set.Method.String(), RTol: set.RTol, Step: set.Step,
		Times: [2]float64{math.Inf(1), math.Inf(-1)}, Pass: true,
	}
	for _, p := range problems {
		c.Loss = p.loss
		report, err := adjoint.Check(cmd.Context(), s, adjoint.Settings{}, p.z0, m.Taus(p.ts), c.CheckSettings)
		if report == nil {
			return nil, err
		}
		r.add(p, len(p.z0)/m.Model.Dim(), report)
	}
	if !r.Pass {
		err = fmt.Errorf("the gradient does not pass at tolerance %.3g; solve with a smaller --rtol, or from states away from kinks of the activations, and if it fails still, report it", r.Tol)
	}
	return r, err
}

// add adds a problem's report.
func (r *certificate) add(p checkProblem, samples int, report *adjoint.Report) {
	r.Samples += samples
	r.Times = [2]float64{min(r.Times[0], p.ts[0]), max(r.Times[1], p.ts[len(p.ts)-1])}
	r.Gradient, r.Second, r.Tol = report.Method.String(), report.Second.String(), report.Tol
	r.Z0, r.Theta = max(r.Z0, report.Difference.Z0), max(r.Theta, report.Difference.Theta)
	r.Pass = r.Pass && report.OK
	for _, d := range report.Directions {
		if p.series != "" {
			d.Of += ", series " + p.series
		}
		r.Directions = append(r.Directions, direction(d))
	}
}

// problems returns what to check.
func (c *checking) problems(cmd *cobra.Command, a *app, path string, m *modelfile.File) ([]checkProblem, error) {
	if c.data != "" {
		if c.given() || c.times != "" || c.timesFile != "" {
			return nil, usagef("--data says where solutions begin, and the times; leave out --z0, --states, --series and --times")
		}
		return c.onData(cmd, a, path)
	}
	if c.times == "" && c.timesFile == "" && (len(c.z0) > 0 || c.states != "" || len(m.Series) == 0) {
		c.times = "0:1:5"
	}
	p := checkProblem{loss: squaredError(nil)}
	var err error
	if c.given() || len(m.Series) > 0 {
		var starts []modelfile.Start
		if starts, p.ts, err = c.read(a, m, cmd.Flags()); err != nil {
			return nil, err
		}
		if !c.given() {
			starts = starts[:min(len(starts), c.samples)]
		}
		if p.ts == nil {
			p.ts = evenly(starts[0].Time, starts[0].End, 5)
		}
		for _, s := range starts {
			p.z0 = append(p.z0, s.State...)
		}
	} else {
		p.z0 = randomStates(c.samples, m.Model.Dim(), c.Seed)
		if p.ts, err = c.timesOf(a, m); err != nil {
			return nil, err
		}
	}
	if len(p.ts) < 2 {
		return nil, usagef("one time alone is no span; give at least two --times")
	}
	return []checkProblem{p}, nil
}

// onData is a problem for each of the data's first series.
func (c *checking) onData(cmd *cobra.Command, a *app, path string) ([]checkProblem, error) {
	s := scene{data: c.data, starting: c.starting, solving: c.solving}
	if err := s.read(cmd, a, path); err != nil {
		return nil, err
	}
	var list []checkProblem
	for i, start := range s.starts[:min(len(s.starts), c.samples)] {
		of := &s.points[i]
		p := checkProblem{series: of.ID, z0: start.State, ts: of.Times}
		want := s.m.Z(of.Values, s.m.Model.Dim(), math.NaN())
		if of.Times[0] > start.Time {
			p.ts = slices.Insert(slices.Clone(p.ts), 0, start.Time)
			want = slices.Insert(want, 0, slices.Repeat([]float64{math.NaN()}, len(start.State))...)
		}
		if len(p.ts) < 2 || !slices.ContainsFunc(want[len(start.State):], func(v float64) bool { return v == v }) {
			return nil, fmt.Errorf("%s: series %q has no value after its beginning; give a longer one", c.data, of.ID)
		}
		p.loss = squaredError(want)
		list = append(list, p)
	}
	return list, nil
}

// randomStates are normally distributed, row-major [batch, dim].
func randomStates(batch, dim int, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 0))
	z := make([]float64, batch*dim)
	for i := range z {
		z[i] = r.NormFloat64()
	}
	return z
}

// squaredError is the loss that is the mean of (y - want)² over what is not NaN; nil is 0.
func squaredError(want []float64) func(y, dLdy []float64) float64 {
	return func(y, dLdy []float64) (sum float64) {
		if want == nil {
			want = make([]float64, len(y))
		}
		n := 0.0
		for _, v := range want {
			if v == v {
				n++
			}
		}
		for i, v := range want {
			dLdy[i] = 0
			if d := y[i] - v; v == v {
				sum += d * d / n
				dLdy[i] = 2 * d / n
			}
		}
		return sum
	}
}

func (r *certificate) print(w io.Writer) error {
	verdict := func(err float64) string {
		if err <= r.Tol {
			return "pass"
		}
		return "FAIL"
	}
	steps := fmt.Sprintf("rtol %g", r.RTol)
	if r.Step != 0 {
		steps = fmt.Sprintf("steps of %g", r.Step)
	}
	fmt.Fprintf(w, "%s on %s: %d samples, t from %g to %g, %s, %s\n\n", r.Model, r.Backend, r.Samples, r.Times[0], r.Times[1], r.Method, steps)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "along a direction of\t%s\tfinite differences\t± \trelative error\t\n", r.Gradient)
	for _, d := range r.Directions {
		fmt.Fprintf(t, "%s\t%.10g\t%.10g\t%.0e\t%.1e\t%s\n", d.Of, d.Gradient, d.Difference, d.Uncertainty, d.Error, verdict(d.Error))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n∂L/∂z0 differs from that of the %s method by %.1e: %s\n", r.Second, r.Z0, verdict(r.Z0))
	fmt.Fprintf(w, "∂L/∂θ differs from that of the %s method by %.1e: %s\n", r.Second, r.Theta, verdict(r.Theta))
	all := "PASS"
	if !r.Pass {
		all = "FAIL"
	}
	_, err := fmt.Fprintf(w, "%s at tolerance %.3g\n", all, r.Tol)
	return err
}
