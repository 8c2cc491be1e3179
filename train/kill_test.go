package train

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// childEnv is set in the child processes of TestCheckpoint_SurvivesKill to the path
// of their checkpoint.
const childEnv = "NEURALODE_TRAIN_TEST_CHECKPOINT"

// wide has so many parameters that a checkpoint takes a while to write.
type wide struct{}

const wideParams = 60_000

func (wide) NumParams() int  { return wideParams }
func (wide) NumSamples() int { return 16 }

func (wide) Loss(ctx context.Context, theta []float64, batch []int) (float64, error) {
	return wide{}.Gradient(ctx, theta, batch, make([]float64, len(theta)))
}

func (wide) Gradient(_ context.Context, theta []float64, batch []int, grad []float64) (float64, error) {
	clear(grad)
	loss := 0.0
	for _, i := range batch {
		for j, v := range theta {
			r := v - float64((i*7919+j*40503)&1023)/1024
			loss += r * r / wideParams
			grad[j] += 2 * r
		}
	}
	return loss, nil
}

func wideSettings() Settings[float64] {
	return Settings[float64]{BatchSize: 3, Steps: 50, Schedule: Schedule{Kind: Cosine, Warmup: 5}, Seed: 1, CheckpointEvery: 1}
}

// TestKillChild is the child process.
func TestKillChild(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		t.Skip("the child process of TestCheckpoint_SurvivesKill")
	}
	set := wideSettings()
	set.Checkpoint = path
	if _, err := Fit(t.Context(), wide{}, make([]float64, wideParams), set); err != nil {
		t.Fatal(err)
	}
}

// A process killed by SIGKILL at any moment, in the middle of writing a checkpoint
// too, and started again ends where one ends that is never stopped, to the bit.
func TestCheckpoint_SurvivesKill(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGKILL")
	}
	want, err := Fit(t.Context(), wide{}, make([]float64, wideParams), wideSettings())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "run.safetensors")
	temporary := func() bool {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".tmp") {
				return true
			}
		}
		return false
	}
	written := func() time.Time {
		info, err := os.Stat(path)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	r := rand.New(rand.NewPCG(1, 1)) // when the processes run is random anyway
	kills, writing := 0, 0
	for ; kills < 8; kills++ {
		child := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
		child.Env = append(os.Environ(), childEnv+"="+path)
		var out strings.Builder
		child.Stdout, child.Stderr = &out, &out
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		// After a few checkpoints: half of the kills while another is being written,
		// the others at any moment.
		for n := r.IntN(4); n >= 0; n-- {
			for start := written(); written().Equal(start) && len(ended) == 0; {
				time.Sleep(time.Millisecond)
			}
		}
		wait := time.After(time.Duration(r.IntN(30)) * time.Millisecond)
		if kills%2 == 1 {
			for !temporary() && len(ended) == 0 {
				time.Sleep(time.Millisecond)
			}
			wait = time.After(time.Duration(r.IntN(2)) * time.Millisecond)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("the child ended by itself: %v\n%s", err, out.String())
			}
		case <-wait:
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				break // it was just done
			}
			if temporary() {
				writing++
			}
			continue
		}
		break
	}
	if kills < 4 || writing == 0 {
		t.Errorf("killed %d times, %d of them while it was writing; make the state larger", kills, writing)
	}
	set := wideSettings()
	set.Checkpoint = path
	got, err := Fit(t.Context(), wide{}, make([]float64, wideParams), set)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("killed %d times, %d of them while it was writing, at last after step %d", kills, writing, got.Resumed)
	for i, v := range want.Theta {
		if got.Theta[i] != v || got.Best[i] != want.Best[i] {
			t.Fatalf("parameter %d is %v, want %v", i, got.Theta[i], v)
		}
	}
	want.Theta, want.Best, got.Theta, got.Best = nil, nil, nil, nil
	sameRun(t, "killed", got, want)
	if temporary() {
		t.Error("a temporary file was left behind")
	}
}
