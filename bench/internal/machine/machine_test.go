package machine

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	name := Name()
	if cpu := CPU(); cpu == "" || !strings.HasPrefix(name, cpu+", ") {
		t.Errorf("the processor is %q, the machine %q", cpu, name)
	}
	if want := fmt.Sprintf("%d virtual cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH); !strings.HasSuffix(name, want) {
		t.Errorf("%q does not end in %q", name, want)
	}
	if strings.Contains(name, "\n") {
		t.Errorf("%q has more than a line", name)
	}
}
