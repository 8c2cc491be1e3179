// Command demo learns a predator-prey system from data: the pelts of snowshoe hare
// and Canada lynx that the Hudson's Bay Company took in 1900 to 1920.
//
// It fits two models of du/dt = f(u), with u the hare and the lynx, and draws them:
// the equations of Lotka and Volterra, whose form is known beforehand and whose four
// rates are fitted, and a Neural ODE, whose f is a multilayer perceptron and which
// knows nothing of hare or lynx. Each is one solution from one initial state over all
// years; the initial state is fitted too.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// full is the effort of a real run.
var full = effort{epochs: 200, iterations: 500}

func main() {
	device := flag.String("backend", "cpu", "what computes the Neural ODE: cpu, gpu, or auto, a GPU if there is one")
	dir := flag.String("out", "demo", "directory for hare_lynx.png and model.safetensors")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *device, *dir, full, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func open(name string) (backend.Backend[float64], error) {
	switch name {
	case "cpu":
		return cpu.New[float64](), nil
	case "gpu":
		return gpu.Open[float64](gpu.Options{})
	case "auto":
		return solver.Auto[float64](), nil
	}
	return nil, fmt.Errorf("there is no backend %q; use cpu, gpu or auto", name)
}

// lotkaVolterra is du1/dt = p1 u1 - p2 u1 u2, du2/dt = -p3 u2 + p4 u1 u2.
func lotkaVolterra[T field.Number](_ T, u, p, du []T) {
	du[0] = p[0]*u[0] - p[1]*u[0]*u[1]
	du[1] = p[3]*u[0]*u[1] - p[2]*u[1]
}

// run fits both models, reports on w and shows progress on bar, and writes the figure
// and the network to dir.
func run(ctx context.Context, device, dir string, e effort, w, bar io.Writer) error {
	start := time.Now()
	dev, err := open(device)
	if err != nil {
		return err
	}
	defer dev.Close()
	host := cpu.New[float64]() // runs the equations, which are written in Go
	defer host.Close()
	rec, err := readRecord()
	if err != nil {
		return err
	}
	equations := field.New(2, []float64{1, 1, 1, 1}, lotkaVolterra[float64], lotkaVolterra[field.Dual])
	network, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 16, 2), mlp.Init{Weight: mlp.XavierUniform, Bias: mlp.BiasZero}, 1)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Hudson's Bay Company, %.0f to %.0f: hare and lynx, thousands of pelts in %d years\n",
		rec.years[0], rec.years[len(rec.years)-1], len(rec.years))

	lv, err := fit(ctx, host, model{"Lotka-Volterra", equations}, rec, e, bar)
	if err != nil {
		return err
	}
	lv.report(w)
	node, err := fit(ctx, dev, model{"Neural ODE", network}, rec, e, bar)
	if err != nil {
		return err
	}
	node.report(w)

	network.SetParams(node.theta)
	figure, file := filepath.Join(dir, "hare_lynx.png"), filepath.Join(dir, "model.safetensors")
	if err := drawFigure(figure, rec, lv, node, network); err != nil {
		return err
	}
	if err := network.SaveFile(file); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nwrote %s and %s\n", figure, file)
	fmt.Fprintf(w, "demo: lotka_volterra_rmse=%.3f neural_ode_rmse=%.3f gradient_error=%.1e seconds=%.1f\n",
		lv.rmse, node.rmse, max(lv.gradientError, node.gradientError), time.Since(start).Seconds())
	return nil
}

func (r *result) report(w io.Writer) {
	fmt.Fprintf(w, `
%s: %d parameters and the initial state fitted on %s
  RMSE            %.3f thousand pelts, one solution from (%.1f, %.1f) through all years
  evaluations     %d gradients for the fit, %d of f in that solution
  wall time       %.2f s for the fit
  gradient check  relative error %.1e against finite differences, all %d components
`, r.name, len(r.theta), r.device, r.rmse, unit*r.z0[0], unit*r.z0[1],
		r.gradients, r.evaluations, r.took.Seconds(), r.gradientError, len(r.theta)+len(r.z0))
	for _, remark := range r.remarks {
		fmt.Fprintf(w, "  remark          %s\n", remark)
	}
}
