package sources

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// maxPages is how many works the pages of one cluster may list that wait for a
// worker. What is more is dropped: the agent comes again.
const maxPages = codec.MaxEntries

// A talk is what a cluster said in the comparison of digests and was not taken
// by a worker yet.
type talk struct {
	digest *codec.Digest
	pages  []codec.Entries
	works  int // That the pages list.
}

// takeDigest queues a digest. A newer one takes the place of an older one.
func (d *Dispatcher) takeDigest(cluster string, m codec.Digest) {
	d.mu.Lock()
	d.peerLocked(cluster).heardAt = time.Now()
	d.talkLocked(cluster).digest = &m
	d.mu.Unlock()
	d.named(cluster, lead{term: m.Term, epoch: m.Epoch})
	d.talks.AddAfter(cluster, struct{}{}, d.talkPause(cluster))
}

// takeEntries queues one page of what a cluster holds.
func (d *Dispatcher) takeEntries(cluster string, m codec.Entries) error {
	d.mu.Lock()
	t := d.talkLocked(cluster)
	full := len(t.pages) > 0 && (t.works+len(m.Entries) > maxPages || len(t.pages) >= digest.Buckets)
	if !full {
		t.pages = append(t.pages, m)
		t.works += len(m.Entries)
	}
	d.mu.Unlock()
	d.talks.Add(cluster, struct{}{})
	if full {
		return errors.New("more pages wait than this source keeps of one cluster; it comes again")
	}
	return nil
}

func (d *Dispatcher) talkLocked(cluster string) *talk {
	t, ok := d.said[cluster]
	if !ok {
		t = &talk{}
		d.said[cluster] = t
	}
	return t
}

// talkPause is the time until a digest may be answered: a cluster that goes on
// sending them gets an answer per pause, the first at once.
func (d *Dispatcher) talkPause(cluster string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.options.ComparePause - time.Since(d.peerLocked(cluster).answeredAt)
}

func (d *Dispatcher) answerTalks(ctx context.Context) {
	for d.gate.wait(ctx) {
		cluster, none, ok := d.talks.Get(ctx)
		if !ok {
			return
		}
		d.answerTalk(ctx, cluster)
		d.talks.Done(cluster, none)
	}
}

// answerTalk compares what a cluster said with what the source holds for it.
func (d *Dispatcher) answerTalk(ctx context.Context, cluster string) {
	asOf := time.Now()
	held, err := d.source.Held(ctx, cluster)
	if err != nil {
		if ctx.Err() == nil {
			wait := d.talks.Retry(cluster, struct{}{})
			d.log.Debug("works of a cluster cannot be listed, trying again", "cluster", cluster, "err", err, "after", wait)
		}
		return
	}
	d.talks.Forget(cluster, struct{}{})
	d.settleFlights(cluster, held)

	d.mu.Lock()
	t := d.said[cluster]
	delete(d.said, cluster)
	p := d.peerLocked(cluster)
	if t != nil && t.digest != nil {
		p.answeredAt = time.Now()
	}
	d.mu.Unlock()
	if t == nil {
		return
	}
	if len(t.pages) > 0 {
		d.compareEntries(ctx, cluster, held, t.pages)
	}
	if t.digest != nil {
		d.answerDigest(ctx, cluster, held, asOf, t.digest)
	}
}

// answerDigest says to a cluster that it has what it should, or in which
// buckets it may not. held is what the source had at asOf or later.
func (d *Dispatcher) answerDigest(ctx context.Context, cluster string, held []Held, asOf time.Time, m *codec.Digest) {
	excuses := d.excusesFor(cluster, held)
	spec, status := expected(m.Instance, held, excuses, d.noStatus)
	specRoot, statusRoot := spec.Root(), status.Root()
	_, term := d.leadership()
	to := brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: cluster, Key: keyDigest}
	unclaimed := d.compared(cluster, specRoot == m.Spec, asOf)
	if specRoot == m.Spec && statusRoot == m.Status {
		d.metrics.digests.WithLabelValues("match").Inc()
		d.answerWith(ctx, to, typeMatch, codec.Match{
			Source: d.id, Instance: m.Instance, Term: term,
			Spec: specRoot.Short(), Status: statusRoot.Short(), Unclaimed: unclaimed,
		})
		return
	}
	answer := codec.Buckets{Source: d.id, Instance: m.Instance, Term: term, Works: spec.Len()}
	result := "status_differs"
	if specRoot != m.Spec {
		result = "differs"
		all := spec.All()
		answer.Spec = &all
	}
	if statusRoot != m.Status {
		all := status.All()
		answer.Status = &all
	}
	d.metrics.digests.WithLabelValues(result).Inc()
	d.answerWith(ctx, to, typeBuckets, answer)
}

// answerWith sends an answer. One that cannot be sent is not tried again: the
// agent comes again with a digest, which may be another by then.
func (d *Dispatcher) answerWith(ctx context.Context, to brokers.Topic, typ string, m codec.Message) {
	err := d.announce(ctx, to, typ, m)
	if err != nil && ctx.Err() == nil && !errors.Is(err, brokers.ErrUnavailable) {
		d.once.warn("digest"+to.Cluster, "digest of a cluster cannot be answered", "cluster", to.Cluster, "err", err)
	}
}

// compared notes whether a cluster had what the source had at asOf, and returns
// how many unclaimed works it has beside, if it had. A status that is still to be
// reported makes no difference here.
func (d *Dispatcher) compared(cluster string, same bool, asOf time.Time) (unclaimed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(cluster)
	if p.inSync != same {
		p.inSync = same
		d.saveLocked(cluster)
	}
	if !same {
		return 0
	}
	p.syncedAt = asOf
	d.claimLocked(cluster, p)
	return len(p.unclaimed)
}

// excusesFor returns the excuses of a cluster that still hold. The others end.
func (d *Dispatcher) excusesFor(cluster string, held []Held) map[string]excuse {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(cluster)
	if len(p.excuses) > 0 {
		versions := make(map[string]version, len(held))
		for _, h := range held {
			versions[h.ID] = versionOf(h)
		}
		for id, x := range p.excuses {
			refusedNoMore := x.cause == causeRefused && !d.givenUpLocked(Key{cluster, id}, x.own.generation)
			if versions[id] != x.own || refusedNoMore {
				p.dropExcuse(id)
			}
		}
	}
	return maps.Clone(p.excuses)
}

// claimLocked has the list of unclaimed works follow the excuses.
func (d *Dispatcher) claimLocked(cluster string, p *peer) {
	var now []Unclaimed
	for id, x := range p.excuses {
		if x.cause == causeUnclaimed {
			now = append(now, Unclaimed{ID: id, Name: x.has.Name, Generation: x.has.Generation, Deleting: x.has.Deleting})
		}
	}
	slices.SortFunc(now, func(a, b Unclaimed) int { return strings.Compare(a.ID, b.ID) })
	if slices.Equal(now, p.unclaimed) {
		return
	}
	if len(now) > len(p.unclaimed) {
		d.log.Warn("cluster holds works that this source does not know; they stay there untouched",
			"cluster", cluster, "works", len(now))
	}
	p.unclaimed = now
	d.saveLocked(cluster)
}

// expected sums up under the key of an agent what it would have if it differed
// from the source in nothing but what is excused. noStatus is the hash of an
// empty status, which agents leave empty.
func expected(key digest.Key, held []Held, excuses map[string]excuse, noStatus string) (spec, status *digest.Set) {
	spec, status = digest.NewSet(key), digest.NewSet(key)
	add := func(x excuse, hash string) {
		if !x.lacks {
			spec.AddSpec(x.has.ID, x.has.Generation, x.has.Digest, x.has.Deleting)
			status.AddStatus(x.has.ID, hash)
		}
	}
	for _, h := range held {
		hash := h.StatusHash
		if hash == noStatus {
			hash = ""
		}
		x, excused := excuses[h.ID]
		switch {
		case !excused:
			spec.AddSpec(h.ID, h.Generation, h.Digest, h.Deleting)
			status.AddStatus(h.ID, hash)
		case x.cause == causeAhead:
			add(x, x.has.Status) // The source takes no report on what it has not.
		default:
			add(x, hash)
		}
	}
	for _, x := range excuses {
		if !x.own.held {
			add(x, x.has.Status)
		}
	}
	return spec, status
}
