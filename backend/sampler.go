package backend

// Sampler is an optional capability of a Field that tells rows apart, as one that reads
// a signal for every sample does.
type Sampler interface {
	// SetSamples says that row r is sample samples[r]; nil, the beginning, that it is
	// sample r. samples is copied.
	SetSamples(samples []int)
}
