package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/problems"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func TestMethods_AreAllListed(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out, true); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2+len(solver.Methods()) {
		t.Errorf("%d lines for %d methods", len(lines), len(solver.Methods()))
	}
	for _, want := range []string{
		"| `dopri5` | 5 | 4 | 7 | yes | native | 4 | 0 |",
		"| `dopri8` | 8 | 7 | 12 | no | native | 7 | 4 |",
		"| `bosh3` | 3 | 2 | 4 | yes | cubic Hermite | 3 | 0 |",
		"| `rk4` | 4 | none, fixed steps | 4 | no | cubic Hermite | 3 | 1 |",
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}

func TestTorchdiffeqTable_HasEveryReference(t *testing.T) {
	var out bytes.Buffer
	if err := torchdiffeqTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, ref := range problems.Torchdiffeq() {
		if row := fmt.Sprintf("%-8s%-8.0e%10d", ref.Problem, ref.Tol, ref.Evaluations); !strings.Contains(out.String(), row) {
			t.Errorf("no row begins %q", row)
		}
	}
	if strings.Contains(out.String(), fmt.Sprint(int64(1<<63-1))) {
		t.Errorf("no tolerance gave the reference's error:\n%s", out.String())
	}
}
