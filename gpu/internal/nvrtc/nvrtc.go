//go:build cuda && cgo && linux && amd64

// Package nvrtc compiles CUDA C++ to PTX by NVIDIA's run-time compiler. Its library is
// loaded when it is first needed, if it is there: a program neither links nor needs it.
package nvrtc

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// The functions of nvrtc.h that are used; a result of 0 is success.
typedef struct {
	int (*version)(int *, int *);
	int (*count_archs)(int *);
	int (*archs)(int *);
	int (*create)(void **, const char *, const char *, int, const char *const *, const char *const *);
	int (*destroy)(void **);
	int (*compile)(void *, int, const char *const *);
	int (*ptx_size)(void *, size_t *);
	int (*ptx)(void *, char *);
	int (*log_size)(void *, size_t *);
	int (*log)(void *, char *);
	const char *(*error)(int);
} compiler;

// open fills c from a library. It returns why it cannot, or NULL.
static const char *open_library(compiler *c, const char *name) {
	void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!lib) return dlerror();
	const struct { void **to; const char *name; } all[] = {
		{(void **)&c->version, "nvrtcVersion"},
		{(void **)&c->count_archs, "nvrtcGetNumSupportedArchs"}, {(void **)&c->archs, "nvrtcGetSupportedArchs"},
		{(void **)&c->create, "nvrtcCreateProgram"}, {(void **)&c->destroy, "nvrtcDestroyProgram"},
		{(void **)&c->compile, "nvrtcCompileProgram"},
		{(void **)&c->ptx_size, "nvrtcGetPTXSize"}, {(void **)&c->ptx, "nvrtcGetPTX"},
		{(void **)&c->log_size, "nvrtcGetProgramLogSize"}, {(void **)&c->log, "nvrtcGetProgramLog"},
		{(void **)&c->error, "nvrtcGetErrorString"},
	};
	for (int i = 0; i < (int)(sizeof all / sizeof *all); i++)
		if (!(*all[i].to = dlsym(lib, all[i].name))) return dlerror();
	return NULL;
}

static int version(compiler *c, int *major, int *minor) { return c->version(major, minor); }
static int count_archs(compiler *c, int *n) { return c->count_archs(n); }
static int archs(compiler *c, int *list) { return c->archs(list); }
static int create(compiler *c, void **p, const char *text, const char *name, int n, const char *const *texts, const char *const *names) {
	return c->create(p, text, name, n, texts, names);
}
static int destroy(compiler *c, void *p) { return c->destroy(&p); }
static int compile(compiler *c, void *p, int n, const char *const *options) { return c->compile(p, n, options); }
static int ptx_size(compiler *c, void *p, size_t *n) { return c->ptx_size(p, n); }
static int ptx(compiler *c, void *p, char *to) { return c->ptx(p, to); }
static int log_size(compiler *c, void *p, size_t *n) { return c->log_size(p, n); }
static int read_log(compiler *c, void *p, char *to) { return c->log(p, to); }
static const char *error_text(compiler *c, int code) { return c->error(code); }
*/
import "C"

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Compiler is a library of NVRTC, which stays loaded as long as the process runs.
type Compiler struct {
	c            *C.compiler
	Major, Minor int   // CUDA's version that it belongs to
	archs        []int // compute capabilities, as in sm_80, in ascending order
}

// libraries are those of the CUDA versions that are known, the latest first.
var libraries = []struct {
	major int
	name  string
}{{13, "libnvrtc.so.13"}, {12, "libnvrtc.so.12"}, {11, "libnvrtc.so.11.2"}}

// Open loads the latest NVRTC that makes PTX for a driver of CUDA version `driver`, such
// as 12. It answers backend.ErrUnsupported, with the remedy, if there is none.
func Open(driver int) (*Compiler, error) {
	var why []string
	for _, l := range libraries {
		if l.major > driver {
			continue
		}
		x := &Compiler{c: (*C.compiler)(C.calloc(1, C.sizeof_compiler))}
		reason := C.GoString(open(x.c, l.name))
		if reason == "" {
			return x, x.describe()
		}
		C.free(unsafe.Pointer(x.c))
		why = append(why, reason)
	}
	return nil, fmt.Errorf("gpu: a right-hand side is compiled by NVRTC, which is not there: %w: %s: install that of CUDA %d or older "+
		"(libnvrtc11.2 of Debian, libnvrtc12 of Ubuntu, cuda-nvrtc-%d-* of NVIDIA, or nvidia-cuda-nvrtc-cu%d of PyPI with its folder in LD_LIBRARY_PATH), or use the CPU backend",
		backend.ErrUnsupported, strings.Join(why, "; "), driver, driver, driver)
}

// describe asks for the version and what it compiles for.
func (x *Compiler) describe() error {
	var major, minor, n C.int
	if code := C.version(x.c, &major, &minor); code != 0 {
		return x.failure("nvrtcVersion", code)
	}
	x.Major, x.Minor = int(major), int(minor)
	if code := C.count_archs(x.c, &n); code != 0 {
		return x.failure("nvrtcGetNumSupportedArchs", code)
	}
	list := make([]C.int, n)
	if code := C.archs(x.c, unsafe.SliceData(list)); code != 0 {
		return x.failure("nvrtcGetSupportedArchs", code)
	}
	for _, a := range list {
		x.archs = append(x.archs, int(a))
	}
	slices.Sort(x.archs)
	return nil
}

func open(c *C.compiler, name string) *C.char {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return C.open_library(c, s)
}

func (x *Compiler) failure(op string, code C.int) error {
	return fmt.Errorf("gpu: %s failed: %s (%d)", op, C.GoString(C.error_text(x.c, code)), int(code))
}

// target is the highest compute capability that x compiles for and a device runs.
func (x *Compiler) target(capability int) (int, error) {
	n, exact := slices.BinarySearch(x.archs, capability)
	if exact {
		return capability, nil
	}
	if n == 0 {
		return 0, fmt.Errorf("gpu: NVRTC %d.%d does not compile for compute capability %d.%d: %w: install an older one, or use the CPU backend",
			x.Major, x.Minor, capability/10, capability%10, backend.ErrUnsupported)
	}
	return x.archs[n-1], nil
}

// PTX compiles a text for a device. headers are the files that it may include, by name.
// What the compiler has to say about a text that it does not take is in the error.
func (x *Compiler) PTX(text string, headers map[string]string, capability int) ([]byte, error) {
	target, err := x.target(capability)
	if err != nil {
		return nil, err
	}
	var kept []unsafe.Pointer
	defer func() {
		for _, p := range kept {
			C.free(p)
		}
	}()
	keep := func(s string) *C.char {
		c := C.CString(s)
		kept = append(kept, unsafe.Pointer(c))
		return c
	}
	var names, texts []*C.char
	for name, h := range headers {
		names, texts = append(names, keep(name)), append(texts, keep(h))
	}
	var p unsafe.Pointer
	if code := C.create(x.c, &p, keep(text), keep("source.cu"), C.int(len(names)), unsafe.SliceData(texts), unsafe.SliceData(names)); code != 0 {
		return nil, x.failure("nvrtcCreateProgram", code)
	}
	defer C.destroy(x.c, p)
	options := []*C.char{keep(fmt.Sprintf("--gpu-architecture=compute_%d", target)), keep("--std=c++17"), keep("--device-as-default-execution-space")}
	if code := C.compile(x.c, p, C.int(len(options)), unsafe.SliceData(options)); code != 0 {
		return nil, fmt.Errorf("%w:\n%s", x.failure("nvrtcCompileProgram", code), x.log(p))
	}
	var n C.size_t
	if code := C.ptx_size(x.c, p, &n); code != 0 {
		return nil, x.failure("nvrtcGetPTXSize", code)
	}
	out := make([]byte, n)
	if code := C.ptx(x.c, p, (*C.char)(unsafe.Pointer(unsafe.SliceData(out)))); code != 0 {
		return nil, x.failure("nvrtcGetPTX", code)
	}
	return []byte(strings.TrimRight(string(out), "\x00")), nil
}

// log is what the compiler said.
func (x *Compiler) log(p unsafe.Pointer) string {
	var n C.size_t
	if C.log_size(x.c, p, &n) != 0 || n == 0 {
		return ""
	}
	out := make([]byte, n)
	if C.read_log(x.c, p, (*C.char)(unsafe.Pointer(unsafe.SliceData(out)))) != 0 {
		return ""
	}
	return strings.TrimRight(string(out), "\x00\n")
}
