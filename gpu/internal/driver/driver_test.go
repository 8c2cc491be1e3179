//go:build cuda && cgo && linux && amd64

package driver

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// child runs this test binary again with other environment, and returns what the
// function of that name in children said.
func child(t *testing.T, name string, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), append(env, "NEURALODE_DRIVER_CHILD="+name)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func TestMain(m *testing.M) {
	switch os.Getenv("NEURALODE_DRIVER_CHILD") {
	case "":
		os.Exit(m.Run())
	case "open":
		d, err := Open(0, Options{})
		if err == nil {
			d.Close()
		}
		os.Stdout.WriteString(describeError(err))
	}
}

func describeError(err error) string {
	s := "none"
	if err != nil {
		s = err.Error()
	}
	if errors.Is(err, backend.ErrUnavailable) {
		s += " [unavailable]"
	}
	return s
}

// open returns device 0, or skips the test where no driver answers.
func open(t *testing.T) *Device {
	t.Helper()
	d, err := Open(0, Options{})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// A program built with the tag starts without libcuda, which it would not if a single
// symbol were bound when it is linked.
func TestBinary_NeedsNoDriver(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(libs, func(l string) bool { return strings.HasPrefix(l, "libcuda") }); i >= 0 {
		t.Errorf("the binary needs %s", libs[i])
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if strings.HasPrefix(s.Name, "cu") {
			t.Errorf("the binary imports %s; add it to symbols.h", s.Name)
		}
	}
}

func TestOpen_WithoutDevice(t *testing.T) {
	if d, err := Open(0, Options{}); err == nil {
		d.Close()
	} else {
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("Open says %v", err)
		}
		if _, err := Devices(); err == nil {
			t.Error("Devices answers and Open does not")
		}
		t.Skipf("no CUDA device: %v", err)
	}
	// CUDASIM_* concern the stand-in for the driver, and change nothing on a device.
	if out := child(t, "open", "CUDASIM_DEVICES=0", "CUDA_VISIBLE_DEVICES="); !strings.Contains(out, "[unavailable]") || !strings.Contains(out, "CUDA_ERROR_NO_DEVICE") {
		t.Errorf("no device: %s", out)
	}
	if _, err := Open(1000, Options{}); !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "no device 1000") {
		t.Errorf("device 1000: %v", err)
	}
}

func TestDevice_MemoryAndCopies(t *testing.T) {
	d := open(t)
	src := []int32{1, 2, 3, 4}
	p, err := d.Alloc(32)
	if err != nil {
		t.Fatal(err)
	}
	d.CopyHD(p, ptrOf(src), 16)
	d.CopyDD(p+16, p, 16)
	d.Memset(p, 0xff, 4)
	src[1] = 99 // the copy was taken already
	got := make([]int32, 8)
	if err := d.CopyDH(ptrOf(got), p, 32); err != nil {
		t.Fatal(err)
	}
	if want := []int32{-1, 2, 3, 4, 1, 2, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	d.Free(p)
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// However much is copied, and however late, what counts is the memory at the call.
func TestDevice_CopiesTakeTheHostsMemoryAtOnce(t *testing.T) {
	d := open(t)
	const most = 5*stagingHalf + 100
	p, err := d.Alloc(most)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Free(p)
	src, want, got := make([]byte, most), make([]byte, most), make([]byte, most)
	at := 0
	for i, n := range []int{1, 3, stagingHalf - 50, stagingHalf, 2*stagingHalf + 1, 17} {
		for j := range n {
			src[j] = byte(7*j + i)
		}
		copy(want[at:], src[:n])
		d.CopyHD(p+Ptr(at), ptrOf(src), int64(n))
		clear(src)
		at += n
	}
	if err := d.CopyDH(ptrOf(got), p, int64(at)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got[:at], want[:at]) {
		t.Error("the device has something else")
	}
}

func TestDevice_Errors(t *testing.T) {
	d := open(t)
	_, err := d.Alloc(1 << 50)
	var de *backend.DeviceError
	if !errors.As(err, &de) || !errors.Is(err, backend.ErrOutOfMemory) || de.Op != "cuMemAlloc" || de.Name != "CUDA_ERROR_OUT_OF_MEMORY" {
		t.Errorf("a petabyte: %v", err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("the device is of no use after it: %v", err)
	}
	_, err = d.Load("broken", []byte("this is no PTX"))
	if !errors.As(err, &de) || de.Kernel != "broken" {
		t.Errorf("a broken module: %v", err)
	}
}

func TestDevice_UseAfterClose(t *testing.T) {
	d := open(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	d.Memset(0, 0, 16)
	if _, err := d.Alloc(16); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Alloc: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
	if err := d.BeginCapture(); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("BeginCapture: %v", err)
	}
	if _, err := d.EndCapture(); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("EndCapture: %v", err)
	}
}

const fillPTX = `
.version 6.0
.target sm_60
.address_size 64
.visible .entry fill(.param .u64 p, .param .u32 n, .param .f64 v) {
	.reg .pred %q;
	.reg .b32 %r<6>;
	.reg .b64 %a<4>;
	.reg .f64 %d<2>;
	ld.param.u64 %a1, [p];
	ld.param.u32 %r1, [n];
	ld.param.f64 %d1, [v];
	mov.u32 %r2, %ctaid.x;
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %tid.x;
	mad.lo.u32 %r5, %r2, %r3, %r4;
	setp.ge.u32 %q, %r5, %r1;
	@%q ret;
	cvta.to.global.u64 %a1, %a1;
	mul.wide.u32 %a2, %r5, 8;
	add.u64 %a3, %a1, %a2;
	st.global.f64 [%a3], %d1;
	ret;
}
`

func fill(t *testing.T, d *Device) *Function {
	t.Helper()
	m, err := d.Load("fill", []byte(fillPTX))
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Function("fill")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDevice_LaunchAndGraph(t *testing.T) {
	d := open(t)
	f := fill(t, d)
	p, err := d.Alloc(100 * 8)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Free(p)
	var a Args
	d.Memset(p, 0, 800)
	d.Launch(f, Dim{X: 2}, Dim{X: 64}, 0, a.Reset().Ptr(p).I32(90).F64(2.5))
	got := make([]float64, 100)
	read := func() {
		t.Helper()
		if err := d.CopyDH(ptrOf(got), p, 800); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if got[0] != 2.5 || got[89] != 2.5 || got[90] != 0 {
		t.Errorf("got %v", got)
	}
	if err := d.BeginCapture(); err != nil {
		t.Fatal(err)
	}
	d.Launch(f, Dim{X: 2}, Dim{X: 64}, 0, a.Reset().Ptr(p).I32(100).F64(7))
	g, err := d.EndCapture()
	if err != nil {
		t.Fatal(err)
	}
	read()
	if got[0] != 2.5 {
		t.Error("a captured launch ran")
	}
	g.Launch()
	read()
	if got[0] != 7 || got[99] != 7 {
		t.Errorf("after the graph: %v", got)
	}
	g.Close()
	g.Close()
}

// Every block counts itself, waits until all n have, and writes its number.
const meetPTX = `
.version 6.0
.target sm_60
.address_size 64
.visible .entry meet(.param .u64 p, .param .u32 n) {
	.reg .pred %q;
	.reg .b32 %r<5>;
	.reg .b64 %a<4>;
	ld.param.u64 %a1, [p];
	ld.param.u32 %r1, [n];
	cvta.to.global.u64 %a1, %a1;
	atom.global.add.u32 %r2, [%a1], 1;
wait:
	ld.volatile.global.u32 %r3, [%a1];
	setp.lt.u32 %q, %r3, %r1;
	@%q bra wait;
	mov.u32 %r4, %ctaid.x;
	mul.wide.u32 %a2, %r4, 4;
	add.u64 %a3, %a1, %a2;
	st.global.u32 [%a3+4], %r4;
	ret;
}
`

func TestDevice_LaunchCooperative(t *testing.T) {
	d := open(t)
	m, err := d.Load("meet", []byte(meetPTX))
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Function("meet")
	if err != nil {
		t.Fatal(err)
	}
	n := 2 * d.Info().SMs
	p, err := d.AllocAsync(int64(4 + 4*n))
	if errors.Is(err, backend.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.Memset(p, 0, int64(4+4*n))
	var a Args
	d.LaunchCooperative(f, Dim{X: n}, Dim{X: 1}, 0, a.Reset().Ptr(p).I32(int32(n)))
	got := make([]int32, 1+n)
	if err := d.CopyDH(ptrOf(got), p, int64(4+4*n)); err != nil {
		t.Fatal(err)
	}
	for i, v := range got[1:] {
		if int(v) != i {
			t.Fatalf("%d blocks met, block %d wrote %d", got[0], i, v)
		}
	}
	d.LaunchCooperative(f, Dim{X: 1 << 30}, Dim{X: 1}, 0, &a)
	if err := d.Sync(); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "of meet failed") {
		t.Errorf("more blocks than fit: %v", err)
	}
	d.FreeAsync(p)
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// What is freed in order of the stream serves what was enqueued before.
func TestDevice_AllocAsync(t *testing.T) {
	d := open(t)
	got := make([]byte, 1000)
	for i := range 4 {
		p, err := d.AllocAsync(1000)
		if errors.Is(err, backend.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		d.Memset(p, byte(i+1), 1000)
		if i < 2 { // copied before it goes
			if err := d.CopyDH(ptrOf(got), p, 1000); err != nil {
				t.Fatal(err)
			}
			if got[0] != byte(i+1) || got[999] != byte(i+1) {
				t.Errorf("got %d and %d, want %d", got[0], got[999], i+1)
			}
		}
		if i < 3 { // the last is left to Close
			d.FreeAsync(p)
		}
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
	if _, err := d.AllocAsync(1 << 50); !errors.Is(err, backend.ErrOutOfMemory) {
		t.Errorf("a petabyte: %v", err)
	}
}

// An illegal address costs the context: everything says so until a new Open.
func TestDevice_LostContext(t *testing.T) {
	d := open(t)
	f := fill(t, d)
	var a Args
	d.Launch(f, Dim{X: 1}, Dim{X: 32}, 0, a.Reset().Ptr(64).I32(8).F64(1))
	err := d.Sync()
	var de *backend.DeviceError
	if !errors.As(err, &de) || !losesContext(de.Code) || !strings.Contains(de.Text, "open a new one") {
		t.Fatalf("got %v", err)
	}
	if _, err := d.Alloc(16); err == nil || !strings.Contains(err.Error(), "context is lost") {
		t.Errorf("Alloc: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	again, err := Open(0, Options{})
	if err != nil {
		t.Fatalf("a new Open: %v", err)
	}
	defer again.Close()
	p, err := again.Alloc(16)
	if err != nil {
		t.Fatal(err)
	}
	again.Free(p)
	if err := again.Sync(); err != nil {
		t.Error(err)
	}
}

// A stream of another context than the device's own is refused.
func TestOpen_StreamOfAnotherContext(t *testing.T) {
	d := open(t)
	dev, err := cu.GetDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, err := dev.MakeContext(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ctx.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	s, err := cu.MakeStream(0)
	if err != nil {
		t.Fatal(err)
	}
	handle := uintptr(unsafe.Pointer(cStream(s)))
	b, err := Open(0, Options{Stream: handle})
	if err == nil {
		b.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "primary context") {
		t.Errorf("got %v", err)
	}
	if b, err = Open(0, Options{Stream: d.Stream()}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("the stream that was lent: %v", err)
	}
}

func TestDebug_NamesTheKernel(t *testing.T) {
	d, err := Open(0, Options{Debug: true})
	if err != nil {
		t.Skipf("no CUDA device: %v", err)
	}
	defer d.Close()
	var a Args
	d.Launch(fill(t, d), Dim{X: 1}, Dim{X: 32}, 0, a.Reset().Ptr(64).I32(8).F64(1))
	if err := d.TakeErr(); err == nil || !strings.Contains(err.Error(), "of fill failed") {
		t.Errorf("got %v", err)
	}
}

func ptrOf[E any](x []E) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(x)) }
