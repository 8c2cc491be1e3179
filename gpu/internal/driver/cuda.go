//go:build cuda && cgo && linux && amd64

package driver

/*
#cgo LDFLAGS: -Wl,--as-needed -ldl -L/usr/lib/x86_64-linux-gnu/stubs -L/usr/local/cuda/lib64/stubs -L${SRCDIR}
#include <stdint.h>
#include <stdlib.h>
#include <cuda.h>

int neuralode_cu_status(void);
const char *neuralode_cu_reason(void);

static CUresult launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared, CUstream s, void *args, size_t n) {
	void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, args, CU_LAUNCH_PARAM_BUFFER_SIZE, &n, CU_LAUNCH_PARAM_END};
	return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, NULL, n ? extra : NULL);
}

static CUresult launch_cooperative(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                   unsigned shared, CUstream s, void *args, size_t n) {
	void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, args, CU_LAUNCH_PARAM_BUFFER_SIZE, &n, CU_LAUNCH_PARAM_END};
	CUlaunchAttribute together = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = {.cooperative = 1}};
	CUlaunchConfig c = {
		.gridDimX = gx, .gridDimY = gy, .gridDimZ = gz, .blockDimX = bx, .blockDimY = by, .blockDimZ = bz,
		.sharedMemBytes = shared, .hStream = s, .attrs = &together, .numAttrs = 1,
	};
	return cuLaunchKernelEx(&c, f, NULL, n ? extra : NULL);
}

static CUresult load(CUmodule *m, const void *image, char *log, unsigned n) {
	CUjit_option opts[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
	void *vals[] = {log, (void *)(size_t)n};
	return cuModuleLoadDataEx(m, image, 2, opts, vals);
}

static CUstream stream(uintptr_t handle) { return (CUstream)handle; }
*/
import "C"

import (
	"fmt"
	"strings"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Result codes of the driver that this package treats by name.
const (
	codeOutOfMemory    = 2
	codeNotInitialized = 3
	codeNoDevice       = 100
	codeNoBinary       = 209
	codePTXTooNew      = 222
	codeInvalidHandle  = 400
	codeNotFound       = 500 // a kernel, or, by lazy.c, the call itself in an older driver
	codeGridTooLarge   = 720
	codeNotSupported   = 801
)

// Handles of gorgonia.org/cu as those of cuda.h: structs of one pointer.
func cStream(s cu.Stream) C.CUstream       { return *(*C.CUstream)(unsafe.Pointer(&s)) }
func cFunction(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }
func goModule(m C.CUmodule) cu.Module      { return *(*cu.Module)(unsafe.Pointer(&m)) }

var (
	_ [unsafe.Sizeof(cu.Stream{}) - unsafe.Sizeof(C.CUstream(nil))]struct{}
	_ [unsafe.Sizeof(cu.Function{}) - unsafe.Sizeof(C.CUfunction(nil))]struct{}
	_ [unsafe.Sizeof(cu.Module{}) - unsafe.Sizeof(C.CUmodule(nil))]struct{}
	_ [unsafe.Sizeof(cu.CUContext{}) - unsafe.Sizeof(C.CUcontext(nil))]struct{}
)

// streamOf is a stream by its handle, and inContext whether it belongs to that context.
func streamOf(handle uintptr, ctx cu.CUContext) (s cu.Stream, inContext bool, code int) {
	h := C.stream(C.uintptr_t(handle))
	var of C.CUcontext
	code = int(C.cuStreamGetCtx(h, &of))
	return *(*cu.Stream)(unsafe.Pointer(&h)), of == *(*C.CUcontext)(unsafe.Pointer(&ctx)), code
}

// Version is the CUDA version that the driver supports, as 12040 for 12.4.
func Version() (int, error) {
	if err := available(); err != nil {
		return 0, err
	}
	var v C.int
	if code := int(C.cuDriverGetVersion(&v)); code != 0 {
		return 0, newError("cuDriverGetVersion", "", code)
	}
	return int(v), nil
}

// available is nil if the driver answers.
func available() error {
	code := int(C.neuralode_cu_status())
	if code == 0 {
		return nil
	}
	if r := C.neuralode_cu_reason(); r != nil {
		return fmt.Errorf("gpu: no CUDA driver: %s: %w: install NVIDIA's driver, or use the CPU backend", C.GoString(r), backend.ErrUnavailable)
	}
	e := newError("cuInit", "", code)
	e.Err = backend.ErrUnavailable
	return e
}

// driverVersion is 1000·major + 10·minor.
func driverVersion() (version, code int) {
	var v C.int
	code = int(C.cuDriverGetVersion(&v))
	return int(v), code
}

func errorName(code int) (name, text string) {
	var n, t *C.char
	C.cuGetErrorName(C.CUresult(code), &n)
	C.cuGetErrorString(C.CUresult(code), &t)
	if n == nil || t == nil {
		return "CUDA_ERROR", "unknown error"
	}
	return C.GoString(n), C.GoString(t)
}

// loadModule compiles PTX for the current device. log says what is wrong with it.
func loadModule(ptx string) (m cu.Module, log string, code int) {
	const size = 8 << 10
	buf := (*C.char)(C.calloc(1, size))
	defer C.free(unsafe.Pointer(buf))
	image := C.CString(ptx)
	defer C.free(unsafe.Pointer(image))
	var mod C.CUmodule
	code = int(C.load(&mod, unsafe.Pointer(image), buf, size))
	return goModule(mod), strings.TrimSpace(C.GoString(buf)), code
}

func launch(f cu.Function, grid, block Dim, shared int, s cu.Stream, args []byte) int {
	var p unsafe.Pointer
	if len(args) > 0 {
		p = unsafe.Pointer(&args[0])
	}
	return int(C.launch(cFunction(f), C.uint(grid.X), C.uint(grid.Y), C.uint(grid.Z), C.uint(block.X), C.uint(block.Y), C.uint(block.Z),
		C.uint(shared), cStream(s), p, C.size_t(len(args))))
}

func launchCooperative(f cu.Function, grid, block Dim, shared int, s cu.Stream, args []byte) int {
	var p unsafe.Pointer
	if len(args) > 0 {
		p = unsafe.Pointer(&args[0])
	}
	return int(C.launch_cooperative(cFunction(f), C.uint(grid.X), C.uint(grid.Y), C.uint(grid.Z), C.uint(block.X), C.uint(block.Y), C.uint(block.Z),
		C.uint(shared), cStream(s), p, C.size_t(len(args))))
}

func allocAsync(n int64, s cu.Stream) (Ptr, int) {
	var p C.CUdeviceptr
	code := C.cuMemAllocAsync(&p, C.size_t(n), cStream(s))
	return Ptr(p), int(code)
}

func freeAsync(p Ptr, s cu.Stream) int { return int(C.cuMemFreeAsync(C.CUdeviceptr(p), cStream(s))) }

func setDynamicShared(f cu.Function, n int) int {
	return int(C.cuFuncSetAttribute(cFunction(f), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(n)))
}

func hostAlloc(n int) (unsafe.Pointer, int) {
	var p unsafe.Pointer
	code := C.cuMemHostAlloc(&p, C.size_t(n), C.CU_MEMHOSTALLOC_PORTABLE)
	return p, int(code)
}

// graphExec is an executable graph.
type graphExec = C.CUgraphExec

// beginCapture lets every thread go on using the driver: the calls between it and
// endCapture may come from several.
func beginCapture(s cu.Stream) int {
	return int(C.cuStreamBeginCapture(cStream(s), C.CU_STREAM_CAPTURE_MODE_RELAXED))
}

// endCapture returns what was captured, ready to be launched. op names the call that
// failed.
func endCapture(s cu.Stream) (exec graphExec, op string, code int) {
	var g C.CUgraph
	if code = int(C.cuStreamEndCapture(cStream(s), &g)); code != 0 {
		// Whatever happened, the stream must not go on capturing.
		if C.cuStreamEndCapture(cStream(s), &g) == 0 {
			C.cuGraphDestroy(g)
		}
		return nil, "cuStreamEndCapture", code
	}
	code = int(C.cuGraphInstantiateWithFlags(&exec, g, 0))
	if c := int(C.cuGraphDestroy(g)); c != 0 && code == 0 {
		C.cuGraphExecDestroy(exec)
		return nil, "cuGraphDestroy", c
	}
	return exec, "cuGraphInstantiate", code
}

func launchGraph(g graphExec, s cu.Stream) int { return int(C.cuGraphLaunch(g, cStream(s))) }

func destroyGraph(g graphExec) int { return int(C.cuGraphExecDestroy(g)) }
