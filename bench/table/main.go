// Command table runs this module's Go benchmarks and prints them as one table, under the
// machine's name: `make bench`.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/seed-5f5774c8/neuralode/bench/internal/figures"
	"github.com/seed-5f5774c8/neuralode/bench/internal/machine"
)

func main() {
	bench := flag.String("bench", ".", "regular expression of the benchmarks' names, as go test has it")
	benchtime := flag.String("benchtime", "", "as go test has it")
	count := flag.Int("count", 1, "runs of each benchmark; the table has the median")
	cpus := flag.String("cpu", "", "values of GOMAXPROCS, as go test has it")
	markdown := flag.Bool("markdown", false, "print Markdown")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: table [flags] [packages]\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	args := []string{"test", "-run", "^$", "-bench", *bench, "-benchmem", "-timeout", "0", "-count", strconv.Itoa(*count)}
	if *benchtime != "" {
		args = append(args, "-benchtime", *benchtime)
	}
	if *cpus != "" {
		args = append(args, "-cpu", *cpus)
	}
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	err := func() error {
		cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		rows, other, err := read(out)
		if err != nil {
			return err
		}
		fmt.Printf("%s, GOMAXPROCS %d, %s\n", machine.Name(), runtime.GOMAXPROCS(0), runtime.Version())
		write(os.Stdout, rows, *markdown)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("go test: %w\n%s", err, strings.Join(other, "\n"))
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is a benchmark: of every unit the figures of all its runs.
type row struct {
	pkg, name string
	values    map[string][]float64
}

// read takes what go test prints: the benchmarks, in their order, and the lines that are
// neither theirs nor the head of a package.
func read(in io.Reader) (rows []*row, other []string, err error) {
	byName := map[string]*row{}
	pkg := ""
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		key, value, _ := strings.Cut(line, ": ")
		switch f := strings.Fields(line); {
		case key == "pkg":
			pkg = value[strings.LastIndex(value, "/")+1:]
		case key == "goos" || key == "goarch" || key == "cpu" || strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "?") || line == "PASS":
		case strings.HasPrefix(line, "Benchmark") && len(f) >= 4 && len(f)%2 == 0:
			name := strings.TrimPrefix(f[0], "Benchmark")
			r := byName[pkg+name]
			if r == nil {
				r = &row{pkg: pkg, name: name, values: map[string][]float64{}}
				byName[pkg+name] = r
				rows = append(rows, r)
			}
			for i := 2; i < len(f); i += 2 {
				v, err := strconv.ParseFloat(f[i], 64)
				if err != nil {
					return nil, nil, fmt.Errorf("in the line %q: %w", line, err)
				}
				r.values[f[i+1]] = append(r.values[f[i+1]], v)
			}
		default:
			other = append(other, line)
		}
	}
	return rows, other, lines.Err()
}

// columns are the units with a column of their own; all others share the last.
var columns = []string{"ns/op", "GFLOP/s", "%peak", "B/op", "allocs/op"}

// write prints a table of the rows.
func write(out io.Writer, rows []*row, markdown bool) {
	tabs := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	defer tabs.Flush()
	line := func(cells ...string) {
		if markdown {
			fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		} else {
			fmt.Fprintln(tabs, strings.Join(cells, "\t"))
		}
	}
	if markdown {
		fmt.Fprintln(out)
	}
	line("package", "benchmark", "time", "GFLOP/s", "% of peak", "bytes", "allocations", "besides")
	if markdown {
		line(strings.Split(strings.Repeat("---,", 7)+"---", ",")...)
	}
	for _, r := range rows {
		cells := []string{r.pkg, r.name}
		for i, unit := range columns {
			v, ok := r.values[unit]
			switch {
			case !ok:
				cells = append(cells, "")
			case i == 0:
				cells = append(cells, duration(figures.Median(v)))
			default:
				cells = append(cells, number(figures.Median(v)))
			}
		}
		var besides []string
		for _, unit := range sortedUnits(r.values) {
			besides = append(besides, number(figures.Median(r.values[unit]))+" "+unit)
		}
		line(append(cells, strings.Join(besides, ", "))...)
	}
}

// duration writes nanoseconds in the unit that suits them.
func duration(ns float64) string {
	for _, u := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= u.ns {
			return figures.Digits(ns/u.ns) + " " + u.name
		}
	}
	return figures.Digits(ns) + " ns"
}

// number writes counts whole, and other figures with three digits.
func number(x float64) string {
	if x == math.Trunc(x) {
		return fmt.Sprintf("%.0f", x)
	}
	return figures.Digits(x)
}

// sortedUnits lists the units of values without a column of their own.
func sortedUnits(values map[string][]float64) (units []string) {
	for u := range values {
		if !slices.Contains(columns, u) {
			units = append(units, u)
		}
	}
	slices.Sort(units)
	return units
}
