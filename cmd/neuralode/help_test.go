package main

import (
	"bytes"
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files of the helps")

// Every command's help is testdata/help/COMMAND.txt; -update writes it.
func TestHelp_Golden(t *testing.T) {
	root := (&app{}).root()
	root.InitDefaultCompletionCmd()
	checkHelps(t, root)
}

func checkHelps(t *testing.T, c *cobra.Command) {
	t.Helper()
	args := strings.Fields(c.CommandPath())[1:]
	if c.Example == "" && len(args) > 0 && args[0] != "completion" {
		t.Errorf("%s has no example", c.CommandPath())
	}
	checkGolden(t, c, args)
	for _, sub := range c.Commands() {
		if len(args) == 0 || args[0] != "completion" { // cobra's own
			checkHelps(t, sub)
		}
	}
}

func checkGolden(t *testing.T, c *cobra.Command, args []string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), append(args, "--help"), nil, &out, &errs); code != exitOK || errs.Len() > 0 {
		t.Errorf("%s --help: code %d, %s", c.Name(), code, errs.String())
	}
	path := filepath.Join("testdata", "help", cmp.Or(strings.Join(args, "_"), "neuralode")+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s --help is not %s (go test ./cmd/neuralode -run Help -update writes it):\n%s", c.Name(), path, got)
	}
}
