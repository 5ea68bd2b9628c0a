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

	// cutsToSuspect is how many connections in a row have to end early, each of a
	// session that the broker had kept, for another client to be suspected.
	cutsToSuspect = 3

	// unshared is how long a connection must have lasted while another client is
	// suspected for the suspicion to end. Two that take the session in turns hold
	// it for as long as the other one pauses, twice takenOverFirst and a backoff at
	// most.
	unshared = 5 * time.Minute

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
	// cuts counts the connections that the broker cut short in a row, without a
	// word, and suspected says that they were too many.
	cuts      int
	suspected bool
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
	if lasted := now.Sub(p.upSince); !p.upSince.IsZero() && lasted >= steady {
		p.failures = 0
		if lasted >= unshared {
			p.cuts, p.suspected = 0, false // However it ended.
		}
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

// cut is told of a connection of a kept session that the broker ended without a
// word. Some brokers end one so when another client takes over its session, as
// mosquitto 2.0.11 does, where MQTT asks for a reason (section 3.1.4). It happens
// again and again then, and the broker is there all the time. Once that was
// seen, cut makes the next pause long enough for the other client to get
// something done, and returns what it is at least, else 0.
//
// The pauses do not grow as they do after a takeover that the broker spoke of: it
// may as well be something else that ends connections. The suspicion ends with a
// connection that lasts longer than another client would have left it.
func (p *pacer) cut(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts++
	switch lasted := now.Sub(p.upSince); {
	case lasted >= unshared:
		p.cuts, p.suspected = 0, false
	case lasted >= steady && !p.suspected:
		p.cuts = 0
	}
	p.suspected = p.suspected || p.cuts >= cutsToSuspect
	if !p.suspected {
		return 0
	}
	p.least = max(p.least, takenOverFirst+rand.N(takenOverFirst))
	return p.least
}

// unreachable is told that there was no broker to connect to: what ended
// connections before is no other client.
func (p *pacer) unreachable() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts, p.suspected = 0, false
}

// atOnce leaves out the next pause.
func (p *pacer) atOnce() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = true
}
