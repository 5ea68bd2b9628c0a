package agents_test

import (
	"context"
	"slices"
	"sync"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A hub is a source that knows digests, reduced to what an agent sees of it: it
// holds works, takes every report, and answers as it is told to.
type hub struct {
	b  *bench
	id string
	to brokers.Transport

	// What follows is guarded by b.mu.
	term     int64
	epoch    string
	taken    codec.Sequence // It says so in its answers.
	stale    codec.Sequence // It drops reports that are not above it.
	silent   bool           // It answers nothing.
	greets   bool           // It says hello to agents that list and know digests.
	ocm      bool           // It knows lists only.
	can      []string       // Its capabilities; default: CapDigest.
	works    map[string]codec.Bundle
	statuses map[string]string
	sent     []string // IDs of works that it published for what it read in entries.

	digests   []codec.Digest
	entries   []codec.Entries
	presences []codec.Presence
}

// newHub makes the bench's source of this ID one that knows digests.
func (b *bench) newHub(id string) *hub {
	h := &hub{b: b, id: id, term: 1, epoch: "e1", works: map[string]codec.Bundle{}, statuses: map[string]string{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hubs == nil {
		b.hubs = map[string]*hub{}
	}
	b.hubs[id] = h
	h.to = b.source
	return h
}

// hear takes what an agent says. It is called with b.mu locked.
func (h *hub) hear(_ brokers.Topic, m codec.Message) {
	if h.ocm {
		h.send(m)
		return
	}
	switch m := m.(type) {
	case codec.SpecResync:
		if h.greets && !h.silent && slices.Contains(m.Capabilities, codec.CapDigest) {
			h.announce()
		}
	case codec.Report:
		if m.Sequence <= h.stale {
			return
		}
		if deleted, err := m.Deleted(); err == nil && deleted {
			delete(h.works, m.ID)
			delete(h.statuses, m.ID)
		} else if m.Generation <= h.works[m.ID].Generation {
			h.statuses[m.ID] = m.Hash
		}
	case codec.Digest:
		h.digests = append(h.digests, m)
		if !h.silent {
			h.answer(m)
		}
	case codec.Entries:
		h.entries = append(h.entries, m)
		if !h.silent {
			h.compare(m)
		}
	case codec.Presence:
		h.presences = append(h.presences, m)
	}
}

// expected sums up what the hub holds under an agent's key.
func (h *hub) expected(key digest.Key) (spec, status *digest.Set) {
	spec, status = digest.NewSet(key), digest.NewSet(key)
	for id, b := range h.works {
		content, err := b.Digest()
		if err != nil {
			h.b.t.Errorf("digest of work %s: %v", id, err)
		}
		spec.AddSpec(id, b.Generation, content, b.Deleting())
		status.AddStatus(id, h.statuses[id])
	}
	return spec, status
}

func (h *hub) answer(m codec.Digest) {
	spec, status := h.expected(m.Instance)
	if spec.Root() == m.Spec && status.Root() == m.Status {
		h.say(codec.Match{
			Source: h.id, Instance: m.Instance, Term: h.term, Spec: m.Spec.Short(), Status: m.Status.Short(),
			Taken: h.taken,
		}, codec.Announce)
		return
	}
	b := codec.Buckets{Source: h.id, Instance: m.Instance, Term: h.term, Works: spec.Len(), Taken: h.taken}
	if all := spec.All(); spec.Root() != m.Spec {
		b.Spec = &all
	}
	if all := status.All(); status.Root() != m.Status {
		b.Status = &all
	}
	h.say(b, codec.Announce)
}

func (h *hub) compare(m codec.Entries) {
	has := map[string]codec.Entry{}
	for _, e := range m.Entries {
		has[e.ID] = e
	}
	var ask []codec.StatusHash
	for id, b := range h.works {
		if !slices.Contains(m.Buckets, digest.BucketOf(id)) {
			continue
		}
		content, err := b.Digest()
		if err != nil {
			h.b.t.Errorf("digest of work %s: %v", id, err)
		}
		e, ok := has[id]
		switch {
		case !ok || e.Generation != b.Generation || e.Digest != content || e.Deleting != b.Deleting():
			h.sent = append(h.sent, id)
			h.say(b, codec.Update)
		case e.Status != h.statuses[id]:
			ask = append(ask, codec.StatusHash{ID: id, Hash: h.statuses[id]})
		}
	}
	if len(ask) > 0 {
		h.say(codec.StatusResync{Source: h.id, Cluster: "c1", Hashes: ask}, codec.ResyncRequest)
	}
}

// say publishes to the agent, while the broker is there.
func (h *hub) say(m codec.Message, action codec.Action) {
	e := h.b.encode(m, action)
	to := brokers.Topic{Lane: brokers.ToCluster, Source: h.id, Cluster: "c1", Key: e.Get("resourceid") + e.Get(event.Type)}
	if err := h.to.Publish(context.Background(), to, e); err != nil {
		h.b.t.Logf("hub %s cannot publish: %v", h.id, err)
	}
}

// tell is say for tests.
func (h *hub) tell(m codec.Message, action codec.Action) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.say(m, action)
}

// hello announces the hub.
func (h *hub) hello() {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.announce()
}

func (h *hub) announce() {
	h.say(codec.Hello{Source: h.id, Epoch: h.epoch, Term: h.term, Capabilities: h.capabilities()}, codec.Announce)
}

func (h *hub) capabilities() []string {
	if h.can != nil {
		return h.can
	}
	return []string{codec.CapDigest}
}

// becomes gives the hub other capabilities, and has it say so.
func (h *hub) becomes(can ...string) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.can = can
	h.announce()
}

// downgrade puts an OCM source in the hub's place.
func (h *hub) downgrade() {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.ocm = true
}

// send answers a list as OCM's sources do; they do not know the rest.
func (h *hub) send(m codec.Message) {
	q, ok := m.(codec.SpecResync)
	if !ok {
		return
	}
	listed := map[string]int64{}
	for _, v := range q.Versions {
		listed[v.ID] = v.Generation
	}
	for id, b := range h.works {
		if b.Generation > listed[id] {
			h.say(b, codec.Update)
		}
	}
}

// want gives the hub a work, and publishes it unless it is lost.
func (h *hub) want(b codec.Bundle, lost bool) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.works[b.ID] = b
	if !lost {
		h.say(b, codec.Update)
	}
}

// A heard is a copy of what a hub was told so far.
type heard struct {
	digests   []codec.Digest
	entries   []codec.Entries
	presences []codec.Presence
	sent      []string
}

func (h *hub) heard() heard {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	return heard{slices.Clone(h.digests), slices.Clone(h.entries), slices.Clone(h.presences), slices.Clone(h.sent)}
}

// forget forgets what the hub was told.
func (h *hub) forget() {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.digests, h.entries, h.presences, h.sent = nil, nil, nil, nil
}

// mute has the hub answer nothing, or again.
func (h *hub) mute(on bool) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.silent = on
}

// asked is how many lists the bench's sources got so far.
func (b *bench) asked() []codec.SpecResync {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.questions)
}

// peer is what the agent's store has of a source.
func (b *bench) peer(source string) agents.Peer {
	b.t.Helper()
	s, err := b.store.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Peers[source]
}

// A stalled transport takes nothing more once it is stalled, and says nothing.
type stalled struct {
	brokers.Transport
	once sync.Once
	on   chan struct{}
}

func (s *stalled) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	select {
	case <-s.on:
		<-ctx.Done()
		return ctx.Err()
	default:
		return s.Transport.Publish(ctx, to, e)
	}
}

func (s *stalled) stall() { s.once.Do(func() { close(s.on) }) }
