package sources

import (
	"context"
	"sync"
	"time"
)

// probeInterval is how long a gate stays shut without a new session. A broker
// can come back for publishing alone, and then nobody announces it.
const probeInterval = 30 * time.Second

// A gate keeps workers from taking keys while the broker is away: the keys wait
// in their queue, where they coalesce. The zero gate is open.
type gate struct {
	mu      sync.Mutex
	opened  chan struct{} // Closed when the gate opens; nil while it is open.
	current int           // How often the gate was opened.
	probe   *time.Timer
}

// epoch names the time since the gate was opened last.
func (g *gate) epoch() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// shut closes the gate for what was tried in the given epoch. It does nothing
// if the gate was opened since: that failure is history.
func (g *gate) shut(epoch int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.current || g.opened != nil {
		return
	}
	g.opened = make(chan struct{})
	g.probe = time.AfterFunc(probeInterval, g.open)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current++
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
		g.probe.Stop()
	}
}

// wait returns true when the gate is open, false when ctx ended first.
func (g *gate) wait(ctx context.Context) bool {
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if opened == nil {
			return ctx.Err() == nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return false
		}
	}
}

// stop ends the probing of a gate that nobody waits at any more.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probe != nil {
		g.probe.Stop()
	}
}
