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

const (
	// maxPageBytes bounds what these pages take, except for a single one, which
	// codec bounds.
	maxPageBytes = 8 << 20

	// requestFor is how long a cluster may take to list what it was asked for.
	requestFor = 5 * time.Minute
)

// A request is for the entries of an instance: of each bucket once.
type request struct {
	instance digest.Key
	at       time.Time
	listed   [digest.Buckets / 64]uint64 // The buckets that were listed since.
}

// take says whether a page is what was asked for, and notes its buckets.
func (r *request) take(m codec.Entries, now time.Time) bool {
	if m.Instance != r.instance || now.Sub(r.at) > requestFor {
		return false
	}
	for _, b := range m.Buckets {
		if r.listed[b/64]&(1<<(b%64)) != 0 {
			return false
		}
	}
	for _, b := range m.Buckets {
		r.listed[b/64] |= 1 << (b % 64)
	}
	return true
}

// A talk is what a cluster said in the comparison of digests and was not taken
// by a worker yet.
type talk struct {
	digest *codec.Digest
	pages  []codec.Entries
	works  int // That the pages list,
	bytes  int // and about what these take.
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

// takeEntries queues one page of what a cluster holds, if it was asked for that,
// and returns what becomes of it. Pages that come one after the other are
// compared together, after the first.
func (d *Dispatcher) takeEntries(cluster string, m codec.Entries) (result string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, now := d.peerLocked(cluster), time.Now()
	bytes := pageBytes(m)
	if t := d.said[cluster]; t != nil && len(t.pages) > 0 &&
		(t.works+len(m.Entries) > maxPages || t.bytes+bytes > maxPageBytes || len(t.pages) >= digest.Buckets) {
		return resultOverflow
	}
	if !p.asked.take(m, now) {
		return resultUnexpected
	}
	t := d.talkLocked(cluster)
	t.pages = append(t.pages, m)
	t.works += len(m.Entries)
	t.bytes += bytes
	d.talks.AddAfter(cluster, struct{}{}, d.options.ComparePause-now.Sub(p.comparedAt))
	return resultOK
}

// pageBytes is about what a page takes.
func pageBytes(m codec.Entries) int {
	n := 0
	for i := range m.Entries {
		e := &m.Entries[i]
		n += 128 + len(e.ID) + len(e.Name) + len(e.Status)
	}
	return n
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
	if t != nil && len(t.pages) > 0 {
		p.comparedAt = time.Now()
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
	spec, status := expected(m.Instance, held, excuses, d.unsavedOf(cluster), d.noStatus)
	specRoot, statusRoot := spec.Root(), status.Root()
	taken := takenOf(held)
	_, term := d.leadership()
	to := brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: cluster, Key: keyDigest}
	unclaimed := d.compared(cluster, specRoot == m.Spec, asOf)
	if specRoot == m.Spec && statusRoot == m.Status {
		d.agree(cluster)
		d.metrics.digests.WithLabelValues("match").Inc()
		d.answerWith(ctx, to, typeMatch, codec.Match{
			Source: d.id, Instance: m.Instance, Term: term,
			Spec: specRoot.Short(), Status: statusRoot.Short(), Unclaimed: unclaimed,
			Taken: taken,
		})
		return
	}
	answer := codec.Buckets{Source: d.id, Instance: m.Instance, Term: term, Works: spec.Len(), Taken: taken}
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
	// Before it is sent: the pages may come before the broker's confirmation.
	d.mu.Lock()
	d.peerLocked(cluster).asked = request{instance: m.Instance, at: time.Now()}
	d.mu.Unlock()
	d.answerWith(ctx, to, typeBuckets, answer)
}

// takenOf is the highest sequence that was taken of a cluster.
func takenOf(held []Held) codec.Sequence {
	var taken codec.Sequence
	for _, h := range held {
		taken = max(taken, h.Sequence)
	}
	return taken
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
// from the source in nothing but what is excused. unsaved are the hashes of
// statuses that the source can never save. noStatus is the hash of an
// empty status, which agents leave empty.
func expected(
	key digest.Key, held []Held, excuses map[string]excuse, unsaved map[string]string, noStatus string,
) (spec, status *digest.Set) {
	spec, status = digest.NewSet(key), digest.NewSet(key)
	add := func(x excuse, hash string) {
		if !x.lacks {
			spec.AddSpec(x.has.ID, x.has.Generation, x.has.Digest, x.has.Deleting)
			status.AddStatus(x.has.ID, hash)
		}
	}
	for _, h := range held {
		hash := normal(h.StatusHash, noStatus)
		if theirs, ok := unsaved[h.ID]; ok {
			hash = theirs // It differs for ever, whoever asks.
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
