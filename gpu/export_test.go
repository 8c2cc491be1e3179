//go:build cuda && cgo && linux && amd64

package gpu

import "github.com/seed-5f5774c8/neuralode/backend"

// Pretend lets fields that are bound from now on take the device for one of so many
// multiprocessors.
func (b *Backend[T]) Pretend(multiprocessors int) { b.sms = multiprocessors }

// ShortTape lets tapes grow step by step.
func (b *Backend[T]) ShortTape() { b.tapeChunk = 1 }

// Counted, Profile and Profiling are for tests that use packages which use this one.
type Counted = counts

var (
	Profile   = profile
	Profiling = profiling
)

// Places is the number of evaluations that there was place for in the last solve.
func Places[T backend.Float](f backend.Fused[T]) int64 { return f.(*fusedNet[T]).places }
