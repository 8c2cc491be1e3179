package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// diagnosis is what doctor found.
type diagnosis struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	CPU      struct {
		Instructions string `json:"instructions"` // avx512, avx2 or go
		Cores        int    `json:"cores"`
		Threads      int    `json:"threads"` // GOMAXPROCS
	} `json:"cpu"`
	CUDA struct {
		Built   bool             `json:"built"`
		Driver  string           `json:"driver,omitempty"` // the CUDA version it supports
		Devices []gpu.DeviceInfo `json:"devices"`
		Problem string           `json:"problem,omitempty"`
	} `json:"cuda"`
	Trials []trial `json:"auto"`
	OK     bool    `json:"ok"`
}

// trial is a solve with a known solution, and its gradient, on what solver.Auto chooses.
type trial struct {
	Precision     string  `json:"precision"`
	Backend       string  `json:"backend"`
	Why           string  `json:"why"`
	Error         float64 `json:"error"`          // of the states, relative
	GradientError float64 `json:"gradient_error"` // relative
	Problem       string  `json:"problem,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine computes on, and try it",
		Long: `Doctor shows the processor's instructions, whether this program was built with CUDA,
the driver and the devices, and the device that --backend auto chooses, and why. It
solves dz/dt = -z there, in both precisions, and compares solution and gradient with the
exact ones. It fails, with exit code 1, if one is wrong.`,
		Example: "  neuralode doctor\n  neuralode doctor --json",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := diagnose(cmd.Context())
			var err error
			if a.json {
				err = a.printJSON(d)
			} else {
				err = d.print(a.out)
			}
			if err == nil && !d.OK {
				err = fmt.Errorf("a trial failed; report it with the output of doctor, and compute with --backend cpu meanwhile")
			}
			return err
		},
	}
}

func diagnose(ctx context.Context) *diagnosis {
	d := &diagnosis{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	d.CPU.Instructions = simd.Level()
	d.CPU.Cores, d.CPU.Threads = runtime.NumCPU(), runtime.GOMAXPROCS(0)
	d.CUDA.Built = gpu.Built
	d.CUDA.Devices = []gpu.DeviceInfo{}
	if v, err := gpu.DriverVersion(); err != nil {
		d.CUDA.Problem = err.Error()
	} else {
		d.CUDA.Driver = v
		if list, err := gpu.Devices(); err != nil {
			d.CUDA.Problem = err.Error()
		} else if d.CUDA.Devices = append(d.CUDA.Devices, list...); len(list) == 0 {
			d.CUDA.Problem = "the driver offers no device; check CUDA_VISIBLE_DEVICES"
		}
	}
	d.Trials = []trial{try[float32](ctx, "float32", 1e-3), try[float64](ctx, "float64", 1e-5)}
	d.OK = true
	for _, t := range d.Trials {
		d.OK = d.OK && t.Problem == ""
	}
	return d
}

// try solves dz/dt = -z from 1 and 2 to t = 1, on what Auto chooses, at the default
// tolerances. The largest relative error that passes is tol: a hundred tolerances or so,
// as errors add up over the steps.
func try[T backend.Float](ctx context.Context, precision string, tol float64) trial {
	dev := solver.Auto[T]()
	defer dev.Close()
	r := trial{Precision: precision, Backend: dev.Name()}
	if d, err := solveDecay(ctx, dev); err != nil {
		r.Problem = err.Error()
	} else if r.judge(d); !(max(r.Error, r.GradientError) <= tol) {
		r.Problem = fmt.Sprintf("the errors, %g and %g, are larger than %g", r.Error, r.GradientError, tol)
		if math.IsNaN(r.Error + r.GradientError) {
			r.Error, r.GradientError = 0, 0 // JSON has no NaN
		}
	}
	return r
}

// decay is the outcome of a trial.
type decay struct {
	backend  string
	warnings []string
	z, dz0   []float64 // the states at t = 1; ∂L/∂z0
	dk       float64   // ∂L/∂k
}

// solveDecay solves dz/dt = kz with k = -1; L is the sum of both states at t = 1.
func solveDecay[T backend.Float](ctx context.Context, dev backend.Backend[T]) (*decay, error) {
	m := &mlp.Model[T]{Spec: mlp.Dense(mlp.Identity, 1, 1), Theta: []T{-1, 0}}
	s, err := solver.New(dev, m, solver.Settings{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	adj, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		return nil, err
	}
	defer adj.Close()
	sol, err := adj.Solve(ctx, []T{1, 2}, []float64{0, 1})
	if err != nil {
		return nil, err
	}
	g, err := adj.Gradients(ctx, sol, []T{0, 0, 1, 1})
	if err != nil {
		return nil, err
	}
	d := &decay{backend: sol.Backend, warnings: sol.Warnings, dk: float64(g.Theta[0])}
	for i, z := range sol.Final() {
		d.z = append(d.z, float64(z))
		d.dz0 = append(d.dz0, float64(g.Z0[i]))
	}
	return d, nil
}

// judge compares with the exact solution z0·e^k, whose derivatives are e^k with
// respect to z0 and, of the sum, (1 + 2)·e^k with respect to k.
func (r *trial) judge(d *decay) {
	r.Backend = d.backend
	switch {
	case len(d.warnings) > 0:
		r.Why = strings.Join(d.warnings, "; ")
	case gpu.Built:
		r.Why = "the first device of the CUDA driver"
	default:
		r.Why = "this program was built without CUDA"
	}
	e := math.Exp(-1)
	for i, z0 := range []float64{1, 2} {
		r.Error = max(r.Error, math.Abs(d.z[i]/(z0*e)-1))
		r.GradientError = max(r.GradientError, math.Abs(d.dz0[i]/e-1))
	}
	r.GradientError = max(r.GradientError, math.Abs(d.dk/(3*e)-1))
}

func (d *diagnosis) print(w io.Writer) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", key, fmt.Sprintf(format, args...))
	}
	line("neuralode", "%s, %s, %s", d.Version, d.Go, d.Platform)
	line("cpu", "%s, %d cores, %d threads", map[string]string{"avx512": "AVX-512", "avx2": "AVX2", "go": "no vector instructions (Go code)"}[d.CPU.Instructions], d.CPU.Cores, d.CPU.Threads)
	switch {
	case !d.CUDA.Built:
		line("cuda", "not in this program; build it with -tags cuda, on linux/amd64 with cgo")
	case d.CUDA.Driver == "":
		line("cuda", "not available: %s", d.CUDA.Problem)
	default:
		line("cuda", "the driver supports CUDA %s", d.CUDA.Driver)
		for _, g := range d.CUDA.Devices {
			line(fmt.Sprintf("device %d", g.Index), "%s, compute capability %d.%d, %d multiprocessors, %.1f GiB, GPU-%s", g.Name, g.Major, g.Minor, g.SMs, float64(g.Memory)/(1<<30), g.UUID)
		}
		if d.CUDA.Problem != "" {
			line("", "%s", d.CUDA.Problem)
		}
	}
	for _, t := range d.Trials {
		line("auto", "%s: %s (%s)", t.Precision, t.Backend, t.Why)
		if t.Problem != "" {
			line("", "FAILED: %s", t.Problem)
		} else {
			line("", "trial passed, errors %.0e of the solution, %.0e of the gradient", t.Error, t.GradientError)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
