package mqtt

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second

	// refusedPause is the least to wait after the broker said no: asking more
	// often changes nothing, and some brokers ban those who do.
	refusedPause = 10 * time.Second

	// takenOverFirst is the least to wait after another client took over the
	// session, and takenOverMost what that grows to if it goes on. Coming back
	// at once would take it back, and so on for ever, with neither getting
	// anything done.
	takenOverFirst = time.Minute
	takenOverMost  = 30 * time.Minute

	// steady is how long a connection must have lasted for the next failure to
	// count as the first.
	steady = time.Minute
)

// A pacer says how long to wait before the next connection attempt. The pauses
// grow, and are random from nothing up, so that those who lost the same broker
// do not come back together.
type pacer struct {
	mu       sync.Mutex
	begun    bool
	failures int
	// takeovers counts those not long ago.
	takeovers int
	upSince   time.Time
	least     time.Duration
	at        bool
}

// next is how long to wait now.
func (p *pacer) next(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun || p.at {
		p.begun, p.at = true, false
		return 0
	}
	if !p.upSince.IsZero() && now.Sub(p.upSince) >= steady {
		p.failures = 0
	}
	p.upSince = time.Time{}
	pause := p.least + rand.N(backoff(p.failures))
	p.failures++
	p.least = 0
	return pause
}

// backoff is the longest pause after so many failures in a row.
func backoff(failures int) time.Duration {
	if failures > 10 {
		return longestPause
	}
	return min(longestPause, firstPause<<failures)
}

// up is told of every connection.
func (p *pacer) up(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upSince = now
}

// atLeast makes the next pause longer.
func (p *pacer) atLeast(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.least = max(p.least, d)
}

// takenOver makes the next pause as long as another client's hold on the session
// demands, and returns what it is at least. It is jittered, so that two that
// were started together do not keep pace.
func (p *pacer) takenOver(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.upSince) >= takenOverMost {
		p.takeovers = 0
	}
	bound := min(takenOverFirst<<min(p.takeovers, 5), takenOverMost)
	p.takeovers++
	p.least = max(p.least, bound+rand.N(bound))
	return p.least
}

// atOnce leaves out the next pause.
func (p *pacer) atOnce() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = true
}
