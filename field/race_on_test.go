//go:build race

package field

// raceEnabled: the race detector makes sync.Pool drop what it holds at random.
const raceEnabled = true
