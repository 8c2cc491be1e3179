// Package exampletest runs example programs in tests.
package exampletest

import (
	"context"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
)

// Short runs an example in its short form and returns the numbers that it found. The
// files it says it wrote must be there, the pictures must be pictures, and a run whose
// context has ended must say so.
func Short(t *testing.T, run func(context.Context, *example.Env) error) map[string]float64 {
	t.Helper()
	e := &example.Env{Short: true, Dir: t.TempDir(), W: io.Discard}
	if err := run(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for _, name := range e.Files {
		f, err := os.Open(filepath.Join(e.Dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if filepath.Ext(name) == ".png" {
			if _, err := png.Decode(f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.Close()
	}
	found := map[string]float64{}
	for _, v := range e.Values {
		if math.IsNaN(v.X) || math.IsInf(v.X, 0) {
			t.Errorf("%s is %v", v.Name, v.X)
		}
		found[v.Name] = v.X
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ended, &example.Env{Short: true, Dir: t.TempDir(), W: io.Discard}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v, want context.Canceled", err)
	}
	return found
}
