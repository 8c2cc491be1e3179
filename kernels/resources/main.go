// Command resources compiles the committed PTX for real devices with ptxas and
// compares the registers, the shared memory and the spills of every kernel with the
// table kernels/resources.txt: `make kernels-check`. With -write it writes the table.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
)

const head = `# Kernels as ptxas compiles them. Written by "make kernels-resources", compared by
# "make kernels-check". Spills are bytes stored and loaded; a kernel may spill only if
# this table says so. Occupancy is the part of a multiprocessor's warps that are
# resident if registers, static shared memory and the block's size limit them; kernels
# with dynamic shared memory may have less.
`

// limits are what a multiprocessor of an architecture has.
type limits struct{ registers, shared, threads, blocks int }

var architectures = map[int]limits{
	60: {65536, 64 << 10, 2048, 32},
	70: {65536, 96 << 10, 2048, 32},
	75: {65536, 64 << 10, 1024, 16},
	80: {65536, 164 << 10, 2048, 32},
	90: {65536, 228 << 10, 2048, 32},
}

// row is a kernel on an architecture.
type row struct {
	kernel               string
	sm                   int
	registers, shared    int
	stores, loads, stack int
	threads              int // of a block
	occupancy            int // percent
}

func (r row) String() string {
	return fmt.Sprintf("%-32s sm_%d %4d registers %6d bytes shared %4d/%d bytes spilled %4d bytes stack %4d threads %3d%% occupancy",
		r.kernel, r.sm, r.registers, r.shared, r.stores, r.loads, r.stack, r.threads, r.occupancy)
}

func main() {
	ptxas := flag.String("ptxas", "ptxas", "the assembler of CUDA's toolkit")
	targets := flag.String("sm", "60 70 80 90", "architectures")
	dir := flag.String("ptx", "kernels/ptx", "folder of the PTX")
	table := flag.String("table", "kernels/resources.txt", "the table")
	write := flag.Bool("write", false, "write the table instead of comparing")
	flag.Parse()
	if err := run(*ptxas, strings.Fields(*targets), *dir, *table, *write); err != nil {
		fmt.Fprintln(os.Stderr, "resources:", err)
		os.Exit(1)
	}
}

func run(ptxas string, targets []string, dir, table string, write bool) error {
	var rows []row
	for _, t := range targets {
		sm, err := strconv.Atoi(t)
		if err != nil {
			return fmt.Errorf("architecture %q is no number", t)
		}
		got, err := compile(ptxas, sm, dir)
		if err != nil {
			return err
		}
		rows = append(rows, got...)
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return a.kernel < b.kernel || a.kernel == b.kernel && a.sm < b.sm
	})
	var text bytes.Buffer
	text.WriteString(head)
	for _, r := range rows {
		fmt.Fprintln(&text, r)
	}
	if write {
		return os.WriteFile(table, text.Bytes(), 0o644)
	}
	want, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	return compare(string(want), text.String())
}

// compare reports the rows that differ.
func compare(want, got string) error {
	if want == got {
		return nil
	}
	had := map[string]bool{}
	for _, l := range strings.Split(want, "\n") {
		had[l] = true
	}
	var changed []string
	for _, l := range strings.Split(got, "\n") {
		if !had[l] {
			changed = append(changed, l)
		}
	}
	if changed == nil {
		changed = []string{"(rows are missing)"}
	}
	return fmt.Errorf("the kernels' resources are not those of the table; look at these rows, above all at their spills, and run make kernels-resources if they are as they should be:\n%s", strings.Join(changed, "\n"))
}

// compile assembles every family for one architecture, from the highest PTX that it runs.
func compile(ptxas string, sm int, dir string) ([]row, error) {
	target := 60
	if sm >= 80 {
		target = 80
	}
	files, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("*.sm_%d.ptx", target)))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no PTX for sm_%d in %s; run make kernels", target, dir)
	}
	results, errs := make([][]row, len(files)), make([]error, len(files))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for i, file := range files {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i], errs[i] = assemble(ptxas, sm, file)
		})
	}
	wg.Wait()
	var rows []row
	for i := range files {
		if errs[i] != nil {
			return nil, errs[i]
		}
		rows = append(rows, results[i]...)
	}
	return rows, nil
}

var (
	entryPTX = regexp.MustCompile(`(?s)\.entry (\w+)\(.*?\)\s*(?:\.maxntid (\d+), (\d+), (\d+))?`)
	entry    = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	spills   = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	used     = regexp.MustCompile(`Used (\d+) registers`)
	shared   = regexp.MustCompile(`(\d+) bytes smem`)
)

func assemble(ptxas string, sm int, file string) ([]row, error) {
	out, err := exec.Command(ptxas, "-v", fmt.Sprintf("-arch=sm_%d", sm), "-o", os.DevNull, file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s for sm_%d: %w\n%s", file, sm, err, out)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	threads := map[string]int{}
	for _, m := range entryPTX.FindAllStringSubmatch(string(src), -1) {
		threads[m[1]] = 256 // what the backend launches
		if m[2] != "" {
			x, _ := strconv.Atoi(m[2])
			y, _ := strconv.Atoi(m[3])
			z, _ := strconv.Atoi(m[4])
			threads[m[1]] = x * y * z
		}
	}
	var rows []row
	number := func(re *regexp.Regexp, line string, i int) int {
		m := re.FindStringSubmatch(line)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(m[i])
		return n
	}
	for _, line := range strings.Split(string(out), "\n") {
		if m := entry.FindStringSubmatch(line); m != nil {
			rows = append(rows, row{kernel: m[1], sm: sm, threads: threads[m[1]]})
			continue
		}
		if len(rows) == 0 {
			continue
		}
		r := &rows[len(rows)-1]
		if spills.MatchString(line) {
			r.stack, r.stores, r.loads = number(spills, line, 1), number(spills, line, 2), number(spills, line, 3)
		}
		if used.MatchString(line) {
			r.registers, r.shared = number(used, line, 1), number(shared, line, 1)
			r.occupancy = r.occupies(architectures[sm])
		}
	}
	return rows, nil
}

// occupies is the percentage of the warps of a multiprocessor that are resident, by
// the rules of CUDA's occupancy calculator: registers are given to warps in units of 256.
func (r row) occupies(l limits) int {
	if l.threads == 0 || r.threads == 0 {
		return 0
	}
	warps := (r.threads + 31) / 32
	blocks := min(l.blocks, l.threads/(32*warps))
	if r.registers > 0 {
		each := (32*r.registers + 255) / 256 * 256
		blocks = min(blocks, l.registers/each/warps)
	}
	if r.shared > 0 {
		blocks = min(blocks, l.shared/(r.shared+1024))
	}
	return 100 * blocks * warps * 32 / l.threads
}
