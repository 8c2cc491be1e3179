package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed *.py
var scripts embed.FS

// options are a run's.
type options struct {
	python                 string
	cases, variants, tasks *regexp.Regexp
	threads                []int
	budget                 time.Duration
	least, most, cold      int
	command                string
	start                  func(name string, threads int) (*side, error) // nil: processes
}

func parseThreads(text string) (list []int, err error) {
	for _, x := range strings.Split(text, ",") {
		n, err := strconv.Atoi(x)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-threads %s: give numbers from 1, with commas between", text)
		}
		list = append(list, n)
	}
	return list, nil
}

// Time limits of requests: compilers are slow, and so is a batch on a busy machine.
const (
	prepareLimit = 5 * time.Minute
	callLimit    = 2 * time.Minute
)

// sampleTime is how long a sample runs at least, by repeating short tasks.
const sampleTime = 10 * time.Millisecond

// settle is the pause before a sample, in which the threads of the last one stop spinning.
const settle = 3 * time.Millisecond

// key names a cell: a task of a case, by one variant, with so many threads.
type key struct {
	problem string
	threads int
	variant int
	task    task
}

// cell is what was found.
type cell struct {
	err        error // why there are no times
	prepare    float64
	counts     counts
	difference float64
	samples    []float64 // seconds of one call
	processor  float64   // processor time over elapsed time
}

func (c *cell) ok() bool { return c != nil && c.err == nil && len(c.samples) > 0 }

// driver is a run under way.
type driver struct {
	options
	log     io.Writer
	dir     string // of this run's files
	started time.Time
	sides   map[string]*side
	nextJob int
	results *results
}

// caseSpec describes p, whose data are in file, to a side.
func (p *problem) caseSpec(file string) *caseSpec {
	return &caseSpec{File: file, Double: p.double, Model: p.spec, RTol: p.rtol, ATol: p.atol, LR: learningRate}
}

// drive makes all measurements that o asks for.
func drive(ctx context.Context, o options, log io.Writer) (*results, error) {
	dir, err := os.MkdirTemp("", "neuralode-peers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	d := &driver{options: o, log: log, dir: dir, started: time.Now(), results: newResults(o)}
	if d.start == nil {
		if err := unpack(dir); err != nil {
			return nil, err
		}
		d.start = d.process
	}
	for _, p := range cases() {
		if o.cases.MatchString(p.name) {
			d.results.problems = append(d.results.problems, p)
		}
	}
	if len(d.results.problems) == 0 {
		return nil, fmt.Errorf("no case is named %v", o.cases)
	}
	for i := range d.results.problems {
		p := &d.results.problems[i]
		if err := p.write(d.file(p)); err != nil {
			return nil, err
		}
		if err := d.references(ctx, p); err != nil {
			return nil, err
		}
	}
	for _, n := range o.threads {
		if err := d.withThreads(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := d.coldStarts(ctx); err != nil {
		return nil, err
	}
	d.results.took = time.Since(d.started)
	return d.results, nil
}

// unpack writes the Python sides to dir.
func unpack(dir string) error { return os.CopyFS(dir, scripts) }

// process starts the process of a side.
func (d *driver) process(name string, threads int) (*side, error) {
	exe, args := d.python, []string{filepath.Join(d.dir, "side_"+name+".py")}
	if name == ours {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		exe, args = self, []string{"-worker"}
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = environment(threads, filepath.Join(d.dir, "compiled"))
	log, err := os.OpenFile(filepath.Join(d.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	return startSide(name, cmd, log)
}

// lastWords prints the end of a side's messages.
func (d *driver) lastWords(name string) {
	raw, err := os.ReadFile(filepath.Join(d.dir, name+".log"))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for _, l := range lines[max(0, len(lines)-4):] {
		fmt.Fprintf(d.log, "    %s\n", l)
	}
}

func (d *driver) file(p *problem) string { return filepath.Join(d.dir, p.name+".safetensors") }

func (d *driver) printf(format string, args ...any) {
	fmt.Fprintf(d.log, "%5.0fs  %s\n", time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

// wanted lists the sides of this run: those asked for, of the peers only where there is
// a Python that could run them.
func (d *driver) wanted() (names []string) {
	for _, name := range sideNames() {
		asked := slices.ContainsFunc(variants, func(v variant) bool { return v.side == name && d.asks(v) })
		if asked && (name == ours || d.python != "") {
			names = append(names, name)
		}
	}
	return names
}

// asks reports whether a variant is one of those asked for.
func (o *options) asks(v variant) bool { return o.variants.MatchString(v.side + "/" + v.name) }

func (d *driver) references(ctx context.Context, p *problem) error {
	for _, t := range []task{gradient, training} {
		a, err := reference(ctx, p, d.file(p), t)
		if err != nil {
			return fmt.Errorf("the reference of %s, %s: %w", p.name, t, err)
		}
		d.results.references[key{problem: p.name, task: t}] = a
		if t == gradient {
			d.results.references[key{problem: p.name, task: forward}] = arrays{"y": a["y"]}
		}
	}
	d.printf("reference of %s", p.name)
	return nil
}

// withThreads measures all cases with sides of n threads.
func (d *driver) withThreads(ctx context.Context, n int) error {
	d.sides = map[string]*side{}
	defer func() {
		for _, s := range d.sides {
			s.stop()
		}
	}()
	for _, name := range d.wanted() {
		s, err := d.start(name, n)
		if err != nil {
			return err
		}
		d.sides[name] = s
		a, err := s.ask(ctx, request{Op: "hello"}, callLimit)
		if err != nil {
			d.lastWords(name)
			return err
		}
		for k, v := range a.Versions {
			d.results.versions[k] = v
		}
	}
	for i := range d.results.problems {
		for _, t := range tasks {
			if !d.tasks.MatchString(string(t)) || !slices.Contains(d.results.threadsOf(&d.results.problems[i]), n) {
				continue
			}
			if err := d.measure(ctx, &d.results.problems[i], n, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// contender is a variant with a job that passed its check.
type contender struct {
	*cell
	variant variant
	side    *side
	job     int
	calls   int
}

// measure makes the cells of a task of a case: checks all variants, then times in turn
// those that agree.
func (d *driver) measure(ctx context.Context, p *problem, threads int, t task) error {
	var all []*contender
	bySide := map[*side][]*contender{}
	for i := range variants {
		s := d.sides[variants[i].side]
		k := key{p.name, threads, i, t}
		if s == nil || !d.results.takesPart(k) {
			continue
		}
		c := &contender{cell: &cell{}, variant: variants[i], side: s, job: d.nextJob}
		d.nextJob++
		d.results.cells[k] = c.cell
		all = append(all, c)
		bySide[s] = append(bySide[s], c)
	}
	// Compilers take most of the time until here: the sides get ready beside each other.
	var ready sync.WaitGroup
	for _, of := range bySide {
		ready.Go(func() {
			for _, c := range of {
				c.err = d.qualify(ctx, p, t, c)
			}
		})
	}
	ready.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var list []*contender
	for _, c := range all {
		if c.err == nil {
			list = append(list, c)
			continue
		}
		d.printf("%s, %s, %d threads: %s: %v", p.name, t, threads, c.variant.name, c.err)
		d.lastWords(c.variant.side)
	}
	begin, rounds := time.Now(), 0
	for ; len(list) > 0 && rounds < d.most && (rounds < d.least || time.Since(begin) < d.budget); rounds++ {
		for i := range list {
			c := list[(i+rounds)%len(list)] // no one always comes after the same
			if c.err != nil {
				continue
			}
			time.Sleep(settle)
			a, err := c.side.ask(ctx, request{Op: "time", Job: c.job, Calls: c.calls}, callLimit)
			if err != nil {
				c.err = err
				continue
			}
			c.samples = append(c.samples, a.Seconds)
			c.processor = max(c.processor, a.Processor/a.Seconds)
		}
	}
	for _, c := range list {
		c.side.ask(ctx, request{Op: "drop", Job: c.job}, callLimit)
	}
	d.printf("%s, %s, %d threads: %d variants, %d rounds", p.name, t, threads, len(list), rounds)
	return context.Cause(ctx)
}

// qualify prepares a job, compares its results with the reference, and finds how many
// calls make a sample.
func (d *driver) qualify(ctx context.Context, p *problem, t task, c *contender) error {
	a, err := c.side.ask(ctx, request{Op: "prepare", Job: c.job, Case: p.caseSpec(d.file(p)), Task: t, Variant: c.variant.name}, prepareLimit)
	if err != nil {
		return err
	}
	c.prepare = a.Seconds
	file := filepath.Join(d.dir, fmt.Sprintf("result-%d.safetensors", c.job))
	defer os.Remove(file)
	if a, err = c.side.ask(ctx, request{Op: "check", Job: c.job, File: file}, prepareLimit); err != nil {
		return err
	}
	c.counts = a.Counts
	got, err := readArrays(file)
	if err != nil {
		return fmt.Errorf("its results: %w", err)
	}
	if c.difference, err = p.agree(got, d.results.references[key{problem: p.name, task: t}]); err != nil {
		return err
	}
	if a, err = c.side.ask(ctx, request{Op: "time", Job: c.job, Calls: 1}, callLimit); err != nil {
		return err
	}
	// A training run goes on from call to call: few updates, so that its work stays that
	// of the first.
	most := 200.0
	if t == training {
		most = 20
	}
	c.calls = int(min(most, max(1, math.Ceil(sampleTime.Seconds()/max(a.Seconds, 1e-9)))))
	return nil
}

// coldStarts times every side from the start of its process to its first gradient, of
// the first case that there is of ode_demo and the others.
func (d *driver) coldStarts(ctx context.Context) error {
	p := &d.results.problems[0]
	for i := range d.results.problems {
		if d.results.problems[i].name == "ode_demo" {
			p = &d.results.problems[i]
		}
	}
	d.results.coldCase = p.name
	for range d.cold {
		for _, name := range d.wanted() {
			v := first(name)
			begin := time.Now()
			s, err := d.start(name, 1)
			if err != nil {
				return err
			}
			_, err = s.ask(ctx, request{Op: "prepare", Case: p.caseSpec(d.file(p)), Task: gradient, Variant: v.name}, prepareLimit)
			took := time.Since(begin)
			s.stop()
			if errors.Is(err, context.Canceled) {
				return err
			}
			if err == nil {
				d.results.cold[name] = append(d.results.cold[name], took.Seconds())
			}
		}
	}
	d.printf("%d cold starts", d.cold)
	return context.Cause(ctx)
}

// first is the first variant of a side: the one that starts fastest.
func first(side string) variant {
	for _, v := range variants {
		if v.side == side {
			return v
		}
	}
	panic("peers: a side without variants")
}
