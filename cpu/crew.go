package cpu

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// crew is the goroutines of one call: they live for as long as it runs, so that
// nothing is left behind. They wait for each other by spinning for a while, since a
// goroutine that sleeps takes longer to wake than most waits last.
type crew struct {
	taken   atomic.Int64 // see next
	arrived atomic.Int32
	round   atomic.Uint32
	broken  atomic.Bool // one of them panicked
	failure any
	work    func(id int)
	others  []func() // of id 1 and up: what their goroutines run, made once

	mu   sync.Mutex
	cond *sync.Cond
	wg   sync.WaitGroup
}

// spins bounds how long a worker spins: some tens of microseconds.
const spins = 20_000

// run calls work on n goroutines, one of which is the caller's, and returns when all
// have. A panic in one of them goes to the caller.
func (c *crew) run(n int, work func(id int)) {
	c.taken.Store(0)
	c.arrived.Store(0)
	c.broken.Store(false)
	c.failure, c.work = nil, work
	if c.cond == nil {
		c.cond = sync.NewCond(&c.mu)
	}
	for id := len(c.others) + 1; id < n; id++ {
		c.others = append(c.others, func() {
			defer c.wg.Done()
			c.one(id)
		})
	}
	c.wg.Add(n - 1)
	for _, other := range c.others[:n-1] {
		go other()
	}
	c.one(0)
	c.wg.Wait()
	if c.failure != nil {
		panic(c.failure)
	}
}

// one is the share of worker id.
func (c *crew) one(id int) {
	defer func() {
		if err := recover(); err != nil {
			c.mu.Lock()
			if c.failure == nil {
				c.failure = err
			}
			c.mu.Unlock()
			c.broken.Store(true)
			c.release()
		}
	}()
	c.work(id)
}

// errBroken ends the others after one has panicked, whose value came first.
var errBroken = errors.New("cpu: another worker panicked")

// next is the next piece of work, counted from 0.
func (c *crew) next() int { return int(c.taken.Add(1)) - 1 }

// arrive waits for all n workers. In the last one it returns true at once: it has the
// others wait until release. A crew of one may be nil.
func (c *crew) arrive(n int) (last bool) {
	if n == 1 {
		return true
	}
	round := c.round.Load()
	if c.broken.Load() {
		panic(errBroken)
	}
	if int(c.arrived.Add(1)) == n {
		c.arrived.Store(0)
		return true
	}
	for i := 0; c.round.Load() == round; i++ {
		if i < spins {
			continue
		}
		if i == spins {
			runtime.Gosched()
			continue
		}
		c.mu.Lock()
		for c.round.Load() == round {
			c.cond.Wait()
		}
		c.mu.Unlock()
	}
	if c.broken.Load() {
		panic(errBroken)
	}
	return false
}

// release lets those go on that wait.
func (c *crew) release() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.round.Add(1)
	c.mu.Unlock()
	c.cond.Broadcast()
}
