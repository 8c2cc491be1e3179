package main

import (
	"strings"
	"testing"
)

// The table is made, with every way on every problem, and the errors are those of the
// tolerances.
func TestRun(t *testing.T) {
	var w strings.Builder
	if err := run(&w, 1); err != nil {
		t.Fatal(err)
	}
	for _, by := range ways {
		if n := strings.Count(w.String(), "\n"+by.name+" "); n != 4 {
			t.Errorf("%d rows of %q, want 4:\n%s", n, by.name, w.String())
		}
	}
	for _, bad := range []string{"NaN", "e+", "e-00", "e-01", "e-02"} {
		if strings.Contains(w.String(), bad) {
			t.Errorf("an error of %q:\n%s", bad, w.String())
		}
	}
}
