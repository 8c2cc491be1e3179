package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"text/tabwriter"
)

// print writes the tables, aligned for a terminal or as Markdown.
func (r *report) print(out io.Writer, markdown bool) {
	note := ""
	if r.Stand {
		note = " (not a GPU)"
	}
	if markdown {
		fmt.Fprintf(out, "# GPU benchmark\n\n- device: %s\n- host: %s\n- date: %s\n- command: `make bench-gpu`\n", r.Device, r.Host, r.Date)
		if r.Stand {
			fmt.Fprintf(out, "\nThis is a stand-in for the CUDA driver, not a GPU: the times say nothing, the counts do.\n")
		}
	}
	t := newTable(out, markdown, "verb", "type", "size", "µs"+note, "GFLOP/s"+note, "GB/s"+note, "of ceiling"+note, "launches")
	for _, k := range r.Kernels {
		t.row(k.Name, k.Type, k.Size, fmt.Sprintf("%.1f", k.Micros), dash("%.0f", k.GFlops), dash("%.0f", k.GBs),
			fmt.Sprintf("%.0f%%", 100*k.Ceiling), fmt.Sprint(k.Launches))
	}
	t.end()
	t = newTable(out, markdown, "dopri5, 5 outputs", "type", "size", "ms"+note, "ms on the CPU backend", "launches", "graph replays", "host waits", "bytes in", "bytes out", "evaluations")
	for _, s := range r.Solves {
		t.row(s.Name, s.Type, s.Size, fmt.Sprintf("%.3f", s.Millis), fmt.Sprintf("%.3f", s.CPUMillis), fmt.Sprint(s.Launches), fmt.Sprint(s.Graphs),
			fmt.Sprint(s.Waits), fmt.Sprint(s.ToDevice), fmt.Sprint(s.ToHost), fmt.Sprint(s.Evaluations))
	}
	t.end()
	fmt.Fprintf(out, "\n%s\n", ensembleTitle)
	t = newTable(out, markdown, "trajectories", "ms"+note, "per second"+note, "ms step by step"+note, "ms on the CPU backend", "launches", "launches step by step", "evaluations")
	for _, e := range r.Ensembles {
		t.row(fmt.Sprint(e.Trajectories), fmt.Sprintf("%.3f", e.Millis), fmt.Sprintf("%.3g", 1e3*float64(e.Trajectories)/e.Millis),
			fmt.Sprintf("%.3f", e.StagedMillis), dash("%.3f", e.CPUMillis), fmt.Sprint(e.Launches), fmt.Sprint(e.StagedLaunches), fmt.Sprint(e.Evaluations))
	}
	t.end()
}

func dash(format string, v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf(format, v)
}

// table writes rows of cells.
type table struct {
	out      io.Writer
	tabs     *tabwriter.Writer
	markdown bool
}

func newTable(out io.Writer, markdown bool, head ...string) *table {
	fmt.Fprintln(out)
	t := &table{out: out, markdown: markdown, tabs: tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.row(head...)
	if markdown {
		t.row(strings.Split(strings.Repeat("---,", len(head)-1)+"---", ",")...)
	}
	return t
}

func (t *table) row(cells ...string) {
	if t.markdown {
		fmt.Fprintf(t.out, "| %s |\n", strings.Join(cells, " | "))
		return
	}
	fmt.Fprintln(t.tabs, strings.Join(cells, "\t"))
}

func (t *table) end() { t.tabs.Flush() }

// The stand-in counts what kernels do, and writes it to the file that profileVar names.
const (
	standIn    = "cudasim"
	profileVar = "CUDASIM_PROFILE"
)

// profile is what the stand-in counted of one kernel.
type profile struct {
	Name         string `json:"name"`
	Launches     int64  `json:"launches"`
	Instructions struct {
		Total int64 `json:"total"`
		FMA32 int64 `json:"fp32_fma"`
		FP64  int64 `json:"fp64"`
	} `json:"instructions"`
	Load   access `json:"global_load"`
	Store  access `json:"global_store"`
	Shared struct {
		Requests int64 `json:"requests"`
		Replays  int64 `json:"bank_conflict_replays"`
	} `json:"shared"`
}

// access counts warps' requests to global memory and the 32-byte sectors they touch.
type access struct {
	Bytes   int64 `json:"bytes"`
	Sectors int64 `json:"sectors"`
}

// profiled runs this program again with the counters on, and prints them after it.
func profiled(out io.Writer) error {
	f, err := os.CreateTemp("", "neuralode-profile-*.json")
	if err != nil {
		return err
	}
	f.Close()
	defer os.Remove(f.Name())
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), profileVar+"="+f.Name())
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	raw, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	var p struct {
		Kernels []profile `json:"kernels"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("the stand-in's counters: %w", err)
	}
	sort.Slice(p.Kernels, func(i, j int) bool { return p.Kernels[i].Name < p.Kernels[j].Name })
	t := newTable(out, false, "kernel", "launches", "instructions", "fma f32", "f64", "bytes loaded", "efficiency", "bytes stored", "efficiency", "shared requests", "bank conflicts")
	for _, k := range p.Kernels {
		t.row(k.Name, fmt.Sprint(k.Launches), fmt.Sprint(k.Instructions.Total), fmt.Sprint(k.Instructions.FMA32), fmt.Sprint(k.Instructions.FP64),
			fmt.Sprint(k.Load.Bytes), k.Load.efficiency(), fmt.Sprint(k.Store.Bytes), k.Store.efficiency(),
			fmt.Sprint(k.Shared.Requests), fmt.Sprint(k.Shared.Replays))
	}
	t.end()
	return nil
}

// efficiency is the part of the sectors' bytes that was asked for.
func (a access) efficiency() string {
	if a.Sectors == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(a.Bytes)/float64(32*a.Sectors))
}

// clocks is what nvidia-smi says of driver and clocks, if it is there.
func clocks() string {
	raw, err := exec.Command("nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm,clocks.mem", "--format=csv,noheader", "--id=0").Output()
	if err != nil {
		return ""
	}
	f := strings.Split(strings.TrimSpace(string(raw)), ", ")
	if len(f) != 4 {
		return ""
	}
	return fmt.Sprintf(", driver %s, clock %s of %s, memory %s", f[0], f[1], f[2], f[3])
}
