//go:build cuda && cgo && linux && amd64

// Package faults lets tests fail calls of the CUDA driver, on any device. It is
// imported by tests alone.
package faults

/*
#cgo LDFLAGS: -Wl,--as-needed
void neuralode_faults_install(void);
int neuralode_faults_count(void);
const char *neuralode_faults_name(int i);
int neuralode_faults_calls(int i);
void neuralode_faults_arm(int i, int n, int code);
int neuralode_faults_left(void);
*/
import "C"

import (
	"strings"
	"sync"

	_ "github.com/seed-5f5774c8/neuralode/gpu/internal/driver" // loads the driver
)

var install = sync.OnceFunc(func() { C.neuralode_faults_install() })

// Calls counts the calls of the driver so far, by function, from the first call of
// Calls or Fail on.
func Calls() map[string]int {
	install()
	calls := map[string]int{}
	for i := range int(C.neuralode_faults_count()) {
		if n := int(C.neuralode_faults_calls(C.int(i))); n > 0 {
			calls[C.GoString(C.neuralode_faults_name(C.int(i)))] = n
		}
	}
	return calls
}

// Fail makes the n-th call from now on, n from 1, of the function of that name answer
// code without being made. Only one call can be made to fail at a time.
func Fail(name string, n, code int) {
	install()
	for i := range int(C.neuralode_faults_count()) {
		if C.GoString(C.neuralode_faults_name(C.int(i))) == name {
			C.neuralode_faults_arm(C.int(i), C.int(n), C.int(code))
			return
		}
	}
	panic("faults: no function " + name)
}

// Off cancels what Fail asked for, and reports whether the call came and failed.
func Off() bool {
	failed := C.neuralode_faults_left() <= 0
	C.neuralode_faults_arm(-1, 0, 0)
	return failed
}

// Public is the name by which errors and documentation call a function of the
// driver, without its version.
func Public(name string) string {
	base, _, _ := strings.Cut(name, "_v")
	return base
}
