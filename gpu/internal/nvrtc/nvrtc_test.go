//go:build cuda && cgo && linux && amd64

package nvrtc

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
)

func TestOpen_NamesTheRemedy(t *testing.T) {
	_, err := Open(10) // older than any that is known
	if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "install") {
		t.Errorf("error %v, want ErrUnsupported and what to install", err)
	}
}

func TestPTX(t *testing.T) {
	c, err := Open(99)
	if err != nil {
		t.Skip(err)
	}
	text, headers := "#include \"h.cuh\"\nextern \"C\" __global__ void k(int *x) { *x = N; }", map[string]string{"h.cuh": "#define N 1075838976\n"}
	for _, device := range []int{c.archs[0], 88, 1000} { // 8.8 and 100.0 are no devices that it knows
		ptx, err := c.PTX(text, headers, device)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{".entry k(", "1075838976", ".target sm_"} {
			if !strings.Contains(string(ptx), want) {
				t.Errorf("for sm_%d: %q is not in\n%s", device, want, ptx)
			}
		}
	}
	if _, err := c.PTX(text, nil, 80); err == nil || !strings.Contains(err.Error(), "h.cuh") {
		t.Errorf("a header that is not there: error %v", err)
	}
	if _, err := c.PTX(text, headers, 10); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("a device that is too old: error %v, want ErrUnsupported", err)
	}
}
