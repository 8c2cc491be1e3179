package main

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

var lastLine = regexp.MustCompile(`^demo: lotka_volterra_rmse=([0-9.]+) neural_ode_rmse=([0-9.]+) gradient_error=([0-9.e+-]+) seconds=([0-9.]+)$`)

// runDemo returns the numbers of the last line and the directory of the files.
func runDemo(t *testing.T, device string, e effort) (lv, node, gradient float64, dir string) {
	t.Helper()
	var out bytes.Buffer
	dir = t.TempDir()
	if err := run(context.Background(), device, dir, e, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	m := lastLine.FindStringSubmatch(lines[len(lines)-1])
	if m == nil {
		t.Fatalf("last line %q, want %s", lines[len(lines)-1], lastLine)
	}
	var v [3]float64
	for i := range v {
		var err error
		if v[i], err = strconv.ParseFloat(m[i+1], 64); err != nil {
			t.Fatal(err)
		}
	}
	return v[0], v[1], v[2], dir
}

func TestDemo_BeatsLotkaVolterra(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole demo")
	}
	lv, node, gradient, _ := runDemo(t, "cpu", full)
	// 3.763 is the least squares fit of Lotka-Volterra, reached from every start tried.
	if lv < 3.762 || lv > 3.764 {
		t.Errorf("Lotka-Volterra: RMSE %g, want 3.763", lv)
	}
	if node >= 4 || node >= lv {
		t.Errorf("Neural ODE: RMSE %g, want below 4 and below %g", node, lv)
	}
	// The solves have a tolerance of 1e-8 a step, over some hundred steps.
	if gradient > 1e-6 {
		t.Errorf("gradient error %g, want at most 1e-6", gradient)
	}
}

func TestDemo_WritesTheSameFilesAgain(t *testing.T) {
	short := effort{epochs: 5, iterations: 5}
	_, _, _, a := runDemo(t, "cpu", short)
	_, _, _, b := runDemo(t, "cpu", short)
	for _, name := range []string{"hare_lynx.png", "model.safetensors"} {
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs between two runs", name)
		}
	}
	f, err := os.Open(filepath.Join(a, "hare_lynx.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Errorf("hare_lynx.png: %v", err)
	}
	m, err := mlp.LoadFile[float64](filepath.Join(a, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Dim() != 2 || m.NumParams() != 354 {
		t.Errorf("model.safetensors: dimension %d, %d parameters, want 2 and 354", m.Dim(), m.NumParams())
	}
}

func TestDemo_UnknownBackend(t *testing.T) {
	err := run(context.Background(), "abacus", t.TempDir(), full, io.Discard, io.Discard)
	if want := `there is no backend "abacus"; use cpu, gpu or auto`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A short fit on a GPU is that on the CPU, to rounding, and so is what Auto chooses.
// Without a GPU the demo says what to do, and Auto computes on the CPU.
func TestDemo_GPU(t *testing.T) {
	short := effort{epochs: 2, iterations: 2}
	lv, node, gradient, _ := runDemo(t, "cpu", short)
	devices := []string{"auto", "gpu"}
	if _, err := gpu.Devices(); err != nil {
		devices = devices[:1]
		err := run(context.Background(), "gpu", t.TempDir(), short, io.Discard, io.Discard)
		if !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "use the CPU backend") {
			t.Errorf("gpu: %v", err)
		}
	}
	for _, device := range devices {
		l, n, g, _ := runDemo(t, device, short)
		// The numbers are printed to three digits behind the point, and to two in all.
		if l != lv || math.Abs(n-node) > 2e-3 || g > 2*gradient {
			t.Errorf("%s: %v, %v, gradient %v; on the CPU %v, %v, %v", device, l, n, g, lv, node, gradient)
		}
	}
}

func TestRecord_Windows(t *testing.T) {
	rec, err := readRecord()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(rec.years); n != 21 || rec.years[0] != 1900 || rec.years[20] != 1920 || len(rec.u) != 42 {
		t.Fatalf("%d years from %v to %v, %d values", n, rec.years[0], rec.years[n-1], len(rec.u))
	}
	if hare, lynx := unit*rec.u[6], unit*rec.u[7]; hare != 77.4 || lynx != 35.2 {
		t.Errorf("1903: %v hare and %v lynx, want 77.4 and 35.2", hare, lynx)
	}
	w := rec.windows(5)
	if len(w.Times) != 5 || len(w.Z0) != 2*17 || len(w.Targets) != 5*2*17 {
		t.Fatalf("%d times, %d initial values, %d targets", len(w.Times), len(w.Z0), len(w.Targets))
	}
	// Sample s at its year i is the record's year s+i.
	for i := range 5 {
		for s := range 17 {
			for d := range 2 {
				if got, want := w.Targets[(i*17+s)*2+d], rec.u[(i+s)*2+d]; got != want {
					t.Errorf("year %d of sample %d: %v, want %v", i, s, got, want)
				}
			}
		}
	}
}
