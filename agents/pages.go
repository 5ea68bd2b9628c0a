package agents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// pageWorks is about how many works one page lists: some 85 KB.
const pageWorks = 500

// A page is some of the buckets that a source asks for.
type page []uint8

// paginate divides the selected buckets into pages.
func paginate(selected *[digest.Buckets]bool, entries *[digest.Buckets][]codec.Entry) []page {
	var pages []page
	works := 0
	for i, wanted := range selected {
		if !wanted {
			continue
		}
		n := len(entries[i])
		if len(pages) == 0 || works+n > pageWorks && works > 0 {
			pages, works = append(pages, nil), 0
		}
		last := len(pages) - 1
		pages[last] = append(pages[last], uint8(i))
		works += n
	}
	return pages
}

// sendEntries tells a source what this agent holds in the buckets that the
// source asked for. All pages are of one moment. What cannot be sent now is not
// sent later: the next digest finds it.
func (a *Agent) sendEntries(ctx context.Context, source string) error {
	selected := a.dialogues[source].takeDiffering()
	entries := a.state.entries(source, &selected)
	term := a.state.peer(source).Term
	pages := paginate(&selected, &entries)
	for sent := 0; len(pages) > 0; {
		p := pages[0]
		m := codec.Entries{Agent: a.o.ID, Instance: a.o.Instance, Term: term, Buckets: p}
		for _, b := range p {
			m.Entries = append(m.Entries, entries[b]...)
		}
		// Each page has a key of its own, so that a broker that keeps the last
		// event per key keeps all of them.
		to := brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: a.cluster, Key: fmt.Sprint(kindEntries, "-", sent)}
		err := a.publish(ctx, to, kindEntries, codec.Announce, m)
		tooLarge := errors.Is(err, brokers.ErrTooLarge) || errors.Is(err, codec.ErrPayloadTooLarge)
		switch {
		case err == nil:
			pages, sent = pages[1:], sent+1
		case tooLarge && len(p) > 1:
			pages = append([]page{p[:len(p)/2], p[len(p)/2:]}, pages[1:]...)
		case tooLarge:
			a.fallBack(source, len(m.Entries), err)
			pages = pages[1:]
		default:
			return err
		}
	}
	return nil
}

// fallBack has all works listed to a source as OCM's agents do, because the
// entries of one bucket alone are over the broker's limit.
func (a *Agent) fallBack(source string, works int, err error) {
	list, all := a.dialogues[source].fallBack(time.Now())
	if !list {
		return
	}
	if all {
		a.greeting(source)
	}
	a.tell("entries "+source, "too many works to compare over this broker's packets: listing all of them to the source",
		"source", source, "works_in_bucket", works, "err", err)
	a.outbox.Add(source, outgoing{what: kindList})
}
