package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// call runs a command line and wants an exit code and, on one of the outputs, texts.
func call(t *testing.T, ctx context.Context, code int, args []string, want ...string) (out string) {
	t.Helper()
	var o, e bytes.Buffer
	if got := run(ctx, args, strings.NewReader(""), &o, &e); got != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, o.String(), e.String())
	}
	for _, w := range want {
		if !strings.Contains(o.String()+e.String(), w) {
			t.Errorf("%q: no %q in\n%s%s", args, w, o.String(), e.String())
		}
	}
	return o.String()
}

// spirals writes eight series of unequal lengths with missing values: turning by 2 in a
// unit of time about (5, 100), in units of 1 and 10.
func spirals(t *testing.T, series int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("series,time,x,y\n")
	for s := range series {
		for i := range 6 + s {
			at := 10 + 0.3*float64(i)
			r, phase := (1+0.1*float64(s))*math.Exp(-0.1*(at-10)), 2*(at-10)
			fmt.Fprintf(&b, "s%d,%v,%v,", s, at, 5+r*math.Cos(phase))
			if i%4 != 3 {
				fmt.Fprint(&b, 100+10*r*math.Sin(phase))
			}
			b.WriteString("\n")
		}
	}
	path := filepath.Join(t.TempDir(), "spirals.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTrainPredict_Spirals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	out := call(t, t.Context(), exitOK, []string{"train", spirals(t, 8), "--out", dir, "--epochs", "150", "--batch", "3", "--json"})
	var o outcome
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatal(err)
	}
	if o.Epochs != 150 || o.Updates != 300 || o.ValidatedBy != "series" || o.Stop != "completed" {
		t.Errorf("the outcome is %+v", o)
	}
	// A turn takes π. Of a held-out amplitude of 1 the model misses a tenth.
	if !(o.BestLoss < 0.02) {
		t.Errorf("the loss is %v", o.BestLoss)
	}
	rows, err := csv.NewReader(strings.NewReader(readFile(t, filepath.Join(dir, "metrics.csv")))).ReadAll()
	if err != nil || len(rows) != 151 {
		t.Errorf("metrics.csv has %d rows, error %v", len(rows), err)
	}
	if n := strings.Count(readFile(t, filepath.Join(dir, "metrics.jsonl")), "\n"); n != 150 {
		t.Errorf("metrics.jsonl has %d lines", n)
	}
	report := readFile(t, filepath.Join(dir, "report.html"))
	if strings.Count(report, "<svg") != 8 || !strings.Contains(report, "s5") || strings.Contains(report, "<?xml") {
		t.Errorf("report.html has %d pictures", strings.Count(report, "<svg"))
	}

	out = call(t, t.Context(), exitOK, []string{"predict", dir, "--series", "s7", "--times", "10:13:4", "--json"})
	var p struct{ Trajectories []trajectory }
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	for i, at := range p.Trajectories[0].Times {
		r, phase := 1.7*math.Exp(-0.1*(at-10)), 2*(at-10)
		x, y := p.Trajectories[0].States[i][0], p.Trajectories[0].States[i][1]
		if math.Hypot(x-5-r*math.Cos(phase), (y-100)/10-r*math.Sin(phase)) > 0.3 {
			t.Errorf("at %v the state is (%v, %v), want (%v, %v)", at, x, y, 5+r*math.Cos(phase), 100+10*r*math.Sin(phase))
		}
	}

	// The settings that it wrote give the same model; flags go before them.
	again := filepath.Join(t.TempDir(), "again")
	call(t, t.Context(), exitOK, []string{"train", "--config", filepath.Join(dir, "config.yaml"), "--out", again})
	if readFile(t, filepath.Join(again, "model.safetensors")) != readFile(t, filepath.Join(dir, "model.safetensors")) {
		t.Error("config.yaml gives another model")
	}
	call(t, t.Context(), exitUsage, []string{"train", "--config", filepath.Join(dir, "config.yaml")}, "--resume goes on", "--overwrite")
	call(t, t.Context(), exitOK, []string{"train", "--config", filepath.Join(dir, "config.yaml"), "--epochs", "151", "--resume"}, "151 epochs")

	// What belongs to other settings is left as it is.
	config := readFile(t, filepath.Join(dir, "config.yaml"))
	call(t, t.Context(), exitFailure, []string{"train", "--config", filepath.Join(dir, "config.yaml"), "--hidden", "5", "--resume"}, "of another run")
	if readFile(t, filepath.Join(dir, "config.yaml")) != config {
		t.Error("a run that could not go on wrote its settings")
	}
	if err := os.Remove(filepath.Join(dir, "checkpoint.safetensors")); err != nil {
		t.Fatal(err)
	}
	call(t, t.Context(), exitUsage, []string{"train", "--config", filepath.Join(dir, "config.yaml")}, "holds a run")
}

func TestTrain_Ways(t *testing.T) {
	for _, flags := range []string{
		"--learn-z0", "--learn-z0 --validate-by time", "--window 4 --validate-by time --batch 5", "--augment 2 --time input --loss huber",
		"--precision float32 --optimizer adamw --schedule cosine --warmup 3", "--normalize=false --validation 0 --loss mae --clip 1",
		"--patience 1 --min-delta 1e9", "--method rk4 --step 0.1 --stepping per_sample --states x",
	} {
		dir := t.TempDir()
		call(t, t.Context(), exitOK, append([]string{"train", spirals(t, 5), "--out", dir, "--epochs", "4"}, strings.Fields(flags)...))
		out := call(t, t.Context(), exitOK, []string{"predict", dir})
		if n := strings.Count(out, "\n"); n != 5*101+1 {
			t.Errorf("%s: predict gives %d rows", flags, n)
		}
	}
}

func TestTrain_Errors(t *testing.T) {
	data := spirals(t, 2)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		code int
		args string
		want string
	}{
		{exitUsage, "train", "DATA is missing"},
		{exitUsage, "train a b", `"b" is one argument too many`},
		{exitUsage, "trian", `no command "trian"`},
		{exitUsage, "train --frog", "--frog"},
		{exitUsage, "train " + data + " --activation frog", "frog"},
		{exitUsage, "train " + data + " --loss frog", "mse, mae, huber"},
		{exitUsage, "train " + data + " --method frog", "frog"},
		{exitUsage, "train " + data + " --backend frog", "auto, cpu or gpu"},
		{exitUsage, "train " + data + " --validation 1", "less than 1"},
		{exitUsage, "train " + data + " --epochs 0", "at least 1"},
		{exitUsage, "train " + data + " --lr 0", "positive"},
		{exitUsage, "train " + data + " --lr NaN", "positive"},
		{exitUsage, "train " + data + " --huber-delta -1", "positive"},
		{exitUsage, "train " + data + " --clip NaN", "--clip is NaN"},
		{exitUsage, "train " + data + " --batch -1", "--batch is -1"},
		{exitUsage, "train " + data + " --checkpoint-every -1", "--checkpoint-every is -1"},
		{exitUsage, "train " + data + " --rtol -1", "--rtol is -1"},
		{exitUsage, "train " + data + " --step Inf", "--step is +Inf"},
		{exitUsage, "train " + data + " --method rk4", "give their size by --step"},
		{exitUsage, "train " + data + " --augment 1000000", "0 to 1000"},
		{exitUsage, "train " + data + " --hidden 8000,8000", "narrower --hidden"},
		{exitUsage, "train " + data + " --hidden 5,x", "x"},
		{exitFailure, "train " + data + " --states x,x", "named twice"},
		{exitFailure, "train " + data + " --lr 1e9 --epochs 30", "best model so far"},
		{exitUsage, "train " + data + " --window 3 --learn-z0", "exclude"},
		{exitFailure, "train " + data + " --states z", "it has series, time, x, y"},
		{exitFailure, "train " + data + " --validate-by series --validation 0.1", "--validate-by time"},
		{exitFailure, "train none.csv", "does not exist"},
		{exitFailure, "train " + t.TempDir(), "is a directory"},
		{exitFailure, "train " + file("a.csv", "t,x,y\n0,,1\n1,2,3\n2,2,2\n3,3,3\n"), "--learn-z0"},
		{exitFailure, "train " + file("a.csv", "t,x\n0,1\n"), "at least two"},
		{exitFailure, "train --config " + file("a.yaml", "frog: 1\n"), "its settings are"},
		{exitFailure, "train --config " + file("a.toml", "epochs = 'many'\n"), "epochs"},
		{exitUsage, "train --config " + file("a.ini", ""), ".yaml or .toml"},
		{exitFailure, "train --config " + file("a.yaml", "hidden: [1\n"), "line 1"},
		{exitFailure, "train --config " + file("a.toml", "epochs = \n"), "line 1"},
		{exitFailure, "train --config none.yaml", "does not exist"},
		{exitUsage, "train " + data + " --config " + file("a.yaml", "epochs: 0\n"), "--epochs is 0"},
		{exitFailure, "predict none", "none does not exist"},
		{exitFailure, "predict " + t.TempDir(), "has no model.safetensors"},
		{exitFailure, "predict " + file("a.safetensors", ""), "truncated"},
		{exitUsage, "predict " + data + " --json --frog", `{"error":"unknown flag: --frog`},
		{exitUsage, "predict --frog --json", `{"error":"unknown flag: --frog`},
		{exitUsage, "predict", "MODEL is missing"},
		{exitFailure, "predict " + data, "spirals.csv"},
		{exitUsage, "predict " + data + " --format frog", "csv, parquet, json"},
		{exitUsage, "predict " + data + " --times 0 --times-file x", "times-file"},
	} {
		args := strings.Fields(c.args)
		if args[0] == "train" && len(args) > 1 {
			args = append(args, "--out", t.TempDir())
		}
		call(t, t.Context(), c.code, args, c.want)
	}
}

func TestTrain_TOMLAndStandardInput(t *testing.T) {
	config := filepath.Join(t.TempDir(), "a.toml")
	if err := os.WriteFile(config, []byte("epochs = 3\nhidden = [5, 4]\nlr = 0.5\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var out, errs bytes.Buffer
	in := strings.NewReader(readFile(t, spirals(t, 3)))
	if code := run(t.Context(), []string{"train", "-", "--config", config, "--lr", "0.01", "--out", dir}, in, &out, &errs); code != exitOK {
		t.Fatal(code, errs.String())
	}
	m, err := modelfile.Load(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(m.Model.Spec.Widths) != "[2 5 4 2]" || !strings.Contains(readFile(t, filepath.Join(dir, "config.yaml")), "lr: 0.01") {
		t.Errorf("widths %v, settings\n%s", m.Model.Spec.Widths, readFile(t, filepath.Join(dir, "config.yaml")))
	}
}

// What is interrupted saves the best model.
func TestTrain_Interrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	go func() {
		for {
			if info, err := os.Stat(filepath.Join(dir, "checkpoint.safetensors")); err == nil && info.Size() > 0 {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	call(t, ctx, exitInterrupted, []string{"train", spirals(t, 5), "--out", dir, "--epochs", "1000000", "--checkpoint-every", "5"}, "best model so far", "--resume")
	call(t, t.Context(), exitOK, []string{"predict", dir})
}

// Every command that computes stops when it is told to.
func TestInterrupt(t *testing.T) {
	dir, _ := rotation(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range []string{"predict", "check", "bench", "plot trajectories", "plot phase", "plot steps"} {
		line := append(strings.Fields(args), dir)
		if strings.HasPrefix(args, "plot") {
			line = append(line, "--out", filepath.Join(t.TempDir(), "a.png"))
		}
		call(t, ctx, exitInterrupted, line, "canceled")
	}
}

// killArgs is set in the child process of TestTrain_Kill to its command line.
const killArgs = "NEURALODE_TEST_ARGS"

func TestKillChild(t *testing.T) {
	args := os.Getenv(killArgs)
	if args == "" {
		t.Skip("the child process of TestTrain_Kill")
	}
	run(t.Context(), strings.Split(args, "\n"), nil, os.Stdout, os.Stderr)
}

// A run that is killed and resumed gives the model of one that is not, to the bit.
func TestTrain_Kill(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGKILL")
	}
	data, whole, dir := spirals(t, 5), t.TempDir(), t.TempDir()
	args := []string{"train", data, "--epochs", "300", "--batch", "2", "--checkpoint-every", "7", "--out"}
	call(t, t.Context(), exitOK, append(args, whole))
	child := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
	child.Env = append(os.Environ(), killArgs+"="+strings.Join(append(args, dir), "\n"))
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 20; { // lines of the metrics
		b, _ := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
		n = bytes.Count(b, []byte("\n"))
		time.Sleep(time.Millisecond)
	}
	child.Process.Kill()
	child.Wait()
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err == nil {
		t.Fatal("the run ended before it was killed; give it more epochs")
	}
	var o outcome
	if err := json.Unmarshal([]byte(call(t, t.Context(), exitOK, append(args, dir, "--resume", "--json"))), &o); err != nil {
		t.Fatal(err)
	}
	if o.Resumed == 0 {
		t.Error("nothing was left of the killed run")
	}
	for _, name := range []string{"model.safetensors", "metrics.csv", "metrics.jsonl"} {
		if readFile(t, filepath.Join(dir, name)) != readFile(t, filepath.Join(whole, name)) {
			t.Errorf("%s is another one after a kill at update %d", name, o.Resumed)
		}
	}
}

// A rotation by τ = (t - 1)/2 about (5, -5), in units of 2 and 4: its solution is known.
func TestPredict_Exact(t *testing.T) {
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.Theta, []float64{0, -1, 1, 0, 0, 0})
	dir := t.TempDir()
	meta := modelfile.Meta{Time: "t", States: []string{"b", "a"}, TimeShift: 1, TimeScale: 2, Shift: []float64{5, -5}, Scale: []float64{2, 4}, RTol: 1e-10, ATol: 1e-10}
	if err := modelfile.Save(filepath.Join(dir, "model.safetensors"), m, meta); err != nil {
		t.Fatal(err)
	}
	starts := filepath.Join(t.TempDir(), "starts.csv")
	if err := os.WriteFile(starts, []byte("t,a,b\n1,-5,7\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	type row struct {
		T float64 `parquet:"t"`
		A float64 `parquet:"a"`
		B float64 `parquet:"b"`
		S string  `parquet:"series"`
	}
	for _, from := range [][]string{{"--z0", "7,-5", "--t0", "1"}, {"--states", starts}} {
		path := filepath.Join(t.TempDir(), "out.parquet")
		call(t, t.Context(), exitOK, append([]string{"predict", dir, "--times", "2,3,9", "--out", path}, from...))
		rows, err := parquet.ReadFile[row](path)
		if err != nil || len(rows) != 3 {
			t.Fatal(rows, err)
		}
		for i, at := range []float64{2, 3, 9} {
			sin, cos := math.Sincos((at - 1) / 2)
			r := rows[i]
			if r.T != at || r.S != "1" || math.Abs(r.B-5-2*cos) > 1e-8 || math.Abs(r.A+5-4*sin) > 1e-8 {
				t.Errorf("row %+v, want t %v, a %v, b %v", r, at, -5+4*sin, 5+2*cos)
			}
		}
	}
	// A step of Euler's method, of 0.5 in τ, from z = (1, 0), is by (0, 0.5).
	call(t, t.Context(), exitOK, []string{"predict", dir, "--z0", "7,-5", "--t0", "1", "--times", "2", "--method", "euler", "--step", "0.5"}, "1,2,7,-3\n")
	call(t, t.Context(), exitUsage, []string{"predict", dir}, "remembers no series")
	call(t, t.Context(), exitFailure, []string{"predict", dir, "--z0", "1,2", "--t0", "5", "--times", "1,2"}, "before the initial state")
	call(t, t.Context(), exitFailure, []string{"predict", dir, "--z0", "1,2", "--times", "2,1"}, "increase")
	call(t, t.Context(), exitUsage, []string{"predict", dir, "--z0", "1", "--times", "2"}, "the model has b, a")
	call(t, t.Context(), exitUsage, []string{"predict", dir, "--z0", "1,2", "--times", "2:3"}, "START:END:COUNT")
}
