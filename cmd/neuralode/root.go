package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailure     = 1   // the work failed: data, model, device
	exitUsage       = 2   // the command line is wrong
	exitInterrupted = 130 // Ctrl-C or SIGTERM; what was reached is saved
)

// app is what commands share: where they read and write, and the flags that all have.
type app struct {
	in       io.Reader
	out, err io.Writer
	json     bool // results as JSON on out
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	a := &app{in: in, out: out, err: errs}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		code = exitInterrupted
	case errors.As(err, new(usageError)):
		code = exitUsage
		err = fmt.Errorf("%w\nsee %q", err, cmd.CommandPath()+" --help")
	}
	if a.json || slices.Contains(args, "--json") { // flags behind a wrong one are not read
		text, _ := json.Marshal(map[string]string{"error": err.Error()})
		fmt.Fprintln(errs, string(text))
	} else {
		fmt.Fprintln(errs, "neuralode:", err)
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "neuralode",
		Short: "Neural ODEs from tables of data",
		Long: `Neuralode learns dz/dt = f(z, t), f a neural network, from tables of data, and
predicts with what it learned.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted. Results go to
standard output, remarks and errors to standard error.`,
		Example: `  neuralode train data.csv --out run
  neuralode predict run --times 0:10:101 > future.csv
  neuralode plot phase run --data data.csv`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print results and errors as JSON")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(a.trainCommand(), a.predictCommand(), a.plotCommand(), a.benchCommand(), a.checkCommand(), a.convertCommand(), a.doctorCommand(), a.versionCommand())
	complete(root)
	return root
}

// positional is cobra.ExactArgs with names for what is missing.
func positional(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// printJSON writes v to a.out, indented.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  neuralode version",
		Args:    positional(),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if a.json {
				return a.printJSON(map[string]string{"version": v})
			}
			_, err := fmt.Fprintln(a.out, "neuralode", v)
			return err
		},
	}
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// plain reports whether w gets no colours and no redrawn lines.
func plain(w io.Writer) bool {
	return os.Getenv("NO_COLOR") != "" || !terminal(w)
}
