// Package example is what the example programs share: the flags -short and -out, an end
// at Ctrl-C, and a last line with the numbers that the program found.
package example

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// Env is what an example runs with.
type Env struct {
	Short  bool      // a run of a second or so
	Dir    string    // where files go
	W      io.Writer // for results
	Bar    io.Writer // for progress; may be nil
	Files  []string  // written, by name
	Values []Value   // found
}

// Value is a number that an example found.
type Value struct {
	Name string
	X    float64
}

// Printf writes to the results.
func (e *Env) Printf(format string, args ...any) { fmt.Fprintf(e.W, format, args...) }

// File is the path of a file to write.
func (e *Env) File(name string) string {
	e.Files = append(e.Files, name)
	return filepath.Join(e.Dir, name)
}

// Found notes a number for the last line. name has no spaces.
func (e *Env) Found(name string, x float64) { e.Values = append(e.Values, Value{name, x}) }

// Pick returns short in a short run, else full.
func Pick[T any](e *Env, short, full T) T {
	if e.Short {
		return short
	}
	return full
}

// Main runs the example of that name and ends the program. Flags of its own are defined
// before.
func Main(name string, run func(context.Context, *Env) error) {
	short := flag.Bool("short", false, "run for a second or so, to see that it works")
	dir := flag.String("out", ".", "folder for the files that the program writes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	e := &Env{Short: *short, Dir: *dir, W: os.Stdout, Bar: os.Stderr}
	if err := e.run(ctx, name, run); err != nil {
		stop()
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func (e *Env) run(ctx context.Context, name string, run func(context.Context, *Env) error) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("there is an argument %q too many; -help lists the flags", flag.Arg(0))
	}
	if s, err := os.Stat(e.Dir); err != nil || !s.IsDir() {
		return errors.Join(fmt.Errorf("-out %s is not a folder; create it first", e.Dir), err)
	}
	start := time.Now()
	if err := run(ctx, e); err != nil {
		return err
	}
	for _, f := range e.Files {
		e.Printf("wrote %s\n", filepath.Join(e.Dir, f))
	}
	var line strings.Builder
	fmt.Fprintf(&line, "%s:", name)
	for _, v := range e.Values {
		fmt.Fprintf(&line, " %s=%.4g", v.Name, v.X)
	}
	e.Printf("%s seconds=%.1f\n", line.String(), time.Since(start).Seconds())
	return nil
}
