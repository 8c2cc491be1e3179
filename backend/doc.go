// Package backend defines the one interface behind which a device runs a
// Runge-Kutta solve of
//
//	dz/dt = f(z, t; θ)
//
// and of its adjoint. Package cpu implements it on the host.
//
// Time, step size, error and the decision to accept live in a [Clock] on the
// device, never in a Go variable. An attempted step is therefore always the
// same sequence of calls with the same arguments, whatever its outcome: a device
// can record it once and replay it, and no stage waits for the host.
//
// Calls whose comment says "enqueues" return at once and report nothing. The
// first failure is latched and returned by the next [Backend.Poll],
// [Backend.Lanes], [Backend.Download] or [Backend.Sync]. Shapes that do not fit
// and values of another backend are the caller's bug and panic.
//
// Package backendtest holds the conformance suite that every backend passes.
package backend
