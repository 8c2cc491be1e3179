package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// savedModel is the path of a small model.
func savedModel(t *testing.T) string {
	t.Helper()
	m, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := m.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	path := savedModel(t)
	var r certificate
	if err := json.Unmarshal([]byte(succeed(t, "check", path, "--json", "--directions", "1")), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Pass || r.Samples != 4 || len(r.Directions) != 2 || r.Gradient != "discrete" || r.Second != "continuous" || r.RTol != 1e-9 || r.Z0 == 0 {
		t.Errorf("%+v", r)
	}
	// Loose steps cannot pass at a tight tolerance.
	code, out, errs := command(t, "check", path, "--rtol", "1e-3", "--tol", "1e-12")
	if code != exitFailure || !strings.Contains(out, "FAIL at tolerance 1e-12") || !strings.Contains(errs, "smaller --rtol") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	for args, want := range map[string]string{
		"--z0 1,2,3":     "has 3 components; the model has x0, x1",
		"--z0 1,x":       `"x" is no finite number`,
		"--times 1":      "one time alone is no span",
		"--times 0:1":    "give START:END:COUNT",
		"--times 0:1:1":  "a number from 2",
		"--method rk5":   "rk5",
		"--backend tpu":  "give auto, cpu or gpu",
		"--stepping own": "give joint or per_sample",
		"--samples 0":    "give at least 1",
		"--directions 0": "give at least 1",
	} {
		code, _, errs := command(t, append([]string{"check", path}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit code %d, %s, want %q", args, code, errs, want)
		}
	}
}

// The states and times of data are changed into the network's.
func TestCheck_OnData(t *testing.T) {
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 4, 3), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	meta := modelfile.Meta{
		Time: "day", States: []string{"a", "b"}, TimeShift: 10, TimeScale: 5, Shift: []float64{100, 7}, Scale: []float64{10, 0.125}, Method: "dopri5",
		Series: []modelfile.Start{{Time: 10, End: 15, State: []float64{1, 1, 0}}, {Time: 10, End: 15, State: []float64{-1, 0, 0}}},
	}
	if err := modelfile.Save(filepath.Join(dir, "model.safetensors"), m, meta); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "starts.csv")
	if err := os.WriteFile(data, []byte("day,b,a\n10,7.125,110\n11,7,90\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	var all []certificate
	for _, from := range []string{"", "--z0 110,7.125 --z0 90,7 --times 10:15:5", "--states " + data + " --times 10:15:5"} {
		var r certificate
		out := succeed(t, append([]string{"check", dir, "--json", "--directions", "1"}, strings.Fields(from)...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if r := all[0]; !r.Pass || r.Samples != 2 || r.Times != [2]float64{10, 15} || r.Method != "dopri5" || !reflect.DeepEqual(all[1], r) || !reflect.DeepEqual(all[2], r) {
		t.Errorf("%+v", all)
	}
	// With observations, on each series; the gaps in them are not in the loss.
	series := write(t, dir, "data.csv", "day,b,a,series\n10,7.125,110,p\n11,,90,p\n12,7,,p\n11,7,100,q\n14,6,90,q\n")
	var c certificate
	if err := json.Unmarshal([]byte(succeed(t, "check", dir, "--json", "--directions", "1", "--data", series)), &c); err != nil {
		t.Fatal(err)
	}
	if !c.Pass || c.Samples != 2 || c.Times != [2]float64{10, 14} || len(c.Directions) != 4 || c.Directions[3].Of != "θ, series q" || c.Z0 == 0 {
		t.Errorf("%+v", c)
	}
	call(t, t.Context(), exitUsage, []string{"check", dir, "--data", series, "--times", "0,1"}, "leave out")
	call(t, t.Context(), exitFailure, []string{"check", dir, "--data", write(t, dir, "short.csv", "day,b,a\n10,7,1\n12,,\n")}, "no value after its beginning")
	call(t, t.Context(), exitOK, []string{"check", dir, "--data", write(t, dir, "early.csv", "day,b,a\n1,7,101\n3,7,100\n")}, "t from 1 to 3")
	var r benchReport
	if err := json.Unmarshal([]byte(succeed(t, "bench", dir, "--json", "--duration", "1ms", "--batch", "2", "--stepping", "joint", "--rtol", "1e-5")), &r); err != nil {
		t.Fatal(err)
	}
	if r.Span != [2]float64{10, 15} || r.Precision != "float64" || r.Method != "dopri5" || r.RTol != 1e-5 || len(r.Rows) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestSquaredError(t *testing.T) {
	dLdy := []float64{9, 9, 9}
	l := squaredError([]float64{1, math.NaN(), 5})([]float64{2, 100, 3}, dLdy)
	if l != 2.5 || !slices.Equal(dLdy, []float64{1, 0, -2}) {
		t.Errorf("the loss is %v, its derivative %v, want 2.5 and 1, 0, -2", l, dLdy)
	}
	if l = squaredError(nil)([]float64{1, 2, 2}, dLdy); l != 3 {
		t.Errorf("the mean square is %v, want 3", l)
	}
}

func TestParseTimes(t *testing.T) {
	for text, want := range map[string][]float64{"0:1:3": {0, 0.5, 1}, "2:1:2": {2, 1}, "0, 0.25,4": {0, 0.25, 4}} {
		if got, err := parseTimes(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, error %v, want %v", text, got, err, want)
		}
	}
}

func TestBench(t *testing.T) {
	path := savedModel(t)
	var r benchReport
	if err := json.Unmarshal([]byte(succeed(t, "bench", path, "--json", "--duration", "1ms", "--batch", "1,3")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 4 || r.Precision != "float32" || r.Params != 22 || r.RTol != 1e-4 {
		t.Errorf("%+v", r)
	}
	for _, l := range r.Rows {
		if l.Solve <= 0 || l.Gradient <= 0 || l.Runs < 1 || l.Evaluations < 6 || l.Backend == "" {
			t.Errorf("%+v", l)
		}
	}
	if code, _, errs := command(t, "bench", path, "--batch", "0"); code != exitUsage || !strings.Contains(errs, "give at least 1") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
