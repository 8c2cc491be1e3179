//go:build cuda && cgo && linux && amd64

package gpu

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// access is what a stand-in for the driver counts of a kernel's loads or stores.
type access struct {
	Bytes    int64
	Requests int64
	Sectors  int64
	// Efficiency is the bytes asked for over those moved, in sectors of 32 bytes;
	// above 1 where threads share what is moved.
	Efficiency float64
}

// counts are those of one kernel.
type counts struct {
	Name     string
	Launches int64
	Load     access `json:"global_load"`
	Store    access `json:"global_store"`
	Shared   struct {
		Bytes   int64
		Replays int64 `json:"bank_conflict_replays"`
	}
	// Instructions are those of all threads, as the PTX has them.
	Instructions struct {
		Total int64
		FMA   int64 `json:"fp32_fma"`
	}
	Sites []site
}

// site is one instruction that accesses memory.
type site struct {
	Line    int    // of the PTX
	Space   string // shared or global
	Op      string // load or store
	Replays int64
	access
}

// rows sums what loads or stores of global memory move, but for those that one thread
// of a warp makes alone: these are words of a clock, one a lane.
func (c counts) rows(op string) (a access) {
	for _, s := range c.Sites {
		if s.Space == "global" && s.Op == op && s.Bytes > 8*s.Requests {
			a.Bytes += s.Bytes
			a.Sectors += s.Sectors
		}
	}
	a.Efficiency = float64(a.Bytes) / float64(32*a.Sectors)
	return a
}

// profiled says that this process runs for [profile].
const profiled = "NEURALODE_PROFILED"

// profile runs the test of the given name, which must ask profiling(t) first, in a
// process of its own with counters, and env in its environment, and returns them by
// kernel. It skips where the driver does not count: a real one does not. A stand-in that
// compiles kernels need not optimise them for a single run.
func profile(t *testing.T, name string, env ...string) map[string]counts {
	t.Helper()
	openOrSkip[float32](t)
	file := filepath.Join(t.TempDir(), "profile.json")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(append(os.Environ(), "CUDASIM_PROFILE="+file, "CUDASIM_CXXFLAGS=-O0", profiled+"=1"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Skip("this driver does not count")
	}
	var p struct{ Kernels []counts }
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	all := map[string]counts{}
	for _, k := range p.Kernels {
		all[k.Name] = k
	}
	return all
}

// profiling skips a test that only [profile] runs.
func profiling(t *testing.T) {
	if os.Getenv(profiled) == "" {
		t.Skip("runs for the counters only")
	}
}

// Rows of 32 elements and more are moved without waste, by one lane and by many.
func TestVerbs_SectorEfficiency(t *testing.T) {
	k := profile(t, "TestVerbs_ForCounters")
	for _, name := range []string{
		"rk_combine_f32", "rk_commit_f32", "rk_save_f32", "rk_stop_f32", "tape_push_f32",
		"loss_grad_f32", "loss_rows_grad_f32", "loss_gather_f32", "optim_update_f32",
	} {
		c := k[name]
		load, store := c.rows("load"), c.rows("store")
		if c.Launches == 0 || !(load.Efficiency >= 0.95) || !(store.Efficiency >= 0.95) {
			t.Errorf("%+v", c)
		}
		if load.Bytes*100 < 95*c.Load.Bytes || store.Bytes*100 < 95*c.Store.Bytes { // the words are few
			t.Errorf("%s: %d of %d bytes loaded and %d of %d stored are rows", name, load.Bytes, c.Load.Bytes, store.Bytes, c.Store.Bytes)
		}
	}
	// These store one result a lane or a block.
	for _, name := range []string{
		"rk_error_f32", "rk_error_chunks_f32", "clock_norms_f32", "clock_norms_chunks_f32",
		"loss_sum_f32", "loss_rows_sum_f32", "optim_norm_f32",
	} {
		if c := k[name]; c.Launches == 0 || c.Load.Efficiency < 0.95 || c.Store.Bytes*50 > c.Load.Bytes {
			t.Errorf("%+v", c)
		}
	}
}

func TestVerbs_ForCounters(t *testing.T) {
	profiling(t)
	dev := openOrSkip[float32](t)
	for _, c := range []shape{
		{lanes: 1, rows: 200, cols: 32}, {lanes: 20, rows: 20, cols: 32}, {lanes: 10, rows: 10, cols: 256},
	} {
		c.tab, c.blocks, c.attempts = tableau.Dopri5(), 1, 4
		s := newStepper[float32](t, dev, c)
		s.run()
		s.close()
	}

	vec := func(blocks, rows, cols int) backend.Vec[float32] { return must(dev.NewVec(blocks, rows, cols)) }
	l := must(dev.NewLearner())
	defer l.Close()
	x, theta := vec(3, 70, 32), vec(1, 1, 5000)
	rows := make([]int, 70)
	l.Prepare(rows, backend.Optimizer{})
	l.Gather([]backend.Move[float32]{{Dst: x, Src: vec(3, 80, 32)}})
	l.Loss(backend.Loss{}, nil, x, x, nil, vec(3, 70, 32))
	l.Loss(backend.Loss{Kind: backend.CrossEntropy}, nil, x, vec(3, 70, 1), nil, vec(3, 70, 32))
	l.Update(theta, theta, vec(1, 1, 5000), vec(1, 1, 5000), nil)
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
}
