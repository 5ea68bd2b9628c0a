package nats

import (
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

const (
	// defaultTombstoneAge is how long agents remember a deletion, so that
	// a stream that forgets it then brings nothing back.
	defaultTombstoneAge = 30 * 24 * time.Hour
	// questionAge is how long a stream keeps what both ends say to compare
	// themselves. Whoever has been away for longer begins anew.
	questionAge = 10 * time.Minute

	// deletionTimestamp is the attribute that makes a deletion of a spec.
	deletionTimestamp = "deletiontimestamp"
	// questionSuffix ends the types of OCM's events that ask for what was missed.
	questionSuffix = ".resync_request"
	// talkPrefix begins the types of this project's own events, whatever their
	// version: they compare both ends, or say that one of them is there, and are
	// soon outdated.
	talkPrefix = "io.fleetcast.v"

	// neverExpires is the lifetime of a message that outlives a stream's MaxAge.
	neverExpires = "never"
)

func isQuestion(e event.Event) bool {
	typ := e.Get(event.Type)
	return strings.HasSuffix(typ, questionSuffix) || strings.HasPrefix(typ, talkPrefix)
}

// lifetime is how long a stream shall keep e, 0 for as long as it is the newest
// of its subject. A stream would keep the last word on every work that ever
// was: deletions are what remains of those.
func (s settings) lifetime(e event.Event) time.Duration {
	switch {
	case isQuestion(e):
		return questionAge
	case e.Get(deletionTimestamp) != "":
		return s.keepTombstones()
	default:
		return 0
	}
}

func (s settings) keepTombstones() time.Duration {
	if s.tombstoneAge == 0 {
		return defaultTombstoneAge
	}
	return s.tombstoneAge
}

// forget returns have with what lets the stream forget as in want, and the
// names of what is different. A stream of works keeps those that are alive,
// whatever their age; of reports, an operator may have chosen another age.
func (s settings) forget(have, want jetstream.StreamConfig) (jetstream.StreamConfig, []string) {
	var changes []string
	if !have.AllowMsgTTL {
		have.AllowMsgTTL = true
		changes = append(changes, "allow_msg_ttl")
	}
	if have.MaxAge != want.MaxAge && (want.MaxAge == 0 || have.MaxAge == 0 || s.tombstoneAge > 0) {
		have.MaxAge = want.MaxAge
		changes = append(changes, "max_age")
	}
	return have, changes
}
