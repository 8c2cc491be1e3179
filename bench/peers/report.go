package main

import (
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/seed-5f5774c8/neuralode/bench/internal/figures"
	"github.com/seed-5f5774c8/neuralode/bench/internal/machine"
)

// results is all that a run found.
type results struct {
	options
	date       time.Time
	took       time.Duration
	machine    string
	versions   map[string]string
	problems   []problem
	references map[key]arrays // by problem and task
	cells      map[key]*cell
	coldCase   string
	cold       map[string][]float64 // seconds by side
}

func newResults(o options) *results {
	return &results{
		options: o, date: time.Now(), machine: machine.Name(), versions: map[string]string{},
		references: map[key]arrays{}, cells: map[key]*cell{}, cold: map[string][]float64{},
	}
}

// takesPart reports whether a cell is measured. Of training steps, which are a gradient
// and an update, only the variant of each side and stepping is whose gradient was fastest;
// with more threads, of the peers' variants those that were not far behind with the first
// number of threads.
func (r *results) takesPart(k key) bool {
	v := variants[k.variant]
	if !r.asks(v) || k.task == forward && !v.solves {
		return false
	}
	if v.side == ours {
		return true
	}
	like := func(w variant) bool { return w.side == v.side && w.joint == v.joint }
	if k.task == training {
		best := r.best(k.problem, k.threads, gradient, like)
		return best == k.variant || best < 0 && !r.options.tasks.MatchString(string(gradient))
	}
	if k.threads == r.threads[0] {
		return true
	}
	k.threads = r.threads[0]
	c := r.cells[k]
	if !c.ok() {
		return false
	}
	k.variant = r.best(k.problem, k.threads, k.task, like)
	return figures.Median(c.samples) <= farBehind*figures.Median(r.cells[k].samples)
}

// farBehind is the ratio above which a variant is not tried with more threads.
const farBehind = 1.5

// best is the variant with the smallest median of those that match, or -1.
func (r *results) best(problem string, threads int, t task, match func(variant) bool) int {
	best, least := -1, math.Inf(1)
	for i, v := range variants {
		c := r.cells[key{problem, threads, i, t}]
		if !match(v) || !c.ok() {
			continue
		}
		if m := figures.Median(c.samples); m < least {
			best, least = i, m
		}
	}
	return best
}

// threadsOf lists the numbers of threads that a case is measured with.
func (r *results) threadsOf(p *problem) []int {
	if p.wide {
		return r.threads
	}
	return r.threads[:1]
}

// revision is the commit that the program was built from.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))] + rev
		case s.Key == "vcs.modified" && s.Value == "true":
			rev += ", changed since"
		}
	}
	return rev
}

// write makes the Markdown file.
func (r *results) write(w io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# This library and its peers on the CPU\n\nWritten by `make bench-peers`; not edited.\n\n")
	p("- machine: %s\n- date: %s, %.0f minutes\n- command: `%s`\n", r.machine, r.date.Format(time.DateOnly), math.Ceil(r.took.Minutes()), r.command)
	rev := revision()
	if rev != "" {
		rev = " at " + rev
	}
	p("- versions: neuralode%s", rev)
	for _, name := range sortedKeys(r.versions) {
		p(", %s %s", name, r.versions[name])
	}
	p("\n\n")
	r.method(p)
	for _, t := range []task{gradient, training, forward} {
		r.summary(p, t)
	}
	r.coldTable(p)
	for i := range r.problems {
		r.caseTable(p, &r.problems[i])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

type printer func(format string, args ...any)

// method says what was done.
func (r *results) method(p printer) {
	p("All sides have the same weights, initial states, output times, targets, tolerances, method (dopri5) and number of threads. ")
	p("All choose steps by the last error alone, with a safety of 0.9 and changes within 0.2 to 10, and f is a multilayer perceptron. ")
	p("\"gradient\" is a solve, the mean squared error over all outputs, and its derivative by z0 and θ; \"training step\" the same by θ and an update of Adam; \"forward\" the solve alone, without a graph. ")
	p("JAX runs each as one compiled function and is waited for; PyTorch solves forwards under no_grad and updates by the fused Adam. Compile time is stated apart and not in the times.\n\n")
	p("Results come first: solution and gradients, or the losses of %d updates, are compared with a reference in float64 with tolerances a hundred times smaller (the library's own; that the peers agree with it is a part of what is shown). ", checkedUpdates)
	p("A relative difference in the Euclidean norm above 100·(RTol + ATol) and the rounding of a thousand operations is a failure, and is not timed. ")
	p("Then every variant that agrees is timed in turn, %d to %d rounds, each at least %v long. Times are medians; the spread is the distance of the quartiles over the median.\n\n", r.least, r.most, sampleTime)
	p("Ratios are a peer's time over that of this library's default at the same stepping: joint (one step size for the batch) or per sample. Of training steps only the variant of a peer is timed whose gradient was fastest; with more threads, those variants that took no more than %.2g times as long as it with the first number of threads. Small cases are run with one number of threads alone.\n\n", farBehind)
}

// summary is the table of the fastest variants.
func (r *results) summary(p printer, t task) {
	if !r.options.tasks.MatchString(string(t)) {
		return
	}
	title := map[task]string{gradient: "Gradient", training: "Training step", forward: "Forward"}[t]
	p("## %s, ms, each peer's fastest\n\n| case | threads | neuralode | torchdiffeq | diffrax | neuralode per sample | diffrax per sample | torchode |\n|---|---|---|---|---|---|---|---|\n", title)
	for i := range r.problems {
		name := r.problems[i].name
		for _, n := range r.threadsOf(&r.problems[i]) {
			p("| %s | %d", name, n)
			for _, joint := range []bool{true, false} {
				base := 0
				if !joint {
					base = 1
				}
				for _, side := range sideNames() {
					if joint && side == "torchode" || !joint && side == "torchdiffeq" {
						continue
					}
					k := key{name, n, base, t}
					if side != ours {
						k.variant = r.best(name, n, t, func(v variant) bool { return v.side == side && v.joint == joint })
					}
					p(" | %s", r.time(k))
				}
			}
			p(" |\n")
		}
	}
	p("\n")
}

// time is a cell's median in milliseconds and, for a peer, its ratio to ours.
func (r *results) time(k key) string {
	if k.variant < 0 {
		return "–"
	}
	c := r.cells[k]
	switch {
	case c == nil:
		return ""
	case c.err != nil:
		return "failed"
	case len(c.samples) == 0:
		return "–"
	}
	text := figures.Digits(1e3 * figures.Median(c.samples))
	base := variants[k.variant].baseline()
	if base == k.variant {
		return text
	}
	k.variant = base
	if b := r.cells[k]; b.ok() {
		text += fmt.Sprintf(" (%s×)", figures.Digits(figures.Median(c.samples)/figures.Median(b.samples)))
	}
	return text
}

func (r *results) coldTable(p printer) {
	if len(r.cold) == 0 {
		return
	}
	p("## Cold start\n\nFrom the start of the process to its first gradient of %s, one thread; compilation included, where there is one.\n\n| side | ms | |\n|---|---|---|\n", r.coldCase)
	for _, name := range sideNames() {
		if x := r.cold[name]; len(x) > 0 {
			p("| %s | %s | %s |\n", name, figures.Digits(1e3*figures.Median(x)), first(name).text)
		}
	}
	p("\n")
}

func (r *results) caseTable(p printer, q *problem) {
	precision := "float32"
	if q.double {
		precision = "float64"
	}
	p("## %s\n\n%s. Widths %s, batch %d, %s, t from %g to %.4g at %d times, RTol %g, ATol %g. Largest difference allowed: %.1e.\n\n",
		q.name, q.about, strings.Trim(strings.ReplaceAll(fmt.Sprint(q.spec.Widths), " ", "-"), "[]"), q.batch, precision,
		q.times[0], q.times[len(q.times)-1], len(q.times), q.rtol, q.atol, q.allowed())
	p("| | stepping | evaluations, forwards + backwards | steps, rejected | difference | compiled in, s |")
	line := "|---|---|---|---|---|---|"
	for _, n := range r.threadsOf(q) {
		threads := "thread"
		if n > 1 {
			threads = "threads"
		}
		for _, t := range tasks {
			p(" %s, %d %s |", map[task]string{forward: "forward", gradient: "gradient", training: "training step"}[t], n, threads)
			line += "---|"
		}
	}
	p("\n%s\n", line)
	var worst, busy float64
	var failures []string
	for i, v := range variants {
		var of []*cell
		for _, n := range r.threadsOf(q) {
			for _, t := range tasks {
				c := r.cells[key{q.name, n, i, t}]
				if c == nil {
					continue
				}
				of = append(of, c)
				if c.err != nil {
					failures = append(failures, fmt.Sprintf("%s, %s; %s, %d threads: %v", v.side, v.text, t, n, c.err))
				}
				if len(c.samples) > 1 {
					worst = max(worst, figures.Spread(c.samples))
				}
				if n == 1 {
					busy = max(busy, c.processor)
				}
			}
		}
		if len(of) == 0 {
			continue
		}
		stepping := "per sample"
		if v.joint {
			stepping = "joint"
		}
		var n counts
		var d, compiled float64
		for _, c := range of {
			if c.counts.Accepted > 0 && n.Back == 0 {
				n = c.counts
			}
			d = max(d, c.difference)
			compiled = max(compiled, c.prepare)
		}
		evaluations, steps, compile := "", "", ""
		if n.Evaluations > 0 {
			evaluations = fmt.Sprintf("%d + %d", n.Evaluations, n.Back)
		}
		if n.Accepted > 0 {
			steps = fmt.Sprintf("%d, %d", n.Accepted, n.Rejected)
		}
		if v.side == "diffrax" || strings.Contains(v.name, "compile") {
			compile = fmt.Sprintf("%.1f", compiled)
		}
		p("| %s, %s | %s | %s | %s | %.1e | %s |", v.side, v.text, stepping, evaluations, steps, d, compile)
		for _, n := range r.threadsOf(q) {
			for _, t := range tasks {
				p(" %s |", r.time(key{q.name, n, i, t}))
			}
		}
		p("\n")
	}
	p("\nWorst spread: %.0f %%.", 100*worst)
	if busy > 0 {
		p(" Most processor time of a peer over elapsed time, with one thread: %.2f.", busy)
	}
	p("\n")
	for i, f := range failures {
		if i == 0 {
			p("\nFailed, and not timed:\n\n")
		}
		p("- %s\n", strings.ReplaceAll(f, "\n", " "))
	}
	p("\n")
}
