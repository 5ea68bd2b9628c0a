package agents

import (
	"bytes"
	"time"

	"github.com/google/uuid"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A verdict is what to do with a bundle that came for a work.
type verdict string

const (
	// verdictAccept: the bundle is news and replaces what is held.
	verdictAccept verdict = "accepted"
	// verdictNext: the work's deletion is under way; the bundle's turn comes
	// after it.
	verdictNext verdict = "accepted_next"
	// verdictConfirm: a deletion that was done already is asked for again, so
	// its confirmation was lost; or a work that was deleted is sent again, whose
	// ID is used once, so its source forgot the deletion and has to be told.
	verdictConfirm verdict = "confirmed_again"
	// verdictDuplicate: the bundle is held already.
	verdictDuplicate verdict = "duplicate"
	// verdictStale: something newer is held.
	verdictStale verdict = "stale"
)

// judge holds a bundle against the record of its work, nil if there is none.
// sent is the source's own time of the event that carried the bundle.
//
// Generations order the bundles of one ID, except that OCM's sources restart
// them when a work is deleted and created again: their IDs are derived from
// names. Such a bundle is told from a late copy of the old one by the source's
// clock alone: it was sent after the deletion. A random ID, as a hub's API
// server gives one, never comes again for another work, so clocks do not matter
// there.
func judge(held *Record, b codec.Bundle, sent time.Time) verdict {
	switch {
	case held == nil:
		return verdictAccept
	case !b.Deleting() && recurs(b.ID) && !sent.IsZero() && !held.Ended.IsZero() && !sent.After(held.Ended):
		// Whatever its generation, which was counted for an earlier work.
		return verdictStale
	case held.Gone():
		return judgeGone(held, b, sent)
	case b.Deleting():
		return judgeDeletion(held, b, sent)
	case held.Bundle.Deleting():
		// The deletion stands whatever comes late. A work of the same ID that
		// was created since has its turn when the deletion is done.
		if !newer(held.Bundle, b) && (!recurs(b.ID) || !sent.After(held.end())) {
			return verdictStale
		}
		if held.Next != nil && !newer(*held.Next, b) {
			return verdictStale
		}
		return verdictNext
	}
	if b.Generation == 0 || held.Bundle.Generation == 0 || b.Generation == held.Bundle.Generation {
		// Generations say nothing here: content does. An equal generation with
		// other content is against the rules, but OCM's sources do it when only
		// metadata changed.
		if same(held.Bundle, b) {
			return verdictDuplicate
		}
		return verdictAccept
	}
	if newer(held.Bundle, b) {
		return verdictAccept
	}
	return verdictStale
}

func judgeGone(held *Record, b codec.Bundle, sent time.Time) verdict {
	switch {
	case b.Deleting():
		return verdictConfirm
	case newer(held.Bundle, b), recurs(b.ID) && sent.After(held.end()):
		return verdictAccept
	case !recurs(b.ID):
		return verdictConfirm
	}
	return verdictStale
}

func judgeDeletion(held *Record, b codec.Bundle, sent time.Time) verdict {
	switch {
	case recurs(b.ID) && !sent.IsZero() && !held.Ended.IsZero() && !sent.After(held.Ended):
		return verdictStale // It was sent about an earlier work.
	case b.DeletedAt.Equal(held.Buried) && (!recurs(b.ID) || held.Sent.IsZero() || !sent.After(held.Sent)):
		// A late copy of a deletion that was done before this work was. One that
		// was sent after this work was deletes it within the same second.
		return verdictStale
	case held.Bundle.Deleting():
		if newer(held.Bundle, b) {
			// The source waits for the confirmation of this generation, which
			// covers all below it.
			return verdictAccept
		}
		return verdictDuplicate
	case b.Generation != 0 && b.Generation < held.Bundle.Generation && recurs(b.ID):
		return verdictStale
	}
	// The deletion of a work whose ID is used once means that work, whatever its
	// generation: a hub that was restored from a backup counts from there.
	return verdictAccept
}

// recurs says whether another work may have the same ID later. A random UUID
// (RFC 9562, version 4) is used once.
func recurs(id string) bool {
	u, err := uuid.Parse(id)
	return err != nil || u.Version() != 4
}

// newer says that b's generation is above that of what is held.
func newer(held, b codec.Bundle) bool { return b.Generation > held.Generation }

// same says that two bundles of one ID ask for the same.
func same(x, y codec.Bundle) bool {
	return x.Generation == y.Generation && bytes.Equal(x.Payload, y.Payload) && bytes.Equal(x.Metadata, y.Metadata)
}

// accepted is the record after an accepted bundle. A report on the generation
// before stays: transition times are taken from it.
func accepted(held *Record, b codec.Bundle, sent time.Time) *Record {
	if held == nil {
		return &Record{Bundle: b, Sent: sent}
	}
	if held.Gone() {
		// Another work under the same ID: nothing of the old one describes it.
		return &Record{Bundle: b, Sent: sent, Buried: held.Buried, Ended: held.end()}
	}
	next := *held
	if next.Next != nil && newer(*next.Next, b) {
		next.Next, next.NextSent = nil, time.Time{} // What waited its turn is deleted, too.
	}
	if b.Deleting() {
		// What is to be deleted must stay known: a deletion may carry neither
		// name nor manifests.
		b.Payload = held.Bundle.Payload
		if len(b.Metadata) == 0 {
			b.Metadata = held.Bundle.Metadata
		}
		b.Generation = max(b.Generation, held.Bundle.Generation)
	}
	next.Bundle, next.Sent = b, sent
	return &next
}

// waiting is the record with a bundle whose turn comes after the deletion.
func waiting(held *Record, b codec.Bundle, sent time.Time) *Record {
	next := *held
	next.Next, next.NextSent = &b, sent
	return &next
}

// askedAgain is the tombstone of a work whose deletion is to be confirmed once
// more, with the confirmation for that generation. A late copy of an earlier
// deletion, or of the work, moves nothing back.
func askedAgain(held *Record, b codec.Bundle) *Record {
	next := *held
	next.Bundle.Generation = max(b.Generation, held.Bundle.Generation)
	if b.DeletedAt.After(held.Bundle.DeletedAt) {
		next.Bundle.DeletedAt, next.Buried = b.DeletedAt, b.DeletedAt
	}
	next.Report.Generation = next.Bundle.Generation
	return &next
}

// buried is the record after the deletion was done, with its confirmation.
func buried(held *Record, confirmation codec.Report, now time.Time) *Record {
	if held.Next != nil {
		// A report on what comes next says that the old work is gone as well; a
		// confirmation of the deletion now could be taken for the new work's.
		return &Record{Bundle: *held.Next, Sent: held.NextSent, Buried: held.Bundle.DeletedAt, Ended: held.end()}
	}
	b := held.Bundle
	b.Payload, b.Metadata = nil, nil
	return &Record{
		Bundle: b, Sent: held.Sent, Report: confirmation, Unsent: true,
		GoneAt: now, Buried: b.DeletedAt, Ended: held.Ended,
	}
}
