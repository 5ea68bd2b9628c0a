package agents

import (
	"maps"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A Store keeps what an agent must not forget. The agent reads it once, at
// start, and is its only writer. OpenDisk is the one for real clusters.
type Store interface {
	// Load returns everything that was committed.
	Load() (State, error)

	// Commit makes all of the changes durable, or none. Calls do not overlap.
	Commit(changes Changes) error

	// Close releases the store. Nothing may be called afterwards.
	Close() error
}

// State is all that a store holds.
type State struct {
	Works map[Key]*Record

	// Sequence is the highest that was ever issued.
	Sequence codec.Sequence

	// Cursor is how far the broker's log was read (brokers.Delivery.Position).
	Cursor string

	// Peers are the sources that said something of themselves, by source ID.
	Peers map[string]Peer
}

// Changes are to be committed together.
type Changes struct {
	// Works holds the new records; nil removes one.
	Works    map[Key]*Record
	Sequence codec.Sequence
	Cursor   string
	// Peers holds what is news of sources; what is not in it stays.
	Peers map[string]Peer
}

// A Record is what an agent knows of one work. Records are replaced, never
// changed.
type Record struct {
	// Bundle is the newest one accepted. Once the work is gone it keeps its
	// identity only, as a tombstone.
	Bundle codec.Bundle

	// Sent is when the source sent the event that brought Bundle, by its clock;
	// zero if that is not known.
	Sent time.Time

	// Next is a bundle that came for the same ID while Bundle was being
	// deleted. It takes its place when the deletion is done. NextSent is what
	// Sent is for Bundle.
	Next     *codec.Bundle
	NextSent time.Time

	// Report is the newest; its ID is empty if there is none. Unsent says that
	// the broker has not confirmed it.
	Report codec.Report
	Unsent bool

	// Told is the status hash of what was sent in the place of Report, which was
	// too large for the broker; empty if nothing was.
	Told string

	// GoneAt is when the deletion was done, by this agent's clock; zero while
	// there is something to do for the work.
	GoneAt time.Time

	// Buried is the DeletedAt of the last deletion that was done under this ID,
	// to tell a late copy of it from the deletion of a work of the same ID that
	// came after. Ended is when the source sent that deletion, at the latest: by
	// its clock, what it sent until then was about an earlier work.
	Buried, Ended time.Time
}

// Gone says that only the tombstone is left.
func (r *Record) Gone() bool { return !r.GoneAt.IsZero() }

// with is the record with a newer report, which is to be sent.
func (r *Record) with(report codec.Report) *Record {
	next := *r
	next.Report, next.Told, next.Unsent = report, "", true
	return &next
}

// status is the hash of the status that the source was told last, or is about
// to be told; empty if that is none.
func (r *Record) status() string {
	if r.Told != "" {
		return r.Told
	}
	return normal(r.Report.Hash)
}

// end is when the source deleted the work, by its clock. Deletion timestamps
// of Kubernetes count seconds, so the event tells better.
func (r *Record) end() time.Time {
	if r.Sent.After(r.Bundle.DeletedAt) {
		return r.Sent
	}
	return r.Bundle.DeletedAt
}

// Volatile is a Store that forgets when the process ends. It is for tests and
// simulated clusters; its zero value is empty. State survives Close, so that a
// simulation can restart an agent on it.
type Volatile struct {
	mu    sync.Mutex
	state State
}

// Load implements Store.
func (v *Volatile) Load() (State, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.state
	s.Works, s.Peers = maps.Clone(s.Works), maps.Clone(s.Peers)
	if s.Works == nil {
		s.Works = map[Key]*Record{}
	}
	if s.Peers == nil {
		s.Peers = map[string]Peer{}
	}
	return s, nil
}

// Commit implements Store.
func (v *Volatile) Commit(c Changes) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state.Works == nil {
		v.state.Works = map[Key]*Record{}
	}
	if v.state.Peers == nil {
		v.state.Peers = map[string]Peer{}
	}
	for k, r := range c.Works {
		if r == nil {
			delete(v.state.Works, k)
		} else {
			v.state.Works[k] = r
		}
	}
	maps.Copy(v.state.Peers, c.Peers)
	v.state.Sequence, v.state.Cursor = c.Sequence, c.Cursor
	return nil
}

// Close implements Store.
func (v *Volatile) Close() error { return nil }
