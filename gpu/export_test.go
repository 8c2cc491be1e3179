//go:build cuda && cgo && linux && amd64

package gpu

// Pretend lets fields that are bound from now on take the device for one of so many
// multiprocessors.
func (b *Backend[T]) Pretend(multiprocessors int) { b.sms = multiprocessors }

// ShortTape lets tapes grow step by step.
func (b *Backend[T]) ShortTape() { b.tapeChunk = 1 }

// Profile, Profiling and Rows are for tests that use packages which use this one.
var (
	Profile   = profile
	Profiling = profiling
)

func (c counts) Rows(op string) access { return c.rows(op) }
