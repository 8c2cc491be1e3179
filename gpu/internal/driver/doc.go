//go:build cuda && cgo && linux && amd64

// Package driver is all that talks to the CUDA driver: devices, memory, modules,
// launches, streams, graphs. It uses gorgonia.org/cu, and cgo of its own for what
// that lacks.
//
// The driver library is loaded when the process starts, if it is there. Without it
// the program runs all the same, and [Devices] and [Open] say why there is no device.
//
// Every call may come from any goroutine: it takes the device's lock, binds the
// thread to the device's context and lets go again. Calls that enqueue report
// nothing; the first failure is latched, keeps later ones from running, and comes out
// of the next call that waits.
package driver
