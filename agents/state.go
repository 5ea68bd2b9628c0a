package agents

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// state is the agent's works in memory, with the store behind them. Every
// change goes through one goroutine, which applies what has gathered, commits
// it as one, and only then shows it to readers. So a decision and what it was
// based on never come apart, and a burst of events costs one write to the disk.
type state struct {
	store Store
	now   func() time.Time

	// changed is called after a commit that changed what the agent holds of a
	// source's works, or what it says of them. It must not block.
	changed func(source string)

	mu        sync.RWMutex // Guards what readers see.
	works     map[Key]*Record
	sequence  codec.Sequence
	cursor    string
	peers     map[string]Peer
	refusals  map[Key]*refusal // Not in the store.
	inventory *inventory
	fault     error // Of the last write to the store.

	log progress

	queueMu sync.Mutex
	queued  []mutation
	signal  chan struct{} // Holds one token when queued is to be committed now.
	lazy    bool          // A timer will put a token there.
}

// A mutation decides on a change and makes it.
type mutation struct {
	// decide sees the state with all earlier mutations and changes it through
	// the draft. It must not block. It may be called twice: when a commit fails,
	// its mutations are tried one by one.
	decide func(*draft)
	// step is the event of the broker's log behind the mutation, if any.
	step *step
	// done is called after the commit; an error says that nothing changed. May
	// be nil.
	done func(error)
}

// newState reads the store. The key is that of the digests.
func newState(store Store, key digest.Key, now func() time.Time) (*state, error) {
	loaded, err := store.Load()
	if err != nil {
		return nil, err
	}
	s := &state{
		store: store, now: now, changed: func(string) {},
		works: loaded.Works, sequence: loaded.Sequence, cursor: loaded.Cursor, peers: loaded.Peers,
		refusals: map[Key]*refusal{}, inventory: newInventory(key),
		signal: make(chan struct{}, 1),
	}
	if s.peers == nil {
		s.peers = map[string]Peer{}
	}
	for k, r := range s.works {
		s.inventory.set(k, r, nil)
	}
	return s, nil
}

// get returns the record of a work, or nil.
func (s *state) get(k Key) *Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.works[k]
}

// each calls visit for every record. It sees one moment's state.
func (s *state) each(visit func(Key, *Record)) {
	s.mu.RLock()
	works := maps.Clone(s.works)
	s.mu.RUnlock()
	for k, r := range works {
		visit(k, r)
	}
}

// unsent calls visit for the works of which something is to be sent.
func (s *state) unsent(visit func(Key)) {
	s.mu.RLock()
	var keys []Key
	for k, r := range s.works {
		if r.Unsent {
			keys = append(keys, k)
		}
	}
	for k, r := range s.refusals {
		if r.unsent {
			keys = append(keys, k)
		}
	}
	s.mu.RUnlock()
	for _, k := range keys {
		visit(k)
	}
}

// reports returns what is to be sent of a work, and the record of the work, if
// there is one.
func (s *state) reports(k Key) ([]codec.Report, *Record) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return unsentReports(s.works[k], s.refusals[k]), s.works[k]
}

// peer is what is known of a source.
func (s *state) peer(source string) Peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[source]
}

// name is the ManifestWork's name, for people; empty if it is not known.
func (s *state) name(k Key) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inventory.holdings[k].Name
}

// roots sum up what is held of a source's works.
func (s *state) roots(source string) (works int, spec, status digest.Root) {
	s.mu.Lock() // The sums of a source are made when they are first asked for.
	defer s.mu.Unlock()
	of := s.inventory.of(source)
	return of.spec.Len(), of.spec.Root(), of.status.Root()
}

// buckets are the sums of a source's works by bucket.
func (s *state) buckets(source string) (spec, status [digest.Buckets]digest.Short) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.inventory.of(source)
	return of.spec.All(), of.status.All()
}

// entries are the works of a source in the selected buckets.
func (s *state) entries(source string, selected *[digest.Buckets]bool) [digest.Buckets][]codec.Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inventory.in(source, selected)
}

// healthy is the error of the last write to the store, nil if it went well.
func (s *state) healthy() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fault
}

// position is the cursor that is safe on disk.
func (s *state) position() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cursor
}

// change queues a mutation. It does not block; the number of unsettled events
// is what bounds the queue.
func (s *state) change(m mutation) {
	s.queueMu.Lock()
	s.queued = append(s.queued, m)
	s.queueMu.Unlock()
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// changeSoon queues a mutation that need not be on the disk yet: it goes with
// the next commit, or after a while.
func (s *state) changeSoon(m mutation) {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	s.queued = append(s.queued, m)
	if s.lazy {
		return
	}
	s.lazy = true
	const while = time.Second
	time.AfterFunc(while, func() {
		select {
		case s.signal <- struct{}{}:
		default:
		}
	})
}

// probeInterval is how long a store that refused a write is left alone before
// it is tried again without a reason, so that it is not called faulty for longer
// than it is.
const probeInterval = 10 * time.Second

// run commits changes until ctx ends, and what is queued then.
func (s *state) run(ctx context.Context) {
	for {
		var probe <-chan time.Time
		if s.healthy() != nil {
			probe = time.After(probeInterval)
		}
		select {
		case <-s.signal:
			s.commit()
		case <-probe:
			_ = s.write(Changes{Sequence: s.sequence, Cursor: s.cursor}) // It is noted.
		case <-ctx.Done():
			s.commit()
			return
		}
	}
}

// write gives changes to the store, and notes whether it took them.
func (s *state) write(c Changes) error {
	err := s.store.Commit(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
	return err
}

func (s *state) commit() {
	s.queueMu.Lock()
	batch := s.queued
	s.queued, s.lazy = nil, false
	s.queueMu.Unlock()
	err := s.try(batch)
	if err == nil || len(batch) == 1 {
		finish(batch, err)
		return
	}
	// What cannot be stored costs nothing else its place.
	for i := range batch {
		finish(batch[i:i+1], s.try(batch[i:i+1]))
	}
}

func finish(batch []mutation, err error) {
	for _, m := range batch {
		if m.done != nil {
			m.done(err)
		}
	}
}

// try commits the mutations, or changes nothing.
func (s *state) try(batch []mutation) error {
	// Only this goroutine writes the fields, so it reads them without the lock.
	d := &draft{
		s:        s,
		Changes:  Changes{Works: map[Key]*Record{}, Sequence: s.sequence, Cursor: s.cursor, Peers: map[string]Peer{}},
		refusals: map[Key]*refusal{},
	}
	var steps []*step
	for _, m := range batch {
		m.decide(d)
		if m.step != nil {
			steps = append(steps, m.step)
		}
	}
	if position := s.log.reach(steps...); position != "" {
		d.Cursor = position
	}
	if len(d.Works) > 0 || len(d.Peers) > 0 || d.Sequence != s.sequence || d.Cursor != s.cursor {
		if err := s.write(d.Changes); err != nil {
			return err
		}
	}
	s.log.pass(steps...)
	s.log.trim()
	for source := range s.show(d) {
		s.changed(source)
	}
	return nil
}

// show lets readers see what was committed, and returns the sources of which it
// changed what is held.
func (s *state) show(d *draft) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[string]bool{}
	for k, r := range d.refusals {
		if r == nil {
			delete(s.refusals, k)
		} else {
			s.refusals[k] = r
		}
		if _, ok := d.Works[k]; !ok && s.inventory.set(k, s.works[k], r) {
			changed[k.Source] = true
		}
	}
	for k, r := range d.Works {
		if r == nil {
			delete(s.works, k)
		} else {
			s.works[k] = r
		}
		if refused := s.refusals[k]; refused != nil && refused.outdated(r) {
			delete(s.refusals, k)
		}
		if s.inventory.set(k, r, s.refusals[k]) {
			changed[k.Source] = true
		}
	}
	maps.Copy(s.peers, d.Peers)
	s.sequence, s.cursor = d.Sequence, d.Cursor
	return changed
}
