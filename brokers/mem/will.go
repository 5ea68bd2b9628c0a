package mem

import "time"

// willLocked publishes the will of t, whose connection was lost, unless it is
// back before the delay is over.
func (b *Broker) willLocked(t *transport) {
	w := t.will
	if w == nil {
		return
	}
	if w.Delay <= 0 {
		b.route(w.Topic, w.Event.Clone())
		return
	}
	b.forgetWillLocked(t.id)
	var timer *time.Timer
	timer = time.AfterFunc(w.Delay, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.wills[t.id] == timer {
			delete(b.wills, t.id)
			b.route(w.Topic, w.Event.Clone())
		}
	})
	b.wills[t.id] = timer
}

// forgetWillLocked is for a client that is back.
func (b *Broker) forgetWillLocked(id string) {
	if timer := b.wills[id]; timer != nil {
		timer.Stop()
		delete(b.wills, id)
	}
}

func (b *Broker) forgetWillsLocked() {
	for id := range b.wills {
		b.forgetWillLocked(id)
	}
}
