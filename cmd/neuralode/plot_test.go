package main

import (
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// rotation is a run whose model turns by τ = (t - 1)/2 about (5, -5), in units of 2 and 4,
// with two series and the metrics of three epochs.
func rotation(t *testing.T) (dir string, f *modelfile.File) {
	t.Helper()
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.Theta, []float64{0, -1, 1, 0, 0, 0})
	dir = t.TempDir()
	meta := modelfile.Meta{
		Time: "day", ID: "patient", States: []string{"blood", "liver"},
		TimeShift: 1, TimeScale: 2, Shift: []float64{5, -5}, Scale: []float64{2, 4}, Method: "dopri5",
		Series: []modelfile.Start{{ID: "p1", Time: 1, End: 9, State: []float64{1, 0}}, {ID: "p2", Time: 1, End: 9, State: []float64{0, 2}}},
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := modelfile.Save(path, m, meta); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "metrics.jsonl", `{"epoch":1,"loss":10,"validation":20}
{"epoch":2,"loss":0.1}
{"epoch":3,"loss":0.001,"validation":0}
{"epoch":4,"lo`)
	write(t, dir, "metrics.csv", "epoch,update,loss,validation\n1,1,10,20\n2,2,0.1,\n3,3,0.001,0\n")
	if f, err = modelfile.Load(path); err != nil {
		t.Fatal(err)
	}
	return dir, f
}

func write(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPlot(t *testing.T) {
	dir, _ := rotation(t)
	data := write(t, t.TempDir(), "data.csv", "day,patient,blood,liver\n1,p1,7,-5\n2,p1,,-4\n1,new,5,-1\n3,new,4,-9\n")
	for _, c := range []struct {
		args   string
		panels int
		want   []string // texts in the SVG
	}{
		{"trajectories " + dir, 2, []string{"day", "blood", "liver", "p1", "p2"}},
		{"trajectories " + dir + " --only liver --series p2 --times 1:20:50", 1, []string{"day", "liver"}},
		{"trajectories " + dir + " --data " + data, 2, []string{"p1", "new"}},
		{"phase " + dir + " --data " + data, 1, []string{"blood", "liver", "p1", "new"}},
		{"phase " + dir + " --x liver --z0 7,-5 --t0 1 --times 1:9:50 --grid 0", 1, []string{"blood", "liver"}},
		{"loss " + dir, 1, []string{"epoch", "training", "validation"}},
		{"loss " + filepath.Join(dir, "metrics.csv"), 1, []string{"epoch", "training", "validation"}},
		{"steps " + dir + " --rtol 1e-8", 1, []string{"day", "p1", "p2"}},
	} {
		at := t.TempDir()
		args := append([]string{"plot"}, strings.Fields(c.args)...)
		var drawn struct{ Panels int }
		out := succeed(t, append(args, "--json", "--width", "10", "--height", "5", "--dpi", "50", "--out", filepath.Join(at, "a.png"))...)
		if err := json.Unmarshal([]byte(out), &drawn); err != nil || drawn.Panels != c.panels {
			t.Errorf("plot %s: it prints %s, error %v", c.args, out, err)
		}
		f, err := os.Open(filepath.Join(at, "a.png"))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		f.Close()
		if err != nil || img.Bounds().Dx() != 197 || img.Bounds().Dy() != int(math.Round(float64(c.panels)*5/2.54*50)) {
			t.Errorf("plot %s: size %v, error %v", c.args, img.Bounds(), err)
		}
		svg := succeed(t, append(args, "--format", "svg", "--out", "-")...)
		for _, want := range c.want {
			if !strings.Contains(svg, ">"+want+"<") {
				t.Errorf("plot %s: no text %q in the SVG", c.args, want)
			}
		}
		succeed(t, append(args, "--out", filepath.Join(at, "a.pdf"))...)
		if text := readFile(t, filepath.Join(at, "a.pdf")); !strings.HasPrefix(text, "%PDF-") || !strings.Contains(text, "%%EOF") {
			t.Errorf("plot %s: the PDF begins with %.20q", c.args, text)
		}
	}
}

// Of many series the first are drawn, and a note says so.
func TestPlot_Many(t *testing.T) {
	dir, _ := rotation(t)
	data := "day,patient,blood,liver\n"
	for i := range 20 {
		data += fmt.Sprintf("1,n%d,5,-1\n3,n%d,4,-9\n", i, i)
	}
	path := write(t, t.TempDir(), "data.csv", data)
	for _, kind := range []string{"phase", "steps"} {
		out := call(t, t.Context(), exitOK, []string{"plot", kind, dir, "--data", path, "--out", "-", "--format", "svg"}, "12 of 20 series")
		if !strings.Contains(out, ">n11<") || strings.Contains(out, ">n12<") {
			t.Errorf("plot %s does not have 12 series", kind)
		}
	}
}

// The solutions, the field and the steps are in the data's units.
func TestScene(t *testing.T) {
	dir, m := rotation(t)
	data := write(t, t.TempDir(), "data.csv", "day,patient,blood,liver\n1,p1,7,-5\n2,new,5,-1\n3,new,4,-9\n")
	s := &scene{data: data, solving: solving{backend: "cpu", method: "dopri5"}}
	cmd := (&app{}).plotPhaseCommand()
	cmd.SetContext(t.Context())
	if err := s.load(cmd, &app{}, dir); err != nil {
		t.Fatal(err)
	}
	// p1 as it was learned, to the end of its training; new from its first row to its last.
	if a, b := s.starts[0], s.starts[1]; len(s.starts) != 2 || a.Time != 1 || a.End != 9 || a.State[0] != 1 || b.Time != 2 || b.End != 3 || b.State[0] != 0 || b.State[1] != 1 {
		t.Errorf("starts %+v", s.starts)
	}
	xys := s.list[0].course(1)
	if last := xys[len(xys)-1]; last.X != 9 || math.Abs(last.Y-(-5+4*math.Sin(4))) > 1e-4 {
		t.Errorf("the solution of p1 ends at %v", last)
	}

	s.set = solver.Settings{Method: solver.RK4, Step: 0.25}
	list, err := s.stepSizes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := list[0]; len(c.line) != 2*16 || len(c.retried) != 0 {
		t.Errorf("%d ends of 16 steps, %d after a rejection", len(c.line), len(c.retried))
	}
	for i, p := range list[0].line {
		if want := 1 + 0.5*float64((i+1)/2); math.Abs(p.Y-math.Log10(0.5)) > 1e-12 || math.Abs(p.X-want) > 1e-12 {
			t.Errorf("point %d is %v, want (%v, log10 0.5)", i, p, want)
		}
	}
	// Adaptive steps follow on each other, as many as the solver counts.
	s.set = solver.Settings{RTol: 1e-9, FirstStep: 3}
	if list, err = s.stepSizes(t.Context()); err != nil {
		t.Fatal(err)
	}
	dev, err := openBackend[float64]("cpu")
	if err != nil {
		t.Fatal(err)
	}
	run, err := solver.New(dev, m.Model, s.set)
	if err != nil {
		t.Fatal(err)
	}
	sol, err := run.Solve(t.Context(), []float64{1, 0}, []float64{0, 4})
	if err != nil {
		t.Fatal(err)
	}
	line, stats := list[0].line, sol.Stats[0]
	if int64(len(line)) != 2*stats.Accepted || len(list[0].retried) == 0 || list[0].retried[0].X != 1 {
		t.Errorf("%d ends of %d steps; after a rejection: %v", len(line), stats.Accepted, list[0].retried)
	}
	for i := 0; i < len(line); i += 2 {
		if h := line[i+1].X - line[i].X; math.Abs(h/math.Pow(10, line[i].Y)-1) > 1e-9 || i > 0 && line[i].X != line[i-1].X {
			t.Errorf("step %d from %v to %v has the size %v", i/2, line[i].X, line[i+1].X, math.Pow(10, line[i].Y))
		}
	}
}

func TestPlot_Errors(t *testing.T) {
	dir, _ := rotation(t)
	at := t.TempDir()
	gap := write(t, at, "gap.csv", "day,patient,blood,liver\n1,new,,2\n2,new,1,2\n")
	other := write(t, at, "other.csv", "day,blood\n1,2\n2,3\n")
	scalar, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 1, 1), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	line := filepath.Join(at, "line.safetensors")
	if err := scalar.SaveFile(line); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args string
		want string
	}{
		{exitUsage, "", "trajectories, phase, loss or steps"},
		{exitUsage, "pie", `no plot of "pie"`},
		{exitUsage, "phase", "MODEL is missing"},
		{exitUsage, "phase " + dir + " --out a.gif", "png, svg, pdf"},
		{exitUsage, "phase " + dir + " --format gif", "png, svg, pdf"},
		{exitUsage, "phase " + dir + " --width 0", "1 to 1000 centimetres"},
		{exitUsage, "phase " + dir + " --width NaN", "1 to 1000 centimetres"},
		{exitUsage, "phase " + dir + " --dpi 1000000", "no more than"},
		{exitUsage, "phase " + dir + " --grid -1", "0 to 200"},
		{exitUsage, "phase " + dir + " --json --out -", "exclude"},
		{exitUsage, "phase " + dir + " --x frog", "blood, liver"},
		{exitUsage, "phase " + dir + " --y blood", "the same state"},
		{exitUsage, "trajectories " + dir + " --only frog", "blood, liver"},
		{exitUsage, "trajectories " + dir + " --series p1 --z0 1,2", "exclude"},
		{exitFailure, "trajectories " + dir + " --series p3", `series "p3"`},
		{exitFailure, "trajectories " + dir + " --data " + gap, "in its first row"},
		{exitFailure, "trajectories " + dir + " --data " + other, `no column "liver"`},
		{exitFailure, "trajectories " + dir + " --data none.csv", "does not exist"},
		{exitFailure, "trajectories none", "none does not exist"},
		{exitFailure, "trajectories " + dir + " --out " + filepath.Join(at, "none", "a.png"), "its folder does not exist"},
		{exitFailure, "phase " + line + " --z0 1 --times 0:1:3", "needs two states"},
		{exitUsage, "phase " + line, "remembers no series"},
		{exitFailure, "steps " + dir + " --times 1", "give a later time"},
		{exitUsage, "steps " + dir + " --method rk4", "give their size by --step"},
		{exitFailure, "loss " + at, "metrics.jsonl"},
		{exitFailure, "loss " + other, `no column "epoch"`},
		{exitFailure, "loss " + write(t, at, "a.jsonl", "{\n"), "line 1"},
		{exitFailure, "loss " + write(t, at, "b.jsonl", ""), "no epochs yet"},
	} {
		args := append([]string{"plot"}, strings.Fields(c.args)...)
		if !strings.Contains(c.args, "--out") && len(args) > 2 {
			args = append(args, "--out", filepath.Join(at, "a.png"))
		}
		call(t, t.Context(), c.code, args, c.want)
	}
	if _, err := os.Stat(filepath.Join(at, "a.png")); err == nil {
		t.Error("a picture was drawn")
	}
}
