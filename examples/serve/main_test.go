package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func TestServe_Short(t *testing.T) {
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, defaults()) })
	if found["answers"] != 100 {
		t.Errorf("%v answers, want 100", found["answers"])
	}
}

func TestRun_NeedsAModel(t *testing.T) {
	for _, c := range []struct{ file, want string }{{"", "-model"}, {"nowhere.safetensors", "nowhere"}} {
		set := defaults()
		set.model = c.file
		if c.file != "" {
			set.model = filepath.Join(t.TempDir(), c.file)
		}
		err := run(t.Context(), &example.Env{W: io.Discard}, set)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("model %q: %v, want one about %s", c.file, err, c.want)
		}
	}
}

// newSolver solves dz/dt = z², which leaves all bounds at t = 1/z0.
func newSolver(t *testing.T) *solver.Solver[float64] {
	t.Helper()
	dev := cpu.New[float64]()
	f := &field.Custom[float64]{N: 1, F: func(_ float64, z, _, dz []float64) { dz[0] = z[0] * z[0] }}
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample, MaxAttempts: 10000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); dev.Close() })
	return s
}

// What waits is solved in one batch; a sample that fails fails alone; whom nobody waits
// for is left out; and an answer has the bits that it has alone.
func TestBatcher(t *testing.T) {
	s := newSolver(t)
	b := &batcher{s, make(chan *request, 8), 3, 10 * time.Millisecond}
	left, leave := context.WithCancel(t.Context())
	leave()
	ask := func(ctx context.Context, z0 float64, end float64) *request {
		r := &request{ctx, []float64{z0}, []float64{0, end}, make(chan answer, 1)}
		b.queue <- r
		return r
	}
	fine, bad, gone, later := ask(t.Context(), 0.5, 1), ask(t.Context(), 0.5, 3), ask(left, 0.1, 1), ask(t.Context(), 0.25, 2)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.run(ctx) })
	defer running.Wait()
	defer stop()

	alone, err := s.Solve(t.Context(), []float64{0.5}, []float64{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if a := <-fine.answer; a.err != nil || a.batch != 2 || !slices.Equal(a.states[1], alone.Final()) {
		t.Errorf("%+v, want %v in a batch of 2", a, alone.Final())
	}
	if a := <-bad.answer; a.err == nil || !strings.Contains(a.err.Error(), "t = 2") {
		t.Errorf("to infinity: %+v", a)
	}
	if a := <-later.answer; a.err != nil || a.batch != 1 {
		t.Errorf("the fourth: %+v, want a batch of its own", a)
	}
	select {
	case a := <-gone.answer:
		t.Errorf("left: %+v", a)
	default:
	}
}

func TestBatcher_Limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batcher{queue: make(chan *request, 1)} // that nobody serves
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if a := b.predict(ctx, nil, nil); !errors.Is(a.err, context.DeadlineExceeded) {
				t.Errorf("without a server: %+v, want the deadline", a)
			}
		})
		synctest.Wait()
		if a := b.predict(ctx, nil, nil); !errors.Is(a.err, errBusy) {
			t.Errorf("a full queue: %+v", a)
		}
		waiting.Wait()
	})
}

func TestHandler_Statuses(t *testing.T) {
	s, set := newSolver(t), defaults()
	set.times, set.body = 3, 200
	b := &batcher{s, make(chan *request, 8), set.batch, 0}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.run(ctx) })
	defer running.Wait()
	defer stop()
	h := handler(b, set)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/predict", `{"z0": [0.5], "times": [0, 1]}`, 200, `"states":[[0.5],[`},
		{"POST", "/predict", `{"z0": [0.5], "times": [0, -1]}`, 200, `"states":[[0.5],[`},
		{"POST", "/predict", `{"z0": [0.5], "times": [0, 3]}`, 422, "ended at t = 2"},
		{"POST", "/predict", `{"z0": [0.5, 1], "times": [0, 1]}`, 400, "the model has 1"},
		{"POST", "/predict", `{"z0": [0.5], "times": [0]}`, 400, "2 to 3"},
		{"POST", "/predict", `{"z0": [0.5], "times": [0, 1, 2, 3]}`, 400, "2 to 3"},
		{"POST", "/predict", `{"z0": [0.5], "times": [0, 1, 1]}`, 400, "strictly"},
		{"POST", "/predict", `{"z0": [0.5], "times": [0, 1, 0.5]}`, 400, "strictly"},
		{"POST", "/predict", `{"z0": [0.5], "times": [-1e308, 1e308]}`, 400, "too far"},
		{"POST", "/predict", `{"z0": [1e999], "times": [0, 1]}`, 400, "z0"},
		{"POST", "/predict", `{"z": [0.5]}`, 400, "unknown field"},
		{"POST", "/predict", `text`, 400, "the body is"},
		{"POST", "/predict", `{"z0": [` + strings.Repeat("0.5, ", 100) + `0.5]}`, 413, "too large"},
		{"GET", "/predict", "", 405, ""},
		{"GET", "/healthz", "", 200, "ok"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %.60s: status %d, %s; want %d with %q", c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}

	stop() // nobody solves any more
	running.Wait()
	set.deadline = time.Millisecond
	w := httptest.NewRecorder()
	handler(b, set).ServeHTTP(w, httptest.NewRequest("POST", "/predict", strings.NewReader(`{"z0": [0.5], "times": [0, 1]}`)))
	if w.Code != http.StatusGatewayTimeout {
		t.Errorf("past the deadline: status %d", w.Code)
	}
	full := handler(&batcher{s, make(chan *request), 1, 0}, set)
	w = httptest.NewRecorder()
	full.ServeHTTP(w, httptest.NewRequest("POST", "/predict", strings.NewReader(`{"z0": [0.5], "times": [0, 1]}`)))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("a full queue: status %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

// A request that is under way when the server is told to end is answered.
func TestServe_AnswersBeforeItEnds(t *testing.T) {
	dev := cpu.New[float64]()
	defer dev.Close()
	f, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 8, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	set := defaults()
	set.wait = 300 * time.Millisecond // so that the request is still waiting then
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, s, set) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answered := make(chan error, 1)
	go func() {
		_, err := post(t.Context(), client, "http://"+l.Addr().String(), question{[]float64{1, 2}, []float64{0, 1}})
		answered <- err
	}()
	time.Sleep(50 * time.Millisecond)
	stop()
	if err := <-answered; err != nil {
		t.Errorf("under way: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server: %v", err)
	}
	if _, err := post(t.Context(), client, "http://"+l.Addr().String(), question{}); err == nil {
		t.Error("the server still answers")
	}
}
