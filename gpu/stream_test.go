//go:build cuda && cgo && linux && amd64

package gpu

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/gpu/internal/driver"
)

// What is enqueued in the caller's stream comes in order with what the backend
// enqueues, however late work runs; in another stream it does not.
func TestOpen_StreamKeepsOrder(t *testing.T) {
	const lazy = "CUDASIM_ASYNC"
	if os.Getenv(lazy) != "lazy" {
		openOrSkip[float32](t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestOpen_StreamKeepsOrder$")
		cmd.Env = append(os.Environ(), lazy+"=lazy")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	lender, other := must(driver.Open(0, driver.Options{})), must(driver.Open(0, driver.Options{}))
	defer lender.Close()
	defer other.Close()
	b := must(Open[float32](Options{Stream: lender.Stream()}))
	defer b.Close()
	v := must(b.NewVec(1, 1, 1)).(*vec[float32])
	got := make([]float32, 1)
	download := func() float32 {
		if err := b.Download(got, v); err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	lender.Memset(v.ptr, 0x3f, 4)
	if x := download(); x != 0.7470588 { // 0x3f3f3f3f
		t.Errorf("after the caller's: %v", x)
	}
	lender.Memset(v.ptr, 0, 4)
	b.Upload(v, []float32{3})
	if x := download(); x != 3 {
		t.Errorf("before the caller's: %v", x)
	}
	if strings.Contains(b.Name(), "cudasim") { // as late as it may: on a device it depends
		other.Memset(v.ptr, 0, 4)
		if x := download(); x != 3 {
			t.Errorf("behind that of another stream: %v", x)
		}
	}
	if err := other.Sync(); err != nil {
		t.Error(err)
	}
}

func TestOpen_BadStream(t *testing.T) {
	openOrSkip[float32](t)
	for _, h := range []uintptr{1, 2} {
		b, err := Open[float32](Options{Stream: h})
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "default stream") || !strings.Contains(err.Error(), "cudaStreamCreate") {
			t.Errorf("stream %d: %v", h, err)
		}
	}
}
