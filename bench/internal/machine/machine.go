// Package machine names the machine that a benchmark ran on.
package machine

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// CPU is the processor's model, as the system tells it, or else its architecture.
func CPU() string {
	switch runtime.GOOS {
	case "linux":
		if f, err := os.Open("/proc/cpuinfo"); err == nil {
			defer f.Close()
			for s := bufio.NewScanner(f); s.Scan(); {
				if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
					return strings.TrimSpace(value)
				}
			}
		}
	case "darwin":
		if out, err := exec.Command("sysctl", "-n", "machdep.cpu.brand_string").Output(); err == nil {
			return strings.TrimSpace(string(out))
		}
	case "windows":
		if name := os.Getenv("PROCESSOR_IDENTIFIER"); name != "" {
			return name
		}
	}
	return runtime.GOARCH
}

// Name is the machine in a line: processor, number of virtual cores, system.
func Name() string {
	return fmt.Sprintf("%s, %d virtual cores, %s/%s", CPU(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}
