// Command peers times this library beside torchdiffeq, diffrax and torchode on the CPU:
// `make bench-peers`, which writes bench/RESULTS.md.
//
// All sides get the same weights, initial states, output times, targets, tolerances,
// method and number of threads. Each is a process that lives for the whole run and
// answers requests, one JSON object a line. What a side computes is compared with a
// reference first; a variant that disagrees is reported and not timed. The others are
// timed in turn, round after round, so that what else the machine does hits all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"
)

func main() {
	var o options
	worker := flag.Bool("worker", false, "answer the driver's requests from the standard input: this library's side")
	out := flag.String("out", "", "write the results as Markdown to this file, else to the standard output")
	flag.StringVar(&o.python, "python", "", "the Python interpreter that has the peers; none: this library alone")
	cases := flag.String("cases", ".", "regular expression of the cases' names")
	which := flag.String("variants", ".", "regular expression of side/variant, as in variant.go: torchdiffeq/direct")
	tasks := flag.String("tasks", ".", "regular expression of the tasks: forward, gradient, train")
	threads := flag.String("threads", "1,2", "numbers of threads")
	flag.DurationVar(&o.budget, "budget", 2*time.Second, "time for the rounds of one task of one case")
	flag.IntVar(&o.least, "least", 3, "fewest rounds, whatever the budget")
	flag.IntVar(&o.most, "most", 25, "most rounds")
	flag.IntVar(&o.cold, "cold", 3, "cold starts of every side")
	quick := flag.Bool("quick", false, "try everything once, with the smallest case: a smoke test")
	flag.Parse()
	o.command = "peers " + strings.Join(os.Args[1:], " ")
	if c := os.Getenv("PEERS_COMMAND"); c != "" {
		o.command = c
	}
	if *quick {
		*cases, *threads = "^1 × 2-50-2$", "1"
		o.budget, o.least, o.most, o.cold = 0, 1, 1, 1
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := func() (err error) {
		if *worker {
			return serve(ctx, os.Stdin, os.Stdout)
		}
		for _, x := range []struct {
			to   **regexp.Regexp
			text string
		}{{&o.cases, *cases}, {&o.variants, *which}, {&o.tasks, *tasks}} {
			if *x.to, err = regexp.Compile(x.text); err != nil {
				return err
			}
		}
		if o.threads, err = parseThreads(*threads); err != nil {
			return err
		}
		r, err := drive(ctx, o, os.Stderr)
		if err != nil {
			return err
		}
		if *out == "" {
			return r.write(os.Stdout)
		}
		f, err := os.Create(*out)
		if err != nil {
			return err
		}
		if err := r.write(f); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-peers:", err)
		os.Exit(1)
	}
}
