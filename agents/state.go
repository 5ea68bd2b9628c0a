package agents

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
)

// state is the agent's works in memory, with the store behind them. Every
// change goes through one goroutine, which applies what has gathered, commits
// it as one, and only then shows it to readers. So a decision and what it was
// based on never come apart, and a burst of events costs one write to the disk.
type state struct {
	store Store
	now   func() time.Time

	mu       sync.RWMutex // Guards what readers see.
	works    map[Key]*Record
	sequence codec.Sequence
	cursor   string

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

// A draft is the state as one commit will leave it.
type draft struct {
	s *state
	Changes
}

func newState(store Store, now func() time.Time) (*state, error) {
	loaded, err := store.Load()
	if err != nil {
		return nil, err
	}
	return &state{
		store: store, now: now,
		works: loaded.Works, sequence: loaded.Sequence, cursor: loaded.Cursor,
		signal: make(chan struct{}, 1),
	}, nil
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

// run commits changes until ctx ends, and what is queued then.
func (s *state) run(ctx context.Context) {
	for {
		select {
		case <-s.signal:
			s.commit()
		case <-ctx.Done():
			s.commit()
			return
		}
	}
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
	d := &draft{s: s, Changes: Changes{Works: map[Key]*Record{}, Sequence: s.sequence, Cursor: s.cursor}}
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
	if len(d.Works) > 0 || d.Sequence != s.sequence || d.Cursor != s.cursor {
		if err := s.store.Commit(d.Changes); err != nil {
			return err
		}
	}
	s.log.pass(steps...)
	s.log.trim()
	s.show(d)
	return nil
}

// show lets readers see what was committed.
func (s *state) show(d *draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range d.Works {
		if r == nil {
			delete(s.works, k)
		} else {
			s.works[k] = r
		}
	}
	s.sequence, s.cursor = d.Sequence, d.Cursor
}

// get returns the record as the draft has it, or nil.
func (d *draft) get(k Key) *Record {
	if r, ok := d.Works[k]; ok {
		return r
	}
	return d.s.works[k]
}

// keys returns all keys as the draft has them.
func (d *draft) keys() []Key {
	keys := make([]Key, 0, len(d.s.works)+len(d.Works))
	for k := range d.s.works {
		if r, ok := d.Works[k]; !ok || r != nil {
			keys = append(keys, k)
		}
	}
	for k, r := range d.Works {
		if _, ok := d.s.works[k]; !ok && r != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// put replaces the record of a work.
func (d *draft) put(k Key, r *Record) { d.Works[k] = r }

// issue takes the next sequence.
func (d *draft) issue() codec.Sequence {
	d.Sequence = d.Sequence.Next(d.s.now())
	return d.Sequence
}
