package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

// request is a line to a side.
type request struct {
	// Op is hello (versions), prepare (make a job and run it once), check (run it, write
	// its results to File), time (run it Calls times) or drop.
	Op      string    `json:"op"`
	Job     int       `json:"job"`
	Case    *caseSpec `json:"case,omitempty"`
	Task    task      `json:"task,omitempty"`
	Variant string    `json:"variant,omitempty"`
	File    string    `json:"file,omitempty"`
	Calls   int       `json:"calls,omitempty"`
}

// caseSpec is a problem as sides get it.
type caseSpec struct {
	File   string   `json:"file"` // see problem.write
	Double bool     `json:"double"`
	Model  mlp.Spec `json:"model"`
	RTol   float64  `json:"rtol"`
	ATol   float64  `json:"atol"`
	LR     float64  `json:"lr"`
}

// reply is a line from a side.
type reply struct {
	Error    string            `json:"error,omitempty"`
	Versions map[string]string `json:"versions,omitempty"`
	Counts   counts            `json:"counts"`
	// Seconds are those of a prepare, or of one call; Processor those of one call on all
	// processors together, 0 if the side does not tell.
	Seconds   float64 `json:"seconds,omitempty"`
	Processor float64 `json:"processor,omitempty"`
}

// counts is the work of a task, of the sample that had most of it where each has its own
// steps. What a side does not tell is 0.
type counts struct {
	Evaluations int64 `json:"evaluations"` // of f, forwards
	Back        int64 `json:"back"`        // of f with its products, or of its products alone, backwards
	Accepted    int64 `json:"accepted"`
	Rejected    int64 `json:"rejected"`
}

// side is a running process, or whatever else answers.
type side struct {
	name  string
	in    io.WriteCloser
	lines chan []byte // closed when the side ends
	stop  func()      // ends it
	err   error       // why it can no longer be used
}

// errTimeout is what a side that does not answer ends with.
var errTimeout = errors.New("no answer in time")

// startSide runs cmd and speaks with it. Its error output goes to log.
func startSide(name string, cmd *exec.Cmd, log io.Writer) (*side, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	s := newSide(name, in, out)
	s.stop = func() {
		in.Close()
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		for range s.lines { // until its output ends
		}
		cmd.Wait()
		kill.Stop()
	}
	return s, nil
}

func newSide(name string, in io.WriteCloser, out io.Reader) *side {
	s := &side{name: name, in: in, lines: make(chan []byte, 1), stop: func() { in.Close() }}
	go func() {
		defer close(s.lines)
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			s.lines <- line
		}
	}()
	return s
}

// ask sends a request and waits for its reply. A side that dies, talks nonsense or does
// not answer in time is not asked again; an error it reports is one of the request alone.
func (s *side) ask(ctx context.Context, q request, limit time.Duration) (reply, error) {
	if s.err != nil {
		return reply{}, s.err
	}
	a, err := s.exchange(ctx, q, limit)
	if err != nil {
		s.err = fmt.Errorf("%s: %s: %w", s.name, q.Op, err)
		return a, s.err
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", s.name, a.Error)
	}
	return a, nil
}

func (s *side) exchange(ctx context.Context, q request, limit time.Duration) (a reply, err error) {
	line, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return a, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case line, ok := <-s.lines:
		if !ok {
			return a, errors.New("it has ended; see its messages above")
		}
		return a, json.Unmarshal(line, &a)
	case <-timer.C:
		return a, errTimeout
	case <-ctx.Done():
		return a, context.Cause(ctx)
	}
}

// environment is that of the sides. Settings of numeric and thread libraries are not
// passed on: they are this run's to choose.
func environment(threads int, cache string) []string {
	var env []string
	for _, e := range os.Environ() {
		drop := false
		for _, p := range []string{"OPENBLAS", "NVPL", "BLIS", "OMP_", "GOMP_", "KMP_", "MKL_", "XLA_", "JAX_", "TORCH", "PYTORCH", "EQX_", "PYTHON", "GOMAXPROCS", "GOGC", "GODEBUG", "GOMEMLIMIT"} {
			drop = drop || strings.HasPrefix(e, p)
		}
		if !drop {
			env = append(env, e)
		}
	}
	n := fmt.Sprint(threads)
	// The flag of XLA that takes its matrix products off the pool of threads; the pool
	// itself gets its size from side_diffrax.py.
	xla := "--xla_cpu_multi_thread_eigen=" + fmt.Sprint(threads > 1)
	return append(env, "GOMAXPROCS="+n, "PEER_THREADS="+n, "OMP_NUM_THREADS="+n, "MKL_NUM_THREADS="+n,
		"XLA_FLAGS="+xla, "JAX_PLATFORMS=cpu", "CUDA_VISIBLE_DEVICES=",
		"TORCHINDUCTOR_CACHE_DIR="+cache, "TORCHINDUCTOR_COMPILE_THREADS=1", "PYTHONDONTWRITEBYTECODE=1")
}
