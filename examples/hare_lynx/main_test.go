package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
)

func TestHareLynx_Learns(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error {
		return run(ctx, e, "../../demo/hare_lynx.csv")
	})
	// The record's own deviation from its mean is 21 thousand pelts for the hare.
	if found["rmse"] > 19 {
		t.Errorf("RMSE %g thousand pelts", found["rmse"])
	}
}

func TestRead_Errors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "EOF",
		"year,hare,lynx\n1900,30\n":    "wrong number of fields",
		"year,hare,lynx\n1900,x,4\n":   "line 2",
		"year,hare,lynx\n1900,1,\"4\n": "line 2",
	} {
		path := filepath.Join(t.TempDir(), "a.csv")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want one about %s and %s", text, err, path, want)
		}
	}
	if _, _, err := read("nowhere.csv"); err == nil || !strings.Contains(err.Error(), "-data") {
		t.Errorf("%v, want one about -data", err)
	}
}
