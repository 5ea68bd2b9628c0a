package sources

import (
	"context"
	"errors"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// A difference is what a comparison found of one work.
type difference struct {
	id      string
	held    Held // Zero if the source does not hold the work.
	entry   codec.Entry
	listed  bool  // The cluster has the entry.
	cause   cause // Why it is left as it is; empty if it is not.
	publish bool  // The cluster lacks what the source holds.
	ask     bool  // The source does not list the work, but may know of it.
	status  bool  // The statuses differ.
}

// differences compares what the source holds with what a cluster says that it
// holds in some buckets, and returns the works of these buckets that are not
// the same. It decides nothing but by its arguments.
func differences(held []Held, pages []codec.Entries, noStatus string) []difference {
	var named [digest.Buckets]bool
	var listed [digest.Buckets]map[string]codec.Entry
	for _, page := range pages {
		for _, bucket := range page.Buckets {
			// If it was named before, it was said again since, and all of it.
			named[bucket], listed[bucket] = true, nil
		}
		for _, e := range page.Entries {
			bucket := digest.BucketOf(e.ID)
			if listed[bucket] == nil {
				listed[bucket] = map[string]codec.Entry{}
			}
			listed[bucket][e.ID] = e
		}
	}
	var out []difference
	for _, h := range held {
		bucket := digest.BucketOf(h.ID)
		if !named[bucket] {
			continue
		}
		e, ok := listed[bucket][h.ID]
		delete(listed[bucket], h.ID)
		if diff := compare(h, e, ok, noStatus); diff.publish || diff.status || diff.cause != "" {
			out = append(out, diff)
		}
	}
	for _, unknown := range listed {
		for id, e := range unknown {
			out = append(out, difference{id: id, entry: e, listed: true, ask: true})
		}
	}
	return out
}

// compare compares one work that the source holds.
func compare(h Held, e codec.Entry, listed bool, noStatus string) difference {
	diff := difference{id: h.ID, held: h, entry: e, listed: listed}
	diff.status = listed && normal(h.StatusHash, noStatus) != normal(e.Status, noStatus)
	switch {
	case listed && same(h, e):
	case h.Withheld:
		diff.cause = causeWithheld
	case !listed && h.Gone:
		diff.cause = causeAhead
	case !listed:
		diff.publish = true
	case h.Deleting && e.Deleting && e.Generation > h.Generation:
		// It is on its way out, whichever deletion that is.
		diff.cause = causeAhead
	case h.Deleting, h.Generation == 0, e.Generation <= h.Generation:
		diff.publish = true
	default:
		// The source was restored from a backup. It must not roll a cluster back.
		diff.cause = causeAhead
	}
	if diff.publish {
		diff.status = false // A report follows.
	}
	return diff
}

// normal is the hash of a status, empty for that of an empty one.
func normal(hash, noStatus string) string {
	if hash == noStatus {
		return ""
	}
	return hash
}

// compareEntries publishes what a cluster lacks, asks it for the statuses that
// the source lacks, and remembers the differences that are left as they are.
func (d *Dispatcher) compareEntries(ctx context.Context, cluster string, held []Held, pages []codec.Entries) {
	d.dropExcuses(cluster, pages)
	unsaved := d.unsavedOf(cluster)
	var statuses []Held
	for _, diff := range differences(held, pages, d.noStatus) {
		if ctx.Err() != nil {
			return
		}
		k := Key{Cluster: cluster, ID: diff.id}
		if diff.publish && d.givenUp(k, diff.held.Generation) {
			// No report follows then, so one that got lost is asked for.
			diff.publish, diff.cause = false, causeRefused
			diff.status = diff.listed && normal(diff.held.StatusHash, d.noStatus) != normal(diff.entry.Status, d.noStatus)
		}
		if hash, ok := unsaved[diff.id]; ok && hash == diff.entry.Status {
			diff.status = false // It would be said again, and not be saved again.
		}
		switch {
		case diff.ask:
			d.askSource(ctx, k, diff.entry)
		case diff.publish:
			d.works.Add(cluster, k)
		case diff.cause != "":
			d.excuse(k, diff)
		}
		if diff.status {
			statuses = append(statuses, diff.held)
		}
	}
	d.mu.Lock()
	d.claimLocked(cluster, d.peerLocked(cluster))
	d.mu.Unlock()
	if len(statuses) == 0 {
		return
	}
	if err := d.askForStatus(ctx, cluster, statuses); err != nil && ctx.Err() == nil {
		d.log.Debug("cluster cannot be asked for statuses; its next digest has it asked again", "cluster", cluster, "err", err)
	}
}

// dropExcuses ends what was excused in the buckets of the pages: they tell anew
// what the cluster has there.
func (d *Dispatcher) dropExcuses(cluster string, pages []codec.Entries) {
	var named [digest.Buckets]bool
	for _, page := range pages {
		for _, bucket := range page.Buckets {
			named[bucket] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(cluster)
	for id := range p.excuses {
		if named[digest.BucketOf(id)] {
			p.dropExcuse(id)
		}
	}
}

func (d *Dispatcher) excuse(k Key, diff difference) {
	d.mu.Lock()
	ok := d.peerLocked(k.Cluster).excuseLocked(k.ID, excuse{
		cause: diff.cause, has: diff.entry, lacks: !diff.listed, own: versionOf(diff.held),
	})
	d.mu.Unlock()
	if !ok {
		d.tooMany(k.Cluster)
		return
	}
	if diff.cause == causeAhead {
		d.once.warn("ahead"+k.Cluster, "cluster has newer works than this source, which may have been restored from a backup; "+
			"they stay as they are until the source has newer ones", "cluster", k.Cluster, "id", k.ID,
			"generation", diff.held.Generation, "has", diff.entry.Generation)
	}
}

func (d *Dispatcher) tooMany(cluster string) {
	d.once.warn("too many"+cluster, "cluster differs from this source in more works than are remembered; "+
		"it cannot be in sync", "cluster", cluster, "remembered", MaxUnclaimed)
}

// askSource deals with a work that a cluster holds and the source does not list.
// If the source remembers its deletion, that is sent. If it knows nothing of it,
// the work may be what a lost backup knew, or another source's: it stays.
func (d *Dispatcher) askSource(ctx context.Context, k Key, e codec.Entry) {
	c, leave := d.judge(ctx, k, e)
	if !leave {
		return
	}
	d.mu.Lock()
	ok := d.peerLocked(k.Cluster).excuseLocked(k.ID, excuse{cause: c, has: e})
	d.mu.Unlock()
	if !ok {
		d.tooMany(k.Cluster)
		return
	}
	// What changes from here on ends the excuse. What changed since the question
	// was answered did not.
	if now, leave := d.judge(ctx, k, e); !leave {
		d.unexcuse(k)
	} else if now != c {
		d.recause(k, now)
	}
}

// judge asks the source for a work that it does not list, and says whether the
// cluster is left as it is. Otherwise what the source remembers is published, or
// the next digest has the question come again.
func (d *Dispatcher) judge(ctx context.Context, k Key, e codec.Entry) (c cause, leave bool) {
	b, held, err := d.source.Bundle(ctx, k)
	switch {
	case errors.Is(err, ErrWithheld):
		return causeWithheld, true
	case err != nil:
		d.log.Debug("work of a cluster cannot be looked up", "cluster", k.Cluster, "id", k.ID, "err", err)
		return "", false
	case !held:
		return causeUnclaimed, true
	case b.Deleting() && e.Deleting && e.Generation >= b.Generation:
		return causeLeaving, true
	default:
		d.works.Add(k.Cluster, k)
		return "", false
	}
}

// recause changes why a work is excused, if it still is.
func (d *Dispatcher) recause(k Key, c cause) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(k.Cluster)
	if x, ok := p.excuses[k.ID]; ok {
		x.cause = c
		p.excuses[k.ID] = x
	}
}
