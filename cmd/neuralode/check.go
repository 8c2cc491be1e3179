package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
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
	samples int
	adjoint.CheckSettings[float64]
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

It begins where the series of the training began, or at --z0, or at the rows of --states;
a model that remembers no series at random states, normally distributed.

The default tolerance of the solver is 1e-9 here, as finite differences see its errors.
Activations with kinks, relu and leaky_relu, may fail near one, where no derivative is.`,
		Example: `  neuralode check run
  neuralode check model.safetensors --z0 2,0 --times 0:25:100 --method dopri5
  neuralode check run --states data.csv --times 0:10:11 --json`,
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
	c.starting.add(f, "5 over the first of the series, else 0:1:5")
	f.IntVar(&c.samples, "samples", 4, "number of initial states, unless they are given")
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
	z0, ts, err := c.problem(cmd, a, m)
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
	c.Loss = meanSquare
	report, err := adjoint.Check(cmd.Context(), s, adjoint.Settings{}, z0, m.Taus(ts), c.CheckSettings)
	if report == nil {
		return nil, err
	}
	r := &certificate{
		Model: path, Backend: dev.Name(), Method: set.Method.String(), RTol: set.RTol, Step: set.Step,
		Samples: len(z0) / m.Model.Dim(), Times: [2]float64{ts[0], ts[len(ts)-1]},
		Gradient: report.Method.String(), Second: report.Second.String(),
		Tol: report.Tol, Z0: report.Difference.Z0, Theta: report.Difference.Theta, Pass: report.OK,
	}
	for _, d := range report.Directions {
		r.Directions = append(r.Directions, direction(d))
	}
	if err != nil {
		err = fmt.Errorf("the gradient does not pass at tolerance %.3g; solve with a smaller --rtol, or from states away from kinks of the activations, and if it fails still, report it", r.Tol)
	}
	return r, err
}

// problem returns the initial states, of the network, and the times, of the data.
func (c *checking) problem(cmd *cobra.Command, a *app, m *modelfile.File) (z0, ts []float64, err error) {
	given := len(c.z0) > 0 || c.states != "" || len(c.series) > 0
	if c.times == "" && c.timesFile == "" && (len(c.z0) > 0 || c.states != "" || len(m.Series) == 0) {
		c.times = "0:1:5"
	}
	if given || len(m.Series) > 0 {
		starts, times, err := c.read(a, m, cmd.Flags())
		if err != nil {
			return nil, nil, err
		}
		if !given {
			starts = starts[:min(len(starts), c.samples)]
		}
		if ts = times; ts == nil {
			ts = evenly(starts[0].Time, starts[0].End, 5)
		}
		for _, s := range starts {
			z0 = append(z0, s.State...)
		}
	} else {
		z0 = randomStates(c.samples, m.Model.Dim(), c.Seed)
		if ts, err = c.timesOf(a, m); err != nil {
			return nil, nil, err
		}
	}
	if len(ts) < 2 {
		return nil, nil, usagef("one time alone is no span; give at least two --times")
	}
	return z0, ts, nil
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

// meanSquare is the mean of y².
func meanSquare(y, dLdy []float64) float64 {
	sum := 0.0
	n := float64(len(y))
	for i, v := range y {
		sum += v * v / n
		dLdy[i] = 2 * v / n
	}
	return sum
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
	fmt.Fprintf(w, "%s on %s: batch of %d, t from %g to %g, %s, %s\n\n", r.Model, r.Backend, r.Samples, r.Times[0], r.Times[1], r.Method, steps)
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
