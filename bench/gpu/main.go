// Command gpu times the GPU backend against what the device can do and against the
// CPU backend: `make bench-gpu`.
//
// It prints a table, and writes it as Markdown and JSON if asked to. Times are medians
// over runs after a warm-up, on the device's own clock for kernels and on the host's
// for solves. Where the CUDA driver is a stand-in that runs kernels on the CPU it makes
// small runs and marks every time: only the counts mean something there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/seed-5f5774c8/neuralode/gpu"
)

func main() {
	markdown := flag.String("markdown", "", "write the tables to this Markdown file too")
	jsonFile := flag.String("json", "", "write the figures to this JSON file too")
	flag.Parse()
	if err := run(os.Stdout, *markdown, *jsonFile); err != nil {
		fmt.Fprintln(os.Stderr, "bench-gpu:", err)
		os.Exit(1)
	}
}

// report is everything measured.
type report struct {
	Device    string     `json:"device"`
	Stand     bool       `json:"stand_in"` // not a GPU: times mean nothing
	Host      string     `json:"host"`
	Date      string     `json:"date"`
	CopyGBs   float64    `json:"copy_gb_per_s"`
	GemmTF    float64    `json:"gemm_tflop_per_s"`
	Kernels   []kernel   `json:"kernels"`
	Solves    []solve    `json:"solves"`
	Ensembles []ensemble `json:"ensembles"`
	settings  settings
}

// settings are the sizes of a run.
type settings struct {
	runs      int
	copy      int // elements of the copied vector
	square    int // width of the large GEMM
	cases     []shape
	ensembles []int // trajectories
	large     bool
}

func run(out io.Writer, markdown, jsonFile string) error {
	devices, err := gpu.Devices()
	if err != nil {
		return err
	}
	if len(devices) == 0 {
		return fmt.Errorf("the CUDA driver offers no device; check CUDA_VISIBLE_DEVICES")
	}
	d := devices[0]
	r := &report{
		Device: fmt.Sprintf("%s, compute capability %d.%d, %d multiprocessors, %.0f GiB%s", d.Name, d.Major, d.Minor, d.SMs, float64(d.Memory)/(1<<30), clocks()),
		Stand:  strings.HasPrefix(d.Name, standIn),
		Host:   fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
		Date:   time.Now().Format(time.DateOnly),
	}
	r.settings = sizes(r.Stand)
	if r.Stand && os.Getenv(profileVar) == "" {
		return profiled(out) // once more, with the counters on
	}
	fmt.Fprintf(out, "device: %s\nhost:   %s\n", r.Device, r.Host)
	if r.Stand {
		fmt.Fprintf(out, "This is a stand-in for the CUDA driver, not a GPU: the times say nothing, the counts do.\n")
	}
	if err := r.measure(out); err != nil {
		return err
	}
	if markdown != "" {
		f, err := os.Create(markdown)
		if err != nil {
			return err
		}
		r.print(f, true)
		if err := f.Close(); err != nil {
			return err
		}
	}
	if jsonFile != "" {
		raw, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(jsonFile, append(raw, '\n'), 0o644)
	}
	return nil
}

func sizes(stand bool) settings {
	if stand {
		return settings{runs: 1, copy: 1 << 13, square: 64, ensembles: []int{8, 256}, cases: []shape{{20, []int{2, 32, 2}}, {32, []int{32, 32}}, {16, []int{160, 160}}}}
	}
	var ensembles []int
	for n := 8; n <= 8<<20; n *= 4 {
		ensembles = append(ensembles, n)
	}
	return settings{runs: 15, copy: 1 << 28, square: 4096, large: true, ensembles: ensembles, cases: []shape{
		{20, []int{2, 50, 2}}, {128, []int{2, 64, 64, 2}}, {512, []int{64, 64, 64, 64}}, {65536, []int{64, 64, 64, 64}},
		{1024, []int{128, 128, 128, 128}}, {65536, []int{128, 128, 128, 128}}, {4096, []int{512, 512, 512}},
		{8192, []int{2048, 2048, 2048}},
	}}
}
