package main

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the test's program be this library's side, as the command is.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-worker") {
		if err := serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fastest are options of a run that shows whether everything works.
func fastest(variants string) options {
	any := regexp.MustCompile(".")
	return options{
		cases: regexp.MustCompile("^1 × 2-50-2$"), variants: regexp.MustCompile(variants), tasks: any,
		threads: []int{1}, least: 2, most: 2, cold: 1, command: "test",
	}
}

// TestDrive_Ours runs this library's side as a process, all variants and tasks.
func TestDrive_Ours(t *testing.T) {
	r, err := drive(t.Context(), fastest("^"+ours), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for i, v := range variants {
		for _, task := range tasks {
			if v.side != ours || task == forward && !v.solves {
				continue
			}
			want++
			c := r.cells[key{"1 × 2-50-2", 1, i, task}]
			if !c.ok() || len(c.samples) != 2 || c.samples[0] <= 0 {
				t.Errorf("%s, %s: %+v", v.name, task, c)
				continue
			}
			if task != training && (c.counts.Evaluations == 0 || c.counts.Accepted == 0 || (c.counts.Back == 0) != (task == forward)) {
				t.Errorf("%s, %s: counts %+v", v.name, task, c.counts)
			}
		}
	}
	if len(r.cells) != want {
		t.Errorf("%d cells, want %d", len(r.cells), want)
	}
	if len(r.cold[ours]) != 1 || r.versions["go"] == "" {
		t.Errorf("cold starts %v, versions %v", r.cold, r.versions)
	}
}

// liar is a side whose results are wrong: its f has another activation.
func liar(t *testing.T, times *atomic.Int64) *side {
	in, requests := io.Pipe()
	replies, out := io.Pipe()
	go func() {
		defer out.Close()
		serve(t.Context(), &tamper{in: in, times: times}, out)
	}()
	return newSide("torchdiffeq", requests, replies)
}

// tamper gives every model another activation, and counts the requests of times.
type tamper struct {
	in    io.Reader
	times *atomic.Int64
}

func (x *tamper) Read(b []byte) (int, error) {
	n, err := x.in.Read(b)
	line := string(b[:n])
	x.times.Add(int64(strings.Count(line, `"op":"time"`)))
	line = strings.ReplaceAll(line, `"variant":"direct"`, `"variant":"joint/discrete"`)
	line = strings.ReplaceAll(line, `"tanh"`, `"silu"`)
	return copy(b[:cap(b)], line), err
}

// TestDrive_DoesNotTimeWhatDisagrees: a side whose results differ fails, and is named.
func TestDrive_DoesNotTimeWhatDisagrees(t *testing.T) {
	var times atomic.Int64
	o := fastest("direct$|^neuralode/joint/discrete")
	o.python, o.cold, o.tasks = "none", 0, regexp.MustCompile("gradient")
	o.start = func(name string, threads int) (*side, error) {
		if name != ours {
			return liar(t, &times), nil
		}
		in, requests := io.Pipe()
		replies, out := io.Pipe()
		go func() {
			defer out.Close()
			serve(t.Context(), in, out)
		}()
		return newSide(name, requests, replies), nil
	}
	var log strings.Builder
	r, err := drive(t.Context(), o, &log)
	if err != nil {
		t.Fatal(err)
	}
	direct := slices.IndexFunc(variants, func(v variant) bool { return v.name == "direct" })
	c := r.cells[key{"1 × 2-50-2", 1, direct, gradient}]
	if c == nil || c.err == nil || len(c.samples) > 0 || times.Load() > 0 {
		t.Fatalf("%+v, and it was timed %d times", c, times.Load())
	}
	if !r.cells[key{"1 × 2-50-2", 1, 0, gradient}].ok() {
		t.Error("the honest side was not timed")
	}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"| failed |", "Failed, and not timed:", "differs from the reference"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the report does not say %q:\n%s", text, &out)
		}
	}
}

// TestSide: what a side may do wrong, and what becomes of it.
func TestSide(t *testing.T) {
	for _, c := range []struct {
		answer string
		err    string
		usable bool
	}{
		{`{"seconds":2}` + "\n", "", true},
		{`{"error":"ValueError: no"}` + "\n", "ValueError: no", true},
		{"what?\n", "invalid character", false},
		{"", "it has ended", false},
		{"wait", errTimeout.Error(), false},
	} {
		in, requests := io.Pipe()
		replies, out := io.Pipe()
		go func() {
			b := make([]byte, 1000)
			for {
				if _, err := in.Read(b); err != nil {
					return
				}
				if c.answer == "wait" {
					continue
				}
				io.WriteString(out, c.answer)
				if c.answer == "" {
					out.Close()
				}
			}
		}()
		s := newSide("x", requests, replies)
		limit := time.Minute
		if c.answer == "wait" {
			limit = time.Millisecond
		}
		a, err := s.ask(t.Context(), request{Op: "time"}, limit)
		if c.err == "" && (err != nil || a.Seconds != 2) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %+v, %v; want an error with %q", c.answer, a, err, c.err)
		}
		if (s.err == nil) != c.usable {
			t.Errorf("%q: afterwards %v, want usable %v", c.answer, s.err, c.usable)
		}
		in.Close()
		out.Close()
	}
}

// TestServe_Refuses: a bad request gets an error and the worker goes on.
func TestServe_Refuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "case")
	p := cases()[3]
	if err := p.write(file); err != nil {
		t.Fatal(err)
	}
	in, requests := io.Pipe()
	replies, out := io.Pipe()
	go func() { serve(t.Context(), in, out); out.Close() }()
	s := newSide(ours, requests, replies)
	other := cases()[4]
	for _, c := range []struct {
		q   request
		err string
	}{
		{request{Op: "dance"}, "no job"},
		{request{Op: "prepare"}, "without a case"},
		{request{Op: "prepare", Case: p.caseSpec(file), Task: gradient, Variant: "backwards"}, "unknown variant"},
		{request{Op: "prepare", Case: p.caseSpec(file), Task: "sleep", Variant: "joint/discrete"}, "unknown task"},
		{request{Op: "prepare", Case: other.caseSpec(file), Task: gradient, Variant: "joint/discrete"}, "layers.2.weight"},
		{request{Op: "prepare", Case: p.caseSpec(file + "x"), Task: gradient, Variant: "joint/discrete"}, "no such file"},
		{request{Op: "prepare", Case: p.caseSpec(file), Task: gradient, Variant: "joint/discrete"}, ""},
		{request{Op: "dance"}, "unknown request"},
		{request{Op: "drop"}, ""},
		{request{Op: "drop"}, "no job"},
	} {
		_, err := s.ask(t.Context(), c.q, time.Minute)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%+v: %v, want %q", c.q, err, c.err)
		}
	}
	requests.Close()
}

// TestProblems: every case's file is what the worker reads, and the same each time.
func TestProblems(t *testing.T) {
	names := map[string]bool{}
	for _, p := range cases() {
		a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		if err := p.write(a); err != nil {
			t.Fatal(err)
		}
		if err := p.write(b); err != nil {
			t.Fatal(err)
		}
		x, _ := os.ReadFile(a)
		y, _ := os.ReadFile(b)
		if len(x) == 0 || string(x) != string(y) {
			t.Errorf("%s: two files differ", p.name)
		}
		j, err := prepare(*p.caseSpec(a), forward, "joint/discrete")
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		j.close()
		if names[p.name] || strings.ContainsAny(p.name, "/|") {
			t.Errorf("the name %q", p.name)
		}
		names[p.name] = true
	}
}

func TestDifference(t *testing.T) {
	want := arrays{"y": {3, 4}, "dtheta": {1, 0}}
	for _, c := range []struct {
		got  arrays
		want float64
	}{
		{arrays{"y": {3, 4}, "dtheta": {1, 0}}, 0},
		{arrays{"y": {3, 4.5}, "dtheta": {1, 0}}, 0.1},
		{arrays{"y": {3, 4.5}, "dtheta": {1, 0.2}}, 0.2}, // the worst of both
		{arrays{"y": {3, math.NaN()}, "dtheta": {1, 0}}, math.NaN()},
	} {
		got, err := difference(c.got, want)
		if err != nil || !(math.Abs(got-c.want) < 1e-15 || got != got && c.want != c.want) {
			t.Errorf("%v: %g, %v; want %g", c.got, got, err, c.want)
		}
	}
	if _, err := difference(arrays{"y": {3, 4}}, want); err == nil {
		t.Error("a missing array was not noticed")
	}
	p := problem{rtol: 1e-5, atol: 1e-7}
	if _, err := p.agree(arrays{"y": {math.NaN()}}, arrays{"y": {1}}); err == nil {
		t.Error("NaN agrees")
	}
	if _, err := p.agree(arrays{"y": {1.01}}, arrays{"y": {1}}); err == nil {
		t.Error("an error of a hundredth agrees")
	}
	if _, err := p.agree(arrays{"y": {1.0001}}, arrays{"y": {1}}); err != nil {
		t.Error(err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("OPENBLAS_CORETYPE", "x")
	t.Setenv("GOGC", "off")
	env := environment(2, "cache")
	for _, e := range env {
		if strings.HasPrefix(e, "OPENBLAS") || strings.HasPrefix(e, "GOGC") {
			t.Errorf("%s was passed on", e)
		}
	}
	for _, e := range []string{"GOMAXPROCS=2", "OMP_NUM_THREADS=2", "PEER_THREADS=2", "XLA_FLAGS=--xla_cpu_multi_thread_eigen=true"} {
		if !slices.Contains(env, e) {
			t.Errorf("%s is missing", e)
		}
	}
}

// TestReport: medians, ratios at the same stepping, and the fastest of each peer.
func TestReport(t *testing.T) {
	o := fastest(".")
	r := newResults(o)
	r.problems = cases()[3:4]
	set := func(name string, ms ...float64) {
		i := slices.IndexFunc(variants, func(v variant) bool { return v.side+"/"+v.name == name })
		c := &cell{counts: counts{Evaluations: 20, Back: 19, Accepted: 3, Rejected: 1}, difference: 1.5e-6}
		for _, x := range ms {
			c.samples = append(c.samples, x/1e3)
		}
		r.cells[key{"1 × 2-50-2", 1, i, gradient}] = c
	}
	set("neuralode/joint/discrete", 1, 9, 2)
	set("neuralode/sample/discrete", 4, 4, 4)
	set("torchdiffeq/direct", 20, 20, 20)
	set("torchdiffeq/adjoint", 40, 40, 40)
	set("diffrax/sample/recursive", 6, 6, 6)
	r.cold[ours] = []float64{0.012}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| 1 × 2-50-2 | 1 | 2.00 | 20.0 (10.0×) | – | 4.00 | 6.00 (1.50×) | – |",
		"| torchdiffeq, odeint_adjoint | joint | 20 + 19 | 3, 1 | 1.5e-06 |  |  | 40.0 (20.0×) |  |",
		"| neuralode | 12.0 | discrete adjoint (the default) |",
		"Worst spread: 200 %.",
	} {
		if !strings.Contains(out.String(), line+"\n") && !strings.Contains(out.String(), line) {
			t.Errorf("there is no line\n%s\nin\n%s", line, &out)
		}
	}
	// Training steps: the fastest variant of a peer alone; more threads: those near it.
	for _, c := range []struct {
		name    string
		threads int
		task    task
		want    bool
	}{
		{"torchdiffeq/direct", 1, training, true},
		{"torchdiffeq/adjoint", 1, training, false},
		{"torchdiffeq/adjoint", 1, forward, false},
		{"torchdiffeq/direct", 2, gradient, true},
		{"torchdiffeq/adjoint", 2, gradient, false},
		{"torchode/eager", 2, gradient, false}, // failed with one
		{"neuralode/joint/continuous", 2, gradient, true},
	} {
		i := slices.IndexFunc(variants, func(v variant) bool { return v.side+"/"+v.name == c.name })
		if got := r.takesPart(key{"1 × 2-50-2", c.threads, i, c.task}); got != c.want {
			t.Errorf("%s, %s, %d threads: takes part %v, want %v", c.name, c.task, c.threads, got, c.want)
		}
	}
}

func TestParseThreads(t *testing.T) {
	if n, err := parseThreads("1,4"); err != nil || !slices.Equal(n, []int{1, 4}) {
		t.Error(n, err)
	}
	for _, s := range []string{"", "0", "1,", "one"} {
		if _, err := parseThreads(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// TestDrive_Peers runs the Python sides, without what compiles long.
func TestDrive_Peers(t *testing.T) {
	python, err := filepath.Abs("../../.peers/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(python), "../installed")); err != nil {
		t.Skip("the peers are not installed; make bench-peers-venv installs them")
	}
	if testing.Short() {
		t.Skip("it takes some ten seconds")
	}
	o := fastest("^neuralode/joint/discrete|^torchdiffeq/(direct|adjoint)$|^torchode/eager|^diffrax/joint/seminorm")
	o.python, o.cold, o.tasks = python, 0, regexp.MustCompile("gradient|train")
	var log strings.Builder
	r, err := drive(t.Context(), o, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	timed := map[string]bool{}
	for k, c := range r.cells {
		if !c.ok() {
			t.Errorf("%s, %s: %v\n%s", variants[k.variant].name, k.task, c.err, &log)
		} else {
			timed[variants[k.variant].side+" "+string(k.task)] = true
		}
		if k.task == gradient && c.counts.Accepted == 0 {
			t.Errorf("%s does not tell its steps", variants[k.variant].name)
		}
	}
	if len(timed) != 8 {
		t.Errorf("timed were %v, want four sides with two tasks", timed)
	}
}
