//go:build !linux

package simd

import "time"

var start = time.Now()

// threadTime is, for want of a thread's own, the time since the start.
func threadTime() time.Duration { return time.Since(start) }
