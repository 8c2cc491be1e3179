// Command solvers prints what accuracy costs: evaluations of f and errors of every
// method of package solver over the problems of package problems.
//
//	go run ./internal/tables/solvers            work-precision tables
//	go run ./internal/tables/solvers -methods   the methods, as a Markdown table
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func main() {
	list := flag.Bool("methods", false, "print the methods as a Markdown table instead")
	flag.Parse()
	w := bufio.NewWriter(os.Stdout)
	err := run(w, *list)
	if err := errors.Join(err, w.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "solvers:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, list bool) error {
	if list {
		methodTable(w)
		return nil
	}
	if err := torchdiffeqTable(w); err != nil {
		return err
	}
	for _, tol := range []float64{1e-3, 1e-6, 1e-9} {
		if err := adaptiveTable(w, tol); err != nil {
			return err
		}
	}
	return fixedTable(w)
}

// result is what one solve cost and how far off it ended: the largest error of a
// component of z(t1).
type result struct {
	evaluations int64
	err         float64
}

// solve returns an *solver.Error if the method gave up.
func solve(p *problems.Problem, set solver.Settings) (r result, err error) {
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, problems.System[float64](p), set)
	if err != nil {
		return r, err
	}
	defer s.Close()
	sol, err := s.Solve(context.Background(), p.Z0, []float64{p.T0, p.T1})
	if err != nil {
		return r, fmt.Errorf("%s: %w", p.Name, err)
	}
	for i, z := range sol.Final() {
		r.err = max(r.err, math.Abs(z-p.End[i]))
	}
	r.evaluations = sol.Evaluations()
	return r, nil
}

func dopri5At(tol float64) solver.Settings {
	return solver.Settings{Method: solver.Dopri5, RTol: tol, ATol: tol}
}

func torchdiffeqTable(w io.Writer) error {
	fmt.Fprintln(w, "dopri5 beside torchdiffeq's, t 0..20: evaluations and largest error at the end, at RTol = ATol = tol;")
	fmt.Fprintln(w, "and the fewest evaluations, of tolerances within a decade, that give an error no larger than torchdiffeq's")
	fmt.Fprintf(w, "%-8s%-8s%18s%18s%7s%18s%7s\n", "problem", "tol", "torchdiffeq", "ours, same tol", "", "same error", "")
	for _, ref := range problems.Torchdiffeq() {
		p := problems.Get(ref.Problem)
		r, err := solve(p, dopri5At(ref.Tol))
		if err != nil {
			return err
		}
		best := result{evaluations: math.MaxInt64}
		for i := -32; i <= 32; i++ {
			// At loose tolerances an orbit may crash; that is no small error.
			c, err := solve(p, dopri5At(ref.Tol*math.Pow(10, float64(i)/32)))
			if err == nil && c.err <= ref.Error && c.evaluations < best.evaluations {
				best = c
			}
		}
		fmt.Fprintf(w, "%-8s%-8.0e%10d %7.0e%10d %7.0e%+6.0f%%%10d %7.0e%+6.0f%%\n", ref.Problem, ref.Tol, ref.Evaluations, ref.Error,
			r.evaluations, r.err, percent(r, ref), best.evaluations, best.err, percent(best, ref))
	}
	fmt.Fprintln(w)
	return nil
}

// percent is how many evaluations more than the reference's r needed.
func percent(r result, ref problems.Reference) float64 {
	return 100 * (float64(r.evaluations)/float64(ref.Evaluations) - 1)
}

func methodsThat(adaptive bool) []solver.Method {
	var list []solver.Method
	for _, m := range solver.Methods() {
		if m.Adaptive() == adaptive {
			list = append(list, m)
		}
	}
	return list
}

func adaptiveTable(w io.Writer, tol float64) error {
	methods := methodsThat(true)
	fmt.Fprintf(w, "RTol = ATol = %.0e: evaluations and largest error at the end\n%-23s", tol, "problem")
	for _, m := range methods {
		fmt.Fprintf(w, "%17s", m)
	}
	fmt.Fprintln(w)
	notes := map[string]bool{}
	for _, p := range problems.NonStiff() {
		fmt.Fprintf(w, "%-23s", p.Name)
		for _, m := range methods {
			r, err := solve(p, solver.Settings{Method: m, RTol: tol, ATol: tol})
			var failed *solver.Error
			switch {
			case errors.As(err, &failed):
				fmt.Fprintf(w, "%17s", "-")
				notes[fmt.Sprintf("%s: %v", m, failed.Failures[0].Status)] = true
			case err != nil:
				return err
			default:
				fmt.Fprintf(w, "%9d %7.0e", r.evaluations, r.err)
			}
		}
		fmt.Fprintln(w)
	}
	for _, n := range slices.Sorted(maps.Keys(notes)) {
		fmt.Fprintln(w, "-", n)
	}
	fmt.Fprintln(w)
	return nil
}

// fixedTable shows the methods without an error estimate. Their evaluations are
// steps times stages whatever the problem.
func fixedTable(w io.Writer) error {
	methods := methodsThat(false)
	for _, steps := range []int{200, 2000, 20000} {
		fmt.Fprintf(w, "%d fixed steps: largest error at the end\n%-23s", steps, "problem")
		for _, m := range methods {
			fmt.Fprintf(w, "%10s", m)
		}
		fmt.Fprintln(w)
		for _, p := range problems.NonStiff() {
			fmt.Fprintf(w, "%-23s", p.Name)
			for _, m := range methods {
				r, err := solve(p, solver.Settings{Method: m, Step: (p.T1 - p.T0) / float64(steps)})
				switch {
				case errors.Is(err, solver.NotFinite):
					fmt.Fprintf(w, "%10s", "-")
				case err != nil:
					return err
				default:
					fmt.Fprintf(w, "%10.0e", r.err)
				}
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%-23s", "evaluations")
		for _, m := range methods {
			fmt.Fprintf(w, "%10d", steps*m.Tableau().Stages())
		}
		fmt.Fprint(w, "\n\n")
	}
	return nil
}

func methodTable(w io.Writer) {
	fmt.Fprintln(w, "| method | order | order of the error estimate | stages | FSAL | interpolant | its order | its extra stages |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, m := range solver.Methods() {
		t := m.Tableau()
		estimate, fsal, interpolant := "none, fixed steps", "no", "native"
		if t.Adaptive() {
			estimate = fmt.Sprint(t.ErrorOrder)
		}
		if t.FSAL {
			fsal = "yes"
		}
		if slices.EqualFunc(t.Dense.P, t.Hermite().P, slices.Equal) {
			interpolant = "cubic Hermite"
		}
		fmt.Fprintf(w, "| `%s` | %d | %s | %d | %s | %s | %d | %d |\n", m, t.Order, estimate, t.Stages(), fsal, interpolant, t.Dense.Order, len(t.Dense.ExtraC))
	}
}
