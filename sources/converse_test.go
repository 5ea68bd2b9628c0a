package sources_test

import (
	"context"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// converse sends digests until the source agrees, and then beats.
func (c *cluster) converse(ctx context.Context) {
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m := c.summary(); m.Spec.Short() != c.agreed() {
			c.outbox <- m
		} else {
			c.outbox <- codec.Presence{Agent: c.name, Instance: c.instance, Online: true}
		}
	}
}

func (c *cluster) agreed() digest.Short {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.matched
}

// reply takes the events of which OCM's agents know nothing.
func (c *cluster) reply(m codec.Message) {
	switch m := m.(type) {
	case codec.Hello:
		c.mu.Lock()
		newer := m.Term > c.term || m.Term == c.term && m.Epoch >= c.epoch
		if newer {
			c.term, c.epoch = m.Term, m.Epoch
		}
		c.mu.Unlock()
		if c.instance != (digest.Key{}) {
			c.outbox <- c.summary()
		}
	case codec.Match:
		if c.listens(m.Term) {
			c.mu.Lock()
			c.matched = m.Spec
			c.mu.Unlock()
		}
	case codec.Buckets:
		if c.listens(m.Term) {
			c.outbox <- c.page()
		}
	}
}

// listens says whether an answer is not of a lead that another has followed. Of
// one that it did not hear of yet, the hello is still to come.
func (c *cluster) listens(term int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term > c.term {
		c.term, c.epoch = term, ""
	}
	return term >= c.term
}

func (c *cluster) sets() (spec, status *digest.Set) {
	spec, status = digest.NewSet(c.instance), digest.NewSet(c.instance)
	for id, b := range c.has {
		content, err := b.Digest()
		if err != nil {
			panic(err)
		}
		spec.AddSpec(id, b.Generation, content, false)
		status.AddStatus(id, c.reports[id].Hash)
	}
	return spec, status
}

func (c *cluster) summary() codec.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	spec, status := c.sets()
	return codec.Digest{
		Agent: c.name, Instance: c.instance, Epoch: c.epoch, Term: c.term, Works: spec.Len(),
		Spec: spec.Root(), Status: status.Root(), Capabilities: []string{codec.CapDigest},
	}
}

// page is all that the cluster holds, whichever buckets differ.
func (c *cluster) page() codec.Entries {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := codec.Entries{Agent: c.name, Instance: c.instance, Term: c.term}
	for i := range digest.Buckets {
		m.Buckets = append(m.Buckets, uint8(i))
	}
	for id, b := range c.has {
		content, err := b.Digest()
		if err != nil {
			panic(err)
		}
		m.Entries = append(m.Entries, codec.Entry{ID: id, Generation: b.Generation, Digest: content, Status: c.reports[id].Hash})
	}
	return m
}
