// Command serve answers predictions of a model over HTTP:
//
//	curl -d '{"z0": [1.5, 0.2], "times": [0, 5, 10]}' localhost:8080/predict
//
// What arrives together is solved together. Every request has a deadline; requests, what
// they may ask for and how many may wait are limited; Ctrl-C ends the program when all
// that it has taken on are answered.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// settings are the server's limits.
type settings struct {
	addr, model string
	batch       int           // requests solved together, at most
	waiting     int           // requests that may wait; more get status 503
	wait        time.Duration // for company
	deadline    time.Duration // of a request; after it status 504
	times       int           // outputs of a request, at most
	body        int64         // bytes of a request, at most
}

func defaults() settings {
	return settings{batch: 256, waiting: 1024, wait: 2 * time.Millisecond, deadline: 5 * time.Second, times: 10000, body: 1 << 20}
}

func main() {
	set := defaults()
	flag.StringVar(&set.addr, "addr", "localhost:8080", "where to listen")
	flag.StringVar(&set.model, "model", "", "safetensors file of the model, such as examples/hare_lynx writes")
	flag.IntVar(&set.batch, "batch", set.batch, "requests solved together, at most")
	flag.DurationVar(&set.wait, "wait", set.wait, "how long a request waits for company")
	flag.DurationVar(&set.deadline, "deadline", set.deadline, "of a request")
	example.Main("serve", func(ctx context.Context, e *example.Env) error { return run(ctx, e, set) })
}

func run(ctx context.Context, e *example.Env, set settings) error {
	var f *mlp.Model[float64]
	var err error
	switch {
	case set.model != "":
		f, err = mlp.LoadFile[float64](set.model)
	case e.Short:
		set.addr = "localhost:0"
		f, err = mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 16, 2), mlp.Init{}, 1)
	default:
		err = errors.New("say by -model which model to serve; go run ./examples/hare_lynx writes one, hare_lynx.safetensors")
	}
	if err != nil {
		return err
	}
	dev := solver.Auto[float64]()
	defer dev.Close()
	s, err := solver.New(dev, f, solver.Settings{Stepping: solver.PerSample, MaxAttempts: 10000})
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := net.Listen("tcp", set.addr)
	if err != nil {
		return err
	}
	if e.Short {
		asking, done := context.WithCancel(ctx)
		asked := make(chan error, 1)
		go func() {
			defer done()
			asked <- ask(ctx, e, "http://"+listener.Addr().String())
		}()
		err := serve(asking, listener, s, set)
		return errors.Join(err, <-asked)
	}
	e.Printf("a model of %d components at http://%s/predict; Ctrl-C ends\n", f.Dim(), listener.Addr())
	return serve(ctx, listener, s, set)
}

// serve answers until ctx ends, and then those that have come by then.
func serve(ctx context.Context, l net.Listener, s *solver.Solver[float64], set settings) error {
	b := &batcher{s, make(chan *request, set.waiting), set.batch, set.wait}
	solving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { b.run(solving) })
	defer running.Wait()
	defer stop()

	server := &http.Server{
		Handler:           handler(b, set),
		ReadHeaderTimeout: set.deadline, ReadTimeout: set.deadline,
		WriteTimeout: 3 * set.deadline, // reading, solving and writing
		IdleTimeout:  time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(solving, 2*set.deadline)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off: %w", err), server.Close())
	}
	return nil
}

// question and reply are what /predict takes and gives, as JSON.
type question struct {
	Z0    []float64 `json:"z0"`
	Times []float64 `json:"times"` // the first is z0's own
}

type reply struct {
	States [][]float64 `json:"states"` // one for each time
	Batch  int         `json:"batch"`  // how many requests were solved together
}

func handler(b *batcher, set settings) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /predict", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), set.deadline)
		defer cancel()
		var q question
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, set.body))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				fail(w, http.StatusRequestEntityTooLarge, err)
				return
			}
			fail(w, http.StatusBadRequest, fmt.Errorf(`%w; the body is {"z0": [...], "times": [...]}`, err))
			return
		}
		if err := check(q.Z0, q.Times, b.s.Dim(), set.times); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		a := b.predict(ctx, q.Z0, q.Times)
		switch {
		case a.err == nil:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(reply{a.states, a.batch}) // fails if the client has left
		case errors.Is(a.err, errBusy):
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, a.err)
		case errors.Is(a.err, context.DeadlineExceeded), errors.Is(a.err, context.Canceled), errors.Is(a.err, solver.Cancelled):
			fail(w, http.StatusGatewayTimeout, fmt.Errorf("no answer within %v; ask for a shorter span", set.deadline))
		default: // the solution leaves all bounds, or takes too many steps
			fail(w, http.StatusUnprocessableEntity, a.err)
		}
	})
	return mux
}

// fail answers with a status and {"error": text}.
func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
